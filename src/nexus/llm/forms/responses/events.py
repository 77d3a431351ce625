"""The stream of the Responses form: events read into pieces, and pieces written as events.

Source: https://platform.openai.com/docs/api-reference/responses-streaming. Each event has a name, and a
`sequence_number` that grows by one.
"""

from __future__ import annotations

from typing import Any

import msgspec

from nexus.core.ids import new_id
from nexus.llm.errors import from_stream
from nexus.llm.forms.free_form import AFTER, BEFORE, inside, unwrapped
from nexus.llm.forms.responses.answers import counted, ending, finish_of, read_usage, response_head
from nexus.llm.forms.responses.items import (
    DIALECT,
    Names,
    call_item,
    chat_annotation,
    image_item,
    message_item,
    noted_text,
    own_annotation,
    read_output,
    reasoning_item,
    search_item,
    shifted,
    text_part,
)
from nexus.llm.types import (
    AnyPart,
    Chunk,
    FinishReason,
    Foreign,
    Media,
    Refusal,
    Searched,
    Text,
    Thinking,
    ToolCall,
    ToolDelta,
    Usage,
)

_THINKING = frozenset(("response.reasoning_summary_text.delta", "response.reasoning_text.delta"))
_ARGUMENTS = {
    "response.function_call_arguments.delta": "delta",
    "response.custom_tool_call_input.delta": "delta",
    "response.function_call_arguments.done": "arguments",
    "response.custom_tool_call_input.done": "input",
}
_ENDS = frozenset(("response.completed", "response.incomplete", "response.failed"))


class EventReader:
    """Turns the events of one stream into pieces."""

    def __init__(self) -> None:
        """Begin with nothing said."""
        self.ended = False
        self._calls: dict[int, int] = {}
        self._begun: set[int] = set()
        self._said: set[int] = set()

    def read(self, event: dict[str, Any]) -> list[Chunk]:
        """Return the pieces of one event. Raises the error that it carries."""
        kind = str(event.get("type") or "")
        if kind == "error" or (kind == "" and event.get("error") is not None):
            raise from_stream(event.get("error") or event)
        place = event.get("output_index") or 0
        if kind == "response.output_text.delta":
            self._said.add(place)
            logprobs = event.get("logprobs")
            return [Chunk(text=event["delta"], extra={"logprobs": {"content": logprobs}} if logprobs else {})]
        if kind in _THINKING:
            self._said.add(place)
            return [Chunk(thinking=event["delta"])]
        if kind == "response.reasoning_summary_part.added" and event.get("summary_index"):
            return [Chunk(thinking="\n\n")]
        if kind == "response.refusal.delta":
            self._said.add(place)
            return [Chunk(refusal=event["delta"])]
        if kind in _ARGUMENTS:
            return self._arguments(place, kind, event)
        if kind == "response.output_text.annotation.added" and isinstance(note := event.get("annotation"), dict):
            return [Chunk(extra={"annotations": [chat_annotation(note)]})]
        if kind in ("response.output_item.added", "response.output_item.done"):
            return self._item(place, event["item"], done=kind.endswith("done"))
        if kind == "response.created":
            told = event["response"]
            head = {"id": told.get("id"), "model": told.get("model"), "created": int(told.get("created_at") or 0)}
            return [Chunk(role="assistant", **head)]
        return self._end(event["response"]) if kind in _ENDS else []

    def _arguments(self, place: int, kind: str, event: dict[str, Any]) -> list[Chunk]:
        if kind.endswith("done") and place in self._begun:
            return []
        position = self._calls.get(place)
        if position is None:
            return []
        self._begun.add(place)
        told = event.get(_ARGUMENTS[kind]) or ""
        return [Chunk(tool=ToolDelta(position=position, arguments=inside(told) if "custom" in kind else told))]

    def _item(self, place: int, item: dict[str, Any], *, done: bool) -> list[Chunk]:
        kind = item.get("type")
        if kind in ("function_call", "custom_tool_call"):
            return self._call(place, item, done=done)
        if not done:
            return []
        if kind == "reasoning":
            sealed = item.get("encrypted_content")
            told = item.get("summary") or item.get("content") or ()
            text = "" if place in self._said else "\n\n".join(str(part.get("text") or "") for part in told)
            chunks = [Chunk(thinking=text)] if text else []
            return [*chunks, Chunk(signature=f"{item.get('id')}:{sealed}")] if sealed else chunks
        if kind != "message":
            parts: tuple[AnyPart, ...] = read_output([item]).parts
            return [Chunk(part=part) for part in parts]
        if place in self._said:
            return []
        parts = read_output([item]).parts
        texts = [Chunk(text=part.text) for part in parts if isinstance(part, Text)]
        return texts + [Chunk(refusal=part.text) for part in parts if isinstance(part, Refusal)]

    def _call(self, place: int, item: dict[str, Any], *, done: bool) -> list[Chunk]:
        """Read a call; the words for a free-form tool as the arguments of a function, like those of a whole answer."""
        chunks = []
        custom = item["type"] == "custom_tool_call"
        if place not in self._calls:
            position = self._calls[place] = len(self._calls)
            call_id = str(item.get("call_id") or item.get("id") or "")
            head = ToolDelta(position=position, id=call_id, name=item.get("name"), kind="function")
            chunks.append(Chunk(tool=head))
            if custom:
                chunks.append(Chunk(tool=ToolDelta(position=position, arguments=BEFORE)))
        told = item.get("input" if custom else "arguments")
        if done and told and place not in self._begun:
            self._begun.add(place)
            told = inside(told) if custom else told
            chunks.append(Chunk(tool=ToolDelta(position=self._calls[place], arguments=told)))
        if done and custom:
            chunks.append(Chunk(tool=ToolDelta(position=self._calls[place], arguments=AFTER)))
        return chunks

    def _end(self, response: dict[str, Any]) -> list[Chunk]:
        if response.get("status") == "failed" or response.get("error") is not None:
            raise from_stream(response.get("error"))
        self.ended = True
        finish = finish_of(response, read_output(response.get("output") or ()))
        if finish == "stop" and self._calls:
            finish = "tool_calls"
        chunks = [Chunk(finish_reason=finish, native_finish_reason=finish)]
        usage = read_usage(response.get("usage"), response.get("service_tier"), response.get("tool_usage"))
        return [*chunks, Chunk(usage=usage)] if usage is not None else chunks


def events_of(response: dict[str, Any]) -> list[bytes]:
    """Return the events of a response that has ended, as they might have been streamed."""
    begun = response | {"status": "in_progress", "output": [], "usage": None, "completed_at": None}
    told: list[dict[str, Any]] = [
        {"type": f"response.{name}", "response": begun} for name in ("created", "in_progress")
    ]
    for place, item in enumerate(response.get("output") or ()):
        at = {"output_index": place, "item_id": item.get("id")}
        if item.get("type") == "web_search_call":
            told += search_events(at, item)
        else:
            opened = item | ({"content": [], "status": "in_progress"} if item.get("type") == "message" else {})
            told.append({"type": "response.output_item.added", "output_index": place, "item": opened})
        for index, part in enumerate(item.get("content") or () if item.get("type") == "message" else ()):
            told += _part_events(at | {"content_index": index}, part)
        for kind, field in (("function_call_arguments", "arguments"), ("custom_tool_call_input", "input")):
            if isinstance(text := item.get(field), str):
                told.append({"type": f"response.{kind}.delta", **at, "delta": text})
                told.append({"type": f"response.{kind}.done", **at, field: text, "name": item.get("name")})
        told.append({"type": "response.output_item.done", "output_index": place, "item": item})
    status = response.get("status")
    last = status if status in ("completed", "incomplete", "failed") else "failed"
    told.append({"type": f"response.{last}", "response": response})
    return [event_bytes(event["type"], event | {"sequence_number": n}) for n, event in enumerate(told)]


def search_events(at: dict[str, Any], item: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what is told of a search in the web before its item is done."""
    begun = item | {"status": "in_progress"}
    added = {"type": "response.output_item.added", "output_index": at["output_index"], "item": begun}
    steps = ("in_progress", "searching", *(["completed"] if item.get("status") == "completed" else []))
    return [added, *({"type": f"response.web_search_call.{step}", **at} for step in steps)]


def _part_events(at: dict[str, Any], part: dict[str, Any]) -> list[dict[str, Any]]:
    kind = "refusal" if part.get("type") == "refusal" else "output_text"
    field = "refusal" if kind == "refusal" else "text"
    text = part.get(field) or ""
    more: dict[str, Any] = {} if kind == "refusal" else {"logprobs": []}
    return [
        {"type": "response.content_part.added", **at, "part": part | {field: ""}},
        {"type": f"response.{kind}.delta", **at, "delta": text, **more},
        {"type": f"response.{kind}.done", **at, field: text, **more},
        {"type": "response.content_part.done", **at, "part": part},
    ]


def event_bytes(kind: str, body: dict[str, Any]) -> bytes:
    """Write one event."""
    return b"event: " + kind.encode() + b"\ndata: " + msgspec.json.encode(body) + b"\n\n"


class OpenItem:
    """An item that is being written: its place in the output, its id, and what was said of it."""

    __slots__ = ("annotations", "call", "id", "kind", "logprobs", "parts", "place", "signature", "text")

    def __init__(self, kind: str, place: int, item_id: str) -> None:
        """Begin with nothing said."""
        self.kind = kind
        self.place = place
        self.id = item_id
        self.text: list[str] = []
        self.parts: list[dict[str, Any]] = []
        self.annotations: list[Any] = []
        self.logprobs: list[Any] = []
        self.signature: str | None = None
        self.call = ToolCall(id="", name="", arguments="")


class EventWriter:
    """Writes the pieces of one answer as events."""

    def __init__(self, model: str, echo: dict[str, Any], names: Names, *, sources: bool = False) -> None:
        """Write for a request that `echo` repeats and whose tools have `names`; searches tell their `sources`."""
        self._sources = sources
        self._written = 0
        self._response = response_head(model, echo)
        self._names = names
        self._sequence = 0
        self._out: list[bytes] = []
        self._begun = False
        self._open: OpenItem | None = None
        self._said: str | None = None
        self._calls: dict[int, OpenItem] = {}
        self._items: dict[int, dict[str, Any]] = {}
        self._places = 0
        # Of each text: how many characters came before it, where it stands, and the notes on it.
        self._texts: list[tuple[int, dict[str, Any], list[Any]]] = []
        self._finish: FinishReason | None = None
        self._usage: Usage | None = None

    def write(self, chunks: list[Chunk]) -> bytes:
        """Return the events for these pieces."""
        for chunk in chunks:
            if chunk.index == 0:
                self._chunk(chunk)
        return self._taken()

    def end(self) -> bytes:
        """Return the closing events."""
        self._begin()
        self._close()
        for call in self._calls.values():
            self._close_call(call)
        ended = ending(self._finish)
        output = [item for _, item in sorted(self._items.items())]
        if output and ended["status"] != "completed" and "status" in output[-1]:
            output[-1] = output[-1] | {"status": ended["status"]}
        self._response |= ended | {"output": output} | counted(self._usage)
        self._emit(f"response.{ended['status']}", response=self._response)
        return self._taken()

    def _taken(self) -> bytes:
        out, self._out = b"".join(self._out), []
        return out

    def _emit(self, kind: str, **fields: Any) -> None:
        body = {"type": kind, "sequence_number": self._sequence} | fields
        self._sequence += 1
        self._out.append(event_bytes(kind, body))

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._emit("response.created", response=self._response)
            self._emit("response.in_progress", response=self._response)

    def _chunk(self, chunk: Chunk) -> None:
        if not self._begun:
            self._response["model"] = chunk.model or self._response["model"]
            self._response["created_at"] = chunk.created or self._response["created_at"]
            self._begin()
        if chunk.thinking:
            self._think(chunk.thinking)
        if chunk.signature and chunk.text is None and chunk.tool is None:
            self._opened("reasoning").signature = chunk.signature
        if chunk.text:
            self._say("output_text", chunk.text, (chunk.extra.get("logprobs") or {}).get("content") or [])
        if chunk.refusal:
            self._say("refusal", chunk.refusal, [])
        for note in chunk.extra.get("annotations") or ():
            self._annotate(own_annotation(note))
        if chunk.tool is not None:
            self._call(chunk.tool)
        if chunk.part is not None:
            self._part(chunk.part)
        self._finish = chunk.finish_reason or self._finish
        self._usage = chunk.usage or self._usage

    def _opened(self, kind: str) -> OpenItem:
        """Return the open item of this kind, after the end of one of another kind."""
        if self._open is None or self._open.kind != kind:
            self._close()
            self._open = OpenItem(kind, self._place(), new_id("rs" if kind == "reasoning" else "msg"))
            item = (
                message_item(self._open.id, [], "in_progress")
                if kind == "message"
                else reasoning_item(self._open.id, Thinking())
            )
            self._emit("response.output_item.added", output_index=self._open.place, item=item)
        return self._open

    def _place(self) -> int:
        self._places += 1
        return self._places - 1

    def _think(self, text: str) -> None:
        item = self._opened("reasoning")
        at = {"item_id": item.id, "output_index": item.place, "summary_index": 0}
        if not item.text:
            self._emit("response.reasoning_summary_part.added", **at, part={"type": "summary_text", "text": ""})
        item.text.append(text)
        self._emit("response.reasoning_summary_text.delta", **at, delta=text)

    def _say(self, kind: str, text: str, logprobs: list[Any]) -> None:
        item = self._opened("message")
        if self._said != kind:
            self._close_content(item)
            self._said = kind
            part = text_part("") if kind == "output_text" else {"type": "refusal", "refusal": ""}
            self._emit("response.content_part.added", **self._content(item), part=part)
            if kind == "output_text":
                self._texts.append((self._written, self._content(item), item.annotations))
        item.text.append(text)
        item.logprobs += logprobs
        more = {"logprobs": logprobs} if kind == "output_text" else {}
        self._emit(f"response.{kind}.delta", **self._content(item), delta=text, **more)

    def _annotate(self, note: Any) -> None:
        """Write a note on the text that it is about, which may be over."""
        if self._texts:
            begin, at, notes = self._texts[noted_text(note, [text[0] for text in self._texts])]
            told = shifted(note, begin)
            self._emit("response.output_text.annotation.added", **at, annotation_index=len(notes), annotation=told)
            notes.append(told)

    def _content(self, item: OpenItem) -> dict[str, Any]:
        return {"item_id": item.id, "output_index": item.place, "content_index": len(item.parts)}

    def _close_content(self, item: OpenItem) -> None:
        if self._said is None:
            return
        text, at = "".join(item.text), self._content(item)
        if self._said == "output_text":
            part = text_part(text, item.logprobs) | {"annotations": item.annotations}
            self._written += len(text)
            self._emit("response.output_text.done", **at, text=text, logprobs=item.logprobs)
        else:
            part = {"type": "refusal", "refusal": text}
            self._emit("response.refusal.done", **at, refusal=text)
        self._emit("response.content_part.done", **at, part=part)
        item.parts.append(part)
        item.text, item.logprobs, item.annotations, self._said = [], [], [], None

    def _close(self) -> None:
        """End the open reasoning or message."""
        item, self._open = self._open, None
        if item is None:
            return
        if item.kind == "message":
            self._close_content(item)
            self._done(item.place, message_item(item.id, item.parts, "completed"))
            return
        text = "".join(item.text)
        if text:
            at = {"item_id": item.id, "output_index": item.place, "summary_index": 0}
            self._emit("response.reasoning_summary_text.done", **at, text=text)
            self._emit("response.reasoning_summary_part.done", **at, part={"type": "summary_text", "text": text})
        self._done(item.place, reasoning_item(item.id, Thinking(text=text, signature=item.signature)))

    def _done(self, place: int, item: dict[str, Any]) -> None:
        self._items[place] = item
        self._emit("response.output_item.done", output_index=place, item=item)

    def _call(self, delta: ToolDelta) -> None:
        item = self._calls.get(delta.position)
        if item is None:
            self._close()
            call = ToolCall(
                id=delta.id or new_id("call"),
                name=delta.name or "",
                arguments="",
                kind=delta.kind or "function",
                signature=delta.signature,
            )
            item = self._calls[delta.position] = OpenItem("call", self._place(), "")
            added = call_item(call, self._names, status="in_progress")
            item.id, item.call = added["id"], call
            self._emit("response.output_item.added", output_index=item.place, item=added)
        if delta.arguments:
            item.text.append(delta.arguments)
            if not self._is_wrapped(item.call):
                self._emit_input(item, "delta", delta.arguments)

    def _is_wrapped(self, call: ToolCall) -> bool:
        """Tell whether a free-form tool's text comes inside JSON, so that it is known at the end only."""
        return call.name in self._names.custom and call.kind != "custom"

    def _emit_input(self, item: OpenItem, field: str, told: str) -> None:
        custom = item.call.kind == "custom" or item.call.name in self._names.custom
        stem = "custom_tool_call_input" if custom else "function_call_arguments"
        at = {"item_id": item.id, "output_index": item.place}
        if field == "delta":
            self._emit(f"response.{stem}.delta", **at, delta=told)
        elif custom:
            self._emit(f"response.{stem}.done", **at, input=told)
        else:
            self._emit(f"response.{stem}.done", **at, name=item.call.name, arguments=told)

    def _close_call(self, item: OpenItem) -> None:
        told = "".join(item.text)
        call = msgspec.structs.replace(item.call, arguments=told)
        if self._is_wrapped(call):
            told = unwrapped(told)
            self._emit_input(item, "delta", told)
        self._emit_input(item, "done", told)
        self._done(item.place, call_item(call, self._names, item_id=item.id))

    def _part(self, part: AnyPart) -> None:
        """Write a part that came whole."""
        if isinstance(part, Text):
            self._say("output_text", part.text, [])
        elif isinstance(part, Refusal):
            self._say("refusal", part.text, [])
        elif isinstance(part, ToolCall):
            position = -1 - len(self._calls)
            self._call(ToolDelta(position=position, id=part.id, name=part.name, arguments=part.arguments,
                                 kind=part.kind, signature=part.signature))  # fmt: skip
        elif isinstance(part, Thinking) and part.redacted is None:
            self._think(part.text)
            self._opened("reasoning").signature = part.signature
        elif isinstance(part, Thinking):
            self._whole(reasoning_item(new_id("rs"), part))
        elif isinstance(part, Media) and part.kind == "image" and part.data:
            self._whole(image_item(part))
        elif isinstance(part, Searched):
            self._search(search_item(part, sources=self._sources))
        elif isinstance(part, Foreign) and part.dialect == DIALECT:
            self._whole(dict(part.value))

    def _search(self, item: dict[str, Any]) -> None:
        """Write a search in the web, of which one hears when it is over."""
        self._close()
        place = self._place()
        for event in search_events({"output_index": place, "item_id": item["id"]}, item):
            self._emit(event["type"], **{name: value for name, value in event.items() if name != "type"})
        self._done(place, item)

    def _whole(self, item: dict[str, Any]) -> None:
        self._close()
        place = self._place()
        self._emit("response.output_item.added", output_index=place, item=item)
        self._done(place, item)
