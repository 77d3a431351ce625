"""The writer of a response that was begun before: its events go on where earlier ones ended, with their numbers."""

from __future__ import annotations

import functools
from typing import Any

from nexus.llm.forms.responses.answers import counted, write_usage
from nexus.llm.forms.responses.events import EventWriter, OpenItem
from nexus.llm.forms.responses.items import Names
from nexus.llm.responses.so_far import SoFar
from nexus.llm.routing.continuation import summed
from nexus.llm.types import Chunk, Usage


class CarriedWriter(EventWriter):
    """Writes behind what was told `so_far`.

    It goes on in the text that was cut off, or begins anew: what had been begun is ended as incomplete then, and
    no part of the response.
    """

    def __init__(self, so_far: SoFar, names: Names, *, goes_on: bool, sources: bool = False) -> None:
        """Write for tools of these `names`; searches tell their `sources`."""
        super().__init__(so_far.response["model"], {}, names, sources=sources)
        self._response = dict(so_far.response) | {"status": "in_progress"}
        self._begun = True
        self._sequence, self._places = so_far.number + 1, so_far.places
        self._before: Usage | None = None
        self._has_opened = False
        self._unended = [] if goes_on else so_far.unended()
        if goes_on:
            self._go_on(so_far)

    @property
    def response(self) -> dict[str, Any]:
        """Return the response as it stands."""
        return self._response

    def begin(self, before: Usage | None = None) -> bytes:
        """Return the events that come first; they tell what was used `before`, for whoever goes on after this."""
        self._before, self._has_opened = before, True
        self._response |= {"usage": write_usage(before) if before is not None else None}
        self._emit("response.in_progress", response=dict(self._response))
        for place, item in self._unended:
            self._emit("response.output_item.done", output_index=place, item=item)
        return self._taken()

    def write(self, chunks: list[Chunk]) -> bytes:
        """Return the events for these pieces."""
        for chunk in chunks:
            if chunk.model:
                self._response["model"] = chunk.model
        return super().write(chunks)

    def ended(self, used: Usage | None) -> bytes:
        """Return the closing events; the usage is that of all attempts, of which the last `used` so much."""
        if self._before is not None:
            last = self._usage or used
            self._usage = summed(self._before, last) if last is not None else self._before
        return self.end()

    def fail(self, error: dict[str, Any], used: Usage | None = None) -> bytes:
        """Return the events that end it with an error, after an attempt that `used` so much."""
        opening = b"" if self._has_opened else self.begin()
        both = [usage for usage in (self._before, used) if usage is not None]
        self._response |= counted(functools.reduce(summed, both) if both else None)
        self._response |= {"status": "failed", "error": error}
        self._emit("response.failed", response=self._response)
        return opening + self._taken()

    def _go_on(self, so_far: SoFar) -> None:
        self._items = dict(so_far.items)
        for place, item in so_far.open.items():
            self._open = found = OpenItem("message", place, item["id"])
            found.parts = list(so_far.parts)
            if so_far.kind is not None:
                self._said = so_far.kind
                found.text, found.logprobs = list(so_far.text), list(so_far.logprobs)
                found.annotations = list(so_far.annotations)
