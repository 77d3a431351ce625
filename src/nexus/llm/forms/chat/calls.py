"""The calls in a stream of chat completions, given places of their own: servers leave out and repeat what they like.

By the documents (https://platform.openai.com/docs/api-reference/chat/streaming) a call's first piece has `index`, `id`,
`type` and the function's name, and the others only `index` and more arguments. Some servers give no index, or the same
one to several calls, no id, or the name with every piece.
"""

from __future__ import annotations

from typing import Any

import msgspec

from nexus.core.ids import new_id
from nexus.llm.forms.signatures import found_beside
from nexus.llm.types import ToolDelta


class _Call:
    """A call that has begun: `place` is its server's index, `held` what came before its name."""

    __slots__ = ("begun", "held", "id", "kind", "name", "place", "position", "said", "signature")

    def __init__(self, position: int, place: int | None) -> None:
        self.position = position
        self.place = place
        self.id = self.name = ""
        self.kind: str | None = None
        self.signature: str | None = None
        self.held = ""
        self.said = ""
        self.begun = False

    def whole(self) -> bool:
        """Tell whether its arguments are whole JSON."""
        try:
            msgspec.json.decode(self.said)
        except (msgspec.DecodeError, RecursionError):
            return False
        return True


class Calls:
    """The calls of one answer."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        """Begin before the first one."""
        self._known: list[_Call] = []

    def read(self, delta: dict[str, Any]) -> list[ToolDelta]:
        """Return the pieces of calls in a delta, each at the position of its call; the first one names it."""
        given = delta.get("tool_calls") or ()
        if not given and isinstance(older := delta.get("function_call"), dict):
            given = ({"index": 0, "function": older},)
        pieces = [self._read(piece, place, alone=len(given) == 1) for place, piece in enumerate(given)]
        return [piece for piece in pieces if piece is not None]

    def _read(self, piece: dict[str, Any], place: int, *, alone: bool) -> ToolDelta | None:
        told = piece.get("function") or piece.get("custom") or {}
        call_id, name = piece.get("id"), told.get("name")
        call_id, name = str(call_id) if call_id not in (None, "") else "", str(name or "")
        arguments = told.get("arguments") or told.get("input") or ""
        if not isinstance(arguments, str):
            arguments = msgspec.json.encode(arguments).decode()
        index = piece.get("index")
        call = self._find(index if isinstance(index, int) else None, call_id, name, place, alone=alone)
        call.id, call.name = call.id or call_id, call.name or name
        call.kind, call.signature = call.kind or piece.get("type"), found_beside(piece) or call.signature
        call.said += arguments
        if call.begun:
            seal = found_beside(piece)
            return ToolDelta(position=call.position, arguments=arguments, signature=seal) if arguments or seal else None
        call.held += arguments
        if not call.name:
            return None
        call.begun, call.id = True, call.id or new_id("call")
        return ToolDelta(
            position=call.position,
            id=call.id,
            name=call.name,
            arguments=call.held,
            kind=call.kind,
            signature=call.signature,
        )

    def _find(self, index: int | None, call_id: str, name: str, place: int, *, alone: bool) -> _Call:
        """Return the call that a piece belongs to, a new one where it belongs to none."""
        if index is not None:
            found = next((call for call in reversed(self._known) if call.place == index), None)
        elif call_id:
            found = next((call for call in self._known if call.id == call_id), None)
        elif alone:
            found = self._known[-1] if self._known else None
        else:
            found = self._known[place] if place < len(self._known) else None
        if found is None or self._is_another(found, call_id, name, numbered=index is not None):
            found = _Call(len(self._known), index)
            self._known.append(found)
        return found

    @staticmethod
    def _is_another(found: _Call, call_id: str, name: str, *, numbered: bool) -> bool:
        """Tell whether a piece begins another call than the one at its place."""
        if not name or not found.name:
            return False
        if call_id and found.id:
            return call_id != found.id
        return not numbered and found.whole()
