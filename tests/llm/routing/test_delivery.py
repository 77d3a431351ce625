"""Retries, fallbacks, breakers and time limits, over real HTTP with a faulty upstream."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tests.clock import until
from tests.llm.conftest import PATIENT, Gateway
from tests.llm.scripts import events, failing, waiting

from nexus.llm.routing.standing import FAILURES
from nexus.testing.faults import FAULTS
from nexus.testing.script import Script, Seen, chunked, response, stream_head
from nexus.testing.upstream import FakeUpstream, answer

HTTP = httpx.Client(limits=httpx.Limits(max_connections=None))
TEXT = "alpha beta gamma delta"


def ask(gateway: Gateway, model: str, *, streamed: bool = False, **more: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": TEXT}], "stream": streamed} | more
    return HTTP.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=60)


def said(response: httpx.Response) -> str:
    """The words of a streamed or whole answer, which must have a proper end."""
    assert response.status_code == 200, response.text
    if not response.headers["content-type"].startswith("text/event-stream"):
        return str(response.json()["choices"][0]["message"]["content"])
    lines = [line[6:] for line in response.text.split("\n\n") if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    deltas = [choice["delta"] for line in lines[:-1] for choice in json.loads(line)["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


def route(name: str, *models: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "deployments": [{"provider": "up", "model": model} for model in models]} | more


def asked(upstream: FakeUpstream) -> list[str]:
    return [seen.model for seen in upstream.seen]


CALLERS_FAULT = {"400", "400_with_secrets", "409", "413", "422", "context_too_long"}
AFTER_THE_FIRST_TOKEN = {"truncated", "reset_mid_stream", "stall_mid_stream", "no_finish_no_done"}
AFTER_THE_FIRST_TOKEN |= {"error_event", "overloaded_event", "broken_event", "broken_utf8", "huge_event"}
EARLY = sorted(
    name
    for name, fault in FAULTS.items()
    if fault.outcome == "error" and fault.form != "frames" and name not in CALLERS_FAULT | AFTER_THE_FIRST_TOKEN
)


@pytest.mark.slow
@pytest.mark.parametrize("name", EARLY)
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
def test_every_fault_before_the_first_token_reaches_the_fallback(
    make_gateway: Callable[..., Gateway], name: str, streamed: bool
) -> None:
    if not streamed and FAULTS[name].streams:
        pytest.skip("a fault of streams only")
    limits = PATIENT | {"first_token": 0.3, "between_tokens": 0.3, "attempt": 0.5}
    more = {"timeouts": limits} if name.startswith(("stall", "slow")) else {}
    gateway = make_gateway(
        routes=[route("best", f"fault-{name}", fallbacks=["next"], **more), route("next", "echo")], retries=0
    )
    assert said(ask(gateway, "best", streamed=streamed)) == TEXT
    row = gateway.row()
    assert (row.status, row.route, row.details["attempts"]) == ("ok", "next", 2)


def opening(request: Seen) -> bytes:
    return chunked(events(request, TEXT)[0])


SILENT: dict[str, Callable[[Seen], Script]] = {
    "silence": lambda request: Script((stream_head(), opening(request), "stall")),
    "signs of life": lambda request: Script((stream_head(), *((chunked(b": working\n\n"), 0.05) * 40))),
    "a cut": lambda request: Script((stream_head(), opening(request), 0.03, "reset")),
    "an error": lambda request: Script(
        (stream_head(), opening(request), 0.03, chunked(b'data: {"error":{"code":500}}\n\n'), "stall")
    ),
    "nonsense": lambda request: Script((stream_head(), opening(request), 0.03, chunked(b"data: {broken\n\n"), "stall")),
    "an end": lambda request: Script((stream_head(), chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n")),
    "nothing": lambda request: Script((stream_head(), b"0\r\n\r\n")),
}


@pytest.mark.parametrize("what", SILENT)
def test_a_stream_that_only_opens_is_left_for_the_fallback(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, what: str
) -> None:
    upstream.answering = lambda seen: SILENT[what](seen) if seen.model == "mute" else answer(seen)
    limits = PATIENT | {"first_token": 0.5, "between_tokens": 0.5}
    gateway = make_gateway(
        routes=[route("best", "mute", fallbacks=["next"], timeouts=limits), route("next", "echo")], retries=0
    )
    response = ask(gateway, "best", streamed=True)
    assert said(response) == TEXT
    assert response.text.count('"role"') == 1, "nothing of the first attempt is seen"
    assert asked(upstream) == ["mute", "echo"]


def test_a_failed_try_is_repeated_after_a_pause_and_not_more_often_than_allowed(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    broken = [True, True, False]
    upstream.answering = lambda seen: failing("500")(seen) if broken.pop(0) else answer(seen)
    gateway = make_gateway(retries=2)
    assert said(ask(gateway, "up/echo")) == TEXT
    assert gateway.row().details["attempts"] == 3
    broken[:] = [True] * 9
    assert ask(gateway, "up/echo").status_code == 503
    assert len(upstream.seen) == 6


def test_all_deployments_are_tried_before_one_is_tried_again(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    gateway = make_gateway(
        routes=[route("r", "fault-500", "fault-503", "fault-529", fallbacks=["s"]), route("s", "echo")],
        retries=1,
        retry_wait=0,
    )
    assert said(ask(gateway, "r")) == TEXT
    models = asked(upstream)
    assert sorted(models[:3]) == ["fault-500", "fault-503", "fault-529"]
    assert models[3] in ("fault-500", "fault-529"), "that one wants to be left alone for 3 seconds"
    assert models[4:] == ["echo"]


def test_another_deployment_takes_over_at_once_from_one_that_is_limited(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    def limited(seen: Seen) -> Script:
        return failing("429_retry_after")(seen) if seen.model == "limited" else answer(seen)

    upstream.answering = limited
    deployments = [{"provider": "up", "model": "limited", "weight": 1e9}, {"provider": "up", "model": "echo"}]
    gateway = make_gateway(routes=[{"name": "r", "deployments": deployments}])
    began = time.monotonic()
    for _ in range(4):
        assert said(ask(gateway, "r")) == TEXT
    assert time.monotonic() - began < 6.5, "not when the limited one may be asked again"
    assert Counter(asked(upstream)) == {"limited": 1, "echo": 4}, "seven seconds it is left alone"


def test_a_lone_limited_deployment_is_left_alone_as_long_as_it_asked(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    gateway = make_gateway()
    for _ in range(3):
        response = ask(gateway, "up/fault-429_retry_after")
        assert (response.status_code, response.headers["retry-after"]) == (429, "7")
        assert response.json()["error"]["code"] == "upstream_rate_limited"
    assert len(upstream.seen) == 1


def test_a_short_pause_is_waited_for(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    wait = b'{"error":{"message":"slow down"}}'
    scripts = [Script((response(429, wait, "retry-after-ms: 400"),))]
    upstream.answering = lambda seen: scripts.pop() if scripts else answer(seen)
    gateway = make_gateway()
    began = time.monotonic()
    assert said(ask(gateway, "up/echo")) == TEXT
    assert time.monotonic() - began >= 0.4
    assert len(upstream.seen) == 2


@pytest.mark.parametrize("name", ["400", "401", "403", "404", "413", "422", "429"])
def test_what_another_try_cannot_change_is_not_tried_again(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, name: str
) -> None:
    gateway = make_gateway(retries=5)
    assert ask(gateway, f"up/fault-{name}").status_code >= 400
    assert len(upstream.seen) == 1


def test_what_is_too_long_goes_to_a_model_that_reads_more(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    def sized(model: str, tokens: int) -> dict[str, Any]:
        return {"provider": "up", "model": model, "capabilities": {"context_tokens": tokens}}

    gateway = make_gateway(
        routes=[
            {"name": "small", "deployments": [sized("fault-context_too_long", 1000)], "fallbacks": ["tiny", "large"]},
            {"name": "tiny", "deployments": [sized("echo-tiny", 900)]},
            {"name": "large", "deployments": [sized("echo-large", 9000)]},
            {"name": "alone", "deployments": [sized("fault-context_too_long", 1000)], "fallbacks": ["tiny"]},
        ]
    )
    assert said(ask(gateway, "small")) == TEXT
    assert asked(upstream) == ["fault-context_too_long", "echo-large"]
    response = ask(gateway, "alone")
    assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert len(upstream.seen) == 3


def test_what_a_model_cannot_do_goes_to_one_that_can(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    gateway = make_gateway(
        routes=[
            {
                "name": "blind",
                "deployments": [{"provider": "up", "model": "blind", "capabilities": {"tools": False}}],
                "fallbacks": ["able"],
            },
            route("able", "echo"),
        ]
    )
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    assert said(ask(gateway, "blind", tools=tools)) == TEXT
    assert asked(upstream) == ["echo"]


@pytest.mark.slow
def test_a_stalled_plain_call_leaves_time_for_the_fallback(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway(
        routes=[route("best", "fault-stall_at_once", fallbacks=["next"]), route("next", "echo")],
        timeouts={"total": 3.0},
    )
    for _ in range(4):  # where this machine has other things to do, what is left is not enough
        began = time.monotonic()
        response = ask(gateway, "best")
        assert time.monotonic() - began > 1.7
        if response.status_code == 200:
            break
    assert said(response) == TEXT


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
def test_all_attempts_together_end_in_time(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, streamed: bool
) -> None:
    models = [f"mute-{i}" for i in range(9)]
    upstream.answering = lambda seen: Script((stream_head(), "stall") if seen.json["stream"] else ("stall",))
    gateway = make_gateway(
        routes=[route("r", *models)], timeouts={"first_token": 0.5, "between_tokens": 9, "total": 1.2, "attempt": 0.5}
    )
    for _ in range(4):
        del upstream.seen[:]
        began = time.monotonic()
        response = ask(gateway, "r", streamed=streamed)
        took = time.monotonic() - began
        assert (response.status_code, response.json()["error"]["code"]) == (504, "upstream_timeout")
        if took < 2.2 and len(upstream.seen) == 3:
            break  # else this machine had other things to do
    assert 1.0 < took < 2.2
    assert len(upstream.seen) == 3


def test_an_outage_of_a_lone_deployment_is_answered_at_once(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    down = True
    upstream.answering = lambda seen: failing("500")(seen) if down else answer(seen)
    gateway = make_gateway(retries=0)
    for _ in range(FAILURES):
        assert ask(gateway, "up/echo").status_code == 503
    standing = gateway.llm.router.standing(gateway.llm.registry.find("up/echo").deployments[0])
    standing.rests_until += 50
    began = time.monotonic()
    response = ask(gateway, "up/echo")
    assert time.monotonic() - began < 15
    assert response.status_code == 503
    assert 30 < int(response.headers["retry-after"]) <= 60
    assert "left alone" in response.json()["error"]["message"]
    assert len(upstream.seen) == FAILURES
    assert ask(gateway, "up/other").status_code == 503, "another model is another deployment"
    down = False
    standing.rests_until = 0.0
    assert said(ask(gateway, "up/echo")) == TEXT
    assert said(ask(gateway, "up/echo")) == TEXT


def test_a_half_open_breaker_lets_exactly_one_call_through(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    found: list[int] = []

    def last(seen: Seen) -> Script:
        until(lambda: len(found) >= 11)
        return answer(seen)

    upstream.answering = last
    gateway = make_gateway(retries=0)
    standing = gateway.llm.router.standing(gateway.llm.registry.find("up/echo").deployments[0])
    for i in range(FAILURES):
        standing.failed(float(i))
    standing.rests_until = 0.0
    threads = [threading.Thread(target=lambda: found.append(ask(gateway, "up/echo").status_code)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(found) == {200: 1, 503: 11}
    assert len(upstream.seen) == 1
    assert ask(gateway, "up/echo").status_code == 200


def test_streams_that_break_open_the_breaker_too(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    gateway = make_gateway(retries=0)
    for _ in range(FAILURES):
        assert "[DONE]" not in ask(gateway, "up/fault-reset_mid_stream", streamed=True).text
    assert ask(gateway, "up/fault-reset_mid_stream", streamed=True).status_code == 503
    assert len(upstream.seen) == FAILURES
    assert gateway.llm.router.streams == 0


def test_further_tries_are_bounded_by_the_budget(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    # Each deployment is asked too rarely for its breaker.
    models = [f"fault-500-{i}" for i in range(60)]
    upstream.answering = failing("500")
    gateway = make_gateway(routes=[route("r", *models)], retries=5, retry_budget=0.2, retry_floor=4)
    for _ in range(30):
        assert ask(gateway, "r").status_code == 503
    assert 60 < len(upstream.seen) <= 30 * 2 + 4 + 6


def test_calls_are_spread_by_weight_and_by_load(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    deployments = [{"provider": "up", "model": "a", "weight": 3}, {"provider": "up", "model": "b", "weight": 1}]
    gateway = make_gateway(
        routes=[
            {"name": "w", "deployments": deployments},
            {"name": "busy", "deployments": deployments, "strategy": "least_busy"},
            {"name": "fast", "deployments": deployments, "strategy": "lowest_latency"},
        ]
    )
    for _ in range(80):
        ask(gateway, "w")
    counts = Counter(asked(upstream))
    assert 1.5 < counts["a"] / counts["b"] < 8
    upstream.seen.clear()
    upstream.answering = lambda seen: waiting(0.2 if seen.model == "a" else 0.0, answer(seen))
    for _ in range(20):
        ask(gateway, "fast")
    assert Counter(asked(upstream))["b"] >= 15
