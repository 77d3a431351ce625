"""Real servers for the web tests."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.clock import PATIENCE

from nexus.core import cork
from nexus.http.edge import build_edge
from nexus.http.lifecycle import Lifecycle
from nexus.http.server import Server, make_server
from nexus.http.settings import HTTPSettings
from nexus.http.types import App

Serve = Callable[..., "Running"]


class Running:
    """A server in a thread."""

    def __init__(self, app: App, settings: HTTPSettings, lifecycle: Lifecycle, **overrides: Any) -> None:
        self.lifecycle = lifecycle
        self.server: Server = make_server(app, settings, lifecycle, lifespan="off", **overrides)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        deadline = time.monotonic() + PATIENCE
        while not self.server.started:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)
        self.port: int = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()


@pytest.fixture(params=["alone", "in a crowd"])
def in_a_crowd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have words go at once, and then as where many requests are under way."""
    if request.param == "in a crowd":
        monkeypatch.setattr(cork, "FROM", 0)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve an ASGI app behind the whole edge on a free port: `serve(app, json_limit=1000).url`."""
    running: list[Running] = []

    def start(app: App, *, checks: Any = None, observe: Any = None, **settings: Any) -> Running:
        options = HTTPSettings(port=0, **{"shutdown_grace": 5, **settings})
        lifecycle = Lifecycle(grace=options.shutdown_grace)
        edge = build_edge(app, settings=options, lifecycle=lifecycle, checks=checks, observe=observe)
        running.append(Running(edge, options, lifecycle))
        return running[-1]

    yield start
    for server in running:
        server.stop()


async def exchange(port: int, request: bytes, *, still: float | None = None) -> bytes:
    """Send raw bytes and return all that comes back until the server closes, or is still for so many seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    try:
        writer.write(request)
        async with asyncio.timeout(PATIENCE) as limit:
            while data := await reader.read(65536):
                received += data
                if still is not None:
                    limit.reschedule(asyncio.get_running_loop().time() + still)
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.transport.abort()
    return received
