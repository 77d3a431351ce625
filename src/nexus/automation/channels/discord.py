"""Discord: a webhook of a channel.

Source: https://discord.com/developers/docs/resources/webhook#execute-webhook
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field

from nexus.automation.channel import ChannelConfig, Notice
from nexus.automation.posting import needed, post_json

_COLORS: Final = {"critical": 0xA30200, "error": 0xD7263D, "warning": 0xDAA038, "info": 0x439FE0}
_RESOLVED: Final = 0x2EB67D


class DiscordConfig(ChannelConfig):
    """How the message is signed; the address is the credential."""

    username: str = Field("NEXUS", min_length=1, max_length=80)


class Discord:
    """The channel `discord`."""

    kind = "discord"
    summary = "A message in Discord."
    credential = "The address of a webhook (https://discord.com/api/webhooks/...)"
    Config = DiscordConfig

    async def send(self, notice: Notice, config: DiscordConfig, credential: str | None) -> int | None:
        """Post the message; nobody is mentioned, whatever stands in it."""
        embed: dict[str, Any] = {
            "title": notice.headline[:256],
            "description": notice.text[:3500],
            "color": _RESOLVED if notice.event == "alert.resolved" else _COLORS[notice.severity],
            "timestamp": notice.at,
            # All texts of a message together have at most 6,000 characters.
            "fields": [{"name": name[:100], "value": value[:120], "inline": True} for name, value in notice.facts()][
                :10
            ],
        }
        if notice.link:
            embed["url"] = notice.link
        payload = {"username": config.username, "embeds": [embed], "allowed_mentions": {"parse": []}}
        return (await post_json(needed(credential), payload)).status


plug = Discord()
