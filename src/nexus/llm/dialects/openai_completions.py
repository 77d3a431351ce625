"""The older OpenAI completions dialect: `POST /v1/completions`, a text that is to be gone on with.

Source: https://platform.openai.com/docs/api-reference/completions. Providers that have it get it as it is; for others
the prompt is what a user says.
"""

from __future__ import annotations

import functools
import time
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from nexus.core.ids import new_id
from nexus.llm.dialect import Door, Operation, Writer
from nexus.llm.dialects.openai_chat import OpenAIChat
from nexus.llm.errors import InvalidRequest, MissingParameter, Unsupported
from nexus.llm.forms.chat import answers as chat_answers
from nexus.llm.forms.chat.completions import write_logprobs
from nexus.llm.forms.decoding import decode_checked
from nexus.llm.forms.unsaid import COMPLETIONS
from nexus.llm.types import Call, ChatRequest, Chunk, Completion, Message, Need, Refusal, Text, Usage

DIALECT = COMPLETIONS
_DONE = b"data: [DONE]\n\n"


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Head(msgspec.Struct):
    model: str
    prompt: str | list[Any] | None = None
    suffix: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    best_of: Annotated[int, Meta(ge=1, le=128)] | None = None
    max_tokens: Annotated[int, Meta(ge=0, le=10_000_000)] | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    echo: bool | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    user: str | None = None


_head = msgspec.json.Decoder(_Head)
_any = msgspec.json.Decoder()
_SAME = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "max_tokens", "logprobs", "seed", "user")


class OpenAICompletions(OpenAIChat):
    """Completions of a text. Whole answers and streams have the frame of chat completions."""

    name = DIALECT
    path = "/v1/completions"
    doors = (Door("POST", "/v1/completions"),)

    def operation(self, path: str) -> Operation | None:
        """Say that there is nothing below this path."""
        return None

    def parse(self, body: bytes, *, path: str = "", headers: dict[bytes, bytes] | None = None) -> Call:
        """Read and check a request. Raises `InvalidRequest` naming the field, or `MalformedBody`."""
        head: _Head = decode_checked(_head, body)
        if not head.model:
            raise MissingParameter("You must provide a model.", field="model")
        if head.prompt is None:
            raise MissingParameter("The parameter prompt is required.", field="prompt")
        prompts, characters = _count_prompts(head.prompt)
        needs: set[Need] = set()
        if (head.n or 1) > 1:
            needs.add("choices")
        if head.logprobs is not None:
            needs.add("logprobs")
        return Call(
            dialect=self.name,
            model=head.model,
            parse=functools.partial(_read, head, body),
            body=body,
            stream=bool(head.stream),
            wants_usage=not head.stream or bool(head.stream_options and head.stream_options.include_usage),
            choices=(head.n or 1) * prompts,
            needs=frozenset(needs),
            fields={"choices": "n"},
            characters=characters,
            max_tokens=head.max_tokens,
            # Where there is a model of texts, a text to be gone on with is no question in a chat.
            apart="text",
        )

    def completion(self, completion: Completion, call: Call) -> bytes:
        """Write a whole answer."""
        choices = [
            {
                "text": _said(choice.message),
                "index": choice.index,
                "logprobs": write_logprobs(choice.extra.get("logprobs")),
                "finish_reason": _write_finish(choice.finish_reason, choice.native_finish_reason),
            }
            for choice in completion.choices
        ]
        body = {
            "id": completion.id or new_id("cmpl"),
            "object": "text_completion",
            "created": completion.created,
            "model": completion.model,
            "choices": choices,
        }
        usage = {} if completion.usage is None else {"usage": chat_answers.write_usage(completion.usage)}
        return msgspec.json.encode(body | usage)

    def writer(self, call: Call) -> Writer:
        """Return a writer for one stream."""
        return CompletionsWriter(call)


class CompletionsWriter:
    """Writes chunks that came in another form."""

    def __init__(self, call: Call) -> None:
        """Know whether the client asked for usage."""
        self._call = call
        self._head: dict[str, Any] = {
            "id": new_id("cmpl"),
            "object": "text_completion",
            "created": int(time.time()),
            "model": call.model,
        }
        self._usage: Usage | None = None

    def write(self, chunks: list[Chunk]) -> bytes:
        """Return the events for these pieces."""
        return b"".join(self._event(chunk) for chunk in chunks)

    def end(self) -> bytes:
        """Return the usage, if the client asked for it, and the end mark."""
        if self._usage is None or not self._call.wants_usage:
            return _DONE
        last = self._head | {"choices": [], "usage": chat_answers.write_usage(self._usage)}
        return b"data: " + msgspec.json.encode(last) + b"\n\n" + _DONE

    def _event(self, chunk: Chunk) -> bytes:
        for field in ("id", "model", "created"):
            if value := getattr(chunk, field):
                self._head[field] = value
        out = b""
        if chunk.text or chunk.refusal or chunk.finish_reason is not None:
            choice = {
                "text": (chunk.text or "") + (chunk.refusal or ""),
                "index": chunk.index,
                "logprobs": write_logprobs(chunk.extra.get("logprobs")),
                "finish_reason": _write_finish(chunk.finish_reason, chunk.native_finish_reason),
            }
            out = b"data: " + msgspec.json.encode(self._head | {"choices": [choice]}) + b"\n\n"
        self._usage = chunk.usage or self._usage
        return out


def _said(message: Message) -> str:
    """Return the words of a message; a refusal has no other place here."""
    return "".join(part.text for part in message.parts if isinstance(part, Text | Refusal))


def _count_prompts(prompt: str | list[Any]) -> tuple[int, int]:
    """Return how many prompts there are, and their characters. Raises `InvalidRequest`."""
    if isinstance(prompt, str):
        return 1, len(prompt)
    if not prompt:
        raise InvalidRequest("prompt must have at least one text.", field="prompt")
    if all(_is_token(item) for item in prompt):
        return 1, 4 * len(prompt)
    characters = 0
    for i, item in enumerate(prompt):
        tokens = isinstance(item, list) and bool(item) and all(_is_token(token) for token in item)
        if not isinstance(item, str) and not tokens:
            raise InvalidRequest(f"prompt.{i} must be a text or a list of token ids.", field=f"prompt.{i}")
        characters += len(item) if isinstance(item, str) else 4 * len(item)
    return len(prompt), characters


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _read(head: _Head, body: bytes) -> ChatRequest:
    """Read a request. Raises `Unsupported` for what only a model of texts can do."""
    prompt = head.prompt[0] if isinstance(head.prompt, list) and len(head.prompt) == 1 else head.prompt
    if not isinstance(prompt, str):
        raise Unsupported("This model takes one text as prompt.", field="prompt")
    for field, asked in (
        ("suffix", bool(head.suffix)),
        ("echo", bool(head.echo)),
        ("best_of", (head.best_of or 1) > (head.n or 1)),
    ):
        if asked:
            raise Unsupported(f"This model does not support {field}.", field=field)
    stop = (head.stop,) if isinstance(head.stop, str) else tuple(head.stop or ())
    return ChatRequest(
        dialect=DIALECT,
        model=head.model,
        messages=(Message(role="user", parts=(Text(text=prompt),)),),
        stop=stop,
        choices=head.n or 1,
        extra={name: value for name, value in _any.decode(body).items() if name not in _Head.__struct_fields__},
        **{name: getattr(head, name) for name in _SAME},
    )


def _write_finish(reason: Any, native: str | None) -> str | None:
    finish = chat_answers.write_finish(reason, native)
    return "stop" if finish in ("tool_calls", "function_call") else finish


plug = OpenAICompletions()
