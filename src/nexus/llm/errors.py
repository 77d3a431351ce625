"""Errors of the language slice, and the one place that reads an upstream's status.

NotFound
|-- NotCached                404 not_cached
|-- UnknownResponse          404 response_not_found
`-- UnknownModel             404 model_not_found
    `-- UpstreamModelMissing 404 model_not_found
InvalidInput
|-- InvalidRequest           400 invalid_value
|   |-- MissingParameter     400 missing_required_parameter
|   |-- WrongType            400 invalid_type
|   |-- Unsupported          400 unsupported_parameter
|   |-- ContextTooLong       400 context_length_exceeded
|   `-- SchemaInvalid        400 schema_invalid
|-- AnswerInvalid            422 answer_invalid
`-- UpstreamRejected         as the upstream said (400, 409, 413, 415, 422): upstream_rejected
RateLimited
`-- UpstreamRateLimited      429 upstream_rate_limited
Unavailable
`-- UpstreamUnavailable      503 upstream_unavailable
DeadlineExceeded
`-- UpstreamTimeout          504 upstream_timeout
    `-- UpstreamStalled      504 upstream_timeout
UpstreamError                502 upstream_error
|-- AnswerFailed             502 answer_failed
|-- UpstreamCredentials      502 upstream_credentials
|-- UpstreamMalformed        502 upstream_malformed
`-- UpstreamTruncated        502 upstream_truncated
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from nexus.core.errors import DeadlineExceeded, InvalidInput, NexusError, NotFound, RateLimited, Unavailable


class UnknownModel(NotFound):
    """There is no model of this name."""

    code = "model_not_found"


class NotCached(NotFound):
    """There is no kept answer to this request, and only a kept one was asked for."""

    code = "not_cached"


class UnknownResponse(NotFound):
    """There is no response of this id."""

    code = "response_not_found"


class UpstreamModelMissing(UnknownModel):
    """The provider does not know this model."""

    def __init__(self, message: str | None = None, **more: Any) -> None:
        """Name the model as the field at fault."""
        super().__init__(message, **({"field": "model"} | more))


class InvalidRequest(InvalidInput):
    """A parameter has a value that is not allowed."""

    code = "invalid_value"
    status = 400


class MissingParameter(InvalidRequest):
    """A required parameter is missing."""

    code = "missing_required_parameter"


class WrongType(InvalidRequest):
    """A parameter has the wrong type."""

    code = "invalid_type"


class Unsupported(InvalidRequest):
    """This model does not support a parameter of the request."""

    code = "unsupported_parameter"


class ContextTooLong(InvalidRequest):
    """The request is longer than the context of this model."""

    code = "context_length_exceeded"


class SchemaInvalid(InvalidRequest):
    """The JSON schema of the request is not valid."""

    code = "schema_invalid"


class AnswerInvalid(InvalidInput):
    """The model's answer does not have the form that was asked for, also after it was told so."""

    code = "answer_invalid"


class UpstreamRejected(InvalidInput):
    """The provider refused the request as invalid."""

    code = "upstream_rejected"
    status = 400

    def __init__(
        self, message: str | None = None, *, upstream_status: int = 400, body: bytes = b"", **more: Any
    ) -> None:
        """Keep the provider's status, and its `body` for callers who speak the provider's own dialect."""
        super().__init__(message, **more)
        self.upstream_status = upstream_status
        self.body = body
        self.event = b""

    def without(self, private: tuple[str, ...]) -> UpstreamRejected:
        """Return this error, or a bare one if it repeats any of the `private` words."""
        said = self.message.encode() + self.body + self.event
        if any(word.encode() in said for word in private):
            return UpstreamRejected(upstream_status=self.upstream_status, field=self.field)
        return self


class UpstreamRateLimited(RateLimited):
    """The provider is limiting requests at the moment."""

    code = "upstream_rate_limited"


class UpstreamUnavailable(Unavailable):
    """The provider cannot be reached or cannot answer at the moment."""

    code = "upstream_unavailable"


class UpstreamTimeout(DeadlineExceeded):
    """The provider did not answer in time."""

    code = "upstream_timeout"


class UpstreamStalled(UpstreamTimeout):
    """The provider did not answer in time, though it had the request."""


class UpstreamError(NexusError):
    """The provider failed."""

    code = "upstream_error"
    status = 502


class AnswerFailed(UpstreamError):
    """The model did not come to a proper end of its answer: what it said can not be used."""

    code = "answer_failed"
    retryable = True

    @classmethod
    def of(cls, reason: str) -> AnswerFailed:
        """Return the error for an answer that failed for a `reason` in its provider's words, "" for none."""
        return cls(f"The model's answer failed, for a reason that its provider calls {reason}." if reason else None)

    @classmethod
    def check(cls, reason: str | None) -> None:
        """Raise the error where there is a reason."""
        if reason is not None:
            raise cls.of(reason)


class UpstreamCredentials(UpstreamError):
    """The provider refused the credentials that are stored for it here; an administrator must renew them."""

    code = "upstream_credentials"


class UpstreamMalformed(UpstreamError):
    """The provider answered with something that could not be read."""

    code = "upstream_malformed"
    retryable = True


class UpstreamTruncated(UpstreamError):
    """The provider's answer ended before it was complete."""

    code = "upstream_truncated"
    retryable = True


def retry_after_seconds(value: str | None) -> float | None:
    """Read a Retry-After header: seconds, or an HTTP date; None when absent or nonsense. At most a day."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = (moment - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), 86_400.0) if seconds == seconds else None


def from_status(status: int, *, message: str | None, body: bytes, retry_after: float | None) -> NexusError:
    """Turn an upstream's error status into ours.

    `message` is the upstream's own wording, used only where the fault is the caller's; everything
    else is said in our words, since theirs may name keys, accounts and addresses.
    """
    if status in (401, 403):
        return UpstreamCredentials()
    if status == 404:
        return UpstreamModelMissing()
    if status == 408:
        return UpstreamTimeout(retry_after=retry_after)
    if status == 429:
        return UpstreamRateLimited(retry_after=retry_after)
    if status == 402:
        return UpstreamCredentials("The account at the provider has no credit left; an administrator must act.")
    if 400 <= status < 500:
        return UpstreamRejected(message, upstream_status=status, body=body)
    if status >= 500:
        return UpstreamUnavailable(retry_after=retry_after)
    return UpstreamMalformed()


def from_stream(error: Any, *, body: bytes = b"", event: bytes = b"") -> NexusError:
    """Turn an error object found in the place of an answer into ours.

    Where the fault is the caller's, `body` (the JSON that holds it) and `event` (the raw event of a
    stream) are kept for callers who speak the provider's dialect; else its words stay here.
    """
    told = error if isinstance(error, dict) else {}
    code, kind, message = told.get("code"), str(told.get("type") or ""), told.get("message")
    numbers = [int(n) for n in (str(told.get("status_code")), str(code)) if n.isdecimal()]
    status = next((n for n in numbers if 400 <= n < 600), None)
    if status is None and kind == "invalid_request_error":
        status = 400
    if status is not None:
        text = message[:2000] if isinstance(message, str) and message else None
        found = from_status(status, message=text, body=body, retry_after=None)
        if isinstance(found, UpstreamRejected):
            found.event = event
        return found
    if "rate_limit" in kind or code in ("rate_limit_exceeded", "insufficient_quota"):
        return UpstreamRateLimited()
    return UpstreamUnavailable()
