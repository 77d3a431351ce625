"""PagerDuty: incidents through the Events API v2.

Source: https://developer.pagerduty.com/docs/events-api-v2/trigger-events/
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field

from nexus.automation.channel import ChannelConfig, Notice
from nexus.automation.posting import link_text, needed, post_json

_ACTIONS: Final = {"alert.acknowledged": "acknowledge", "alert.resolved": "resolve"}


class PagerDutyConfig(ChannelConfig):
    """Where events go; accounts of the EU have https://events.eu.pagerduty.com/v2/enqueue."""

    url: str = Field("https://events.pagerduty.com/v2/enqueue", min_length=8, max_length=4_096)
    source: str = Field("nexus", min_length=1, max_length=255)


class PagerDuty:
    """The channel `pagerduty`."""

    kind = "pagerduty"
    summary = "An incident in PagerDuty: triggered, acknowledged and resolved."
    credential = "The integration key of a service (Events API v2)"
    Config = PagerDutyConfig

    async def send(self, notice: Notice, config: PagerDutyConfig, credential: str | None) -> int | None:
        """Enqueue the event; those of one alert share its `dedup_key`."""
        action = _ACTIONS.get(notice.event, "trigger")
        event: dict[str, Any] = {
            "routing_key": needed(credential),
            "event_action": action,
            "dedup_key": notice.key[:255],
        }
        if action == "trigger":
            event["payload"] = {
                "summary": notice.title[:1024],
                "source": config.source,
                "severity": notice.severity,
                "timestamp": notice.at,
                "custom_details": {**notice.details, **({"text": notice.text} if notice.text else {})},
            }
            event["client"] = "NEXUS"
            if notice.link:
                event |= {"client_url": notice.link, "links": [{"href": notice.link, "text": link_text(notice)}]}
        return (await post_json(config.url, event)).status


plug = PagerDuty()
