"""Responses that are made in the background: a run of one step for each, unless their provider does it itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from nexus.access.types import Principal
from nexus.core.clock import Clock
from nexus.core.errors import NexusError
from nexus.llm import storage
from nexus.llm.dialect import Dialect
from nexus.llm.errors import UnknownResponse, Unsupported
from nexus.llm.responses_answers import echo_of, response_head
from nexus.llm.responses_items import DIALECT
from nexus.llm.responses_requests import ResponsesCall
from nexus.llm.service import LLMService
from nexus.llm.tables import ResponseRow
from nexus.runs.service import RunService
from nexus.runs.types import RunSpec, StepSpec
from nexus.storage.db import Database

RESPOND = "llm.respond"
_any = msgspec.json.Decoder()
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
        recall: Callable[[str, ResponsesCall], Awaitable[None]],
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
        # Whatever the model cannot do is to be told now.
        call.parse()
        asked = _any.decode(call.body)
        head = response_head(call.model, echo_of(asked)) | {"status": "queued"}
        body = _encode(head)
        spec = RunSpec(
            kind="response", name=call.model, steps=[StepSpec("respond", RESPOND, {"response_id": head["id"]})]
        )
        row = ResponseRow(
            project_id=principal.project_id,
            id=head["id"],
            previous_id=call.previous,
            status="queued",
            held_by=None,
            input=call.input,
            body=body,
            request=call.body,
            created_at=self._clock.now(),
            deleted=False,
        )
        await self._database.write(storage.keep, row)
        run = await self._runs.start(principal, spec)
        await self._database.write(storage.belongs_to, principal.project_id, row.id, run.id)
        return body

    async def respond(self, principal: Principal, response_id: str, **origin: Any) -> str:
        """Answer a call of the background; return its status. For the engine's step."""
        row = await self._database.read(storage.response, principal.project_id, response_id)
        if row is None:
            raise UnknownResponse(f"Response with id '{response_id}' not found.")
        if row.request is None:
            return row.status
        head = _any.decode(row.body)
        call = self._form.parse(row.request)
        assert isinstance(call, ResponsesCall)
        try:
            if call.previous is not None:
                await self._recall(principal.project_id, call)
            call.stream = False
            with self._llm.entry(principal, call, **origin) as entry:
                answer = _any.decode(await self._llm.answer(call, self._form, entry))
        except NexusError as error:
            told = {"code": error.code, "message": error.message}
            failed = _encode(head | {"status": "failed", "error": told})
            await self._database.write(storage.finish, principal.project_id, response_id, "failed", failed)
            raise
        whole = answer | {"id": response_id, "created_at": head["created_at"], "background": True}
        status = str(answer.get("status") or "completed")
        await self._database.write(storage.finish, principal.project_id, response_id, status, _encode(whole))
        return status
