"""What the web plumbing itself can find wrong.

InvalidInput
|-- UrlNotAllowed        400 url_not_allowed
|-- InvalidCursor        422 invalid_cursor
|-- RequestTimeout       408 request_timeout
|-- HostNotAllowed       421 host_not_allowed
`-- FetchFailed          422 fetch_failed
    `-- FetchTimeout     422 fetch_timeout
Forbidden
`-- OriginNotAllowed     403 origin_not_allowed
Unavailable
|-- Overloaded           503 overloaded
`-- ShuttingDown         503 shutting_down
"""

from __future__ import annotations

from nexus.core.errors import Forbidden, InvalidInput, Unavailable


class UrlNotAllowed(InvalidInput):
    """This URL may not be fetched."""

    code = "url_not_allowed"
    status = 400


class InvalidCursor(InvalidInput):
    """The cursor is not one that this list has given out."""

    code = "invalid_cursor"


class RequestTimeout(InvalidInput):
    """The request arrived too slowly."""

    code = "request_timeout"
    status = 408
    retryable = True


class HostNotAllowed(InvalidInput):
    """This server does not answer for the host that the request names."""

    code = "host_not_allowed"
    status = 421


class FetchFailed(InvalidInput):
    """The URL could not be fetched."""

    code = "fetch_failed"
    retryable = True


class FetchTimeout(FetchFailed):
    """The URL did not answer in time."""

    code = "fetch_timeout"


class OriginNotAllowed(Forbidden):
    """Requests from pages of another origin are not allowed."""

    code = "origin_not_allowed"


class Overloaded(Unavailable):
    """Too many requests are being served at the moment; try again shortly."""

    code = "overloaded"


class ShuttingDown(Unavailable):
    """The server is shutting down; connect again."""

    code = "shutting_down"
