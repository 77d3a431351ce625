"""Azure's addresses and credentials in front of OpenAI's forms."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tests.llm.conftest import Gateway

from nexus.testing.script import Script, Seen, response
from nexus.testing.upstream import FakeUpstream, answer

HTTP = httpx.Client()
QUESTIONS: dict[str, dict[str, Any]] = {
    "chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
    "responses": {"input": "hi"},
    "embeddings": {"input": "hi"},
}


@pytest.fixture
def asked(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> Callable[..., Seen]:
    """Return a function that asks at `door` and gives the last request that the upstream got."""

    def ask(door: str, base: str, **options: Any) -> Seen:
        options = {name: upstream.address if value == "HERE" else value for name, value in options.items()}
        account = {"name": "az", "kind": "azure", "base_url": upstream.address + base, "api_key": "k-1"} | options
        gateway = make_gateway(providers=[account])
        told = HTTP.post(f"{gateway.url}/v1/{door}", json={"model": "az/my-gpt"} | QUESTIONS[door])
        assert told.status_code == 200, told.text
        return upstream.seen[-1]

    return ask


@pytest.mark.parametrize(
    ("door", "base", "options", "path"),
    [
        ("chat/completions", "/openai/v1", {}, "/openai/v1/chat/completions"),
        ("responses", "/openai/v1", {}, "/openai/v1/responses"),
        ("embeddings", "/openai/v1", {}, "/openai/v1/embeddings"),
        ("chat/completions", "/openai/v1", {"api_version": "preview"},
         "/openai/v1/chat/completions?api-version=preview"),
        ("chat/completions", "", {}, "/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21"),
        ("chat/completions", "/openai", {"api_version": "2025-01-01-preview"},
         "/openai/deployments/my-gpt/chat/completions?api-version=2025-01-01-preview"),
        ("embeddings", "", {}, "/openai/deployments/my-gpt/embeddings?api-version=2024-10-21"),
        ("responses", "", {}, "/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21"),
        ("responses", "", {"responses": True}, "/openai/responses?api-version=2024-10-21"),
        ("chat/completions", "/openai/deployments/other", {},
         "/openai/deployments/other/chat/completions?api-version=2024-10-21"),
    ],
)  # fmt: skip
def test_each_form_of_address(
    asked: Callable[..., Seen], door: str, base: str, options: dict[str, Any], path: str
) -> None:
    seen = asked(door, base, **options)
    assert seen.path == path
    assert seen.headers["api-key"] == "k-1"
    assert "authorization" not in seen.headers
    assert seen.json["model"] == "my-gpt"


def test_a_token_goes_as_bearer(asked: Callable[..., Seen]) -> None:
    seen = asked("chat/completions", "/openai/v1", auth="bearer")
    assert seen.headers["authorization"] == "Bearer k-1"
    assert "api-key" not in seen.headers


def entra(seen: Seen) -> Script:
    if seen.path == "/my-tenant/oauth2/v2.0/token":
        return Script((response(200, json.dumps({"access_token": "t-1", "expires_in": 3599}).encode()),))
    return answer(seen)


def test_an_application_gets_its_token_once(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    upstream.answering = entra
    account = {"name": "az", "kind": "azure", "base_url": f"{upstream.address}/openai/v1", "api_key": "app secret",
               "tenant_id": "my-tenant", "client_id": "app", "authority": upstream.address}  # fmt: skip
    gateway = make_gateway(providers=[account])
    for _ in range(2):
        told = HTTP.post(f"{gateway.url}/v1/responses", json={"model": "az/m"} | QUESTIONS["responses"])
        assert told.status_code == 200, told.text
    token, *calls = upstream.seen
    assert token.body == (
        b"grant_type=client_credentials&client_id=app&client_secret=app+secret"
        b"&scope=https%3A%2F%2Fcognitiveservices.azure.com%2F.default"
    )
    assert [call.headers["authorization"] for call in calls] == ["Bearer t-1"] * 2


def test_a_refused_application_is_no_secret_told(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    upstream.answering = lambda seen: Script((response(401, b'{"error":"invalid_client","x":"app secret"}'),))
    account = {"name": "az", "kind": "azure", "base_url": f"{upstream.address}/openai/v1", "api_key": "app secret",
               "tenant_id": "t", "client_id": "app", "authority": upstream.address}  # fmt: skip
    gateway = make_gateway(providers=[account])
    told = HTTP.post(f"{gateway.url}/v1/responses", json={"model": "az/m"} | QUESTIONS["responses"])
    assert (told.status_code, told.json()["error"]["code"]) == (502, "upstream_credentials")
    assert "app secret" not in told.text


def test_a_filtered_prompt_is_told_in_azure_s_words(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    error = {"message": "The response was filtered", "param": "prompt", "code": "content_filter", "status": 400,
             "innererror": {"code": "ResponsibleAIPolicyViolation"}}  # fmt: skip
    upstream.answering = lambda seen: Script((response(400, json.dumps({"error": error}).encode()),))
    account = {"name": "az", "kind": "azure", "base_url": f"{upstream.address}/openai/v1", "api_key": "k"}
    gateway = make_gateway(providers=[account])
    told = HTTP.post(f"{gateway.url}/v1/chat/completions", json={"model": "az/m"} | QUESTIONS["chat/completions"])
    assert (told.status_code, told.json()["error"]) == (400, error)
