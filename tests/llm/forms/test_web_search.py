"""A search in the web that OpenAI's clients ask for, at providers of other forms: asked, told of, and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest
from tests.llm.conftest import Gateway
from tests.llm.every_answer import STREAMS, answered
from tests.llm.forms.test_every_answer import gemini, messages

from nexus.llm.forms.gemini.notes import count_searches
from nexus.testing.script import Script, Seen, chunked, response, stream_head
from nexus.testing.upstream import FakeUpstream

HTTP = httpx.Client(timeout=20)
SEARCH: Any = {"type": "web_search"}
FOUND = [
    {"type": "web_search_result", "url": f"https://{name}", "title": name, "encrypted_content": "x", "page_age": None}
    for name in ("a", "b")
]
ASKED = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "weather köln"}}
CITED = {
    "type": "web_search_result_location",
    "url": "https://a",
    "title": "A",
    "cited_text": "it",
    "encrypted_index": "y",
}
ANSWERS: dict[str, dict[str, Any]] = {
    "anthropic": messages(
        {"type": "text", "text": "Let me look. "},
        ASKED,
        {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": FOUND},
        {"type": "text", "text": "It rains.", "citations": [CITED]},
        usage={"input_tokens": 10, "output_tokens": 5, "server_tool_use": {"web_search_requests": 1}},
    ),
    "google": gemini(
        {"text": "Let me look. "},
        {"text": "It rains."},
        groundingMetadata={
            "webSearchQueries": ["weather köln"],
            "groundingChunks": [{"web": {"uri": f"https://{name}", "title": name.upper()}} for name in ("a", "b")],
            "groundingSupports": [{"segment": {"startIndex": 13, "endIndex": 22}, "groundingChunkIndices": [0]}],
        },
    ),
}
TOOLS = {"anthropic": [{"type": "web_search_20250305", "name": "web_search"}], "google": [{"googleSearch": {}}]}
KINDS = sorted(ANSWERS)
STEPS = ["response.web_search_call.in_progress", "response.web_search_call.searching"]


@pytest.fixture
def make(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> Callable[[str], Gateway]:
    def made(kind: str) -> Gateway:
        def answer(seen: Seen) -> Script:
            if "stream" not in seen.path and not seen.json.get("stream"):
                return Script((response(200, json.dumps(ANSWERS[kind]).encode()),))
            return Script((stream_head(), chunked(STREAMS[kind](ANSWERS[kind])), b"0\r\n\r\n"))

        upstream.answering = answer
        price = {"input": 0, "output": 0, "web_search": 0.01}
        deployment = {"provider": "up", "model": "m", "price": price}
        provider = {"name": "up", "kind": kind, "base_url": upstream.url, "api_key": "k"}
        return make_gateway(providers=[provider], routes=[{"name": "r", "deployments": [deployment]}])

    return made


def check_output(output: list[Any], *, sources: bool) -> None:
    (search,) = (item for item in output if item.type == "web_search_call")
    assert (search.status, search.action.type) == ("completed", "search")
    assert search.action.queries == [search.action.query] == ["weather köln"]
    found = [source.url for source in search.action.sources] if search.action.sources is not None else None
    assert found == (["https://a", "https://b"] if sources else None)
    texts = [part for item in output if item.type == "message" for part in item.content]
    assert "".join(part.text for part in texts) == "Let me look. It rains."
    notes = [(note, part.text[note.start_index : note.end_index]) for part in texts for note in part.annotations]
    told = [(note.type, note.url, note.title, text) for note, text in notes]
    assert told == [("url_citation", "https://a", "A", "It rains.")]


@pytest.mark.parametrize("sources", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_official_sdk_searches_in_a_response(
    make: Callable[[str], Gateway], upstream: FakeUpstream, kind: str, sources: bool
) -> None:
    gateway = make(kind)
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="nx", max_retries=0, http_client=HTTP)
    ask: Any = {"model": "r", "input": "weather?", "tools": [SEARCH], "store": False}
    ask |= {"include": ["web_search_call.action.sources"]} if sources else {}
    check_output(client.responses.create(**ask).output, sources=sources)
    assert upstream.seen[0].json["tools"] == TOOLS[kind]
    assert gateway.row().cost_usd == pytest.approx(0.01)
    events = list(client.responses.create(**ask, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    told = [event.type for event in events if "web_search" in event.type]
    assert told == [*STEPS, "response.web_search_call.completed"]
    items = [event.item for event in events if event.type == "response.output_item.done"]
    last = events[-1]
    assert last.type == "response.completed"
    check_output(last.response.output, sources=sources)
    assert items == last.response.output
    assert len([event for event in events if event.type == "response.output_text.annotation.added"]) == 1


@pytest.mark.parametrize(
    "last",
    [
        {"text": "", "thoughtSignature": "QUJD"},
        {"text": "!", "thoughtSignature": "QUJD"},
        {"functionCall": {"name": "f", "args": {}}},
    ],
)
def test_what_is_cited_once_a_text_is_over_stands_on_that_text(
    make: Callable[[str], Gateway], upstream: FakeUpstream, last: dict[str, Any]
) -> None:
    gateway = make("google")
    pieces = [gemini({"text": "It rains."}, finish=None), ANSWERS["google"] | gemini(last)]
    grounds = ANSWERS["google"]["candidates"][0]["groundingMetadata"] | {
        "groundingSupports": [{"segment": {"startIndex": 3, "endIndex": 8}, "groundingChunkIndices": [1]}]
    }
    pieces[1]["candidates"][0]["groundingMetadata"] = grounds
    told = b"".join(b"data: " + json.dumps(piece).encode() + b"\n\n" for piece in pieces)
    upstream.answering = lambda seen: Script((stream_head(), chunked(told), b"0\r\n\r\n"))
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="nx", max_retries=0, http_client=HTTP)
    ask: Any = {"model": "r", "input": "weather?", "tools": [SEARCH], "store": False}
    events = list(client.responses.create(**ask, stream=True))
    (noted,) = (event for event in events if event.type == "response.output_text.annotation.added")
    assert events[-1].type == "response.completed"
    output = events[-1].response.output
    texts = [part for item in output if item.type == "message" for part in item.content]
    assert "".join(part.text for part in texts) == "It rains." + last.get("text", "")
    (note,) = [note for text in texts for note in text.annotations]
    assert (note.url, texts[0].text[note.start_index : note.end_index]) == ("https://b", "rains")
    assert (noted.item_id, noted.content_index) == (output[noted.output_index].id, 0)
    assert noted.annotation.to_dict() == note.to_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_chat_completions_search_alike(make: Callable[[str], Gateway], upstream: FakeUpstream, kind: str) -> None:
    gateway = make(kind)
    body = {"model": "r", "messages": [{"role": "user", "content": "?"}], "web_search_options": {}}
    told = HTTP.post(f"{gateway.url}/v1/chat/completions", json=body).json()["choices"][0]["message"]
    assert told["content"] == "Let me look. It rains."
    assert told["annotations"][0]["url_citation"]["url"] == "https://a"
    assert upstream.seen[0].json["tools"] == TOOLS[kind]


@pytest.mark.parametrize("operation", ["generateContent", "streamGenerateContent?alt=sse"])
def test_searches_of_google_s_own_clients_are_billed(make: Callable[[str], Gateway], operation: str) -> None:
    gateway = make("google")
    ask = {"contents": [{"role": "user", "parts": [{"text": "?"}]}], "tools": [{"googleSearch": {}}]}
    assert HTTP.post(f"{gateway.url}/v1beta/models/r:{operation}", json=ask).status_code == 200
    assert gateway.row().cost_usd == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("model", "queries", "billed"),
    [
        ("gemini-2.5-flash", ["a", "b"], 1),
        ("gemini-3-pro", ["a", "b", "", "a"], 2),
        ("gemini-2.5-pro", [], 0),
        ("", None, 0),
    ],
)
def test_google_bills_older_models_by_the_question(model: str, queries: Any, billed: int) -> None:
    assert count_searches({"webSearchQueries": queries}, model) == billed


def test_what_a_search_is_told(make: Callable[[str], Gateway], upstream: FakeUpstream) -> None:
    gateway = make("anthropic")
    place = {"type": "approximate", "city": "Köln", "country": "DE", "region": None}
    tool = SEARCH | {"filters": {"allowed_domains": ["a.org"]}, "user_location": place, "search_context_size": "medium"}
    function = {"type": "function", "name": "f", "parameters": {"type": "object"}}
    ask = {"model": "r", "input": "?", "tools": [function, tool], "tool_choice": "auto"}
    assert HTTP.post(f"{gateway.url}/v1/responses", json=ask).status_code == 200
    asked = upstream.seen[0].json
    assert [one["name"] for one in asked["tools"]] == ["f", "web_search"]
    assert asked["tools"][1]["allowed_domains"] == ["a.org"]
    assert asked["tools"][1]["user_location"] == {"type": "approximate", "city": "Köln", "country": "DE"}
    assert asked["tool_choice"] == {"type": "auto"}
    for choice in ("none", {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}):
        assert HTTP.post(f"{gateway.url}/v1/responses", json=ask | {"tool_choice": choice}).status_code == 200
        assert [one["name"] for one in upstream.seen[-1].json["tools"]] == ["f"]


BERLIN = {"type": "approximate", "city": "Berlin"}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("google", {"filters": {"allowed_domains": ["a.org"]}}, "tools.0.filters.allowed_domains"),
    ("google", {"user_location": BERLIN}, "tools.0.user_location"),
    ("google", {"search_context_size": "low"}, "tools.0.search_context_size"),
    ("anthropic", {"search_context_size": "high"}, "tools.0.search_context_size"),
    ("anthropic", {"search_context_size": "huge"}, "tools.0.search_context_size"),
    ("anthropic", {"filters": {"blocked_domains": ["a.org"]}}, "tools.0.filters.blocked_domains"),
    ("anthropic", {"filters": {"allowed_domains": "a.org"}}, "tools.0.filters.allowed_domains"),
    ("anthropic", {"filters": 3}, "tools.0.filters"),
    ("anthropic", {"user_location": 3}, "tools.0.user_location"),
    ("anthropic", {"novel": 1}, "tools.0.novel"),
    ("anthropic", {"type": "web_search_preview", "search_content_types": ["image"]}, "tools.0.search_content_types"),
    ("bedrock", {}, "tools.0.type"),
]


@pytest.mark.parametrize(("kind", "more", "field"), REFUSED, ids=[f"{case[0]} {case[2]}" for case in REFUSED])
def test_what_a_provider_cannot_do_is_refused_by_its_name(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, kind: str, more: dict[str, Any], field: str
) -> None:
    provider = {"name": "up", "kind": kind, "base_url": upstream.url, "api_key": "k", "region": "us-east-1"}
    gateway = make_gateway(providers=[provider])
    ask = {"model": "up/m", "input": "?", "tools": [SEARCH | more]}
    told = HTTP.post(f"{gateway.url}/v1/responses", json=ask)
    assert (told.status_code, told.json()["error"]["param"]) == (400, field)
    assert not upstream.seen


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"tools": [SEARCH, SEARCH]}, "tools.1.type"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [SEARCH]}}, "tool_choice"),
    ],
)
def test_a_search_cannot_be_insisted_on(make: Callable[[str], Gateway], more: dict[str, Any], field: str) -> None:
    ask = {"model": "r", "input": "?", "tools": [SEARCH]} | more
    told = HTTP.post(f"{make('anthropic').url}/v1/responses", json=ask)
    assert (told.status_code, told.json()["error"]["param"]) == (400, field)


@pytest.mark.parametrize("stream", [False, True])
def test_a_search_that_failed_says_so(stream: bool) -> None:
    problem = {"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"}
    result = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": problem}
    body = messages(ASKED, result, {"type": "text", "text": "Sorry."})
    told = answered("anthropic", body, "openai_responses", stream=stream)
    searches = [item for item in told.raw[-1]["output"] if item["type"] == "web_search_call"]
    assert [(item["status"], item["action"]["query"]) for item in searches] == [("failed", "weather köln")]


@pytest.mark.parametrize(("web_search", "status"), [(True, 200), (False, 400)])
def test_servers_of_openai_s_form_search_where_they_are_known_to(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, web_search: bool, status: int
) -> None:
    provider = {"name": "up", "kind": "openai", "base_url": upstream.url, "api_key": "k", "responses": False}
    provider |= {"web_search": web_search}
    gateway = make_gateway(providers=[provider])
    tool = SEARCH | {"user_location": BERLIN, "search_context_size": "low"}
    told = HTTP.post(f"{gateway.url}/v1/responses", json={"model": "up/m", "input": "?", "tools": [tool]})
    assert told.status_code == status
    if web_search:
        where = {"type": "approximate", "approximate": {"city": "Berlin"}}
        wanted = {"search_context_size": "low", "user_location": where}
        assert upstream.seen[0].json["web_search_options"] == wanted
    else:
        assert told.json()["error"]["param"] == "tools.0.type"
