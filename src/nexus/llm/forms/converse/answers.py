"""Answers in the Converse JSON form, whole and streamed, in our own.

Sources: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html#API_runtime_Converse_ResponseSyntax
and https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStreamOutput.html.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from nexus.llm.forms.converse.media import MediaKind, read_media
from nexus.llm.forms.converse.requests import ANSWER, DIALECT
from nexus.llm.forms.figures import count_of
from nexus.llm.forms.notes import url_note
from nexus.llm.types import (
    AnyPart,
    Choice,
    Chunk,
    Completion,
    FinishReason,
    Foreign,
    Message,
    Text,
    Thinking,
    ToolCall,
    ToolDelta,
    Usage,
)

_FINISH: Final[dict[str, FinishReason]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
    "refusal": "content_filter",
    "malformed_model_output": "failed",
    "malformed_tool_use": "failed",
}
_MEDIA: Final[tuple[MediaKind, ...]] = ("image", "audio", "video", "document")
_KEPT: Final = ("additionalModelResponseFields", "metrics", "performanceConfig", "serviceTier", "trace")
_CHANNEL: Final = "<|channel|>"
_encode = msgspec.json.Encoder().encode


def read_usage(usage: Any, tier: Any = None) -> Usage | None:
    """Read token figures; the API counts what the cache read and wrote apart from the input.

    `tier` is the `serviceTier` that the answer names.
    """
    if not isinstance(usage, dict):
        return None
    read = count_of(usage.get("cacheReadInputTokens", usage.get("cacheReadInputTokenCount")))
    written = count_of(usage.get("cacheWriteInputTokens", usage.get("cacheWriteInputTokenCount")))
    plain, output = count_of(usage.get("inputTokens")), count_of(usage.get("outputTokens"))
    if not plain + read + written and not output:
        return None
    details = usage.get("cacheDetails")
    long = [count_of(item.get("inputTokens")) for item in details or () if item.get("ttl") == "1h"]
    used = tier.get("type") if isinstance(tier, dict) else None
    return Usage(
        input_tokens=plain + read + written,
        output_tokens=output,
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=min(sum(long), written),
        tier=used if isinstance(used, str) and used != "default" else None,
    )


def read_finish(native: Any, *, called: bool, answered: bool) -> tuple[FinishReason | None, str | None]:
    """Read a stop reason: ours and the API's own. A call of the answer tool alone is an ordinary end."""
    if not isinstance(native, str) or not native:
        return None, None
    if native == "tool_use" and answered and not called:
        return "stop", "end_turn"
    reason = _FINISH.get(native, "other")
    return "tool_calls" if called and reason == "stop" else reason, native


def read_completion(body: dict[str, Any], *, name: str, model: str) -> Completion:
    """Read a whole answer; `name` becomes its id. Raises KeyError, TypeError, ValueError or AttributeError."""
    blocks = (body["output"].get("message") or {}).get("content") or ()
    answered = any(_tool_name(use["name"]) == ANSWER for block in blocks if (use := block.get("toolUse")))
    parts = [part for block in blocks for part in _parts(block)]
    if answered:
        # What a model says around the JSON that was asked for would make it none.
        parts = [part for block in blocks if "text" not in block for part in _parts(block)]
    called = any(isinstance(part, ToolCall) for part in parts)
    finish, native = read_finish(body["stopReason"], called=called, answered=answered)
    kept = {key: body[key] for key in _KEPT if body.get(key) is not None}
    return Completion(
        id=name,
        model=model,
        created=int(time.time()),
        choices=(
            Choice(
                index=0,
                message=Message(role="assistant", parts=tuple(parts), extra=_notes(blocks) if not answered else {}),
                finish_reason=finish,
                native_finish_reason=native,
                extra=_stop_sequence(body),
            ),
        ),
        usage=read_usage(body.get("usage"), body.get("serviceTier")),
        extra=kept,
    )


def _stop_sequence(body: dict[str, Any]) -> dict[str, Any]:
    told = body.get("additionalModelResponseFields")
    found = told.get("stop_sequence") if isinstance(told, dict) else None
    return {"stop_sequence": found} if isinstance(found, str) else {}


def _parts(block: dict[str, Any]) -> list[AnyPart]:
    if "text" in block:
        return [Text(text=_words(block["text"]))] if block["text"] else []
    if (use := block.get("toolUse")) is not None and use.get("type") != "server_tool_use":
        arguments = _encode(use.get("input", {})).decode()
        name = _tool_name(use["name"])
        if name == ANSWER:
            return [Text(text=arguments)]
        return [ToolCall(id=_words(use["toolUseId"]), name=name, arguments=arguments)]
    if (thought := block.get("reasoningContent")) is not None:
        if (sealed := thought.get("redactedContent")) is not None:
            return [Thinking(redacted=_opened(sealed))]
        said = thought.get("reasoningText") or {}
        signature = said.get("signature")
        return [Thinking(text=_words(said.get("text") or ""), signature=_words(signature) if signature else None)]
    if (cited := block.get("citationsContent")) is not None:
        words = "".join(item.get("text", "") for item in cited.get("content") or ())
        return [Text(text=words), Foreign(dialect=DIALECT, value=block)] if words else []
    for kind in _MEDIA:
        if kind in block:
            return [read_media(kind, block[kind])]
    return [Foreign(dialect=DIALECT, value=block)]


def _notes(blocks: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return what the texts of an answer cite from the web, as notes on the whole text of it."""
    noted, begin = [], 0
    for block in blocks:
        told = block.get("citationsContent") or {}
        words = [block.get("text") or "", *(item.get("text", "") for item in told.get("content") or ())]
        end = begin + sum(map(len, words))
        noted += [note for cited in told.get("citations") or () if (note := _note(cited, begin, end))]
        begin = end
    return {"annotations": noted} if noted else {}


def _note(cited: dict[str, Any], begin: int, end: int) -> dict[str, Any] | None:
    place = (cited.get("location") or {}).get("web") or {}
    url = place.get("url")
    return url_note(url, cited.get("title") or place.get("domain"), begin, end) if isinstance(url, str) else None


def _tool_name(value: Any) -> str:
    """Return the name of a tool; gpt-oss at times lets the mark of its channel run on into it."""
    return _words(value).partition(_CHANNEL)[0] or value


def _words(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _opened(sealed: str) -> str:
    """Return a sealed thought as its maker wrote it: the API wraps its bytes in base64."""
    return base64.b64decode(sealed, validate=True).decode("latin-1")


class EventReader:
    """Reads the events of one stream, in order, into pieces."""

    __slots__ = (
        "_answered",
        "_begins",
        "_blocks",
        "_called",
        "_calls",
        "_cited",
        "_held",
        "_role",
        "_said",
        "_whole",
        "finished",
    )

    def __init__(self, *, structured: bool = False) -> None:
        """With `structured`, words are held back until it is clear that no call of the answer tool follows."""
        self._blocks: dict[int, _Block] = {}
        self._calls = 0
        self._called = False
        self._answered = False
        self._role: str | None = None
        self._held: list[str] = []
        self._cited: dict[int, list[dict[str, Any]]] = {}
        self._begins: dict[int, int] = {}
        self._said = 0
        self._whole = structured
        self.finished = False

    def read(self, kind: str, data: dict[str, Any]) -> list[Chunk]:
        """Return the pieces of one event; unknown kinds have none.

        Raises KeyError, TypeError, ValueError or AttributeError for what is not in the form.
        """
        if kind == "messageStart":
            self._role = "assistant"
            return []
        chunks: list[Chunk] = []
        if kind == "contentBlockStart":
            chunks = self._start(data["contentBlockIndex"], data.get("start") or {})
        elif kind == "contentBlockDelta":
            chunks = self._delta(data["contentBlockIndex"], data["delta"])
        elif kind == "contentBlockStop":
            block = self._blocks.pop(data["contentBlockIndex"], None)
            chunks = block.closed() if block is not None else []
            if cited := self._cited.pop(data["contentBlockIndex"], None):
                begin = self._begins.get(data["contentBlockIndex"], self._said)
                noted = [note for one in cited if (note := _note(one, begin, self._said))]
                chunks += [Chunk(extra={"annotations": noted})] if noted else []
        elif kind == "messageStop":
            chunks = self._stop(data)
        elif kind == "metadata" and (usage := read_usage(data.get("usage"), data.get("serviceTier"))) is not None:
            chunks = [Chunk(usage=usage)]
        if self._role is not None and chunks:
            chunks[0] = msgspec.structs.replace(chunks[0], role="assistant", created=int(time.time()))
            self._role = None
        return chunks

    def _start(self, index: int, start: dict[str, Any]) -> list[Chunk]:
        if (use := start.get("toolUse")) is not None and use.get("type") != "server_tool_use":
            name = _tool_name(use["name"])
            if name == ANSWER:
                self._answered = True
                self._blocks[index] = _Answer()
                return []
            self._called = True
            self._blocks[index] = _Call(self._calls)
            self._calls += 1
            place = self._calls - 1
            return [Chunk(tool=ToolDelta(position=place, id=_words(use["toolUseId"]), name=name, kind="function"))]
        self._blocks[index] = _Gathered(start)
        return []

    def _delta(self, index: int, delta: dict[str, Any]) -> list[Chunk]:
        if (text := delta.get("text")) is not None:
            _words(text)
            if self._whole:
                self._held.append(text)
                return []
            self._begins.setdefault(index, self._said)
            self._said += len(text)
            return [Chunk(text=text)] if text else []
        if (thought := delta.get("reasoningContent")) is not None and "redactedContent" not in thought:
            if "signature" in thought:
                return [Chunk(signature=_words(thought["signature"]))] if thought["signature"] else []
            return [Chunk(thinking=_words(thought["text"]))] if thought.get("text") else []
        if (cited := delta.get("citation")) is not None:
            self._cited.setdefault(index, []).append(cited)
            return [Chunk(part=Foreign(dialect=DIALECT, value={"citation": cited}))]
        block = self._blocks.get(index)
        if block is None:
            block = self._blocks[index] = _Gathered({})
        return block.more(delta)

    def _stop(self, data: dict[str, Any]) -> list[Chunk]:
        chunks = [chunk for index in sorted(self._blocks) for chunk in self._blocks[index].closed()]
        self._blocks.clear()
        if self._held and not self._answered:
            chunks.append(Chunk(text="".join(self._held)))
        self.finished = True
        finish, native = read_finish(data["stopReason"], called=self._called, answered=self._answered)
        return [*chunks, Chunk(finish_reason=finish, native_finish_reason=native, extra=_stop_sequence(data))]


class _Block:
    """A content block that is still open."""

    def more(self, delta: dict[str, Any]) -> list[Chunk]:
        """Return the pieces of a delta."""
        return []

    def closed(self) -> list[Chunk]:
        """Return what was held back."""
        return []


class _Call(_Block):
    def __init__(self, position: int) -> None:
        self._position = position
        self._wrote = False

    def more(self, delta: dict[str, Any]) -> list[Chunk]:
        words = _words(delta["toolUse"]["input"])
        if not words:
            return []
        self._wrote = True
        return [Chunk(tool=ToolDelta(position=self._position, arguments=words))]

    def closed(self) -> list[Chunk]:
        # Arguments are JSON, also those of a call without any.
        return [] if self._wrote else [Chunk(tool=ToolDelta(position=self._position, arguments="{}"))]


class _Answer(_Block):
    def more(self, delta: dict[str, Any]) -> list[Chunk]:
        words = _words(delta["toolUse"]["input"])
        return [Chunk(text=words)] if words else []


class _Gathered(_Block):
    """Pictures, sealed thoughts, and what the provider's own tools do: handed on when whole."""

    def __init__(self, start: dict[str, Any]) -> None:
        self._start = start
        self._deltas: list[dict[str, Any]] = []

    def more(self, delta: dict[str, Any]) -> list[Chunk]:
        self._deltas.append(delta)
        return []

    def closed(self) -> list[Chunk]:
        if not self._start and not self._deltas:
            return []
        return [Chunk(part=part) for part in self._parts()]

    def _parts(self) -> list[AnyPart]:
        if sealed := [delta["reasoningContent"]["redactedContent"] for delta in self._deltas if _redacted(delta)]:
            return [Thinking(redacted="".join(_opened(piece) for piece in sealed))]
        if (image := self._start.get("image")) is not None:
            pieces = [(delta.get("image") or {}).get("source", {}).get("bytes", "") for delta in self._deltas]
            data = base64.b64encode(b"".join(base64.b64decode(piece) for piece in pieces)).decode()
            return [read_media("image", image | {"source": {"bytes": data}})]
        if (use := self._start.get("toolUse")) is not None:
            written = "".join((delta.get("toolUse") or {}).get("input", "") for delta in self._deltas)
            told = msgspec.json.decode(written) if written else {}
            return [Foreign(dialect=DIALECT, value={"toolUse": use | {"input": told}})]
        if (result := self._start.get("toolResult")) is not None:
            content = [item for delta in self._deltas for item in delta.get("toolResult") or ()]
            return [Foreign(dialect=DIALECT, value={"toolResult": result | {"content": content}})]
        return [Foreign(dialect=DIALECT, value=self._start | {"deltas": self._deltas})]


def _redacted(delta: dict[str, Any]) -> bool:
    return "redactedContent" in (delta.get("reasoningContent") or {})
