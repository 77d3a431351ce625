"""The items of the Responses form and our messages, both ways, as plain functions on decoded JSON.

Source: https://platform.openai.com/docs/api-reference/responses. A turn of the model is there a row of items
(reasoning, message, call); here it is one message with parts in the same order. Seals of other providers travel
inside `encrypted_content` and `call_id`, which every client sends back unchanged.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, cast

import msgspec

from nexus.core.ids import new_id
from nexus.llm.errors import Unsupported
from nexus.llm.forms.cache_marks import read_mark, write_own_mark
from nexus.llm.forms.chat.requests import SOUNDS, name_of
from nexus.llm.forms.free_form import unwrapped, wrapped
from nexus.llm.forms.signatures import sealed_id, unsealed
from nexus.llm.forms.unsaid import RESPONSES
from nexus.llm.types import (
    AnyPart,
    Foreign,
    Media,
    Message,
    Refusal,
    Role,
    Searched,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)

DIALECT = RESPONSES
_SIGNED, _REDACTED = "nexus.signed.", "nexus.redacted."
_ROLES = frozenset(("user", "system", "developer", "assistant"))
_CALLS = frozenset(("function_call", "custom_tool_call"))
OUTPUTS = frozenset(("function_call_output", "custom_tool_call_output"))
# Items that nobody says: they bring tools, or change settings.
ADDED, UPDATE = "additional_tools", "configuration_update"


class Names(NamedTuple):
    """What a request's tools are called here: free-form ones, and those inside a namespace by their flat name.

    Models elsewhere know plain functions only: a free-form tool is one with the single parameter `input`,
    and a tool in a namespace has both names in one.
    """

    custom: frozenset[str] = frozenset()
    spaced: Mapping[str, tuple[str, str]] = {}

    @classmethod
    def of(cls, tools: Iterable[Any]) -> Names:
        """Collect the names of a request's tools, as it wrote them."""
        custom: set[str] = set()
        spaced: dict[str, tuple[str, str]] = {}
        for tool in tools:
            kind = tool.get("type") if isinstance(tool, dict) else None
            if kind == "custom":
                custom.add(str(tool.get("name")))
            elif kind == "namespace":
                space = str(tool.get("name"))
                for inner in tool.get("tools") or ():
                    flat = flat_name(space, str(inner.get("name")))
                    spaced[flat] = (space, str(inner.get("name")))
                    if inner.get("type") == "custom":
                        custom.add(flat)
        return cls(frozenset(custom), spaced)


def offered(asked: dict[str, Any], history: Iterable[Any] | None = None) -> list[Any]:
    """Return every tool that a request offers: its own, and those that items before it or of it bring."""
    given = asked.get("input")
    items = [*(history or ()), *(given if isinstance(given, list) else ())]
    added = [tool for item in items if isinstance(item, dict) and item.get("type") == ADDED for tool in item["tools"]]
    return [*(asked.get("tools") or ()), *added]


def kind_of(item: dict[str, Any]) -> str:
    """Return the type of an item, also of the two that may leave it out: a message, and a reference by its id alone."""
    usual = "message" if "role" in item or "content" in item else "item_reference" if "id" in item else "message"
    return str(item.get("type") or usual)


def flat_name(space: str | None, name: str) -> str:
    """Return one name for a tool inside a namespace; one that is alone in its own has no other."""
    return f"{space}__{name}" if space and space != name else name


# Reading.


def read_items(items: Sequence[dict[str, Any]]) -> tuple[Message, ...]:
    """Read a request's items; what the model said in one turn becomes one message."""
    messages: list[Message] = []
    for item in items:
        message = _read_item(item) if item.get("type") not in (ADDED, UPDATE) else None
        if message is None:
            continue
        last = messages[-1] if messages else None
        if message.role == "assistant" and last is not None and last.role == "assistant":
            messages[-1] = msgspec.structs.replace(last, parts=last.parts + message.parts)
        else:
            messages.append(message)
    return tuple(messages)


def places_of(items: Sequence[dict[str, Any]], earlier: int) -> list[list[str]]:
    """Return what the client calls each part of each message that `read_items` makes of items.

    The first `earlier` items are those of previous responses.
    """
    places: list[list[str]] = []
    last: Role | None = None
    for i, item in enumerate(items):
        message = _read_item(item) if item.get("type") not in (ADDED, UPDATE) else None
        if message is None:
            continue
        here = [_place_in(item, j, f"input.{i - earlier}") for j in range(len(message.parts))]
        if i < earlier:
            here = ["previous_response_id"] * len(here)
        if message.role == last == "assistant":
            places[-1] += here
        else:
            places.append(here)
        last = message.role
    return places


def _place_in(item: dict[str, Any], part: int, place: str) -> str:
    if item.get("type") in OUTPUTS:
        return f"{place}.output"
    content = item.get("content") if kind_of(item) == "message" else None
    return place if content is None else f"{place}.content" if isinstance(content, str) else f"{place}.content.{part}"


def read_output(items: Sequence[dict[str, Any]]) -> Message:
    """Read what a model answered."""
    parts: list[AnyPart] = []
    annotations: list[Any] = []
    logprobs: list[Any] = []
    for item in items:
        message = _read_item(item)
        if item.get("type") == "reasoning":
            parts += _read_thought(item)
        elif message is not None:
            parts += message.parts
        for content in item.get("content") or () if item.get("type") == "message" else ():
            annotations += [chat_annotation(note) for note in content.get("annotations") or ()]
            logprobs += content.get("logprobs") or ()
    extra = {"annotations": annotations} if annotations else {}
    return Message(role="assistant", parts=tuple(parts), extra=extra | ({"logprobs": logprobs} if logprobs else {}))


def _read_item(item: dict[str, Any]) -> Message | None:
    kind = item.get("type") or ("message" if "role" in item else None)
    if kind == "message":
        role = item.get("role")
        content = item.get("content")
        parts = (Text(text=content),) if isinstance(content, str) else tuple(read_part(part) for part in content or ())
        return Message(role=cast("Role", role if role in _ROLES else "user"), parts=parts)
    if kind in _CALLS:
        return Message(role="assistant", parts=(_read_call(item),))
    if kind in OUTPUTS:
        call_id, _ = unsealed(str(item.get("call_id") or ""))
        output = item.get("output")
        given = (Text(text=output),) if isinstance(output, str) else tuple(read_part(part) for part in output or ())
        told = tuple(part for part in given if isinstance(part, Text | Media))
        return Message(role="tool", parts=(ToolResult(id=call_id, content=told),))
    if kind == "image_generation_call" and isinstance(item.get("result"), str):
        form = f"image/{item.get('output_format') or 'png'}"
        return Message(role="assistant", parts=(Media(kind="image", media_type=form, data=item["result"]),))
    if kind == "reasoning":
        thought = _read_reasoning(item)
        return Message(role="assistant", parts=(thought,)) if thought is not None else None
    return Message(role="assistant", parts=(Foreign(dialect=DIALECT, value=item),))


def _read_call(item: dict[str, Any]) -> ToolCall:
    call_id, signature = unsealed(str(item.get("call_id") or item.get("id") or ""))
    name = flat_name(item.get("namespace"), str(item.get("name") or ""))
    arguments = item.get("arguments") or ""
    if item["type"] == "custom_tool_call":
        arguments = wrapped(str(item.get("input") or ""))
    return ToolCall(id=call_id, name=name, arguments=arguments, signature=signature)


def _read_reasoning(item: dict[str, Any]) -> Thinking | None:
    told = item.get("summary") or item.get("content") or ()
    text = "\n\n".join(str(part.get("text") or "") for part in told if isinstance(part, dict))
    sealed = item.get("encrypted_content")
    if isinstance(sealed, str) and sealed.startswith(_REDACTED):
        return Thinking(text=text, redacted=sealed.removeprefix(_REDACTED))
    if isinstance(sealed, str) and sealed.startswith(_SIGNED):
        return Thinking(text=text, signature=sealed.removeprefix(_SIGNED))
    return Thinking(text=text) if text else None


def _read_thought(item: dict[str, Any]) -> list[AnyPart]:
    """Read what a model has thought, with the seal of this form's own provider: the item's id and its content."""
    thought, sealed = _read_reasoning(item), item.get("encrypted_content")
    if not isinstance(sealed, str) or not sealed or sealed.startswith((_SIGNED, _REDACTED)):
        return [] if thought is None else [thought]
    return [msgspec.structs.replace(thought or Thinking(), signature=f"{item.get('id')}:{sealed}")]


def read_part(part: Any) -> AnyPart:
    """Read one content part of either side."""
    kind = part.get("type")
    mark = read_mark(part)
    if kind in ("input_text", "output_text", "text", "summary_text") and isinstance(part.get("text"), str):
        return Text(text=part["text"], cache=mark)
    if kind == "refusal":
        return Refusal(text=str(part.get("refusal") or ""))
    if kind == "input_image":
        if part.get("file_id"):
            return Media(kind="image", file_id=part["file_id"], detail=part.get("detail"), cache=mark)
        return _media("image", str(part.get("image_url") or ""), detail=part.get("detail"), cache=mark)
    if kind == "input_file":
        name = part.get("filename")
        if part.get("file_id"):
            return Media(kind="document", file_id=part["file_id"], name=name, cache=mark)
        return _media("document", str(part.get("file_data") or part.get("file_url") or ""), name=name, cache=mark)
    if kind == "input_audio" and isinstance(sound := part.get("input_audio"), dict):
        return Media(kind="audio", data=sound.get("data"), media_type=f"audio/{sound.get('format', 'wav')}")
    return Foreign(dialect=DIALECT, value=part)


def _media(kind: Any, url: str, **more: str | None) -> Media:
    head, comma, data = url.partition(",")
    if comma and head.startswith("data:") and head.endswith(";base64"):
        return Media(kind=kind, media_type=head[5:-7] or None, data=data, **more)
    if kind == "document" and url and "://" not in url:
        return Media(kind=kind, media_type="application/pdf", data=url, **more)
    return Media(kind=kind, url=url, **more)


# Writing.


def write_items(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Write the messages of a request as input items."""
    items: list[dict[str, Any]] = []
    for message in messages:
        said: list[dict[str, Any]] = []
        for part in message.parts:
            if isinstance(part, ToolResult):
                output = [_write_part(item, "user") for item in part.content]
                plain = len(part.content) == 1 and isinstance(part.content[0], Text) and not part.content[0].cache
                told = output[0]["text"] if plain else output or ""
                items.append({"type": "function_call_output", "call_id": part.id, "output": told})
            elif isinstance(part, ToolCall):
                _say(items, message.role, said)
                items.append(
                    {"type": "function_call", "call_id": part.id, "name": part.name, "arguments": part.arguments}
                )
            elif isinstance(part, Thinking):
                _say(items, message.role, said)
                items += _own_reasoning(part)
            elif isinstance(part, Searched):
                continue
            elif not isinstance(part, Foreign) or part.dialect == DIALECT:
                said.append(_write_part(part, message.role))
            elif message.role != "assistant":
                kind = part.value.get("type") if isinstance(part.value, dict) else None
                raise Unsupported(f"This model does not read content of type {kind}.", field="messages")
        _say(items, message.role, said)
    return items


def _say(items: list[dict[str, Any]], role: str, said: list[dict[str, Any]]) -> None:
    if said:
        items.append({"type": "message", "role": role, "content": list(said)})
        said.clear()


def _own_reasoning(part: Thinking) -> list[dict[str, Any]]:
    """Write thinking that this form's own provider sealed: its signature holds the item's id and its content."""
    item_id, mark, content = (part.signature or "").partition(":")
    if not mark or not item_id.startswith("rs_"):
        return []
    summary = [{"type": "summary_text", "text": part.text}] if part.text else []
    return [{"type": "reasoning", "id": item_id, "summary": summary, "encrypted_content": content}]


def _write_part(part: AnyPart, role: str) -> dict[str, Any]:
    if isinstance(part, Text):
        said = {"type": "output_text" if role == "assistant" else "input_text", "text": part.text}
        return said | (write_own_mark(part.cache) if role != "assistant" else {})
    if isinstance(part, Refusal):
        return {"type": "refusal", "refusal": part.text}
    if isinstance(part, Foreign):
        return dict(part.value)
    assert isinstance(part, Media)
    return write_media(part) | write_own_mark(part.cache)


def write_media(part: Media) -> dict[str, Any]:
    """Write a picture, a sound or a document as a part of a content."""
    url = part.url or f"data:{part.media_type or 'application/octet-stream'};base64,{part.data}"
    if part.kind == "audio":
        sound = {"data": part.data, "format": SOUNDS.get(form := (part.media_type or "/wav")[6:], form)}
        return {"type": "input_audio", "input_audio": sound}
    if part.kind == "document":
        given = {"file_id": part.file_id} if part.file_id else {"file_url" if part.url else "file_data": url}
        return {"type": "input_file"} | given | ({"filename": told} if (told := name_of(part)) else {})
    seen = {"file_id": part.file_id} if part.file_id else {"image_url": url}
    return {"type": "input_image", "detail": part.detail or "auto"} | seen


def write_output(
    message: Message, names: Names, status: str = "completed", logprobs: Sequence[Any] = (), *, sources: bool = False
) -> list[dict[str, Any]]:
    """Write what a model answered as output items; `status` is that of the last one.

    `sources` tells whether searches in the web are to say what they found.
    """
    items: list[dict[str, Any]] = []
    said: list[dict[str, Any]] = []

    def close() -> None:
        if said:
            items.append(message_item(new_id("msg"), list(said), "completed"))
            said.clear()

    for part in message.parts:
        if isinstance(part, Text):
            said.append(text_part(part.text))
        elif isinstance(part, Refusal):
            said.append({"type": "refusal", "refusal": part.text})
        elif isinstance(part, Thinking):
            close()
            items.append(reasoning_item(new_id("rs"), part))
        elif isinstance(part, ToolCall):
            close()
            items.append(call_item(part, names))
        elif isinstance(part, Media) and part.kind == "image" and part.data:
            close()
            items.append(image_item(part))
        elif isinstance(part, Searched):
            close()
            items.append(search_item(part, sources=sources))
        elif isinstance(part, Foreign) and part.dialect == DIALECT:
            close()
            items.append(dict(part.value))
    close()
    spoken = [part for item in items if item["type"] == "message" for part in item["content"]]
    texts = [part for part in spoken if part["type"] == "output_text"]
    if texts and isinstance(notes := message.extra.get("annotations"), list):
        _annotate(texts, notes)
    if texts and logprobs:
        texts[0]["logprobs"] = list(logprobs)
    if items and status != "completed" and "status" in items[-1]:
        items[-1]["status"] = status
    return items


def _annotate(texts: Sequence[dict[str, Any]], notes: Sequence[Any]) -> None:
    """Give each note to the text that it is about, counted from the beginning of that one; the last has the others."""
    begins = list(accumulate((len(text["text"]) for text in texts[:-1]), initial=0))
    for note in map(own_annotation, notes):
        place = noted_text(note, begins)
        texts[place]["annotations"].append(shifted(note, begins[place]))


def noted_text(note: Any, begins: Sequence[int]) -> int:
    """Return which of the texts that begin there a note is about; the last one where it does not say."""
    at = note.get("start_index") if isinstance(note, dict) else None
    return (bisect_right(begins, at) if isinstance(at, int) and at >= 0 else len(begins)) - 1


def shifted(note: Any, begin: int) -> Any:
    """Return a note that is counted from a later beginning."""
    if not begin or not isinstance(note, dict):
        return note
    names = [name for name in ("start_index", "end_index") if isinstance(note.get(name), int)]
    return note | {name: max(0, note[name] - begin) for name in names}


def image_item(part: Media) -> dict[str, Any]:
    """Write a picture that the model made."""
    form = (part.media_type or "image/png").removeprefix("image/")
    return {
        "id": new_id("ig"),
        "type": "image_generation_call",
        "status": "completed",
        "result": part.data,
        "output_format": form,
    }


def search_item(part: Searched, *, sources: bool) -> dict[str, Any]:
    """Write a search in the web, with what it found if that was asked for."""
    action: dict[str, Any] = {"type": "search", "query": part.queries[0] if part.queries else ""}
    action["queries"] = list(part.queries)
    if sources:
        action["sources"] = [{"type": "url", "url": url} for url in part.sources]
    status = "failed" if part.failed else "completed"
    return {"id": new_id("ws"), "type": "web_search_call", "status": status, "action": action}


def text_part(text: str, logprobs: Sequence[Any] = ()) -> dict[str, Any]:
    """Write words."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(logprobs)}


def message_item(item_id: str, content: list[dict[str, Any]], status: str) -> dict[str, Any]:
    """Write a message of the model."""
    return {"id": item_id, "type": "message", "status": status, "role": "assistant", "content": content}


def reasoning_item(item_id: str, part: Thinking) -> dict[str, Any]:
    """Write thinking, with the provider's seal where it has one."""
    summary = [{"type": "summary_text", "text": part.text}] if part.text else []
    item: dict[str, Any] = {"id": item_id, "type": "reasoning", "summary": summary}
    if part.redacted is not None:
        item["encrypted_content"] = _REDACTED + part.redacted
    elif part.signature is not None:
        item["encrypted_content"] = _SIGNED + part.signature
    return item


def call_item(call: ToolCall, names: Names, *, item_id: str | None = None, status: str = "completed") -> dict[str, Any]:
    """Write a call in the form in which the request gave the tool."""
    space, name = names.spaced.get(call.name, (None, call.name))
    more = {"namespace": space} if space else {}
    call_id = sealed_id(call.id, call.signature)
    if call.name in names.custom or call.kind == "custom":
        said = call.arguments if call.kind == "custom" else unwrapped(call.arguments)
        given = {"type": "custom_tool_call", "call_id": call_id, "name": name, "input": said}
        return {"id": item_id or new_id("ctc")} | given | more | {"status": status}
    given = {"type": "function_call", "call_id": call_id, "name": name, "arguments": call.arguments}
    return {"id": item_id or new_id("fc")} | given | more | {"status": status}


def unsealed_items(items: Sequence[Any]) -> list[Any]:
    """Return items fit for the form's own provider: without seals that another provider made through us."""
    fit = []
    for item in items:
        if isinstance(item, dict):
            sealed = item.get("encrypted_content")
            if isinstance(sealed, str) and sealed.startswith((_SIGNED, _REDACTED)):
                continue
            if isinstance(call_id := item.get("call_id"), str):
                item = item | {"call_id": unsealed(call_id)[0]}
        fit.append(item)
    return fit


_PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "reasoning": "rs",
}


def with_ids(items: Sequence[dict[str, Any]], response_id: str) -> list[dict[str, Any]]:
    """Return the items that a response was given as they are listed: with a type, parts and a lasting id each."""
    told = []
    for place, item in enumerate(items):
        kind = item.get("type") or "message"
        more: dict[str, Any] = {"type": kind}
        if not item.get("id"):
            more["id"] = f"{_PREFIXES.get(kind, 'item')}_{response_id.removeprefix('resp_')}_{place}"
        if kind == "message" and isinstance(text := item.get("content"), str):
            part = "output_text" if item.get("role") == "assistant" else "input_text"
            more["content"] = [{"type": part, "text": text}]
        told.append(item | more)
    return told


def has_seals(body: bytes) -> bool:
    """Tell whether a body holds seals that only we can read."""
    return b'"nexus.signed.' in body or b'"nexus.redacted.' in body or b"-sealed-" in body


def chat_annotation(note: dict[str, Any]) -> dict[str, Any]:
    """Write an annotation in the way of chat completions."""
    if note.get("type") != "url_citation" or "url_citation" in note:
        return note
    return {"type": "url_citation", "url_citation": {key: value for key, value in note.items() if key != "type"}}


def own_annotation(note: Any) -> Any:
    """Write an annotation that chat completions know in their way."""
    inner = note.get("url_citation") if isinstance(note, dict) else None
    return {"type": "url_citation"} | inner if isinstance(inner, dict) else note
