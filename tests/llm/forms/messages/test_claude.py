"""What each generation of Claude models takes: thinking, efforts, what steers the choice of words."""

from __future__ import annotations

from typing import Any

import pytest
from tests.llm.forms.messages.test_requests import HELLO, SONNET, asked, said, written

from nexus.llm.errors import Unsupported
from nexus.llm.forms.messages.claude import claude, effort_of
from nexus.llm.forms.messages.requests import read_request
from nexus.llm.types import (
    Reasoning,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)

OPUS = "claude-opus-4-8"

ASKED_TO_THINK: list[tuple[str, Reasoning, dict[str, Any]]] = [
    (SONNET, Reasoning(effort="low"), {"thinking": {"type": "enabled", "budget_tokens": 4096}}),
    (SONNET, Reasoning(effort="high"), {"thinking": {"type": "enabled", "budget_tokens": 16_384}}),
    (SONNET, Reasoning(budget_tokens=2000), {"thinking": {"type": "enabled", "budget_tokens": 2000}}),
    (SONNET, Reasoning(budget_tokens=100), {"thinking": {"type": "enabled", "budget_tokens": 1024}}),
    (SONNET, Reasoning(budget_tokens=-1), {"thinking": {"type": "enabled", "budget_tokens": 8192}}),
    (SONNET, Reasoning(effort="none"), {}),
    (SONNET, Reasoning(effort="minimal"), {}),
    (SONNET, Reasoning(budget_tokens=0), {}),
    ("claude-3-7-sonnet-latest", Reasoning(effort="medium"), {"thinking": {"type": "enabled", "budget_tokens": 8192}}),
    ("kimi-k3", Reasoning(effort="medium"), {"thinking": {"type": "enabled", "budget_tokens": 8192}}),
    (OPUS, Reasoning(effort="high"), {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}),
    (OPUS, Reasoning(effort="xhigh"), {"thinking": {"type": "adaptive"}, "output_config": {"effort": "xhigh"}}),
    (
        "claude-opus-4-6",
        Reasoning(effort="xhigh"),
        {"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}},
    ),
    (OPUS, Reasoning(effort="minimal"), {"output_config": {"effort": "low"}}),
    (OPUS, Reasoning(effort="none"), {"thinking": {"type": "disabled"}}),
    ("claude-fable-5", Reasoning(effort="none"), {"output_config": {"effort": "low"}}),
    ("claude-opus-5-5", Reasoning(budget_tokens=0), {"output_config": {"effort": "low"}}),
    ("claude-haiku-5-5", Reasoning(budget_tokens=0), {"thinking": {"type": "disabled"}}),
    (OPUS, Reasoning(budget_tokens=5000), {"thinking": {"type": "adaptive"}}),
    (OPUS, Reasoning(summary="auto"), {"thinking": {"type": "adaptive", "display": "summarized"}}),
]


@pytest.mark.parametrize(("model", "reasoning", "expected"), ASKED_TO_THINK)
def test_each_generation_is_asked_to_think_in_its_own_way(
    model: str, reasoning: Reasoning, expected: dict[str, Any]
) -> None:
    body = written(asked(reasoning=reasoning), model)
    assert {name: body[name] for name in ("thinking", "output_config") if name in body} == expected
    budget = expected.get("thinking", {}).get("budget_tokens", 0)
    assert body["max_tokens"] == claude(model).answer_tokens + budget


def test_a_budget_leaves_room_for_the_answer() -> None:
    body = written(asked(reasoning=Reasoning(effort="high"), max_tokens=4000))
    assert (body["max_tokens"], body["thinking"]["budget_tokens"]) == (4000, 3000)
    assert "thinking" not in written(asked(reasoning=Reasoning(effort="high"), max_tokens=500))


def test_thinking_is_left_out_where_it_would_be_refused() -> None:
    think = Reasoning(effort="low")
    bound = asked(reasoning=think, tools=(Tool(name="f"),), tool_choice=ToolChoice(mode="required"))
    assert "thinking" not in written(bound)
    assert written(bound, OPUS)["thinking"] == {"type": "adaptive"}
    call = ToolCall(id="c", name="f", arguments="{}")
    result = said("tool", ToolResult(id="c", content=(Text(text="x"),)))
    assert "thinking" not in written(asked(*HELLO, said("assistant", call), result, reasoning=think))
    sealed = said("assistant", Thinking(text="hm", signature="s"), call)
    assert "thinking" in written(asked(*HELLO, sealed, result, reasoning=think))
    with pytest.raises(Unsupported) as refused:
        written(asked(reasoning=think), "claude-3-5-haiku-latest")
    assert refused.value.field == "reasoning_effort"


@pytest.mark.parametrize(
    ("thinking", "config", "expected"),
    [
        (None, {}, None),
        (None, {"effort": "max"}, Reasoning(effort="xhigh")),
        ({"type": "disabled"}, {}, Reasoning(budget_tokens=0)),
        ({"type": "enabled", "budget_tokens": 9000}, {}, Reasoning(effort="high", budget_tokens=9000, summary="auto")),
        ({"type": "adaptive"}, {"effort": "low"}, Reasoning(effort="low", summary="auto")),
        ({"type": "adaptive", "display": "omitted"}, {}, Reasoning(summary="none")),
        ({"type": "between_tools"}, {}, Reasoning(summary="auto")),
    ],
)
def test_leave_to_think_is_read(thinking: Any, config: dict[str, Any], expected: Reasoning | None) -> None:
    more = {"thinking": thinking} if thinking else {}
    assert read_request({"model": "m", "messages": [], "output_config": config} | more).reasoning == expected
    assert [effort_of(n) for n in (1024, 4096, 8192, 20_000)] == ["low", "low", "medium", "high"]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("claude-3-haiku-20240307", ("none", 4096)),
        ("claude-3-5-sonnet-20241022", ("none", 8192)),
        ("claude-3-7-sonnet-20250219", ("budget", 32_000)),
        ("claude-sonnet-4-20250514", ("budget", 32_000)),
        ("claude-opus-4-1-20250805", ("budget", 32_000)),
        ("anthropic/claude-opus-4.5", ("budget", 32_000)),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", ("budget", 32_000)),
        ("claude-sonnet-4-6", ("adaptive", 32_000)),
        ("claude-sonnet-5", ("adaptive", 32_000)),
        ("claude-fable-5", ("adaptive", 32_000)),
        ("glm-5", ("budget", 8192)),
    ],
)
def test_generations_are_told_by_name(model: str, expected: tuple[str, int]) -> None:
    able = claude(model)
    assert (able.thinking, able.answer_tokens) == expected


SAMPLING: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"temperature": 0.3}, {"temperature": 0.3}),
    ({"temperature": 1.7}, {"temperature": 1}),
    ({"temperature": 0.3, "top_p": 1.0}, {"temperature": 0.3}),
    ({"top_p": 1.0, "top_k": 4}, {"top_p": 1.0, "top_k": 4}),
    ({"temperature": 0.3, "top_p": 0.5}, {"temperature": 0.3, "top_p": 0.5}),
    ({"temperature": 1.0, "top_p": 0.96, "reasoning": Reasoning(effort="low")}, {"temperature": 1.0, "top_p": 0.96}),
]


@pytest.mark.parametrize(("more", "expected"), SAMPLING)
def test_what_steers_the_choice_of_words(more: dict[str, Any], expected: dict[str, Any]) -> None:
    body = written(asked(**more))
    assert {name: body[name] for name in ("temperature", "top_p", "top_k") if name in body} == expected


@pytest.mark.parametrize("more", [{"temperature": 0.3}, {"top_p": 0.5}, {"top_k": 4}])
def test_a_model_that_thinks_takes_no_other_sampling(more: dict[str, Any]) -> None:
    with pytest.raises(Unsupported) as refused:
        written(asked(**more, reasoning=Reasoning(effort="low")))
    assert refused.value.field == next(iter(more))
