"""The root of every error that NEXUS raises on purpose.

    NexusError                 500 internal_error
    |-- InvalidInput           422 invalid_input
    |   |-- MalformedBody      400 malformed_body
    |   |-- TooLarge           413 too_large
    |   `-- UnsupportedMedia   415 unsupported_media_type
    |-- Unauthenticated        401 unauthenticated
    |-- Forbidden              403 forbidden
    |-- NotFound               404 not_found
    |-- MethodNotAllowed       405 method_not_allowed
    |-- Conflict               409 conflict
    |-- PreconditionFailed     412 precondition_failed
    |-- RateLimited            429 rate_limited
    |-- Unavailable            503 unavailable
    `-- DeadlineExceeded       504 deadline_exceeded

Each slice hangs its own tree below these in its `errors.py`. The docstring of a class is its
default message. `nexus.http.problem` is the single place that turns an error into an HTTP answer.
"""

from __future__ import annotations

from inspect import cleandoc
from typing import Any, ClassVar


class NexusError(Exception):
    """Something went wrong inside NEXUS."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str | None = None,
        *,
        field: str | None = None,
        retry_after: float | None = None,
        **details: Any,
    ) -> None:
        """Describe what happened in words that are safe to show to the caller.

        `field` names the offending input in dotted form (`messages.0.content`); `retry_after` is
        in seconds; `details` are extra JSON members of the answer. Never pass text of a foreign
        exception, a path, an address or a secret.
        """
        self.message = message or cleandoc(type(self).__doc__ or "").partition("\n")[0]
        self.field = field
        self.retry_after = retry_after
        self.details = details
        super().__init__(self.message)


class InvalidInput(NexusError):
    """The request is not valid."""

    code = "invalid_input"
    status = 422


class MalformedBody(InvalidInput):
    """The request body could not be read."""

    code = "malformed_body"
    status = 400


class TooLarge(InvalidInput):
    """The request is larger than allowed."""

    code = "too_large"
    status = 413


class UnsupportedMedia(InvalidInput):
    """The content type of the request is not supported here."""

    code = "unsupported_media_type"
    status = 415


class Unauthenticated(NexusError):
    """A valid API key or session is required."""

    code = "unauthenticated"
    status = 401


class Forbidden(NexusError):
    """The credential does not allow this."""

    code = "forbidden"
    status = 403


class NotFound(NexusError):
    """There is nothing here."""

    code = "not_found"
    status = 404


class MethodNotAllowed(NexusError):
    """This method is not allowed here."""

    code = "method_not_allowed"
    status = 405


class Conflict(NexusError):
    """The request conflicts with the present state."""

    code = "conflict"
    status = 409


class PreconditionFailed(NexusError):
    """The resource has changed since it was read."""

    code = "precondition_failed"
    status = 412


class RateLimited(NexusError):
    """Too many requests; try again later."""

    code = "rate_limited"
    status = 429
    retryable = True


class Unavailable(NexusError):
    """The service cannot answer at the moment; try again later."""

    code = "unavailable"
    status = 503
    retryable = True


class DeadlineExceeded(NexusError):
    """The work took longer than allowed."""

    code = "deadline_exceeded"
    status = 504
    retryable = True
