"""Streams that break after their first words: carried on where the route says so, else an honest error."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anthropic
import httpx
import openai
import pytest
from tests.llm.conftest import PATIENT, Gateway
from tests.llm.routing.test_delivery import route
from tests.llm.scripts import failing, scene, stream_of

from nexus.llm.routing.continuation import continuing, may_continue
from nexus.llm.types import Call, ChatRequest, Message, Need, ResponseFormat, Text
from nexus.testing.said import Said, ToolUse
from nexus.testing.script import Answering, Script, Seen, chunked, stream_head
from nexus.testing.upstream import FakeUpstream, answer

HTTP = httpx.Client()
ASK: Any = [{"role": "user", "content": "tell me"}]
FIRST, REST = "once upon a time ", "there was a fox."


def breaking(end: str, said: Said, after: int = 5) -> Answering:
    """Say the first events of `said`, then break; any other model says the rest."""

    def answering(seen: Seen) -> Script:
        found = scene(seen, said)
        if seen.model != "breaks":
            return answer(seen) if seen.model.startswith("fault") else play_rest(seen)
        pieces = [chunked(piece) for piece in found.events[:after]]
        if end == "error":
            return Script(
                (stream_head(found.kind), *pieces, 0.1, chunked(found.wire.accident(found.asked, 500, "oh")), 0.1),
                close=True,
            )
        ending: tuple[Any, ...] = {"cut": (), "reset": (0.05, "reset"), "stall": ("stall",)}[end]
        return Script((stream_head(found.kind), *pieces, 0.05, *ending), close=True)

    return answering


def play_rest(seen: Seen) -> Script:
    found = scene(seen, Said(text=REST, prompt_tokens=20, cached_tokens=0))
    return stream_of(seen, [*found.events, *([found.wire.end] if found.wire.end else [])])


def routes(**more: Any) -> list[dict[str, Any]]:
    return [route("r", "breaks", fallbacks=["s"], continuation=True, **more), route("s", "goes-on")]


TALE = Said(text=FIRST + "never said")


@pytest.mark.parametrize("end", ["cut", "reset", "stall", "error"])
@pytest.mark.parametrize("usage", [True, False], ids=["usage", "no usage"])
def test_another_deployment_goes_on(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, end: str, usage: bool
) -> None:
    upstream.answering = breaking(end, TALE)
    more = {"timeouts": PATIENT | {"between_tokens": 0.5}} if end == "stall" else {}
    gateway = make_gateway(routes=routes(**more), retries=0)
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="nx_test", max_retries=0)
    options: Any = {"stream_options": {"include_usage": True}} if usage else {}
    chunks = list(client.chat.completions.create(model="r", messages=ASK, stream=True, max_tokens=500, **options))
    deltas = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(choice.delta.content or "" for choice in deltas) == FIRST + REST
    assert [choice.finish_reason for choice in deltas if choice.finish_reason] == ["stop"]
    assert len([choice for choice in deltas if choice.delta.role]) == 1
    assert {chunk.id for chunk in chunks} == {"chatcmpl-fake"}
    assert {chunk.model for chunk in chunks} == {"breaks"}
    assert bool(chunks[-1].usage) is usage
    row = gateway.row()
    assert (row.status, row.estimated) == ("ok", True)
    # "tell me" and what was said by then are estimated, the rest is told.
    assert (row.input_tokens, row.output_tokens) == (2 + 20, 5 + 4)
    if usage:
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == row.output_tokens
    second = upstream.seen[1].json
    assert [message["role"] for message in second["messages"]] == ["user", "assistant", "user"]
    assert second["messages"][1]["content"] == FIRST
    assert second["max_tokens"] == 500 - len(FIRST) // 4
    assert gateway.llm.router.streams == 0


def test_what_was_relayed_is_relayed_byte_for_byte(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    upstream.answering = breaking("reset", Said(text=FIRST + "x", extra={"x_vendor": {"odd": 1.50}}))
    gateway = make_gateway(routes=routes(), retries=0)
    text = HTTP.post(
        f"{gateway.url}/v1/chat/completions", json={"model": "r", "messages": ASK, "stream": True}, timeout=60
    ).text
    assert text.count('"x_vendor":{"odd":1.5}') == 5
    assert text.count("data: [DONE]") == 1
    assert text.endswith("data: [DONE]\n\n")


def test_it_goes_on_in_any_dialect(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    upstream.answering = breaking("reset", TALE)
    kinds = [("a", "anthropic"), ("o", "openai")]
    providers = [
        {"name": name, "kind": kind, "base_url": upstream.url, "api_key": "sk-upstream-secret-key"}
        for name, kind in kinds
    ]
    gateway = make_gateway(
        providers=providers,
        routes=[
            {
                "name": f"{first}-{second}",
                "deployments": [{"provider": first, "model": "breaks"}],
                "fallbacks": [f"then-{second}"],
                "continuation": True,
            }
            for first in "ao"
            for second in "ao"
        ]
        + [{"name": f"then-{name}", "deployments": [{"provider": name, "model": "goes-on"}]} for name in "ao"],
        retries=0,
    )
    speaks_openai = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="nx_test", max_retries=0)
    speaks_anthropic = anthropic.Anthropic(base_url=gateway.url, api_key="nx_test", max_retries=0)
    for name in ("a-a", "a-o", "o-a", "o-o"):
        chunks = speaks_openai.chat.completions.create(model=name, messages=ASK, stream=True)
        told = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert told.startswith(FIRST[:9]), name
        assert told.endswith(REST), name
        with speaks_anthropic.messages.stream(model=name, messages=ASK, max_tokens=900) as stream:
            final = stream.get_final_message()
        assert len(final.content) == 1, name
        assert final.content[0].type == "text"
        assert final.content[0].text.endswith(REST), name
        assert final.stop_reason == "end_turn"
        assert final.usage.output_tokens >= 6
        for row in gateway.rows:
            gateway.llm.router.standing(gateway.llm.registry.find(name).deployments[0]).answered()
            assert row.status == "ok"


NOT_CARRIED_ON: dict[str, tuple[Said, dict[str, Any]]] = {
    "tool call": (Said(text="a b", tools=(ToolUse("t1", "f", {"a": "b" * 50}),)), {}),
    "reasoning": (Said(text="x", thinking="I think about it for a long time indeed"), {}),
    "schema": (TALE, {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}}),
    "choices": (TALE, {"n": 2}),
}


@pytest.mark.parametrize("what", NOT_CARRIED_ON)
def test_only_text_is_carried_on(make_gateway: Callable[..., Gateway], upstream: FakeUpstream, what: str) -> None:
    said, more = NOT_CARRIED_ON[what]
    upstream.answering = breaking("reset", said)
    gateway = make_gateway(routes=routes(), retries=0)
    text = HTTP.post(
        f"{gateway.url}/v1/chat/completions", json={"model": "r", "messages": ASK, "stream": True} | more, timeout=60
    ).text
    assert "[DONE]" not in text
    assert json.loads(text.strip().split("\n\n")[-1][6:])["error"]["code"] == "upstream_truncated"
    assert len(upstream.seen) == 1
    assert gateway.row().status == "error"


@pytest.mark.parametrize("continuation", [True, False])
def test_where_nobody_goes_on_the_first_error_is_told(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, continuation: bool
) -> None:
    upstream.answering = breaking("reset", TALE)
    given = [route("r", "breaks", fallbacks=["s"], continuation=continuation), route("s", "fault-500")]
    gateway = make_gateway(routes=given, retries=0)
    text = HTTP.post(
        f"{gateway.url}/v1/chat/completions", json={"model": "r", "messages": ASK, "stream": True}, timeout=60
    ).text
    assert "[DONE]" not in text
    assert json.loads(text.strip().split("\n\n")[-1][6:])["error"]["code"] == "upstream_truncated"
    # The broken one is asked again too, last of all: it breaks again, and has said more by then.
    assert len(upstream.seen) == (1 if not continuation else len(upstream.seen))
    row = gateway.row()
    assert (row.status, row.estimated) == ("error", True)
    assert row.output_tokens


def test_a_lone_deployment_may_go_on_itself(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    turns = [breaking("cut", TALE), lambda seen: play_rest(seen)]
    upstream.answering = lambda seen: turns.pop(0)(seen)
    gateway = make_gateway(routes=[route("r", "breaks", continuation=True)], retries=0)
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="nx_test", max_retries=0)
    chunks = client.chat.completions.create(model="r", messages=ASK, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == FIRST + REST


def test_whole_answers_and_early_failures_are_as_everywhere(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    upstream.answering = failing("401")
    gateway = make_gateway(routes=[route("r", "x", continuation=True)], retries=0)
    for streamed in (False, True):
        response = HTTP.post(
            f"{gateway.url}/v1/chat/completions", json={"model": "r", "messages": ASK, "stream": streamed}, timeout=60
        )
        assert (response.status_code, response.json()["error"]["code"]) == (502, "upstream_credentials")


def request(**more: Any) -> ChatRequest:
    return ChatRequest(model="m", messages=(Message(role="user", parts=(Text(text="hi"),)),), **more)


def test_a_call_that_goes_on_asks_for_less() -> None:
    call = continuing(Call.of(request(max_tokens=3)), "word " * 10)
    asked = call.parse()
    assert asked.max_tokens == call.max_tokens == 1
    assert [message.role for message in asked.messages] == ["user", "assistant", "user"]
    assert continuing(Call.of(request()), "word").parse().max_tokens is None


@pytest.mark.parametrize(
    ("more", "may"),
    [({}, True), ({"choices": 2}, False), ({"response_format": ResponseFormat(kind="json_schema")}, False)],
)
def test_which_calls_may_go_on(more: dict[str, Any], may: bool) -> None:
    assert may_continue(Call.of(request(**more))) is may


@pytest.mark.parametrize("need", ["logprobs", "audio"])
def test_what_text_cannot_carry_may_not_go_on(need: Need) -> None:
    call = Call.of(request())
    call.needs = frozenset({need})
    assert not may_continue(call)
