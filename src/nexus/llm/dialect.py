"""The contract of a dialect: the wire form in which a client speaks to us.

A dialect is one file in `dialects/` with a public `plug`. Where client and provider speak the same
dialect, a `Relay` passes bytes through and only looks at them; otherwise a `Writer` writes our form.
No I/O: a dialect that refers to what was said before has a `nexus.llm.session` around its calls.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol

from nexus.core.errors import NexusError
from nexus.http import problem
from nexus.llm.errors import UnknownModel, Unsupported
from nexus.llm.forms.named_files import Naming
from nexus.llm.types import Call, Chunk, Completion, Embedding, EmbeddingRequest, ModelCard, Tally

Operation = Literal["chat", "embed", "count", "models"]


class Door(NamedTuple):
    """Where clients knock: a path, or with `*` at its end all below it; `header` marks one of two behind one path."""

    method: str
    path: str
    operation: Operation = "chat"
    header: bytes | None = None


class Relay(Protocol):
    """Passes the bytes of one stream through, and keeps the tally."""

    tally: Tally

    def feed(self, data: bytes) -> bytes:
        """Return what may go to the client now: whole events only. An error in the stream goes to `tally.failure`."""
        ...

    def end(self) -> bytes:
        """Return the rest at the end of the bytes. Raises `UpstreamTruncated` if they ended too early."""
        ...


class Writer(Protocol):
    """Writes one stream in the client's dialect."""

    def write(self, chunks: list[Chunk]) -> bytes:
        """Return the events for these pieces."""
        ...

    def end(self) -> bytes:
        """Return the closing events."""
        ...


class Dialect(ABC):
    """One wire form: `name` is what providers of the same form call it, `path` decides the shape of errors.

    `heartbeat` is the sign of life before a stream's first token; `words` says how the dialect calls fields
    that errors of translation name in the words of chat completions; `files` where its requests name files.
    """

    name: str
    path: str
    doors: tuple[Door, ...] = ()
    content_type: bytes = b"text/event-stream; charset=utf-8"
    # One line end only: an empty event would reach some clients as one.
    heartbeat: bytes = b": ping\n"

    words: Mapping[str, str] = MappingProxyType({})
    files: Naming | None = None

    def naming(self, error: NexusError) -> NexusError:
        """Let an error name its field as this dialect calls it."""
        if error.field is not None:
            whole, _, inside = error.field.partition(".")
            # A place inside of what this dialect divides otherwise would lead astray.
            usual = self.words.get(whole, error.field) if inside else error.field
            error.field = self.words.get(error.field, usual)
        return error

    def answering(self, call: Call) -> Dialect:
        """Return the form in which this call is answered: a dialect with several picks one."""
        return self

    def operation(self, path: str) -> Operation | None:
        """Return what is asked at a path below a chat door with `*`; None where there is nothing."""
        return None

    @abstractmethod
    def parse(self, body: bytes, *, path: str = "", headers: dict[bytes, bytes] | None = None) -> Call:
        """Read and check a request. Raises `InvalidRequest` naming the field, or `MalformedBody`."""

    @abstractmethod
    def inspect(self, body: bytes) -> Tally:
        """Look at a whole answer in this dialect. Raises `UpstreamMalformed`, or the error that it carries."""

    @abstractmethod
    def relay(self, call: Call) -> Relay:
        """Return a relay for one stream that comes in this dialect."""

    @abstractmethod
    def completion(self, completion: Completion, call: Call) -> bytes:
        """Write a whole answer."""

    @abstractmethod
    def writer(self, call: Call) -> Writer:
        """Return a writer for one stream that comes in another form."""

    def parse_embedding(self, body: bytes, *, path: str = "") -> EmbeddingRequest:
        """Read and check a request to embed. Raises as `parse` does."""
        raise Unsupported

    def embedding(self, embedding: Embedding, request: EmbeddingRequest) -> bytes:
        """Write vectors."""
        raise Unsupported

    def count(self, tokens: int, call: Call) -> bytes:
        """Write how many tokens a request has."""
        raise Unsupported

    def models(self, cards: list[ModelCard], path: str) -> bytes:
        """Write the list of models, or the one that `path` names. Raises `UnknownModel`."""
        raise Unsupported

    def stream_error(self, error: NexusError, request_id: str | None) -> bytes:
        """Write an error in the middle of a stream; nothing follows it, least of all a normal end."""
        return problem.stream_error(self.path, error, request_id)


def card_of(cards: list[ModelCard], name: str) -> ModelCard:
    """Return the card of this name. Raises `UnknownModel`."""
    for card in cards:
        if card.name == name:
            return card
    raise UnknownModel("There is no model of this name here, or it is not yours to use.", field="model")
