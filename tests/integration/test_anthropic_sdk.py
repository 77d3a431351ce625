"""The official Anthropic SDK, unchanged: base URL and key are all that differs."""

from __future__ import annotations

from typing import Any

import anthropic
import httpx2
import pytest

from nexus.cli.instance import Place

pytestmark = pytest.mark.slow
HELLO: list[Any] = [{"role": "user", "content": "Write one short sentence about the sea."}]
ASK: dict[str, Any] = {"model": "nexus-local", "max_tokens": 24, "messages": HELLO, "extra_body": {"temperature": 0}}


@pytest.fixture
def client(place: Place) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=place.url, api_key=place.key, max_retries=0, timeout=120)


def words(message: anthropic.types.Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_asks(client: anthropic.Anthropic) -> None:
    done = client.messages.create(system="Be brief.", **ASK)
    assert words(done)
    assert done.stop_reason in ("end_turn", "max_tokens")
    assert 0 < done.usage.output_tokens <= 24
    assert done.usage.input_tokens > 5
    assert done._request_id


def test_streams_what_it_says_whole(client: anthropic.Anthropic) -> None:
    with client.messages.stream(**ASK) as stream:
        kinds = [event.type for event in stream]
        done = stream.get_final_message()
    assert words(done) == words(client.messages.create(**ASK))
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    assert done.usage.input_tokens > 5


def test_a_bearer_token_is_a_key_too(place: Place) -> None:
    client = anthropic.Anthropic(base_url=place.url, auth_token=place.key, max_retries=0, timeout=120)
    assert words(client.messages.create(**ASK))


def test_counts_tokens(client: anthropic.Anthropic) -> None:
    assert client.messages.count_tokens(model="nexus-local", messages=HELLO).input_tokens > 5


def test_lists_models(client: anthropic.Anthropic) -> None:
    assert "nexus-local" in {model.id for model in client.models.list()}
    assert client.models.retrieve("nexus-local").type == "model"


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"model": "gpt-17"}, anthropic.NotFoundError, "model"),
        ({"messages": []}, anthropic.BadRequestError, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, anthropic.BadRequestError, "messages.0.role"),
        ({"extra_body": {"temperature": 1.5}}, anthropic.BadRequestError, "temperature"),
        ({"tools": [{"name": "f", "input_schema": {"type": "object"}}]}, anthropic.BadRequestError, "tools"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "u"}}]}]},
            anthropic.BadRequestError,
            "messages.0.content.0",
        ),
        ({"messages": [{"role": "user", "content": "x " * 2_000_000}]}, anthropic.RequestTooLargeError, "bytes"),
        (
            {"messages": [{"role": "user", "content": "word " * 40_000}]},
            anthropic.BadRequestError,
            "prompt is too long",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_are_the_sdk_s_own(
    client: anthropic.Anthropic, change: dict[str, Any], error: type[anthropic.APIStatusError], says: str, stream: bool
) -> None:
    with pytest.raises(error) as refused:
        list(client.messages.create(**(ASK | change), stream=stream))
    body: Any = refused.value.body
    assert body["type"] == "error"
    assert says in body["error"]["message"]
    assert body["request_id"] == refused.value.request_id


def test_a_wrong_key_is_the_sdk_s_own_error(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.AuthenticationError) as refused:
        client.with_options(api_key="nx_wrong").messages.create(**ASK)
    assert refused.value.body["error"]["type"] == "authentication_error"  # type: ignore[index]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/messages", 405),
        ("POST", "/v1/messages/none", 404),
        ("POST", "/v1/messages/batches", 404),
        ("DELETE", "/v1/messages/count_tokens", 405),
    ],
)
def test_paths_that_are_not_there_answer_in_the_same_shape(
    http: httpx2.Client, method: str, path: str, status: int
) -> None:
    answer = http.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()) == {"type", "error", "request_id"}
