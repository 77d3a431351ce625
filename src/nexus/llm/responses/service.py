"""Responses that outlive their call: kept for their project, referred to, read again, worked on in the background.

It stands around the calls of the Responses dialect (`nexus.llm.session`): before a call it looks up what the
call refers to, after it it keeps the answer, unless the client says `store: false`. Keeping is done beside the
answer; who refers to a response before it is written finds it in `_arriving`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import msgspec

from nexus.access.types import Principal
from nexus.core.clock import Clock
from nexus.core.errors import Conflict, InvalidInput, NexusError
from nexus.core.plugins import PluginFolder
from nexus.files.errors import FileNotFound
from nexus.llm import storage
from nexus.llm.dialect import Dialect
from nexus.llm.errors import UnknownResponse
from nexus.llm.forms.named_files import has_mark
from nexus.llm.forms.responses.events import events_of
from nexus.llm.forms.responses.items import DIALECT, with_ids
from nexus.llm.forms.responses.named_files import NAMING
from nexus.llm.forms.responses.requests import ResponsesCall, items_of
from nexus.llm.money.accounting import Entry
from nexus.llm.responses.background import Background
from nexus.llm.responses.elsewhere import Elsewhere
from nexus.llm.responses.session import ResponsesSession
from nexus.llm.responses.telling import follow
from nexus.llm.service import LLMService
from nexus.llm.session import Session
from nexus.llm.storage import OPEN
from nexus.llm.tables import ResponseRow
from nexus.llm.types import Call
from nexus.runs.service import RunService
from nexus.storage.db import Database

log = logging.getLogger(__name__)

_LONGEST_CHAIN = 2_000
_SWEEP_SECONDS = 3_600.0
_ARRIVES_WITHIN = (0.05, 0.2)
_LOOK_SECONDS = 0.5
_LONGEST_ID = 128


class _Told(msgspec.Struct):
    """What has to be known of an answer to keep it."""

    id: str = ""
    status: str = "completed"
    store: bool | None = None


_any = msgspec.json.Decoder()
_told = msgspec.json.Decoder(_Told)
_encode = msgspec.json.Encoder().encode


class ResponsesService:
    """The store of responses. One for each process."""

    dialect = DIALECT

    def __init__(
        self, *, database: Database, llm: LLMService, runs: RunService, form: Dialect, clock: Clock, days: int
    ) -> None:
        """Keep responses for `days`; `form` reads and writes their dialect."""
        self._database = database
        self._llm = llm
        self._elsewhere = Elsewhere(llm)
        self._runs = runs
        self.background = Background(database=database, llm=llm, runs=runs, form=form, clock=clock, recall=self.recall)
        self._clock = clock
        self._days = days
        self._arriving: dict[tuple[str, str], ResponseRow] = {}
        self._writing: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to remove what is too old."""
        self._sweeper = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        """Write what is still to be written."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        await asyncio.gather(*self._writing, return_exceptions=True)

    # Around a call.

    def open(self, call: Call, entry: Entry) -> Session:
        """Return what stands around this call."""
        assert isinstance(call, ResponsesCall)
        return ResponsesSession(self, call, entry)

    async def recall(self, principal: Principal, call: ResponsesCall) -> None:
        """Fill in the items that a call refers to. Raises `UnknownResponse` for what is another project's."""
        assert call.previous is not None
        rows = await self._chain(principal.project_id, call.previous)
        if not rows:
            if await self._database.read(storage.is_taken, call.previous):
                raise UnknownResponse(field="previous_response_id")
            return
        if rows[-1].status in OPEN:
            raise Conflict("The previous response has not ended yet.", field="previous_response_id")
        if rows[0].previous_id is not None:
            if rows[-1].held_by is None:
                raise UnknownResponse(
                    "An earlier response of this one is no longer kept.", field="previous_response_id"
                )
            return  # its provider may still have all of them
        history: list[dict[str, Any]] = []
        for row in rows:
            history += items_of(_any.decode(row.input))
            history += _any.decode(row.body).get("output") or ()
        lacking: NexusError | None = None
        if any(has_mark(row.input) for row in rows):
            try:
                history = await self._with_files(principal, history)
            except (FileNotFound, InvalidInput) as error:
                if rows[-1].held_by is None:
                    raise
                lacking = error  # their provider has seen what the files held
        call.recall(history, rows[-1].held_by, lacking)
        call.characters += sum(len(row.input) + len(row.body) for row in rows)

    async def _with_files(self, principal: Principal, history: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return earlier items with the files that they name; what is kept of a response names them only."""
        body = _encode({"input": history})
        filled = await self._llm.named_files.filled(principal, body, NAMING, field="previous_response_id")
        return list(_any.decode(filled)["input"])

    async def _chain(self, project_id: str, response_id: str) -> list[ResponseRow]:
        """Return a response and those before it, also where the last ones are just being written."""
        last: list[ResponseRow] = []
        following: str | None = response_id
        while following is not None and (row := self._arriving.get((project_id, following))) is not None:
            last.append(row)
            following = row.previous_id
        if following is None:
            return last[::-1]
        rows = await self._database.read(storage.chain, project_id, following, _LONGEST_CHAIN)
        for seconds in _ARRIVES_WITHIN if not rows else ():
            # Another process may be about to write it.
            await asyncio.sleep(seconds)
            rows = await self._database.read(storage.chain, project_id, following, _LONGEST_CHAIN)
            if rows:
                break
        return [*rows, *last[::-1]]

    def keep(self, project_id: str, call: ResponsesCall, body: bytes, held_by: str | None) -> None:
        """Keep an answer; returns at once."""
        try:
            told = _told.decode(body)
        except msgspec.DecodeError:
            return
        if not 0 < len(told.id) <= _LONGEST_ID:
            return
        row = ResponseRow(
            project_id=project_id,
            id=told.id,
            previous_id=call.previous if call.history is not None else None,
            status=told.status[:16],
            held_by=held_by if told.store is not False else None,
            input=call.input,
            body=body,
            request=None,
            created_at=self._clock.now(),
            deleted=False,
        )
        self._arriving[project_id, told.id] = row
        task = asyncio.get_running_loop().create_task(self._write(row))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _write(self, row: ResponseRow) -> None:
        try:
            await self._database.write(storage.keep, row)
        except NexusError as error:
            log.error("a response could not be kept: %s", error.code)
        finally:
            if self._arriving.get((row.project_id, row.id)) is row:
                del self._arriving[row.project_id, row.id]

    # Afterwards.

    async def _row(self, project_id: str, response_id: str) -> ResponseRow:
        row = self._arriving.get((project_id, response_id))
        row = row or await self._database.read(storage.response, project_id, response_id)
        if row is None:
            raise UnknownResponse(f"Response with id '{response_id}' not found.")
        return row

    async def get(self, principal: Principal, response_id: str) -> ResponseRow:
        """Return a response as it stands. Raises `UnknownResponse`."""
        row = await self._row(principal.project_id, response_id)
        if row.status in OPEN and row.held_by is not None:
            return await self._ask(row, "GET", "")
        if row.status in OPEN:
            await self.background.settle(row.project_id, row.id)
            return await self._row(row.project_id, row.id)
        return row

    async def cancel(self, principal: Principal, response_id: str) -> bytes:
        """Cancel a response that is worked on in the background; one that has ended stays as it is."""
        row = await self._row(principal.project_id, response_id)
        body = _any.decode(row.body)
        if not body.get("background"):
            raise Conflict("Only a response that is made in the background can be cancelled.", field="response_id")
        if row.status not in OPEN:
            return row.body
        if row.held_by is not None:
            return (await self._ask(row, "POST", "/cancel")).body
        if row.run_id is not None:
            with suppress(NexusError):
                await self._runs.cancel(principal, row.run_id)
        await self.background.conclude(row, {"status": "cancelled"})
        return (await self._row(row.project_id, row.id)).body

    async def delete(self, principal: Principal, response_id: str) -> None:
        """Delete a response, here and where its provider keeps it. Raises `UnknownResponse`."""
        await asyncio.gather(*self._writing, return_exceptions=True)
        row = await self._database.write(storage.forget, principal.project_id, response_id)
        if row is None:
            raise UnknownResponse(f"Response with id '{response_id}' not found.")
        if row.run_id is not None and row.status in OPEN:
            with suppress(NexusError):
                await self._runs.cancel(principal, row.run_id)
        if row.held_by is not None:
            with suppress(NexusError):
                await self._elsewhere.fetch(row, "DELETE")

    async def input_items(self, principal: Principal, response_id: str) -> list[dict[str, Any]]:
        """Return the items that a response was given, oldest first, those of earlier responses included."""
        rows = await self._chain(principal.project_id, response_id)
        if not rows:
            raise UnknownResponse(f"Response with id '{response_id}' not found.")
        items: list[dict[str, Any]] = []
        for row in rows:
            items += with_ids(items_of(_any.decode(row.input)), row.id)
            if row is not rows[-1]:
                items += _any.decode(row.body).get("output") or ()
        return items

    async def stream(self, principal: Principal, response_id: str, after: int) -> AsyncGenerator[bytes]:
        """Yield the events of a response behind number `after`; one that has not ended is waited for."""
        row = await self.get(principal, response_id)
        if row.status in OPEN and row.held_by is not None:
            async for data in self._elsewhere.follow(row, after):
                yield data
            return
        place = (row.project_id, row.id)
        _, begun = await self._database.read(storage.told_and_status, *place, -1, 1)
        if begun:
            async for data in follow(self._database, *place, after, lambda: self.background.settle(*place)):
                yield data
            return
        while row.status in OPEN:
            yield b": waiting\n"
            await asyncio.sleep(_LOOK_SECONDS)
            row = await self.get(principal, response_id)
        for number, event in enumerate(events_of(_any.decode(row.body))):
            if number > after:
                yield event

    async def _ask(self, row: ResponseRow, method: str, end: str) -> ResponseRow:
        """Ask the provider that keeps a response how it stands."""
        body = await self._elsewhere.fetch(row, method, end)
        status = str(_any.decode(body).get("status") or row.status)[:16]
        if status not in OPEN:
            await self._database.write(storage.finish, row.project_id, row.id, status, body)
        row.status, row.body = status, body
        return row

    async def _sweep(self) -> None:
        while True:
            with suppress(NexusError):
                await self._database.write(storage.sweep, self._clock.now() - timedelta(days=self._days))
            await asyncio.sleep(_SWEEP_SECONDS)


def responses_form() -> Dialect:
    """Return the dialect that reads and writes responses."""
    # The folder only checks with isinstance, so an abstract contract will do.
    folder: PluginFolder[Dialect] = PluginFolder("nexus.llm.dialects", Dialect, noun="dialect")  # type: ignore[type-abstract]
    return next(plug for plug in folder.all().values() if plug.name == DIALECT)
