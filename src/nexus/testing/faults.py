"""What can go wrong with an upstream, for every wire format. A model called `fault-NAME` gets it.

Every error text carries what must never reach a client: `CANARIES`, the credential of the request and the
address that it was sent to.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

from nexus.testing.frames import frame
from nexus.testing.scenes import Scene
from nexus.testing.script import Accident, Piece, Script, chunked, response, stream_head, streamed

CANARIES = ("Traceback", "/site-packages/", "0x7f00deadbeef", "10.99.0.7", "sk-canary", "org-canary")
LEAKY = 'Traceback: File "/usr/lib/site-packages/up.py" at 0x7f00deadbeef, 10.99.0.7:8443, sk-canary-1, org-canary'


Make = Callable[[Scene], Script]
Outcome = Literal["whole", "error", "either"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    `outcome` is what an honest client makes of it: a `whole` answer all the same, an `error`, or `either`
    (the format leaves it open, but a cut answer must not pass for a whole one). `streams` faults leave plain
    answers alone, and `form` ones streams of the other form.
    """

    told: str
    make: Make
    outcome: Outcome = "error"
    streams: bool = False
    form: Literal["events", "frames"] | None = None

    def __call__(self, scene: Scene) -> Script:
        """Play it, or answer properly where it does not apply."""
        return self.make(scene) if self.applies(scene) else play(scene)

    def applies(self, scene: Scene) -> bool:
        """Tell whether it can happen to this answer."""
        form = {"text/event-stream": "events", "application/vnd.amazon.eventstream": "frames"}.get(scene.kind)
        return (scene.streamed or not self.streams) and (self.form is None or form == self.form)


def play(scene: Scene) -> Script:
    """Answer properly."""
    if not scene.streamed:
        whole = response(200, scene.body)
        return Script((scene.gap, whole) if scene.gap else (whole,))
    return streamed([*scene.events, *_end(scene)], kind=scene.kind, gap=scene.gap)


def _end(scene: Scene) -> list[bytes]:
    return [scene.wire.end] if scene.wire.end else []


def _refuse(status: int, message: str = LEAKY, *, wait: int | None = None, reason: str = "", also: str = "") -> Make:
    def make(scene: Scene) -> Script:
        seen = scene.asked.seen
        text = message.format(credential=seen.credential, host=seen.headers.get("host", ""))
        body, headers = scene.wire.refusal(status, text, wait=wait, reason=reason)
        return Script((response(status, body, *headers, *([also] if also else [])),))

    return make


def _raw(*pieces: Piece, close: bool = True) -> Make:
    return lambda _: Script(pieces, close=close)


def _error_in_200(scene: Scene) -> Script:
    return Script((response(200, scene.wire.refusal(429, LEAKY).body),))


def _cut(end: Accident | None, after: int = 3) -> Make:
    """Stop after so many events of a stream, or within a plain answer."""

    def make(scene: Scene) -> Script:
        ending: tuple[Piece, ...] = () if end is None else (end,)
        if not scene.streamed:
            whole = response(200, scene.body)
            return Script((whole[: -len(scene.body) // 2], 0.02, *ending), close=True)
        pieces = [chunked(piece) for piece in scene.events[:after]]
        return Script((stream_head(scene.kind), *pieces, 0.02, *ending), close=True)

    return make


def _changed(change: Callable[[list[bytes]], list[bytes]], *, end: bool = True) -> Make:
    """Send a stream whose pieces went through `change`; its end mark comes after, or within with `end=False`."""

    def make(scene: Scene) -> Script:
        if end:
            return streamed([*change(scene.events), *_end(scene)], kind=scene.kind)
        return streamed(change([*scene.events, *_end(scene)]), kind=scene.kind)

    return make


def _each(change: Callable[[bytes], bytes]) -> Make:
    return _changed(lambda pieces: [change(piece) for piece in pieces], end=False)


def _inserted(piece: bytes, at: int = 3) -> Make:
    """Put a piece between the events of a stream."""
    return _changed(lambda pieces: [*pieces[:at], piece, *pieces[at:]])


def _accident(after: int, status: int = 500) -> Make:
    """Put an error into a stream after so many of its events; it ends there."""

    def make(scene: Scene) -> Script:
        events = [*scene.events[:after], scene.wire.accident(scene.asked, status, LEAKY)]
        return streamed(events, kind=scene.kind)

    return make


def _no_end(scene: Scene) -> Script:
    return streamed(scene.events if scene.wire.end else scene.events[:-1], kind=scene.kind)


def _two_ends(scene: Scene) -> Script:
    last = _end(scene) or scene.events[-1:]
    return streamed([*scene.events, *_end(scene), *last], kind=scene.kind)


def _usage(skew: Callable[[dict[str, Any]], Any]) -> Make:
    return lambda scene: play(scene.saying(replace(scene.said, skew=skew)))


def _every_number(usage: Any, change: Callable[[int], Any]) -> Any:
    if isinstance(usage, dict):
        return {name: _every_number(value, change) for name, value in usage.items()}
    if isinstance(usage, list):
        return [_every_number(value, change) for value in usage]
    return change(usage) if isinstance(usage, int) else usage


def _no_usage(scene: Scene) -> Script:
    return play(scene.saying(replace(scene.said, usage=False)))


def _usage_twice(scene: Scene) -> Script:
    events = scene.events
    at = len(events) + scene.wire.usage_place
    return streamed([*events[:at], events[at], *events[at:], *_end(scene)], kind=scene.kind)


@cache
def _bomb() -> bytes:
    """Return a megabyte that unpacks to a gigabyte: gzip members may be joined."""
    return gzip.compress(bytes(1_000_000)) * 1000


def _gzip_bomb(scene: Scene) -> Script:
    return Script((response(200, _bomb(), "content-encoding: gzip"),), close=True)


def _slow_header(scene: Scene) -> Script:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n"
    slowly = (piece for byte in head for piece in (bytes([byte]), 1.0))
    return Script((*slowly, b"{}"), close=True)


def _until_close(scene: Scene) -> Script:
    body = b"".join([*scene.events, *_end(scene)]) if scene.streamed else scene.body
    kind = scene.kind if scene.streamed else "application/json"
    return Script((f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n".encode(), body), close=True)


def _interim(scene: Scene) -> Script:
    return Script((b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n", *play(scene).pieces))


def _one_byte_at_a_time(pieces: list[bytes]) -> list[bytes]:
    return [bytes([byte]) for byte in b"".join(pieces)]


def _on_several_lines(piece: bytes) -> bytes:
    """Break the JSON of an event after its first comma: its data then stands on two lines."""
    head, comma, rest = piece.partition(b",")
    return head + b",\ndata: " + rest if comma else piece


def _line_ends(end: bytes) -> Make:
    return _each(lambda piece: piece.replace(b"\r\n", b"\n").replace(b"\n", end))


def _without_blank_line(piece: bytes) -> bytes:
    return re.sub(rb"(\r?\n)\r?\n$", rb"\1", piece)


def _spoilt(place: int) -> Make:
    """Flip a bit of the byte at `place` of the fourth frame."""

    def spoil(pieces: list[bytes]) -> list[bytes]:
        data = bytearray(pieces[3])
        data[place] ^= 1
        return [*pieces[:3], bytes(data), *pieces[4:]]

    return _changed(spoil)


def _stream(told: str, make: Make, outcome: Outcome = "whole") -> Fault:
    return Fault(told, make, outcome, streams=True)


def _events(told: str, make: Make, outcome: Outcome = "whole") -> Fault:
    return Fault(told, make, outcome, streams=True, form="events")


def _frames(told: str, make: Make, outcome: Outcome = "error") -> Fault:
    return Fault(told, make, outcome, streams=True, form="frames")


STATUSES: dict[str, Fault] = {
    "400": Fault("a wrong parameter", _refuse(400, "temperature is too high", reason="field")),
    "400_with_secrets": Fault("an error text with secrets", _refuse(400, "Bad key {credential} at {host}")),
    "401": Fault("a wrong credential, repeated in the text", _refuse(401, "Incorrect API key provided: {credential}")),
    "402": Fault("no money", _refuse(402)),
    "403": Fault("not allowed", _refuse(403)),
    "404": Fault("no such model", _refuse(404, "The model does not exist", reason="model")),
    "408": Fault("the upstream's own timeout", _refuse(408)),
    "409": Fault("a conflict", _refuse(409, "conflict")),
    "413": Fault("too large", _refuse(413)),
    "422": Fault("an unknown field", _refuse(422, "unknown field")),
    "429": Fault("too many requests", _refuse(429)),
    "429_retry_after": Fault("too many requests, come back in 7 s", _refuse(429, wait=7)),
    "429_retry_date": Fault(
        "too many requests, come back at a date", _refuse(429, also="retry-after: Wed, 21 Oct 2099 07:28:00 GMT")
    ),
    "429_quota": Fault("the money or quota of the month is gone", _refuse(429, reason="quota")),
    "500": Fault("an internal error with a stack trace", _refuse(500)),
    "502": Fault("a proxy's page", _raw(response(502, b"<html>Bad gateway at 10.99.0.7</html>", kind="text/html"))),
    "503": Fault("unavailable, come back in 3 s", _refuse(503, wait=3)),
    "504": Fault("a proxy's timeout", _raw(response(504, b"upstream request timeout", kind="text/plain"))),
    "529": Fault("overloaded", _refuse(529)),
    "context_too_long": Fault(
        "more tokens than the model reads",
        _refuse(400, "This model's maximum context length is 10 tokens.", reason="context"),
    ),
    "redirect": Fault(
        "a redirect inside", _raw(response(302, b"", "location: http://169.254.169.254/latest/meta-data"))
    ),
}

_NONSENSE = b'{"choices":[7],"content":9,"candidates":"x","output":3}'

BODIES: dict[str, Fault] = {
    "empty_200": Fault("200 without a byte", _raw(response(200, b""))),
    "html_200": Fault("a page of HTML", _raw(response(200, b"<html>Please log in</html>", kind="text/html"))),
    "json_error_200": Fault("an error with status 200", _error_in_200),
    "null_200": Fault("the JSON value null", _raw(response(200, b"null"))),
    "nonsense_200": Fault("JSON of another shape", _raw(response(200, _NONSENSE))),
    "gzip": Fault("packed without being asked to", _raw(response(200, b"\x1f\x8b\x08\x00", "content-encoding: gzip"))),
    "gzip_bomb": Fault("a megabyte that unpacks to a gigabyte", _gzip_bomb),
    "no_usage": Fault("no usage", _no_usage, "whole"),
    "usage_negative": Fault("negative usage", _usage(lambda usage: _every_number(usage, lambda n: -n - 1)), "whole"),
    "usage_null": Fault("usage is null", _usage(lambda usage: None), "whole"),
    "usage_nonsense": Fault("usage of words", _usage(lambda usage: _every_number(usage, lambda n: "many")), "whole"),
}

CONNECTIONS: dict[str, Fault] = {
    "not_http": Fault("another protocol", _raw(b"SSH-2.0-OpenSSH_9.2\r\n")),
    "huge_header": Fault("200 kB of headers", _raw(b"HTTP/1.1 200 OK\r\nx: " + b"a" * 200_000 + b"\r\n\r\n")),
    "two_lengths": Fault(
        "two lengths", _raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 5\r\n\r\n{}{}{")
    ),
    "slow_header": Fault("headers of one byte a second", _slow_header),
    "close_at_once": Fault("closed without an answer", _raw()),
    "reset_at_once": Fault("reset without an answer", _raw("reset")),
    "stall_at_once": Fault("nothing, for ever", _raw("stall")),
    "stall_after_head": Fault("nothing after the headers", lambda scene: Script((stream_head(scene.kind), "stall"))),
    "truncated": Fault("closed in the middle", _cut(None)),
    "reset_mid_stream": Fault("reset in the middle", _cut("reset")),
    "stall_mid_stream": Fault("nothing more after the middle", _cut("stall")),
    "until_close": Fault("an answer without length that ends with the connection", _until_close, "whole"),
    "interim": Fault("an interim answer before the real one", _interim, "whole"),
}

STREAMS: dict[str, Fault] = {
    "error_first": _stream("an error as the first event", _accident(0), "error"),
    "error_event": _stream("an error after three events", _accident(3), "error"),
    "overloaded_event": _stream("overload after three events", _accident(3, 529), "error"),
    "no_done": _stream("no end mark, or no last event where there is none", _no_end, "either"),
    "no_finish_no_done": _stream("ended properly after three events", _changed(lambda p: p[:3], end=False), "error"),
    "two_dones": _stream("the end twice", _two_ends),
    "usage_twice": _stream("the usage twice", _usage_twice),
    "split_everywhere": _stream("one byte at a time", _changed(_one_byte_at_a_time)),
    "all_at_once": _stream("all in one piece", _changed(lambda pieces: [b"".join(pieces)], end=False)),
}

EVENTS: dict[str, Fault] = {
    "crlf": _events("lines end with CR LF", _line_ends(b"\r\n")),
    "cr": _events("lines end with CR", _line_ends(b"\r")),
    "bom": _events("a byte order mark first", _inserted(b"\xef\xbb\xbf", 0)),
    "comments": _events("comments between", _each(lambda piece: b": keep-alive\n\n" + piece)),
    "ids": _events("ids and retry times", _each(lambda piece: b"id: 7\nretry: 1000\n" + piece)),
    "no_space": _events("no space behind the colon", _each(lambda piece: piece.replace(b"data: ", b"data:", 1))),
    "several_lines": _events("data on several lines", _each(_on_several_lines)),
    "no_blank_lines": _events("no blank lines between", _each(_without_blank_line), "either"),
    "broken_event": _events("an event that is no JSON", _inserted(b"data: {broken\n\n"), "error"),
    "broken_utf8": _events("text that is no UTF-8", _inserted(b'data: {"a":"\xff\xfe"}\n\n'), "error"),
    "no_data_prefix": _events("no `data:`", _each(lambda piece: piece.replace(b"data: ", b"", 1)), "error"),
    "huge_event": _events("a line of 10 MB", _inserted(b"data: " + b"x" * 10_000_000 + b"\n\n"), "error"),
}

_JSON = {"content_type": "application/json", "message_type": "event"}
_FAILED = frame(b"", error_code="InternalFailure", error_message=LEAKY, message_type="error")
_NEW = frame(b"{}", event_type="newEvent", **_JSON)

FRAMES: dict[str, Fault] = {
    "bad_prelude_crc": _frames("a wrong checksum of a frame's first part", _spoilt(8)),
    "bad_message_crc": _frames("a wrong checksum of a frame", _spoilt(-1)),
    "spoilt_payload": _frames("a changed byte in a frame", _spoilt(-8)),
    "truncated_frame": _frames("ended within a frame", _changed(lambda p: [*p[:3], p[3][:-7]])),
    "huge_frame": _frames("a frame that claims 4 GB", _changed(lambda p: [*p[:3], b"\xff\xff\xff\xff" + p[3][4:]])),
    "error_frame": _frames("a frame of the kind error", _inserted(_FAILED)),
    "broken_frame": _frames("a frame without JSON", _inserted(frame(b"{", event_type="contentBlockDelta", **_JSON))),
    "unknown_frame": _frames(
        "an event of a new sort", _inserted(frame(b"{}", event_type="newEvent", **_JSON)), "whole"
    ),
}

FAULTS: dict[str, Fault] = STATUSES | BODIES | CONNECTIONS | STREAMS | EVENTS | FRAMES
