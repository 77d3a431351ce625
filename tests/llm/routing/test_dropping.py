"""Fields that a model cannot take: a 400, or left out and told where the route says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from tests.llm.conftest import Gateway

from nexus.llm.settings import RouteSettings
from nexus.testing.upstream import FakeUpstream

HTTP = httpx.Client(timeout=20)
WISHES = {"seed": 7, "presence_penalty": 0.5, "frequency_penalty": 0.5, "logit_bias": {"1": 2}}
ASK = {"model": "r", "messages": [{"role": "user", "content": "alpha"}]}
ALL = ["seed", "presence_penalty", "frequency_penalty", "logit_bias", "top_k"]


@pytest.fixture
def make(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> Callable[..., Gateway]:
    def made(kind: str, droppable: list[str], *models: str, **more: Any) -> Gateway:
        providers = [
            {"name": name, "kind": name, "base_url": upstream.url, "api_key": "k", "region": "us-east-1"}
            for name in ("anthropic", "bedrock", "google", "openai")
        ]
        places = [{"provider": kind, "model": model} for model in models or ("echo",)]
        route = {"name": "r", "deployments": places, "drop_unsupported": droppable} | more
        then = {"name": "s", "deployments": [{"provider": "openai", "model": "echo"}]}
        return make_gateway(providers=providers, routes=[route, then], retries=0)

    return made


def ask(gateway: Gateway, **more: Any) -> httpx.Response:
    return HTTP.post(f"{gateway.url}/v1/chat/completions", json=ASK | more)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("kind", ["anthropic", "bedrock"])
def test_what_a_route_lets_go_is_left_out_and_told(
    make: Callable[..., Gateway], upstream: FakeUpstream, kind: str, stream: bool
) -> None:
    answered = ask(make(kind, ALL), stream=stream, **WISHES)
    assert answered.status_code == 200
    assert "alpha" in answered.text
    assert set(answered.headers["x-nexus-dropped"].split(", ")) == set(WISHES)
    assert not WISHES.keys() & upstream.seen[0].json.keys()
    assert len(upstream.seen) == 1


@pytest.mark.parametrize("name", WISHES)
def test_what_it_does_not_name_is_a_400(make: Callable[..., Gateway], upstream: FakeUpstream, name: str) -> None:
    gateway = make("anthropic", [other for other in ALL if other != name])
    answered = ask(gateway, **WISHES)
    assert (answered.status_code, answered.json()["error"]["param"]) == (400, name)
    assert "x-nexus-dropped" not in answered.headers
    assert not upstream.seen


def test_nothing_is_left_out_for_a_model_that_takes_it(make: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    answered = ask(make("google", ALL), seed=7)
    assert answered.status_code == 200
    assert "x-nexus-dropped" not in answered.headers
    assert upstream.seen[0].json["generationConfig"]["seed"] == 7


def test_the_header_is_of_the_deployment_that_answered(make: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    answered = ask(make("anthropic", ALL, "fault-500", fallbacks=["s"]), seed=7)
    assert answered.status_code == 200
    assert "x-nexus-dropped" not in answered.headers
    assert "seed" not in upstream.seen[0].json
    assert upstream.seen[1].json["seed"] == 7


def test_other_dialects_are_told_too(make: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    body = {"contents": [{"role": "user", "parts": [{"text": "alpha"}]}], "generationConfig": {"seed": 7}}
    url = make("anthropic", ["seed"]).url
    answered = HTTP.post(f"{url}/v1beta/models/r:generateContent", json=body)
    assert (answered.status_code, answered.headers["x-nexus-dropped"]) == (200, "seed")
    counted = {"generateContentRequest": {"model": "models/r"} | body}
    assert HTTP.post(f"{url}/v1beta/models/r:countTokens", json=counted).status_code == 200


@pytest.mark.parametrize("name", ["messages", "tools", "max_tokens", "n", "response_format", "novel"])
def test_what_changes_the_question_may_not_be_dropped(name: str) -> None:
    with pytest.raises(ValidationError):
        RouteSettings.model_validate(
            {"name": "r", "deployments": [{"provider": "p", "model": "m"}], "drop_unsupported": [name]}
        )
