"""A stream that broke after its first words, carried on by another deployment, for routes that ask for it.

Another model is shown what was said so far and asked to go on from there. Its words follow in the same
stream: one id, one model, one end, and the usage of both. Only plain text can be carried on: what breaks
inside a tool call, reasoning or JSON ends with the error that broke it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from nexus.core.errors import NexusError
from nexus.llm.errors import AnswerFailed
from nexus.llm.flow import Heard, Hearing
from nexus.llm.money.accounting import Entry
from nexus.llm.routing.delivery import MOVES_ON
from nexus.llm.types import Call, Chunk, Message, Need, Tally, Text, Usage

Resume = Callable[[Call], Awaitable[Hearing]]

_MOST = 3
_CHARACTERS_PER_TOKEN = 4
_NOT_PLAIN: frozenset[Need] = frozenset(("json_schema", "choices", "logprobs", "audio"))
_GO_ON = (
    "Your last message was cut off. Go on exactly where it stopped, in the middle of a word if need be. "
    "Do not repeat any of it, do not begin anew, and do not comment on the interruption."
)


def may_continue(call: Call) -> bool:
    """Tell whether an answer to this call could be carried on at all."""
    return call.choices == 1 and not call.needs & _NOT_PLAIN


def continuing(call: Call, said: str) -> Call:
    """Return a call that asks to go on after what was `said`."""
    request = call.parse()
    told = Message(role="assistant", parts=(Text(text=said),))
    wish = Message(role="user", parts=(Text(text=_GO_ON),))
    left = None
    if request.max_tokens is not None:
        left = max(1, request.max_tokens - len(said) // _CHARACTERS_PER_TOKEN)
    longer = msgspec.structs.replace(request, messages=(*request.messages, told, wish), max_tokens=left)
    return msgspec.structs.replace(
        call,
        dialect="",
        body=b"",
        parse=lambda: longer,
        characters=call.characters + len(said) + len(_GO_ON),
        max_tokens=left,
    )


class ContinuedFlow:
    """An open stream that does not end where its first deployment does."""

    def __init__(self, flow: Hearing, call: Call, entry: Entry, resume: Resume) -> None:
        """Take over an open stream; `resume` opens another one for a call that asks to go on."""
        self._flow = flow
        self._call = call
        self._entry = entry
        self._resume = resume
        self._said: list[str] = []
        self._plain = True
        self._left = _MOST
        self._before: Usage | None = None
        self._characters = 0
        self.tally = flow.tally
        self.first = self._listen(flow.first)

    async def next(self) -> list[Heard] | None:
        """Return the next pieces, None at the end. Raises what broke the stream where nobody could go on."""
        try:
            pieces = await self._flow.next()
        except MOVES_ON as error:
            pieces = await self._go_on(error)
        if pieces is None:
            self._count()
            return None
        return self._listen(pieces)

    async def close(self) -> None:
        """Let go of the upstream."""
        await self._flow.close()

    async def _go_on(self, error: NexusError) -> list[Heard]:
        """Open another stream and return its first pieces, or raise `error`."""
        said = "".join(self._said)
        if not said or not self._plain or not self._left:
            raise error
        self._left -= 1
        part = self._flow.tally
        if part.usage is None or not isinstance(error, AnswerFailed):
            part.usage = self._used(part)
        self._entry.failed(error)
        self._entry.carried = True
        try:
            flow = await self._resume(continuing(self._call, said))
        except NexusError:
            raise error from None
        await self._flow.close()
        self._before = part.usage if self._before is None else summed(self._before, part.usage)
        self._characters = self.tally.characters
        self._flow = flow
        self.tally.failure = self.tally.failed = None
        return flow.first

    def _used(self, part: Tally) -> Usage:
        """Return what the broken part used: its own figures are of its beginning, if there are any."""
        made = -(-part.characters // _CHARACTERS_PER_TOKEN)
        told = part.usage
        if told is None:
            return Usage(
                input_tokens=-(-self._call.characters // _CHARACTERS_PER_TOKEN), output_tokens=made, estimated=True
            )
        return msgspec.structs.replace(told, output_tokens=max(told.output_tokens, made), estimated=True)

    def _listen(self, pieces: list[Heard]) -> list[Heard]:
        if self._before is not None:
            pieces = [Heard(None, self._joined(piece.chunks)) for piece in pieces]
        self._count()
        for piece in pieces:
            for chunk in piece.chunks:
                if chunk.text:
                    self._said.append(chunk.text)
                if _is_more_than_text(chunk) or (chunk.thinking and self._said):
                    self._plain = False
        return pieces

    def _joined(self, chunks: list[Chunk]) -> list[Chunk]:
        """Return the pieces of a later part as pieces of the first stream."""
        kept = []
        for chunk in chunks:
            changes: dict[str, Any] = {"id": None, "model": None, "created": None, "role": None, "thinking": None}
            if chunk.tool is None and chunk.part is None:
                changes["signature"] = None
            if chunk.usage is not None and self._before is not None:
                changes["usage"] = summed(self._before, chunk.usage)
            kept.append(msgspec.structs.replace(chunk, **changes))
        return kept

    def _count(self) -> None:
        """Bring the tally of the whole up to date with that of the part."""
        part, whole = self._flow.tally, self.tally
        if self._before is None:
            return
        whole.characters = self._characters + part.characters
        whole.events += 1
        whole.finished, whole.finish_reason, whole.done = part.finished, part.finish_reason, part.done
        if part.usage is not None:
            whole.usage = summed(self._before, part.usage)
        elif part.done:
            # No figures: told as an estimate, so that the sum is not taken for the last part's alone.
            made = -(-part.characters // _CHARACTERS_PER_TOKEN)
            whole.usage = summed(self._before, Usage(input_tokens=self._before.input_tokens, output_tokens=made))


def _is_more_than_text(chunk: Chunk) -> bool:
    return chunk.tool is not None or chunk.part is not None or bool(chunk.refusal) or chunk.finish_reason is not None


def summed(one: Usage, other: Usage) -> Usage:
    """Return the usage of two attempts together."""
    told: dict[str, Any] = {}
    for name in Usage.__struct_fields__:
        a, b = getattr(one, name), getattr(other, name)
        adds = (type(a) is int and type(b) is int) or isinstance(a, tuple)
        told[name] = a + b if adds else a or b
    return Usage(**told)
