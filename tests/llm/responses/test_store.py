"""Responses that are kept, referred to, read again, cancelled, deleted and worked on in the background."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import openai
import pytest
from tests.llm.conftest import WHO, Gateway, fast, serving

from nexus.access.types import Principal, Scope
from nexus.core.clock import SystemClock
from nexus.core.errors import NexusError
from nexus.core.services import Services
from nexus.ledger.service import Ledger
from nexus.llm import storage
from nexus.llm.jobs import respond
from nexus.llm.responses.service import ResponsesService, responses_form
from nexus.llm.service import LLMService
from nexus.llm.settings import LLMSettings
from nexus.llm.tables import ResponseRow
from nexus.runs.service import RunService
from nexus.runs.settings import RunsSettings
from nexus.runs.types import StepContext
from nexus.setup import migrate
from nexus.storage.db import Database
from nexus.testing.script import Script, Seen, response
from nexus.testing.upstream import FakeUpstream, Said, saying

OTHER = Principal("key", "key_2", "prj_2", frozenset({Scope.LLM_INVOKE}), key_id="key_2")
HTTP = httpx.Client()


@dataclass
class House:
    """Two projects at one service: `chat/m` knows chat completions only, `own/m` and `twin/m` Responses."""

    gateway: Gateway
    other: Gateway
    store: ResponsesService
    runs: RunService
    upstream: FakeUpstream

    def client(self, gateway: Gateway | None = None) -> openai.OpenAI:
        url = (gateway or self.gateway).url
        return openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0, http_client=httpx.Client())


@pytest.fixture
def house(upstream: FakeUpstream, ledger: Ledger, database: Database) -> Iterator[House]:
    kinds = {"chat": False, "own": True, "twin": True}
    providers = [
        {"name": name, "kind": "openai", "base_url": upstream.url, "api_key": "sk-x", "responses": has}
        for name, has in kinds.items()
    ]
    llm = LLMService(settings=LLMSettings(**fast(providers=providers)), record=ledger.record)
    runs = RunService(database=database, settings=RunsSettings())
    store = ResponsesService(database=database, llm=llm, runs=runs, form=responses_form(), clock=SystemClock(), days=30)
    llm.remember(store)
    with ExitStack() as stack:
        gateway = stack.enter_context(serving(llm, ledger, WHO, store))
        other = stack.enter_context(serving(llm, ledger, OTHER, store))
        yield House(gateway, other, store, runs, upstream)


def sent(house: House) -> Any:
    return house.upstream.seen[-1].json


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["chat/m", "own/m"])
def test_a_conversation_goes_on_wherever_it_was(house: House, model: str, stream: bool) -> None:
    client = house.client()

    def ask(words: str, previous: str | None = None, model: str = model) -> str:
        given: dict[str, Any] = {"model": model, "input": words, "instructions": "Be brief"}
        given |= {"previous_response_id": previous} if previous else {}
        if not stream:
            return client.responses.create(**given).id
        last: Any = list(client.responses.create(**given, stream=True))[-1]
        return str(last.response.id)

    # The fake gives every response the same id, a real provider does not.
    numbers = iter(range(100))
    house.upstream.answering = lambda seen: renamed(seen, f"resp_{next(numbers)}")
    first = ask("one")
    second = ask("two", first)
    assert ask("three", second, "chat/m")
    assert [(m["role"], m["content"]) for m in sent(house)["messages"]] == [
        ("system", "Be brief"),
        ("user", "one"),
        ("assistant", "one"),
        ("user", "two"),
        ("assistant", "two"),
        ("user", "three"),
    ]
    fourth = ask("four", second, "twin/m")
    assert client.responses.retrieve(fourth).previous_response_id in (second, None)
    told = [item["content"][0]["text"] for item in sent(house)["input"]]
    assert told == ["one", "one", "two", "two", "four"]
    assert "previous_response_id" not in sent(house)
    assert not any("id" in item for item in sent(house)["input"][:-1])
    if model == "own/m":
        ask("five", second, "own/m")
        assert (sent(house)["previous_response_id"], sent(house)["input"]) == (second, "five")


def renamed(seen: Any, name: str) -> Any:
    script = saying(Said(text=last_words(seen.json)))(seen)
    pieces = tuple(piece.replace(b"resp_fake", name.encode()) if isinstance(piece, bytes) else piece
                   for piece in script.pieces)  # fmt: skip
    if not any(b"resp_fake" in piece for piece in script.pieces if isinstance(piece, bytes)):
        return script
    # The lengths of a whole answer and of chunks are written into them.
    return type(script)(tuple(resized(piece) for piece in pieces), close=script.close)


def resized(piece: Any) -> Any:
    if not isinstance(piece, bytes):
        return piece
    if piece.startswith(b"HTTP/1.1") and b"content-length" in piece:
        head, _, body = piece.partition(b"\r\n\r\n")
        lines = [line for line in head.split(b"\r\n") if not line.startswith(b"content-length")]
        return b"\r\n".join([*lines, b"content-length: %d" % len(body)]) + b"\r\n\r\n" + body
    size, mark, rest = piece.partition(b"\r\n")
    if mark and rest.endswith(b"\r\n") and size.isalnum() and len(rest) > 2:
        return b"%x\r\n%s" % (len(rest) - 2, rest)
    return piece


def last_words(asked: dict[str, Any]) -> str:
    given = asked.get("input") or asked["messages"][-1]["content"]
    return given if isinstance(given, str) else given[-1]["content"][0]["text"]


def test_it_is_read_listed_and_deleted_by_its_project_only(house: House) -> None:
    client, stranger = house.client(), house.client(house.other)
    made = client.responses.create(model="chat/m", input="hello")
    again = client.responses.retrieve(made.id)
    assert again.output_text == "hello"
    assert again.to_dict() == made.to_dict()
    items = client.responses.input_items.list(made.id)
    assert [item.content[0].text for item in items.data] == ["hello"]  # type: ignore[union-attr]
    streamed = list(client.responses.retrieve(made.id, stream=True))
    assert [event.sequence_number for event in streamed] == list(range(len(streamed)))
    assert streamed[-1].type == "response.completed"
    assert len(list(client.responses.retrieve(made.id, stream=True, starting_after=3))) == len(streamed) - 4
    for attempt in (
        lambda: stranger.responses.retrieve(made.id),
        lambda: stranger.responses.delete(made.id),
        lambda: stranger.responses.cancel(made.id),
        lambda: stranger.responses.input_items.list(made.id),
        lambda: stranger.responses.create(model="chat/m", input="x", previous_response_id=made.id),
        lambda: stranger.responses.create(model="own/m", input="x", previous_response_id=made.id),
    ):
        with pytest.raises(openai.NotFoundError) as refused:
            attempt()
        assert refused.value.code == "response_not_found"
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="own/m", input="x", previous_response_id=made.id)


def test_a_conversation_with_a_gap_is_not_gone_on_with(house: House) -> None:
    client = house.client()
    first = client.responses.create(model="chat/m", input="one")
    second = client.responses.create(model="chat/m", input="two", previous_response_id=first.id)
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError) as refused:
        client.responses.create(model="chat/m", input="three", previous_response_id=second.id)
    assert refused.value.param == "previous_response_id"


def test_what_is_not_to_be_stored_is_not(house: House) -> None:
    client = house.client()
    made = client.responses.create(model="chat/m", input="hello", store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="chat/m", input="x", previous_response_id=made.id)


def test_an_unknown_response_is_the_provider_s_to_find(house: House) -> None:
    client = house.client()
    client.responses.create(model="own/m", input="x", previous_response_id="resp_elsewhere")
    assert sent(house)["previous_response_id"] == "resp_elsewhere"
    with pytest.raises(openai.NotFoundError) as refused:
        client.responses.create(model="chat/m", input="x", previous_response_id="resp_elsewhere")
    assert refused.value.param == "previous_response_id"


def test_conversations_are_refused_where_nobody_keeps_them(house: House) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        house.client().responses.create(model="chat/m", input="x", conversation="conv_1")
    assert refused.value.param == "conversation"


@pytest.mark.parametrize("model", ["chat", "own"])
def test_an_error_within_a_stream_is_its_next_event(house: House, model: str) -> None:
    def cut(seen: Seen) -> Script:
        return Script((*saying(Said("one two three four five"))(seen).pieces[:-5], 0.05, "reset"))

    house.upstream.answering = cut
    body = {"model": f"{model}/m", "input": "x", "stream": True}
    told = HTTP.post(f"{house.gateway.url}/v1/responses", json=body, timeout=20)
    events = [json.loads(line[5:]) for line in told.text.split("\n") if line.startswith("data:")]
    assert events[-1]["type"] == "error"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    made = next(event["response"]["id"] for event in events if "response" in event)
    with pytest.raises(openai.NotFoundError):
        house.client().responses.retrieve(made)


def worked_on(house: House, response_id: str) -> str:
    """Do what the engine's step does."""
    services = Services()
    services.put(house.store)
    context = StepContext(run_id="run_1", step_key="respond", attempt=1, principal=WHO, services=services)
    return str(asyncio.run(respond(context, {"response_id": response_id}))["status"])


def test_a_response_in_the_background_is_a_run(house: House) -> None:
    client = house.client()
    made = client.responses.create(model="chat/m", input="slowly", background=True)
    assert (made.status, made.background, made.output) == ("queued", True, [])
    assert not house.upstream.seen
    assert client.responses.retrieve(made.id).status == "queued"
    with pytest.raises(openai.ConflictError):
        client.responses.create(model="chat/m", input="x", previous_response_id=made.id)
    assert worked_on(house, made.id) == "completed"
    done = client.responses.retrieve(made.id)
    assert (done.id, done.status, done.output_text) == (made.id, "completed", "slowly")
    assert worked_on(house, made.id) == "completed"
    assert len(house.upstream.seen) == 1
    row = house.gateway.rows[-1]
    assert (row.run_id, row.input_tokens) == ("run_1", 12)


def test_a_response_in_the_background_can_be_cancelled(house: House) -> None:
    client = house.client()
    made = client.responses.create(model="chat/m", input="slowly", background=True)
    assert client.responses.cancel(made.id).status == "cancelled"
    assert client.responses.cancel(made.id).status == "cancelled"
    assert worked_on(house, made.id) == "cancelled"
    assert not house.upstream.seen
    plain = client.responses.create(model="chat/m", input="x")
    with pytest.raises(openai.ConflictError):
        client.responses.cancel(plain.id)


def test_a_failure_in_the_background_is_told(house: House) -> None:
    client = house.client()
    made = client.responses.create(model="chat/fault-400", input="x", background=True)
    with pytest.raises(NexusError):
        worked_on(house, made.id)
    failed = client.responses.retrieve(made.id)
    assert failed.status == "failed"
    assert failed.error is not None
    last: Any = list(client.responses.retrieve(made.id, stream=True))[-1]
    assert last.type == "response.failed"


def test_a_provider_s_own_background_is_asked(house: House) -> None:
    client = house.client()
    body = {"id": "resp_bg", "object": "response", "status": "queued", "background": True, "output": [], "model": "m"}
    state = ["queued"]

    def answering(seen: Any) -> Any:
        if seen.path.endswith("/cancel"):
            state[0] = "cancelled"
        return Script((response(200, json.dumps(body | {"status": state[0]}).encode()),))

    house.upstream.answering = answering
    made = client.responses.create(model="own/m", input="x", background=True)
    assert (made.id, made.status) == ("resp_bg", "queued")
    assert sent(house)["background"] is True
    state[0] = "completed"
    assert client.responses.retrieve("resp_bg").status == "completed"
    assert (house.upstream.seen[-1].method, house.upstream.seen[-1].route) == ("GET", "/v1/responses/resp_bg")
    count = len(house.upstream.seen)
    assert client.responses.retrieve("resp_bg").status == "completed"
    assert len(house.upstream.seen) == count


def test_old_responses_are_swept(house: House, database: Database) -> None:
    made = house.client().responses.create(model="chat/m", input="x")
    time.sleep(0.05)
    asyncio.run(database.write(storage.sweep, SystemClock().now() + timedelta(seconds=1)))
    with pytest.raises(openai.NotFoundError):
        house.client().responses.retrieve(made.id)


@pytest.mark.slow
def test_the_queries_hold_on_postgresql(postgres_url: str) -> None:
    database = Database(postgres_url)
    with database.engine.begin() as connection:
        # Other tests of this process may have left their tables.
        connection.exec_driver_sql("drop schema public cascade")
        connection.exec_driver_sql("create schema public")
    migrate(database)

    def row(name: str, previous: str | None, project: str = "prj_1") -> ResponseRow:
        return ResponseRow(
            project_id=project, id=name, previous_id=previous, status="queued", input=b'"x"', body=b"{}",
            created_at=SystemClock().now(), deleted=False,
        )  # fmt: skip

    try:
        for name, previous in (("a", None), ("b", "a"), ("c", "b")):
            database.write_now(storage.keep, row(name, previous))
        database.write_now(storage.keep, row("a", None, "prj_2"))
        assert [item.id for item in database.read_now(storage.chain, "prj_1", "c", 10)] == ["a", "b", "c"]
        assert database.read_now(storage.chain, "prj_2", "c", 10) == []
        database.write_now(storage.finish, "prj_1", "c", "completed", b'{"status":"completed"}')
        database.write_now(storage.finish, "prj_1", "c", "failed", b"late")
        found = database.read_now(storage.response, "prj_1", "c")
        assert found is not None
        assert (found.status, found.body) == ("completed", b'{"status":"completed"}')
        assert database.write_now(storage.forget, "prj_1", "b") is not None
        assert database.write_now(storage.forget, "prj_1", "b") is None
        database.write_now(storage.keep, row("b", "a"))
        assert database.read_now(storage.response, "prj_1", "b") is None
        assert database.read_now(storage.is_taken, "b")
        assert [item.id for item in database.read_now(storage.chain, "prj_1", "c", 10)] == ["c"]
        database.write_now(storage.sweep, SystemClock().now() + timedelta(seconds=1))
        assert not database.read_now(storage.is_taken, "c")
    finally:
        database.close()
