"""Claude models behind InvokeModel in their own form, the Messages API, for clients that speak it: byte for byte.

Source: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages.html. The model
stands in the path, the version and the betas in the body, and events come in binary frames, as base64.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from nexus.core.errors import NexusError
from nexus.core.services import Services
from nexus.llm.account import Account, Endpoint
from nexus.llm.errors import ContextTooLong, UpstreamMalformed, UpstreamRejected
from nexus.llm.forms.converse.families import plain_name
from nexus.llm.provider import Provider
from nexus.llm.providers.anthropic import AnthropicProvider
from nexus.llm.types import Call
from nexus.llm.wire.bedrock import countable, error_of, kind_of, post, read_error, told_of
from nexus.llm.wire.client import HttpAnswer, HttpRequest
from nexus.llm.wire.eventstream import CONTENT_TYPE, FrameSplitter
from nexus.llm.wire.upstream_json import json_of

_VERSION: Final = "bedrock-2023-05-31"
# The beta features that Bedrock knows; it refuses a request that names another.
_BETAS: Final = (
    "computer-use-2024-10-22",
    "computer-use-2025-01-24",
    "computer-use-2025-11-24",
    "context-1m-2025-08-07",
    "context-management-2025-06-27",
    "dev-full-thinking-2025-05-14",
    "effort-2025-11-24",
    "fine-grained-tool-streaming-2025-05-14",
    "interleaved-thinking-2025-05-14",
    "output-128k-2025-02-19",
    "token-efficient-tools-2025-02-19",
    "tool-examples-2025-10-29",
    "tool-search-tool-2025-10-19",
)
_ERRORS: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
}
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode


class InvokedMessages(AnthropicProvider):
    """The Messages API by way of InvokeModel, InvokeModelWithResponseStream and CountTokens."""

    def __init__(self, host: Provider) -> None:
        """`host` knows where the calls go."""
        self._host = host

    async def endpoint(self, account: Account, services: Services) -> Endpoint:
        """Find where the calls go."""
        return await self._host.endpoint(account, services)

    def chat(self, endpoint: Endpoint, model: str, call: Call) -> HttpRequest:
        """Write a request: every field of its body is kept but the model and whether it streams."""
        action = "invoke-with-response-stream" if call.stream else "invoke"
        return post(endpoint, model, action, _written(endpoint, call), wrapping=InvokeWrapping)

    def count(self, endpoint: Endpoint, model: str, call: Call) -> HttpRequest | None:  # type: ignore[override]  # as any kind may
        """Write a request that counts tokens; it wants a limit of output, whatever that is."""
        if not countable(model):
            return None
        fields = _fields.decode(_written(endpoint, call))
        body = _encode({"max_tokens": msgspec.Raw(b"1")} | fields)
        told = _encode({"input": {"invokeModel": {"body": base64.b64encode(body).decode()}}})
        return post(endpoint, plain_name(model), "count-tokens", told, wrapping=InvokeWrapping)

    def error(self, answer: HttpAnswer) -> NexusError:
        """Turn an error answer into ours."""
        told = told_of(answer.body).get("error")
        return read_error(answer, told.get("message") if isinstance(told, dict) else None)


class InvokeWrapping:
    """Turns what Bedrock puts around the Messages form into that form: frames, errors, counts."""

    def __init__(self, headers: dict[str, str]) -> None:
        """Know from the headers whether frames follow."""
        self._splitter = FrameSplitter() if headers.get("content-type", "").startswith(CONTENT_TYPE) else None

    def feed(self, data: bytes) -> bytes:
        """Return the events in the frames that `data` completes."""
        if self._splitter is None:
            return data
        return b"".join(_event(frame.headers, frame.payload) for frame in self._splitter.feed(data))

    def end(self) -> bytes:
        """Return the rest. Raises `UpstreamTruncated` within a frame."""
        if self._splitter is None:
            return b""
        return b"".join(_event(frame.headers, frame.payload) for frame in self._splitter.end())

    def whole(self, answer: HttpAnswer) -> HttpAnswer:
        """Return an answer with errors and counts as the Messages API has them."""
        if answer.status != 200:
            told = told_of(answer.body)
            error = read_error(answer)
            headers = answer.headers | {"x-amzn-errortype": kind_of(answer, told)}
            return msgspec.structs.replace(answer, headers=headers, body=_error(error, answer.status))
        if answer.body.startswith(b'{"inputTokens"'):
            tokens = json_of(answer.body).get("inputTokens")
            return msgspec.structs.replace(answer, body=_encode({"input_tokens": tokens}))
        return answer


def _written(endpoint: Endpoint, call: Call) -> bytes:
    fields = _fields.decode(call.body)
    for name in ("model", "stream"):
        fields.pop(name, None)
    fields.setdefault("anthropic_version", msgspec.Raw(_encode(_VERSION)))
    known = endpoint.options.get("betas", _BETAS)
    asked = [beta.strip() for name, value in call.headers if name == b"anthropic-beta" for beta in _listed(value)]
    if "anthropic_beta" not in fields and (betas := [beta for beta in asked if beta in known]):
        fields["anthropic_beta"] = msgspec.Raw(_encode(betas))
    return _encode(fields)


def _listed(value: bytes) -> list[str]:
    return value.decode("latin-1").split(",")


def _event(headers: Mapping[str, Any], payload: bytes) -> bytes:
    """Return an event of the Messages API for one frame, nothing for one of another sort."""
    said = headers.get(":message-type")
    if said == "event":
        inside = json_of(payload).get("bytes")
        if not isinstance(inside, str):
            return b""
        try:
            data = base64.b64decode(inside, validate=True)
        except ValueError:
            raise UpstreamMalformed from None
        kind = json_of(data).get("type")
        if b"\n" in data:
            data = msgspec.json.format(data, indent=-1)
        return b"event: " + str(kind).encode() + b"\ndata: " + data + b"\n\n"
    if said == "error":
        error = error_of(str(headers.get(":error-code", "")), headers.get(":error-message"))
    else:
        error = error_of(str(headers.get(":exception-type", "")), told_of(payload).get("message"))
    return b"event: error\ndata: " + _error(error, error.status) + b"\n\n"


def _error(error: NexusError, status: int) -> bytes:
    caused_there = isinstance(error, UpstreamRejected | ContextTooLong)
    kind = _ERRORS.get(400 if isinstance(error, ContextTooLong) else status)
    kind = kind or ("invalid_request_error" if caused_there else "overloaded_error" if status == 503 else "api_error")
    return _encode({"type": "error", "error": {"type": kind, "message": error.message}})
