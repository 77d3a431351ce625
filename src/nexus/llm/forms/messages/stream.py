"""Writes pieces of our form as the events of one Messages stream.

Source: https://platform.claude.com/docs/en/build-with-claude/streaming. A block is opened, filled and closed under
an index of its own; reason and usage come at the end, when every other form has given them too.
"""

from __future__ import annotations

from typing import Any

import msgspec

from nexus.llm.forms.messages.answers import (
    write_block,
    write_call,
    write_citation,
    write_head,
    write_refusal,
    write_stop,
    write_usage,
)
from nexus.llm.forms.notes import notes_in
from nexus.llm.types import Chunk, FinishReason, ToolDelta, Usage

_encode = msgspec.json.Encoder().encode


class _Open:
    """A block that is open: its index, and for a call its id and what came of its arguments."""

    __slots__ = ("arguments", "call_id", "index")

    def __init__(self, index: int, call_id: str | None = None) -> None:
        self.index = index
        self.call_id = call_id
        self.arguments = ""

    @property
    def whole(self) -> bool:
        """Tell whether nothing more can come: for a call, its arguments are whole JSON."""
        if self.call_id is None:
            return True
        try:
            msgspec.json.decode(self.arguments)
        except (msgspec.DecodeError, RecursionError):
            return False
        return True


class AnswerWriter:
    """The state of one stream that is being written.

    Blocks follow one another. Only a call whose arguments are not whole yet stays open beside the next
    block, for providers that send several calls in turn.
    """

    def __init__(self, model: str) -> None:
        """Begin before the first event; `model` is the name to give until the provider says its own."""
        self._id: str | None = None
        self._model = model
        self._begun = False
        self._open: dict[Any, _Open] = {}
        self._done: set[Any] = set()
        self._blocks = 0
        self._reason: FinishReason | None = None
        self._native: str | None = None
        self._stopped_by: str | None = None
        self._refused = ""
        self._calls = False
        self._usage: Usage | None = None
        self.characters = 0

    @property
    def usage(self) -> Usage | None:
        """Return the usage that the provider gave."""
        return self._usage

    def write(self, chunk: Chunk) -> bytes:
        """Return the events for one piece; pieces without words only bring the state forward."""
        self._id = chunk.id or self._id
        self._model = chunk.model or self._model
        if chunk.usage is not None:
            self._usage = chunk.usage
        out: list[bytes] = []
        if chunk.index == 0:
            if chunk.thinking:
                self._say(out, "thinking", "thinking", chunk.thinking)
            if chunk.signature and chunk.text is None and chunk.tool is None:
                self._say(out, "thinking", "signature", chunk.signature)
            if chunk.text:
                self._say(out, "text", "text", chunk.text)
            if chunk.refusal:
                self._refused += chunk.refusal
                self._say(out, "text", "text", chunk.refusal)
            if chunk.extra and (said := self._open.get("text")) is not None:
                out += [
                    _delta(said, {"type": "citations_delta", "citation": write_citation(note)})
                    for note in notes_in(chunk.extra)
                ]
            if chunk.part is not None and (block := write_block(chunk.part)) is not None:
                self._start(out, "part", block)
            if chunk.tool is not None:
                self._call(out, chunk.tool)
            if chunk.finish_reason is not None:
                self._reason, self._native = chunk.finish_reason, chunk.native_finish_reason
                self._stopped_by = chunk.extra.get("stop_sequence")
        return b"".join(out)

    def end(self, usage: Usage) -> bytes:
        """Return the closing events, with the `usage` to state."""
        out: list[bytes] = []
        self._begin(out)
        self._close(out, all_of_them=True)
        reason = write_stop(
            "refusal" if self._refused else self._reason, None if self._refused else self._native, tools=self._calls
        )
        delta: dict[str, Any] = {"stop_reason": reason, "stop_sequence": self._stopped_by}
        if self._refused:
            delta["stop_details"] = write_refusal(self._refused)
        out.append(_event("message_delta", {"delta": delta, "usage": write_usage(usage)}))
        out.append(_event("message_stop", {}))
        return b"".join(out)

    def _begin(self, out: list[bytes]) -> None:
        if not self._begun:
            self._begun = True
            out.append(_event("message_start", {"message": write_head(self._id, self._model)}))

    def _start(self, out: list[bytes], key: Any, block: dict[str, Any], call_id: str | None = None) -> _Open:
        """Open a block, after those that are whole are closed."""
        self._begin(out)
        self._close(out)
        opened = self._open[key] = _Open(self._blocks, call_id)
        self._blocks += 1
        out.append(_event("content_block_start", {"index": opened.index, "content_block": block}))
        return opened

    def _close(self, out: list[bytes], *, all_of_them: bool = False) -> None:
        for key, block in list(self._open.items()):
            if all_of_them or block.whole:
                self._done.add(key)
                del self._open[key]
                out.append(_event("content_block_stop", {"index": block.index}))

    def _say(self, out: list[bytes], kind: str, field: str, words: str) -> None:
        """Add words to the open block of this kind, or open one."""
        block = self._open.get(kind)
        if block is None:
            empty = {"thinking": "", "signature": ""} if kind == "thinking" else {"text": ""}
            block = self._start(out, kind, {"type": kind} | empty)
        self.characters += len(words) if field != "signature" else 0
        out.append(_delta(block, {"type": f"{field}_delta", field: words}))

    def _call(self, out: list[bytes], tool: ToolDelta) -> None:
        """Open a call or go on with it. One position may be given to several calls, told apart by their ids."""
        key = ("call", tool.position)
        block = self._open.get(key)
        other = block is not None and tool.id and tool.name and tool.id != block.call_id
        if other and block is not None:
            out.append(_event("content_block_stop", {"index": self._open.pop(key).index}))
        if block is None or other:
            if tool.name is None and key in self._done:
                return  # white space after arguments that were whole
            self._calls = True
            call = write_call(tool.id, tool.name or "", tool.signature)
            block = self._start(out, key, call, tool.id or call["id"])
        if tool.arguments:
            block.arguments += tool.arguments
            self.characters += len(tool.arguments)
            out.append(_delta(block, {"type": "input_json_delta", "partial_json": tool.arguments}))


def _delta(block: _Open, delta: dict[str, Any]) -> bytes:
    return _event("content_block_delta", {"index": block.index, "delta": delta})


def _event(kind: str, body: dict[str, Any]) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + _encode({"type": kind} | body) + b"\n\n"
