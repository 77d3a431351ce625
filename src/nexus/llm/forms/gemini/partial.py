"""Calls whose arguments come piece by piece, as Vertex AI streams them to those who ask.

Source: https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/function-calling#streaming-fc. A call is
begun with its name and `willContinue`; then come values with the JSON paths that they go to; a call without
`willContinue` ends it.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

_STEP = re.compile(r"\.([^.\[\]]+)|\[['\"]([^'\"]*)['\"]\]|\[(\d+)\]")
_VALUES = ("stringValue", "numberValue", "boolValue")
_LONGEST = 10_000


class PartialCall:
    """One call on its way: its name and id, and the arguments so far."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.head: dict[str, Any] = {}
        self.signature: str | None = None
        self._arguments: dict[str, Any] = {}

    def add(self, part: dict[str, Any]) -> dict[str, Any] | None:
        """Take the next part; return the whole part once it has ended. Raises ValueError for a path that is none."""
        call = part["functionCall"]
        self.signature = part.get("thoughtSignature") or self.signature
        self.head |= {name: call[name] for name in ("name", "id") if call.get(name)}
        if isinstance(call.get("args"), dict):
            self._arguments |= call["args"]
        for told in call.get("partialArgs") or ():
            self._put(told)
        return None if call.get("willContinue") else self.whole()

    def whole(self) -> dict[str, Any]:
        """Return the part as if it had come at once."""
        seal = {"thoughtSignature": self.signature} if self.signature else {}
        return {"functionCall": self.head | {"args": self._arguments}} | seal

    def _put(self, told: dict[str, Any]) -> None:
        """Put one value in its place; words for the same place follow one another."""
        steps: list[str | int] = []
        for name, quoted, number in _STEP.findall(told.get("jsonPath") or ""):
            steps.append(int(number) if number else name or quoted)
        if not steps or not isinstance(steps[0], str):
            raise ValueError("no path")
        value = next((told[name] for name in _VALUES if name in told), None)
        place: Any = self._arguments
        for step, after in pairwise(steps):
            place = _entered(place, step, [] if isinstance(after, int) else {})
        before = _entered(place, steps[-1], None)
        place[steps[-1]] = before + value if isinstance(before, str) and isinstance(value, str) else value


def _entered(place: Any, step: str | int, otherwise: Any) -> Any:
    """Return what stands at a step, after `otherwise` has been put there if nothing did."""
    if isinstance(place, list) and isinstance(step, int):
        if step > _LONGEST:
            raise ValueError("a place too far")
        place += [None] * (step + 1 - len(place))
        if place[step] is None:
            place[step] = otherwise
    elif isinstance(place, dict) and isinstance(step, str):
        if place.get(step) is None:
            place[step] = otherwise
    else:
        raise ValueError("a path through a value")
    return place[step]
