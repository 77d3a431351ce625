"""A signed call of a web address, as Standard Webhooks say.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from dataclasses import asdict
from typing import Final

import orjson
from pydantic import Field

from nexus.automation.channel import ChannelConfig, Notice
from nexus.automation.errors import ChannelInvalid
from nexus.automation.posting import needed, post

_PREFIX: Final = "whsec_"
_RESERVED: Final = frozenset({"webhook-id", "webhook-timestamp", "webhook-signature", "content-type"})


class WebhookConfig(ChannelConfig):
    """Where to call, and what to say besides the signature."""

    url: str = Field(min_length=8, max_length=4_096)
    headers: dict[str, str] = Field(default_factory=dict, max_length=20)


class Webhook:
    """The channel `webhook`."""

    kind = "webhook"
    summary = "A signed call of a web address (Standard Webhooks)."
    credential = (
        "The key that signs: whsec_ and 24 to 64 bytes in base 64, or two while one replaces the other; made if none"
    )
    Config = WebhookConfig

    async def send(self, notice: Notice, config: WebhookConfig, credential: str | None) -> int | None:
        """Post `{type, timestamp, data}`; every failure but 410 is worth another attempt."""
        body = orjson.dumps({"type": notice.event, "timestamp": notice.at, "data": _data(notice)})
        stamp = str(int(time.time()))
        headers = {name: value for name, value in config.headers.items() if name.lower() not in _RESERVED}
        headers |= {
            "webhook-id": notice.id,
            "webhook-timestamp": stamp,
            "webhook-signature": signature(needed(credential), notice.id, stamp, body),
        }
        return (await post(config.url, body, headers, patient=True)).status


def _data(notice: Notice) -> dict[str, object]:
    data = asdict(notice)
    del data["event"], data["id"]
    return data


def signature(secrets: str, message_id: str, stamp: str, body: bytes) -> str:
    """Return the header that signs a message with each of the secrets. Raises `ChannelInvalid`."""
    signed = f"{message_id}.{stamp}.".encode() + body
    digests = [hmac.digest(_key(secret), signed, hashlib.sha256) for secret in secrets.split()]
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if not secret.startswith(_PREFIX) or not 24 <= len(key) <= 64:
        raise ChannelInvalid("The key of a webhook is whsec_ and 24 to 64 bytes in base 64.", field="credential")
    return key


plug = Webhook()
