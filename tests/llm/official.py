"""The official clients as callers of a gateway: each asks in its dialect and tells what it understood.

Every one asks the same simple thing and offers the same tools: here the answer is what matters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from typing import Any

import anthropic
import openai
from google import genai
from google.genai import errors, types
from tests.llm.recorded import CHAT_FINISH, Told, Usage, arguments

SCHEMA = {"type": "object", "properties": {}}


class Client(ABC):
    """One official client."""

    name: str
    errors: tuple[type[Exception], ...]
    # Whether the dialect tells what was written into a cache.
    stores = False

    @abstractmethod
    def ask(self, url: str, model: str, tools: Sequence[str], *, stream: bool) -> Told:
        """Ask and read the answer. Raises one of `errors`."""


@cache
def _openai(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="nx_test", max_retries=0)


@cache
def _anthropic(url: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=url, api_key="nx_test", max_retries=0)


@cache
def _genai(url: str) -> genai.Client:
    return genai.Client(api_key="nx_test", http_options={"base_url": url})


class ChatClient(Client):
    """OpenAI's client, chat completions."""

    name = "openai_chat"
    errors = (openai.APIError,)

    def ask(self, url: str, model: str, tools: Sequence[str], *, stream: bool) -> Told:
        ask: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
        if tools:
            ask["tools"] = [{"type": "function", "function": {"name": n, "parameters": SCHEMA}} for n in tools]
        create: Any = _openai(url).chat.completions.create
        if not stream:
            return self._whole(create(**ask))
        return self._stream(create(**ask, stream=True, stream_options={"include_usage": True}))

    def _whole(self, answer: Any) -> Told:
        choice = answer.choices[0]
        message = choice.message
        told = Told(finish=CHAT_FINISH.get(choice.finish_reason, choice.finish_reason), usage=self._usage(answer.usage))
        self._words(message, told)
        told.tools = [_call(call) for call in message.tool_calls or []]
        if message.function_call:
            told.tools.append((message.function_call.name, arguments(message.function_call.arguments)))
        return told

    def _stream(self, chunks: Any) -> Told:
        told = Told()
        calls: dict[int, list[str]] = {}
        for chunk in chunks:
            told.usage = self._usage(chunk.usage) or told.usage
            for choice in chunk.choices:
                if choice.index:
                    continue
                self._words(choice.delta, told)
                told.finish = CHAT_FINISH.get(choice.finish_reason, choice.finish_reason) or told.finish
                for call in choice.delta.tool_calls or []:
                    held = calls.setdefault(call.index or 0, ["", ""])
                    held[0] += (call.function.name if call.function else "") or ""
                    held[1] += (call.function.arguments if call.function else "") or ""
        told.tools = [(name, arguments(text)) for name, text in calls.values()]
        return told

    @staticmethod
    def _words(message: Any, told: Told) -> None:
        content = message.content
        for part in content if isinstance(content, list) else [{"type": "text", "text": content or ""}]:
            if part["type"] == "thinking":
                told.thinking += "".join(inner.get("text", "") for inner in part["thinking"])
            else:
                told.text += part.get("text") or ""
        told.text += message.refusal or ""
        told.thinking += getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None) or ""

    @staticmethod
    def _usage(usage: Any) -> Usage | None:
        if usage is None:
            return None
        details = usage.prompt_tokens_details
        more = getattr(usage, "prompt_cache_hit_tokens", 0) or getattr(usage, "num_cached_tokens", 0) or 0
        stored = getattr(details, "cache_write_tokens", 0) or 0
        return Usage(usage.prompt_tokens, (details and details.cached_tokens) or more, stored, usage.completion_tokens)


def _call(call: Any) -> tuple[str, Any]:
    if call.type == "custom":
        return call.custom.name, call.custom.input
    return call.function.name, arguments(call.function.arguments or "")


class CompletionsClient(Client):
    """OpenAI's client, older completions: words only."""

    name = "openai_completions"
    errors = (openai.APIError,)

    def ask(self, url: str, model: str, tools: Sequence[str], *, stream: bool) -> Told:
        create: Any = _openai(url).completions.create
        told = Told()
        if stream:
            answers = create(model=model, prompt="hi", stream=True, stream_options={"include_usage": True})
        else:
            answers = [create(model=model, prompt="hi")]
        for answer in answers:
            told.usage = ChatClient._usage(answer.usage) or told.usage
            for choice in answer.choices:
                if not choice.index:
                    told.text += choice.text
                    told.finish = CHAT_FINISH.get(choice.finish_reason, choice.finish_reason) or told.finish
        return told


class ResponsesClient(Client):
    """OpenAI's client, Responses."""

    name = "openai_responses"
    errors = (openai.APIError,)

    def ask(self, url: str, model: str, tools: Sequence[str], *, stream: bool) -> Told:
        ask: dict[str, Any] = {"model": model, "input": "hi", "store": False}
        if tools:
            ask["tools"] = [{"type": "function", "name": n, "parameters": SCHEMA, "strict": False} for n in tools]
        create: Any = _openai(url).responses.create
        if not stream:
            return self._read(create(**ask))
        words = ""
        for event in create(**ask, stream=True):
            if event.type in ("response.output_text.delta", "response.refusal.delta"):
                words += event.delta
            if event.type in ("response.completed", "response.incomplete"):
                told = self._read(event.response)
                assert told.text == words, "the whole says what its pieces said"
                return told
            if event.type in ("error", "response.failed"):
                raise openai.APIError(str(event), request=None, body=None)  # type: ignore[arg-type]  # none at hand
        raise AssertionError("the stream has no end")

    @staticmethod
    def _read(answer: Any) -> Told:
        told = Told()
        for item in answer.output:
            if item.type == "message":
                parts = item.content
                told.text += "".join(part.text if part.type == "output_text" else part.refusal for part in parts)
            elif item.type == "function_call":
                told.tools.append((item.name, arguments(item.arguments)))
            elif item.type == "custom_tool_call":
                told.tools.append((item.name, item.input))
            elif item.type == "reasoning":
                told.thinking += "".join(part.text for part in item.summary or item.content or [])
        reason = answer.incomplete_details.reason if answer.incomplete_details else None
        ends = {"max_output_tokens": "length", "content_filter": "filter"}
        told.finish = ends.get(reason, "tools" if told.tools else "stop")
        if usage := answer.usage:
            details = usage.input_tokens_details
            stored = getattr(details, "cache_write_tokens", 0) or 0
            told.usage = Usage(usage.input_tokens, details.cached_tokens or 0, stored, usage.output_tokens)
        return told


class MessagesClient(Client):
    """Anthropic's client."""

    name = "anthropic_messages"
    errors = (anthropic.APIError,)
    stores = True

    def ask(self, url: str, model: str, tools: Sequence[str], *, stream: bool) -> Told:
        ask: dict[str, Any] = {"model": model, "max_tokens": 1000, "messages": [{"role": "user", "content": "hi"}]}
        if tools:
            ask["tools"] = [{"name": name, "input_schema": SCHEMA} for name in tools]
        messages: Any = _anthropic(url).messages
        if stream:
            with messages.stream(**ask) as pieces:
                answer = pieces.get_final_message()
        else:
            answer = messages.create(**ask)
        told = Told(finish=_MESSAGES.get(answer.stop_reason, answer.stop_reason))
        for block in answer.content:
            if block.type == "text":
                told.text += block.text
            elif block.type == "thinking":
                told.thinking += block.thinking
            elif block.type == "tool_use":
                told.tools.append((block.name, block.input))
        usage = answer.usage
        cached, stored = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
        told.usage = Usage(usage.input_tokens + cached + stored, cached, stored, usage.output_tokens)
        return told


_MESSAGES = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tools",
    "refusal": "filter",
}


class GeminiClient(Client):
    """Google's client."""

    name = "gemini"
    errors = (errors.APIError,)

    def ask(self, url: str, model: str, tools: Sequence[str], *, stream: bool) -> Told:
        config = types.GenerateContentConfig(
            tools=[
                types.Tool(
                    function_declarations=[
                        types.FunctionDeclaration(name=name, parameters_json_schema=SCHEMA) for name in tools
                    ]
                )
            ]
            if tools
            else None,
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        )
        models: Any = _genai(url).models
        if stream:
            answers = list(models.generate_content_stream(model=model, contents="hi", config=config))
        else:
            answers = [models.generate_content(model=model, contents="hi", config=config)]
        told = Told()
        for answer in answers:
            if answer.prompt_feedback and answer.prompt_feedback.block_reason:
                told.finish = "filter"
            for candidate in [item for item in answer.candidates or [] if not item.index]:
                for part in (candidate.content.parts if candidate.content else None) or []:
                    if part.function_call:
                        told.tools.append((part.function_call.name, part.function_call.args or {}))
                    elif part.thought:
                        told.thinking += part.text or ""
                    else:
                        told.text += part.text or ""
                if candidate.finish_reason:
                    reason = candidate.finish_reason.value
                    told.finish = _GEMINI.get(reason, reason)
            if usage := answer.usage_metadata:
                written = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
                read = (usage.prompt_token_count or 0) + (usage.tool_use_prompt_token_count or 0)
                told.usage = Usage(read, usage.cached_content_token_count or 0, 0, written)
        if told.tools and told.finish == "stop":
            told.finish = "tools"
        return told


_GEMINI = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "filter",
    "RECITATION": "filter",
    "PROHIBITED_CONTENT": "filter",
    "BLOCKLIST": "filter",
}

_ALL = (ChatClient(), CompletionsClient(), ResponsesClient(), MessagesClient(), GeminiClient())
CLIENTS: dict[str, Client] = {client.name: client for client in _ALL}
