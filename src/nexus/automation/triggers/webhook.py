"""When somebody calls `/hooks/{id}` and signs: Standard Webhooks, GitHub, Stripe, or another HMAC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Self
from urllib.parse import parse_qs

from pydantic import Field, model_validator

from nexus.automation.signatures import HmacScheme, Preset, check_secret, new_secret, verify
from nexus.automation.trigger import Arrival, Call, TriggerConfig
from nexus.core.errors import MalformedBody, UnsupportedMedia
from nexus.http.body import parse_json

_HIDDEN: Final = frozenset({"authorization", "cookie", "proxy-authorization", "webhook-signature", "stripe-signature"})
_MOST_FIELDS: Final = 1_000


class WebhookConfig(TriggerConfig):
    """How the sender signs."""

    preset: Preset = Field("standard", description="Whose way of signing")
    hmac: HmacScheme | None = Field(None, description="The way itself, for the preset `hmac`")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.preset == "hmac") != (self.hmac is not None):
            raise ValueError("hmac goes with the preset hmac, and with no other")
        return self


class WebhookTrigger:
    """The kind `webhook`."""

    kind = "webhook"
    summary = "When a signed webhook comes in at /hooks/{id}."
    Config: type[TriggerConfig] = WebhookConfig

    def types(self, config: WebhookConfig) -> Sequence[str]:
        """Return nothing: it is called, it does not listen."""
        return ()

    def admits(self, config: WebhookConfig, event: Mapping[str, Any]) -> bool:
        """Tell that whatever is signed is wanted."""
        return True

    def sample(self, config: WebhookConfig) -> dict[str, Any]:
        """Return a small JSON message."""
        headers = {"content-type": "application/json"}
        body: dict[str, Any] = {"type": "example", "data": {}}
        if config.preset == "github":
            headers |= {"x-github-event": "push", "x-github-delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958"}
            body = {"ref": "refs/heads/main", "repository": {"full_name": "octo/example"}}
        return {"type": "webhook", "subject": "", "headers": headers, "body": body}

    def secret(self, config: WebhookConfig, given: str | None) -> str:
        """Return the secret to share with the sender: `given` or a new one. Raises `TriggerInvalid`."""
        if given is None:
            return new_secret(config.preset)
        check_secret(config.preset, given)
        return given

    def receive(self, config: WebhookConfig, secrets: Sequence[str], call: Call) -> Arrival | None:
        """Return what the call brings; None for GitHub's ping.

        Raises `HookUnsigned`, `HookStale`, and for a body that cannot be read `MalformedBody` or `UnsupportedMedia`.
        """
        signed = verify(config.preset, config.hmac, secrets, call.headers, call.body, call.now)
        if config.preset == "github" and call.headers.get("x-github-event") == "ping":
            return None
        body = body_of(call.headers.get("content-type", ""), call.body)
        if config.preset == "github" and isinstance(body, dict) and isinstance(body.get("payload"), str):
            # GitHub's other content type: a form whose one field holds the JSON.
            body = parse_json(body["payload"].encode())
        hidden = _HIDDEN | ({config.hmac.header.lower()} if config.hmac else set())
        headers = {name: value for name, value in call.headers.items() if name not in hidden}
        event = {"type": "webhook", "subject": "", "headers": headers, "body": body}
        return Arrival(signed.id, event, signed.fingerprint)


def body_of(content_type: str, body: bytes) -> Any:
    """Return a body as templates see it: JSON as its value, a form as an object, text as text.

    Without a content type it is JSON where it can be. Raises `MalformedBody`, `UnsupportedMedia`.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if not body:
        return None
    if kind == "application/json" or kind.endswith("+json"):
        return parse_json(body)
    if kind == "application/x-www-form-urlencoded":
        return _form(_text(body))
    if kind.startswith("text/") or kind == "application/xml" or kind.endswith("+xml"):
        return _text(body)
    if kind:
        raise UnsupportedMedia("A webhook's body is JSON, a form or text.", field="content-type")
    try:
        return parse_json(body)
    except MalformedBody:
        return _text(body)


def _text(body: bytes) -> str:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise MalformedBody("The body is not UTF-8.") from None
    if "\0" in text:
        raise MalformedBody("The body contains a NUL character.")
    return text


def _form(text: str) -> dict[str, Any]:
    try:
        fields = parse_qs(text, keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise MalformedBody("The form cannot be read.") from None
    if any("\0" in part for name, values in fields.items() for part in (name, *values)):
        raise MalformedBody("The form contains a NUL character.")
    return {name: values[0] if len(values) == 1 else values for name, values in fields.items()}


plug = WebhookTrigger()
