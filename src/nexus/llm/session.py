"""What stands around a call whose dialect has a memory: it may refer to earlier answers, and its own is kept.

The service of such a memory is put on the shelf as a `Sessions`; `hot` opens one session for each call.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from nexus.access.types import Principal
from nexus.llm.money.accounting import Entry
from nexus.llm.types import Call


class Session(Protocol):
    """What a call of a dialect with a memory needs around it. One for each call.

    `instead` is set by `prepare` where the call has its answer without asking a provider: a whole one, or the
    events of one that is made elsewhere.
    """

    instead: bytes | AsyncGenerator[bytes] | None

    async def prepare(self, principal: Principal, call: Call) -> Call:
        """Return the call with what it refers to filled in. Raises `NotFound` for what is not the caller's."""
        ...

    def sent(self, data: bytes) -> bytes:
        """Look at bytes of the answer before they go out; return what goes out."""
        ...

    def ended(self, error: BaseException | None) -> None:
        """Note the end, whatever it was; must not wait."""
        ...


class Sessions(Protocol):
    """Opens sessions for the calls of one dialect."""

    dialect: str

    def open(self, call: Call, entry: Entry) -> Session:
        """Return what stands around this call."""
        ...
