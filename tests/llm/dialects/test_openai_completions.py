"""The older completions dialect: as it is where the provider has it, as a chat elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from tests.llm.conftest import Gateway
from tests.llm.test_cassettes import events, recordings

from nexus.testing.replay import replay
from nexus.testing.script import Script, Seen, response
from nexus.testing.upstream import FakeUpstream, answer

HTTP = httpx.Client()


def client(gateway: Gateway) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="x", max_retries=0, http_client=httpx.Client())


@pytest.fixture
def chat_only(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> Gateway:
    provider = {"name": "up", "kind": "openai", "base_url": upstream.url, "api_key": "sk-x", "completions": False}
    return make_gateway(providers=[provider])


@pytest.mark.parametrize("native", [True, False])
def test_a_text_is_gone_on_with(native: bool, gateway: Gateway, chat_only: Gateway, upstream: FakeUpstream) -> None:
    sdk = client(gateway if native else chat_only)
    done = sdk.completions.create(model="up/m", prompt="once upon a time", max_tokens=9, stop=["END"])
    assert done.object == "text_completion"
    assert done.choices[0].text == "once upon a time"
    assert done.choices[0].finish_reason == "stop"
    assert done.usage is not None
    assert done.usage.prompt_tokens == 12
    asked = upstream.seen[-1]
    assert asked.route.endswith("/v1/completions" if native else "/v1/chat/completions")
    assert (asked.json["max_tokens"], asked.json["stop"]) == (9, ["END"])
    if not native:
        assert asked.json["messages"] == [{"role": "user", "content": "once upon a time"}]
    pieces = list(sdk.completions.create(model="up/m", prompt="one two", stream=True))
    assert "".join(piece.choices[0].text for piece in pieces) == "one two"
    assert all(piece.object == "text_completion" and piece.usage is None for piece in pieces)
    last = list(sdk.completions.create(model="up/m", prompt="x", stream=True, stream_options={"include_usage": True}))[
        -1
    ]
    assert last.usage is not None
    assert last.choices == []


def test_an_upstream_without_the_endpoint_is_asked_once(gateway: Gateway, upstream: FakeUpstream) -> None:
    def chats_only(seen: Seen) -> Script:
        if not seen.route.endswith("/chat/completions"):
            return Script((response(404, b'{"detail":"Not Found"}'),))
        return answer(seen)

    upstream.answering = chats_only
    for path, body in (
        ("completions", {"prompt": "x"}),
        ("completions", {"prompt": "x", "stream": True}),
        ("responses", {"input": "x"}),
        ("responses", {"input": "x", "stream": True}),
    ):
        told = HTTP.post(f"{gateway.url}/v1/{path}", json={"model": "up/m"} | body)
        assert told.status_code == 200, told.text
    asked = [seen.route.removeprefix("/v1/") for seen in upstream.seen]
    assert asked == ["completions", *["chat/completions"] * 2, "responses", *["chat/completions"] * 2]


def test_log_probabilities_come_in_the_older_columns(chat_only: Gateway, upstream: FakeUpstream) -> None:
    tokens = [
        {"token": "Hi", "logprob": -0.1, "bytes": None, "top_logprobs": [{"token": "Hi", "logprob": -0.1}]},
        {"token": " you", "logprob": -0.5, "bytes": None, "top_logprobs": []},
    ]
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hi you"}, "finish_reason": "length"}
    body = {"id": "c", "created": 5, "model": "m", "choices": [choice | {"logprobs": {"content": tokens}}]}
    upstream.answering = lambda seen: Script((response(200, json.dumps(body).encode()),))
    done = client(chat_only).completions.create(model="up/m", prompt="x", logprobs=1)
    columns = done.choices[0].logprobs
    assert columns is not None
    assert (columns.tokens, columns.token_logprobs) == (["Hi", " you"], [-0.1, -0.5])
    assert (columns.text_offset, columns.top_logprobs) == ([0, 2], [{"Hi": -0.1}, {}])
    assert (upstream.seen[0].json["logprobs"], upstream.seen[0].json["top_logprobs"]) == (True, 1)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"model": "up/m"}, "prompt"),
        ({"model": "", "prompt": "x"}, "model"),
        ({"prompt": "x"}, "model"),
        ({"model": "up/m", "prompt": []}, "prompt"),
        ({"model": "up/m", "prompt": [1, "x"]}, "prompt.0"),
        ({"model": "up/m", "prompt": {"a": 1}}, "prompt"),
        ({"model": "up/m", "prompt": ["a", "b"]}, "prompt"),
        ({"model": "up/m", "prompt": [1, 2]}, "prompt"),
        ({"model": "up/m", "prompt": "x", "suffix": "y"}, "suffix"),
        ({"model": "up/m", "prompt": "x", "echo": True}, "echo"),
        ({"model": "up/m", "prompt": "x", "best_of": 3}, "best_of"),
        ({"model": "up/m", "prompt": "x", "n": 0}, "n"),
        ({"model": "up/m", "prompt": "x", "temperature": 3}, "temperature"),
        ({"model": "up/m", "prompt": "x", "max_tokens": -1}, "max_tokens"),
        ({"model": "up/m", "prompt": "x", "stream": "yes"}, "stream"),
        ({"model": "up/m", "prompt": "x", "logprobs": True}, "logprobs"),
    ],
)
def test_bad_input_names_the_field(chat_only: Gateway, body: dict[str, Any], field: str) -> None:
    told = HTTP.post(f"{chat_only.url}/v1/completions", json=body)
    assert told.status_code == 400, told.text
    error = told.json()["error"]
    assert (error["param"], error["type"]) == (field, "invalid_request_error")


@pytest.mark.slow
def test_recorded_completions_arrive_as_they_were(gateway: Gateway, upstream: FakeUpstream, shared: Path) -> None:
    count = 0
    for name, exchange in recordings(shared, "/v1/completions"):
        asked = json.loads(exchange.request or b"{}")
        if not asked.get("model") or not exchange.body:
            continue
        gateway.rows.clear()
        upstream.seen.clear()
        upstream.answering = replay([exchange])
        told = HTTP.post(f"{gateway.url}/v1/completions", json=asked | {"model": f"up/{asked['model']}"})
        assert told.status_code == exchange.status, (name, told.text)
        count += 1
        if exchange.status != 200:
            assert told.json()["error"]["message"]
            continue
        sent = upstream.seen[0].json
        if asked.get("stream"):
            sent.pop("stream_options")
            asked.pop("stream_options", None)
            theirs = [item for item in events(exchange.body.decode()) if item == "[DONE]" or item.get("choices")]
            assert [item for item in events(told.text) if item == "[DONE]" or item.get("choices")] == theirs, name
        else:
            assert told.json() == json.loads(exchange.body), name
        assert sent == asked, name
        gateway.row()
    print(count, "completions")
    assert count >= 7
