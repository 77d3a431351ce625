"""One upstream call that several callers wait for: whoever asks the same while it is under way joins it.

It is a task of its own, so that nobody's leaving ends it for the others; when all have left it ends too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from nexus.llm.cache.kept import Kept
from nexus.llm.dialect import Dialect
from nexus.llm.errors import AnswerFailed, UpstreamMalformed, UpstreamUnavailable
from nexus.llm.flow import Heard, Hearing
from nexus.llm.forms.assembly import Assembly
from nexus.llm.money.accounting import Entry
from nexus.llm.routing.dropping import dropped_in
from nexus.llm.types import Call, Tally

K = TypeVar("K")


class Flight(Generic[K]):
    """The call: callers `board` it, wait, and `leave`. The first of them pays, and hands over on leaving."""

    def __init__(self, landed: Callable[[], None]) -> None:
        """Be the first caller's. It departs with `fly_whole`; `landed` is its end."""
        self._landed = landed
        self.streamed = False
        self.over = False
        self.failure: Exception | None = None
        self.kept: K | None = None
        self.tally = Tally()
        self._first: Entry | None = None
        self._payer: Entry | None = None
        self._aboard: list[Entry] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None

    def fly_whole(self, ask: Callable[[], Awaitable[K]], keep: Callable[[K], Awaitable[None]]) -> None:
        """Ask for a whole answer and keep it."""

        async def work() -> None:
            self.kept = await ask()
            await keep(self.kept)

        self._depart(work)

    def board(self, entry: Entry) -> bool:
        """Come aboard; True for the one whose call it is."""
        self._aboard.append(entry)
        if self._first is None:
            self._first = self._payer = entry
        return self._first is entry

    def pays(self, entry: Entry) -> bool:
        """Tell whether the call is on this entry's account; one that inherited it takes it over now."""
        if self._payer is not entry or self._first is None:
            return False
        if self._first is not entry:
            entry.takes_over(self._first, self.tally if self.streamed else self._first.tally)
        return True

    def leave(self, entry: Entry) -> None:
        """Go, before or after the end."""
        if entry not in self._aboard:
            return
        self._aboard.remove(entry)
        if self.over or self._task is None:
            return
        if not self._aboard:
            self._task.cancel()
        elif self._payer is entry:
            self._payer = self._aboard[0]
            self.pays(self._payer)
            entry.hands_over()
            self._payer.cache, entry.cache = entry.cache, {"cache": "hit"}

    async def whole(self) -> K:
        """Wait for the end. Raises what went wrong."""
        while not self.over:
            await self._change()
        if self.failure is not None:
            raise self.failure
        assert self.kept is not None
        return self.kept

    def _depart(self, work: Callable[[], Awaitable[None]]) -> None:
        async def fly() -> None:
            try:
                await work()
            except Exception as error:  # noqa: BLE001  raised again by everybody who waits for the answer
                self.failure = error
            finally:
                self.over = True
                if self.kept is None and self.failure is None:
                    self.failure = UpstreamUnavailable()
                self._landed()
                self._wake()

        self._task = asyncio.get_running_loop().create_task(fly())

    async def _change(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        await turn

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            if not turn.done():
                turn.set_result(None)


class ChatFlight(Flight[Kept]):
    """A chat that several wait for, whole or streamed."""

    def __init__(self, call: Call, dialect: Dialect | None, landed: Callable[[], None]) -> None:
        """Belong to the first caller's `call`. It departs with `fly_whole` or `fly_stream`."""
        super().__init__(landed)
        self.call = call
        self.dialect = dialect
        self.dropped = b""
        """What its deployment was not asked for, as the first words came."""
        self.pieces: list[Heard] = []

    def fly_stream(self, begin: Callable[[], Awaitable[Hearing]], keep: Callable[[Kept], Awaitable[None]]) -> None:
        """Open a stream, read it to its end, however slow those are who listen, and keep it."""
        self.streamed = True

        async def work() -> None:
            assembly = Assembly()
            flow = await begin()
            self.tally = flow.tally
            assert self._first is not None
            self.dropped = dropped_in(self._first.headers)
            try:
                pieces: list[Heard] | None = flow.first
                while pieces is not None:
                    for piece in pieces:
                        assembly.add(piece.chunks)
                    self.pieces += pieces
                    self._wake()
                    pieces = await flow.next()
            finally:
                await flow.close()
            self.kept = Kept.of(assembly.completion(), dropped=self.dropped)
            await keep(self.kept)

        self._depart(work)

    async def piece(self, position: int) -> Heard | None:
        """Wait for a piece of a stream; None at its end. Raises what went wrong after all pieces."""
        while position >= len(self.pieces):
            if self.over:
                if self.failure is not None:
                    raise self.failure
                return None
            await self._change()
        return self.pieces[position]


class Listening:
    """One caller's way through a streamed flight: its very bytes where the form is the same, else its own words.

    A caller whose call it is not (`again`) gets an id of its own where that matters. Bytes may end in the middle, where
    another deployment goes on: from there on the caller's own words follow, written as if all before had been.
    """

    def __init__(
        self, flight: ChatFlight, call: Call, dialect: Dialect, entry: Entry, first: Heard, *, again: bool
    ) -> None:
        """Begin with the first piece, which has come."""
        raw = flight.dialect is dialect and _same_form(flight.call, call) and not (again and call.own_id)
        # A writer is made for words of our own only: a dialect may learn from it whose they are.
        self._writer = None if raw else dialect.writer(call)
        self._call, self._dialect = call, dialect
        self._flight = flight
        self._entry = entry
        self._position = 1
        self._ended = False
        self.first = self._write(first)

    async def next(self) -> bytes | None:
        """Return the next bytes, None at the end. Raises what the stream reports."""
        while not self._ended:
            heard = await self._flight.piece(self._position)
            if heard is None:
                self._ended = True
                return None if self._writer is None else self._writer.end()
            self._position += 1
            if data := self._write(heard):
                return data
        return None

    async def close(self) -> None:
        """Leave the flight."""
        self._flight.leave(self._entry)

    def _write(self, heard: Heard) -> bytes:
        if self._writer is None:
            if heard.data is not None:
                return heard.data
            self._writer = self._dialect.writer(self._call)
            for before in self._flight.pieces[: self._position - 1]:
                self._writer.write(before.chunks)
        for chunk in heard.chunks:
            if chunk.finish_reason == "failed":
                raise AnswerFailed.of(chunk.native_finish_reason or "")
        return self._writer.write(heard.chunks)


async def listen_alone(
    call: Call, dialect: Dialect, entry: Entry, begin: Callable[[], Awaitable[Hearing]]
) -> Listening:
    """Open a stream that nobody else may join and that is not kept."""

    async def forget(_kept: Kept) -> None:
        return

    flight = ChatFlight(call, dialect, lambda: None)
    flight.board(entry)
    flight.fly_stream(begin, forget)
    try:
        first = await flight.piece(0)
        if first is None:
            raise UpstreamMalformed
    except BaseException:
        flight.leave(entry)
        raise
    return Listening(flight, call, dialect, entry, first, again=False)


def _same_form(one: Call, other: Call) -> bool:
    return one.wants_usage == other.wants_usage and one.form == other.form
