"""Hugging Face as an upstream: its errors, its forms of embeddings, names of the router."""

from __future__ import annotations

import asyncio
import json
import random
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.llm.conftest import WHO, Gateway
from tests.llm.test_cassettes import check

from nexus.core.secrets import Secret
from nexus.llm.account import Endpoint
from nexus.llm.errors import (
    ContextTooLong,
    Unsupported,
    UpstreamCredentials,
    UpstreamError,
    UpstreamMalformed,
    UpstreamModelMissing,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamUnavailable,
)
from nexus.llm.providers.huggingface import plug
from nexus.llm.types import EmbeddingRequest
from nexus.llm.wire.client import HttpAnswer
from nexus.testing.recordings import load_cassette
from nexus.testing.replay import replay
from nexus.testing.script import Script, response
from nexus.testing.upstream import FakeUpstream

HTTP = httpx.Client()
ROUTER = Endpoint(base_url="https://router.huggingface.co/v1", secret=Secret("hf_key"))
OWN = Endpoint(base_url="https://x.endpoints.huggingface.cloud/v1")
TEI = Endpoint(base_url="http://tei:8080/v1", options={"embeddings": "tei"})
ASKED = EmbeddingRequest(model="m", input=("a", "b"))


@pytest.mark.parametrize(
    ("status", "body", "error", "message"),
    [
        (401, {"error": "Invalid credentials in Authorization header"}, UpstreamCredentials, None),
        (402, {"error": "You have exceeded your monthly included credits"}, UpstreamCredentials, None),
        (403, {"error": "Your token has no access"}, UpstreamCredentials, None),
        (404, {"error": "Model not found"}, UpstreamModelMissing, None),
        (429, {"error": "Model is overloaded", "error_type": "overloaded"}, UpstreamRateLimited, None),
        (503, {"error": "Model m is currently loading", "estimated_time": 20.5}, UpstreamUnavailable, None),
        (503, {"error": "Service Unavailable"}, UpstreamUnavailable, None),
        (500, {"error": "boom at 10.0.0.7"}, UpstreamUnavailable, None),
        (424, {"error": "Request failed during generation", "error_type": "generation"}, UpstreamError, None),
        (422, {"error": "Template error: x", "error_type": "template_error"}, UpstreamRejected, "Template error: x"),
        (422, {"error": ["first", "second"]}, UpstreamRejected, "first second"),
        (400, {"message": "plain"}, UpstreamRejected, "plain"),
        (422, {"detail": "best_of must be > 0"}, UpstreamRejected, "best_of must be > 0"),
        (422, {"detail": [{"loc": ["body", "n"], "msg": "Field required"}]}, UpstreamRejected, "Field required"),
        (422, "Template error: syntax", UpstreamRejected, "Template error: syntax"),
        (400, {"error": {"message": "The requested model 'x' is not supported", "param": "model",
                         "code": "model_not_supported"}}, UpstreamRejected, "The requested model 'x' is not supported"),
        (413, {"error": "Input validation error: `inputs` must have less than 512 tokens. Given: 600",
               "error_type": "Validation"}, ContextTooLong, None),
        (422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000",
               "error_type": "validation"}, ContextTooLong, None),
    ],
)  # fmt: skip
def test_errors(status: int, body: Any, error: type[Exception], message: str | None) -> None:
    kind = "text/plain; charset=utf-8" if isinstance(body, str) else "application/json"
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    found = plug.error(HttpAnswer(status=status, headers={"content-type": kind}, body=data))
    assert type(found) is error
    if message is not None:
        assert found.message == message
    if "estimated_time" in body:
        assert found.retry_after == 20.5


def test_forms_of_embeddings() -> None:
    routed = plug.embed(ROUTER, "org/name", ASKED)
    assert routed.url == "https://router.huggingface.co/hf-inference/models/org/name/pipeline/feature-extraction"
    assert json.loads(routed.body) == {"inputs": ["a", "b"]}
    assert dict(routed.headers)["authorization"] == "Bearer hf_key"
    picked = plug.embed(ROUTER, "org/name:sambanova", ASKED)
    assert picked.url == "https://router.huggingface.co/sambanova/models/org/name/pipeline/feature-extraction"
    assert plug.embed(OWN, "m", ASKED).url == "https://x.endpoints.huggingface.cloud/v1/embeddings"
    tei = plug.embed(TEI, "m", EmbeddingRequest(model="m", input=("a",), dimensions=8))
    assert (tei.url, json.loads(tei.body)) == ("http://tei:8080/embed", {"inputs": ["a"], "dimensions": 8})
    assert plug.most_inputs(TEI, "m") == 32
    assert plug.most_inputs(OWN, "m") is None
    for request in (
        EmbeddingRequest(model="m", input=("a",), dimensions=8),
        EmbeddingRequest(model="m", input=((1,),)),
    ):
        with pytest.raises(Unsupported):
            plug.embed(ROUTER, "m", request)


def answer(body: Any) -> HttpAnswer:
    return HttpAnswer(status=200, headers={}, body=json.dumps(body).encode())


def test_answers_of_embeddings() -> None:
    found = plug.embedding(answer([[1, 2.5], [3, 4]]), ASKED)
    assert found.vectors == (struct.pack("<2f", 1, 2.5), struct.pack("<2f", 3, 4))
    assert (found.dimensions, found.usage) == (2, None)
    one = EmbeddingRequest(model="m", input=("a",))
    assert plug.embedding(answer([1, 2]), one).vectors == (struct.pack("<2f", 1, 2),)
    data = {"data": [{"index": 0, "embedding": [1.0]}], "usage": {"prompt_tokens": 3}}
    assert plug.embedding(answer(data), one).usage is not None
    with pytest.raises(Unsupported):
        plug.embedding(answer([[[1.0, 2.0], [3.0, 4.0]]]), one)
    for wrong in ([], [[]], [["x"]], [[1.0]], [None, None], "x"):
        with pytest.raises(UpstreamMalformed):
            plug.embedding(answer(wrong), ASKED)


@pytest.fixture
def gateway(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> Gateway:
    provider = {"name": "hf", "kind": "huggingface", "base_url": upstream.url, "api_key": "hf_secret"}
    return make_gateway(providers=[provider, provider | {"name": "tei", "embeddings": "tei"}])


def test_a_name_of_the_router_reaches_it_whole(gateway: Gateway, upstream: FakeUpstream) -> None:
    name = "meta-llama/Llama-3.3-70B-Instruct:together"
    body = {"model": f"hf/{name}", "messages": [{"role": "user", "content": "hi there"}], "x_unknown": 1}
    told = HTTP.post(f"{gateway.url}/v1/chat/completions", json=body)
    assert told.json()["choices"][0]["message"]["content"] == "hi there"
    assert upstream.seen[0].json == body | {"model": name}
    assert upstream.seen[0].headers["authorization"] == "Bearer hf_secret"


def test_vectors_of_a_tei_server(gateway: Gateway, upstream: FakeUpstream) -> None:
    request = EmbeddingRequest(model="tei/bge", input=tuple(f"text {i}" for i in range(40)))
    found = asyncio.run(gateway.llm.embed(WHO, request))
    assert len(found.vectors) == 40
    assert sorted(len(seen.json["inputs"]) for seen in upstream.seen) == [8, 32]
    assert {seen.path for seen in upstream.seen} == {"/embed"}


def test_a_model_that_loads_tells_how_long_to_wait(gateway: Gateway, upstream: FakeUpstream) -> None:
    loading = json.dumps({"error": "Model m is currently loading", "estimated_time": 120.0}).encode()
    upstream.answering = lambda _: Script((response(503, loading),))
    body = {"model": "hf/m", "messages": [{"role": "user", "content": "hi"}]}
    told = HTTP.post(f"{gateway.url}/v1/chat/completions", json=body)
    assert told.status_code == 503
    assert told.headers["retry-after"] == "120"


@pytest.mark.slow
def test_recorded_chats_arrive_as_they_were(gateway: Gateway, upstream: FakeUpstream, shared: Path) -> None:
    counts: Counter[str] = Counter()
    for path in sorted((shared / "data" / "llm" / "cassettes" / "huggingface").glob("*")):
        for exchange in load_cassette(path):
            if not exchange.path.endswith("/chat/completions"):
                counts[f"left out: {exchange.method} {exchange.path.split('/')[1]} is no conversation"] += 1
                continue
            gateway.rows.clear()
            upstream.seen.clear()
            upstream.answering = replay([exchange], cut=random.Random(1))
            asked = json.loads(exchange.request)
            body = asked | {"model": f"hf/{asked['model']}"}
            told = HTTP.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=20)
            counts[check(path.name, exchange, asked, told, upstream, gateway)] += 1
    print(dict(counts))
    assert counts["plain"] >= 16
    assert counts["streamed"] >= 4
