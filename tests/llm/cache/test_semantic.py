"""Questions that mean the same: what is never taken for the same, and what a hit looks like."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.llm.conftest import WHO, Gateway, fast, serving
from tests.llm.routing.test_delivery import said

from nexus.ledger.service import Ledger
from nexus.llm.cache.answers import AnswerCache
from nexus.llm.cache.key import CacheKey
from nexus.llm.cache.semantic import Meaning, SemanticIndex, question_of, telling_of
from nexus.llm.service import LLMService
from nexus.llm.settings import LLMSettings
from nexus.llm.types import CachePolicy, ChatRequest, Media, Message, SemanticPolicy, Text, Tool
from nexus.storage.caches.memory import MemoryCache
from nexus.testing.upstream import FakeUpstream

HTTP = httpx.Client()

APART = [
    ("Book a flight on 3 May", "Book a flight on 4 May"),
    ("Write 3 bullets", "Write 5 bullets"),
    ("What is 17+25?", "What is 17+26?"),
    ("How do I enable 2FA?", "How do I disable 2FA?"),
    ("This drug is effective", "This drug is not effective"),
    ("Is it safe?", "Isn't it safe?"),
    ("Can I go?", "Can't I go?"),
    ("convert EUR to USD", "convert USD to EUR"),
    ("flights from Oslo to Rome", "flights from Rome to Oslo"),
    ("the population of France", "the population of Spain"),
    ('translate "good morning"', 'translate "good evening"'),
    ("fix `foo_bar`", "fix `foo_baz`"),
    ("open config.yaml", "open config.toml"),
    ("rename userId", "rename userID"),
    ("mail ann@example.org", "mail bob@example.org"),
    ("meet on Monday", "meet on Tuesday"),
    ("events before the war", "events after the war"),
    ("the largest city", "the smallest city"),
    ("turn the light on", "turn the light off"),
    ("one apple", "two apples"),
    ("10% of it", "20% of it"),
    ("is version 1.2.3 out", "is version 1.2.4 out"),
    ("cook with salt", "cook without salt"),
    ("the NATO states", "the OPEC states"),
    ("why does it rain", "how does it rain"),
]
TOGETHER = [
    ("What is the capital of France?", "What is France's capital?"),
    ("what is the capital of France", "What's the capital of France??"),
    ("Please reset my password", "I would like my password reset, please"),
    ("Cats are nice", "cats are nice"),
]


@pytest.mark.parametrize(("one", "other"), APART)
def test_what_matters_tells_questions_apart(one: str, other: str) -> None:
    assert telling_of(one) != telling_of(other)


@pytest.mark.parametrize(("one", "other"), TOGETHER)
def test_mere_wording_does_not(one: str, other: str) -> None:
    assert telling_of(one) == telling_of(other)


def asked(text: str = "What is it?", **more: Any) -> ChatRequest:
    messages = more.pop("messages", None) or (Message(role="user", parts=(Text(text=text),)),)
    return ChatRequest(model="m", messages=messages, temperature=more.pop("temperature", 0), **more)


SYSTEM = Message(role="system", parts=(Text(text="be brief"),))
USER = Message(role="user", parts=(Text(text="hi"),))


@pytest.mark.parametrize(
    ("request_", "compared"),
    [
        (asked(), True),
        (asked(messages=(SYSTEM, USER)), True),
        (asked(messages=(USER, USER)), False),
        (asked(messages=(USER, Message(role="assistant", parts=(Text(text="yes"),)), USER)), False),
        (asked(messages=(Message(role="user", parts=(Text(text="x"), Media(kind="image", url="u"))),)), False),
        (asked(temperature=0.1), False),
        (asked(temperature=None), False),
        (asked(tools=(Tool(name="f"),)), False),
        (asked(choices=2), False),
        (asked("x" * 601), False),
        (asked("  "), False),
        (asked("天气怎么样"), False),
        (asked("какая погода"), False),
        (asked("où est la gare"), True),
    ],
)
def test_only_single_plain_questions_are_compared(request_: ChatRequest, compared: bool) -> None:
    assert (question_of(request_, CachePolicy()) is not None) is compared


def vector(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


async def nothing(_text: str) -> bytes:
    raise AssertionError


def meaning(x: float, telling: str = "", scope: str = "s") -> Meaning:
    return Meaning(scope, (telling,), vector(x, (1 - x * x) ** 0.5))


def test_the_likest_question_is_found_within_its_scope_and_words() -> None:
    index = SemanticIndex(nothing)
    policy = SemanticPolicy(enabled=True, threshold=0.97)
    for i in range(200):
        index.add(meaning(i / 200), CacheKey("k:", str(i)), policy)
    index.add(meaning(1.0, "3"), CacheKey("k:", "three"), policy)
    found = index.find(meaning(0.5001), policy)
    assert found is not None
    assert found[0] == "k:100"
    assert found[1] == pytest.approx(1.0, abs=1e-5)
    assert index.find(meaning(0.5, scope="other"), policy) is None
    assert index.find(meaning(0.5, "4"), policy) is None
    assert index.find(meaning(0.5, "3"), policy) is None, "alike in its numbers, but not in meaning"
    index.forget(meaning(1.0, "3"), "k:three")
    assert index.find(meaning(1.0, "3"), policy) is None


def test_scopes_and_vectors_are_bounded() -> None:
    policy = SemanticPolicy(enabled=True, entries=5)
    index = SemanticIndex(nothing, most=20)
    for scope in range(10):
        for i in range(8):
            index.add(meaning(1.0, f"{i}", str(scope)), CacheKey(f"{scope}:", str(i)), policy)
    assert sum(len(scope.keys) for scope in index._scopes.values()) <= 20
    assert index.find(meaning(1.0, "7", "9"), policy) is not None
    assert index.find(meaning(1.0, "0", "9"), policy) is None, "the oldest of a scope makes room"
    assert index.find(meaning(1.0, "7", "0"), policy) is None, "the scope used longest ago is dropped"


async def all_alike(_text: str) -> bytes:
    """A stand-in for the model of meaning, to which everything means the same: what is told apart, the guards do."""
    return vector(1.0, 0.0)


Make = Callable[..., Gateway]


@pytest.fixture
def make(upstream: FakeUpstream, ledger: Ledger) -> Any:
    with ExitStack() as stack:

        def start(key_id: str = "key_1", llm: LLMService | None = None, **semantic: Any) -> Gateway:
            if llm is None:
                provider = {"name": "up", "kind": "openai", "base_url": upstream.url, "api_key": "sk-x"}
                route = {
                    "name": "r",
                    "deployments": [{"provider": "up", "model": "gpt-4o"}],
                    "cache": {"semantic": {"enabled": True} | semantic},
                }
                settings = LLMSettings(**fast(providers=[provider], routes=[route]))
                llm = LLMService(settings=settings, record=ledger.record)
                llm.cache = AnswerCache(MemoryCache(), SemanticIndex(all_alike))
            return stack.enter_context(serving(llm, ledger, replace(WHO, id=key_id, key_id=key_id)))

        yield start


def ask(gateway: Gateway, text: str, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
    body = {"model": "r", "messages": [{"role": "user", "content": text}], "temperature": 0} | more
    return HTTP.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=20)


def test_a_question_that_means_the_same_is_answered(make: Make, upstream: FakeUpstream) -> None:
    gateway = make()
    first = ask(gateway, "please tell me a story")
    for streamed in (False, True):
        again = ask(gateway, "tell me a story", stream=streamed)
        assert (first.headers["x-nexus-cache"], again.headers["x-nexus-cache"]) == ("miss", "semantic")
        assert again.headers["x-nexus-cache-similarity"] == "1.0000"
        assert int(again.headers["x-nexus-cache-age"]) < 5
        assert said(again) == "please tell me a story"
    assert len(upstream.seen) == 1
    assert [row.cached for row in gateway.rows] == [False, True, True]
    assert gateway.rows[1].cost_usd == 0.0
    shown = HTTP.get(f"{gateway.url}/api/v1/cache").json()
    assert shown["routes"][0]["semantic"] == 2
    assert ask(gateway, "please tell me a story").headers["x-nexus-cache"] == "hit"


DIFFERENT: list[dict[str, Any]] = [
    {"text": "tell me a story 3"},
    {"max_tokens": 7},
    {"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "tell me a story"}]},
    {"seed": 1},
]


@pytest.mark.parametrize("change", DIFFERENT)
def test_what_stands_around_it_must_be_the_same(make: Make, change: dict[str, Any]) -> None:
    gateway = make()
    ask(gateway, "please tell me a story")
    text = change.pop("text", "tell me a story")
    assert ask(gateway, text, **change).headers["x-nexus-cache"] == "miss"


def test_callers_may_go_past_it(make: Make) -> None:
    gateway = make()
    ask(gateway, "please tell me a story")
    for mode, how in (("off", "bypass"), ("refresh", "miss"), ("only", "hit")):
        assert ask(gateway, "tell me a story", {"x-nexus-cache": mode}).headers["x-nexus-cache"] == how
    assert ask(gateway, "tell me a tale", {"x-nexus-cache": "only"}).headers["x-nexus-cache"] == "semantic"
    assert ask(gateway, "tell me a tale 2", {"x-nexus-cache": "only"}).status_code == 404


def test_two_keys_never_share_by_meaning(make: Make, upstream: FakeUpstream) -> None:
    one = make()
    two = make("key_2", one.llm)
    ask(one, "please tell me a story")
    assert ask(two, "tell me a story").headers["x-nexus-cache"] == "miss"
    assert len(upstream.seen) == 2


def test_a_purged_answer_is_not_found_by_meaning(make: Make) -> None:
    gateway = make()
    ask(gateway, "please tell me a story")
    HTTP.delete(f"{gateway.url}/api/v1/cache")
    assert ask(gateway, "tell me a story").headers["x-nexus-cache"] == "miss"


@pytest.mark.slow
async def test_the_built_in_model_on_the_pairs_that_were_measured(models: Path) -> None:
    """No pair with different answers is ever taken for the same, whatever the model thinks of it."""
    from nexus.llm.local.embedder import _load, _run

    folder = next(models.glob("minilm-l6-v2*"), None)
    files = list(folder.rglob("*.onnx")) if folder is not None else []
    tokenizers = list(folder.rglob("tokenizer.json")) if folder is not None else []
    if not files or not tokenizers:
        pytest.skip("the built-in embedding model is not on this machine")
    loaded = _load(files[0], tokenizers[0], 1)

    async def embed(text: str) -> bytes:
        return _run(loaded, [text], 1)[0][0]

    index = SemanticIndex(embed)
    policy = SemanticPolicy(enabled=True)
    for position, (one, other) in enumerate(APART):
        known = Meaning(str(position), telling_of(one), await embed(one))
        index.add(known, CacheKey("k:", str(position)), policy)
        assert index.find(Meaning(str(position), telling_of(other), await embed(other)), policy) is None
        assert index.find(known, policy) is not None
