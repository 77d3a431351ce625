"""Vertex AI: where its tokens come from, and what is sent to its models of several makers."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import anthropic
import httpx
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from tests.llm.conftest import Gateway

from nexus.core.secrets import Secret
from nexus.llm.credentials.google import AccessToken, GoogleTokens, NoGoogleCredentials, credentials_of
from nexus.llm.settings import Surroundings
from nexus.llm.wire.client import HttpClient
from nexus.testing.script import Script, Seen, response
from nexus.testing.upstream import FakeUpstream, answer

# One client: making one reads every certificate of the machine.
HTTP = httpx.Client(timeout=20)
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()
ASK = {"messages": [{"role": "user", "content": "alpha beta"}]}
HELLO = {"contents": [{"role": "user", "parts": [{"text": "alpha beta"}]}]}


def service_account(upstream: FakeUpstream) -> dict[str, Any]:
    return {
        "type": "service_account",
        "project_id": "proj-of-key",
        "private_key_id": "kid-1",
        "private_key": PEM,
        "client_email": "robot@proj.iam.gserviceaccount.com",
        "token_uri": f"{upstream.address}/token",
    }


@pytest.fixture
def make_vertex(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> Callable[..., Gateway]:
    def make(**more: Any) -> Gateway:
        given = {"project": "proj", "location": "us-central1", "credentials": service_account(upstream)} | more
        kept = {name: value for name, value in given.items() if value is not None}
        base = {"base_url": f"{upstream.address}/v1beta1"}
        return make_gateway(providers=[{"name": "up", "kind": "vertex"} | base | kept])

    return make


def chat(gateway: Gateway, model: str = "up/gemini-2.5-pro", **more: Any) -> httpx.Response:
    return HTTP.post(f"{gateway.url}/v1/chat/completions", json={"model": model} | ASK | more)


# Tokens.


def test_a_service_account_signs_for_one_token(make_vertex: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    gateway = make_vertex()
    for _ in range(3):
        assert chat(gateway).status_code == 200
    exchange, *calls = upstream.seen
    form = parse_qs(exchange.body.decode())
    assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    said, _, seal = form["assertion"][0].rpartition(".")
    signature = base64.urlsafe_b64decode(seal + "==")
    KEY.public_key().verify(signature, said.encode(), padding.PKCS1v15(), hashes.SHA256())
    head, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in said.split("."))
    assert head == {"alg": "RS256", "typ": "JWT", "kid": "kid-1"}
    assert (claims["iss"], claims["aud"]) == ("robot@proj.iam.gserviceaccount.com", f"{upstream.address}/token")
    assert claims["exp"] - claims["iat"] == 3600
    assert [call.headers["authorization"] for call in calls] == ["Bearer ya29.fake-token"] * 3
    place = "/v1beta1/projects/proj/locations/us-central1/publishers/google/models/gemini-2.5-pro:generateContent"
    assert {call.path for call in calls} == {place}


def test_the_project_of_the_key_is_the_default(make_vertex: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    gateway = make_vertex(project=None, location=None)
    assert chat(gateway).status_code == 200
    assert "/projects/proj-of-key/locations/global/" in upstream.seen[-1].path


def test_a_token_is_renewed_before_its_end(make_vertex: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    short = json.dumps({"access_token": "t", "expires_in": 0.1}).encode()
    upstream.answering = lambda seen: Script((response(200, short),)) if seen.path == "/token" else answer(seen)
    gateway = make_vertex()
    chat(gateway)
    asyncio.run(asyncio.sleep(0.15))
    chat(gateway)
    assert [seen.path == "/token" for seen in upstream.seen] == [True, False, True, False]


async def test_many_callers_wait_for_one_exchange(upstream: FakeUpstream) -> None:
    tokens = GoogleTokens(HttpClient())
    options = {"credentials": service_account(upstream)}
    found = await asyncio.gather(*(tokens.find("up", options, None) for _ in range(20)))
    assert len(upstream.seen) == 1
    assert found[0].secret.reveal() == "ya29.fake-token"
    assert found[0].project == "proj-of-key"


async def exchanged(credentials: Any) -> AccessToken:
    return await GoogleTokens(HttpClient()).find("up", {"credentials": credentials}, None)


def form_of(seen: Seen) -> dict[str, str]:
    return {name: value for name, (value,) in parse_qs(seen.body.decode()).items()}


async def test_a_person_refreshes(upstream: FakeUpstream) -> None:
    person = {"type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": "r"}
    found = await exchanged(person | {"token_uri": f"{upstream.address}/token", "quota_project_id": "payer"})
    asked = {"grant_type": "refresh_token", "client_id": "i", "client_secret": "s", "refresh_token": "r"}
    assert form_of(upstream.seen[0]) == asked
    assert (found.secret.reveal(), found.quota_project) == ("ya29.fake-token", "payer")


@pytest.mark.parametrize("source", ["file", "file of json", "url"])
async def test_a_workload_of_another_cloud_is_trusted(upstream: FakeUpstream, tmp_path: Path, source: str) -> None:
    token, wrapped = "subject.token", json.dumps({"id": "subject.token"})
    (tmp_path / "token").write_text(wrapped if source == "file of json" else token + "\n")
    inner: dict[str, Any] = {"file": str(tmp_path / "token")}
    if source == "url":
        inner = {"url": f"{upstream.address}/identity", "headers": {"x-a": "b"}}
    if source != "file":
        inner["format"] = {"type": "json", "subject_token_field_name": "id"}

    def told(seen: Seen) -> Script:
        if seen.path == "/identity":
            assert (seen.method, seen.headers["x-a"]) == ("GET", "b")
            return Script((response(200, wrapped.encode()),))
        if seen.path.endswith(":generateAccessToken"):
            assert seen.headers["authorization"] == "Bearer ya29.fake-token"
            assert seen.json["scope"] == ["https://www.googleapis.com/auth/cloud-platform"]
            body = {"accessToken": "as-other", "expireTime": "2099-01-01T00:00:00Z"}
            return Script((response(200, json.dumps(body).encode()),))
        return answer(seen)

    upstream.answering = told
    account = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/x",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{upstream.address}/v1/token",
        "credential_source": inner,
    }
    assert (await exchanged(account)).secret.reveal() == "ya29.fake-token"
    form = form_of(upstream.seen[-1])
    assert (form["subject_token"], form["audience"]) == (token, "//iam.googleapis.com/x")
    other = {"service_account_impersonation_url": f"{upstream.address}/v1/x:generateAccessToken"}
    assert (await exchanged(account | other)).secret.reveal() == "as-other"
    mine = {"type": "impersonated_service_account", "source_credentials": account} | other
    assert (await exchanged(mine)).secret.reveal() == "as-other"


async def test_the_machine_has_a_token(upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)

    def told(seen: Seen) -> Script:
        assert (seen.method, seen.headers["metadata-flavor"]) == ("GET", "Google")
        if seen.path.endswith("/project/project-id"):
            return Script((response(200, b"proj-of-machine", kind="text/plain"),))
        return Script((response(200, b'{"access_token": "m", "expires_in": 99}'),))

    upstream.answering = told
    options = {"metadata_url": f"{upstream.address}/computeMetadata/v1"}
    found = await GoogleTokens(HttpClient()).find("up", options, None)
    assert (found.secret.reveal(), found.lifetime, found.project) == ("m", 99, "proj-of-machine")


def test_credentials_are_looked_for_in_order(tmp_path: Path) -> None:
    left = tmp_path / ".config" / "gcloud" / "application_default_credentials.json"
    left.parent.mkdir(parents=True)
    left.write_text('{"from": "gcloud"}')
    (tmp_path / "env.json").write_text('{"from": "environment"}')
    (tmp_path / "own.json").write_text('{"from": "file"}')
    bare = Surroundings({}, tmp_path)
    around = Surroundings({"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "env.json")}, tmp_path)
    assert credentials_of({}, None, Surroundings({}, tmp_path / "none")) is None
    assert credentials_of({}, None, bare) == {"from": "gcloud"}
    assert credentials_of({}, None, around) == {"from": "environment"}
    assert credentials_of({"credentials": str(tmp_path / "own.json")}, None, around) == {"from": "file"}
    assert credentials_of({"credentials": '{"from": "text"}'}, None, around) == {"from": "text"}
    assert credentials_of({}, Secret('{"from": "key"}'), around) == {"from": "key"}
    with pytest.raises(NoGoogleCredentials):
        credentials_of({"credentials": str(tmp_path / "none.json")}, None, around)


@pytest.mark.parametrize(
    "change",
    [
        {"type": "gdch"},
        {"private_key": "-----BEGIN nothing"},
        {"token_uri": "http://127.0.0.1:1/token"},
        {"token_uri": "not a url"},
        {"type": "external_account", "credential_source": {"executable": {"command": "rm"}}},
        {"type": "external_account", "credential_source": {"file": "/nowhere"}},
    ],
)
def test_credentials_that_do_not_work_are_said_so(
    make_vertex: Callable[..., Gateway], upstream: FakeUpstream, change: dict[str, Any]
) -> None:
    told = chat(make_vertex(credentials=service_account(upstream) | change))
    assert (told.status_code, told.json()["error"]["code"]) == (502, "upstream_credentials")
    assert "127.0.0.1" not in told.text


def test_a_refused_exchange_tells_nothing(make_vertex: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    body = json.dumps({"error": "invalid_grant", "error_description": "robot@proj is disabled"}).encode()
    upstream.answering = lambda _seen: Script((response(400, body),))
    told = chat(make_vertex())
    assert (told.status_code, told.json()["error"]["code"]) == (502, "upstream_credentials")
    assert "robot" not in told.text


def test_express_mode_needs_a_key_only(make_vertex: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    gateway = make_vertex(credentials=None, project=None, location=None, api_key="AQ.express-key-123456")
    assert chat(gateway, stream=True).status_code == 200
    (seen,) = upstream.seen
    assert seen.path == "/v1beta1/publishers/google/models/gemini-2.5-pro:streamGenerateContent?alt=sse"
    assert seen.headers["x-goog-api-key"] == "AQ.express-key-123456"
    assert "authorization" not in seen.headers


# What is sent.


@pytest.mark.parametrize(
    ("model", "place"),
    [
        ("gemini-3-pro@001", "projects/proj/locations/us-central1/publishers/google/models/gemini-3-pro@001"),
        ("meta/llama-4", "projects/proj/locations/us-central1/publishers/meta/models/llama-4"),
        ("publishers/x/models/y", "projects/proj/locations/us-central1/publishers/x/models/y"),
        ("projects/1/locations/l/endpoints/2", "projects/1/locations/l/endpoints/2"),
        ("a b?c#d", "projects/proj/locations/us-central1/publishers/google/models/a%20b%3Fc%23d"),
    ],
)
def test_names_lead_to_places(
    make_vertex: Callable[..., Gateway], upstream: FakeUpstream, model: str, place: str
) -> None:
    chat(make_vertex(), f"up/{model}")
    assert upstream.seen[-1].path == f"/v1beta1/{place}:generateContent"


def test_no_name_leads_elsewhere(make_vertex: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    gateway = make_vertex()
    for model in ("../../x", "a/../b", "a//b"):
        assert chat(gateway, f"up/{model}").status_code == 400
    assert all(seen.path == "/token" for seen in upstream.seen)


def test_gemini_clients_pass_through(make_vertex: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    gateway = make_vertex()
    body = json.dumps(HELLO | {"labels": {"a": "b"}, "vendor": 1.50})
    headers = {"x-vertex-ai-llm-shared-request-type": "flex"}
    url = f"{gateway.url}/v1beta/models/up/gemini-2.5-pro:"
    assert HTTP.post(url + "generateContent", content=body, headers=headers).status_code == 200
    assert upstream.seen[-1].body.decode() == body
    assert upstream.seen[-1].headers["x-vertex-ai-llm-shared-request-type"] == "flex"
    inner = HELLO | {"model": "models/up/gemini-2.5-pro"}
    told = HTTP.post(url + "countTokens", json={"generateContentRequest": inner}).json()
    assert (told["totalTokens"], upstream.seen[-1].json) == (12, HELLO)


def test_vectors_of_older_models_are_predicted(make_vertex: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    gateway = make_vertex()
    asked = [{"content": {"parts": [{"text": text}]}, "taskType": "RETRIEVAL_QUERY"} for text in ("a", "b")]
    url = f"{gateway.url}/v1beta/models/up/text-embedding-005:"
    told = HTTP.post(url + "batchEmbedContents", json={"requests": asked}).json()
    assert [item["values"][:2] for item in told["embeddings"]] == [[0, 1], [1, 2]]
    assert told["usageMetadata"] == {"promptTokenCount": 6}
    sent = [{"content": text, "task_type": "RETRIEVAL_QUERY"} for text in ("a", "b")]
    assert upstream.seen[-1].json == {"instances": sent}
    assert upstream.seen[-1].path.endswith("/text-embedding-005:predict")
    assert HTTP.post(url + "embedContent", json=asked[0]).json()["embedding"]["values"][:2] == [0, 1]
    body = {"model": "up/gemini-embedding-001", "input": ["a", "b", "c"], "dimensions": 2}
    told = HTTP.post(f"{gateway.url}/v1/embeddings", json=body).json()
    assert [item["embedding"] for item in told["data"]] == [[0, 1]] * 3, "one text in each request"
    assert upstream.seen[-1].json["parameters"] == {"outputDimensionality": 2}


def test_vectors_of_newer_models_are_of_contents(make_vertex: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    gateway = make_vertex()
    body = {"model": "up/gemini-embedding-2", "input": ["a", "b"], "dimensions": 4}
    told = HTTP.post(f"{gateway.url}/v1/embeddings", json=body).json()
    assert (len(told["data"]), told["usage"]["prompt_tokens"]) == (2, 6)
    one = {"content": {"parts": [{"text": "b"}]}, "embedContentConfig": {"outputDimensionality": 4}}
    assert one in [seen.json for seen in upstream.seen if seen.path.endswith("/gemini-embedding-2:embedContent")]
    own = {"content": {"parts": [{"text": "x"}, {"inlineData": {"mimeType": "image/png", "data": "QUJD"}}]}}
    url = f"{gateway.url}/v1beta/models/up/gemini-embedding-2:embedContent"
    assert HTTP.post(url, json=own).status_code == 200
    assert upstream.seen[-1].json == own


# Claude.


def messages(seen: Seen) -> Script:
    """Answer as Anthropic's models do behind Vertex AI, whose path the fake does not know."""
    if seen.path == "/token":
        return answer(seen)
    path = "/v1/messages/count_tokens" if "count-tokens" in seen.path else "/v1/messages"
    body = json.dumps({"model": "echo"} | seen.json).encode()
    return answer(Seen(path, seen.headers, body))


def test_claude_is_asked_in_its_own_form(make_vertex: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    upstream.answering = messages
    gateway = make_vertex(location="us-east5")
    body = {"model": "up/claude-sonnet-4-5@20250929", "max_tokens": 9, "vendor": 1} | ASK
    headers = {"anthropic-beta": "context-1m-2025-08-07", "anthropic-version": "2023-06-01", "x-api-key": "nx"}
    told = HTTP.post(f"{gateway.url}/v1/messages", json=body, headers=headers)
    assert told.json()["content"][0]["text"] == "alpha beta"
    seen = upstream.seen[-1]
    place = "/v1beta1/projects/proj/locations/us-east5/publishers/anthropic/models/"
    assert seen.path == f"{place}claude-sonnet-4-5@20250929:rawPredict"
    assert seen.json == {"max_tokens": 9, "vendor": 1, "anthropic_version": "vertex-2023-10-16"} | ASK
    assert seen.headers["anthropic-beta"] == "context-1m-2025-08-07"
    assert seen.headers["authorization"] == "Bearer ya29.fake-token"
    assert "x-api-key" not in seen.headers
    client = anthropic.Anthropic(base_url=gateway.url, api_key="nx_test", max_retries=0)
    with client.messages.stream(
        model="up/claude-sonnet-4-5", max_tokens=9, messages=[{"role": "user", "content": "a b"}]
    ) as stream:
        assert stream.get_final_text() == "a b"
    assert upstream.seen[-1].path == f"{place}claude-sonnet-4-5:streamRawPredict"
    counted = client.messages.count_tokens(model="up/claude-opus-4-1", messages=[{"role": "user", "content": "a"}])
    assert counted.input_tokens > 0
    assert upstream.seen[-1].path == f"{place}count-tokens:rawPredict"
    assert upstream.seen[-1].json["model"] == "claude-opus-4-1"


def test_claude_answers_clients_of_every_form(make_vertex: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    upstream.answering = messages
    gateway = make_vertex()
    assert chat(gateway, "up/claude-haiku-4-5").json()["choices"][0]["message"]["content"] == "alpha beta"
    url = f"{gateway.url}/v1beta/models/up/claude-haiku-4-5:"
    told = HTTP.post(url + "streamGenerateContent", json=HELLO).json()
    parts = [part["text"] for item in told for part in item["candidates"][0]["content"]["parts"]]
    assert "".join(parts) == "alpha beta"
    assert {seen.path.rpartition(":")[2] for seen in upstream.seen[1:]} == {"rawPredict", "streamRawPredict"}


@pytest.mark.parametrize(("status", "expected"), [(400, 400), (403, 502), (404, 404), (429, 429), (503, 529)])
def test_googles_errors_before_claude(
    make_vertex: Callable[..., Gateway], upstream: FakeUpstream, status: int, expected: int
) -> None:
    body = json.dumps([{"error": {"code": status, "message": "no such thing", "status": "X"}}]).encode()
    refused = Script((response(status, body),))
    upstream.answering = lambda seen: answer(seen) if seen.path == "/token" else refused
    told = HTTP.post(f"{make_vertex().url}/v1/messages", json={"model": "up/claude-x", "max_tokens": 9} | ASK)
    assert (told.status_code, told.json()["type"]) == (expected, "error"), told.text
