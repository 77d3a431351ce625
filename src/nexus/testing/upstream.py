"""A fake language-model provider that speaks every wire format, and misbehaves on request.

    with FakeUpstream() as upstream:
        # a provider of any kind with base_url=upstream.url and model "echo" answers;
        # model "fault-reset_mid_stream" resets the connection in the middle of a stream
        upstream.seen[-1].closed   # when the client closed the connection, None while it has not

It runs in a thread of its own on a free loopback port and tells wire formats apart by method and path. What
model names do stands in `scenes`; `FAULTS` lists what can go wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

from nexus.core.plugins import PluginFolder
from nexus.testing.faults import FAULTS, play
from nexus.testing.said import Said
from nexus.testing.scenes import Scene, scene_of
from nexus.testing.script import Answering, Script, Seen, response
from nexus.testing.wire import Wire

__all__ = ["FAULTS", "WIRES", "Answering", "FakeUpstream", "Said", "Script", "Seen", "answer", "saying"]

# The folder only checks with isinstance, so an abstract contract will do.
WIRES: PluginFolder[Wire] = PluginFolder("nexus.testing.wires", Wire, noun="wire format")  # type: ignore[type-abstract]

T = TypeVar("T")


class FakeUpstream:
    """The server. `answering` decides what each request gets; the default obeys the model's name."""

    def __init__(
        self,
        answering: Answering | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        remember: int = 100_000,
    ) -> None:
        """Listen to nothing yet. Of the requests `seen`, the last `remember` are kept at least."""
        self.seen: list[Seen] = []
        self.connections = 0
        self.open = 0
        self.answering = answering or answer
        self.host = host
        self.port = port
        self._tls = tls
        self._remember = remember
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake-upstream", daemon=True)
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> str:
        """Return scheme, host and port."""
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Return a base_url for any kind of provider; only ends of paths count."""
        return f"{self.address}/v1"

    def __enter__(self) -> FakeUpstream:
        """Start. Raises OSError when the port is taken."""
        self._thread.start()
        self._server = self._run(self._listen())
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, closing every connection."""
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> asyncio.Server:
        def connection() -> asyncio.Protocol:
            return asyncio.StreamReaderProtocol(_Reader(), self._serve)

        return await self._loop.create_server(connection, self.host, self.port, ssl=self._tls, backlog=2048)

    async def _stop(self) -> None:
        assert self._server is not None
        self._server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, _Reader)
        self.connections += 1
        self.open += 1
        try:
            while (request := await _read_request(reader, writer)) is not None:
                if len(self.seen) >= 2 * self._remember:
                    del self.seen[: self._remember]
                self.seen.append(request)
                if not await _play(self.answering(request), request, reader, writer):
                    break
        except (ConnectionError, ssl.SSLError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            writer.close()


class _Reader(asyncio.StreamReader):
    """A reader that tells at once when the client has closed, also while nothing is being read."""

    def __init__(self) -> None:
        super().__init__(limit=1 << 20)
        self.gone = False
        self._pause: asyncio.Future[None] | None = None

    def feed_eof(self) -> None:
        """Note that the client is gone."""
        super().feed_eof()
        self._leave()

    def set_exception(self, exc: BaseException) -> None:
        """Note that the connection broke."""
        super().set_exception(exc)  # type: ignore[arg-type]  # typeshed wants an Exception, asyncio gives any
        self._leave()

    async def pause(self, seconds: float | None) -> None:
        """Wait so long, or for ever, but no longer than the client is there."""
        if self.gone:
            return
        loop = asyncio.get_running_loop()
        self._pause = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, self._wake)
        try:
            await self._pause
        finally:
            self._pause = None
            if timer is not None:
                timer.cancel()

    def _leave(self) -> None:
        self.gone = True
        self._wake()

    def _wake(self) -> None:
        if self._pause is not None and not self._pause.done():
            self._pause.set_result(None)


async def _play(script: Script, request: Seen, reader: _Reader, writer: asyncio.StreamWriter) -> bool:
    """Send the pieces; False when the connection is over. Notices at once when the client closes it."""
    try:
        for piece in script.pieces:
            if isinstance(piece, bytes):
                writer.write(piece)
                await writer.drain()
            elif piece == "reset":
                reset(writer)
                return False
            else:
                await reader.pause(None if piece == "stall" else float(piece))
            if reader.gone:
                request.closed = time.monotonic()
                return False
    except (ConnectionError, ssl.SSLError):
        request.closed = time.monotonic()
        return False
    request.finished = True
    return not script.close


def reset(writer: asyncio.StreamWriter) -> None:
    """Break the connection so that the other side gets ECONNRESET."""
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _read_request(reader: _Reader, writer: asyncio.StreamWriter) -> Seen | None:
    try:
        first = await reader.readexactly(1)
        if not first.isalpha():
            return None  # another protocol, TLS say
        head = first + await reader.readuntil(b"\r\n\r\n")
        method, path, *_ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        lines = head.decode("latin-1").rstrip().split("\r\n")[1:]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if headers.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" in headers.get("transfer-encoding", ""):
            body = await _read_chunks(reader)
        else:
            body = await reader.readexactly(int(headers.get("content-length", "0")))
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
        return None
    return Seen(path, headers, body, method=method)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readline()).partition(b";")[0], 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")
    return body


def answer(request: Seen) -> Script:
    """Answer in the wire format that the request has, as its model's name says. See `scenes` and `faults`."""
    scene = _scene(request)
    if scene is None:
        told = b'{"error":{"message":"The fake upstream knows no such path.","type":"invalid_request_error"}}'
        return Script((response(404, told),))
    if scene.fault is not None:
        fault = FAULTS.get(scene.fault)
        return fault(scene) if fault is not None else _refuse(scene.wire, 404, f"There is no fault {scene.fault}.")
    missing = scene.wire.missing(scene.asked)
    return _refuse(scene.wire, 400, missing) if missing else play(scene)


def saying(said: Said) -> Answering:
    """Return what makes a `FakeUpstream` say this to every chat, in the request's wire format."""

    def answering(request: Seen) -> Script:
        scene = _scene(request)
        return answer(request) if scene is None or not scene.chat else play(scene.saying(said))

    return answering


def _scene(request: Seen) -> Scene | None:
    for wire in WIRES.all().values():
        if (asked := wire.asked(request)) is not None:
            return scene_of(wire, asked)
    return None


def _refuse(wire: Wire, status: int, message: str) -> Script:
    body, headers = wire.refusal(status, message)
    return Script((response(status, body, *headers),))
