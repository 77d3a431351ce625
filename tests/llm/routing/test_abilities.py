"""What models are known to be unable to do; above all that nothing a recording shows them doing is refused."""

from __future__ import annotations

import pytest

from nexus.llm.routing.abilities import able_as
from nexus.llm.types import Capabilities, Need

ALL = Capabilities()


@pytest.mark.parametrize(
    ("model", "lacks", "context"),
    [
        ("gpt-3.5-turbo", {"images", "audio", "documents", "reasoning"}, 16385),
        ("gpt-3.5-turbo-0125", {"images", "audio", "documents", "reasoning"}, 16385),
        ("ft:gpt-3.5-turbo-0125:acme::abc", {"images", "audio", "documents", "reasoning"}, 16385),
        ("gpt-4", {"images", "audio", "documents", "reasoning"}, 8192),
        ("gpt-4-turbo-2024-04-09", {"audio", "reasoning"}, 128000),
        ("gpt-4o-mini-2024-07-18", set(), 128000),
        ("openai/gpt-4o", set(), 128000),
        ("gpt-4o-audio-preview", set(), 128000),
        ("o1-mini-2024-09-12", {"tools", "images", "audio", "documents"}, 128000),
        ("o3-mini", {"images", "audio"}, 200000),
        ("o4-mini", {"audio"}, 200000),
        ("gpt-5-mini", set(), 400000),
        ("anthropic.claude-v2:1", set(), None),
        ("claude-2.1", {"tools", "images", "documents", "reasoning"}, 200000),
        ("us.anthropic.claude-3-5-sonnet-20240620-v1:0", set(), 200000),
        ("claude-sonnet-4-5", set(), None),
        ("models/gemini-2.5-flash", set(), 1048576),
        ("gemini-1.5-pro-002", set(), 2097152),
        ("amazon.titan-text-express-v1", {"images", "audio", "documents"}, None),
        ("us.amazon.nova-micro-v1:0", {"images", "audio", "documents"}, None),
        ("us.amazon.nova-lite-v1:0", set(), None),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", {"images", "audio"}, None),
        ("meta.llama3-1-70b-instruct-v1:0", {"images", "audio"}, None),
        ("us.meta.llama3-2-11b-instruct-v1:0", set(), None),
        ("meta-llama/Llama-3.2-11B-Vision-Instruct", set(), None),
        ("llama-3.3-70b-versatile", {"images", "audio"}, None),
        ("Qwen/Qwen2.5-VL-7B-Instruct", set(), None),
        ("Qwen/Qwen2.5-7B-Instruct", {"images", "audio"}, None),
        ("deepseek-chat", {"images", "audio"}, None),
        ("mistral-large-latest", set(), None),
        ("something-new", set(), None),
        ("", set(), None),
    ],
)
def test_known_models(model: str, lacks: set[Need], context: int | None) -> None:
    able = able_as(model, ALL)
    needs: tuple[Need, ...] = (
        "tools",
        "images",
        "audio",
        "documents",
        "json_schema",
        "reasoning",
        "choices",
        "logprobs",
    )
    assert {need for need in needs if able.lacks(need)} == lacks
    assert able.context_tokens == context


def test_a_kind_that_cannot_is_not_made_able() -> None:
    kind = Capabilities(tools=False, audio=False, demo=True)
    able = able_as("gpt-4o", kind)
    assert (able.tools, able.audio, able.demo, able.images) == (False, False, True, True)
