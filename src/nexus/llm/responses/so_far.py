"""What the events of a response have told up to now, read back from them: for whoever is to carry it on. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nexus.llm.forms.responses.items import text_part

_PLAIN = ("message", "reasoning")


class SoFar:
    """Reads events as `EventWriter` writes them, in their order.

    `response` is the response as it began, `number` that of the last event, `items` those that have ended and
    `open` those that have not, by their place; `said` are the words of its messages. Of the last attempt to make it,
    `used` is the usage before it, `heard` the characters said before it, and `made` those that it made.
    """

    def __init__(self, events: Iterable[dict[str, Any]] = ()) -> None:
        """Read the events."""
        self.response: dict[str, Any] = {}
        self.number = -1
        self.begun = False
        self.items: dict[int, dict[str, Any]] = {}
        self.open: dict[int, dict[str, Any]] = {}
        self.kind: str | None = None
        self.text: list[str] = []
        self.logprobs: list[Any] = []
        self.annotations: list[Any] = []
        self.parts: list[dict[str, Any]] = []
        self.used: dict[str, Any] | None = None
        self.heard = self.made = 0
        self._said: list[str] = []
        self._plain = True
        for event in events:
            self._see(event)

    @property
    def places(self) -> int:
        """Return how many places of the output are taken."""
        return max((*self.items, *self.open), default=-1) + 1

    @property
    def said(self) -> str:
        """Return the words of all messages."""
        return "".join(self._said)

    @property
    def may_go_on(self) -> bool:
        """Tell whether there are plain words, and nothing but words was begun after them."""
        return bool(self._said) and self._plain and all(item["type"] == "message" for item in self.open.values())

    def unended(self) -> list[tuple[int, dict[str, Any]]]:
        """Return the items that have not ended, as far as they have come."""
        found = []
        for place, item in sorted(self.open.items()):
            told = item | {"status": "incomplete"}
            if item["type"] == "message":
                rest = [self._part()] if self.kind is not None else []
                told["content"] = [*self.parts, *rest]
            found.append((place, told))
        return found

    def _part(self) -> dict[str, Any]:
        text = "".join(self.text)
        if self.kind == "refusal":
            return {"type": "refusal", "refusal": text}
        return text_part(text, self.logprobs) | {"annotations": self.annotations}

    def _see(self, event: dict[str, Any]) -> None:
        self.number = event["sequence_number"]
        if isinstance(made := event.get("delta"), str):
            self.made += len(made)
        kind = event["type"].removeprefix("response.")
        if kind == "created":
            self.response = event["response"]
        elif kind == "in_progress":
            self.begun = True
            self.used, self.heard, self.made = event["response"].get("usage"), len(self.said), 0
        elif kind == "output_item.added":
            item = self.open[event["output_index"]] = event["item"]
            # Words after a later thought are no longer the same piece of text.
            self._plain = self._plain and item["type"] in _PLAIN and (item["type"] == "message" or not self._said)
            if item["type"] == "message":
                self.parts, self.kind = [], None
        elif kind == "output_item.done":
            self.open.pop(event["output_index"], None)
            self.items[event["output_index"]] = event["item"]
        else:
            self._see_content(kind, event)

    def _see_content(self, kind: str, event: dict[str, Any]) -> None:
        if kind == "content_part.added":
            self.kind = event["part"]["type"]
            self.text, self.logprobs, self.annotations = [], [], []
            self._plain = self._plain and self.kind == "output_text"
        elif kind == "content_part.done":
            self.parts.append(event["part"])
            self.kind = None
        elif kind in ("output_text.delta", "refusal.delta"):
            self.text.append(event["delta"])
            self.logprobs += event.get("logprobs") or ()
            if kind == "output_text.delta":
                self._said.append(event["delta"])
        elif kind == "output_text.annotation.added":
            self.annotations.append(event["annotation"])
