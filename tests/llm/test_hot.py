"""The doors of /v1 as their users see them: the official SDK, raw HTTP, and clients who leave."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import struct
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import httpx
import openai
import pytest
from tests.clock import until
from tests.llm.conftest import PATIENT, QUICK, Gateway, fast

from nexus.access.types import Principal, Scope
from nexus.ledger.service import Ledger
from nexus.llm.dialects.openai_chat import plug as openai_chat
from nexus.llm.errors import UnknownModel
from nexus.llm.service import LLMService
from nexus.llm.settings import LLMSettings
from nexus.testing.upstream import FAULTS, FakeUpstream, Said, Script, Seen, saying

# One client: making one reads every certificate of the machine.
HTTP = httpx.Client()
ASK = [{"role": "user", "content": "alpha beta gamma delta"}]


def sdk(gateway: Gateway) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="nx_test", max_retries=0)


def post(gateway: Gateway, body: object, path: str = "/v1/chat/completions") -> httpx.Response:
    content = body if isinstance(body, bytes | str) else json.dumps(body)
    return HTTP.post(gateway.url + path, content=content, headers={"content-type": "application/json"}, timeout=60)


def test_sdk_chats_and_the_row_has_tokens_and_a_price(gateway: Gateway, upstream: FakeUpstream) -> None:
    completion = sdk(gateway).chat.completions.create(model="up/gpt-4o", messages=ASK)
    assert completion.choices[0].message.content == "alpha beta gamma delta"
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == 12
    assert completion.model_extra == {"x_vendor_field": {"kept": True}}
    assert upstream.seen[0].model == "gpt-4o"
    assert upstream.seen[0].headers["authorization"] == "Bearer sk-upstream-secret-key"
    assert upstream.seen[0].headers["accept-encoding"] == "identity"
    row = gateway.row()
    assert (row.status, row.kind, row.model, row.provider) == ("ok", "chat", "up/gpt-4o", "up")
    assert (row.input_tokens, row.output_tokens, row.cache_read_tokens) == (12, 4, 4)
    assert row.cost_usd == pytest.approx((8 * 2.5 + 4 * 1.25 + 4 * 10) / 1e6)
    assert row.project_id == "prj_1"
    assert not row.estimated


@pytest.mark.parametrize("include_usage", [True, False])
def test_sdk_streams_with_and_without_usage(gateway: Gateway, upstream: FakeUpstream, include_usage: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if include_usage else {}
    chunks = list(sdk(gateway).chat.completions.create(model="up/echo", messages=ASK, stream=True, **options))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "alpha beta gamma delta"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert bool([chunk for chunk in chunks if chunk.usage]) is include_usage
    assert [chunk for chunk in chunks if not chunk.choices and not include_usage] == []
    assert upstream.seen[0].json["stream_options"] == {"include_usage": True}
    row = gateway.row()
    assert (row.status, row.input_tokens, row.output_tokens, row.stream) == ("ok", 12, 4, True)
    assert row.first_token_ms is not None
    assert row.cost_usd is None, "a model without a known price must not look free"


async def test_async_sdk_streams(gateway: Gateway) -> None:
    client = openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="nx_test", max_retries=0)
    async with client:
        stream = await client.chat.completions.create(model="up/echo", messages=ASK, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == "alpha beta gamma delta"


def test_unknown_fields_reach_the_provider_byte_for_byte(gateway: Gateway, upstream: FakeUpstream) -> None:
    odd = (
        '{"model":"up/echo","messages":[{"role":"user","content":"hi","x":1.0}],'
        '"vendor":{"a": [1.50, "\\u00e9"]},"seed":7}'
    )
    assert post(gateway, odd).status_code == 200
    assert upstream.seen[0].body.decode() == odd.replace("up/echo", "echo")


def test_streamed_extras_survive(gateway: Gateway) -> None:
    response = post(gateway, {"model": "up/echo", "messages": ASK, "stream": True, "service_tier": "flex"})
    lines = [line for line in response.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    assert response.headers["content-type"].startswith("text/event-stream")
    assert all(json.loads(line[6:])["id"] == "chatcmpl-fake" for line in lines[:-1])


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings_pass_through(gateway: Gateway, encoding: str) -> None:
    body = {"model": "up/text-embedding-3-small", "input": ["a", "b"], "encoding_format": encoding, "dimensions": 4}
    answer = post(gateway, body, "/v1/embeddings").json()
    assert answer["x_vendor"] == 1
    second = answer["data"][1]["embedding"]
    if encoding == "base64":
        second = list(struct.unpack("<4f", base64.b64decode(second)))
    assert second == [1.0, 2.0, 3.0, 4.0]
    row = gateway.row()
    assert (row.kind, row.input_tokens, row.items, row.cost_usd) == ("embedding", 6, 2, pytest.approx(6 * 0.02 / 1e6))


def test_sdk_embeds(gateway: Gateway) -> None:
    embedded = sdk(gateway).embeddings.create(model="up/any", input=["a", "b"])
    assert embedded.data[1].embedding[:2] == [1.0, 2.0]


def test_models_are_listed_and_shown(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway(routes=[{"name": "org/big", "deployments": [{"provider": "up", "model": "echo"}]}])
    client = sdk(gateway)
    assert [model.id for model in client.models.list()] == ["org/big"]
    assert client.models.retrieve("org/big").owned_by == "up"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("org/none")
    assert caught.value.code == "model_not_found"


BAD = [
    ({"messages": ASK}, 400, "model", "missing_required_parameter"),
    ({"model": "", "messages": ASK}, 400, "model", "missing_required_parameter"),
    ({"model": 3, "messages": ASK}, 400, "model", "invalid_type"),
    ({"model": "nope", "messages": ASK}, 404, "model", "model_not_found"),
    ({"model": "nope/x", "messages": ASK}, 404, "model", "model_not_found"),
    ({"model": "up/", "messages": ASK}, 404, "model", "model_not_found"),
    ({"model": "up/echo"}, 400, "messages", "missing_required_parameter"),
    ({"model": "up/echo", "messages": []}, 400, "messages", "invalid_value"),
    ({"model": "up/echo", "messages": "hi"}, 400, "messages", "invalid_type"),
    ({"model": "up/echo", "messages": None}, 400, "messages", "invalid_type"),
    ({"model": "up/echo", "messages": ["hi"]}, 400, "messages.0", "invalid_type"),
    ({"model": "up/echo", "messages": [{"content": "x"}]}, 400, "messages.0.role", "missing_required_parameter"),
    ({"model": "up/echo", "messages": [{"role": "king", "content": "x"}]}, 400, "messages.0.role", "invalid_value"),
    ({"model": "up/echo", "messages": [{"role": "user"}]}, 400, "messages.0.content", "missing_required_parameter"),
    (
        {"model": "up/echo", "messages": [*ASK, {"role": "user", "content": 5}]},
        400,
        "messages.1.content",
        "invalid_type",
    ),
    (
        {"model": "up/echo", "messages": [{"role": "user", "content": [{"text": "x"}]}]},
        400,
        "messages.0.content.0.type",
        "missing_required_parameter",
    ),
    (
        {"model": "up/echo", "messages": [{"role": "user", "content": [{"type": "text"}]}]},
        400,
        "messages.0.content.0.text",
        "missing_required_parameter",
    ),
    ({"model": "up/echo", "messages": ASK, "temperature": 2.1}, 400, "temperature", "invalid_value"),
    ({"model": "up/echo", "messages": ASK, "temperature": "hot"}, 400, "temperature", "invalid_type"),
    ({"model": "up/echo", "messages": ASK, "temperature": True}, 400, "temperature", "invalid_type"),
    ({"model": "up/echo", "messages": ASK, "top_p": -0.1}, 400, "top_p", "invalid_value"),
    ({"model": "up/echo", "messages": ASK, "n": 0}, 400, "n", "invalid_value"),
    ({"model": "up/echo", "messages": ASK, "n": 1.5}, 400, "n", "invalid_type"),
    ({"model": "up/echo", "messages": ASK, "max_tokens": 0}, 400, "max_tokens", "invalid_value"),
    ({"model": "up/echo", "messages": ASK, "stream": "yes"}, 400, "stream", "invalid_type"),
    ({"model": "up/echo", "messages": ASK, "tools": [1]}, 400, "tools.0", "invalid_type"),
    ([], 400, None, "malformed_body"),
    ("", 400, None, "malformed_body"),
    ('{"model": "up/echo", "messages": [', 400, None, "malformed_body"),
    ('{"model": "up/echo", "temperature": NaN, "messages": []}', 400, None, "malformed_body"),
    ('{"model": "up/echo", "temperature": 1e999, "messages": []}', 400, "temperature", "invalid_type"),
    ('{"model": "up/echo", "messages": [{"role": "user", "content": "\\ud800"}]}', 400, None, "malformed_body"),
    ('{"model": "up/echo", "messages": [{"role": "user", "content": "a\\u0000"}]}', 400, None, "malformed_body"),
    (b'{"model": "up/echo", "messages": [{"role": "user", "content": "\xff"}]}', 400, None, "malformed_body"),
    ('{"model": "up/echo", "messages": ' + "[" * 100_000 + "]" * 100_000 + "}", 400, "messages.0", "invalid_type"),
    ('{"model": "up/echo", "x": ' + "[" * 100_000 + "]" * 100_000 + ', "messages": []}', 400, None, "malformed_body"),
    ('{"model": "up/echo", "n": ' + "9" * 5000 + ', "messages": []}', 400, "n", "invalid_type"),
]


@pytest.mark.parametrize(("body", "status", "param", "code"), BAD, ids=[f"{i}-{case[3]}" for i, case in enumerate(BAD)])
def test_bad_input_names_the_field(
    gateway: Gateway, upstream: FakeUpstream, body: object, status: int, param: str | None, code: str
) -> None:
    response = post(gateway, body)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (status, param, code), error
    assert error["type"] == "invalid_request_error"
    assert not upstream.seen


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"input": "a"}, "model", "missing_required_parameter"),
        ({"model": "up/e"}, "input", "missing_required_parameter"),
        ({"model": "up/e", "input": []}, "input", "invalid_value"),
        ({"model": "up/e", "input": ""}, "input", "invalid_value"),
        ({"model": "up/e", "input": ["a", ""]}, "input.1", "invalid_value"),
        ({"model": "up/e", "input": ["a", 1]}, "input.0", "invalid_value"),
        ({"model": "up/e", "input": 1}, "input", "invalid_type"),
        ({"model": "up/e", "input": "a", "encoding_format": "hex"}, "encoding_format", "invalid_type"),
        ({"model": "up/e", "input": "a", "dimensions": 0}, "dimensions", "invalid_value"),
    ],
)
def test_bad_embedding_input_names_the_field(gateway: Gateway, body: object, param: str, code: str) -> None:
    response = post(gateway, body, "/v1/embeddings")
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, param, code), error


def test_too_large_a_body_is_413(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway(max_body=20_000, max_text_body=10_000)
    for size in (12_000, 30_000):
        response = post(gateway, {"model": "up/echo", "messages": [{"role": "user", "content": "x" * size}]})
        assert (response.status_code, response.json()["error"]["code"]) == (413, "too_large")


def test_a_missing_scope_is_403(gateway: Gateway, upstream: FakeUpstream, ledger: Ledger) -> None:
    from tests.llm.conftest import serving

    from nexus.access.types import Principal

    with serving(gateway.llm, ledger, Principal("key", "key_2", "prj_1")) as poor:
        response = post(poor, {"model": "up/echo", "messages": ASK})
    assert (response.status_code, response.json()["error"]["type"]) == (403, "permission_error")
    assert not upstream.seen


# name: (status, code) of the plain answer; (status or None for 200 with an error event, code) of the streamed one;
# a code of None is a proper answer.
MATRIX: dict[str, tuple[tuple[int, str | None], tuple[int, str | None]]] = {
    "400": ((400, "invalid_value"),) * 2,
    "400_with_secrets": ((400, "upstream_rejected"),) * 2,
    "401": ((502, "upstream_credentials"),) * 2,
    "402": ((502, "upstream_credentials"),) * 2,
    "403": ((502, "upstream_credentials"),) * 2,
    "404": ((404, "model_not_found"),) * 2,
    "408": ((504, "upstream_timeout"),) * 2,
    "409": ((409, None),) * 2,
    "413": ((413, "too_large"),) * 2,
    "422": ((422, None),) * 2,
    "429": ((429, "upstream_rate_limited"),) * 2,
    "429_retry_after": ((429, "upstream_rate_limited"),) * 2,
    "429_retry_date": ((429, "upstream_rate_limited"),) * 2,
    "500": ((503, "upstream_unavailable"),) * 2,
    "502": ((503, "upstream_unavailable"),) * 2,
    "503": ((503, "upstream_unavailable"),) * 2,
    "529": ((503, "upstream_unavailable"),) * 2,
    "context_too_long": ((400, "context_length_exceeded"),) * 2,
    "empty_200": ((502, "upstream_malformed"),) * 2,
    "html_200": ((502, "upstream_malformed"),) * 2,
    "json_error_200": ((429, "upstream_rate_limited"),) * 2,
    "not_http": ((502, "upstream_malformed"),) * 2,
    "gzip": ((502, "upstream_malformed"),) * 2,
    "redirect": ((502, "upstream_malformed"),) * 2,
    "huge_header": ((502, "upstream_malformed"),) * 2,
    "two_lengths": ((502, "upstream_malformed"),) * 2,
    "close_at_once": ((503, "upstream_unavailable"),) * 2,
    "reset_at_once": ((503, "upstream_unavailable"),) * 2,
    "stall_at_once": ((504, "upstream_timeout"),) * 2,
    "stall_after_head": ((504, "upstream_timeout"),) * 2,
    "truncated": ((502, "upstream_truncated"), (200, "upstream_truncated")),
    "reset_mid_stream": ((502, "upstream_truncated"), (200, "upstream_truncated")),
    "stall_mid_stream": ((504, "upstream_timeout"), (200, "upstream_timeout")),
    "no_done": ((200, None),) * 2,
    "no_finish_no_done": ((200, None), (200, "upstream_truncated")),
    "two_dones": ((200, None),) * 2,
    "crlf": ((200, None),) * 2,
    "split_everywhere": ((200, None),) * 2,
    "comments": ((200, None),) * 2,
    "no_blank_lines": ((200, None),) * 2,
    "broken_event": ((200, None), (200, "upstream_malformed")),
    "no_data_prefix": ((200, None), (502, "upstream_truncated")),
    "huge_event": ((200, None), (200, "upstream_malformed")),
    "error_event": ((200, None), (200, "upstream_unavailable")),
    "no_usage": ((200, None),) * 2,
    "usage_negative": ((200, None),) * 2,
    "usage_null": ((200, None),) * 2,
    "usage_nonsense": ((200, None),) * 2,
    "usage_twice": ((200, None),) * 2,
}
STREAM_ONLY = {name for name, fault in FAULTS.items() if fault.streams}
CASES = [(name, stream) for name in MATRIX for stream in (False, True) if stream or name not in STREAM_ONLY]


def test_the_matrix_has_every_fault() -> None:
    assert set(MATRIX) <= set(FAULTS)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "stream"), CASES, ids=[f"{n}-{'stream' if s else 'plain'}" for n, s in CASES])
def test_every_fault_is_told_in_the_callers_dialect_and_recorded_once(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, name: str, stream: bool
) -> None:
    timeouts: dict[str, float] = dict(PATIENT)
    if name.startswith("stall"):
        timeouts["between_tokens"] = 0.4
        if not stream:
            timeouts["total"] = 0.6
        elif name != "stall_mid_stream":
            timeouts["first_token"] = 0.4
    gateway = make_gateway(timeouts=timeouts, retries=1)
    status, code = MATRIX[name][stream]
    began = time.monotonic()
    ask = [{"role": "user", "content": "grüße aus köln ☃"}]
    response = post(gateway, {"model": f"up/fault-{name}", "messages": ask, "stream": stream})
    assert time.monotonic() - began < 15
    if stream and code is not None and response.status_code != 200:
        # How much had arrived before it broke is the network's choice; where it was nothing, a plain error is right.
        status = 502 if status == 200 else status
    assert response.status_code in (status, 503 if status == 502 else status), response.text
    for secret in (
        "sk-upstream",
        "127.0.0.1",
        "10.0.0.7",
        "Traceback",
        "0x7f",
        "org-secret",
        "169.254",
        "Please log in",
    ):
        assert secret not in response.text
    row = gateway.row()
    if stream and status == 200:
        events = [event for event in response.text.split("\n\n") if event.startswith("data:")]
        if code is None:
            assert events.count("data: [DONE]") == 1
            assert events[-1] == "data: [DONE]"
            pieces = [json.loads(event[6:]) for event in events[:-1]]
            words = [piece["choices"][0]["delta"].get("content") or "" for piece in pieces if piece["choices"]]
            assert "".join(words) == "grüße aus köln ☃"
        else:
            assert "[DONE]" not in response.text, "a broken stream must not look whole"
            assert json.loads(events[-1][6:])["error"]["code"] == code
            assert row.estimated
    elif code is not None:
        assert response.json()["error"]["code"] == code
    assert row.status == ("ok" if status == 200 and code is None else "error")
    if status == 200 and code is None:
        assert row.estimated is (name in ("no_usage", "usage_negative", "usage_null", "usage_nonsense"))
        assert row.input_tokens
    if name == "429_retry_after":
        assert response.headers["retry-after"] == "7"
    if name.startswith(("400", "401", "429", "context", "40")):
        assert len(upstream.seen) == 1, "what another try cannot change is not tried again"
    elif not stream and name in ("500", "reset_at_once", "empty_200"):
        assert len(upstream.seen) == 2


@pytest.mark.parametrize("name", ["500", "429", "401", "404", "reset_at_once", "stall_at_once", "html_200"])
def test_a_fault_before_the_first_token_moves_on_unseen(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, name: str
) -> None:
    route = {
        "name": "best",
        "deployments": [{"provider": "up", "model": f"fault-{name}"}],
        "fallbacks": ["next"],
    }
    if name.startswith("stall"):
        route["timeouts"] = PATIENT | {"first_token": 0.5}
    other = {"name": "next", "deployments": [{"provider": "up", "model": "echo"}]}
    gateway = make_gateway(routes=[route, other], retries=0)
    chunks = list(sdk(gateway).chat.completions.create(model="best", messages=ASK, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "alpha beta gamma delta"
    row = gateway.row()
    assert (row.status, row.route, row.details["attempts"]) == ("ok", "next", 2)


def test_a_failing_provider_is_left_alone_for_a_while(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    gateway = make_gateway(retries=0)
    for _ in range(5):
        assert post(gateway, {"model": "up/fault-500", "messages": ASK}).status_code == 503
    response = post(gateway, {"model": "up/fault-500", "messages": ASK})
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1
    assert len(upstream.seen) == 5
    assert post(gateway, {"model": "up/echo", "messages": ASK}).status_code == 200
    assert len(gateway.rows) == 7


@pytest.mark.parametrize("after", [0, 3, 99])
def test_a_client_who_leaves_a_stream_costs_what_was_made_and_stops_the_upstream(
    gateway: Gateway, upstream: FakeUpstream, after: int
) -> None:
    words = " ".join(f"w{i}" for i in range(1000))
    body = {"model": "up/slow-20", "messages": [{"role": "user", "content": words}], "stream": True}
    if after == 0:
        body["model"] = "up/fault-stall_after_head"
        gateway.llm.registry._timeouts = gateway.llm.registry._timeouts.__class__(first_token=30, total=60)
    with (
        httpx.stream("POST", f"{gateway.url}/v1/chat/completions", json=body, timeout=60)
        if after
        else _leaving(gateway, upstream, body) as response
    ):
        if after:
            got = 0
            for line in response.iter_lines():
                got += line.startswith("data:")
                if got >= after:
                    break
    left = time.monotonic()
    row = gateway.row()
    assert row.status == "client_disconnect"
    assert row.estimated
    assert row.details["finish_reason"] == "client_disconnect"
    assert row.input_tokens == -(-len(words) // 4)
    assert (row.output_tokens or 0) >= after * 0.4
    until(lambda: upstream.seen[0].closed is not None)
    assert upstream.seen[0].closed is not None
    assert upstream.seen[0].closed - left < 10


def _leaving(gateway: Gateway, upstream: FakeUpstream, body: object):  # type: ignore[no-untyped-def]  # a context manager either way
    import contextlib
    import socket

    @contextlib.contextmanager
    def leave():  # type: ignore[no-untyped-def]
        host, port = gateway.url.removeprefix("http://").split(":")
        data = json.dumps(body).encode()
        with socket.create_connection((host, int(port))) as client:
            client.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(data)
                + data
            )
            until(lambda: upstream.seen)
        yield None

    return leave()


def test_a_client_who_leaves_a_plain_call_stops_the_upstream(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    gateway = make_gateway()
    with _leaving(gateway, upstream, {"model": "up/fault-stall_at_once", "messages": ASK}):
        left = time.monotonic()
    row = gateway.row()
    assert (row.status, row.estimated) == ("client_disconnect", True)
    until(lambda: upstream.seen[0].closed is not None)
    assert upstream.seen[0].closed is not None
    assert upstream.seen[0].closed - left < 10


def test_signs_of_life_come_before_a_late_first_token(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    def late(request: Seen) -> Script:
        head, *pieces = saying(Said(text="late but whole"))(request).pieces
        return Script((head, 0.35, *pieces))

    upstream.answering = late
    gateway = make_gateway(heartbeat=0.1)
    for _ in range(5):  # where this machine rests all the while, one sign is enough
        text = post(gateway, {"model": "up/echo", "messages": ASK, "stream": True}).text
        assert ": ping\n\n" not in text
        if text.startswith(": ping\n: ping\n"):
            break
    assert text.startswith(": ping\n: ping\n")
    chunks = list(sdk(gateway).chat.completions.create(model="up/echo", messages=ASK, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "late but whole"


def test_a_failure_after_signs_of_life_is_an_event(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway(heartbeat=0.1, retries=0, timeouts=QUICK)
    response = post(gateway, {"model": "up/fault-stall_at_once", "messages": ASK, "stream": True})
    assert response.status_code == 200
    assert json.loads(response.text.split("data: ")[-1])["error"]["code"] == "upstream_timeout"
    assert "[DONE]" not in response.text
    assert gateway.row().status == "error"


def test_a_client_that_takes_nothing_is_let_go(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    import socket

    upstream.answering = saying(Said(text=f"{'x' * 200_000} " * 200))
    gateway = make_gateway(write_timeout=0.3)
    host, port = gateway.url.removeprefix("http://").split(":")
    data = json.dumps({"model": "up/echo", "messages": ASK, "stream": True}).encode()
    with socket.create_connection((host, int(port))) as client:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(data)
        client.sendall(head + data)
        row = gateway.row()
        assert row.status == "client_disconnect"
        until(lambda: upstream.seen[0].closed is not None)


@pytest.mark.slow
def test_many_clients_leave_and_no_row_is_missing(gateway: Gateway, upstream: FakeUpstream) -> None:
    body = json.dumps({"model": "up/slow-5", "messages": ASK, "stream": True}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body)
    import random
    import socket

    host, port = gateway.url.removeprefix("http://").split(":")
    pick = random.Random(3)
    for number in range(200):
        before = len(upstream.seen)
        with socket.create_connection((host, int(port))) as client:
            client.sendall(head + body)
            if number % 3:
                until(lambda: len(upstream.seen) > before)  # noqa: B023
            time.sleep(pick.random() * 0.03)
    until(lambda: len(gateway.rows) >= len(upstream.seen))
    time.sleep(0.3)
    assert len(gateway.rows) >= len(upstream.seen) > 100
    assert len({row.id for row in gateway.rows}) == len(gateway.rows)
    assert {row.status for row in gateway.rows} <= {"client_disconnect", "ok"}


def test_a_key_reaches_only_the_models_on_its_list(ledger: Ledger, upstream: FakeUpstream) -> None:
    provider = {"name": "up", "kind": "openai", "base_url": upstream.url, "api_key": "sk-upstream-secret-key"}
    llm = LLMService(settings=LLMSettings(**fast(providers=[provider])), record=ledger.record)
    bound = Principal("key", "key_1", "prj_1", frozenset({Scope.LLM_INVOKE}), models=("up/ec*",))
    call = openai_chat.parse(b'{"model": "up/echo", "messages": [{"role": "user", "content": "hi"}]}', headers={})
    llm.entry(bound, call)
    with pytest.raises(UnknownModel):
        llm.entry(replace(bound, models=("other",)), call)


def test_a_finished_stream_leaves_no_circle_behind(make_gateway: Callable[..., Gateway]) -> None:
    """What only the collector can free is kept for minutes under load: streams once took megabytes each second."""
    gateway = make_gateway(keepalive=0)  # each stream has a connection of its own, which ends with it
    ask = {"model": "up/slow-50+long-6", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    with httpx.Client(base_url=gateway.url) as client:
        for _ in range(3):
            client.post("/v1/chat/completions", json=ask)
        time.sleep(0.1)
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for _ in range(5):
                assert "[DONE]" in client.post("/v1/chat/completions", json=ask).text
            time.sleep(0.1)
            gc.collect()
            ours = Counter(type(item).__name__ for item in gc.garbage if type(item).__module__.startswith("nexus."))
            tasks = sum(isinstance(item, asyncio.Task) for item in gc.garbage)
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert (dict(ours), tasks) == ({}, 0)
