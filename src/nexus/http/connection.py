"""What requests share: the connection's transport, how fast both sides take bytes, and the server's own books."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from nexus.core.cork import corks
from nexus.http.types import App


class Connection(asyncio.Protocol):
    """The part of a connection that does not depend on what is said over it."""

    __slots__ = (
        *("_client", "_connections", "_idle", "_idle_since", "_patience", "_scheme", "_server", "_writable"),
        *("app", "clock", "cork", "loop", "read_paused", "state", "tasks", "transport", "write_paused"),
    )

    transport: asyncio.Transport

    def __init__(self, config: Config, state: ServerState, loop: asyncio.AbstractEventLoop | None) -> None:
        """Wait for the transport."""
        self.app: App = config.loaded_app
        self.loop = loop or asyncio.get_running_loop()
        self.state = state
        self.tasks = state.tasks
        self.cork = corks.of(self.loop)
        self.cork.crowd = state.tasks
        self._connections: set[Any] = state.connections
        self._patience = config.timeout_keep_alive
        self.clock: asyncio.TimerHandle | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._idle_since = 0.0
        self._writable: asyncio.Event | None = None
        self.read_paused = self.write_paused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Note who is there."""
        self.transport = transport
        self._connections.add(self)
        self._server, self._client = get_local_addr(transport), get_remote_addr(transport)
        self._scheme = "https" if is_ssl(transport) else "http"

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go who waits, and stop the clocks."""
        self.stop_clock()
        self._connections.discard(self)
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        self.resume_writing()

    @abstractmethod
    def answered(self) -> None:
        """An answer is complete."""

    @abstractmethod
    def is_busy(self) -> bool:
        """Whether a request is on its way in, or its answer on its way out."""

    @abstractmethod
    def too_slow(self) -> None:
        """What was expected has not come in time."""

    def expect(self, seconds: float) -> None:
        """Be `too_slow` in so many seconds unless the clock is stopped or set again."""
        self.stop_clock()
        self.clock = self.loop.call_later(max(0.0, seconds), self.too_slow)

    def stop_clock(self) -> None:
        """Expect nothing."""
        if self.clock is not None:
            self.clock.cancel()
            self.clock = None

    def watch_idle(self) -> None:
        """Close the connection when it has been idle for too long from now on.

        The timer is left alone when the next request comes, and looks at the time when it fires: moving it twice
        for each request would cost more.
        """
        self._idle_since = self.loop.time()
        if self._idle is None:
            self._idle = self.loop.call_later(self._patience, self._look_idle)

    def _look_idle(self) -> None:
        self._idle = None
        if self.transport.is_closing() or self.is_busy():
            return  # the end of an answer watches again
        left = self._idle_since + self._patience - self.loop.time()
        if left > 0:
            self._idle = self.loop.call_later(left, self._look_idle)
        else:
            self.close()

    def close(self) -> None:
        """Close, behind what has been said."""
        self.cork.flush()
        self.transport.close()

    def pause_reading(self) -> None:
        """Leave the client waiting."""
        if not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Take more from the client."""
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        """Know that the client takes less than it is given."""
        self.write_paused = True
        if self._writable is not None:
            self._writable.clear()

    def resume_writing(self) -> None:
        """Know that the client has taken enough for more."""
        self.write_paused = False
        if self._writable is not None:
            self._writable.set()

    async def drain(self) -> None:
        """Wait until the client takes more, or is gone."""
        if self._writable is None:
            self._writable = asyncio.Event()
        await self._writable.wait()
