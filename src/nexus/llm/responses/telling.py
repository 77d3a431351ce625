"""The events of responses that are made in the background: written down as they come, followed from any process.

An engine adds them in batches, each with the numbers of its events; the clients' streams are read from there, so
that a client, an API process or an engine that goes away costs nobody a word.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final

import msgspec

from nexus.core.errors import NexusError
from nexus.llm import storage
from nexus.llm.flow import Stream
from nexus.llm.forms.responses.events import event_bytes
from nexus.llm.responses.carried import CarriedWriter
from nexus.llm.responses.so_far import SoFar
from nexus.llm.storage import OPEN, Asked, Ended
from nexus.llm.tables import ResponseEventRow, ResponseRow
from nexus.llm.types import Chunk
from nexus.storage.db import Database

_NUMBER = re.compile(rb'"sequence_number": ?(\d+)')
_BATCH: Final = 0.1
_AT_ONCE: Final = 200
_PAUSES: Final = (0.05, 0.25)
_SIGN_OF_LIFE: Final = 15.0
_LOOK_FOR_RUN: Final = 2.0
_any = msgspec.json.Decoder()


def first_events(head: dict[str, Any]) -> bytes:
    """Return what a stream begins with while its response waits for an engine."""
    kinds = enumerate(("response.created", "response.queued"))
    return b"".join(event_bytes(kind, {"type": kind, "sequence_number": n, "response": head}) for n, kind in kinds)


def last_event(response: dict[str, Any]) -> Callable[[int], bytes]:
    """Return the event, for any number, of a response that was ended from outside."""
    kind = "response.failed"
    return lambda number: event_bytes(kind, {"type": kind, "sequence_number": number, "response": response})


def batch_of(project_id: str, response_id: str, data: bytes) -> ResponseEventRow:
    """Return events as they are written down."""
    numbers = _numbers(data)
    return ResponseEventRow(
        project_id=project_id, response_id=response_id, number=numbers[0], last=numbers[-1], data=data
    )


def so_far_of(batches: list[bytes]) -> SoFar:
    """Read what was told up to now."""
    lines = (line for data in batches for line in data.split(b"\n") if line.startswith(b"data: "))
    return SoFar(_any.decode(line[6:]) for line in lines)


class Teller:
    """Writes down the events of one response, as long as its `worker` is the one to do so.

    What is `asked` for them is written down with the next ones.
    """

    def __init__(self, database: Database, row: ResponseRow, worker: str) -> None:
        """Write for the response of `row`."""
        self._database = database
        self._row = row
        self._worker = worker
        self.asked: Asked | None = None

    async def tell(self, data: bytes, ended: Ended | None = None) -> bool:
        """Write down events, and the end; False where the response has ended, or is another's."""
        if not data:
            return True
        place, asked, self.asked = (self._row.project_id, self._row.id), self.asked, None
        return await self._database.write(storage.tell, *place, self._worker, batch_of(*place, data), ended, asked)

    async def pass_on(self, stream: Stream[list[Chunk]], writer: CarriedWriter) -> bool:
        """Write down a stream as it comes, ten times a second at most; False as soon as nobody wants it."""
        clock = asyncio.get_running_loop().time
        waiting, due = writer.write(stream.first), 0.0
        getting = asyncio.ensure_future(stream.next())
        try:
            while True:
                patience = max(0.0, due - clock()) if waiting else None
                await asyncio.wait({getting}, timeout=patience)
                if getting.done():
                    try:
                        chunks = getting.result()
                    except NexusError:
                        # What follows has the next numbers: these words must have been told.
                        await self.tell(waiting)
                        raise
                    if chunks is None:
                        return await self.tell(waiting)
                    waiting += writer.write(chunks)
                    getting = asyncio.ensure_future(stream.next())
                if waiting and clock() >= due:
                    if not await self.tell(waiting):
                        return False
                    waiting, due = b"", clock() + _BATCH
        finally:
            getting.cancel()
            await asyncio.gather(getting, return_exceptions=True)


async def follow(
    database: Database, project_id: str, response_id: str, after: int, settle: Callable[[], Awaitable[None]]
) -> AsyncGenerator[bytes]:
    """Yield the events behind number `after` until the response has ended; `settle` ends one that nobody makes."""
    clock = asyncio.get_running_loop().time
    shortest, longest = _PAUSES
    pause, spoke, looked = shortest, clock(), clock()
    while True:
        status, batches = await database.read(storage.told_and_status, project_id, response_id, after, _AT_ONCE)
        for batch in batches:
            yield batch.data if batch.number > after else _rest(batch.data, after)
            after, spoke, pause = batch.last, clock(), shortest
        if batches:
            continue
        if status not in OPEN:
            return
        if clock() - spoke >= _SIGN_OF_LIFE:
            spoke = clock()
            yield b": waiting\n"
        if clock() - looked >= _LOOK_FOR_RUN:
            looked = clock()
            await settle()
        await asyncio.sleep(pause)
        pause = min(longest, 1.5 * pause)


def _numbers(data: bytes) -> list[int]:
    # What a model says cannot look like this: its quotation marks are escaped.
    return [int(number) for number in _NUMBER.findall(data)]


def _rest(data: bytes, after: int) -> bytes:
    events = data.removesuffix(b"\n\n").split(b"\n\n")
    return b"".join(event + b"\n\n" for event in events if _numbers(event)[0] > after)
