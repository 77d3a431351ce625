"""Signatures of webhooks: whether a call is from whom it says, as it was sent, and fresh. Pure, no I/O.

`standard`: Standard Webhooks 1.0.0 (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md);
`github`: https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries;
`stripe`: https://docs.stripe.com/webhooks#verify-manually; `hmac`: whoever else signs with a shared secret.

A signature without a time can be sent again under another id, as ids outside of what is signed prove nothing:
`Signed.fingerprint` is then the digest of what was signed, which may not come twice.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator

from nexus.automation.errors import HookStale, HookUnsigned, TriggerInvalid

Preset = Literal["standard", "github", "stripe", "hmac"]
Headers = Mapping[str, str]
"""Header lines by lower-case name; several of one name are joined by commas."""

TOLERANCE: Final = 300
"""Seconds that a signed time may lie in the past or the future."""

_PREFIX: Final = "whsec_"
_SHORTEST: Final = 16
_TIME: Final = re.compile(r"[0-9]{1,14}")
_ID: Final = re.compile(r"[\x21-\x7e]{1,255}")
_PLACES: Final = re.compile(r"(\{id\}|\{timestamp\}|\{body\})")
_SEPARATORS: Final = re.compile(r"[,\s]+")
_MILLISECONDS: Final = 10**11
_MOST: Final = 32


@dataclass(frozen=True, slots=True)
class Signed:
    """What a true signature vouches for: the id of the delivery, and what may not come under another id."""

    id: str
    fingerprint: str | None = None


class HmacScheme(BaseModel):
    """How some sender signs, in its own way."""

    model_config = ConfigDict(extra="forbid")

    header: str = Field(min_length=1, max_length=100, description="Where the signature stands")
    algorithm: Literal["sha256", "sha512", "sha384", "sha1"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    prefix: str = Field("", max_length=32, description="What stands before it, `sha256=`")
    content: str = Field("{body}", max_length=200, description="What is signed, `v0:{timestamp}:{body}`")
    id_header: str | None = Field(None, min_length=1, max_length=100, description="Where the id of a delivery stands")
    timestamp_header: str | None = Field(None, min_length=1, max_length=100, description="Seconds since 1970")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.content.count("{body}") != 1:
            raise ValueError("content must have {body} once")
        if ("{timestamp}" in self.content) != (self.timestamp_header is not None):
            raise ValueError("content must have {timestamp} if there is a timestamp_header, and only then")
        if "{id}" in self.content and self.id_header is None:
            raise ValueError("content has {id}, but there is no id_header")
        return self


def new_secret(preset: Preset) -> str:
    """Return a fresh secret in the form that senders of this kind expect."""
    if preset == "standard":
        return _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
    return secrets.token_urlsafe(32)


def check_secret(preset: Preset, secret: str) -> None:
    """Raise `TriggerInvalid` for a secret that this kind of sender cannot have."""
    if preset == "standard":
        standard_key(secret)
    elif not _SHORTEST <= len(secret) <= 255:
        raise TriggerInvalid(f"A secret has {_SHORTEST} to 255 characters.", field="secret")


def standard_key(secret: str) -> bytes:
    """Return the 24 to 64 bytes in `whsec_<base64>`. Raises `TriggerInvalid`."""
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not 24 <= len(key) <= 64:
        raise TriggerInvalid("A secret is whsec_ and 24 to 64 bytes in base64.", field="secret")
    return key


def sign_standard(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the `webhook-signature` of a message, as a sender of Standard Webhooks makes it."""
    digest = hmac.digest(standard_key(secret), b"%s.%d.%s" % (message_id.encode(), timestamp, body), "sha256")
    return "v1," + base64.b64encode(digest).decode()


def verify(
    preset: Preset, scheme: HmacScheme | None, keys: Sequence[str], headers: Headers, body: bytes, now: float
) -> Signed:
    """Return what the call's signature vouches for, made with any of the secrets `keys`.

    `now` is in seconds since 1970. Raises `HookUnsigned` where there is no signature that fits, `HookStale`
    where one does, but is older than `TOLERANCE` or from the future.
    """
    if preset == "standard":
        return _standard(keys, headers, body, now)
    if preset == "github":
        return _github(keys, headers, body)
    if preset == "stripe":
        return _stripe(keys, headers, body, now)
    assert scheme is not None
    return _hmac(scheme, keys, headers, body, now)


def _standard(keys: Sequence[str], headers: Headers, body: bytes, now: float) -> Signed:
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    # A dot in the id could move the borders between id, time and body.
    if not _ID.fullmatch(message_id) or "." in message_id or not _TIME.fullmatch(timestamp):
        raise HookUnsigned
    content = f"{message_id}.{timestamp}.".encode() + body
    given = [part[3:] for part in headers.get("webhook-signature", "").split()[:_MOST] if part.startswith("v1,")]
    expected = [hmac.digest(standard_key(key), content, "sha256") for key in keys]
    _must_fit(_decoded(given, "base64"), expected)
    _must_be_fresh(timestamp, now)
    return Signed(message_id)


def _github(keys: Sequence[str], headers: Headers, body: bytes) -> Signed:
    given = headers.get("x-hub-signature-256", "")
    expected = [hmac.digest(key.encode(), body, "sha256") for key in keys]
    _must_fit(_decoded([given.removeprefix("sha256=")] if given.startswith("sha256=") else [], "hex"), expected)
    return _identified(headers.get("x-github-delivery"), body)


def _stripe(keys: Sequence[str], headers: Headers, body: bytes, now: float) -> Signed:
    pairs = [part.partition("=") for part in headers.get("stripe-signature", "").split(",")[:_MOST]]
    times = [value.strip() for name, _, value in pairs if name.strip() == "t"]
    given = [value.strip() for name, _, value in pairs if name.strip() == "v1"]
    if len(times) != 1 or not _TIME.fullmatch(times[0]):
        raise HookUnsigned
    content = f"{times[0]}.".encode() + body
    _must_fit(_decoded(given, "hex"), [hmac.digest(key.encode(), content, "sha256") for key in keys])
    _must_be_fresh(times[0], now)
    try:
        event = orjson.loads(body)
    except orjson.JSONDecodeError:
        event = None
    named = event.get("id") if isinstance(event, dict) else None
    return Signed(named if isinstance(named, str) and _ID.fullmatch(named) else _digest(body))


def _hmac(scheme: HmacScheme, keys: Sequence[str], headers: Headers, body: bytes, now: float) -> Signed:
    sent = {
        "{body}": body,
        "{id}": headers.get((scheme.id_header or "").lower(), "").encode(),
        "{timestamp}": headers.get((scheme.timestamp_header or "").lower(), "").encode(),
    }
    if scheme.timestamp_header is not None and not _TIME.fullmatch(sent["{timestamp}"].decode()):
        raise HookUnsigned
    content = b"".join(sent.get(part, part.encode()) for part in _PLACES.split(scheme.content))
    parts = _SEPARATORS.split(headers.get(scheme.header.lower(), ""))[:_MOST]
    given = [part[len(scheme.prefix) :] for part in parts if part.startswith(scheme.prefix)]
    expected = [hmac.digest(key.encode(), content, scheme.algorithm) for key in keys]
    _must_fit(_decoded(given, scheme.encoding), expected)
    if scheme.timestamp_header is not None:
        _must_be_fresh(sent["{timestamp}"].decode(), now)
    if "{id}" in scheme.content and sent["{id}"]:
        return Signed(_id_of(sent["{id}"].decode()))
    return _identified(sent["{id}"].decode() or None, content)


def _identified(named: str | None, content: bytes) -> Signed:
    """Return the id that stands beside the signature, and what was signed; the latter alone where there is none."""
    return Signed(_digest(content)) if named is None else Signed(_id_of(named), _digest(content))


def _id_of(text: str) -> str:
    if not _ID.fullmatch(text):
        raise HookUnsigned("The id of the delivery cannot be read.")
    return text


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _decoded(given: Iterable[str], encoding: Literal["hex", "base64"]) -> list[bytes]:
    found = []
    for text in given:
        try:
            found.append(bytes.fromhex(text) if encoding == "hex" else base64.b64decode(text, validate=True))
        except (binascii.Error, ValueError):
            continue
    return found


def _must_fit(given: Iterable[bytes], expected: Sequence[bytes]) -> None:
    # Every pair is compared, in constant time, so that the answer's time tells nothing.
    fits = [hmac.compare_digest(one, other) for one in given for other in expected]
    if True not in fits:
        raise HookUnsigned


def _must_be_fresh(timestamp: str, now: float) -> None:
    at = int(timestamp)
    at = at // 1000 if at > _MILLISECONDS else at
    if abs(now - at) > TOLERANCE:
        raise HookStale
