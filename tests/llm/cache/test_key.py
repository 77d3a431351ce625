"""When two requests are the same: properties of the key, without any I/O."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus.llm.cache.key import key_of, prefix_of
from nexus.llm.dialects.anthropic_messages import plug as messages
from nexus.llm.dialects.gemini import plug as gemini
from nexus.llm.dialects.openai_chat import plug as chat
from nexus.llm.dialects.openai_completions import plug as completions
from nexus.llm.dialects.openai_responses import plug as responses
from nexus.llm.errors import Unsupported
from nexus.llm.types import Deployment, Route

ROUTE = Route(name="r", deployments=(Deployment(provider="up", model="m"),))
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=12)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
REQUESTS = st.fixed_dictionaries(
    {
        "model": st.just("r"),
        "messages": st.lists(
            st.fixed_dictionaries({"role": st.just("user"), "content": WORDS}), min_size=1, max_size=3
        ),
    },
    optional={
        "temperature": st.sampled_from([0, 1]),
        "max_tokens": st.integers(1, 99),
        "vendor": VALUES.filter(lambda value: value is not None),
        "seed": st.integers(0, 9),
    },
)


def key(body: Any, project: str = "prj_1", route: Route = ROUTE, **dump: Any) -> str:
    call = chat.parse(json.dumps(body, **dump).encode(), headers={})
    return str(key_of(call.parse(), call, route, project))


def shuffled(value: Any, pick: random.Random) -> Any:
    if isinstance(value, dict):
        items = list(value.items())
        pick.shuffle(items)
        return {name: shuffled(inner, pick) for name, inner in items}
    return [shuffled(inner, pick) for inner in value] if isinstance(value, list) else value


@given(REQUESTS, st.randoms(use_true_random=False))
def test_key_order_and_white_space_do_not_matter(body: dict[str, Any], pick: random.Random) -> None:
    assert key(body) == key(shuffled(body, pick), indent=3, ensure_ascii=False)


@given(REQUESTS, st.booleans())
def test_who_asks_and_how_it_is_sent_do_not_matter(body: dict[str, Any], stream: bool) -> None:
    assert key(body) == key(body | {"stream": stream, "user": "u", "metadata": {"a": "b"}})


@given(REQUESTS, REQUESTS)
def test_equal_keys_mean_equal_requests(one: dict[str, Any], other: dict[str, Any]) -> None:
    if key(one) == key(other):
        assert json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@given(REQUESTS)
def test_projects_and_routes_are_apart(body: dict[str, Any]) -> None:
    elsewhere = Route(name="r", deployments=(Deployment(provider="up", model="other"),))
    assert len({key(body), key(body, "prj_2"), key(body, route=elsewhere)}) == 3
    assert key(body).startswith(prefix_of("prj_1", "r"))
    assert key(body).startswith(prefix_of("prj_1"))
    assert not key(body).startswith(prefix_of("prj_1", "s"))


def test_a_question_is_the_same_in_every_dialect() -> None:
    fields = {"model": "r", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, "temperature": 0}
    call = messages.parse(json.dumps(fields).encode(), headers={b"anthropic-version": b"2023-06-01"})
    assert str(key_of(call.parse(), call, ROUTE, "prj_1")) == key(fields)


TOOL = {"name": "f", "description": "does", "strict": True}
BODIES: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "chat": (
        chat,
        "",
        {
            "messages": [
                {"role": "system", "content": "x"},
                {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            ],
            "tools": [{"type": "function", "function": TOOL | {"parameters": {"type": "object"}}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
        },
    ),
    "messages": (
        messages,
        "",
        {
            "max_tokens": 2000,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
            "system": [{"type": "text", "text": "x"}],
            "tools": [{"name": "f", "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "auto"},
            "thinking": {"type": "enabled", "budget_tokens": 1024},
        },
    ),
    "responses": (
        responses,
        "",
        {
            "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}],
            "tools": [{"type": "function"} | TOOL | {"parameters": {"type": "object"}}],
            "text": {"format": {"type": "text"}},
            "reasoning": {"effort": "low"},
        },
    ),
    "gemini": (
        gemini,
        "/v1beta/models/r:generateContent",
        {
            "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
            "systemInstruction": {"parts": [{"text": "x"}]},
            "generationConfig": {"temperature": 0},
            "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
        },
    ),
    "completions": (completions, "", {"prompt": "hi"}),
}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every object in a body."""
    if isinstance(value, dict):
        yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in pairs:
        yield from places(inner, (*path, name))


@pytest.mark.parametrize(
    ("form", "path"), [(form, path) for form, (_, _, body) in BODIES.items() for path in places(body)]
)
def test_a_field_that_nobody_knows_yet_makes_another_question(form: str, path: tuple[Any, ...]) -> None:
    """Its provider may know it: it gets the body as it is. Where our own form would refuse it, nothing is kept."""

    def asked(body: dict[str, Any]) -> str | None:
        call = plug.parse(json.dumps({"model": "r"} | body).encode(), path=place, headers={})
        try:
            return str(key_of(call.parse(), call, ROUTE, "prj_1"))
        except Unsupported:
            return None

    plug, place, body = BODIES[form]
    told = inner = copy.deepcopy(body)
    for name in path:
        inner = inner[name]
    inner["vendorField"] = {"a": 1}
    one = asked(told)
    assert one is None or one != asked(body)
    inner["vendorField"] = {"a": 2}
    assert one is None or one != asked(told)
