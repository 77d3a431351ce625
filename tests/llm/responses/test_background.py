"""Responses made in the background and streamed: real engines, broken off and gone on with, cancelled, killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from sqlalchemy import select
from tests.forked import Forked
from tests.llm.conftest import PATIENT, WHO, Gateway, fast, serving
from tests.llm.scripts import failing, slowly, stream_of

from nexus.access.types import Principal, Scope
from nexus.core.clock import SystemClock
from nexus.ledger.service import Ledger
from nexus.ledger.tables import InvocationRow
from nexus.llm import storage
from nexus.llm.responses.service import ResponsesService, responses_form
from nexus.llm.service import LLMService
from nexus.llm.settings import LLMSettings
from nexus.runs.service import RunService
from nexus.runs.settings import RunsSettings
from nexus.runs.types import RunStatus
from nexus.storage.db import Database
from nexus.testing.script import Script, Seen
from nexus.testing.upstream import FakeUpstream

OTHER = Principal("key", "key_2", "prj_2", frozenset({Scope.LLM_INVOKE}), key_id="key_2")
TEXT = " ".join(f"word{n}" for n in range(30))


class Place:
    """A database, a fake provider, and as many APIs and engines as one likes to start and kill."""

    def __init__(self, database: Database, upstream: FakeUpstream, folder: Path, stack: ExitStack) -> None:
        self.database, self.upstream, self.folder, self.stack = database, upstream, folder, stack
        providers = [
            {"name": name, "kind": "openai", "base_url": upstream.url, "api_key": "sk-x", "responses": has}
            for name, has in {"chat": False, "own": True}.items()
        ]
        places = [{"provider": name, "model": "m"} for name in ("own", "chat")]
        self.llm = fast(providers=providers, retries=0, routes=[{"name": "mixed", "deployments": places}])
        self.runs = RunsSettings(
            data_dir=folder, lease=3.0, heartbeat=0.8, reap=0.3, republish=4.0, concurrency=4, crash_limit=3
        )
        self.service = RunService(database=database, settings=self.runs)
        self._count = 0

    def api(self, who: Principal = WHO) -> Gateway:
        self._count += 1
        ledger = Ledger(database=self.database, folder=self.folder / f"ledger{self._count}")
        self.stack.callback(ledger.flush_now)
        llm = LLMService(settings=LLMSettings(**self.llm), record=ledger.record)
        store = ResponsesService(
            database=self.database, llm=llm, runs=self.service, form=responses_form(), clock=SystemClock(), days=30
        )
        llm.remember(store)
        return self.stack.enter_context(serving(llm, ledger, who, store))

    def engine(self) -> Forked:
        self._count += 1
        said = {
            "database": self.database.url.render_as_string(hide_password=False),
            "runs": self.runs.model_dump(mode="json"),
            "llm": self.llm,
            "ledger": str(self.folder / f"ledger{self._count}"),
        }
        log = self.folder / "engine.log"
        engine = Forked("tests.llm.responses.responding_process", json.dumps(said), log)
        self.stack.callback(engine.stdout.close)
        self.stack.callback(engine.kill)
        assert engine.stdout.readline() == "started\n", log.read_text()
        return engine


def sdk(gateway: Gateway) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="x", max_retries=0, http_client=httpx.Client(timeout=90))


@pytest.fixture
def place(any_database: Database, upstream: FakeUpstream, tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(any_database, upstream, tmp_path, stack)


@pytest.fixture
def lite(database: Database, upstream: FakeUpstream, tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(database, upstream, tmp_path, stack)


def begin(client: openai.OpenAI, model: str = "chat/m", **more: Any) -> Any:
    return client.responses.create(model=model, input="go", background=True, stream=True, **more)


def until(count: int, stream: Any, kind: str = "response.output_text.delta") -> list[Any]:
    """The events of a stream up to the one of this kind by number."""
    found: list[Any] = []
    for event in stream:
        found.append(event)
        if sum(one.type == kind for one in found) == count:
            break
    return found


def words(events: list[Any]) -> str:
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


def numbers(events: list[Any]) -> list[int]:
    return [event.sequence_number for event in events]


def eventually(condition: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def check_usage(place: Place, usage: Any, *estimated: bool) -> None:
    """One row for each attempt, and a response that has used what they have together."""

    def rows() -> list[InvocationRow]:
        return place.database.read_now(lambda session: list(session.scalars(select(InvocationRow))))

    eventually(lambda: len(rows()) >= len(estimated))
    found = sorted(rows(), key=lambda row: row.created_at)
    assert sorted(row.estimated for row in found) == sorted(estimated)
    assert (usage.input_tokens, usage.output_tokens) == (
        sum(row.input_tokens or 0 for row in found),
        sum(row.output_tokens or 0 for row in found),
    )
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert all(row.input_tokens and row.output_tokens and row.route and row.provider for row in found)


def run_of(place: Place, response_id: str) -> Any:
    row = place.database.read_now(storage.response, WHO.project_id, response_id)
    assert row is not None
    return row.run_id


@pytest.mark.slow
def test_a_stream_is_broken_off_and_gone_on_with(place: Place) -> None:
    place.upstream.answering = slowly(TEXT, gap=0.03, wait=0)
    place.engine()
    gateway = place.api()
    client = sdk(gateway)
    with begin(client) as stream:
        first = until(5, stream)
    assert [event.type for event in first[:3]] == ["response.created", "response.queued", "response.in_progress"]
    made = first[0].response
    assert (made.status, made.background, made.output) == ("queued", True, [])
    standing = client.responses.retrieve(made.id)
    assert (standing.status, standing.background) == ("in_progress", True)
    # Another process, a later one, is asked for the rest.
    other = sdk(place.api())
    rest = list(other.responses.retrieve(made.id, stream=True, starting_after=first[-1].sequence_number))
    whole = first + rest
    assert numbers(whole) == list(range(len(whole)))
    assert words(whole) == TEXT
    assert rest[-1].type == "response.completed"
    assert rest[-1].response.to_dict() == client.responses.retrieve(made.id).to_dict()
    assert (rest[-1].response.id, rest[-1].response.status, rest[-1].response.output_text) == (
        made.id,
        "completed",
        TEXT,
    )
    assert rest[-1].response.usage.input_tokens == 12
    again = list(client.responses.retrieve(made.id, stream=True))
    assert [event.to_dict() for event in again] == [event.to_dict() for event in whole]
    assert not list(client.responses.retrieve(made.id, stream=True, starting_after=whole[-1].sequence_number))
    assert len(place.upstream.seen) == 1
    next_ = client.responses.create(model="chat/m", input="and?", previous_response_id=made.id)
    assert next_.status == "completed"
    stranger = sdk(place.api(OTHER))
    with pytest.raises(openai.NotFoundError):
        stranger.responses.retrieve(made.id, stream=True)


@pytest.mark.slow
def test_a_stream_of_calls_and_thoughts_is_the_same_as_in_the_foreground(lite: Place) -> None:
    def told(seen: Seen) -> Script:
        call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
        deltas = [{"reasoning_content": "hm"}, {"content": "one"}, {"tool_calls": [call]}]
        head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "real-model"}
        choices = [{"index": 0, "delta": delta} for delta in deltas]
        choices.append({"index": 0, "delta": {}, "finish_reason": "tool_calls"})
        lines = [f"data: {json.dumps(head | {'choices': [choice]})}\n\n".encode() for choice in choices]
        return stream_of(seen, [*lines, b"data: [DONE]\n\n"])

    lite.upstream.answering = told
    lite.engine()
    client = sdk(lite.api())
    tools: Any = [{"type": "function", "name": "f", "parameters": {"type": "object"}}]
    plain = list(client.responses.create(model="chat/m", input="go", stream=True, tools=tools))
    behind = list(begin(client, tools=tools))
    assert [event.type for event in behind if event.type != "response.queued"] == [event.type for event in plain]
    one, other = behind[-1].response, plain[-1].response
    assert [item.type for item in one.output] == [item.type for item in other.output]
    assert (one.model, one.tools, one.background) == (other.model, other.tools, True)
    assert [item.name for item in one.output if item.type == "function_call"] == ["f"]
    assert lite.upstream.seen[-1].json["tools"]


@pytest.mark.slow
def test_a_cancelled_one_ends_and_costs_no_more(lite: Place) -> None:
    lite.upstream.answering = slowly(TEXT, gap=0.2, wait=0)
    lite.engine()
    client = sdk(lite.api())
    stream = begin(client)
    first = until(3, stream)
    cancelled = client.responses.cancel(first[0].response.id)
    assert cancelled.status == "cancelled"
    rest = list(stream)
    assert (rest[-1].type, rest[-1].response.status) == ("response.failed", "cancelled")
    assert numbers(first + rest) == list(range(len(first + rest)))
    eventually(lambda: lite.upstream.seen[0].closed is not None)
    assert len(words(first + rest)) < len(TEXT)
    assert client.responses.retrieve(first[0].response.id).status == "cancelled"
    assert [event.type for event in client.responses.retrieve(first[0].response.id, stream=True)][
        -1
    ] == "response.failed"
    assert client.responses.cancel(first[0].response.id).status == "cancelled"


@pytest.mark.slow
def test_what_ends_by_its_run_ends_for_its_client_too(lite: Place) -> None:
    client = sdk(lite.api())
    stream = begin(client)
    made = until(1, stream, "response.queued")[0].response
    asyncio.run(lite.service.cancel(WHO, run_of(lite, made.id)))
    lite.engine()
    last = list(stream)[-1]
    assert (last.type, last.response.status) == ("response.failed", "cancelled")
    assert client.responses.retrieve(made.id).status == "cancelled"
    assert not lite.upstream.seen


@pytest.mark.slow
def test_a_deleted_one_is_gone_in_the_middle(lite: Place) -> None:
    lite.upstream.answering = slowly(TEXT, gap=0.2, wait=0)
    lite.engine()
    client = sdk(lite.api())
    stream = begin(client)
    made = until(3, stream)[0].response
    client.responses.delete(made.id)
    assert len(words(list(stream))) < len(TEXT)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id, stream=True)
    eventually(lambda: lite.upstream.seen[0].closed is not None)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["400", "500", "truncated", "error_event"])
def test_a_failure_is_the_last_event(lite: Place, name: str) -> None:
    lite.upstream.answering = failing(name)
    lite.engine()
    client = sdk(lite.api())
    events = list(begin(client))
    assert numbers(events) == list(range(len(events)))
    assert events[-1].type == "response.failed"
    assert events[-1].response.error.message
    assert client.responses.retrieve(events[0].response.id).status == "failed"
    assert "sk-x" not in events[-1].to_json()


@pytest.mark.slow
@pytest.mark.parametrize("carries_on", [False, True])
def test_a_stream_that_breaks_is_told_to_its_last_word(lite: Place, carries_on: bool) -> None:
    def breaking(seen: Seen) -> Script:
        if len(lite.upstream.seen) > 1:
            return slowly(TEXT.removeprefix(seen.json["messages"][-2]["content"]), gap=0.01, wait=0)(seen)
        script = slowly(TEXT, gap=0.03, wait=0)(seen)
        return Script((*script.pieces[: len(script.pieces) // 2], 0.02, "reset"))

    places = [{"provider": "chat", "model": name} for name in ("m", "n")]
    lite.llm["routes"] += [{"name": "two", "deployments": places, "continuation": carries_on}]
    lite.upstream.answering = breaking
    lite.engine()
    client = sdk(lite.api())
    events = list(begin(client, "two"))
    assert numbers(events) == list(range(len(events)))
    assert (events[-1].type == "response.completed") is carries_on
    if carries_on:
        assert words(events) == events[-1].response.output_text == TEXT
        check_usage(lite, events[-1].response.usage, True, False)
    else:
        assert TEXT.startswith(words(events))
        assert (events[-1].type, words(events).count("word") > 8) == ("response.failed", True)
        check_usage(lite, events[-1].response.usage, True)


@pytest.mark.slow
def test_a_killed_engine_costs_no_word_that_was_told(place: Place) -> None:
    """The second engine's model is asked to go on in the middle of the text, and its words follow in one stream."""

    def answering(seen: Seen) -> Script:
        asked = seen.json["messages"]
        if len(asked) == 1:
            return slowly(TEXT, gap=0.15, wait=0)(seen)
        assert asked[-2]["role"] == "assistant"
        assert TEXT.startswith(asked[-2]["content"])
        return slowly(TEXT.removeprefix(asked[-2]["content"]), gap=0.01, wait=0)(seen)

    place.upstream.answering = answering
    engine = place.engine()
    client = sdk(place.api())
    stream = begin(client)
    first = until(5, stream)
    engine.kill()
    place.engine()
    rest = list(stream)
    whole = first + rest
    assert numbers(whole) == list(range(len(whole)))
    assert words(whole) == TEXT
    assert rest[-1].type == "response.completed"
    assert rest[-1].response.output_text == TEXT
    assert [item.type for item in rest[-1].response.output] == ["message"]
    assert len(place.upstream.seen) == 2
    assert [event.to_dict() for event in client.responses.retrieve(first[0].response.id, stream=True)] == [
        event.to_dict() for event in whole
    ]
    check_usage(place, rest[-1].response.usage, True, False)


@pytest.mark.slow
@pytest.mark.parametrize("spoken", [True, False], ids=["answering", "not yet"])
def test_what_a_dead_engine_used_is_of_the_deployment_that_answered_it(place: Place, spoken: bool) -> None:
    """The first of its route failed, and the one that another route leads to took its place."""
    price = {"input": 2.0, "output": 8.0}
    places = [{"provider": "chat", "model": "broken", "price": {"input": 500.0, "output": 500.0}}]
    others = [{"provider": "chat", "model": name, "price": price} for name in ("m", "n")]
    place.llm["routes"] += [
        {"name": "near", "deployments": places, "fallbacks": ["far"]},
        {"name": "far", "deployments": others, "strategy": "weighted"},
    ]

    def answering(seen: Seen) -> Script:
        if seen.json["model"] == "broken":
            return failing("500")(seen)
        if answered and not spoken:
            return slowly(TEXT, gap=0.01, wait=0)(seen)
        said = len(seen.json["messages"]) > 1
        answered.append(seen.json["model"])
        if not spoken:
            return Script(("stall",))
        left = TEXT.removeprefix(seen.json["messages"][-2]["content"]) if said else TEXT
        return slowly(left, gap=0.01 if said else 0.15, wait=0)(seen)

    answered: list[str] = []
    place.llm["timeouts"] |= PATIENT
    place.upstream.answering = answering
    engine = place.engine()
    stream = begin(sdk(place.api()), "near")
    first = until(5, stream) if spoken else until(1, stream, "response.in_progress")
    eventually(lambda: answered)
    engine.kill()
    place.engine()
    assert words(first + list(stream)) == TEXT

    def lost() -> list[InvocationRow]:
        return place.database.read_now(
            lambda session: list(session.scalars(select(InvocationRow).where(InvocationRow.status == "cancelled")))
        )

    eventually(lost)
    (row,) = lost()
    assert row.input_tokens
    told = (row.route, row.details["deployment"], row.cost_usd)
    spent = (row.input_tokens * price["input"] + (row.output_tokens or 0) * price["output"]) / 1e6
    if spoken:
        assert told == ("far", f"chat/{answered[0]}", pytest.approx(spent))
    else:
        assert told[:2] == ("near", "chat/broken")


@pytest.mark.slow
def test_an_engine_that_thaws_adds_nothing_to_what_another_tells(lite: Place) -> None:
    def answering(seen: Seen) -> Script:
        if len(lite.upstream.seen) == 1:
            return slowly(TEXT, gap=0.12, wait=0)(seen)
        return slowly(TEXT.removeprefix(seen.json["messages"][-2]["content"]), gap=0.12, wait=0)(seen)

    lite.upstream.answering = answering
    frozen = lite.engine()
    client = sdk(lite.api())
    stream = begin(client)
    first = until(3, stream)
    os.killpg(frozen.pid, signal.SIGSTOP)
    lite.engine()
    first += until(3, stream)
    os.killpg(frozen.pid, signal.SIGCONT)
    whole = first + list(stream)
    assert numbers(whole) == list(range(len(whole)))
    assert words(whole) == whole[-1].response.output_text == TEXT
    assert len(lite.upstream.seen) == 2
    # The one that thaws has a row of its own to write, of the same name as the one that was written in its stead.
    time.sleep(1.0)
    check_usage(lite, whole[-1].response.usage, True, False)


@pytest.mark.slow
def test_what_cannot_be_gone_on_with_is_begun_anew_behind_what_was_told(lite: Place) -> None:
    def calling(seen: Seen) -> Script:
        pieces = ['{"a": ', *(f"{n}" for n in range(1, 21)), "}"]
        head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        function = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}
        deltas = [{"tool_calls": [function]}]
        deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in pieces]
        choices: list[Any] = [{"index": 0, "delta": delta} for delta in deltas]
        choices.append({"index": 0, "delta": {}, "finish_reason": "tool_calls"})
        lines = [f"data: {json.dumps(head | {'choices': [choice]})}\n\n".encode() for choice in choices]
        script = stream_of(seen, [*lines, b"data: [DONE]\n\n"])
        gap = 0.2 if len(lite.upstream.seen) == 1 else 0.01
        return Script(tuple(part for piece in script.pieces for part in (piece, gap)))

    lite.upstream.answering = calling
    engine = lite.engine()
    client = sdk(lite.api())
    tools: Any = [{"type": "function", "name": "f", "parameters": {"type": "object"}}]
    stream = begin(client, tools=tools)
    first = until(3, stream, "response.function_call_arguments.delta")
    engine.kill()
    lite.engine()
    whole = first + list(stream)
    assert numbers(whole) == list(range(len(whole)))
    done = [event for event in whole if event.type == "response.output_item.done"]
    assert [(event.output_index, event.item.status) for event in done] == [(0, "incomplete"), (1, "completed")]
    (call,) = whole[-1].response.output
    assert json.loads(call.arguments) == {"a": int("".join(str(n) for n in range(1, 21)))}


@pytest.mark.slow
def test_an_engine_that_comes_later_does_what_was_promised(lite: Place) -> None:
    """The API dies after its first words; nobody is there to work; both come back."""
    client = sdk(lite.api())
    with begin(client) as stream:
        made = until(1, stream, "response.queued")[0].response
    assert client.responses.retrieve(made.id).status == "queued"
    lite.upstream.answering = slowly(TEXT, gap=0.01, wait=0)
    lite.engine()
    later = sdk(lite.api())
    rest = list(later.responses.retrieve(made.id, stream=True, starting_after=1))
    assert rest[0].type == "response.in_progress"
    assert words(rest) == TEXT


@pytest.mark.slow
def test_a_run_that_is_given_up_fails_its_response(lite: Place) -> None:
    """Each engine that takes it dies of it, until the limit is reached."""
    lite.upstream.answering = lambda seen: Script(("stall",))
    lite.llm["timeouts"] |= {"first_token": 60, "total": 60}
    client = sdk(lite.api())
    stream = begin(client)
    made = until(1, stream, "response.queued")[0].response
    run = run_of(lite, made.id)

    def standing() -> RunStatus:
        return asyncio.run(lite.service.get(WHO, run)).status

    for n in range(3):
        engine = lite.engine()
        eventually(lambda n=n: len(lite.upstream.seen) > n)  # type: ignore[misc]
        engine.kill()
    lite.engine()
    eventually(lambda: standing().final)
    last = list(stream)[-1]
    assert (last.type, last.response.status, last.response.error.code) == ("response.failed", "failed", "server_error")
    assert client.responses.retrieve(made.id).status == "failed"


@pytest.mark.slow
@pytest.mark.parametrize("stream", [True, False])
def test_a_route_of_both_kinds_is_worked_on_here(lite: Place, stream: bool) -> None:
    """A provider with a background of its own is not asked to use it when another one might have to serve."""
    lite.engine()
    client = sdk(lite.api())
    if stream:
        made = list(begin(client, "mixed"))[-1].response
    else:
        made = client.responses.create(model="mixed", input="go", background=True)
        eventually(lambda: client.responses.retrieve(made.id).status == "completed")
        made = client.responses.retrieve(made.id)
    assert (made.status, made.output_text, made.background) == ("completed", "go", True)
    assert "background" not in lite.upstream.seen[-1].json


def test_what_is_not_to_be_stored_cannot_be_made_in_the_background(lite: Place) -> None:
    client = sdk(lite.api())
    for wrong, field in (({"store": False}, "store"), ({"conversation": "conv_1"}, "conversation")):
        with pytest.raises(openai.BadRequestError) as refused:
            begin(client, **wrong)
        assert refused.value.param == field
