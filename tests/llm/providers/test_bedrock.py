"""Bedrock as an upstream: where calls go and with which credentials, what errors mean, embeddings, counts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.llm.conftest import WHO, Gateway

from nexus.core.secrets import Secret
from nexus.core.services import Services
from nexus.llm.account import Account, Endpoint
from nexus.llm.credentials.sigv4 import Signer
from nexus.llm.errors import (
    ContextTooLong,
    Unsupported,
    UpstreamCredentials,
    UpstreamError,
    UpstreamMalformed,
    UpstreamModelMissing,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamTruncated,
    UpstreamUnavailable,
)
from nexus.llm.forms.converse.embeddings import write_request
from nexus.llm.providers.bedrock import ConverseDecoder, plug
from nexus.llm.types import ChatRequest, EmbeddingRequest, Message, ResponseFormat, Text
from nexus.llm.wire.bedrock import error_of, post
from nexus.llm.wire.client import HttpAnswer, HttpClient
from nexus.testing.frames import frame
from nexus.testing.script import Script, Seen, response
from nexus.testing.upstream import FakeUpstream

HTTP = httpx.Client()
KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
UP = {"name": "up", "kind": "bedrock", "region": "us-east-1", "access_key_id": "AKIDEXAMPLE", "secret_access_key": KEY}
HELLO = (Message(role="user", parts=(Text(text="hello"),)),)


@pytest.fixture
def gateway(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> Gateway:
    return make_gateway(providers=[UP | {"base_url": upstream.url}])


def endpoint(secret: str | None = None, base_url: str = "", **options: Any) -> Endpoint:
    async def find() -> Endpoint:
        shelf = Services()
        shelf.put(HttpClient())
        account = Account(
            name="a", kind="bedrock", base_url=base_url, secret=Secret(secret) if secret else None, options=options
        )
        return await plug.endpoint(account, shelf)

    return asyncio.run(find())


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of this machine's own AWS set-up."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_BEARER_TOKEN_BEDROCK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.mark.usefixtures("bare")
def test_where_calls_go(monkeypatch: pytest.MonkeyPatch) -> None:
    assert endpoint("key", region="eu-west-1").base_url == "https://bedrock-runtime.eu-west-1.amazonaws.com"
    assert endpoint("key", region="cn-north-1").base_url == "https://bedrock-runtime.cn-north-1.amazonaws.com.cn"
    assert endpoint("key", "https://vpce-1.bedrock-runtime.us-west-2.vpce.amazonaws.com").base_url.startswith(
        "https://vpce-1."
    )
    assert endpoint("key", "http://proxy:8080/aws").base_url == "http://proxy:8080/aws"
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "env")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    found = endpoint()
    assert found.base_url == "https://bedrock-runtime.ap-south-1.amazonaws.com"
    signer = found.options["signer"]
    assert isinstance(signer, Signer)
    assert (signer.credentials.access_key_id, signer.region, signer.service) == ("env", "ap-south-1", "bedrock")
    assert found.expires_at is not None


@pytest.mark.usefixtures("bare")
def test_which_credential() -> None:
    assert endpoint("a-bedrock-key", region="us-east-1").secret == Secret("a-bedrock-key")
    own = endpoint("the-secret", region="us-east-1", access_key_id="AKID").options["signer"]
    assert (own.credentials.access_key_id, own.credentials.secret_access_key) == ("AKID", Secret("the-secret"))
    own = endpoint("a-bearer-of-the-environment", region="us-east-1", access_key_id="AKID", secret_access_key="mine")
    assert own.options["signer"].credentials.secret_access_key == Secret("mine")
    for secret, options in (
        (None, {}),
        (None, {"region": "us-east-1"}),
        ("bearer", {"region": "us-east-1", "profile": "x"}),
    ):
        with pytest.raises(UpstreamCredentials):
            endpoint(secret, **options)


def test_names_stand_encoded_in_the_path_and_a_key_travels_as_bearer() -> None:
    where = Endpoint(base_url="https://x", secret=Secret("k"), options={"headers": {"x-a": "b"}})
    arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/mi1"
    request = post(where, arn, "converse", b"{}")
    assert request.url == (
        "https://x/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Aapplication-inference-profile%2Fmi1/converse"
    )
    assert dict(request.headers) == {
        "content-type": "application/json", "accept": "application/json", "x-a": "b", "authorization": "Bearer k",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "message", "status", "error"),
    [
        ("AccessDeniedException", "no", 403, UpstreamCredentials),
        ("ExpiredTokenException:http://internal.amazon.com/coral/", "The token expired", 403, UpstreamCredentials),
        ("UnrecognizedClientException", "no", 403, UpstreamCredentials),
        ("InvalidSignatureException", "no", 403, UpstreamCredentials),
        ("", "The security token included in the request is expired", 403, UpstreamCredentials),
        ("com.amazon.coral.service#ThrottlingException", "slow", 429, UpstreamRateLimited),
        ("throttlingException", "slow", None, UpstreamRateLimited),
        ("ServiceQuotaExceededException", "quota", 400, UpstreamRateLimited),
        ("ModelNotReadyException", "loading", 429, UpstreamUnavailable),
        ("ModelTimeoutException", "slow", 408, UpstreamTimeout),
        ("ModelErrorException", "bad", 424, UpstreamError),
        ("modelStreamErrorException", "bad", None, UpstreamUnavailable),
        ("internalServerException", "bad", None, UpstreamUnavailable),
        ("serviceUnavailableException", "bad", None, UpstreamUnavailable),
        ("somethingNewException", "bad", None, UpstreamUnavailable),
        ("ResourceNotFoundException", "no model", 404, UpstreamModelMissing),
        ("ValidationException", "1 validation error detected", 400, UpstreamRejected),
        ("validationException", "bad", None, UpstreamRejected),
        ("ValidationException", "Input is too long for requested model.", 400, ContextTooLong),
        ("ValidationException", "The model returned: prompt is too long: 9 tokens > 8 maximum", 400, ContextTooLong),
        ("ValidationException", "The maximum tokens you requested exceeds the limit of 4096", 400, ContextTooLong),
        ("", "odd", 418, UpstreamRejected),
        ("", "odd", 500, UpstreamUnavailable),
        ("", None, 302, UpstreamMalformed),
    ],
)  # fmt: skip
def test_errors(kind: str, message: str | None, status: int | None, error: type[Exception]) -> None:
    found = error_of(kind, message, status=status)
    assert type(found) is error
    if error in (UpstreamRejected, ContextTooLong):
        assert found.message == message


def test_the_model_is_named_and_accounts_are_not() -> None:
    found = error_of("ValidationException", "The provided model identifier is invalid.", status=400)
    assert (found.field, found.status) == ("model", 400)
    text = "arn:aws:bedrock:us-east-1:123456789012:guardrail/x for 123456789012 (arn:aws-us-gov:iam::1:role/y)"
    message = error_of("ValidationException", text, status=400).message
    assert message == "... for ... (...)"


def test_newer_credentials_are_looked_for_after_a_refusal(
    gateway: Gateway, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = [True]

    def answer(seen: Seen) -> Script:
        if refused.pop(0) if refused else False:
            line = "x-amzn-errortype: ExpiredTokenException:http://internal.amazon.com/coral/"
            return Script((response(403, b'{"message": "expired"}', line),))
        body = {"output": {"message": {"role": "assistant", "content": [{"text": "hi"}]}}, "stopReason": "end_turn"}
        return Script((response(200, json.dumps(body).encode()),))

    upstream.answering = answer
    ask = {"model": "up/us.amazon.nova-lite-v1:0", "messages": [{"role": "user", "content": "x"}]}
    first = HTTP.post(f"{gateway.url}/v1/chat/completions", json=ask)
    assert first.status_code == 502
    assert first.json()["error"]["code"] == "upstream_credentials"
    asked: list[str] = []
    found = plug.endpoint

    async def endpoint_again(account: Account, services: Services) -> Endpoint:
        asked.append(account.name)
        return await found(account, services)

    monkeypatch.setattr("nexus.llm.providers.bedrock.BedrockProvider.endpoint", lambda _, a, s: endpoint_again(a, s))
    second = HTTP.post(f"{gateway.url}/v1/chat/completions", json=ask)
    assert second.json()["choices"][0]["message"]["content"] == "hi"
    assert second.json()["model"] == "up/us.amazon.nova-lite-v1:0"
    assert second.json()["id"]
    HTTP.post(f"{gateway.url}/v1/chat/completions", json=ask)
    assert asked == ["up"]


def test_a_guardrail_of_the_operator_holds(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    guard = {"guardrailIdentifier": "ours", "guardrailVersion": "1"}
    gateway = make_gateway(providers=[UP | {"base_url": upstream.url, "guardrailConfig": guard}])
    ask = {"model": "up/us.amazon.nova-lite-v1:0", "messages": [{"role": "user", "content": "x"}]}
    theirs = {"guardrailConfig": {"guardrailIdentifier": "none", "guardrailVersion": "DRAFT"}}
    assert HTTP.post(f"{gateway.url}/v1/chat/completions", json=ask | theirs).status_code == 200
    assert upstream.seen[0].json["guardrailConfig"] == guard


def test_json_by_a_forced_tool_is_the_streamed_text(gateway: Gateway, upstream: FakeUpstream) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "properties": {}}}}
    ask = {"model": "up/us.amazon.nova-lite-v1:0+tools", "messages": [{"role": "user", "content": "x"}]}
    for stream in (False, True):
        response = HTTP.post(
            f"{gateway.url}/v1/chat/completions", json=ask | {"response_format": form, "stream": stream}
        )
        sent = upstream.seen[-1].json["toolConfig"]
        assert sent["toolChoice"] == {"tool": {"name": sent["tools"][0]["toolSpec"]["name"]}}
        if not stream:
            choice = response.json()["choices"][0]
            assert json.loads(choice["message"]["content"]) == {}
            assert (choice["finish_reason"], choice["message"].get("tool_calls")) == ("stop", None)
            continue
        lines = [line[6:] for line in response.text.split("\n") if line.startswith("data: ")]
        deltas = [json.loads(line)["choices"][0]["delta"] for line in lines[:-1] if json.loads(line)["choices"]]
        assert json.loads("".join(delta.get("content") or "" for delta in deltas)) == {}
        assert not any("tool_calls" in delta for delta in deltas)


def event(kind: str, **body: Any) -> bytes:
    return frame(json.dumps(body).encode(), event_type=kind, content_type="application/json", message_type="event")


START = event("messageStart", role="assistant", p="abc")
WORD = event("contentBlockDelta", contentBlockIndex=0, delta={"text": "hi"})
STOP = event("messageStop", stopReason="end_turn")
META = event("metadata", usage={"inputTokens": 1, "outputTokens": 1, "totalTokens": 2}, metrics={"latencyMs": 1})


def test_a_stream_is_over_with_its_metadata_and_not_before() -> None:
    for frames, whole in (
        ([START, WORD, STOP, META], True),
        ([START, WORD, META, STOP], True),
        ([START, WORD], False),
        ([START], False),
        ([], False),
    ):
        decoder = ConverseDecoder()
        for piece in frames:
            decoder.feed(piece)
        assert decoder.tally.done is whole
        if whole:
            assert decoder.end() == []
            assert decoder.feed(WORD) == []
        else:
            with pytest.raises(UpstreamTruncated):
                decoder.end()


def test_a_stream_that_was_stopped_is_whole_without_figures() -> None:
    decoder = ConverseDecoder()
    decoder.feed(START + WORD + STOP)
    assert not decoder.tally.done
    assert decoder.end() == []
    assert decoder.tally.done
    assert decoder.tally.usage is None


def test_nothing_is_given_out_before_the_first_words() -> None:
    decoder = ConverseDecoder()
    assert decoder.feed(START) == []
    failed = frame(b'{"message": "m"}', message_type="exception", exception_type="throttlingException")
    assert decoder.feed(failed) == []
    assert isinstance(decoder.tally.failure, UpstreamRateLimited)
    decoder = ConverseDecoder()
    first = decoder.feed(START + WORD)[0]
    assert (first.role, first.text) == ("assistant", "hi")
    assert first.id is not None


def texts(*given: str, **more: Any) -> EmbeddingRequest:
    return EmbeddingRequest(model="m", input=given, **more)


@pytest.mark.parametrize(
    ("model", "request_", "body"),
    [
        ("amazon.titan-embed-text-v1", texts("a"), {"inputText": "a"}),
        ("us.amazon.titan-embed-text-v2:0", texts("a", dimensions=256), {"inputText": "a", "dimensions": 256}),
        ("amazon.titan-embed-image-v1", texts("a", dimensions=256),
         {"inputText": "a", "embeddingConfig": {"outputEmbeddingLength": 256}}),
        ("amazon.nova-2-multimodal-embeddings-v1:0", texts("a", dimensions=256, task="query"),
         {"taskType": "SINGLE_EMBEDDING", "singleEmbeddingParams": {
             "embeddingPurpose": "TEXT_RETRIEVAL", "embeddingDimension": 256,
             "text": {"truncationMode": "NONE", "value": "a"}}}),
        ("cohere.embed-english-v3", texts("a", "b", task="query"), {"texts": ["a", "b"], "input_type": "search_query"}),
        ("global.cohere.embed-v4:0", texts("a", dimensions=512),
         {"texts": ["a"], "input_type": "search_document", "embedding_types": ["float"], "output_dimension": 512}),
    ],
)  # fmt: skip
def test_requests_for_embeddings(model: str, request_: EmbeddingRequest, body: dict[str, Any]) -> None:
    assert write_request(model, request_) == body


@pytest.mark.parametrize(
    ("model", "request_", "field"),
    [
        ("amazon.nova-lite-v1:0", texts("a"), "model"),
        ("amazon.titan-embed-text-v1", texts("a", dimensions=256), "dimensions"),
        ("cohere.embed-english-v3", texts("a", dimensions=256), "dimensions"),
        ("cohere.embed-english-v3", EmbeddingRequest(model="m", input=((1, 2),)), "input"),
    ],
)
def test_refused_embeddings(model: str, request_: EmbeddingRequest, field: str) -> None:
    with pytest.raises(Unsupported) as caught:
        write_request(model, request_)
    assert caught.value.field == field


def test_many_texts_are_asked_in_the_pieces_that_the_model_takes(gateway: Gateway, upstream: FakeUpstream) -> None:
    body = {"model": "up/amazon.titan-embed-text-v2:0", "input": [f"text {i}" for i in range(20)], "dimensions": 256}
    answer = HTTP.post(f"{gateway.url}/v1/embeddings", json=body).json()
    assert [item["index"] for item in answer["data"]] == list(range(20))
    assert len(answer["data"][0]["embedding"]) == 256
    assert sorted(seen.json["inputText"] for seen in upstream.seen) == sorted(body["input"])
    assert answer["usage"]["prompt_tokens"] == 60
    assert gateway.row().input_tokens == 60
    for model, count in (("cohere.embed-v4:0", 1), ("amazon.nova-2-multimodal-embeddings-v1:0", 20)):
        upstream.seen.clear()
        told = HTTP.post(f"{gateway.url}/v1/embeddings", json=body | {"model": f"up/{model}"}).json()
        assert (len(told["data"]), len(upstream.seen)) == (20, count)


def test_a_refused_embedding_is_told_in_the_clients_form(gateway: Gateway) -> None:
    body = {"model": "up/cohere.embed-v4+fault-400", "input": "x"}
    told = HTTP.post(f"{gateway.url}/v1/embeddings", json=body)
    assert told.status_code == 400
    assert told.json()["error"]["code"] == "upstream_rejected"


def test_counts_by_converse_and_estimates_where_there_are_none(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    gateway = make_gateway(providers=[UP | {"base_url": upstream.url, "api": "converse"}])
    body = {"messages": [{"role": "user", "content": "a question of some length"}]}
    where = f"{gateway.url}/v1/messages/count_tokens"
    told = HTTP.post(where, json=body | {"model": "up/us.anthropic.claude-sonnet-4-5-20250929-v1:0"})
    assert told.json() == {"input_tokens": 12}
    assert upstream.seen[0].path.endswith("/model/anthropic.claude-sonnet-4-5-20250929-v1%3A0/count-tokens")
    assert set(upstream.seen[0].json["input"]) == {"converse"}
    told = HTTP.post(where, json=body | {"model": "up/us.amazon.nova-lite-v1:0"})
    assert told.json()["input_tokens"] == 7
    assert len(upstream.seen) == 1


def test_a_profile_of_our_own_is_not_counted_but_estimated(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/mi1dadi0g15f"
    for api in ("invoke", "converse"):
        gateway = make_gateway(providers=[UP | {"base_url": upstream.url, "family": "anthropic", "api": api}])
        body = {"model": f"up/{arn}", "messages": [{"role": "user", "content": "a question of some length"}]}
        told = HTTP.post(f"{gateway.url}/v1/messages/count_tokens", json=body)
        assert told.json()["input_tokens"] == 7
    assert not upstream.seen


def test_code_in_this_process_asks_in_our_own_form(gateway: Gateway, upstream: FakeUpstream) -> None:
    form = ResponseFormat(kind="json_object")
    asked = ChatRequest(model="up/us.amazon.nova-lite-v1:0+tools", messages=HELLO, response_format=form)
    assert json.loads(asyncio.run(gateway.llm.chat(WHO, asked)).text) == {}
    assert upstream.seen[0].json["toolConfig"]["toolChoice"]


@pytest.mark.parametrize(
    "body", [b"{}", b'{"output": {}}', b'{"output": {"message": {"content": [{"text": 5}]}}}', b"[]"]
)
def test_what_is_no_answer(body: bytes) -> None:
    with pytest.raises(UpstreamMalformed):
        plug.completion(HttpAnswer(status=200, headers={}, body=body))
