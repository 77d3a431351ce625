"""A load generator of one process: a fixed number of connections, each with one request at a time.

    python -m nexus.bench.load '{"port": 8000, "connections": 16, "seconds": 4, "model": "m", "key": "..."}'

Prints one line of JSON. Written on bare protocols, since it shares the machine with what it measures.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import msgspec
import uvloop

_END = b"0\r\n\r\n"


class Plan(msgspec.Struct, kw_only=True):
    """What to send, where and for how long. A stream is asked for with `stream`."""

    port: int
    connections: int
    seconds: float
    model: str
    key: str
    stream: bool = False
    path: str = "/v1/chat/completions"
    text: str = "Say hello in one short sentence, please."

    def request(self) -> bytes:
        """Return the bytes of one request."""
        asked: dict[str, Any] = {"model": self.model, "messages": [{"role": "user", "content": self.text}]}
        asked |= {"max_tokens": 100, "temperature": 0} | ({"stream": True} if self.stream else {})
        body = msgspec.json.encode(asked)
        head = (
            f"POST {self.path} HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\nauthorization: Bearer {self.key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


class Report(msgspec.Struct, kw_only=True):
    """What came of it: finished requests, and times in milliseconds. `failed` has answers that were not 200."""

    done: int
    failed: int
    seconds: float
    p50: float
    p99: float
    first_p50: float
    first_p99: float


class _Connection(asyncio.Protocol):
    def __init__(self, request: bytes, until: float, finished: list[float], first: list[float]) -> None:
        self._request, self._until, self._finished, self._first = request, until, finished, first
        self.over = asyncio.get_running_loop().create_future()
        self.failed = 0
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._held = b""
        self._need = -1
        self._seen = False
        self._began = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._held += data
        if self._need == -1:
            end = self._held.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._held[:end].lower()
            self.failed += b" 200 " not in head[:16]
            place = head.find(b"content-length:")
            if place >= 0:
                self._need = end + 4 + int(head[place + 15 :].split(b"\r\n", 1)[0])
            else:
                self._need = -2
            self._body = end + 4
        if not self._seen and len(self._held) > self._body:
            self._seen = True
            self._first.append(time.perf_counter() - self._began)
        whole = len(self._held) >= self._need if self._need >= 0 else self._held.endswith(_END)
        if whole:
            now = time.perf_counter()
            self._finished.append(now - self._began)
            if now < self._until:
                self._send()
            else:
                self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.failed += exc is not None
        if not self.over.done():
            self.over.set_result(None)


async def run(plan: Plan) -> Report:
    """Keep `plan.connections` requests in flight for `plan.seconds`."""
    loop = asyncio.get_running_loop()
    finished: list[float] = []
    first: list[float] = []
    request, started = plan.request(), time.perf_counter()
    made = [
        (await loop.create_connection(lambda: _Connection(request, started + plan.seconds, finished, first),
                                      "127.0.0.1", plan.port))[1]
        for _ in range(plan.connections)
    ]  # fmt: skip
    await asyncio.wait([connection.over for connection in made], timeout=plan.seconds + 30)
    took = time.perf_counter() - started
    return Report(
        done=len(finished),
        failed=sum(connection.failed for connection in made),
        seconds=took,
        p50=_percentile(finished, 0.5),
        p99=_percentile(finished, 0.99),
        first_p50=_percentile(first, 0.5),
        first_p99=_percentile(first, 0.99),
    )


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] * 1000 if values else float("nan")


if __name__ == "__main__":
    given = msgspec.json.decode(sys.argv[1], type=Plan)
    print(msgspec.json.encode(uvloop.run(run(given))).decode())
