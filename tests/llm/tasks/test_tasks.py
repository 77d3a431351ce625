"""Text tasks over HTTP with a model that says what the test wants, and what reaches it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import httpx
import pytest
from tests.llm.conftest import Gateway

from nexus.llm.splitting import split
from nexus.llm.structured import Schema, read_json
from nexus.llm.text import TEXT_TASKS
from nexus.testing.said import Said
from nexus.testing.upstream import FakeUpstream, saying

RECEIPT = {
    "type": "object",
    "properties": {
        "total": {"type": "number", "minimum": 0},
        "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
    },
    "required": ["total", "currency"],
    "additionalProperties": False,
    "$defs": {"line": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}},
}


def ask(gateway: Gateway, upstream: FakeUpstream, task: str, answers: Iterable[str], **body: Any) -> httpx.Response:
    """Let the model say these answers, one after the other, and run the task."""
    said = list(answers)

    def answering(request: Any) -> Any:
        return saying(Said(text=said.pop(0) if len(said) > 1 else said[0]))(request)

    upstream.answering = answering
    return httpx.post(f"{gateway.url}/api/v1/text/{task}", json={"model": "up/m", **body}, timeout=30)


def asked(upstream: FakeUpstream) -> list[str]:
    return [seen.json["messages"][-1]["content"] for seen in upstream.seen]


def test_every_task_has_a_route(gateway: Gateway) -> None:
    for name in TEXT_TASKS.names():
        assert httpx.post(f"{gateway.url}/api/v1/text/{name}", json={}).status_code == 422, name
    assert httpx.post(f"{gateway.url}/api/v1/text/nothing", json={}).status_code == 404


def test_translation_hands_on_glossary_and_form(gateway: Gateway, upstream: FakeUpstream) -> None:
    glossary = {"lighthouse": "Leuchtturm", "unused": "egal"}
    answer = ask(gateway, upstream, "translate", ["Der Leuchtturm."], text="The lighthouse.", target="German",
                 source="English", formality="formal", glossary=glossary)  # fmt: skip
    told = answer.json()
    assert (told["text"], told["target"], told["parts"], told["calls"]) == ("Der Leuchtturm.", "German", 1, 1)
    [order] = asked(upstream)
    assert "from English into German" in order
    assert "formal" in order
    assert "lighthouse = Leuchtturm" in order
    assert "unused" not in order


def test_a_long_text_is_translated_part_by_part_in_order(gateway: Gateway, upstream: FakeUpstream) -> None:
    text = "\n\n".join(f"Paragraph {n}. " + "word " * 500 for n in range(20))
    upstream.answering = lambda request: saying(Said(text=request.json["messages"][-1]["content"][-2600:-2500]))(
        request
    )
    body = {"model": "up/m", "text": text, "target": "French"}
    answer = httpx.post(f"{gateway.url}/api/v1/text/translate", json=body, timeout=30).json()
    assert answer["parts"] == answer["calls"] == len(upstream.seen) > 1
    assert "".join(part.partition("Text:\n")[2] for part in asked(upstream)).split() == text.split()


def test_rewriting_takes_style_and_wishes(gateway: Gateway, upstream: FakeUpstream) -> None:
    answer = ask(gateway, upstream, "rewrite", [" Hi there. "], text="Yo.", style="formal", instructions="No slang.")
    assert (answer.json()["text"], answer.json()["style"]) == ("Hi there.", "formal")
    assert "formal, professional" in asked(upstream)[0]
    assert "No slang." in asked(upstream)[0]


@pytest.mark.parametrize(
    "reply",
    [
        '{"total": 12.5, "currency": "EUR"}',
        '```json\n{"total": 12.5, "currency": "EUR"}\n```',
        'Here is it: {"total": 12.5, "currency": "EUR"} I hope it helps.',
        '{"total": 12.5, "currency": "EUR",}',
        "{'total': 12.5, 'currency': 'EUR'}",
    ],
)
def test_extraction_reads_what_models_write(gateway: Gateway, upstream: FakeUpstream, reply: str) -> None:
    answer = ask(gateway, upstream, "extract", [reply], text="Total 12.50 EUR", schema=RECEIPT).json()
    assert answer["data"] == {"total": 12.5, "currency": "EUR"}
    assert answer["repairs"] == 0
    assert json.loads(answer["text"]) == answer["data"]
    form = upstream.seen[0].json["response_format"]
    assert form["json_schema"]["schema"] == RECEIPT


def test_extraction_shows_the_model_what_was_wrong(gateway: Gateway, upstream: FakeUpstream) -> None:
    replies = ["no idea", '{"total": -1, "currency": "euro"}', '{"total": 1, "currency": "EUR"}']
    answer = ask(gateway, upstream, "extract", replies, text="1 EUR", schema=RECEIPT).json()
    assert (answer["data"], answer["repairs"], answer["calls"]) == ({"total": 1, "currency": "EUR"}, 2, 3)
    assert "no JSON" in asked(upstream)[1]
    assert "/total" in asked(upstream)[2]
    assert "/currency" in asked(upstream)[2]
    assert len(gateway.rows) == 3
    assert {row.kind for row in gateway.rows} == {"text.extract"}


def test_extraction_gives_up_with_the_problems(gateway: Gateway, upstream: FakeUpstream) -> None:
    answer = ask(gateway, upstream, "extract", ['{"total": "x"}'], text="?", schema=RECEIPT, retries=1)
    assert (answer.status_code, answer.json()["code"]) == (422, "answer_invalid")
    assert any(problem.startswith("/total") for problem in answer.json()["problems"])
    assert len(upstream.seen) == 2


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "nonsense"}, "not valid"),
        ({"$ref": "https://example.com/schema.json"}, "within it"),
        ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "within it"),
        ({"$ref": "#/$defs/nowhere"}, "not valid"),
        ({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}, "not valid"),
    ],
)
def test_schemas_are_checked_before_anything_is_asked(
    gateway: Gateway, upstream: FakeUpstream, schema: dict[str, Any], words: str
) -> None:
    answer = ask(gateway, upstream, "extract", ["{}"], text="x", schema=schema)
    assert (answer.status_code, answer.json()["code"]) == (400, "schema_invalid"), answer.text
    assert words in answer.json()["detail"]
    assert not upstream.seen


def test_classification_names_one_of_the_labels(gateway: Gateway, upstream: FakeUpstream) -> None:
    labels = ["praise", {"name": "complaint", "description": "something is broken"}]
    replies = ['{"label": "anger"}', '{"label": "complaint"}']
    answer = ask(gateway, upstream, "classify", replies, text="It broke.", labels=labels).json()
    assert (answer["label"], answer["labels"], answer["repairs"]) == ("complaint", ["complaint"], 1)
    assert "complaint: something is broken" in asked(upstream)[0]


def test_classification_with_several_labels_may_find_none(gateway: Gateway, upstream: FakeUpstream) -> None:
    answer = ask(gateway, upstream, "classify", ['{"labels": []}'], text="x", labels=["a", "b"], several=True).json()
    assert (answer["label"], answer["labels"], answer["text"]) == (None, [], "")
    many = ask(
        gateway, upstream, "classify", ['{"labels": ["b", "a", "b"]}'], text="x", labels=["a", "b"], several=True
    )
    assert many.json()["labels"] == ["b", "a"]


def test_answers_cite_their_passages(gateway: Gateway, upstream: FakeUpstream) -> None:
    context = [{"text": "The tower is 40 m high.", "id": "tower.md"}, "It was built in 1871."]
    answer = ask(gateway, upstream, "answer", ["It is 40 m high [1], from 1871 [2, 9]."], question="How high?",
                 context=context).json()  # fmt: skip
    assert answer["found"] is True
    assert answer["sources"] == [{"number": 1, "id": "tower.md"}, {"number": 2, "id": None}]
    assert "[1] The tower is 40 m high." in asked(upstream)[0]


def test_an_answer_that_is_not_there_is_not_made_up(gateway: Gateway, upstream: FakeUpstream) -> None:
    answer = ask(gateway, upstream, "answer", ["Not in the passages."], question="Who?", context="Nothing here.").json()
    assert (answer["found"], answer["sources"]) == (False, [])


def test_a_long_context_is_searched_first(gateway: Gateway, upstream: FakeUpstream) -> None:
    passages = [f"Passage about {n}. " + "filler " * 3000 for n in range(8)]

    def answering(request: Any) -> Any:
        order = request.json["messages"][-1]["content"]
        quotes = order.startswith("Quote")
        return saying(Said(text="[3] the key is under the mat" if quotes and "[3]" in order else "It is there [3]."))(
            request
        )

    upstream.answering = answering
    body = {"model": "up/m", "question": "Where is the key?", "context": passages}
    answer = httpx.post(f"{gateway.url}/api/v1/text/answer", json=body, timeout=30).json()
    assert answer["sources"] == [{"number": 3, "id": None}]
    assert answer["calls"] > 2
    assert "the key is under the mat" in asked(upstream)[-1]


@pytest.mark.parametrize(
    ("task", "body", "pointer"),
    [
        ("translate", {"text": "a"}, "/target"),
        ("translate", {"text": "a", "target": "x; obey"}, "/target"),
        ("rewrite", {"text": "a", "style": "pirate"}, "/style"),
        ("extract", {"text": "a"}, "/schema"),
        ("extract", {"text": "a", "schema": {}}, "/schema"),
        ("extract", {"text": "a", "schema": {"type": "object"}, "retries": 99}, "/retries"),
        ("classify", {"text": "a", "labels": ["one"]}, "/labels"),
        ("classify", {"text": "a", "labels": ["one", "one"]}, "/labels"),
        ("answer", {"question": "", "context": "x"}, "/question"),
        ("answer", {"question": "q", "context": []}, "/context"),
    ],
)
def test_bad_input_names_the_field(gateway: Gateway, task: str, body: dict[str, Any], pointer: str) -> None:
    answer = httpx.post(f"{gateway.url}/api/v1/text/{task}", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"].startswith(pointer)


def test_patterns_of_hostile_schemas_cost_no_time() -> None:
    schema = Schema({"type": "string", "pattern": "^(a+)+$"})
    assert schema.problems("a" * 5_000 + "!")


@pytest.mark.parametrize("text", ["", "nothing", "{", "[1, 2", "{]}", "null", "12", '"text"', "{{{{{{"])
def test_odd_answers_never_raise(text: str) -> None:
    read_json(text)


def test_split_is_the_one_of_all_tasks() -> None:
    assert split("a b", 1) == ["a", "b"]
