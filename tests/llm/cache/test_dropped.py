"""What a route let be left out of a request: an answer from the cache says the same as the one that it repeats."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import msgspec
import pytest
from tests.llm.cache.test_semantic import all_alike
from tests.llm.conftest import PATIENT, WHO, Gateway, fast, serving
from tests.llm.scripts import failing, slowly, waiting
from tests.storage.test_caches import redis_url  # noqa: F401  a fixture

from nexus.ledger.service import Ledger
from nexus.llm.cache.answers import AnswerCache
from nexus.llm.cache.kept import Kept
from nexus.llm.cache.semantic import SemanticIndex
from nexus.llm.service import LLMService
from nexus.llm.settings import LLMSettings
from nexus.llm.types import ChatRequest, Completion, Message, Text
from nexus.storage.cache import Cache
from nexus.storage.caches.layered import LayeredCache
from nexus.storage.caches.memory import MemoryCache
from nexus.storage.caches.redis import RedisCache
from nexus.storage.caches.sql import SqlCache
from nexus.storage.db import Database
from nexus.testing.upstream import FakeUpstream, answer

HTTP = httpx.Client(timeout=20)
BODY = {"model": "r", "messages": [{"role": "user", "content": "alpha beta"}], "temperature": 0, "seed": 7}
WAYS = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])


def settings(upstream: FakeUpstream, *kinds: str, **policy: Any) -> LLMSettings:
    """One route for each kind, each the way out of the one before; all let a seed go."""
    providers = [{"name": kind, "kind": kind, "base_url": upstream.url, "api_key": "k"} for kind in kinds]
    routes = [
        {"name": name, "deployments": [{"provider": kind, "model": "m"}], "drop_unsupported": ["seed", "logit_bias"]}
        | {"cache": {"exact": True} | policy, "fallbacks": ["rs"[i + 1]] if i + 1 < len(kinds) else []}
        for i, (name, kind) in enumerate(zip("rs", kinds, strict=False))
    ]
    return LLMSettings(**fast(providers=providers, routes=routes, retries=0, timeouts=PATIENT))


@pytest.fixture
def start(upstream: FakeUpstream, ledger: Ledger) -> Iterator[Callable[..., Gateway]]:
    with ExitStack() as stack:

        def serve(*kinds: str, store: Cache | None = None, **policy: Any) -> Gateway:
            told = settings(upstream, *(kinds or ("anthropic",)), **policy)
            llm = LLMService(settings=told, record=ledger.record, cache=store)
            return stack.enter_context(serving(llm, ledger, WHO))

        yield serve


def ask(gateway: Gateway, **more: Any) -> httpx.Response:
    return HTTP.post(f"{gateway.url}/v1/chat/completions", json=BODY | more)


def told(*answers: httpx.Response) -> list[tuple[str, str | None]]:
    assert {one.status_code for one in answers} == {200}, [one.text for one in answers]
    return [(one.headers["x-nexus-cache"], one.headers.get("x-nexus-dropped")) for one in answers]


@WAYS
def test_a_hit_says_what_the_first_answer_said(
    start: Callable[..., Gateway], upstream: FakeUpstream, streamed: bool
) -> None:
    gateway = start()
    asked = [ask(gateway, stream=stream) for stream in (streamed, False, True)]
    gemini = {"contents": [{"parts": [{"text": "alpha beta"}]}], "generationConfig": {"temperature": 0, "seed": 7}}
    asked.append(HTTP.post(f"{gateway.url}/v1beta/models/r:generateContent", json=gemini))
    assert told(*asked) == [("miss", "seed"), ("hit", "seed"), ("hit", "seed"), ("hit", "seed")]
    assert told(*(ask(gateway, seed=None) for _ in "12")) == [("miss", None), ("hit", None)]
    assert len(upstream.seen) == 2


@pytest.mark.parametrize("back", ["sqlite", pytest.param("redis", marks=pytest.mark.slow)])
def test_other_processes_say_it_too(
    request: pytest.FixtureRequest, start: Callable[..., Gateway], database: Database, back: str
) -> None:
    def store() -> Cache:
        shared = SqlCache(database) if back == "sqlite" else RedisCache(request.getfixturevalue("redis_url"))
        return LayeredCache(MemoryCache(), shared)

    first, other = start(store=store()), start(store=store())
    assert told(ask(first)) == [("miss", "seed")]
    end = time.monotonic() + 5
    while not HTTP.get(f"{other.url}/api/v1/cache").json()["entries"] and time.monotonic() < end:
        time.sleep(0.02)
    assert told(*(ask(other, stream=stream) for stream in (False, True))) == [("hit", "seed")] * 2


@WAYS
def test_a_question_that_means_the_same_too(start: Callable[..., Gateway], streamed: bool) -> None:
    gateway = start(semantic={"enabled": True})
    gateway.llm.cache = AnswerCache(MemoryCache(), SemanticIndex(all_alike))
    ask(gateway)
    alike = [{"role": "user", "content": "please alpha beta"}]
    assert told(ask(gateway, messages=alike, stream=streamed)) == [("semantic", "seed")]


@WAYS
def test_what_bridges_an_outage_speaks_of_itself_alone(
    later: Callable[[float], None], start: Callable[..., Gateway], upstream: FakeUpstream, streamed: bool
) -> None:
    """Not of the deployments that were tried in vain, and left out something else, or nothing."""
    gateway, whole = start("anthropic", "google", ttl=20, stale=100), start("google", "anthropic", ttl=20, stale=100)
    biased = {"logit_bias": {"1": 2}}
    assert told(ask(gateway), ask(whole), ask(whole, **biased)) == [
        ("miss", "seed"),
        ("miss", None),
        ("miss", "logit_bias"),
    ]
    later(25)
    upstream.answering = failing("500")
    before = len(upstream.seen)
    found = ask(gateway, stream=streamed), ask(whole, stream=streamed), ask(whole, stream=streamed, **biased)
    assert told(*found) == [("stale", "seed"), ("stale", None), ("stale", "logit_bias")]
    assert len(upstream.seen) == before + 6, "all were tried"


@WAYS
def test_who_joins_a_call_is_told_as_its_first_caller(
    start: Callable[..., Gateway], upstream: FakeUpstream, streamed: bool
) -> None:
    gateway = start()
    upstream.answering = lambda seen: waiting(0.3, answer(seen))
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda i: ask(gateway, stream=streamed if i % 3 else not streamed), range(6)))
    assert sorted(told(*found)) == [("hit", "seed")] * 5 + [("miss", "seed")]
    assert len(upstream.seen) == 1


@WAYS
def test_who_inherits_a_call_is_told_too(start: Callable[..., Gateway], upstream: FakeUpstream, streamed: bool) -> None:
    gateway = start()
    upstream.answering = lambda seen: waiting(0.6, slowly("alpha beta", gap=0, wait=0)(seen))
    found: list[httpx.Response] = []

    def leave() -> None:
        url = f"{gateway.url}/v1/chat/completions"
        with pytest.raises(httpx.ReadTimeout):
            HTTP.post(url, json=BODY | {"stream": streamed}, timeout=httpx.Timeout(5, read=0.3))

    threads = [threading.Thread(target=leave)]
    threads += [threading.Thread(target=lambda: found.append(ask(gateway, stream=streamed))) for _ in "12"]
    for thread in threads:
        thread.start()
        time.sleep(0.08)
    for thread in threads:
        thread.join()
    assert sorted(told(*found)) == [("hit", "seed"), ("miss", "seed")]
    assert len(upstream.seen) == 1


async def test_code_of_this_process_keeps_it_for_callers_from_outside(
    start: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    gateway = start()
    said = Message(role="user", parts=(Text(text="alpha beta"),))
    await gateway.llm.chat(WHO, ChatRequest(model="r", messages=(said,), temperature=0, seed=7))
    assert told(ask(gateway)) == [("hit", "seed")]


def test_what_older_versions_kept_is_read_as_it_is() -> None:
    kept = Kept.of(Completion(id="c", model="m", created=1, choices=()), dropped=b"seed")
    older = msgspec.msgpack.decode(bytes(kept))
    del older["dropped"]
    found = Kept.read(msgspec.msgpack.encode(older))
    assert found is not None
    assert (found.dropped, found.since) == (b"", kept.since)
    assert Kept.read(bytes(kept)) == kept
