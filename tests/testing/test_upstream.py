"""The fake upstream as a server: connections, accidents, what it remembers; and the addresses that lead nowhere."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import httpx
import pytest
from tests.clock import until

from nexus.testing.faults import FAULTS
from nexus.testing.said import sample
from nexus.testing.script import Seen, response
from nexus.testing.unreachable import UNREACHABLE, server_context
from nexus.testing.upstream import FakeUpstream, Said, Script, saying

ASK = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}


def test_it_remembers_what_was_asked_and_when_the_client_left() -> None:
    with FakeUpstream() as upstream:
        body = ASK | {"model": "slow-5000", "stream": True}
        with httpx.stream("POST", f"{upstream.url}/chat/completions", json=body):
            pass
        left = time.monotonic()
        until(lambda: upstream.seen[0].closed is not None)
        seen = upstream.seen[0]
        assert seen.closed is not None
        assert seen.closed - left < 4
        assert not seen.finished
        assert (seen.method, seen.route, seen.model, seen.json["stream"]) == (
            "POST",
            "/v1/chat/completions",
            "slow-5000",
            True,
        )


def test_it_forgets_old_requests_and_reads_chunked_ones() -> None:
    with FakeUpstream(lambda request: Script((response(200, request.body),)), remember=2) as upstream:
        with httpx.Client() as client:
            for number in range(9):
                assert client.post(upstream.url, content=iter([b"a", str(number).encode()])).text == f"a{number}"
        assert [seen.body for seen in upstream.seen[-2:]] == [b"a7", b"a8"]
        assert len(upstream.seen) <= 4
        assert upstream.connections == 1


def test_it_says_what_it_is_told_to() -> None:
    with FakeUpstream(saying(Said(text="no", finish="length"))) as upstream:
        choice = httpx.post(f"{upstream.url}/chat/completions", json=ASK).json()["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("no", "length")


def test_unknown_paths_and_faults_are_told() -> None:
    with FakeUpstream() as upstream:
        assert httpx.get(upstream.address + "/nothing").status_code == 404
        answer = httpx.post(f"{upstream.url}/chat/completions", json=ASK | {"model": "fault-none"})
        assert answer.status_code == 404
        assert "fault none" in answer.text


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_does_something_else_than_an_echo_or_is_whole(name: str) -> None:
    fault = FAULTS[name]
    with FakeUpstream() as upstream:
        body = ASK | {"model": f"fault-{name}", "stream": True}
        outcome = ""
        try:
            with (
                httpx.Client(timeout=0.3 if name.startswith(("stall", "slow")) else 30) as client,
                client.stream("POST", f"{upstream.url}/chat/completions", json=body) as r,
            ):
                text = b"".join(r.iter_raw())
                whole = b"hello" in text and text.count(b"[DONE]") >= 1 and r.status_code == 200
                outcome = "whole" if whole else "error"
        except (httpx.HTTPError, ValueError):
            outcome = "error"
        if fault.form != "frames":
            assert fault.outcome in (outcome, "either") or name in READ_AS_BYTES, outcome


# What only a reader of events, not of bytes, can tell from a whole stream.
READ_AS_BYTES = {"split_everywhere", "broken_event", "broken_utf8", "no_data_prefix", "huge_event"}


@pytest.mark.parametrize("name", UNREACHABLE)
def test_an_unreachable_address_gives_no_answer(name: str) -> None:
    with UNREACHABLE[name]() as url, pytest.raises(httpx.TransportError):
        httpx.get(url, timeout=0.3)


def test_tls_with_a_trusted_certificate_works(tmp_path: Path) -> None:
    context = server_context(tmp_path / "ca.pem")
    with FakeUpstream(tls=context) as upstream:
        trust = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        answer = httpx.post(f"{upstream.url}/chat/completions", json=ASK, verify=trust)
        assert answer.json()["choices"][0]["message"]["content"] == "hello"


@pytest.mark.parametrize(
    ("path", "headers", "body", "model", "credential"),
    [
        ("/v1/chat/completions", {"authorization": "Bearer k"}, b'{"model":"m"}', "m", "k"),
        ("/openai/deployments/dep/chat/completions?api-version=1", {"api-key": "k"}, b"{}", "dep", "k"),
        ("/v1beta/models/gem:generateContent?key=k", {}, b"{}", "gem", "k"),
        ("/model/us.x%3A0/converse", {}, b"{}", "us.x:0", ""),
        ("/as/fault-500/embed", {"x-api-key": "k"}, b'{"model":"m"}', "fault-500", "k"),
        ("/v1/x", {}, b"no json", "", ""),
    ],
)  # fmt: skip
def test_the_model_and_the_credential_are_found(
    path: str, headers: dict[str, str], body: bytes, model: str, credential: str
) -> None:
    seen = Seen(path, headers, body)
    assert (seen.model, seen.credential) == (model, credential)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"properties": {"a": {"enum": ["x", "y"]}, "b": {"type": ["null", "number"]}}}, {"a": "x", "b": 1.5}),
        ({"$defs": {"a": {"type": "boolean"}}, "type": "array", "items": {"$ref": "#/$defs/a"}}, [True]),
        ({"type": "array", "minItems": 2}, ["text", "text"]),
        ({"anyOf": [{"const": 7}, {}]}, 7),
        ({"type": "OBJECT", "properties": {"n": {"type": "INTEGER"}}}, {"n": 1}),
        ({"$ref": "#"}, "text"),
        (None, "text"),
    ],
)  # fmt: skip
def test_a_sample_fits_its_schema(schema: object, value: object) -> None:
    assert sample(schema) == value
