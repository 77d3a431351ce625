"""The contract of a wire format that the fake upstream speaks: a request read, answers and errors written."""

from __future__ import annotations

import base64
import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import msgspec

from nexus.testing.said import Said
from nexus.testing.script import Seen

encode = msgspec.json.Encoder().encode
Operation = Literal["chat", "embed", "count", "models", "other"]


class OfferedTool(NamedTuple):
    """A tool that the request offers."""

    name: str
    schema: Any


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for, apart from its wire format.

    `words` are the last ones said to the model, `after_tool` tells that a tool's result was; `schema` is
    the JSON schema that the answer must fit.
    """

    seen: Seen
    operation: Operation
    model: str
    stream: bool = False
    words: str = ""
    after_tool: bool = False
    tools: tuple[OfferedTool, ...] = ()
    schema: Any = None

    @property
    def fields(self) -> dict[str, Any]:
        """Return the request's body."""
        return self.seen.fields


class Refused(NamedTuple):
    """An error as this wire format puts it: a body, and lines of headers."""

    body: bytes
    headers: tuple[str, ...] = ()


class Wire(ABC):
    """One wire format.

    `end` closes a stream where the format has a mark for that; `usage_place` counts from the end of the
    events to the one with the usage.
    """

    stream_type: str = "text/event-stream"
    end: bytes = b""
    usage_place: int = -1

    @abstractmethod
    def asked(self, seen: Seen) -> Asked | None:
        """Read a request; None when it is not of this wire format."""

    def missing(self, asked: Asked) -> str | None:
        """Return what a real server would refuse the request for, or None."""
        return None

    def kind(self, asked: Asked) -> str:
        """Return the content type of this stream."""
        return self.stream_type

    @abstractmethod
    def whole(self, asked: Asked, said: Said) -> bytes:
        """Write a whole answer to a chat."""

    @abstractmethod
    def events(self, asked: Asked, said: Said) -> list[bytes]:
        """Write a streamed answer: whole events or frames, without `end`."""

    @abstractmethod
    def other(self, asked: Asked) -> bytes:
        """Write the answer to anything but a chat."""

    @abstractmethod
    def refusal(self, status: int, message: str, *, wait: int | None = None, reason: str = "") -> Refused:
        """Write an error answer; `wait` says after how many seconds to come back.

        `reason` is "" or one of: model (there is none), context (too long), quota (money is gone), field (a
        parameter is wrong).
        """

    @abstractmethod
    def accident(self, asked: Asked, status: int, message: str) -> bytes:
        """Write an error as an event in the middle of a stream."""


def event(data: Any, name: str | None = None) -> bytes:
    """Write one server-sent event."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + encode(data) + b"\n\n"


def vectors(count: int, size: int) -> list[list[float]]:
    """Make up `count` vectors of `size` numbers: the first begins with 0, the second with 1 ..."""
    return [[float(index + position) for position in range(size)] for index in range(count)]


def packed(vector: list[float]) -> str:
    """Return a vector as base64 of little-endian float32."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def words_of(content: Any) -> str:
    """Return the words of a message's content: text, or a list of parts that have `text`."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = [part.get("text") for part in content if isinstance(part, dict)]
    return " ".join(text for text in texts if isinstance(text, str))


def cut(text: str, size: int = 12) -> list[str]:
    """Cut the JSON text of a tool's arguments into pieces for a stream."""
    return [text[start : start + size] for start in range(0, len(text), size)]
