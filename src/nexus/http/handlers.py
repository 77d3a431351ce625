"""The same map from error to answer for FastAPI: no `{"detail": ...}`, no echo of what was sent."""

from __future__ import annotations

import re
from functools import cache
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response, params
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from nexus.core.errors import (
    Conflict,
    Forbidden,
    MalformedBody,
    MethodNotAllowed,
    NexusError,
    NotFound,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnsupportedMedia,
)
from nexus.http.problem import Issue, ValidationFailed, log, render
from nexus.http.types import path_of

_BY_STATUS: dict[int, type[NexusError]] = {
    400: MalformedBody,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    405: MethodNotAllowed,
    409: Conflict,
    413: TooLarge,
    415: UnsupportedMedia,
    503: Unavailable,
}


def install(app: FastAPI) -> None:
    """Answer every error of `app` in the dialect of its path."""
    app.add_exception_handler(NexusError, _on_nexus_error)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_anything)


def answer(request: Request, error: NexusError, headers: dict[str, str] | None = None) -> Response:
    """Render `error` as a Starlette response."""
    request_id = request.scope.get("request_id")
    if error.status >= 500:
        log.error("%s: %s", error.code, error.message, exc_info=error.__cause__, extra={"request_id": request_id})
    rendered = render(path_of(request.scope), error, request_id)
    response = Response(rendered.encode(), rendered.status, media_type=rendered.media_type)
    for name, value in (*rendered.headers, *(headers or {}).items()):
        response.headers[name] = value
    return response


def issues_of(errors: Any) -> list[Issue]:
    """Name each field that pydantic found wrong; what was sent is never repeated."""
    found = []
    for error in errors:
        place = [str(part) for part in error.get("loc", ())]
        if place and place[0] in ("body", "query", "path", "header", "cookie", "response"):
            place = place[1:]
        found.append(Issue(".".join(place), str(error.get("type", "invalid")), _safe_detail(error)))
    return found


def _safe_detail(error: Any) -> str:
    """Pydantic's own sentences do not repeat the value; the one that does is written anew."""
    kind, message = str(error.get("type", "")), str(error.get("msg", "is not valid"))
    if kind == "union_tag_invalid":
        return f"must be one of {error.get('ctx', {}).get('expected_tags', 'the known kinds')}"
    if kind in ("value_error", "assertion_error"):
        return message.partition(", ")[2] or message
    return message


async def _on_nexus_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, NexusError)
    return answer(request, error)


async def _on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = error.errors()
    if (wrong := _wrong_media(request, errors)) is not None:
        return answer(request, wrong)
    return answer(request, ValidationFailed(issues_of(errors)))


def _wrong_media(request: Request, errors: Any) -> NexusError | None:
    """FastAPI hands an unread body on as bytes, so a wrong content type looks like a wrong field."""
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    field = getattr(request.scope.get("route"), "body_field", None)
    if field is None:
        return None
    if isinstance(field.field_info, params.Form):
        if sent not in ("multipart/form-data", "application/x-www-form-urlencoded"):
            return UnsupportedMedia("Send this as multipart/form-data.", field="content-type")
        return None
    is_json = sent == "application/json" or sent.endswith("+json")
    if not is_json and any(tuple(error.get("loc", ())) == ("body",) and error["type"] != "missing" for error in errors):
        return UnsupportedMedia("Send the body as application/json.", field="content-type")
    return None


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    # Details of Starlette's and FastAPI's own exceptions are not ours, so the class speaks instead.
    return answer(request, _kind_of(error.status_code)(), dict(error.headers or {}))


@cache
def _kind_of(status: int) -> type[NexusError]:
    """The error class of a status, made from the status's own phrase where there is none."""
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    phrase = HTTPStatus(status).phrase
    code = re.sub(r"[^a-z]+", "_", phrase.lower())
    return type("HTTPFailure", (NexusError,), {"status": status, "code": code, "__doc__": f"{phrase}."})


async def _on_disconnect(request: Request, error: Exception) -> Response:
    """Nobody is there to read this; it only keeps the log quiet."""
    return Response(status_code=499)


async def _on_anything(request: Request, error: Exception) -> Response:
    """Tell nothing but the request id; the log, which has the traceback, is written by `CatchErrors`."""
    if isinstance(error, NexusError):
        # Raised by a middleware, where FastAPI looks for no handler.
        return answer(request, error)
    rendered = render(path_of(request.scope), NexusError(), request.scope.get("request_id"))
    return Response(rendered.encode(), rendered.status, media_type=rendered.media_type)
