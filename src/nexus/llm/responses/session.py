"""What stands around one call of the Responses dialect: what it refers to before, what it answered after."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import Protocol

import msgspec

from nexus.access.types import Principal
from nexus.llm.forms.responses.requests import ResponsesCall
from nexus.llm.money.accounting import Entry
from nexus.llm.responses.background import Background
from nexus.llm.types import Call
from nexus.llm.wire.sse import EventSplitter, data_of

_ENDS = (b'"response.completed"', b'"response.incomplete"')
_BEGINS = b'"response.created"'
_NUMBER = re.compile(rb'"sequence_number": ?(\d+)')
_UNSAID = re.compile(rb'"previous_response_id": ?null')


class _Event(msgspec.Struct):
    response: msgspec.Raw = msgspec.Raw(b"")


class _Made(msgspec.Struct):
    id: str


_event = msgspec.json.Decoder(_Event)
_id = msgspec.json.Decoder(_Made)


class Keeper(Protocol):
    """Who looks up and keeps, and has what is to be made in the background made."""

    background: Background

    async def recall(self, principal: Principal, call: ResponsesCall) -> None:
        """Fill in the items that a call refers to."""
        ...

    def keep(self, project_id: str, call: ResponsesCall, body: bytes, held_by: str | None) -> None:
        """Keep an answer."""
        ...

    def stream(self, principal: Principal, response_id: str, after: int) -> AsyncGenerator[bytes]:
        """Yield the events of a response behind number `after`."""
        ...


class ResponsesSession:
    """One for each call. `instead` is the answer where no provider is to be asked now."""

    def __init__(self, keeper: Keeper, call: ResponsesCall, entry: Entry) -> None:
        """Stand around `call`."""
        self.instead: bytes | AsyncGenerator[bytes] | None = None
        self._keeper = keeper
        self._call = call
        self._entry = entry
        self._project_id = ""
        self._splitter = EventSplitter(limit=64_000_000) if call.stream else None
        self._answer = b""
        self._last = b""

    async def prepare(self, principal: Principal, call: Call) -> Call:
        """Return the call with what it refers to filled in. Raises `UnknownResponse`."""
        self._project_id = principal.project_id
        if self._call.previous is not None:
            await self._keeper.recall(principal, self._call)
        background = self._keeper.background
        if self._call.background and not background.is_held_elsewhere(self._call, principal.project_id):
            made = await background.begin(principal, self._call)
            self.instead = self._keeper.stream(principal, _id.decode(made).id, -1) if self._call.stream else made
        return call

    def sent(self, data: bytes) -> bytes:
        """Look at bytes of the answer before they go out, and name the previous response if its provider did not."""
        told = self._call.history is not None and self._held_by() != self._call.held_by
        if told and b'"previous_response_id"' in data and not self._call.made_here:
            name = msgspec.json.encode(self._call.previous)
            data = _UNSAID.sub(b'"previous_response_id":' + name.replace(b"\\", rb"\\"), data)
        if self._splitter is None:
            self._answer = data
            return data
        if data.startswith(b"event: error\n"):
            # An error that we report is the next event of this stream.
            found = _NUMBER.search(self._last)
            number = int(found.group(1)) + 1 if found else 0
            return data.replace(b'"sequence_number":0', b'"sequence_number":%d' % number, 1)
        for event in self._splitter.feed(data):
            self._see(event)
            self._last = event
        return data

    def ended(self, error: BaseException | None) -> None:
        """Keep a whole answer; a streamed one was kept before its client could know of its end."""
        if error is None and self._answer:
            self._keep(self._answer)

    def _keep(self, body: bytes) -> None:
        if self._call.store:
            self._keeper.keep(self._project_id, self._call, body, self._held_by())

    def _held_by(self) -> str | None:
        deployment = self._entry.deployment
        return deployment.key if deployment is not None and not self._call.made_here else None

    def _see(self, event: bytes) -> None:
        head = event[:200]
        # Who asks for work in the background may come back for it before its stream has ended.
        begins = _BEGINS in head and self._call.background
        if begins or any(end in head for end in _ENDS):
            data = data_of(event)
            self._keep(bytes(_event.decode(data).response) if data is not None else b"")
