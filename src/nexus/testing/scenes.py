"""What the fake model says, decided by the model's name: names joined by `+`, some with a number behind a dash.

echo             the last words said to it; with a JSON schema for the answer, a sample that fits
tools, parallel  one call of the first tool offered, or two; after a tool's result, words about it
thinking         thoughts before anything else
cached           both tiers of cache written, and much read
length, filter, refusal    another reason to stop than the end
silent           not a word
long-N           N words
slow-N           N milliseconds between the pieces of a stream, or before a whole answer
fault-NAME       what goes wrong, see `faults`
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from nexus.testing.said import Finish, Said, ToolUse, sample
from nexus.testing.wire import Asked, Wire, encode

_ENDINGS: dict[str, Finish] = {"length": "length", "filter": "filter", "refusal": "refusal"}
THOUGHT = "The caller wants something. I shall say it."


@dataclass(frozen=True, slots=True)
class Scene:
    """One request in its wire format, what is said to it, seconds between pieces, and the fault to play."""

    wire: Wire
    asked: Asked
    said: Said
    gap: float = 0.0
    fault: str | None = None

    @property
    def body(self) -> bytes:
        """Return the whole answer."""
        return self.wire.whole(self.asked, self.said) if self.chat else self.wire.other(self.asked)

    @property
    def chat(self) -> bool:
        """Tell whether the request is a chat."""
        return self.asked.operation == "chat"

    @property
    def streamed(self) -> bool:
        """Tell whether the answer is to be streamed."""
        return self.chat and self.asked.stream

    @property
    def kind(self) -> str:
        """Return the content type of the stream."""
        return self.wire.kind(self.asked)

    @property
    def events(self) -> list[bytes]:
        """Return the stream, its end mark not included."""
        return self.wire.events(self.asked, self.said)

    def saying(self, said: Said) -> Scene:
        """Return the same scene with other words."""
        return replace(self, said=said)


def scene_of(wire: Wire, asked: Asked) -> Scene:
    """Read the model's name."""
    said = Said(text=_words(asked))
    gap, fault = 0.0, None
    for part in asked.model.rpartition("/")[2].split("+"):
        name, _, rest = part.partition("-")
        number = int(rest) if re.fullmatch(r"\d+", rest) else 0
        if name == "fault" and rest:
            fault = rest
        elif name == "slow":
            gap = number / 1000
        elif name == "long":
            said = replace(said, text=" ".join(f"word{index}" for index in range(number)))
        else:
            said = _in_mood(part, said, asked)
    return Scene(wire, asked, said, gap, fault)


def _in_mood(name: str, said: Said, asked: Asked) -> Said:
    if name == "thinking":
        return replace(said, thinking=THOUGHT)
    if name == "silent":
        return replace(said, text="")
    if name == "cached":
        return replace(said, prompt_tokens=2000, cached_tokens=1500, stored_5m_tokens=300, stored_1h_tokens=100)
    if name in _ENDINGS:
        return replace(said, finish=_ENDINGS[name])
    if name in ("tools", "parallel") and not asked.after_tool:
        return replace(said, text="", finish="tools", tools=_calls(asked, 2 if name == "parallel" else 1))
    return said


def _calls(asked: Asked, count: int) -> tuple[ToolUse, ...]:
    offered = [(tool.name, sample(tool.schema)) for tool in asked.tools] or [("get_weather", {"city": "Köln ☃"})]
    chosen = [offered[index % len(offered)] for index in range(count)]
    return tuple(
        ToolUse(f"call_{index}", name, arguments if isinstance(arguments, dict) else {})
        for index, (name, arguments) in enumerate(chosen, start=1)
    )


def _words(asked: Asked) -> str:
    if asked.schema is not None:
        return encode(sample(asked.schema)).decode()
    if asked.after_tool:
        return f"The tool said: {asked.words}"
    return asked.words or Said().text
