"""Microsoft Teams: an Adaptive Card through the webhook of a Workflows flow.

Sources: https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using,
https://adaptivecards.io/explorer/AdaptiveCard.html
"""

from __future__ import annotations

from typing import Any, Final

from nexus.automation.channel import ChannelConfig, Notice
from nexus.automation.posting import link_text, needed, post_json

_STYLES: Final = {"critical": "attention", "error": "attention", "warning": "warning", "info": "accent"}


class TeamsConfig(ChannelConfig):
    """Nothing but the address, which is the credential."""


class Teams:
    """The channel `teams`."""

    kind = "teams"
    summary = "A card in Microsoft Teams."
    credential = "The address of a Workflows webhook (When a Teams webhook request is received)"
    Config = TeamsConfig

    async def send(self, notice: Notice, config: TeamsConfig, credential: str | None) -> int | None:
        """Post the card."""
        return (await post_json(needed(credential), {"type": "message", "attachments": [_attachment(notice)]})).status


def _attachment(notice: Notice) -> dict[str, Any]:
    style = "good" if notice.event == "alert.resolved" else _STYLES[notice.severity]
    body: list[dict[str, Any]] = [
        {
            "type": "Container",
            "style": style,
            "bleed": True,
            "items": [
                {"type": "TextBlock", "text": notice.headline[:500], "weight": "Bolder", "size": "Medium", "wrap": True}
            ],
        }
    ]
    if notice.text:
        body.append({"type": "TextBlock", "text": notice.text[:8000], "wrap": True})
    facts = [{"title": name, "value": value} for name, value in notice.facts()]
    if facts:
        body.append({"type": "FactSet", "facts": facts[:20]})
    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": body,
    }
    if notice.link:
        card["actions"] = [{"type": "Action.OpenUrl", "title": link_text(notice), "url": notice.link}]
    return {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}


plug = Teams()
