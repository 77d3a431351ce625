"""The steps of language models, asked of a provider on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.automation.steps.conftest import Bench

from nexus.access.types import Scope
from nexus.automation.step import STEPS
from nexus.llm.service import LLMService
from nexus.llm.settings import LLMSettings
from nexus.llm.text import TextTasks
from nexus.testing.said import Said
from nexus.testing.upstream import FakeUpstream, saying

TEXT = "The invoice of 12 May is due: 40 EUR."


@pytest.fixture
def upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream() as fake:
        yield fake


@pytest.fixture
async def asking(bench: Bench, upstream: FakeUpstream) -> Bench:
    provider = {"name": "up", "kind": "openai", "base_url": upstream.url, "api_key": "k"}
    tasks = {"echo": "chat", "fault-500": "chat", "embed-3": "embedding"}
    routes = [
        {"name": name, "task": task, "deployments": [{"provider": "up", "model": name}]} for name, task in tasks.items()
    ]
    llm = LLMService(
        settings=LLMSettings.model_validate({"providers": [provider], "routes": routes, "retries": 0}),
        record=lambda _invocation: None,
    )
    for service in (llm, TextTasks(llm=llm)):
        bench.shop.services.put(service)
    bench.shop.who = replace(bench.shop.who, scopes=bench.shop.who.scopes | {Scope.LLM_INVOKE})
    return bench


@pytest.mark.parametrize(
    ("uses", "given", "said", "told"),
    [
        ("llm.translate", {"text": TEXT, "target": "German"}, "Guten Tag", {"target": "German", "parts": 1}),
        ("llm.summarize", {"text": TEXT, "max_words": 9, "language": None}, "Short.", {"parts": 1}),
        ("llm.rewrite", {"text": TEXT, "style": "formal"}, "Sir.", {"style": "formal"}),
        (
            "llm.answer",
            {"question": "When?", "context": [{"text": TEXT, "id": "mail-1"}]},
            "On 12 May [1].",
            {"found": True, "sources": [{"number": 1, "id": "mail-1"}]},
        ),
        (
            "llm.classify",
            {"text": TEXT, "labels": ["bill", "note"]},
            '{"label": "bill"}',
            {"label": "bill", "labels": ["bill"], "truncated": False},
        ),
        (
            "llm.extract",
            {"text": TEXT, "schema": {"type": "object", "properties": {"total": {"type": "number"}}}},
            '```json\n{"total": 40}\n```',
            {"data": {"total": 40}, "repairs": 0},
        ),
        (
            "llm.chat",
            {"prompt": "Total?", "schema": {"type": "object", "required": ["total"]}},
            '{"total": 40}',
            {"data": {"total": 40}, "finish_reason": "stop"},
        ),
        ("llm.chat", {"messages": [{"role": "user", "content": "Hi"}]}, "Hello", {"text": "Hello", "data": None}),
    ],
)
async def test_text_tasks_are_steps(
    asking: Bench, upstream: FakeUpstream, uses: str, given: dict[str, Any], said: str, told: dict[str, Any]
) -> None:
    upstream.answering = saying(Said(text=said))
    output = await asking.step(uses, model="echo", **given)
    assert {name: output[name] for name in told} == told
    assert output["input_tokens"] > 0
    assert set(output) == {field.alias or name for name, field in STEPS.get(uses).Outputs.model_fields.items()}


async def test_a_chat_falls_back_on_another_model(asking: Bench, upstream: FakeUpstream) -> None:
    output = await asking.step("llm.chat", model="fault-500", fallback="echo", prompt="Say it")
    assert output["text"]
    run = await asking.run("llm.chat", model="fault-500", prompt="Say it")
    assert run.error is not None


async def test_embeds_texts_and_columns(asking: Bench) -> None:
    output = await asking.step("llm.embed", model="embed-3", texts=["a", "b"])
    assert (output["count"], len(output["vectors"])) == (2, 2)
    assert len(output["vectors"][0]) == output["dimensions"]
    file_id = await asking.upload("id,note\n" + "".join(f"{n},text {n}\n" for n in range(130)))
    output = await asking.step("llm.embed", model="embed-3", file_id=file_id, column="note")
    rows = await asking.rows(output["file_id"])
    assert [row["id"] for row in rows] == list(range(130))
    assert len(rows[129]["vector"]) == output["dimensions"]
    assert output["vectors"] is None


@pytest.mark.parametrize("name", [name for name in STEPS.names() if name.startswith(("llm.", "data.", "analytics."))])
def test_every_step_publishes_described_inputs_and_outputs(name: str) -> None:
    plug = STEPS.get(name)
    assert plug.uses == name
    assert plug.Inputs.model_json_schema()["description"]
    assert plug.Outputs.model_json_schema()["description"]
