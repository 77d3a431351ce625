"""Slack: an incoming webhook, or a bot that writes into a conversation.

Sources: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks,
https://docs.slack.dev/reference/methods/chat.postMessage, https://docs.slack.dev/reference/block-kit/blocks
"""

from __future__ import annotations

from typing import Any, Final

import orjson
from pydantic import Field

from nexus.automation.channel import ChannelConfig, Notice
from nexus.automation.errors import RequestFailed, RequestFailedForNow
from nexus.automation.posting import link_text, needed, post_json

_COLORS: Final = {"critical": "#a30200", "error": "#d7263d", "warning": "#daa038", "info": "#439fe0"}
_PASSING: Final = frozenset({"ratelimited", "rate_limited", "internal_error", "fatal_error", "service_unavailable"})


class SlackConfig(ChannelConfig):
    """With a `conversation` a bot writes there; without one the credential is the address of an incoming webhook."""

    conversation: str | None = Field(None, min_length=1, max_length=100, description="Id or #name, for a bot")
    url: str = Field("https://slack.com/api/chat.postMessage", max_length=4_096, description="For a bot")


class Slack:
    """The channel `slack`."""

    kind = "slack"
    summary = "A message in Slack."
    credential = "The address of an incoming webhook, or with a conversation the token of a bot (xoxb-...)"
    Config = SlackConfig

    async def send(self, notice: Notice, config: SlackConfig, credential: str | None) -> int | None:
        """Post the message; a bot's answer says in its body whether it was taken."""
        secret, message = needed(credential), _message(notice)
        if config.conversation is None:
            return (await post_json(secret, message)).status
        headers = {"authorization": f"Bearer {secret}", "content-type": "application/json; charset=utf-8"}
        fetched = await post_json(config.url, {"channel": config.conversation, **message}, headers)
        _check(fetched.body)
        return fetched.status


def _check(body: bytes) -> None:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise RequestFailedForNow("Slack's answer is no JSON.") from None
    if not answer.get("ok"):
        error = str(answer.get("error"))[:80]
        kind = RequestFailedForNow if error in _PASSING else RequestFailed
        raise kind(f"Slack refused the message: {error}.")


def _message(notice: Notice) -> dict[str, Any]:
    color = "#2eb67d" if notice.event == "alert.resolved" else _COLORS[notice.severity]
    title = notice.headline[:150]
    blocks: list[dict[str, Any]] = [{"type": "header", "text": {"type": "plain_text", "text": title}}]
    if notice.text:
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": _escaped(notice.text)[:3000]}})
    fields = [{"type": "mrkdwn", "text": f"*{_escaped(name)}*\n{_escaped(value)}"} for name, value in notice.facts()]
    if fields:
        blocks.append({"type": "section", "fields": fields[:10]})
    if notice.link:
        blocks.append(
            {"type": "context", "elements": [{"type": "mrkdwn", "text": f"<{notice.link}|{link_text(notice)}>"}]}
        )
    return {"text": _escaped(title), "attachments": [{"color": color, "blocks": blocks}]}


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


plug = Slack()
