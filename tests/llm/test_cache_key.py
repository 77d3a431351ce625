"""When two requests are the same: properties of the key, without any I/O."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from nexus.llm.cache_key import key_of, prefix_of
from nexus.llm.dialects.anthropic_messages import plug as messages
from nexus.llm.dialects.openai_chat import plug as chat
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
