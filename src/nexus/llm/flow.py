"""One streamed answer on its way through: bytes of the upstream in, pieces for the caller out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, NamedTuple, Protocol, TypeVar

from nexus.core.errors import InvalidInput, NexusError, RateLimited
from nexus.llm.dialect import Relay, Writer
from nexus.llm.errors import AnswerFailed, UpstreamRejected
from nexus.llm.provider import Decoder
from nexus.llm.routing.router import Router
from nexus.llm.routing.standing import Standing
from nexus.llm.types import Chunk, Tally
from nexus.llm.wire.client import Answer

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")

_DRAIN = 0.25


class Sink(Protocol[T_co]):
    """What turns the upstream's bytes into pieces: a dialect's relay, a translation, or a decoder."""

    @property
    def tally(self) -> Tally:
        """Return what was seen so far."""
        ...

    def feed(self, data: bytes) -> T_co:
        """Return what `data` completes, perhaps nothing."""
        ...

    def end(self) -> T_co:
        """Return the rest. Raises `UpstreamTruncated` when the bytes ended too early."""
        ...


class Stream(Protocol[T_co]):
    """A stream on its way to the caller: `first` has come already."""

    @property
    def first(self) -> T_co:
        """Return the first piece."""
        ...

    async def next(self) -> T_co | None:
        """Return the next piece, None at the end. Raises what broke it."""
        ...

    async def close(self) -> None:
        """Let go of it, at any time."""
        ...


class Heard(NamedTuple):
    """A piece of a stream: what it says, and its bytes where they may be handed on as they are, else None."""

    data: bytes | None
    chunks: list[Chunk]


class Hearing(Stream[list[Heard]], Protocol):
    """An open stream that is heard piece by piece, with its tally."""

    @property
    def tally(self) -> Tally:
        """Return what was seen so far."""
        ...


class Reading:
    """A sink that reads a stream into chunks; it fails where the answer does."""

    def __init__(self, decoder: Decoder) -> None:
        """Read by `decoder`."""
        self._decoder = decoder

    @property
    def tally(self) -> Tally:
        """Return what was seen so far."""
        return self._decoder.tally

    def feed(self, data: bytes) -> list[Chunk]:
        """Return the pieces that `data` completes."""
        chunks, tally = self._decoder.feed(data), self._decoder.tally
        return chunks if tally.failed is None else _without_end(chunks, tally, over=tally.done)

    def end(self) -> list[Chunk]:
        """Return the rest. Raises `UpstreamTruncated`."""
        chunks, tally = self._decoder.end(), self._decoder.tally
        return chunks if tally.failed is None else _without_end(chunks, tally, over=True)


def _without_end(chunks: list[Chunk], tally: Tally, *, over: bool) -> list[Chunk]:
    """Leave out the end of an answer that failed: once it is `over`, and its usage has come, so is the stream."""
    if over and tally.failure is None:
        tally.done, tally.failure = False, AnswerFailed.of(tally.failed or "")
    return [chunk for chunk in chunks if chunk.finish_reason != "failed"]


class Translation:
    """A sink that reads one wire form and writes another."""

    def __init__(self, decoder: Decoder, writer: Writer) -> None:
        """Join the two halves."""
        self._reading = Reading(decoder)
        self._writer = writer
        self._over = False

    @property
    def tally(self) -> Tally:
        """Return what the decoder saw so far."""
        return self._reading.tally

    def feed(self, data: bytes) -> bytes:
        """Return the events for what `data` completes."""
        out = self._writer.write(self._reading.feed(data))
        return out + self._close() if self.tally.done else out

    def end(self) -> bytes:
        """Return the closing events. Raises `UpstreamTruncated`."""
        out = self._writer.write(self._reading.end())
        return out if self.tally.failure is not None else out + self._close()

    def _close(self) -> bytes:
        if self._over:
            return b""
        self._over = True
        return self._writer.end()


class Overheard:
    """A sink that passes a stream's bytes through and reads them as well."""

    def __init__(self, decoder: Decoder, relay: Relay | None) -> None:
        """Without a relay nothing is passed through; with one an answer that failed is, and its chunks say so."""
        self._decoder = decoder if relay is not None else Reading(decoder)
        self._relay = relay

    @property
    def tally(self) -> Tally:
        """Return what was seen so far."""
        return self._decoder.tally if self._relay is None else self._relay.tally

    def feed(self, data: bytes) -> list[Heard]:
        """Return what `data` completes."""
        passed = self._relay.feed(data) if self._relay is not None else None
        return _heard(passed, self._decoder.feed(data))

    def end(self) -> list[Heard]:
        """Return the rest. Raises `UpstreamTruncated`."""
        passed = self._relay.end() if self._relay is not None else None
        return _heard(passed, self._decoder.end())


def _heard(data: bytes | None, chunks: list[Chunk]) -> list[Heard]:
    return [Heard(data, chunks)] if data or chunks else []


class Flow(Generic[T]):
    """An open stream: `first` has come already; `next` returns None at the end; `close` at any time."""

    def __init__(
        self,
        answer: Answer,
        sink: Sink[T],
        first: T,
        *,
        ended: bool,
        private: tuple[str, ...],
        standing: Standing,
        router: Router,
    ) -> None:
        """Take over an answer of which the first piece has been read; `ended` if that was all.

        No error that repeats one of the `private` words is handed on as it is. The deployment's `standing`
        has one call more under way until the flow is closed, and learns of a stream that breaks.
        """
        standing.in_flight += 1
        router.streams += 1
        self._router = router
        self._standing: Standing | None = standing
        self._private = private
        self.first = first
        self._answer = answer
        self._sink = sink
        self._ended = ended
        self._left: T | None = None
        self._problem: NexusError | None = None

    @property
    def tally(self) -> Tally:
        """Return what was seen so far."""
        return self._sink.tally

    async def next(self) -> T | None:
        """Return the next piece. Raises what the stream reports, `UpstreamTruncated`, `UpstreamTimeout` ..."""
        if self._left is not None:
            left, self._left = self._left, None
            return left
        if self._problem is not None:
            problem, self._problem = self._problem, None
            self._broke(problem)
            raise problem
        tally = self._sink.tally
        while True:
            if (failure := tally.failure) is not None:
                self._broke(failure)
                raise failure.without(self._private) if isinstance(failure, UpstreamRejected) else failure
            if self._ended:
                return None
            if tally.done:
                self._ended = True
                if self._standing is not None:
                    self._standing.answered()
                await self._answer.drain(_DRAIN)
                return None
            try:
                data = await self._answer.next()
                self._ended = not data
                piece = self._sink.feed(data) if data else self._sink.end()
            except NexusError as error:
                self._broke(error)
                raise
            if piece:
                return piece

    async def pass_on(self, take: Callable[[T], bool]) -> None:
        """Hand pieces to `take` as they come, waking nobody, as long as it takes them.

        Then `next` has the rest, and raises what went wrong.
        """
        sink, tally = self._sink, self._sink.tally

        def hear(data: bytes) -> bool:
            try:
                piece = sink.feed(data)
            except NexusError as error:
                self._problem = error
                return False
            if piece and not take(piece):
                self._left = piece
                return False
            return not tally.done and tally.failure is None

        await self._answer.pass_on(hear)

    async def close(self) -> None:
        """Let go of the upstream: its connection is kept if the answer is over, closed at once if not."""
        standing, self._standing = self._standing, None
        if standing is not None:
            standing.leave()
            self._router.streams -= 1
            await self._answer.__aexit__(None, None, None)

    def _broke(self, error: NexusError) -> None:
        if self._standing is not None and not isinstance(error, RateLimited | InvalidInput):
            if isinstance(error, AnswerFailed):
                self._standing.answered()
            else:
                self._standing.failed(asyncio.get_running_loop().time(), error.code)
            self._router.meter.failed(self._standing.key.partition("/")[0], error.code)
