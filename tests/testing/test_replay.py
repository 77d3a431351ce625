"""Recordings are read whatever wrote them, and each request gets the answer that was recorded for it."""

from __future__ import annotations

import base64
import gzip
import json
import random
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from nexus.testing.recordings import Exchange, load, load_cassette
from nexus.testing.replay import ReplayServer, as_script, form, replay
from nexus.testing.script import Seen, chunked

URL = "https://api.example.com/v1/chat/completions"
ASKED = {"method": "POST", "uri": URL, "headers": {}, "body": '{"model":"m"}'}
TOLD = {
    "status": {"code": 200, "message": "OK"},
    "headers": {"Content-Type": ["text/plain"]},
    "body": {"string": "yes"},
}


def har(body: str, **more: str) -> dict[str, Any]:
    request = {"method": "POST", "url": URL, "headers": [], "postData": {"mimeType": "a/b", "text": '{"model":"m"}'}}
    content = {"mimeType": "text/plain", "text": body, **more}
    pairs = [{"name": "Content-Type", "value": "text/plain"}]
    return {
        "log": {"entries": [{"request": request, "response": {"status": 200, "headers": pairs, "content": content}}]}
    }


# Each of them holds the same exchange.
LAYOUTS: dict[str, bytes] = {
    "vcr.yaml": yaml.dump({"interactions": [{"request": ASKED, "response": TOLD}], "version": 1}).encode(),
    "single.json": json.dumps({"request": ASKED, "response": TOLD | {"body": "yes"}}).encode(),
    "go.yaml": yaml.dump(
        {"interactions": [{"request": ASKED, "response": TOLD | {"status": "200 OK", "code": 200, "body": "yes"}}]}
    ).encode(),
    "go2.yaml": yaml.dump(
        {"interactions": [{"request": ASKED, "response": TOLD | {"status": "200 OK", "body": "yes"}}]}
    ).encode(),
    "langchain.yaml.gz": gzip.compress(yaml.dump({"requests": [ASKED], "responses": [TOLD]}).encode(), mtime=0),
    "packed.yaml": yaml.dump(
        {"interactions": [{"request": ASKED, "response": TOLD | {"body": {"string": gzip.compress(b"yes", mtime=0)}}}]}
    ).encode(),
    "deflated.yaml": yaml.dump(
        {"interactions": [{"request": ASKED, "response": TOLD | {
            "headers": {"content-encoding": ["deflate"], "Content-Type": ["text/plain"]},
            "body": {"string": zlib.compress(b"yes")}}}]}
    ).encode(),
    "base64.yaml": yaml.dump(
        {"interactions": [{"request": ASKED, "response": TOLD | {"body": {"base64_string": base64.b64encode(b"yes")}}}]}
    ).encode(),
    "browser.har": json.dumps(har("yes")).encode(),
    "browser64.har": json.dumps(har(base64.b64encode(b"yes").decode(), encoding="base64")).encode(),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_holds_the_same_exchange(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(LAYOUTS[name])
    found = load([tmp_path])
    assert not found.left_out
    (exchange,) = found.exchanges
    assert (exchange.method, exchange.path, exchange.status, exchange.body) == (
        "POST",
        "/v1/chat/completions",
        200,
        b"yes",
    )
    assert exchange.fields == {"model": "m"}
    assert exchange.headers["content-type"] == "text/plain"


def test_a_parsed_body_and_odd_tags_are_read(tmp_path: Path) -> None:
    text = "interactions:\n- request: {method: post, uri: 'https://a/b?c=1#d', parsed_body: {x: =, day: 2025-01-01}}\n"
    (tmp_path / "a.yaml").write_text(text + "  response: {status: {code: 201}, parsed_body: [1]}\n")
    (exchange,) = load_cassette(tmp_path / "a.yaml")
    assert (exchange.method, exchange.path, exchange.query) == ("POST", "/b", "c=1")
    assert (exchange.fields, exchange.status, exchange.body) == ({"x": "=", "day": "2025-01-01"}, 201, b"[1]")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"- a\n- b\n", "has no exchange"),
        (b"a: [", "is no recording"),
        (b"{bad json", "is no recording"),
        (b"\xff\xfe\x00", "is no recording"),
        (b"\x1f\x8bnot gzip", "cannot be unpacked"),
        (b"interactions:\n- request: {}\n  response: {status: soon}\n", "is no number"),
    ],
)
def test_what_is_no_recording_is_left_out_with_the_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.yaml").write_bytes(content)
    (tmp_path / "notes.txt").write_text("not looked at")
    found = load([tmp_path])
    assert not found.exchanges
    assert [reason in why for why in found.left_out.values()] == [True], found.left_out


# Files and exchanges of each folder; a change of these figures is a change of the data or a loss.
FOLDERS = {
    "anthropic": (136, 198), "bedrock": (100, 136), "cohere": (25, 29), "deepseek": (12, 17), "embeddings": (11,
    11), "gemini": (91, 170), "groq": (42, 66), "huggingface": (20, 25), "mistral": (48, 57), "ollama": (2, 3),
    "openai": (168, 265), "openai-responses": (43, 69), "openrouter": (25, 29), "vertexai": (11, 11),
}  # fmt: skip


@pytest.mark.slow
def test_all_recordings_are_read(shared: Path) -> None:
    root = shared / "data" / "llm" / "cassettes"
    files, exchanges, forms = {}, {}, Counter[str]()
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        found = load([folder])
        assert not found.left_out, found.left_out
        files[folder.name], exchanges[folder.name] = len(found.files), len(found.exchanges)
        forms.update(form(exchange.path) for exchange in found.exchanges)
        for exchange in found.exchanges:
            assert exchange.framed or exchange.body[:2] != b"\x1f\x8b"
    assert {name: (files[name], exchanges[name]) for name in files} == FOLDERS
    assert (sum(files.values()), sum(exchanges.values())) == (734, 1086)
    spoken = {
        "chat/completions": 325, "messages": 155, "responses": 152, ":generateContent": 113, "converse": 84,
        "embeddings": 26, ":streamGenerateContent": 21, "converse-stream": 13, "completions": 8,
    }  # fmt: skip
    assert {name: forms[name] for name in spoken} == spoken


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/chat/completions", "chat/completions"),
        ("/openai/deployments/gpt/chat/completions", "chat/completions"),
        ("/completions", "completions"),
        ("/v1/completions", "completions"),
        ("/v1/messages", "messages"),
        ("/v1/messages/count_tokens", "count_tokens"),
        ("/v1/threads/t/messages", "threads/t/messages"),
        ("/v1beta/models/g:streamGenerateContent", ":streamGenerateContent"),
        ("/model/us.x%3A0/converse", "converse"),
        ("/v1/responses/resp_1", "responses/resp_1"),
        ("/v1/responses/resp_1/cancel", "cancel"),
        ("/", "/"),
    ],
)
def test_endpoints_are_told_apart_by_their_ends(path: str, expected: str) -> None:
    assert form(path) == expected


def exchange(asked: dict[str, Any], body: bytes, *, kind: str = "application/json", url: str = URL) -> Exchange:
    return Exchange("POST", url, json.dumps(asked).encode(), 200, {"content-type": kind, "x-own": "kept"}, body)


def ask(answering: Any, asked: dict[str, Any], path: str = "/x/v1/chat/completions") -> bytes:
    return b"".join(answering(Seen(path, {}, json.dumps(asked).encode())).pieces).rpartition(b"\r\n\r\n")[2]


def test_the_same_body_comes_first_then_order_then_likeness() -> None:
    one, two = {"model": "m", "messages": ["a"]}, {"model": "m", "messages": ["a", "b", "c"]}
    answering = replay([exchange(one, b"1"), exchange(two, b"2"), exchange(one, b"3"), exchange(one, b"4")])
    assert ask(answering, {"messages": ["a", "b", "c"], "model": "renamed", "stream_options": {}}) == b"2"
    assert [ask(answering, one) for _ in range(4)] == [b"1", b"3", b"4", b"1"]
    fresh = replay([exchange(one, b"1"), exchange(two, b"2")])
    assert ask(fresh, {"messages": ["a", "b", "c"], "temperature": 1}) == b"2"
    assert ask(fresh, {"messages": ["a", "b", "c"], "temperature": 1}) == b"1"
    assert b"Nothing is recorded" in ask(fresh, one, "/v1/embeddings")


def test_a_stream_is_replayed_in_its_events_its_frames_or_any_cuts() -> None:
    from nexus.testing.frames import frame

    events = "data: grüße\n\ndata: ☃\n\n".encode()
    frames = frame(b"1", event_type="a") + frame(b"22", event_type="b")
    for body, kind in ((events, "text/event-stream"), (frames, "application/vnd.amazon.eventstream")):
        recorded = exchange({}, body, kind=kind)
        head, *pieces = as_script(recorded).pieces
        assert isinstance(head, bytes)
        assert b"x-own: kept" in head
        assert len(pieces) == 3
        for seed in range(20):
            _, *cuts, end = as_script(recorded, cut=random.Random(seed)).pieces
            assert end == b"0\r\n\r\n"
            whole = b"".join(piece.split(b"\r\n", 1)[1][:-2] for piece in cuts if isinstance(piece, bytes))
            assert whole == body


def test_the_server_replays_files(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(LAYOUTS["vcr.yaml"])
    (tmp_path / "b.yaml").write_text("nothing: here")
    with ReplayServer([tmp_path]) as server:
        assert len(server.recordings.left_out) == 1
        answer = httpx.post(f"{server.url}/chat/completions", json={"model": "m"})
        assert (answer.text, answer.headers["content-type"]) == ("yes", "text/plain")
        assert httpx.get(server.url).status_code == 404
    assert chunked(b"a") == b"1\r\na\r\n"
