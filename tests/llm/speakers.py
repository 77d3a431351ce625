"""Callers who speak each dialect over raw HTTP, and every provider kind with the fake upstream behind it.

A speaker asks in its own words and reads what comes back without any code of the product: the words, whether
the answer came to its proper end, and the error if there was one.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from nexus.core.plugins import PluginFolder
from nexus.llm.dialect import Dialect
from nexus.llm.provider import Provider
from nexus.testing.upstream import FakeUpstream

SECRET = "sk-upstream-secret-key"
# Where each kind of provider finds the fake, and what it needs besides. `local` is no upstream of others.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "openai": ("/v1", {"api_key": SECRET}),
    "openai_responses": ("/v1", {"api_key": SECRET}),
    "azure": ("", {"api_key": SECRET}),
    "anthropic": ("", {"api_key": SECRET}),
    "google": ("/v1beta", {"api_key": SECRET}),
    "vertex": ("/v1beta1", {"api_key": SECRET}),
    "bedrock": ("", {"region": "us-east-1", "access_key_id": "AKIDSECRET", "secret_access_key": SECRET}),
    "huggingface": ("/v1", {"api_key": SECRET}),
}


def installed_kinds() -> list[str]:
    """Return the provider kinds that the product has, but for the built-in one."""
    folder = PluginFolder("nexus.llm.providers", Provider, noun="provider kind")  # type: ignore[type-abstract]
    return [name for name in folder.names() if name != "local"]


def installed_dialects() -> list[str]:
    """Return the dialects that the product has."""
    folder = PluginFolder("nexus.llm.dialects", Dialect, noun="dialect")  # type: ignore[type-abstract]
    return folder.names()


def account(kind: str, upstream: FakeUpstream) -> dict[str, Any]:
    """Return the settings of a provider of this kind, called by it, with the fake behind it."""
    end, more = KINDS[kind]
    return {"name": kind, "kind": kind, "base_url": upstream.address + end, **more}


@dataclass
class Heard:
    """What a caller made of an answer. `whole` is only true of one that came to its proper end."""

    status: int
    text: str = ""
    whole: bool = False
    error: str | None = None

    @property
    def honest(self) -> bool:
        """Tell whether it was either whole or an explicit error, and not both."""
        return self.whole != (self.error is not None)


class Speaker(ABC):
    """One dialect as a caller speaks it."""

    name: str

    @abstractmethod
    def path(self, model: str, *, stream: bool) -> str:
        """Return where to send the request."""

    @abstractmethod
    def body(self, model: str, text: str, *, stream: bool) -> dict[str, Any]:
        """Return the request."""

    @abstractmethod
    def whole(self, answer: Any, heard: Heard) -> None:
        """Read a whole answer. Raises KeyError and the like for one of another shape."""

    @abstractmethod
    def event(self, name: str, data: Any, heard: Heard) -> None:
        """Read one event of a stream."""

    @abstractmethod
    def error(self, answer: Any) -> str:
        """Read an error answer: its type. Raises for one of another shape."""

    def listen(self, status: int, content: bytes, *, stream: bool) -> Heard:
        """Read what came back."""
        heard = Heard(status)
        if status != 200:
            heard.error = self.error(json.loads(content))
        elif not stream:
            self.whole(json.loads(content), heard)
        else:
            self._events(content.decode(), heard)
        return heard

    def _events(self, text: str, heard: Heard) -> None:
        assert text.endswith("\n\n"), "a stream ends between events"
        for block in text.replace("\r\n", "\n").split("\n\n"):
            name, data = "", []
            for line in block.split("\n"):
                field, _, value = line.partition(":")
                if field == "event":
                    name = value.strip()
                elif field == "data":
                    data.append(value.removeprefix(" "))
                else:
                    assert field == "", f"no line of an event: {line[:80]}"
            if data:
                assert heard.error is None, "nothing follows an error"
                raw = "\n".join(data)
                self.event(name, raw if raw == "[DONE]" else json.loads(raw), heard)


class Chat(Speaker):
    """OpenAI's chat completions."""

    name = "openai_chat"

    def path(self, model: str, *, stream: bool) -> str:
        return "/v1/chat/completions"

    def body(self, model: str, text: str, *, stream: bool) -> dict[str, Any]:
        return {"model": model, "messages": [{"role": "user", "content": text}], "stream": stream}

    def whole(self, answer: Any, heard: Heard) -> None:
        assert answer["object"] == "chat.completion"
        heard.text = answer["choices"][0]["message"]["content"] or ""
        heard.whole = answer["choices"][0]["finish_reason"] == "stop"

    def event(self, name: str, data: Any, heard: Heard) -> None:
        if data == "[DONE]":
            assert not heard.whole, "one end only"
            heard.whole = True
        elif "error" in data:
            heard.error = self.error(data)
        else:
            assert data["object"] == "chat.completion.chunk"
            for choice in data["choices"]:
                heard.text += choice["delta"].get("content") or ""

    def error(self, answer: Any) -> str:
        assert {"message", "type", "param", "code"} <= set(answer["error"]), answer
        return str(answer["error"]["type"])


class Completions(Chat):
    """OpenAI's older completions."""

    name = "openai_completions"

    def path(self, model: str, *, stream: bool) -> str:
        return "/v1/completions"

    def body(self, model: str, text: str, *, stream: bool) -> dict[str, Any]:
        return {"model": model, "prompt": text, "stream": stream}

    def whole(self, answer: Any, heard: Heard) -> None:
        assert answer["object"] == "text_completion"
        heard.text = answer["choices"][0]["text"]
        heard.whole = answer["choices"][0]["finish_reason"] == "stop"

    def event(self, name: str, data: Any, heard: Heard) -> None:
        if data == "[DONE]" or "error" in data:
            super().event(name, data, heard)
            return
        assert data["object"] == "text_completion"
        heard.text += "".join(choice["text"] for choice in data["choices"])


class Responses(Speaker):
    """OpenAI's Responses."""

    name = "openai_responses"

    def path(self, model: str, *, stream: bool) -> str:
        return "/v1/responses"

    def body(self, model: str, text: str, *, stream: bool) -> dict[str, Any]:
        return {"model": model, "input": text, "stream": stream, "store": False}

    def whole(self, answer: Any, heard: Heard) -> None:
        assert answer["object"] == "response"
        parts = [part for item in answer["output"] if item["type"] == "message" for part in item["content"]]
        heard.text = "".join(part["text"] for part in parts if part["type"] == "output_text")
        heard.whole = answer["status"] == "completed"

    def event(self, name: str, data: Any, heard: Heard) -> None:
        assert name == data["type"], name
        if name == "response.output_text.delta":
            heard.text += data["delta"]
        elif name == "response.completed":
            assert not heard.whole, "one end only"
            told = Heard(200)
            self.whole(data["response"], told)
            assert told.text == heard.text, "the whole says what its pieces said"
            heard.whole = told.whole
        elif name == "error":
            assert {"code", "message", "param", "sequence_number"} <= set(data), data
            heard.error = str(data["code"])
        elif name == "response.failed":
            heard.error = str(data["response"]["error"]["code"])

    def error(self, answer: Any) -> str:
        assert {"message", "type", "param", "code"} <= set(answer["error"]), answer
        return str(answer["error"]["type"])


class Messages(Speaker):
    """Anthropic's messages."""

    name = "anthropic_messages"

    def path(self, model: str, *, stream: bool) -> str:
        return "/v1/messages"

    def body(self, model: str, text: str, *, stream: bool) -> dict[str, Any]:
        message = {"role": "user", "content": text}
        return {"model": model, "max_tokens": 1000, "messages": [message], "stream": stream}

    def whole(self, answer: Any, heard: Heard) -> None:
        assert answer["type"] == "message"
        heard.text = "".join(block["text"] for block in answer["content"] if block["type"] == "text")
        heard.whole = answer["stop_reason"] == "end_turn"

    def event(self, name: str, data: Any, heard: Heard) -> None:
        assert name == data["type"], name
        if name == "content_block_delta" and data["delta"]["type"] == "text_delta":
            heard.text += data["delta"]["text"]
        elif name == "message_stop":
            assert not heard.whole, "one end only"
            heard.whole = True
        elif name == "error":
            heard.error = self.error(data)

    def error(self, answer: Any) -> str:
        assert answer["type"] == "error", answer
        assert isinstance(answer["error"]["message"], str)
        return str(answer["error"]["type"])


class Gemini(Speaker):
    """Gemini's generateContent, streamed as events."""

    name = "gemini"

    def path(self, model: str, *, stream: bool) -> str:
        return f"/v1beta/models/{model}:{'streamGenerateContent?alt=sse' if stream else 'generateContent'}"

    def body(self, model: str, text: str, *, stream: bool) -> dict[str, Any]:
        return {"contents": [{"role": "user", "parts": [{"text": text}]}]}

    def whole(self, answer: Any, heard: Heard) -> None:
        self.event("", answer, heard)
        assert heard.error is None

    def event(self, name: str, data: Any, heard: Heard) -> None:
        if "error" in data:
            heard.error = self.error(data)
            return
        for candidate in data.get("candidates") or []:
            parts = candidate.get("content", {}).get("parts") or []
            heard.text += "".join(part.get("text", "") for part in parts if not part.get("thought"))
            heard.whole = heard.whole or candidate.get("finishReason") == "STOP"

    def error(self, answer: Any) -> str:
        assert {"code", "message", "status"} <= set(answer["error"]), answer
        return str(answer["error"]["status"])


SPEAKERS: dict[str, Speaker] = {
    speaker.name: speaker for speaker in (Chat(), Completions(), Responses(), Messages(), Gemini())
}
