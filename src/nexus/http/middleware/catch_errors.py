"""The last net: whatever is raised below becomes an answer in the caller's dialect and a line in the log."""

from __future__ import annotations

import asyncio
import logging

from starlette.requests import ClientDisconnect

from nexus.core.errors import NexusError
from nexus.http.errors import ShuttingDown
from nexus.http.lifecycle import lifecycle_of
from nexus.http.problem import send_error
from nexus.http.types import App, Message, Receive, Scope, Send

log = logging.getLogger("nexus.http")


class CatchErrors:
    """Answers errors that raw handlers and layers raise; unknown ones tell the caller only the request id."""

    def __init__(self, app: App) -> None:
        """Wrap `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, send_watched)
        except ClientDisconnect:
            return
        except asyncio.CancelledError:
            lifecycle = lifecycle_of(scope)
            if lifecycle is None or not lifecycle.draining.is_set():
                raise
            # The time for a graceful end is over, and this is the outermost frame of the request's own task.
            if started:
                self._cut_off(scope, ShuttingDown())
            else:
                await send_error(scope, send, ShuttingDown(retry_after=1))
        except NexusError as error:
            if started:
                self._cut_off(scope, error)
            else:
                await send_error(scope, send, error)
        except Exception as error:  # the caller gets an answer without any of it; the log gets it all
            log.error("unexpected error", exc_info=error, extra={"request_id": scope.get("request_id")})
            if not started:
                await send_error(scope, send, NexusError())

    def _cut_off(self, scope: Scope, error: NexusError) -> None:
        """Log what can no longer be said; returning without an end makes the server break the connection."""
        log.error("an answer broke off", exc_info=error, extra={"request_id": scope.get("request_id")})
