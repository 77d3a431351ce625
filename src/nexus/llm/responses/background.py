"""Responses that are made in the background: a run of one step for each, unless their provider does it itself.

A streamed one is told as it comes (`responses.telling`). Whoever takes its step over after an engine has died goes
on behind what was told: in the middle of the text where that is possible, else with a new answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import msgspec

from nexus.access.types import Principal
from nexus.core.clock import Clock
from nexus.core.errors import NexusError
from nexus.core.ids import new_id
from nexus.llm import storage
from nexus.llm.dialect import Dialect
from nexus.llm.errors import UnknownModel, UnknownResponse, Unsupported
from nexus.llm.forms.responses.answers import echo_of, read_usage, response_head, wants_sources
from nexus.llm.forms.responses.items import DIALECT, Names, offered
from nexus.llm.forms.responses.requests import ResponsesCall
from nexus.llm.money.accounting import Entry
from nexus.llm.responses.carried import CarriedWriter
from nexus.llm.responses.so_far import SoFar
from nexus.llm.responses.telling import Teller, batch_of, first_events, last_event, so_far_of
from nexus.llm.routing.continuation import continuing, may_continue, summed
from nexus.llm.routing.delivery import MOVES_ON
from nexus.llm.service import LLMService
from nexus.llm.storage import OPEN, Asked, Ended, TakenUp
from nexus.llm.tables import ResponseRow
from nexus.llm.types import Deployment, Route, Tally, Usage
from nexus.runs import storage as run_storage
from nexus.runs.service import RunService
from nexus.runs.types import RetryPolicy, RunSpec, RunStatus, StepSpec
from nexus.storage.db import Database, DatabaseUnavailable

RESPOND = "llm.respond"
_TRIES: Final = 3
_CHARACTERS_PER_TOKEN: Final = 4
# What the model or its provider refuses is told at once; only our own database is worth another try.
_RETRIES: Final = RetryPolicy(max=5, on=[DatabaseUnavailable.code])
_LOST: Final = {"code": "server_error", "message": "The response could not be made: its run has ended without it."}
_any = msgspec.json.Decoder()
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode


class Background:
    """Starts such responses, and works on them in the engine."""

    def __init__(
        self,
        *,
        database: Database,
        llm: LLMService,
        runs: RunService,
        form: Dialect,
        clock: Clock,
        recall: Callable[[Principal, ResponsesCall], Awaitable[None]],
    ) -> None:
        """`form` reads and writes the dialect; `recall` fills in what a call refers to."""
        self._database = database
        self._llm = llm
        self._runs = runs
        self._form = form
        self._clock = clock
        self._recall = recall

    def is_held_elsewhere(self, call: ResponsesCall, project: str) -> bool:
        """Tell whether every provider of the call's route works in the background by itself."""
        targets = self._llm.registry.find(call.model, project=project).deployments
        served = ((self._llm.registry.account(item.provider), item.model) for item in targets)
        return all(plug.serving(account, model, call).dialect == DIALECT for (account, plug), model in served)

    async def begin(self, principal: Principal, call: ResponsesCall) -> bytes:
        """Start a run that answers the call; return the response as it stands. Raises `Unsupported`."""
        if not call.store:
            raise Unsupported("A response in the background must be stored.", field="store")
        # Whatever the model cannot do is to be told now. Files are only named in what is kept, and read when it runs.
        call.parse()
        head = response_head(call.model, echo_of(_any.decode(call.body))) | {"status": "queued"}
        body = _encode(head)
        steps = [StepSpec("respond", RESPOND, {"response_id": head["id"]}, retries=_RETRIES)]
        spec = RunSpec(kind="response", name=call.model, steps=steps)
        asked = {name: value for name, value in _fields.decode(call.given or call.body).items() if name != "background"}
        row = ResponseRow(
            project_id=principal.project_id,
            id=head["id"],
            previous_id=call.previous,
            status="queued",
            held_by=None,
            input=call.input,
            body=body,
            request=_encode(asked),
            created_at=self._clock.now(),
            deleted=False,
        )
        events = batch_of(row.project_id, row.id, first_events(head)) if call.stream else None
        await self._runs.refuse_when_full()
        await self._database.write(
            storage.begin, row, events, lambda session: self._runs.start_in(session, principal, spec)[0].id
        )
        self._runs.ring()
        return body

    async def settle(self, project_id: str, response_id: str) -> None:
        """End a response whose run has ended without it: cancelled, or given up."""
        row = await self._database.read(storage.response, project_id, response_id)
        if row is None or row.status not in OPEN or row.run_id is None:
            return
        with suppress(NexusError):
            run = await self._database.read(run_storage.run_status, project_id, row.run_id)
            if run.final:
                told = {"status": "cancelled"} if run is RunStatus.CANCELLED else {"status": "failed", "error": _LOST}
                await self.conclude(row, told)

    async def conclude(self, row: ResponseRow, told: dict[str, Any]) -> None:
        """End a response from outside, unless it has ended meanwhile."""
        response = _any.decode(row.body) | told
        ended = Ended(told["status"], _encode(response))
        await self._database.write(storage.conclude, row.project_id, row.id, ended, last_event(response))

    async def respond(self, principal: Principal, response_id: str, **origin: Any) -> str:
        """Answer a call of the background; return its status. For the engine's step."""
        row = await self._database.read(storage.response, principal.project_id, response_id)
        if row is None:
            raise UnknownResponse(f"Response with id '{response_id}' not found.")
        if row.request is None:
            return row.status
        call = self._form.parse(row.request)
        assert isinstance(call, ResponsesCall)
        if call.stream:
            return await self._respond_streamed(principal, row, call, origin)
        head = _any.decode(row.body)
        try:
            call = await self._made_ready(principal, call, origin)
            with self._llm.entry(principal, call, **origin) as entry:
                answer = _any.decode(await self._llm.answer(call, self._form, entry))
        except DatabaseUnavailable:
            raise
        except NexusError as error:
            failed = _encode(head | {"status": "failed", "error": _told(error)})
            await self._database.write(storage.finish, principal.project_id, response_id, "failed", failed)
            raise
        whole = answer | {"id": response_id, "created_at": head["created_at"], "background": True}
        status = str(answer.get("status") or "completed")
        await self._database.write(storage.finish, principal.project_id, response_id, status, _encode(whole))
        return status

    async def _respond_streamed(
        self,
        principal: Principal,
        row: ResponseRow,
        call: ResponsesCall,
        origin: dict[str, Any],
        tries: int = _TRIES,
        known: Usage | None = None,
    ) -> str:
        """Make the response, or go on with it. `known` is what the attempt before has used and has on record."""
        worker = new_id("wrk")
        kept = await self._database.write(storage.take_up, row.project_id, row.id, worker)
        if kept is None:
            return await self._status(row)
        so_far, teller = so_far_of(kept.events), Teller(self._database, row, worker)
        goes_on = so_far.may_go_on and may_continue(call)
        asked_for = _any.decode(call.body)
        names = Names.of(offered(asked_for, call.history))
        writer = CarriedWriter(so_far, names, goes_on=goes_on, sources=wants_sources(asked_for))
        entry: Entry | None = None
        try:
            call = await self._made_ready(principal, call, origin)
            if so_far.begun and known is None:
                known = await self._record_lost(principal, call, kept, so_far, origin)
            wanted = await teller.tell(writer.begin(_with(so_far.used, known)))
            asked = continuing(call, so_far.said) if goes_on else call
            with self._llm.entry(principal, asked, **origin) as entry:
                entry.invocation.id = _invocation_of(worker)
                flow = await self._llm.open_chunks(asked, entry)
                entry.first_token()
                teller.asked = _asked(entry)
                try:
                    wanted = wanted and await teller.pass_on(flow, writer)
                finally:
                    await flow.close()
                if not wanted:
                    entry.close(GeneratorExit())
        except DatabaseUnavailable:
            raise
        except NexusError as error:
            used = _on_record(entry)
            if tries and isinstance(error, MOVES_ON) and await self._may_carry_on(row, call, worker):
                return await self._respond_streamed(principal, row, call, origin, tries - 1, used or Usage())
            last = writer.fail(_told(error), used)
            await teller.tell(last, Ended("failed", _encode(writer.response)))
            raise
        if wanted:
            last = writer.ended(entry.usage())
            await teller.tell(last, Ended(writer.response["status"], _encode(writer.response)))
        return await self._status(row)

    async def _made_ready(self, principal: Principal, call: ResponsesCall, origin: dict[str, Any]) -> ResponsesCall:
        """Return the call with its files and what it refers to; one that is refused for those is on record too."""
        try:
            filled = await self._llm.named_files.put_into(principal, call, self._form.files, self._form.parse)
            assert isinstance(filled, ResponsesCall)
            if filled.previous is not None:
                await self._recall(principal, filled)
        except DatabaseUnavailable:
            raise
        except NexusError as error:
            self._llm.entry(principal, call, **origin).close(error)
            raise
        return filled

    async def _may_carry_on(self, row: ResponseRow, call: ResponsesCall, worker: str) -> bool:
        """Tell whether the route wants a stream that broke to be carried on, and this one can be."""
        route = self._llm.registry.find(call.model, project=row.project_id)
        if not route.continuation or not may_continue(call):
            return False
        kept = await self._database.write(storage.take_up, row.project_id, row.id, worker)
        return kept is not None and so_far_of(kept.events).may_go_on

    async def _record_lost(
        self, principal: Principal, call: ResponsesCall, kept: TakenUp, so_far: SoFar, origin: dict[str, Any]
    ) -> Usage:
        """Record the attempt of an engine that is gone, by what it has told; return what that must have used.

        The row has the very name that the engine would have given it: should it come back to itself, it adds nothing.
        """
        used = Usage(
            input_tokens=-(-(call.characters + so_far.heard) // _CHARACTERS_PER_TOKEN),
            output_tokens=-(-so_far.made // _CHARACTERS_PER_TOKEN),
            estimated=True,
        )
        if kept.worker is not None:
            entry = self._llm.entry(principal, call, **origin)
            entry.invocation.id = _invocation_of(kept.worker)
            entry.goes_to(*await self._way_of(call, principal.project_id, kept.asked))
            entry.tally = Tally(usage=used)
            entry.close(GeneratorExit())
        return used

    async def _way_of(self, call: ResponsesCall, project: str, asked: Asked | None) -> tuple[Route, Deployment]:
        """Return where an attempt went; the first place of the call's route where that is not known, or is no more."""
        if asked is not None:
            with suppress(UnknownModel):
                route = await self._llm.registry.priced(asked.route, project=project)
                for deployment in route.deployments:
                    if deployment.key == asked.deployment:
                        return route, deployment
        route = await self._llm.registry.priced(call.model, project=project)
        return route, route.deployments[0]

    async def _status(self, row: ResponseRow) -> str:
        found = await self._database.read(storage.response, row.project_id, row.id)
        return "deleted" if found is None else found.status


def _invocation_of(worker: str) -> str:
    return f"inv_{worker.partition('_')[2]}"


def _asked(entry: Entry) -> Asked | None:
    route, deployment = entry.route, entry.deployment
    return Asked(route.name, deployment.key) if route is not None and deployment is not None else None


def _with(before: dict[str, Any] | None, known: Usage | None) -> Usage | None:
    told = read_usage(before)
    return known if told is None else told if known is None else summed(told, known)


def _on_record(entry: Entry | None) -> Usage | None:
    """Return what an attempt has used, None where it came to nothing."""
    if entry is None or not entry.closed or entry.invocation.input_tokens is None:
        return None
    row = entry.invocation
    return Usage(
        input_tokens=row.input_tokens or 0,
        output_tokens=row.output_tokens or 0,
        cache_read_tokens=row.cache_read_tokens or 0,
        cache_write_tokens=row.cache_write_tokens or 0,
        reasoning_tokens=row.reasoning_tokens or 0,
    )


def _told(error: NexusError) -> dict[str, str]:
    return {"code": error.code, "message": error.message}
