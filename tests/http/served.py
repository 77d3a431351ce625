"""A whole process for tests that end it by signal: `python -m tests.http.served GRACE`; prints its port.

A request to /work says that it is at work, and is answered when a line comes.
"""

from __future__ import annotations

import asyncio
import select
import sys
from collections.abc import AsyncIterator
from typing import Any

from nexus.http.edge import build_edge
from nexus.http.lifecycle import Lifecycle
from nexus.http.server import make_server
from nexus.http.settings import HTTPSettings
from nexus.http.sse import Event, EventStream


async def ticks() -> AsyncIterator[Event]:
    number = 0
    while True:
        yield Event({"n": number}, id=str(number))
        number += 1
        await asyncio.sleep(0.05)


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("lifespan ended", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["path"] == "/api/v1/events":
        await EventStream(ticks())(scope, receive, send)
    else:
        print("at work", flush=True)
        while not select.select([sys.stdin], [], [], 0)[0]:
            await asyncio.sleep(0.02)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"done"})


def main() -> int:
    settings = HTTPSettings(port=0, shutdown_grace=int(sys.argv[1]))
    lifecycle = Lifecycle(grace=settings.shutdown_grace)
    server = make_server(build_edge(app, settings=settings, lifecycle=lifecycle), settings, lifecycle)
    original = server.startup

    async def startup(sockets: Any = None) -> None:
        await original(sockets)
        print(server.servers[0].sockets[0].getsockname()[1], flush=True)

    server.startup = startup  # type: ignore[method-assign]
    server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
