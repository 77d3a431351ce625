"""Kept vectors over real HTTP: each input by itself, batches of which a part is known, and who shares them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from google import genai
from google.genai import types
from pydantic import ValidationError
from tests.clock import until
from tests.llm.conftest import WHO, Gateway, fast, serving
from tests.llm.scripts import failing, waiting
from tests.storage.test_caches import redis_url  # noqa: F401  a fixture

from nexus.ledger.service import Ledger
from nexus.llm.service import LLMService
from nexus.llm.settings import LLMSettings, RouteSettings
from nexus.llm.types import EmbeddingRequest
from nexus.storage.cache import Cache
from nexus.storage.caches.layered import LayeredCache
from nexus.storage.caches.memory import MemoryCache
from nexus.storage.caches.redis import RedisCache
from nexus.storage.caches.sql import SqlCache
from nexus.storage.db import Database
from nexus.testing.script import Script, Seen, response
from nexus.testing.upstream import FakeUpstream

HTTP = httpx.Client(limits=httpx.Limits(max_connections=None))
MODEL = "text-embedding-3-small"


def vector(said: Any, model: str = MODEL) -> list[float]:
    """The vector of a text: the same whenever it is asked for, and another for every other one."""
    digest = hashlib.sha256(json.dumps([said, model]).encode()).digest()
    return list(struct.unpack("<4f", struct.pack("<4f", *(byte / 256 for byte in digest[:4]))))


def embedding(seen: Seen) -> Script:
    """Answer as an OpenAI server does: a token for each letter."""
    asked = seen.json
    given = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
    data = []
    for index, item in enumerate(given):
        made: Any = vector(item, asked["model"])[: asked.get("dimensions")]
        if asked.get("encoding_format") == "base64":
            made = base64.b64encode(struct.pack(f"<{len(made)}f", *made)).decode()
        data.append({"object": "embedding", "index": index, "embedding": made})
    tokens = sum(len(item) for item in given)
    body = {"object": "list", "data": data, "model": asked["model"], "usage": {"prompt_tokens": tokens}, "own": True}
    return Script((response(200, json.dumps(body).encode()),))


def kept(**more: Any) -> dict[str, Any]:
    return {
        "name": "v",
        "task": "embedding",
        "deployments": [{"provider": "up", "model": MODEL}],
        "cache": {"exact": True, "ttl": 60} | more,
    }


@pytest.fixture(autouse=True)
def server(upstream: FakeUpstream) -> None:
    upstream.answering = embedding


@pytest.fixture
def gateway(make_gateway: Callable[..., Gateway]) -> Gateway:
    return make_gateway(routes=[kept()], retries=0)


def ask(gateway: Gateway, given: Any, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
    body = {"model": "v", "input": given} | more
    return HTTP.post(f"{gateway.url}/v1/embeddings", json=body, headers=headers, timeout=20)


def how(told: httpx.Response) -> str:
    assert told.status_code == 200, told.text
    return told.headers["x-nexus-cache"]


def vectors(told: httpx.Response) -> list[list[float]]:
    return [item["embedding"] for item in told.json()["data"]]


def sdk(gateway: Gateway) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="nx_test", max_retries=0)


def test_the_official_client_gets_the_same_vector_again_for_nothing(gateway: Gateway, upstream: FakeUpstream) -> None:
    client = sdk(gateway)
    answers = [client.embeddings.with_raw_response.create(model="v", input="alpha") for _ in range(2)]
    first, second = (answer.parse() for answer in answers)
    assert first.data[0].embedding == second.data[0].embedding == vector("alpha")
    assert first.usage.prompt_tokens == second.usage.prompt_tokens == 5
    assert [answer.headers["x-nexus-cache"] for answer in answers] == ["miss", "hit"]
    assert "x-nexus-cache-age" not in answers[0].headers
    assert int(answers[1].headers["x-nexus-cache-age"]) < 5
    assert len(upstream.seen) == 1
    paid, free = gateway.rows
    assert (paid.cached, paid.cost_usd, paid.input_tokens, paid.details["cache"]) == (
        False, pytest.approx(5 * 0.02e-6), 5, "miss",
    )  # fmt: skip
    assert (free.cached, free.cost_usd, free.input_tokens, free.details["cache"]) == (True, 0.0, 5, "hit")
    assert (free.kind, free.items, free.route, free.provider) == ("embedding", 1, "v", None)


def test_of_a_batch_only_what_is_not_known_is_asked(gateway: Gateway, upstream: FakeUpstream) -> None:
    ask(gateway, ["alpha", "beta"])
    told = ask(gateway, ["gamma!!", "beta", "gamma!!", "alpha", "delta"])
    assert how(told) == "partial"
    assert told.headers["x-nexus-cache-hits"] == "2"
    assert vectors(told) == [vector(word) for word in ("gamma!!", "beta", "gamma!!", "alpha", "delta")]
    assert upstream.seen[-1].json["input"] == ["gamma!!", "delta"]
    assert told.json()["usage"]["prompt_tokens"] == 7 + 4 + 7 + 5 + 5
    row = gateway.rows[-1]
    assert (row.cached, row.items, row.input_tokens, row.details["cached_items"]) == (False, 5, 12, 2)
    assert row.cost_usd == pytest.approx(12 * 0.02e-6)
    whole = ask(gateway, ["delta", "alpha"])
    assert (how(whole), whole.json()["usage"]["prompt_tokens"]) == ("hit", 10)
    assert len(upstream.seen) == 2


SAME: list[dict[str, Any]] = [{"encoding_format": "base64"}, {"user": "somebody"}, {"encoding_format": "float"}]
OTHER: list[dict[str, Any]] = [{"dimensions": 2}, {"input_type": "query"}, {"input": [[1, 2]]}, {"input": "alpha "}]


@pytest.mark.parametrize(("more", "told"), [*((one, "hit") for one in SAME), *((one, "miss") for one in OTHER)])
def test_what_makes_another_vector_is_another_request(gateway: Gateway, more: dict[str, Any], told: str) -> None:
    ask(gateway, "alpha")
    assert (
        how(ask(gateway, **({"given": "alpha"} | {"given" if n == "input" else n: v for n, v in more.items()}))) == told
    )


def test_words_of_the_provider_s_own_tie_a_batch_together(gateway: Gateway, upstream: FakeUpstream) -> None:
    first = ask(gateway, ["alpha", "beta"], late_chunking=True)
    assert upstream.seen[-1].json["late_chunking"] is True
    assert first.json()["own"] is True, "byte for byte, as without a cache"
    again = ask(gateway, ["alpha", "beta"], late_chunking=True)
    assert (how(first), how(again), again.content) == ("miss", "hit", first.content)
    assert how(ask(gateway, ["alpha"], late_chunking=True)) == "miss"
    assert how(ask(gateway, ["alpha", "beta"])) == "miss"
    assert how(ask(gateway, ["alpha", "beta"], late_chunking=True, encoding_format="base64")) == "miss"


def test_callers_have_the_last_word(gateway: Gateway, upstream: FakeUpstream) -> None:
    def asked(given: Any = "alpha", **headers: str) -> httpx.Response:
        return ask(gateway, given, {f"x-nexus-{name.replace('_', '-')}": value for name, value in headers.items()})

    missing = asked(cache="only")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_cached")
    assert not upstream.seen
    assert how(asked(cache="off")) == "bypass"
    assert how(asked()) == "miss"
    assert how(asked(cache="only")) == "hit"
    assert asked(["alpha", "beta"], cache="only").status_code == 404, "half of it is not it"
    assert how(asked(cache="refresh")) == "miss"
    assert how(asked(cache_ttl="0")) == "miss"
    assert len(upstream.seen) == 4
    bad = asked(cache="maybe")
    assert (bad.status_code, bad.json()["error"]["param"]) == (400, "x-nexus-cache")


def test_time_runs_out_by_route_and_by_key(
    later: Callable[[float], None], make_gateway: Callable[..., Gateway], ledger: Ledger
) -> None:
    gateway = make_gateway(routes=[kept(ttl=80, keys={"key_short": 20, "key_off": 0})])
    ask(gateway, "alpha")
    with serving(gateway.llm, ledger, replace(WHO, id="key_short", key_id="key_short")) as short:
        assert how(ask(short, "alpha")) == "hit"
        later(30)
        assert how(ask(short, "alpha")) == "miss", "too old for this key"
    with serving(gateway.llm, ledger, replace(WHO, id="key_off", key_id="key_off")) as off:
        assert how(ask(off, "alpha")) == "bypass"
    later(30)
    assert how(ask(gateway, "alpha")) == "miss", "kept for as long as the short key wants"
    assert how(ask(gateway, "alpha")) == "hit"


def test_projects_never_share(gateway: Gateway, ledger: Ledger) -> None:
    with serving(gateway.llm, ledger, replace(WHO, project_id="prj_2", id="key_2")) as theirs:
        assert [how(ask(place, "alpha")) for place in (gateway, theirs, gateway)] == ["miss", "miss", "hit"]
        assert HTTP.delete(f"{theirs.url}/api/v1/cache", params={"route": "v"}).json() == {"deleted": 1}
        assert [how(ask(place, "alpha")) for place in (gateway, theirs)] == ["hit", "miss"]


def test_a_route_without_a_cache_says_nothing_of_one(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway(routes=[kept(exact=False)])
    told = [ask(gateway, "alpha") for _ in range(2)]
    assert not any("x-nexus-cache" in answer.headers for answer in told)
    assert told[0].json()["own"] is True
    assert "cache" not in gateway.rows[-1].details


@pytest.mark.slow
def test_who_asks_the_same_at_once_shares_one_call(gateway: Gateway, upstream: FakeUpstream) -> None:
    upstream.answering = lambda seen: waiting(1.0, embedding(seen))
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda _: ask(gateway, ["alpha", "beta"]), range(20)))
    assert len(upstream.seen) == 1
    assert sorted(map(how, found)) == ["hit"] * 19 + ["miss"]
    assert all(vectors(told) == [vector("alpha"), vector("beta")] for told in found)
    assert sorted(row.cached for row in gateway.rows) == [False, *[True] * 19]
    assert len([row for row in gateway.rows if row.cost_usd]) == 1


def test_errors_are_never_kept(gateway: Gateway, upstream: FakeUpstream) -> None:
    for name, status in (("400", 400), ("500", 503)):
        upstream.answering = failing(name)
        assert ask(gateway, "alpha").status_code == status
    too_few = json.dumps({"data": [{"index": 0, "embedding": vector("alpha")}], "model": MODEL}).encode()
    upstream.answering = lambda seen: Script((response(200, too_few),))
    assert ask(gateway, ["alpha", "beta"]).status_code == 502, "whose vector is it?"
    upstream.answering = embedding
    assert how(ask(gateway, ["alpha", "beta"])) == "miss"


def test_an_outage_is_bridged_by_what_has_just_gone_stale(
    later: Callable[[float], None], make_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    gateway = make_gateway(routes=[kept(ttl=20, stale=30)], retries=0)
    ask(gateway, ["alpha", "beta"])
    later(25)
    upstream.answering = failing("500")
    stale = ask(gateway, ["beta", "alpha"])
    assert (how(stale), vectors(stale)) == ("stale", [vector("beta"), vector("alpha")])
    assert (gateway.rows[-1].cached, gateway.rows[-1].cost_usd, gateway.rows[-1].status) == (True, 0.0, "ok")
    assert ask(gateway, ["alpha", "gamma"]).status_code == 503, "of one of them nothing is known"
    upstream.answering = failing("400")
    assert ask(gateway, ["alpha"]).status_code == 400, "the caller's own fault is told"


def test_vectors_of_two_models_are_never_mixed(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    def one_down(down: str) -> None:
        upstream.answering = lambda seen: failing("500")(seen) if seen.json["model"] == down else embedding(seen)

    places = [{"provider": "up", "model": "one"}, {"provider": "up", "model": "two", "weight": 0}]
    gateway = make_gateway(routes=[kept() | {"deployments": places}], retries=0)
    one_down("two")
    ask(gateway, "alpha")
    one_down("one")
    gateway.llm.router._standing.clear()
    mixed = ask(gateway, ["alpha", "beta"])
    assert vectors(mixed) == [vector("alpha", "two"), vector("beta", "two")]
    assert how(mixed) == "miss"
    assert vectors(ask(gateway, ["beta", "alpha"])) == [vector("beta", "two"), vector("alpha", "two")]
    assert gateway.rows[-1].cached


def test_gemini_s_doors_share_with_the_others(gateway: Gateway, upstream: FakeUpstream) -> None:
    client = genai.Client(api_key="nx", http_options={"base_url": gateway.url})
    ask(gateway, ["alpha", "beta"])
    found = client.models.embed_content(model="v", contents=["alpha", "beta"]).embeddings or []
    assert [one.values for one in found] == [vector("alpha"), vector("beta")]
    assert len(upstream.seen) == 1
    assert gateway.rows[-1].cached
    wanted = types.EmbedContentConfig(output_dimensionality=2)
    for _ in range(2):
        small = client.models.embed_content(model="v", contents="alpha", config=wanted).embeddings or []
        assert small[0].values == vector("alpha")[:2]
    assert len(upstream.seen) == 2


def test_google_s_own_words_are_kept_as_a_whole(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    def google(seen: Seen) -> Script:
        told = {"embeddings": [{"values": [0.5, 0.25]} for _ in seen.json["requests"]]}
        return Script((response(200, json.dumps(told).encode()),))

    upstream.answering = google
    provider = {"name": "up", "kind": "google", "base_url": upstream.url, "api_key": "k"}
    gateway = make_gateway(providers=[provider], routes=[kept()])
    client = genai.Client(api_key="nx", http_options={"base_url": gateway.url})
    for title in ("one", "one", "two"):
        config = types.EmbedContentConfig(title=title, task_type="RETRIEVAL_DOCUMENT")
        client.models.embed_content(model="v", contents=["alpha", "beta"], config=config)
    assert [row.cached for row in gateway.rows] == [False, True, False]
    assert upstream.seen[0].json["requests"][0]["title"] == "one"
    paid, free = gateway.rows[:2]
    assert paid.estimated
    assert paid.input_tokens == free.input_tokens == 3, "the server told none"


def test_code_in_this_process_has_a_share_in_it(gateway: Gateway) -> None:
    async def twice() -> list[Any]:
        request = EmbeddingRequest(model="v", input=("alpha", "beta"))
        return [await gateway.llm.embed(WHO, request, run_id="run_1") for _ in range(2)]

    first, second = asyncio.run(twice())
    assert first.vectors == second.vectors
    assert (first.usage.input_tokens, second.usage.input_tokens) == (9, 9)
    assert (second.cost_usd, [row.cached for row in gateway.rows]) == (0.0, [False, True])
    assert first.cost_usd > 0


@pytest.fixture(params=["sqlite", "redis"])
def processes(
    request: pytest.FixtureRequest, upstream: FakeUpstream, tmp_path: Path, database: Database
) -> Iterator[Callable[[], Gateway]]:
    """Return a function that starts another process' worth of service on one shared cache and ledger."""
    stores: list[Cache] = []

    def back() -> Cache:
        return SqlCache(database) if request.param == "sqlite" else RedisCache(request.getfixturevalue("redis_url"))

    with ExitStack() as stack:

        def start() -> Gateway:
            provider = {"name": "up", "kind": "openai", "base_url": upstream.url, "api_key": "sk-x"}
            settings = LLMSettings(**fast(providers=[provider], routes=[kept()]))
            ledger = Ledger(database=database, folder=tmp_path / f"ledger{len(stores)}")
            stack.callback(ledger.flush_now)
            stores.append(LayeredCache(MemoryCache(), back()))
            llm = LLMService(settings=settings, record=ledger.record, cache=stores[-1])
            return stack.enter_context(serving(llm, ledger))

        yield start


def test_other_processes_and_later_ones_share_it_and_count_together(
    processes: Callable[[], Gateway], upstream: FakeUpstream
) -> None:
    one, two = processes(), processes()
    assert HTTP.get(f"{one.url}/api/v1/cache").json()["hit_rate"] is None
    assert how(ask(one, ["alpha", "beta"])) == "miss"
    until(lambda: HTTP.get(f"{two.url}/api/v1/cache").json()["entries"] >= 2)
    assert how(ask(two, ["beta"])) == "hit"
    later = processes()
    assert how(ask(later, ["beta", "gamma", "alpha"])) == "partial"
    assert upstream.seen[-1].json["input"] == ["gamma"]
    assert how(ask(later, ["alpha"])) == "hit"
    for place in (one, two, later):
        HTTP.get(f"{place.url}/api/v1/cache")  # writes down what it has counted
    shown = HTTP.get(f"{one.url}/api/v1/cache").json()
    assert (shown["hits"], shown["partial"], shown["misses"], shown["hit_rate"]) == (2, 1, 1, 0.5)
    assert [(route["route"], route["hits"], route["entries"]) for route in shown["routes"]] == [("v", 2, 3)]


def test_only_chats_have_a_meaning_to_compare() -> None:
    with pytest.raises(ValidationError, match=r"cache\.semantic is for routes of chats"):
        RouteSettings(**kept(semantic={"enabled": True}))
