"""The writer of a response that was begun before: its events go on where earlier ones ended, with their numbers."""

from __future__ import annotations

from typing import Any

from nexus.llm.forms.responses.events import EventWriter, OpenItem
from nexus.llm.forms.responses.items import Names
from nexus.llm.responses.so_far import SoFar
from nexus.llm.types import Chunk


class CarriedWriter(EventWriter):
    """Writes behind what was told `so_far`.

    It goes on in the text that was cut off, or begins anew: what had been begun is ended as incomplete then, and
    no part of the response.
    """

    def __init__(self, so_far: SoFar, names: Names, *, goes_on: bool) -> None:
        """Write for tools of these `names`."""
        super().__init__(so_far.response["model"], {}, names)
        self._response = dict(so_far.response) | {"status": "in_progress"}
        self._begun = True
        self._sequence, self._places = so_far.number + 1, so_far.places
        if not so_far.begun:
            self._emit("response.in_progress", response=self._response)
        if goes_on:
            self._go_on(so_far)
            return
        for place, item in so_far.unended():
            self._emit("response.output_item.done", output_index=place, item=item)

    @property
    def response(self) -> dict[str, Any]:
        """Return the response as it stands."""
        return self._response

    def begin(self) -> bytes:
        """Return the events that come first."""
        return self._taken()

    def write(self, chunks: list[Chunk]) -> bytes:
        """Return the events for these pieces."""
        for chunk in chunks:
            if chunk.model:
                self._response["model"] = chunk.model
        return super().write(chunks)

    def fail(self, error: dict[str, Any]) -> bytes:
        """Return the events that end it with an error."""
        self._response |= {"status": "failed", "error": error}
        self._emit("response.failed", response=self._response)
        return self._taken()

    def _go_on(self, so_far: SoFar) -> None:
        self._items = dict(so_far.items)
        for place, item in so_far.open.items():
            self._open = found = OpenItem("message", place, item["id"])
            found.parts = list(so_far.parts)
            if so_far.kind is not None:
                self._said = so_far.kind
                found.text, found.logprobs = list(so_far.text), list(so_far.logprobs)
                found.annotations = list(so_far.annotations)
