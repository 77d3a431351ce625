"""Files by our ids in language requests: what the official SDKs name, and what reaches every kind of provider."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from google import genai
from google.genai import errors, types
from tests.llm.conftest import Gateway, fast, serving
from tests.llm.speakers import account, installed_kinds

from nexus.access.types import Principal, Scope
from nexus.core.clock import SystemClock
from nexus.files.errors import FileNotFound, FileTooLarge
from nexus.files.routes import router as file_routes
from nexus.files.service import FileService
from nexus.ledger.service import Ledger
from nexus.llm.errors import InvalidRequest, Unsupported
from nexus.llm.forms.named_files import has_mark
from nexus.llm.hot import DIALECTS
from nexus.llm.named_files import NamedFiles
from nexus.llm.responses.service import ResponsesService, responses_form
from nexus.llm.service import LLMService
from nexus.llm.settings import LLMSettings
from nexus.llm.types import Call, Media
from nexus.runs.service import RunService
from nexus.runs.settings import RunsSettings
from nexus.storage.blobs.local import LocalBlobs
from nexus.storage.db import Database
from nexus.testing.script import Script
from nexus.testing.upstream import FakeUpstream, answer

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(64))
PDF = b"%PDF-1.4\n" + bytes(range(128, 200))
WAV = b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(20)
CSV = b"city,people\nOslo,700000\n"
SCOPES = frozenset({Scope.LLM_INVOKE, Scope.FILES_READ, Scope.FILES_WRITE})
MINE = Principal("key", "key_1", "prj_1", SCOPES, key_id="key_1")
OTHERS = Principal("key", "key_2", "prj_2", SCOPES, key_id="key_2")
UNKNOWN = "file_01ja8w3xk5v0m2c7tqz9r4h6ye"
HTTP = httpx.Client()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{b64(data)}"


@dataclass
class House:
    """Two projects at one service with a provider of every kind, each with the fake behind it."""

    gateway: Gateway
    other: Gateway
    store: ResponsesService
    files: FileService
    upstream: FakeUpstream

    def openai(self, gateway: Gateway | None = None) -> openai.OpenAI:
        address = (gateway or self.gateway).url
        return openai.OpenAI(base_url=f"{address}/v1", api_key="x", max_retries=0, http_client=HTTP)

    @cached_property
    def anthropic(self) -> anthropic.Anthropic:
        return anthropic.Anthropic(base_url=self.gateway.url, api_key="x", max_retries=0)

    @cached_property
    def genai(self) -> genai.Client:
        return genai.Client(api_key="x", http_options={"base_url": self.gateway.url})

    def post(self, path: str, body: Any, gateway: Gateway | None = None) -> httpx.Response:
        address = (gateway or self.gateway).url
        return HTTP.post(address + path, content=body if isinstance(body, bytes) else json.dumps(body))

    def upload(self, name: str, data: bytes, gateway: Gateway | None = None) -> str:
        """Upload as OpenAI's client does; its types are guessed from names, and the bytes have the last word."""
        return self.openai(gateway).files.create(file=(name, data), purpose="user_data").id

    @property
    def sent(self) -> Any:
        return self.upstream.seen[-1].json


@pytest.fixture
def make_house(
    upstream: FakeUpstream, ledger: Ledger, database: Database, tmp_path: Path
) -> Iterator[Callable[..., House]]:
    with ExitStack() as stack:

        def make(**changes: Any) -> House:
            providers = [account(kind, upstream) for kind in installed_kinds()]
            settings = LLMSettings(**fast(**{"providers": providers} | changes))
            # One for each loop, as each process has its own.
            files, here, there = (FileService(database=database, blobs=LocalBlobs(tmp_path / "files")) for _ in "123")
            llm = LLMService(settings=settings, record=ledger.record, files=files)
            runs = RunService(database=database, settings=RunsSettings())
            store = ResponsesService(
                database=database, llm=llm, runs=runs, form=responses_form(), clock=SystemClock(), days=30
            )
            llm.remember(store)
            mine = stack.enter_context(serving(llm, ledger, MINE, store, here, routers=(file_routes,)))
            other = stack.enter_context(serving(llm, ledger, OTHERS, store, there, routers=(file_routes,)))
            return House(mine, other, store, files, upstream)

        yield make


@pytest.fixture
def house(make_house: Callable[..., House]) -> House:
    return make_house()


def ask_chat(house: House, model: str, file_id: str, kind: str = "document") -> None:
    parts: Any = [{"type": "text", "text": "look"}, {"type": "file", "file": {"file_id": file_id}}]
    house.openai().chat.completions.create(model=model, messages=[{"role": "user", "content": parts}])


def ask_responses(house: House, model: str, file_id: str, kind: str = "document") -> None:
    part = {"type": "input_image" if kind == "image" else "input_file", "file_id": file_id}
    parts: Any = [{"type": "input_text", "text": "look"}, part]
    house.openai().responses.create(model=model, input=[{"role": "user", "content": parts}], store=False)


def ask_messages(house: House, model: str, file_id: str, kind: str = "document") -> None:
    block: Any = {"type": kind, "source": {"type": "file", "file_id": file_id}}
    said: Any = [{"role": "user", "content": [{"type": "text", "text": "look"}, block]}]
    house.anthropic.beta.messages.create(model=model, max_tokens=10, messages=said, betas=["files-api-2025-04-14"])


def ask_gemini(house: House, model: str, file_id: str, kind: str = "document") -> None:
    part = types.Part.from_uri(file_uri=f"{house.gateway.url}/v1/files/{file_id}", mime_type="application/octet-stream")
    house.genai.models.generate_content(model=model, contents=["look", part])


ASK: dict[str, Callable[..., None]] = {
    "openai_chat": ask_chat,
    "openai_responses": ask_responses,
    "anthropic_messages": ask_messages,
    "gemini": ask_gemini,
}
PLACES = {
    "openai_chat": "messages.0.content.1.file.file_id",
    "openai_responses": "input.0.content.1.file_id",
    "anthropic_messages": "messages.0.content.1.source.file_id",
    "gemini": "contents.0.parts.1.fileData.fileUri",
}
CODES = {404: (FileNotFound.code,), 413: (FileTooLarge.code,), 400: (InvalidRequest.code, Unsupported.code)}
ERRORS = (openai.APIStatusError, anthropic.APIStatusError, errors.APIError)


def refusal(house: House, dialect: str, model: str, file_id: str, kind: str = "document") -> tuple[int, str]:
    """Ask for what must be refused, and is on record as such; return the status and the words."""
    before = len(house.upstream.seen)
    house.gateway.rows.clear()
    with pytest.raises(ERRORS) as refused:
        ASK[dialect](house, model, file_id, kind)
    assert len(house.upstream.seen) == before, "nothing reaches a provider"
    status: int = getattr(refused.value, "status_code", None) or refused.value.code  # type: ignore[union-attr]
    row = house.gateway.row()
    assert (row.kind, row.model, row.status, row.cost_usd, row.input_tokens) == ("chat", model, "error", None, None)
    assert row.error_code in CODES[status]
    return status, str(refused.value)


@pytest.mark.parametrize("dialect", ASK)
def test_every_provider_gets_what_the_file_holds(house: House, dialect: str) -> None:
    picture, document, table = house.upload("a.png", PNG), house.upload("bill.pdf", PDF), house.upload("t.csv", CSV)
    for kind in installed_kinds():
        model = f"{kind}/claude-sonnet-4-5" if kind == "bedrock" else f"{kind}/m"
        for held, file_id, block in ((PNG, picture, "image"), (PDF, document, "document"), (CSV, table, "document")):
            house.gateway.rows.clear()
            ASK[dialect](house, model, file_id, block)
            sent = house.upstream.seen[-1].body
            told = json.dumps(CSV.decode())[1:-1].encode() if held is CSV else b64(held).encode()
            assert told in sent, (kind, block, sent)
            assert b"file_0" not in sent, (kind, block, sent)
            assert len(house.gateway.rows) == 1, (kind, block)


def test_a_form_s_own_provider_gets_the_form_s_own_part(house: House) -> None:
    picture, document = house.upload("a.png", PNG), house.upload("bill.pdf", PDF)
    sound, table = house.upload("s.wav", WAV), house.upload("t.csv", CSV)
    mark = {"cache_control": {"type": "ephemeral"}}
    inline = {"inlineData": {"mimeType": "application/pdf", "data": b64(PDF)}}

    def chat(part: Any) -> Any:
        body = {"model": "openai/m", "messages": [{"role": "user", "content": [part]}]}
        return house.post("/v1/chat/completions", body), lambda: house.sent["messages"][0]["content"][0]

    def messages(block: Any) -> Any:
        body = {"model": "anthropic/m", "max_tokens": 9, "messages": [{"role": "user", "content": [block]}]}
        return house.post("/v1/messages", body), lambda: house.sent["messages"][0]["content"][0]

    def responses(item: Any) -> Any:
        body = {"model": "openai/m", "input": [item]}
        return house.post("/v1/responses", body), lambda: house.sent["input"][0]

    def gemini(part: Any) -> Any:
        body = {"contents": [{"role": "user", "parts": [part]}]}
        path = "/v1beta/models/google/m:generateContent"
        return house.post(path, body), lambda: house.sent["contents"][0]["parts"][0]

    source = {"type": "base64", "media_type": "image/png", "data": b64(PNG)}
    named = {"type": "image", "source": {"type": "file", "file_id": picture}}
    output = {"type": "function_call_output", "call_id": "c"}
    words = {"type": "text", "media_type": "text/plain", "data": CSV.decode()}
    cases: list[tuple[Any, Any, Any]] = [
        (
            chat,
            {"type": "file", "file": {"file_id": picture}},
            {"type": "image_url", "image_url": {"url": url("image/png", PNG)}},
        ),
        (
            chat,
            {"type": "file", "file": {"file_id": document, "filename": "x.pdf"}, **mark},
            {"type": "file", "file": {"file_data": url("application/pdf", PDF), "filename": "x.pdf"}, **mark},
        ),
        (
            chat,
            {"type": "file", "file": {"file_id": sound}},
            {"type": "input_audio", "input_audio": {"data": b64(WAV), "format": "wav"}},
        ),
        (chat, {"type": "file", "file": {"file_id": table}}, {"type": "text", "text": f"t.csv\n{CSV.decode()}"}),
        (messages, named | mark, {"type": "image", "source": source} | mark),
        (
            messages,
            {"type": "document", "source": {"type": "file", "file_id": table}, "citations": {"enabled": True}},
            {"type": "document", "source": words, "citations": {"enabled": True}, "title": "t.csv"},
        ),
        (
            messages,
            {"type": "document", "source": {"type": "file", "file_id": document}, "title": "A bill"},
            {"type": "document", "title": "A bill"}
            | {"source": {"type": "base64", "media_type": "application/pdf", "data": b64(PDF)}},
        ),
        (
            messages,
            {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "x"}, named]},
            {"type": "tool_result", "tool_use_id": "t"}
            | {"content": [{"type": "text", "text": "x"}, {"type": "image", "source": source}]},
        ),
        (
            messages,
            {"type": "document", "source": {"type": "content", "content": [named]}},
            {"type": "document", "source": {"type": "content", "content": [{"type": "image", "source": source}]}},
        ),
        (
            responses,
            output | {"output": [{"type": "input_image", "file_id": picture, "detail": "high"}]},
            output | {"output": [{"type": "input_image", "image_url": url("image/png", PNG), "detail": "high"}]},
        ),
        (
            responses,
            output | {"output": [{"type": "input_file", "file_id": document, "file_url": None}]},
            output
            | {"output": [{"type": "input_file", "file_data": url("application/pdf", PDF), "filename": "bill.pdf"}]},
        ),
        (gemini, {"fileData": {"fileUri": document, "mimeType": "text/plain"}}, inline),
        (gemini, {"file_data": {"file_uri": f"files/{document}"}}, inline),
        (gemini, {"fileData": {"fileUri": f"https://h.example/v1/files/{document}/content"}}, inline),
        (gemini, {"fileData": {"fileUri": table}}, {"text": f"t.csv\n{CSV.decode()}"}),
        (
            gemini,
            {"functionResponse": {"name": "f", "response": {}, "parts": [{"fileData": {"fileUri": document}}]}},
            {"functionResponse": {"name": "f", "response": {}, "parts": [inline]}},
        ),
    ]
    for ask, given, expected in cases:
        answer, sent = ask(given)
        assert answer.status_code == 200, answer.text
        assert sent() == expected


def test_what_names_no_file_keeps_its_bytes(house: House) -> None:
    file_id = house.upload("a.png", PNG)
    odd = b'{"role":"user",  "content":"caf\\u00e9 %s", "x": 1.50e2}' % file_id.encode()
    part = b'{"type":"file","file":{"file_id":"%s"}}' % file_id.encode()
    rest = b'"tools": [ {"type":"function","function":{"name":"f","parameters":{"const":"%s"}}} ]' % file_id.encode()
    body = b'{"model":"openai/m", "messages":[%s, {"role":"user","content":[%s]}], %s, "n" : 1}' % (odd, part, rest)
    assert house.post("/v1/chat/completions", body).status_code == 200
    sent = house.upstream.seen[-1].body
    assert odd in sent
    assert rest.partition(b": ")[2] in sent
    assert house.sent["messages"][1]["content"][0]["image_url"]["url"] == url("image/png", PNG)


def test_an_id_of_another_form_is_the_provider_s(house: House) -> None:
    theirs = {
        "openai_chat": ("openai/m", "file-abc123"),
        "openai_responses": ("openai/m", "file-abc123"),
        "anthropic_messages": ("anthropic/m", "file_011CNha8iCJcU1wXNR6q4V8w"),
    }
    for dialect, (model, file_id) in theirs.items():
        ASK[dialect](house, model, file_id)
        assert file_id.encode() in house.upstream.seen[-1].body
    given = {"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc-1"}}
    body = {"contents": [{"role": "user", "parts": [given]}]}
    assert house.post("/v1beta/models/google/m:generateContent", body).status_code == 200
    assert house.sent["contents"][0]["parts"][0] == given
    refused = house.post("/v1beta/models/openai/m:generateContent", body)
    assert (refused.status_code, "fileData" in refused.text) == (400, True)
    for dialect, place in (("openai_chat", "messages.0.content.1"), ("anthropic_messages", "messages.0.content.1")):
        status, words = refusal(house, dialect, "google/m", theirs[dialect][1])
        assert (status, place in words) == (400, True), words


@pytest.mark.parametrize("dialect", ASK)
def test_another_project_s_file_looks_like_none(house: House, dialect: str) -> None:
    theirs, gone = house.upload("a.pdf", PDF, house.other), house.upload("b.pdf", PDF)
    house.openai().files.delete(gone)
    model = {"anthropic_messages": "anthropic/m", "gemini": "google/m"}.get(dialect, "openai/m")
    told = [refusal(house, dialect, model, file_id) for file_id in (theirs, gone, UNKNOWN)]
    assert {status for status, _ in told} == {404}
    plain = {words.replace(file_id, "ID") for (_, words), file_id in zip(told, (theirs, gone, UNKNOWN), strict=True)}
    without_request = {re.sub(r"req_\w+", "", words) for words in plain}
    assert len(without_request) == 1, without_request
    assert PLACES[dialect] in plain.pop()


def test_an_expired_file_is_gone(house: House, database: Database) -> None:
    late = SystemClock().now() - timedelta(seconds=1)
    file = asyncio.run(house.files.add(MINE, PDF, "a.pdf", expires_at=late))
    assert refusal(house, "openai_chat", "openai/m", file.id)[0] == 404


@pytest.mark.parametrize("dialect", ASK)
def test_a_file_that_cannot_go_is_refused_by_name(make_house: Callable[..., House], dialect: str) -> None:
    deaf = {"images": False, "documents": False, "audio": False}
    deployment = {"provider": "openai", "model": "m", "capabilities": deaf}
    house = make_house(max_files=8000, routes=[{"name": "words-only", "deployments": [deployment]}])
    picture, document = house.upload("a.png", PNG), house.upload("bill.pdf", PDF)
    table, large = house.upload("t.csv", CSV), house.upload("big.pdf", PDF + bytes(8000))
    torn = house.upload("t.txt", b"a" * 5000 + b"\xff\xfe")
    place = PLACES[dialect].rpartition(".file")[0] or PLACES[dialect]
    for file_id, kind in ((picture, "image"), (document, "document")):
        status, words = refusal(house, dialect, "words-only", file_id, kind)
        assert (status, PLACES[dialect].partition(".source")[0].partition(".file")[0] in words) == (400, True), words
    ASK[dialect](house, "words-only", table)
    assert "Oslo" in json.dumps(house.sent)
    status, words = refusal(house, dialect, "openai/m", large)
    assert (status, place in words, "8000 bytes" in words) == (413, True, True), words
    status, words = refusal(house, dialect, "openai/m", torn)
    assert (status, PLACES[dialect] in words) == (400, True), words


@pytest.mark.parametrize(
    ("dialect", "name", "data", "kind"),
    [
        ("anthropic_messages", "a.pdf", PDF, "image"),
        ("anthropic_messages", "a.png", PNG, "document"),
        ("openai_responses", "a.pdf", PDF, "image"),
        ("openai_responses", "a.webm", b"\x1aE\xdf\xa3" + bytes(40), "document"),
    ],
)
def test_a_part_takes_its_own_kind_only(house: House, dialect: str, name: str, data: bytes, kind: str) -> None:
    status, words = refusal(house, dialect, "openai/m", house.upload(name, data), kind)
    assert (status, PLACES[dialect] in words) == (400, True), words


def test_all_files_of_a_request_have_one_limit(make_house: Callable[..., House]) -> None:
    house = make_house(max_files=200)  # enough for one of each
    one, two = house.upload("a.png", PNG), house.upload("b.pdf", PDF)

    def ask(*ids: str) -> httpx.Response:
        parts = [{"type": "file", "file": {"file_id": file_id}} for file_id in ids]
        return house.post(
            "/v1/chat/completions", {"model": "openai/m", "messages": [{"role": "user", "content": parts}]}
        )

    assert ask(one, two).status_code == 200
    refused = ask(one, two, one)
    assert (refused.status_code, refused.json()["error"]["param"]) == (413, "messages.0.content.2.file.file_id")


@pytest.mark.parametrize(
    "before", [b"", b"x", b"file", b"_" * 31, b"_" * 32, b"_" * 33, b"file_" * 500, b"A" * 2**20, b"file_0"]
)
def test_an_id_is_found_wherever_it_stands(before: bytes) -> None:
    for after in (b"", b"_", b"_" * 1000):
        assert has_mark(before + UNKNOWN.encode() + after)
        assert has_mark(before + after) is (b"file_0" in before + after)


@pytest.mark.parametrize("size", [10, 3 * 2**17 - 1, 3 * 2**17 + 1, 2_000_001])
async def test_what_is_large_is_put_in_beside_the_event_loop(database: Database, tmp_path: Path, size: int) -> None:
    files = FileService(database=database, blobs=LocalBlobs(tmp_path / "files"))
    held = (PDF * (1 + size // len(PDF)))[:size]
    file = await files.add(MINE, held, "a.pdf")
    form = DIALECTS.get("openai_chat")
    threads: list[int] = []

    def read(body: bytes) -> Call:
        threads.append(threading.get_ident())
        return form.parse(body)

    call = form.parse(json.dumps(chat_body("openai/m", file.id)).encode())
    filled = await NamedFiles(files, limit=2**24).put_into(MINE, call, form.files, read)
    part = filled.parse().messages[0].parts[0]
    assert isinstance(part, Media)
    assert part.data == b64(held)
    assert filled.given == call.body
    assert (threads == [threading.get_ident()]) is (size == 10)


def test_a_kept_answer_belongs_to_what_the_file_holds(make_house: Callable[..., House]) -> None:
    deployment = {"provider": "openai", "model": "m"}
    house = make_house(routes=[{"name": "kept", "deployments": [deployment], "cache": {"exact": True}}])

    def ask(file_id: str, gateway: Gateway | None = None) -> str:
        parts = [{"type": "file", "file": {"file_id": file_id, "filename": "f.pdf"}}]
        body = {"model": "kept", "messages": [{"role": "user", "content": parts}]}
        return house.post("/v1/chat/completions", body, gateway).headers["x-nexus-cache"]

    first = house.upload("a.pdf", PDF)
    assert [ask(first), ask(first), ask(house.upload("b.pdf", PDF))] == ["miss", "hit", "hit"]
    assert ask(house.upload("a.pdf", PDF + b"more")) == "miss"
    assert ask(house.upload("a.pdf", PDF, house.other), house.other) == "miss"
    house.openai().files.delete(first)
    assert house.post("/v1/chat/completions", chat_body("kept", first)).status_code == 404


def chat_body(model: str, file_id: str) -> dict[str, Any]:
    parts = [{"type": "file", "file": {"file_id": file_id, "filename": "f.pdf"}}]
    return {"model": model, "messages": [{"role": "user", "content": parts}]}


def test_tokens_are_counted_with_the_file(house: House) -> None:
    file_id = house.upload("a.pdf", PDF)
    block: Any = {"type": "document", "source": {"type": "file", "file_id": file_id}}
    house.anthropic.beta.messages.count_tokens(model="anthropic/m", messages=[{"role": "user", "content": [block]}])
    assert house.sent["messages"][0]["content"][0]["source"]["data"] == b64(PDF)
    part: Any = {"type": "input_file", "file_id": file_id}
    house.openai().responses.input_tokens.count(model="openai/m", input=[{"role": "user", "content": [part]}])
    assert house.sent["input"][0]["content"][0]["file_data"] == url("application/pdf", PDF)
    content = {"role": "user", "parts": [{"fileData": {"fileUri": file_id}}]}
    inside = {"generateContentRequest": {"model": "models/m", "contents": [content]}}
    for body, told in (({"contents": [content]}, lambda sent: sent), (inside, lambda s: s["generateContentRequest"])):
        assert house.post("/v1beta/models/google/m:countTokens", body).status_code == 200
        assert told(house.sent)["contents"][0]["parts"][0]["inlineData"]["data"] == b64(PDF)


def test_a_count_that_is_refused_for_a_file_is_on_record(house: House) -> None:
    part: Any = {"type": "input_file", "file_id": UNKNOWN}
    with pytest.raises(openai.NotFoundError) as gone:
        house.openai().responses.input_tokens.count(model="openai/m", input=[{"role": "user", "content": [part]}])
    assert gone.value.param == "input.0.content.0.file_id"
    row = house.gateway.row()
    assert (row.kind, row.model, row.status, row.error_code) == ("count", "openai/m", "error", "file_not_found")


def test_streams_have_the_file_too(house: House) -> None:
    body = chat_body("openai/m", house.upload("a.pdf", PDF)) | {"stream": True}
    assert house.post("/v1/chat/completions", body).text.endswith("data: [DONE]\n\n")
    assert house.sent["messages"][0]["content"][0]["file"]["file_data"] == url("application/pdf", PDF)


def test_requests_without_ids_of_ours_meet_no_file(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither words that look like an id, nor ids of others, nor pictures at hand ask for anything."""

    async def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("a file was looked up")

    monkeypatch.setattr(FileService, "get", never)
    picture = {"type": "image_url", "image_url": {"url": url("image/png", PNG)}}
    say = {"type": "text", "text": f"what is {UNKNOWN}?"}
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": json.dumps({"file_id": UNKNOWN})}}
    turns = [
        {"role": "user", "content": [say, picture, {"type": "file", "file": {"file_id": "file-1"}}]},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": UNKNOWN},
    ]
    body = json.dumps({"model": "openai/m", "messages": turns}).encode()
    assert house.post("/v1/chat/completions", body).status_code == 200
    assert house.sent["messages"] == turns
    use = {"type": "tool_use", "id": "t", "name": "f", "input": {"source": {"type": "file", "file_id": UNKNOWN}}}
    said = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": [use]}]
    asked = {"model": "anthropic/m", "max_tokens": 5, "messages": said}
    assert house.post("/v1/messages", asked).status_code == 200
    assert house.sent["messages"] == said


def test_a_memory_names_files_and_reads_them_again(make_house: Callable[..., House]) -> None:
    """The store holds the id, not the bytes; who goes on elsewhere gets what the file holds."""
    places = [{"provider": "openai", "model": "m"}]
    house = make_house(routes=[{"name": "kept", "deployments": places, "cache": {"exact": True}}])
    client, file_id = house.openai(), house.upload("a.pdf", PDF)
    parts: Any = [{"type": "input_file", "file_id": file_id}, {"type": "input_text", "text": "read"}]
    numbers = iter(range(100))
    house.upstream.answering = lambda seen: renamed(seen, f"resp_{next(numbers):04}")
    away = client.responses.create(model="huggingface/m", input=[{"role": "user", "content": parts}])
    own = client.responses.create(model="openai/m", input=[{"role": "user", "content": parts}])
    for made in (away, own):
        items: Any = client.responses.input_items.list(made.id).data
        assert items[0].content[0].file_id == file_id
        client.responses.create(model="huggingface/m", input="more", previous_response_id=made.id)
        shown = house.sent["messages"][0]["content"][0]
        assert shown["file"] == {"file_data": url("application/pdf", PDF), "filename": "a.pdf"}
    client.files.delete(file_id)
    with pytest.raises(openai.NotFoundError) as gone:
        client.responses.create(model="huggingface/m", input="more", previous_response_id=away.id)
    assert (gone.value.code, gone.value.param) == ("file_not_found", "previous_response_id")
    for model in ("openai/m", "kept"):
        client.responses.create(model=model, input="more", previous_response_id=own.id)
        assert house.sent["previous_response_id"] == own.id, "its provider has seen the file"
    for elsewhere in ("huggingface/m", "openai_responses/m"):
        before = len(house.upstream.seen)
        with pytest.raises(openai.NotFoundError) as gone:
            client.responses.create(model=elsewhere, input="more", previous_response_id=own.id)
        assert (gone.value.code, gone.value.param) == ("file_not_found", "previous_response_id")
        assert len(house.upstream.seen) == before


def renamed(seen: Any, name: str) -> Any:
    script = answer(seen)
    assert isinstance(script, Script)
    pieces = [
        piece.replace(b"resp_fake", name.encode()) if isinstance(piece, bytes) else piece for piece in script.pieces
    ]
    return Script(tuple(pieces))


def test_work_in_the_background_reads_the_file_when_it_runs(house: House) -> None:
    client, file_id = house.openai(), house.upload("a.pdf", PDF)
    parts: Any = [{"type": "input_file", "file_id": file_id}]
    asked: Any = {"model": "huggingface/m", "input": [{"role": "user", "content": parts}], "background": True}
    made, late = client.responses.create(**asked), client.responses.create(**asked)
    assert not house.upstream.seen
    row = asyncio.run(house.store.get(MINE, made.id))
    assert file_id.encode() in (row.request or b"")
    assert b64(PDF).encode() not in (row.request or b"") + row.input + row.body
    assert asyncio.run(house.store.background.respond(MINE, made.id)) == "completed"
    assert house.sent["messages"][0]["content"][0]["file"]["file_data"] == url("application/pdf", PDF)
    client.files.delete(file_id)
    with pytest.raises(FileNotFound):
        asyncio.run(house.store.background.respond(MINE, late.id))
    assert [(row.model, row.status, row.error_code) for row in house.gateway.rows[-2:]] == [
        ("huggingface/m", "ok", None),
        ("huggingface/m", "error", "file_not_found"),
    ]
    failed = client.responses.retrieve(late.id)
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.code == "file_not_found"
    with pytest.raises(openai.NotFoundError) as gone:
        client.responses.create(**asked)
    assert gone.value.param == "input.0.content.0.file_id"


def test_a_stream_in_the_background_has_the_file_too(house: House) -> None:
    client, file_id = house.openai(), house.upload("a.pdf", PDF)
    parts: Any = [{"type": "input_file", "file_id": file_id}]
    asked: Any = {"model": "huggingface/m", "input": [{"role": "user", "content": parts}], "background": True}

    def begun() -> str:
        with client.responses.create(**asked, stream=True) as events:
            first: Any = next(iter(events))
            return str(first.response.id)

    made, late = begun(), begun()
    assert asyncio.run(house.store.background.respond(MINE, made)) == "completed"
    assert house.sent["messages"][0]["content"][0]["file"]["file_data"] == url("application/pdf", PDF)
    client.files.delete(file_id)
    with pytest.raises(FileNotFound):
        asyncio.run(house.store.background.respond(MINE, late))
    row = house.gateway.rows[-1]
    assert (row.status, row.error_code, row.stream) == ("error", "file_not_found", True)
    last: Any = list(client.responses.retrieve(late, stream=True))[-1]
    assert (last.type, last.response.error.code) == ("response.failed", "file_not_found")


@pytest.mark.parametrize("sdk", ["openai", "anthropic"])
def test_what_an_sdk_uploads_another_may_name(house: House, sdk: str) -> None:
    if sdk == "anthropic":
        file_id = house.anthropic.beta.files.upload(file=("a.pdf", PDF, "application/pdf")).id
    else:
        file_id = house.openai().files.create(file=("a.pdf", PDF), purpose="assistants").id
    for dialect in ASK:
        ASK[dialect](house, "google/m", file_id)
        assert house.sent["contents"][0]["parts"][1]["inlineData"]["data"] == b64(PDF)
