"""The single place where an error becomes an HTTP answer, in the dialect of the path that was asked.

    /v1/messages*   Anthropic   {"type": "error", "error": {"type", "message"}, "request_id"}
    /v1/*           OpenAI      {"error": {"message", "type", "param", "code"}}
    /v1beta/*       Google      {"error": {"code", "message", "status", "details"}}
    /v2/*           OIP         {"error": "..."}
    all others      RFC 9457    {"type", "title", "status", "detail", "code", "request_id", "retryable", "errors"}

Raw ASGI code calls `send_error`; FastAPI apps call `install(app)` once; streams that already run put
`stream_error` into their last bytes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import orjson

from nexus.core.errors import InvalidInput, NexusError
from nexus.http.types import RawHeaders, Scope, Send, path_of

log = logging.getLogger("nexus.http")

# Google's own SDK asks for its methods below /v1 too.
_GOOGLE_METHODS: Final = frozenset(
    {"generateContent", "streamGenerateContent", "embedContent", "batchEmbedContents", "countTokens"}
)
_BUDGET_CODES: Final = frozenset({"budget_exceeded", "insufficient_quota"})


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing wrong with one field of the input."""

    field: str
    code: str
    detail: str

    @property
    def pointer(self) -> str:
        """The field as a JSON pointer (RFC 6901): `messages.0.content` is `/messages/0/content`."""
        return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in self.field.split(".") if part)


class ValidationFailed(InvalidInput):
    """The request is not valid."""

    def __init__(self, issues: list[Issue]) -> None:
        """Carry all issues; the message and the field are those of the first."""
        first = issues[0] if issues else Issue("", "invalid", "The request is not valid.")
        message = f"{first.field}: {first.detail}" if first.field else first.detail
        super().__init__(message, field=first.field or None)
        self.issues = issues


@dataclass(frozen=True, slots=True)
class Answer:
    """A rendered error."""

    status: int
    body: dict[str, Any]
    media_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()

    def encode(self) -> bytes:
        """Return the body as JSON bytes."""
        return orjson.dumps(self.body, default=str)

    def raw_headers(self, length: int) -> RawHeaders:
        """Return the ASGI headers of this answer with a body of `length` bytes."""
        raw = [(b"content-type", self.media_type.encode()), (b"content-length", b"%d" % length)]
        raw.extend((name.encode(), value.encode("latin-1")) for name, value in self.headers)
        return raw


def is_budget_end(error: NexusError) -> bool:
    """Tell whether waiting will not help: money or quota has run out."""
    return error.code in _BUDGET_CODES or (error.status == 429 and not error.retryable)


def render(path: str, error: NexusError, request_id: str | None = None) -> Answer:
    """Turn `error` into the answer that clients of `path` understand."""
    answer = _renderer(path)(error, request_id)
    headers = list(answer.headers)
    if is_budget_end(error):
        headers.append(("x-should-retry", "false"))
    elif error.retry_after is not None:
        headers.append(("retry-after", str(max(0, math.ceil(error.retry_after)))))
    if answer.status == 401:
        headers.append(("www-authenticate", "Bearer"))
    if allow := error.details.get("allow"):
        headers.append(("allow", str(allow)))
    return Answer(answer.status, answer.body, answer.media_type, tuple(headers))


def stream_error(path: str, error: NexusError, request_id: str | None = None) -> bytes:
    """Return the event that tells a client of an already running stream what went wrong."""
    data = render(path, error, request_id).encode()
    if _renderer(path) in (_openai, _google):
        return b"data: " + data + b"\n\n"
    return b"event: error\ndata: " + data + b"\n\n"


async def send_error(scope: Scope, send: Send, error: NexusError, *, headers: RawHeaders | None = None) -> None:
    """Answer an ASGI request with `error`, adding `headers`. Errors of status 500 and above are logged."""
    request_id = scope.get("request_id")
    if error.status >= 500:
        log.error("%s: %s", error.code, error.message, exc_info=error.__cause__, extra={"request_id": request_id})
    answer = render(path_of(scope), error, request_id)
    body = answer.encode()
    raw = answer.raw_headers(len(body)) + (headers or [])
    await send({"type": "http.response.start", "status": answer.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def _renderer(path: str) -> Callable[[NexusError, str | None], Answer]:
    if path.startswith("/v1/models/") and path.rpartition(":")[2] in _GOOGLE_METHODS:
        return _google
    if path.startswith("/v1/"):
        return _anthropic if path == "/v1/messages" or path.startswith("/v1/messages/") else _openai
    if path == "/v1":
        return _openai
    if path.startswith("/v1beta/") or path == "/v1beta":
        return _google
    if path.startswith("/v2/") or path == "/v2":
        return _oip
    return _native


def _plain_status(error: NexusError) -> int:
    """The status in the compatible dialects, where a failed validation is 400."""
    return 400 if error.status == 422 else error.status


_OPENAI_CODES: Final = {"unauthenticated": "invalid_api_key", "rate_limited": "rate_limit_exceeded"}


def _openai(error: NexusError, request_id: str | None) -> Answer:
    """https://platform.openai.com/docs/guides/error-codes."""
    status = _plain_status(error)
    code = _OPENAI_CODES.get(error.code, error.code)
    if is_budget_end(error):
        status, kind, code = 429, "insufficient_quota", "insufficient_quota"
    elif status == 429:
        kind = "rate_limit_error"
    elif status == 401:
        kind = "authentication_error"
    elif status == 403:
        kind = "permission_error"
    elif status >= 500:
        kind = "server_error"
    else:
        kind = "invalid_request_error"
    message = error.message if status < 500 or not request_id else f"{error.message} (request {request_id})"
    return Answer(status, {"error": {"message": message, "type": kind, "param": error.field, "code": code}})


_ANTHROPIC_TYPES: Final = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}


_TOO_LONG: Final = "prompt is too long"


def _anthropic(error: NexusError, request_id: str | None) -> Answer:
    """https://docs.anthropic.com/en/api/errors."""
    status = 529 if error.status == 503 else _plain_status(error)
    kind = _ANTHROPIC_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    message = f"{error.field}: {error.message}" if error.field and error.field not in error.message else error.message
    if error.code == "context_length_exceeded" and _TOO_LONG not in message:
        # Clients that shorten a conversation by themselves look for these words.
        message = f"{_TOO_LONG}: {error.message}"
    return Answer(status, {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id})


_GOOGLE_STATUS: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    412: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def _google(error: NexusError, request_id: str | None) -> Answer:
    """https://cloud.google.com/apis/design/errors."""
    status = _plain_status(error)
    name = _GOOGLE_STATUS.get(status, "INVALID_ARGUMENT" if status < 500 else "INTERNAL")
    info: dict[str, Any] = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": error.code.upper()}
    details = [{**info, "domain": "nexus", "metadata": {"request_id": request_id or ""}}]
    if error.field:
        violation = {"field": error.field, "description": error.message}
        details.append({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]})
    if error.retry_after is not None and not is_budget_end(error):
        wait = f"{max(error.retry_after, 0):.9g}s"
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": wait})
    return Answer(status, {"error": {"code": status, "message": error.message, "status": name, "details": details}})


def _oip(error: NexusError, request_id: str | None) -> Answer:
    """https://github.com/kserve/open-inference-protocol."""
    message = f"{error.field}: {error.message}" if error.field and error.field not in error.message else error.message
    return Answer(_plain_status(error), {"error": message})


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _native(error: NexusError, request_id: str | None) -> Answer:
    """https://www.rfc-editor.org/rfc/rfc9457."""
    body: dict[str, Any] = {
        **{name: value for name, value in error.details.items() if name != "allow"},
        "type": f"urn:nexus:error:{error.code}",
        "title": _title(error.status),
        "status": error.status,
        "detail": error.message,
        "code": error.code,
        "request_id": request_id,
        "retryable": error.retryable or error.retry_after is not None,
    }
    issues = error.issues if isinstance(error, ValidationFailed) else []
    if not issues and error.field:
        issues = [Issue(error.field, error.code, error.message)]
    if issues:
        listed = [{"pointer": issue.pointer, "code": issue.code, "detail": issue.detail} for issue in issues]
        body["errors"] = listed
    return Answer(error.status, body, "application/problem+json")
