"""The web process: uvicorn with uvloop and httptools, and an end that keeps its promises.

At SIGTERM or SIGINT: readiness turns false, listening stops, endless event streams end with an event, running
requests have `shutdown_grace` seconds, then the process exits with status 0. A second signal
cancels the running requests, a third does not wait for anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import uvicorn

from nexus.http.known import KnowingProtocol
from nexus.http.lifecycle import Lifecycle
from nexus.http.protocol import Limits
from nexus.http.settings import HTTPSettings
from nexus.http.types import App

_COLLECT_AFTER: Final = 20_000
_SWITCH: Final = 0.0005
_TICK: Final = 1.0
_LOOK: Final = 0.01


class Server(uvicorn.Server):
    """uvicorn's server, which tells the lifecycle and does not die of the signal that it obeyed."""

    def __init__(self, config: uvicorn.Config, lifecycle: Lifecycle) -> None:
        """Serve `config` and keep `lifecycle` true."""
        self._told = False
        self._wake: Callable[[], object] = lambda: None
        super().__init__(config)
        self._lifecycle = lifecycle
        self._signals = 0

    @property
    def should_exit(self) -> bool:
        """Whether the server has been told to end; may be set from any thread."""
        return self._told

    @should_exit.setter
    def should_exit(self, told: bool) -> None:
        self._told = told
        self._wake()

    async def main_loop(self) -> None:
        """Renew the date header each second until told to end, and then end at once.

        uvicorn wakes up ten times a second for both.
        """
        loop, woken = asyncio.get_running_loop(), asyncio.Event()
        self._wake = partial(loop.call_soon_threadsafe, woken.set)
        try:
            while not await self.on_tick(0):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(woken.wait(), _TICK)
        finally:
            self._wake = lambda: None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening; from here on the process is ready."""
        await super().startup(sockets)
        self._lifecycle.started = self.started

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, let running requests end, stop the app; without uvicorn's pauses where nothing runs."""
        self._lifecycle.drain()
        state = self.server_state
        for listening in (*self.servers, *(sockets or ())):
            listening.close()
        for connection in list(state.connections):
            connection.shutdown()
        try:
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                await asyncio.sleep(0)
                while (state.connections or state.tasks) and not self.force_exit:  # noqa: ASYNC110  uvicorn tells of neither
                    await asyncio.sleep(_LOOK)
        except TimeoutError:
            for task in list(state.tasks):
                task.cancel()
        if not self.force_exit:
            await self.lifespan.shutdown()
        self._lifecycle.close()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle both signals in the loop; uvicorn would raise them again at the end and exit with 143."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        handled = []
        for number in signals:
            # Only the main thread may; a server in another one (tests) is ended by `should_exit`.
            with contextlib.suppress(RuntimeError, ValueError, NotImplementedError):
                loop.add_signal_handler(number, self._on_signal)
                handled.append(number)
        try:
            yield
        finally:
            for number in handled:
                loop.remove_signal_handler(number)

    def _on_signal(self) -> None:
        self._signals += 1
        self.should_exit = True
        self._lifecycle.drain()
        if self._signals == 2:
            # The app still gets its proper end, which is where what was recorded is written down.
            for task in list(self.server_state.tasks):
                task.cancel()
        elif self._signals > 2:
            self.force_exit = True


def make_server(app: App, settings: HTTPSettings, lifecycle: Lifecycle, **overrides: Any) -> Server:
    """Return a server for `app`, not yet running. `overrides` are further options of uvicorn's Config."""
    options: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "root_path": settings.root_path,
        "http": partial(
            KnowingProtocol,
            Limits(
                header_timeout=settings.header_timeout,
                header_bytes=settings.header_limit,
                body_timeout=settings.body_timeout,
                body_rate=settings.body_rate,
                connections=settings.max_connections,
            ),
        ),
        "ws": "none",
        "lifespan": "on",
        "loop": "auto",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "timeout_keep_alive": settings.keep_alive,
        "timeout_graceful_shutdown": settings.shutdown_grace,
    }
    config = uvicorn.Config(app, **{**options, **overrides})
    return Server(config, lifecycle)


def serve(
    app: App,
    settings: HTTPSettings,
    lifecycle: Lifecycle,
    *,
    sockets: list[socket.socket] | None = None,
    **overrides: Any,
) -> int:
    """Serve until a signal comes, on `sockets` where there are any; return 0, or 1 when the start failed."""
    server = make_server(app, settings, lifecycle, **overrides)
    # What is loaded by now stays: the collector need not look at it again and again.
    gc.freeze()
    # Every request makes hundreds of objects that die young and in no circles.
    gc.set_threshold(_COLLECT_AFTER, 10, 10)
    # A thread that waits its turn (the ledger's, the log's) is woken in vain by every read until it has it: 5 ms long.
    sys.setswitchinterval(_SWITCH)
    server.run(sockets)
    return 0 if server.started else 1
