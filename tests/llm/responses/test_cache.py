"""Kept answers in the Responses form: each caller gets an id of its own, and may come back by it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import openai
import pytest
from tests.llm.conftest import PATIENT, WHO, Gateway, fast, serving
from tests.llm.scripts import slowly, waiting

from nexus.core.clock import SystemClock
from nexus.ledger.service import Ledger
from nexus.llm import storage
from nexus.llm.responses.service import ResponsesService, responses_form
from nexus.llm.service import LLMService
from nexus.llm.settings import LLMSettings
from nexus.llm.tables import ResponseRow
from nexus.runs.service import RunService
from nexus.runs.settings import RunsSettings
from nexus.storage.db import Database
from nexus.testing.upstream import FakeUpstream, answer


@dataclass
class House:
    """A route with a cache for each kind of provider: `chat` knows chat completions only, `own` Responses."""

    gateway: Gateway
    database: Database
    upstream: FakeUpstream

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.gateway.url}/v1", api_key="x", max_retries=0)

    def row(self, response_id: str) -> ResponseRow:
        found = self.database.read_now(storage.response, "prj_1", response_id)
        assert found is not None
        return found

    @property
    def how(self) -> list[Any]:
        return [row.details.get("cache") for row in self.gateway.rows]


@pytest.fixture
def house(upstream: FakeUpstream, ledger: Ledger, database: Database) -> Iterator[House]:
    kinds = {"chat": False, "own": True}
    providers = [
        {"name": name, "kind": "openai", "base_url": upstream.url, "api_key": "sk-x", "responses": has}
        for name, has in kinds.items()
    ]
    routes = [
        {"name": name, "deployments": [{"provider": name, "model": "m"}], "cache": {"exact": True}} for name in kinds
    ]
    llm = LLMService(
        settings=LLMSettings(**fast(providers=providers, routes=routes, timeouts=PATIENT)), record=ledger.record
    )
    runs = RunService(database=database, settings=RunsSettings())
    store = ResponsesService(database=database, llm=llm, runs=runs, form=responses_form(), clock=SystemClock(), days=30)
    llm.remember(store)
    with ExitStack() as stack:
        yield House(stack.enter_context(serving(llm, ledger, WHO, store)), database, upstream)


def streamed(client: openai.OpenAI, **asked: Any) -> Any:
    events = list(client.responses.create(**asked, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last: Any = events[-1]
    assert last.type == "response.completed"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "hello you"
    return last.response


@pytest.mark.parametrize("model", ["chat", "own"])
@pytest.mark.parametrize("first", [False, True], ids=["plain first", "stream first"])
def test_each_answer_has_an_id_of_its_own(house: House, model: str, first: bool) -> None:
    client, asked = house.client, {"model": model, "input": "hello you"}
    made = [
        streamed(client, **asked) if stream else client.responses.create(**asked)  # type: ignore[call-overload]
        for stream in (first, not first, first, not first)
    ]
    assert house.how == ["miss", "hit", "hit", "hit"]
    assert [row.cost_usd for row in house.gateway.rows[1:]] == [0.0] * 3
    assert len({one.id for one in made}) == 4
    assert {one.output_text for one in made} == {"hello you"}
    for one in made:
        assert client.responses.retrieve(one.id).to_dict() == one.to_dict()
    assert len(house.upstream.seen) == 1
    assert [house.row(one.id).held_by for one in made] == ["own/m" if model == "own" else None, None, None, None]
    client.responses.delete(made[1].id)
    assert client.responses.retrieve(made[2].id).status == "completed"
    followed = client.responses.create(model=model, input="and now?", previous_response_id=made[2].id)
    assert followed.output_text
    assert house.how[-1] == "miss"
    again = client.responses.create(model=model, input="and now?", previous_response_id=made[3].id)
    assert (house.how[-1], again.previous_response_id) == ("hit", made[3].id), "the same was said before"


def test_other_dialects_share_it(house: House) -> None:
    house.client.responses.create(model="chat", input="hello you", temperature=0)
    asked: Any = {"model": "chat", "messages": [{"role": "user", "content": "hello you"}], "temperature": 0}
    assert house.client.chat.completions.create(**asked).choices[0].message.content == "hello you"
    assert house.how == ["miss", "hit"]


def test_what_only_its_own_answer_serves_goes_past_it(house: House) -> None:
    client = house.client
    asked: dict[str, Any] = {"model": "own", "input": "hello you"}
    client.responses.create(**asked)
    client.responses.create(**asked, include=["reasoning.encrypted_content"])
    client.responses.create(**asked, include=["reasoning.encrypted_content"])
    client.responses.create(**asked, conversation="conv_1")
    client.responses.create(**asked, previous_response_id="resp_elsewhere")
    assert house.how == ["miss", "miss", "hit", "bypass", "bypass"]
    client.responses.create(**asked, background=True)
    assert house.how[-1] == "bypass"


@pytest.mark.slow
@pytest.mark.parametrize("model", ["chat", "own"])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_who_asks_at_once_shares_the_call_but_no_id(house: House, model: str, stream: bool) -> None:
    if stream:
        house.upstream.answering = slowly("hello you", gap=0.4, wait=0)
    else:
        house.upstream.answering = lambda seen: waiting(0.4, answer(seen))
    client, asked = house.client, {"model": model, "input": "hello you"}

    def ask(_: int) -> str:
        made = streamed(client, **asked) if stream else client.responses.create(**asked)  # type: ignore[call-overload]
        assert made.output_text == "hello you"
        return str(made.id)

    with ThreadPoolExecutor(5) as pool:
        ids = set(pool.map(ask, range(5)))
    assert len(ids) == 5
    assert len(house.upstream.seen) == 1
    assert sorted(house.how) == ["hit"] * 4 + ["miss"]
    assert {client.responses.retrieve(one).output_text for one in ids} == {"hello you"}
