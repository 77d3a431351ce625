"""A streamed answer put together, and a whole one taken apart again. No I/O."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from nexus.llm.types import (
    AnyPart,
    Choice,
    Chunk,
    Completion,
    FinishReason,
    Message,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    ToolDelta,
    Usage,
)

OF_MESSAGE: Final = ("audio", "annotations")
"""What stands beside the words of a message, in the `extra` of its chunks."""

_SOUND: Final = ("data", "transcript")


@dataclass(slots=True)
class _Growing:
    """A part that is still being said: its kind, and what came of it so far."""

    kind: type[Text] | type[Thinking] | type[Refusal] | type[ToolCall]
    said: list[str] = field(default_factory=list)
    signature: str | None = None
    position: int = -1
    id: str = ""
    name: str = ""
    tool_kind: str = "function"

    def part(self) -> AnyPart:
        text = "".join(self.said)
        if self.kind is ToolCall:
            return ToolCall(id=self.id, name=self.name, arguments=text, kind=self.tool_kind, signature=self.signature)
        made: AnyPart = self.kind(text=text, signature=self.signature)  # type: ignore[call-arg]
        return made


@dataclass(slots=True)
class _Said:
    """One choice of an answer on its way."""

    parts: list[_Growing | AnyPart] = field(default_factory=list)
    finish: FinishReason | None = None
    native: str | None = None
    beside: dict[str, Any] = field(default_factory=dict)

    def add(self, chunk: Chunk) -> None:
        if chunk.extra:
            _grow(self.beside, chunk.extra)
        if chunk.thinking:
            self._say(Thinking, chunk.thinking)
        if chunk.text:
            self._say(Text, chunk.text)
        if chunk.refusal:
            self._say(Refusal, chunk.refusal)
        if chunk.tool is not None:
            self._call(chunk.tool)
        if chunk.part is not None:
            self.parts.append(chunk.part)
        if chunk.signature is not None:
            self._seal(chunk.signature)
        if chunk.finish_reason is not None:
            self.finish, self.native = chunk.finish_reason, chunk.native_finish_reason

    def _say(self, kind: type[Text] | type[Thinking] | type[Refusal], words: str) -> None:
        last = self.parts[-1] if self.parts else None
        # A sealed part is whole: what follows is another one.
        if not isinstance(last, _Growing) or last.kind is not kind or last.signature is not None:
            last = _Growing(kind)
            self.parts.append(last)
        last.said.append(words)

    def _call(self, tool: ToolDelta) -> None:
        calls = (part for part in self.parts if isinstance(part, _Growing) and part.kind is ToolCall)
        found = next((part for part in calls if part.position == tool.position), None)
        if found is None:
            found = _Growing(ToolCall, position=tool.position)
            self.parts.append(found)
        found.id = tool.id or found.id
        found.name = tool.name or found.name
        found.tool_kind = tool.kind or found.tool_kind
        found.signature = tool.signature or found.signature
        found.said.append(tool.arguments)

    def _seal(self, signature: str) -> None:
        last = self.parts[-1] if self.parts else None
        if not isinstance(last, _Growing):
            last = _Growing(Thinking)
            self.parts.append(last)
        last.signature = signature


class Assembly:
    """Puts the chunks of one stream together."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._id = self._model = ""
        self._created = 0
        self._usage: Usage | None = None
        self._choices: dict[int, _Said] = {}

    def add(self, chunks: list[Chunk]) -> None:
        """Take the next chunks."""
        for chunk in chunks:
            self._id = self._id or chunk.id or ""
            self._model = self._model or chunk.model or ""
            self._created = self._created or chunk.created or 0
            if chunk.usage is not None:
                self._usage = chunk.usage
            said = self._choices.get(chunk.index)
            if said is None:
                said = self._choices[chunk.index] = _Said()
            said.add(chunk)

    def completion(self) -> Completion:
        """Return the answer as far as it has come."""
        choices = []
        for index, said in sorted(self._choices.items()):
            parts = tuple(part.part() if isinstance(part, _Growing) else part for part in said.parts)
            if not parts and said.finish is None:
                continue
            told = said.beside.items()
            extra = {name: value for name, value in told if name in OF_MESSAGE}
            choices.append(
                Choice(
                    index=index,
                    message=Message(role="assistant", parts=parts, extra=extra),
                    finish_reason=said.finish,
                    native_finish_reason=said.native,
                    extra={name: value for name, value in told if name not in OF_MESSAGE},
                )
            )
        return Completion(
            id=self._id,
            model=self._model,
            created=self._created or int(time.time()),
            choices=tuple(choices),
            usage=self._usage,
        )


def chunks_of(completion: Completion) -> list[Chunk]:
    """Return a whole answer as the chunks of a stream: each part at once, then the ends, then the usage."""
    chunks: list[Chunk] = []
    for choice in completion.choices:
        head = Chunk(
            index=choice.index,
            id=completion.id,
            model=completion.model,
            created=completion.created,
            role="assistant",
        )
        chunks.append(head)
        calls = 0
        beside = dict(choice.message.extra)
        if logprobs := choice.extra.get("logprobs"):
            beside["logprobs"] = logprobs
        for part in choice.message.parts:
            chunk = _chunk_of(part, choice.index, calls)
            if beside and isinstance(part, Text | Refusal):
                chunk, beside = msgspec.structs.replace(chunk, extra=beside), {}
            chunks.append(chunk)
            calls += isinstance(part, ToolCall)
        finish = Chunk(
            index=choice.index,
            finish_reason=choice.finish_reason,
            native_finish_reason=choice.native_finish_reason,
            extra={name: told for name, told in choice.extra.items() if name != "logprobs"},
        )
        chunks.append(finish)
    if completion.usage is not None:
        chunks.append(Chunk(usage=msgspec.structs.replace(completion.usage)))
    return chunks


def _grow(told: dict[str, Any], more: dict[str, Any]) -> None:
    """Add to what is told beside the words: lists grow, also in tables, and sound; of the rest the last counts."""
    for name, value in more.items():
        before = told.get(name)
        if isinstance(value, list):
            told[name] = before if isinstance(before, list) else []
            told[name] += value
        elif isinstance(value, dict):
            told[name] = before if isinstance(before, dict) else {}
            _grow(told[name], value)
        elif isinstance(before, str) and isinstance(value, str) and name in _SOUND:
            told[name] = before + value
        elif value is not None:
            told[name] = value


def _chunk_of(part: AnyPart, index: int, position: int) -> Chunk:
    if isinstance(part, Text):
        return Chunk(index=index, text=part.text, signature=part.signature)
    if isinstance(part, Thinking) and part.redacted is None:
        return Chunk(index=index, thinking=part.text, signature=part.signature)
    if isinstance(part, Refusal):
        return Chunk(index=index, refusal=part.text)
    if isinstance(part, ToolCall):
        tool = ToolDelta(
            position=position,
            id=part.id,
            name=part.name,
            arguments=part.arguments,
            kind=part.kind,
            signature=part.signature,
        )
        return Chunk(index=index, tool=tool)
    return Chunk(index=index, part=part)
