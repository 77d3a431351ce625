"""A provider that costs next to nothing, for measuring what stands before it.

    python -m nexus.bench.upstream PORT        # prints "ready" when it listens

Answers every chat request with the same completion of 620 bytes, or with 50 chunks, one write each.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Final

import msgspec
import uvloop

CHUNKS: Final = 50
MODEL: Final = "gpt-4o-mini-2024-07-18"
_ID: Final[dict[str, Any]] = {"id": "chatcmpl-abc123", "created": 1717171717, "model": MODEL}
_TEXT: Final = "Hello! This is a short, fixed answer from the upstream that is used to measure gateways."
_USAGE: Final = {
    "prompt_tokens": 12,
    "completion_tokens": 18,
    "total_tokens": 30,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
}


def _plain() -> bytes:
    message = {"role": "assistant", "content": _TEXT, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    more = {"usage": _USAGE, "service_tier": "default", "system_fingerprint": "fp_44709d6fcb"}
    body = msgspec.json.encode(_ID | {"object": "chat.completion", "choices": [choice]} | more)
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body


def _event(choices: list[dict[str, Any]], **more: Any) -> bytes:
    head = _ID | {"object": "chat.completion.chunk", "system_fingerprint": "fp_44709d6fcb"}
    return b"data: " + msgspec.json.encode(head | {"choices": choices} | more) + b"\n\n"


def _piece(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _delta(delta: dict[str, Any], finish: str | None = None) -> bytes:
    return _piece(_event([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]))


_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
_STREAM: Final = [
    _delta({"role": "assistant", "content": ""}),
    *(_delta({"content": f" tok{n}"}) for n in range(CHUNKS - 2)),
    _delta({}, "stop"),
]
_TAIL: Final = _piece(_event([], usage=_USAGE)) + _piece(b"data: [DONE]\n\n") + b"0\r\n\r\n"
_PLAIN: Final = _plain()


class _Connection(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._held = b""

    def data_received(self, data: bytes) -> None:
        self._held += data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            head = self._held[:end].lower()
            place = head.find(b"content-length:")
            size = int(head[place + 15 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
            if len(self._held) < end + 4 + size:
                return
            body, self._held = self._held[end + 4 : end + 4 + size], self._held[end + 4 + size :]
            if b'"stream":true' in body or b'"stream": true' in body:
                self._task = asyncio.get_running_loop().create_task(self._stream())
            else:
                self._transport.write(_PLAIN)

    async def _stream(self) -> None:
        self._transport.write(_HEAD)
        for piece in _STREAM:
            if self._transport.is_closing():
                return
            self._transport.write(piece)
            await asyncio.sleep(0)
        self._transport.write(_TAIL)


async def serve(port: int) -> None:
    """Serve for ever."""
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", port, backlog=2048)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
