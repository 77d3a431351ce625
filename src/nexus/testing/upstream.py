"""A fake language-model provider that speaks the chat-completions form, and misbehaves on request.

    with FakeUpstream() as upstream:
        # a provider of kind `openai` with base_url=upstream.url and model "echo" answers;
        # model "fault-reset_mid_stream" resets the connection in the middle of a stream
        upstream.seen[-1].closed_after   # seconds until the client closed the connection

It runs in a thread of its own on a free loopback port. `FAULTS` lists what can go wrong.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal

import msgspec

_DONE = b"data: [DONE]\n\n"


@dataclass(slots=True)
class Seen:
    """One request as it arrived, and how it went. Times are `time.monotonic()`."""

    path: str
    headers: dict[str, str]
    body: bytes
    began: float
    finished: bool = False
    closed: float | None = None

    @property
    def json(self) -> Any:
        """Return the body decoded."""
        return json.loads(self.body)

    @property
    def model(self) -> str:
        """Return the model asked for."""
        return str(self.json.get("model", ""))


@dataclass(frozen=True, slots=True)
class Script:
    """What to answer: raw pieces to send, with numbers (seconds to wait) and "reset" or "stall" among them.

    The connection is kept when the pieces end, or closed with `close`.
    """

    pieces: tuple[bytes | float | Literal["reset", "stall"], ...]
    close: bool = False


Answering = Callable[[Seen], Script]


class FakeUpstream:
    """The server. `answering` decides what each request gets; the default obeys the model's name."""

    def __init__(self, answering: Answering | None = None) -> None:
        """Listen to nothing yet."""
        self.seen: list[Seen] = []
        self.connections = 0
        self.answering = answering or answer
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake-upstream", daemon=True)
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Return the base_url for a provider."""
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> FakeUpstream:
        """Start."""
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0))
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

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _stop(self) -> None:
        assert self._server is not None
        self._server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while (request := await _read_request(reader)) is not None:
                self.seen.append(request)
                if not await self._play(self.answering(request), request, reader, writer):
                    break
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _play(
        self, script: Script, request: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Send the pieces; False when the connection is over. Notices at once when the client closes it."""
        gone = asyncio.ensure_future(_until_closed(reader))
        try:
            for piece in script.pieces:
                if isinstance(piece, bytes):
                    writer.write(piece)
                    await writer.drain()
                elif piece == "reset":
                    writer.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )
                    writer.transport.abort()
                    return False
                else:
                    await asyncio.wait([gone], timeout=None if piece == "stall" else float(piece))
                if gone.done():
                    request.closed = time.monotonic()
                    return False
            request.finished = True
            return not script.close
        except ConnectionError:
            request.closed = time.monotonic()
            return False
        finally:
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await gone


async def _until_closed(reader: asyncio.StreamReader) -> None:
    # Peeking does not consume: what a pipelining client sends meanwhile stays for the next request.
    while not reader.at_eof():  # noqa: ASYNC110  a reader has no event for its end
        await asyncio.sleep(0.01)


async def _read_request(reader: asyncio.StreamReader) -> Seen | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return None
    first, *lines = head.decode("latin-1").rstrip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Seen(first.split(" ")[1], headers, body, time.monotonic())


# Well-behaved answers.


@dataclass(frozen=True, slots=True)
class Said:
    """What the fake says, and the usage that it claims."""

    text: str = "Hello from the fake upstream."
    prompt_tokens: int = 12
    cached_tokens: int = 4
    usage: bool = True
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def words(self) -> list[str]:
        """Return the pieces of a stream: words with their spaces."""
        return [word + " " for word in self.text.split(" ")[:-1]] + [self.text.split(" ")[-1]]

    def usage_object(self) -> dict[str, Any]:
        """Return the usage as the wire has it."""
        count = len(self.words)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": count,
            "total_tokens": self.prompt_tokens + count,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens, "audio_tokens": 0},
        }


def response(status: int, body: bytes, *headers: str, kind: str = "application/json") -> bytes:
    """Return a whole HTTP answer."""
    lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def stream_head(kind: str = "text/event-stream") -> bytes:
    """Return the head of a chunked stream."""
    return f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode()


def chunked(data: bytes) -> bytes:
    """Wrap one piece for chunked transfer."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def completion(said: Said, model: str) -> bytes:
    """Return a chat completion as JSON."""
    body: dict[str, Any] = {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": said.text, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "system_fingerprint": "fp_fake",
        "x_vendor_field": {"kept": True},
    }
    if said.usage:
        body["usage"] = said.usage_object()
    return msgspec.json.encode(body | said.extra)


def events(said: Said, model: str, *, include_usage: bool) -> list[bytes]:
    """Return the events of a streamed answer, without the end mark."""

    def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _event({"model": model, "choices": [choice]} | said.extra)

    out = [event({"role": "assistant", "content": ""}), *(event({"content": word}) for word in said.words)]
    out.append(event({}, "stop"))
    if include_usage and said.usage:
        out.append(_event({"model": model, "choices": [], "usage": said.usage_object()}))
    return out


def _event(body: dict[str, Any]) -> bytes:
    head = {"id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 1_700_000_000}
    return b"data: " + msgspec.json.encode(head | body) + b"\n\n"


def stream(pieces: list[bytes], *, gap: float = 0.0, done: bool = True) -> Script:
    """Return a script that streams these events, `gap` seconds apart."""
    out: list[bytes | float | Literal["reset", "stall"]] = [stream_head()]
    for piece in pieces:
        out += [chunked(piece), gap] if gap else [chunked(piece)]
    out.append((chunked(_DONE) if done else b"") + b"0\r\n\r\n")
    return Script(tuple(out))


def answer(request: Seen) -> Script:
    """Answer by the model's name: `fault-NAME`, `slow-MILLISECONDS` (between events), anything else: an echo."""
    asked = request.json
    model = request.model
    if request.path.endswith("/embeddings"):
        return Script((response(200, _embeddings(asked)),))
    said = Said(text=_last_words(asked))
    if model.startswith("fault-"):
        return FAULTS[model.removeprefix("fault-")](request, said)
    if not asked.get("stream"):
        return Script((response(200, completion(said, model)),))
    gap = float(model.removeprefix("slow-")) / 1000 if model.startswith("slow-") else 0.0
    return stream(events(said, model, include_usage=_wants_usage(asked)), gap=gap)


def _wants_usage(asked: dict[str, Any]) -> bool:
    return bool((asked.get("stream_options") or {}).get("include_usage"))


def _last_words(asked: dict[str, Any]) -> str:
    messages = asked.get("messages") or [{}]
    content = messages[-1].get("content")
    return content if isinstance(content, str) and content else Said().text


def _embeddings(asked: dict[str, Any]) -> bytes:
    given = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
    size = asked.get("dimensions") or 8
    data = []
    for index in range(len(given)):
        numbers = [float(index + position) for position in range(size)]
        packed = base64.b64encode(struct.pack(f"<{size}f", *numbers)).decode()
        value = packed if asked.get("encoding_format") == "base64" else numbers
        data.append({"object": "embedding", "index": index, "embedding": value})
    usage = {"prompt_tokens": 3 * len(given), "total_tokens": 3 * len(given)}
    return json.dumps({"object": "list", "data": data, "model": asked["model"], "usage": usage, "x_vendor": 1}).encode()


# What can go wrong. Each takes the request and what would have been said.

Fault = Callable[[Seen, Said], Script]


def _error(status: int, message: str = "something is wrong", *headers: str, **more: Any) -> Fault:
    body = json.dumps({"error": {"message": message, "type": "some_error", "param": None, "code": None} | more})
    return lambda _request, _said: Script((response(status, body.encode(), *headers),))


def _raw(*pieces: bytes | float | Literal["reset", "stall"], close: bool = True) -> Fault:
    return lambda _request, _said: Script(pieces, close=close)


def _cut(end: Literal["reset", "stall"] | None, after: int = 3) -> Fault:
    """Stop after so many events of a stream, or within a plain answer."""

    def script(request: Seen, said: Said) -> Script:
        ending: tuple[Any, ...] = () if end is None else (end,)
        if not request.json.get("stream"):
            whole = response(200, completion(said, request.model))
            return Script((whole[: len(whole) // 2], 0.02, *ending), close=True)
        pieces = [chunked(piece) for piece in events(said, request.model, include_usage=True)[:after]]
        return Script((stream_head(), *pieces, 0.02, *ending), close=True)

    return script


def _changed(change: Callable[[list[bytes]], list[bytes]], *, done: bool = True) -> Fault:
    """Send a stream whose events went through `change`."""

    def script(request: Seen, said: Said) -> Script:
        return stream(change(events(said, request.model, include_usage=True)), done=done)

    return script


def _one_byte_at_a_time(pieces: list[bytes]) -> list[bytes]:
    return [bytes([byte]) for byte in b"".join(pieces)]


def _usage(value: Any) -> Fault:
    def script(request: Seen, said: Said) -> Script:
        if request.json.get("stream"):
            last = _event({"choices": [], "usage": value})
            return stream([*events(said, request.model, include_usage=False), last])
        changed = Said(text=said.text, usage=False, extra={"usage": value})
        return Script((response(200, completion(changed, request.model)),))

    return script


FAULTS: dict[str, Fault] = {
    "400": _error(400, "temperature is too high", param="temperature", code="invalid_value"),
    "400_with_secrets": _error(400, "Incorrect key sk-upstream-secret-key at 127.0.0.1"),
    "401": _error(401, "Incorrect API key provided: sk-upstream-secret-key"),
    "402": _error(402),
    "403": _error(403, "organization org-secret may not"),
    "404": _error(404, "The model does not exist", code="model_not_found"),
    "408": _error(408),
    "409": _error(409),
    "413": _error(413),
    "422": _error(422, "unknown field", param="x"),
    "429": _error(429),
    "429_retry_after": _error(429, "slow down", "retry-after: 7"),
    "429_retry_date": _error(429, "slow down", "retry-after: Wed, 21 Oct 2099 07:28:00 GMT"),
    "500": _error(500, "Traceback (most recent call last): /usr/lib/python3/site-packages/x.py 0x7f00deadbeef"),
    "502": _raw(response(502, b"<html>Bad gateway at 10.0.0.7</html>", kind="text/html")),
    "503": _error(503, "overloaded", "retry-after: 3"),
    "529": _error(529, "Overloaded"),
    "context_too_long": _error(400, "This model's maximum context length is 10 tokens", code="context_length_exceeded"),
    "empty_200": _raw(response(200, b"")),
    "html_200": _raw(response(200, b"<html>Please log in</html>", kind="text/html")),
    "json_error_200": _raw(response(200, b'{"error": {"message": "no", "code": 429}}')),
    "not_http": _raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "gzip": _raw(response(200, b"\x1f\x8b\x08\x00", "content-encoding: gzip")),
    "redirect": _raw(response(302, b"", "location: http://169.254.169.254/latest/meta-data")),
    "huge_header": _raw(b"HTTP/1.1 200 OK\r\nx: " + b"a" * 200_000 + b"\r\n\r\n"),
    "two_lengths": _raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 5\r\n\r\n{}{}{"),
    "close_at_once": _raw(),
    "reset_at_once": _raw("reset"),
    "stall_at_once": _raw("stall"),
    "stall_after_head": _raw(stream_head(), "stall"),
    "truncated": _cut(None),
    "reset_mid_stream": _cut("reset"),
    "stall_mid_stream": _cut("stall"),
    "no_done": _changed(lambda pieces: pieces, done=False),
    "no_finish_no_done": _changed(lambda pieces: pieces[:3], done=False),
    "two_dones": _changed(lambda pieces: [*pieces, _DONE]),
    "crlf": _changed(lambda pieces: [piece.replace(b"\n", b"\r\n") for piece in pieces]),
    "split_everywhere": _changed(_one_byte_at_a_time),
    "comments": _changed(lambda pieces: [x for piece in pieces for x in (b": keep-alive\n\n", piece)]),
    "no_blank_lines": _changed(lambda pieces: [piece.replace(b"\n\n", b"\n") for piece in pieces]),
    "broken_event": _changed(lambda pieces: [*pieces[:3], b"data: {broken\n\n", *pieces[3:]]),
    "no_data_prefix": _changed(lambda pieces: [piece.removeprefix(b"data: ") for piece in pieces], done=False),
    "huge_event": _changed(lambda pieces: [*pieces[:2], b"data: " + b"x" * 10_000_000 + b"\n\n"]),
    "error_event": _changed(lambda pieces: [*pieces[:3], b'data: {"error":{"message":"at 10.0.0.7","code":500}}\n\n']),
    "no_usage": _changed(lambda pieces: pieces[:-1]),
    "usage_negative": _usage({"prompt_tokens": -5, "completion_tokens": -1}),
    "usage_null": _usage(None),
    "usage_nonsense": _usage({"prompt_tokens": "many", "completion_tokens": [1]}),
    "usage_twice": _changed(lambda pieces: [*pieces, pieces[-1]]),
}
