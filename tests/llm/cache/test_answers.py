"""The exact cache over real HTTP: who shares what, joined calls, outages, replays."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import anthropic
import httpx
import openai
import pytest
from tests.clock import until
from tests.llm.conftest import WHO, Gateway, serving
from tests.llm.routing.test_delivery import said
from tests.llm.scripts import failing, slowly, stream_of, whole

from nexus.access.types import Scope
from nexus.ledger.service import Ledger
from nexus.testing.script import Script, Seen, response
from nexus.testing.upstream import FakeUpstream, answer

HTTP = httpx.Client(limits=httpx.Limits(max_connections=None))
TEXT = "alpha beta gamma delta"
BODY = {"model": "r", "messages": [{"role": "user", "content": TEXT}], "temperature": 0}


def cached(**more: Any) -> dict[str, Any]:
    return {
        "name": "r",
        "deployments": [{"provider": "up", "model": "gpt-4o"}],
        "cache": {"exact": True, "ttl": 60} | more,
    }


@pytest.fixture
def gateway(make_gateway: Callable[..., Gateway]) -> Gateway:
    return make_gateway(routes=[cached()], retries=0)


def aboard(gateway: Gateway) -> int:
    """How many callers wait for an answer that is on its way."""
    return sum(len(flight._aboard) for flight in gateway.llm.cache._flights.values())


class Caller:
    """A caller who hangs up when told to."""

    def __init__(self, gateway: Gateway, *, stream: bool) -> None:
        host, port = gateway.url.removeprefix("http://").split(":")
        body = json.dumps(BODY | {"stream": stream}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
        self._socket = socket.create_connection((host, int(port)))
        self._socket.sendall(head.encode() + body)

    def leave(self) -> None:
        self._socket.close()


def ask(gateway: Gateway, body: Any = None, *, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
    content = body if isinstance(body, str) else json.dumps((body or BODY) | more)
    return HTTP.post(f"{gateway.url}/v1/chat/completions", content=content, headers=headers, timeout=60)


def how(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return response.headers["x-nexus-cache"]


def test_the_same_request_is_answered_from_the_cache(gateway: Gateway, upstream: FakeUpstream) -> None:
    first, second = ask(gateway), ask(gateway)
    assert (how(first), how(second)) == ("miss", "hit")
    assert first.content == second.content
    assert int(second.headers["x-nexus-cache-age"]) < 5
    assert "x-nexus-cache-age" not in first.headers
    assert second.headers["x-nexus-invocation"] != first.headers["x-nexus-invocation"]
    assert len(upstream.seen) == 1
    paid, free = gateway.rows
    assert (paid.cached, free.cached) == (False, True)
    assert paid.cost_usd
    assert (free.cost_usd, free.input_tokens, free.output_tokens) == (0.0, paid.input_tokens, paid.output_tokens)
    assert (free.status, free.route, free.provider) == ("ok", "r", None)


SAME = [
    BODY | {"stream": True},
    BODY | {"stream": True, "stream_options": {"include_usage": True}},
    BODY | {"user": "somebody", "metadata": {"a": "b"}, "prompt_cache_key": "k", "safety_identifier": "s"},
    BODY | {"temperature": 0.0, "n": 1},
    BODY | {"messages": [{"content": [{"text": TEXT, "type": "text"}], "role": "user"}]},
    '{ "temperature":0,\n "messages":[ {"content":"alpha beta \\u0067amma delta","role":"user"} ], "model":"r" }',
]
OTHER = [
    BODY | {"temperature": None, "seed": 7},
    BODY | {"max_tokens": 5},
    BODY | {"top_p": 0.5},
    BODY | {"stop": ["x"]},
    BODY | {"n": 2},
    BODY | {"logit_bias": {"5": 1}},
    BODY | {"vendor_extra": True},
    BODY | {"reasoning_effort": "low"},
    BODY | {"response_format": {"type": "json_object"}},
    BODY | {"messages": [{"role": "system", "content": "be brief"}, *BODY["messages"]]},  # type: ignore[misc]
    BODY | {"messages": [{"role": "user", "content": TEXT + " "}]},
    BODY | {"messages": [{"role": "user", "content": TEXT, "name": "ann"}]},
]


@pytest.mark.parametrize("body", SAME, ids=range(len(SAME)))
def test_what_does_not_change_the_answer_is_no_other_request(
    gateway: Gateway, upstream: FakeUpstream, body: Any
) -> None:
    ask(gateway)
    again = ask(gateway, body)
    assert how(again) == "hit"
    assert said(again) == TEXT
    assert len(upstream.seen) == 1


@pytest.mark.parametrize("body", OTHER, ids=range(len(OTHER)))
def test_what_changes_the_answer_is_another_request(gateway: Gateway, upstream: FakeUpstream, body: Any) -> None:
    ask(gateway)
    assert how(ask(gateway, body)) == "miss"
    assert len(upstream.seen) == 2


@pytest.mark.parametrize(
    ("body", "policy", "kept"),
    [
        ({"temperature": None}, {}, True),
        ({"temperature": 0.7}, {}, False),
        ({"temperature": 0.7}, {"any_temperature": True}, True),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, {}, False),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, {"tools": True}, True),
    ],
)
def test_only_what_would_be_the_same_again_is_kept(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, body: Any, policy: Any, kept: bool
) -> None:
    gateway = make_gateway(routes=[cached(**policy)])
    found = [how(ask(gateway, BODY | body, stream=streamed)) for streamed in (False, True, False)]
    assert found == (["miss", "hit", "hit"] if kept else ["bypass"] * 3)
    assert len(upstream.seen) == (1 if kept else 3)


def test_a_route_without_a_cache_says_nothing_of_one(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway(routes=[cached(exact=False)])
    for _ in range(2):
        assert "x-nexus-cache" not in ask(gateway).headers
    assert not gateway.rows[-1].cached


def test_callers_have_the_last_word(gateway: Gateway, upstream: FakeUpstream) -> None:
    def asked(**headers: str) -> httpx.Response:
        return ask(gateway, headers={f"x-nexus-{name.replace('_', '-')}": value for name, value in headers.items()})

    missing = asked(cache="only")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_cached")
    assert not upstream.seen
    assert how(asked(cache="off")) == "bypass"
    assert how(asked()) == "miss", "off neither reads nor keeps"
    assert how(asked(cache="only")) == "hit"
    assert how(asked(cache="refresh")) == "miss"
    assert how(asked()) == "hit"
    assert how(asked(cache_ttl="0")) == "miss", "nothing is young enough, and nothing is kept"
    assert len(upstream.seen) == 4
    for bad in (
        {"cache": "maybe"},
        {"cache_ttl": "soon"},
        {"cache_ttl": "-1"},
        {"cache_ttl": "1e99"},
        {"cache_ttl": "nan"},
    ):
        refused = asked(**bad)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_value")
        assert refused.json()["error"]["param"] == f"x-nexus-{next(iter(bad)).replace('_', '-')}"


def test_time_runs_out_by_the_route_and_by_the_request(
    later: Callable[[float], None], make_gateway: Callable[..., Gateway]
) -> None:
    gateway = make_gateway(routes=[cached(ttl=30)])
    ask(gateway)
    later(25)
    assert how(ask(gateway)) == "hit"
    later(10)
    assert how(ask(gateway)) == "miss"
    assert how(ask(gateway, headers={"x-nexus-cache": "refresh", "x-nexus-cache-ttl": "300"})) == "miss"
    later(35)
    assert how(ask(gateway)) == "hit", "kept longer than the route says, as was asked"


def test_a_key_may_have_a_time_of_its_own(
    later: Callable[[float], None], make_gateway: Callable[..., Gateway], ledger: Ledger, upstream: FakeUpstream
) -> None:
    gateway = make_gateway(routes=[cached(keys={"key_short": 30, "key_off": 0})])
    ask(gateway)
    with serving(gateway.llm, ledger, replace(WHO, id="key_short", key_id="key_short")) as short:
        assert how(ask(short)) == "hit"
        later(35)
        assert how(ask(short)) == "miss", "too old for this key"
    with serving(gateway.llm, ledger, replace(WHO, id="key_off", key_id="key_off")) as off:
        assert how(ask(off)) == "bypass"
    assert len(upstream.seen) == 3


NEVER = ["400", "500", "truncated", "reset_mid_stream", "error_event"]


@pytest.mark.parametrize("name", NEVER)
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
def test_errors_and_cut_streams_are_never_kept(
    gateway: Gateway, upstream: FakeUpstream, name: str, streamed: bool
) -> None:
    if name == "error_event" and not streamed:
        pytest.skip("a fault of streams only")
    upstream.answering = failing(name)
    for _ in range(2):
        broken = ask(gateway, stream=streamed)
        assert "[DONE]" not in broken.text
        assert broken.status_code != 200 or "error" in broken.text
    assert len(upstream.seen) == 2
    upstream.answering = answer
    assert how(ask(gateway)) == "miss"


@pytest.mark.parametrize("reason", ["length", "content_filter", None])
def test_answers_without_a_normal_end_are_never_kept(
    gateway: Gateway, upstream: FakeUpstream, reason: str | None
) -> None:
    def abnormal(seen: Any) -> Script:
        return Script((response(200, json.dumps(whole(seen, finish_reason=reason)).encode()),))

    upstream.answering = abnormal
    assert [how(ask(gateway)) for _ in range(2)] == ["miss", "miss"]


@pytest.mark.parametrize("first", [False, True], ids=["plain first", "stream first"])
def test_streams_and_whole_answers_serve_each_other(gateway: Gateway, upstream: FakeUpstream, first: bool) -> None:
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="nx_test", max_retries=0)
    asked: dict[str, Any] = {"model": "r", "messages": BODY["messages"], "temperature": 0}
    texts, usages, ids = [], [], []
    for streamed in (first, not first, first, not first):
        if streamed:
            chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
            texts.append("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices))
            assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
            usages.append(chunks[-1].usage)
            ids.append(chunks[0].id)
        else:
            made = client.chat.completions.create(**asked)
            texts.append(made.choices[0].message.content)
            usages.append(made.usage)
            ids.append(made.id)
    assert texts == [TEXT] * 4
    assert {usage and (usage.prompt_tokens, usage.completion_tokens) for usage in usages} == {(12, 4)}
    assert set(ids) == {"chatcmpl-fake"}
    assert len(upstream.seen) == 1
    assert [row.cached for row in gateway.rows] == [False, True, True, True]


@pytest.mark.parametrize("first", [False, True], ids=["plain first", "stream first"])
def test_dialects_serve_each_other(gateway: Gateway, upstream: FakeUpstream, first: bool) -> None:
    assert how(ask(gateway, max_tokens=50, stream=first)) == "miss"
    client = anthropic.Anthropic(base_url=gateway.url, api_key="nx_test", max_retries=0)
    asked: Any = {"model": "r", "messages": BODY["messages"], "max_tokens": 50, "extra_body": {"temperature": 0}}
    whole_ = client.messages.create(**asked)
    with client.messages.stream(**asked) as stream_:
        streamed = stream_.get_final_message()
    for message in (whole_, streamed):
        assert message.content[0].type == "text"
        assert message.content[0].text == TEXT
        assert (message.stop_reason, message.usage.output_tokens) == ("end_turn", 4)
    assert len(upstream.seen) == 1
    assert [row.cached for row in gateway.rows] == [False, True, True]


@pytest.mark.parametrize("first", [False, True], ids=["plain first", "stream first"])
def test_what_stands_beside_the_words_is_kept_too(gateway: Gateway, upstream: FakeUpstream, first: bool) -> None:
    rows = [{"token": word, "logprob": -0.5, "bytes": None, "top_logprobs": []} for word in ("one", " two")]
    source = {"type": "url_citation", "url_citation": {"url": "https://x.example", "title": "x"}}

    def told(seen: Any) -> Script:
        if not seen.json.get("stream"):
            message = {"role": "assistant", "content": "one two", "annotations": [source]}
            body = whole(seen, message=message, logprobs={"content": rows})
            return Script((response(200, json.dumps(body).encode()),))
        deltas = [{"content": "one"}, {"content": " two", "annotations": [source]}]
        choices = [
            {"index": 0, "delta": delta, "logprobs": {"content": [row]}}
            for delta, row in zip(deltas, rows, strict=True)
        ]
        choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
        head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        lines = [f"data: {json.dumps(head | {'choices': [choice]})}\n\n".encode() for choice in choices]
        return stream_of(seen, [*lines, b"data: [DONE]\n\n"])

    upstream.answering = told
    for streamed in (first, not first, first):
        answer = ask(gateway, stream=streamed, logprobs=True)
        if streamed:
            events = [json.loads(line[5:]) for line in answer.text.split("\n") if line.startswith("data: {")]
            choices = [choice for event in events for choice in event["choices"]]
            found = [row for choice in choices for row in (choice.get("logprobs") or {}).get("content", ())]
            notes = [note for choice in choices for note in choice["delta"].get("annotations", ())]
        else:
            choice = answer.json()["choices"][0]
            found, notes = choice["logprobs"]["content"], choice["message"]["annotations"]
        assert [(row["token"], row["logprob"]) for row in found] == [("one", -0.5), (" two", -0.5)]
        assert notes == [source]
    assert len(upstream.seen) == 1


def test_a_replayed_stream_leaves_usage_out_unless_asked(gateway: Gateway) -> None:
    ask(gateway)
    assert '"usage"' not in ask(gateway, stream=True).text
    assert '"usage"' in ask(gateway, stream=True, stream_options={"include_usage": True}).text


def test_tool_calls_survive_where_they_are_kept(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}]

    def calling(seen: Any) -> Script:
        message = {"role": "assistant", "content": None, "tool_calls": calls}
        body = whole(seen, message=message, finish_reason="tool_calls")
        return Script((response(200, json.dumps(body).encode()),))

    upstream.answering = calling
    gateway = make_gateway(routes=[cached(tools=True)])
    tools: Any = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="nx_test", max_retries=0)
    for _ in range(2):
        made = client.chat.completions.create(model="r", messages=BODY["messages"], tools=tools)  # type: ignore[call-overload]
        assert made.choices[0].message.tool_calls[0].function.arguments == '{"a": 1}'
    with client.chat.completions.stream(model="r", messages=BODY["messages"], tools=tools) as stream_:  # type: ignore[arg-type]
        final = stream_.get_final_completion()
    assert final.choices[0].message.tool_calls is not None
    assert final.choices[0].message.tool_calls[0].function.name == "f"
    assert final.choices[0].finish_reason == "tool_calls"
    assert len(upstream.seen) == 1


def test_projects_never_share(make_gateway: Callable[..., Gateway], ledger: Ledger, upstream: FakeUpstream) -> None:
    gateway = make_gateway(routes=[cached()])
    other = replace(WHO, project_id="prj_2", id="key_2")
    with serving(gateway.llm, ledger, other) as theirs:
        assert [how(ask(place)) for place in (gateway, theirs, gateway, theirs)] == ["miss", "miss", "hit", "hit"]
        assert len(upstream.seen) == 2
        shown = HTTP.get(f"{theirs.url}/api/v1/cache").json()
        assert (shown["entries"], shown["hits"], shown["misses"]) == (1, 1, 1)
        assert HTTP.delete(f"{theirs.url}/api/v1/cache").json() == {"deleted": 1}
        assert [how(ask(place)) for place in (gateway, theirs)] == ["hit", "miss"]


@pytest.mark.slow
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
def test_fifty_who_ask_the_same_at_once_make_one_call(gateway: Gateway, upstream: FakeUpstream, streamed: bool) -> None:
    def last(seen: Seen) -> Script:
        until(lambda: aboard(gateway) == 50)
        return answer(seen)

    upstream.answering = last
    with ThreadPoolExecutor(50) as pool:
        found = list(pool.map(lambda i: ask(gateway, stream=streamed if i % 5 else not streamed), range(50)))
    assert {said(response) for response in found} == {TEXT}
    assert len(upstream.seen) == 1
    assert Counter(how(response) for response in found) == {"miss": 1, "hit": 49}
    assert Counter(row.cached for row in gateway.rows) == {True: 49, False: 1}
    assert len([row for row in gateway.rows if row.cost_usd]) == 1
    assert {row.output_tokens for row in gateway.rows} == {4}


def test_who_joins_a_stream_sees_it_as_it_comes(gateway: Gateway, upstream: FakeUpstream) -> None:
    upstream.answering = slowly(TEXT, gap=0.15, wait=0)
    arrived: list[list[float]] = []

    def listen() -> None:
        times: list[float] = []
        with HTTP.stream("POST", f"{gateway.url}/v1/chat/completions", json=BODY | {"stream": True}) as got:
            times += [time.monotonic() for line in got.iter_lines() if line.startswith("data:")]
        arrived.append(times)

    for _ in range(4):  # where this machine has other things to do, all comes at once
        HTTP.delete(f"{gateway.url}/api/v1/cache")
        arrived.clear()
        del upstream.seen[:]
        threads = [threading.Thread(target=listen) for _ in range(3)]
        for number, thread in enumerate(threads, 1):
            thread.start()
            until(lambda: aboard(gateway) == number or arrived)  # noqa: B023
        for thread in threads:
            thread.join()
        assert len(upstream.seen) == 1
        if as_it_came := all(times[-1] - times[0] > 0.3 for times in arrived):
            break
    assert as_it_came


@pytest.mark.slow
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
def test_whoever_leaves_the_call_goes_on_for_the_others_and_is_paid_once(
    gateway: Gateway, upstream: FakeUpstream, streamed: bool
) -> None:
    upstream.answering = slowly("one two", gap=0.8, wait=2.5)
    found: list[httpx.Response] = []
    leader = Caller(gateway, stream=streamed)
    until(lambda: aboard(gateway) == 1)
    others = [threading.Thread(target=lambda: found.append(ask(gateway, stream=streamed))) for _ in range(2)]
    for thread in others:
        thread.start()
    until(lambda: aboard(gateway) == 3)
    leader.leave()
    for thread in others:
        thread.join()
    assert [said(response) for response in found] == ["one two"] * 2
    assert len(upstream.seen) == 1
    assert streamed or upstream.seen[0].closed is None
    by_status = Counter((row.status, bool(row.cost_usd)) for row in gateway.rows)
    assert by_status == {("client_disconnect", False): 1, ("ok", True): 1, ("ok", False): 1}
    assert Counter((row.cached, row.details["cache"]) for row in gateway.rows) == {(False, "miss"): 1, (True, "hit"): 2}
    assert how(ask(gateway)) == "hit"


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
def test_when_all_have_left_the_upstream_is_stopped(gateway: Gateway, upstream: FakeUpstream, streamed: bool) -> None:
    upstream.answering = lambda seen: Script(("stall",))
    caller = Caller(gateway, stream=streamed)
    until(lambda: upstream.seen)
    caller.leave()
    until(lambda: upstream.seen[0].closed is not None)
    assert gateway.row().status == "client_disconnect"
    until(lambda: not gateway.llm.cache._flights)


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
def test_an_outage_is_bridged_by_what_has_just_gone_stale(
    later: Callable[[float], None], make_gateway: Callable[..., Gateway], upstream: FakeUpstream, streamed: bool
) -> None:
    gateway = make_gateway(routes=[cached(ttl=20, stale=100)], retries=0)
    ask(gateway)
    later(25)
    upstream.answering = failing("500")
    stale = ask(gateway, stream=streamed)
    assert (how(stale), said(stale)) == ("stale", TEXT)
    assert (gateway.rows[-1].cached, gateway.rows[-1].cost_usd, gateway.rows[-1].status) == (True, 0.0, "ok")
    upstream.answering = failing("400")
    assert ask(gateway, stream=streamed).status_code == 400, "the caller's own fault is told"
    later(110)
    upstream.answering = failing("500")
    assert ask(gateway, stream=streamed).status_code == 503


def test_figures_and_purges_by_route(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway(routes=[cached(), cached() | {"name": "s"}])
    for model in ("r", "r", "r", "s"):
        ask(gateway, model=model)
    shown = HTTP.get(f"{gateway.url}/api/v1/cache").json()
    assert (shown["entries"], shown["hits"], shown["misses"], shown["hit_rate"]) == (2, 2, 2, 0.5)
    first, second = shown["routes"]
    assert (first["route"], first["entries"], first["hits"], first["misses"]) == ("r", 1, 2, 1)
    assert first["hit_rate"] == pytest.approx(2 / 3)
    assert first["bytes"] > 100
    assert (second["route"], second["hit_rate"]) == ("s", 0.0)
    assert HTTP.delete(f"{gateway.url}/api/v1/cache", params={"route": "r"}).json() == {"deleted": 1}
    assert HTTP.delete(f"{gateway.url}/api/v1/cache", params={"route": "unknown"}).json() == {"deleted": 0}
    assert [how(ask(gateway, model=model)) for model in ("r", "s")] == ["miss", "hit"]


def test_the_hit_rate_is_that_of_a_period(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway(routes=[cached()])

    def shown(**period: datetime) -> dict[str, Any]:
        given = {name: moment.isoformat() for name, moment in period.items()}
        return HTTP.get(f"{gateway.url}/api/v1/cache", params=given).json()

    ask(gateway)
    ask(gateway, headers={"x-nexus-cache": "off"})
    between = datetime.now(UTC)
    ask(gateway)
    assert (shown()["hits"], shown()["misses"], shown()["hit_rate"]) == (1, 1, 0.5)
    assert (shown(since=between)["misses"], shown(since=between)["hit_rate"]) == (0, 1.0)
    assert (shown(until=between)["hits"], shown(until=between)["hit_rate"]) == (0, 0.0)
    refused = HTTP.get(
        f"{gateway.url}/api/v1/cache",
        params={"since": between.isoformat(), "until": (between - timedelta(1)).isoformat()},
    )
    assert refused.status_code in (400, 422)
    assert "until" in refused.text


@pytest.mark.parametrize("native", [True, False])
def test_the_older_completions_are_kept_apart_from_chats(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, native: bool
) -> None:
    provider = {"name": "up", "kind": "openai", "base_url": upstream.url, "api_key": "sk-x", "completions": native}
    gateway = make_gateway(providers=[provider], routes=[cached()])
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="nx_test", max_retries=0)
    asked: Any = {"model": "r", "prompt": TEXT, "temperature": 0}
    made = [client.completions.create(**asked) for _ in range(2)]
    assert [one.choices[0].text for one in made] == [TEXT] * 2
    assert made[1].usage == made[0].usage
    chunks = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == TEXT
    assert chunks[-1].usage is not None
    assert [row.cached for row in gateway.rows] == [False, True, True]
    assert how(ask(gateway)) == "miss", "a question in a chat is no text to go on with"
    for least in (3, 3, 4):
        client.completions.create(**asked, extra_body={"min_tokens": least})
    assert [row.cached for row in gateway.rows[-3:]] == [False, True, False]


def test_a_streamed_completion_is_kept_with_its_columns(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    columns = {"tokens": ["one"], "token_logprobs": [-0.5], "top_logprobs": [{"one": -0.5}], "text_offset": [0]}

    def told(seen: Any) -> Script:
        choice = {"index": 0, "text": "one", "logprobs": columns, "finish_reason": None}
        events = [
            {"choices": [choice]},
            {"choices": [choice | {"text": "", "logprobs": None, "finish_reason": "stop"}]},
        ]
        head = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m"}
        lines = [f"data: {json.dumps(head | event)}\n\n".encode() for event in events]
        return stream_of(seen, [*lines, b"data: [DONE]\n\n"])

    upstream.answering = told
    provider = {"name": "up", "kind": "openai", "base_url": upstream.url, "api_key": "sk-x", "completions": True}
    gateway = make_gateway(providers=[provider], routes=[cached()])
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="nx_test", max_retries=0)
    for _ in range(2):
        chunks = list(client.completions.create(model="r", prompt="x", stream=True, logprobs=1))
        assert "".join(chunk.choices[0].text for chunk in chunks) == "one"
        found = chunks[0].choices[0].logprobs or chunks[1].choices[0].logprobs
        assert found is not None
        assert found.to_dict() == columns
    assert [row.cached for row in gateway.rows] == [False, True]


def test_rights_are_asked_for(make_gateway: Callable[..., Gateway], ledger: Ledger) -> None:
    gateway = make_gateway(routes=[cached()])
    with serving(gateway.llm, ledger, replace(WHO, scopes=frozenset({Scope.USAGE_READ}))) as reader:
        assert HTTP.get(f"{reader.url}/api/v1/cache").status_code == 200
        assert HTTP.delete(f"{reader.url}/api/v1/cache").status_code == 403
    with serving(gateway.llm, ledger, replace(WHO, scopes=frozenset({Scope.LLM_INVOKE}))) as caller:
        assert HTTP.get(f"{caller.url}/api/v1/cache").status_code == 403


def translate(gateway: Gateway, text: str) -> httpx.Response:
    sent = {"model": "r", "text": text, "target": "German"}
    return HTTP.post(f"{gateway.url}/api/v1/text/translate", json=sent, timeout=60)


def test_text_tasks_are_answered_from_the_cache_of_their_route(gateway: Gateway, upstream: FakeUpstream) -> None:
    told = [translate(gateway, text) for text in ("good day", "good day", "good night")]
    assert [response.status_code for response in told] == [200] * 3, told[0].text
    first, second, _ = (response.json() for response in told)
    assert first["text"] == second["text"] != ""
    assert len(upstream.seen) == 2
    paid, free, other = gateway.rows
    assert [row.cached for row in (paid, free, other)] == [False, True, False]
    assert {row.kind for row in (paid, free, other)} == {"text.translate"}
    assert paid.cost_usd
    assert (free.cost_usd, free.input_tokens, free.output_tokens) == (0.0, paid.input_tokens, paid.output_tokens)


def test_text_tasks_get_what_is_kept_when_the_provider_is_away(
    later: Callable[[float], None], make_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    gateway = make_gateway(routes=[cached(ttl=20, stale=60)], retries=0)
    assert translate(gateway, "good day").status_code == 200
    later(30)
    upstream.answering = failing("503")
    assert translate(gateway, "good day").status_code == 200
    assert translate(gateway, "good night").status_code == 503
    assert [(row.status, row.cached) for row in gateway.rows] == [("ok", False), ("ok", True), ("error", False)]


def test_the_same_bytes_are_another_question_where_anything_beside_them_differs(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    """What is kept of bytes that were understood before holds for their route, project, path and headers alone."""
    routes = [cached(), cached(any_temperature=True) | {"name": "warm"}]
    gateway = make_gateway(routes=routes, retries=0)
    cold, warm = json.dumps(BODY), json.dumps(BODY | {"model": "warm", "temperature": 1})
    assert [how(ask(gateway, cold)) for _ in range(3)] == ["miss", "hit", "hit"]
    assert [how(ask(gateway, warm)) for _ in range(3)] == ["miss", "hit", "hit"]
    assert [how(ask(gateway, warm.replace("warm", "r"))) for _ in range(2)] == ["bypass", "bypass"]
    gemini = json.dumps({"contents": [{"parts": [{"text": TEXT}]}], "generationConfig": {"temperature": 0}})
    told = [
        HTTP.post(f"{gateway.url}/v1beta/models/{model}:generateContent", content=gemini, timeout=60)
        for model in ("r", "warm", "r", "warm")
    ]
    # The chat that was asked at temperature 0 before is the same question in another dialect.
    assert [how(response) for response in told] == ["hit", "miss", "hit", "hit"]
    messages = json.dumps({"model": "r", "max_tokens": 9, "temperature": 0, "messages": BODY["messages"]})
    told = []
    for beta in ("one", "one", "two"):
        headers = {"anthropic-version": "2023-06-01", "anthropic-beta": beta}
        told.append(HTTP.post(f"{gateway.url}/v1/messages", content=messages, headers=headers, timeout=60))
    assert [how(response) for response in told] == ["miss", "hit", "miss"]
