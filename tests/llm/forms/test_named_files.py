"""Ids of ours where only a provider's will do: refused by name, before anything is sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.llm.test_named_files import MINE, PDF, UNKNOWN, House, house, make_house  # noqa: F401  fixtures

from nexus.llm.errors import Unsupported
from nexus.llm.types import ChatRequest, Media, Message, Text, ToolResult

AT_THE_PROVIDER: list[tuple[str, dict[str, Any], str]] = [
    (
        "/v1/messages",
        {"messages": [{"role": "user", "content": [{"type": "container_upload", "file_id": "ID"}]}]},
        "messages.0.content.0.file_id",
    ),
    (
        "/v1/messages/count_tokens",
        {"messages": [{"role": "user", "content": [{"type": "container_upload", "file_id": "ID"}]}]},
        "messages.0.content.0.file_id",
    ),
    (
        "/v1/responses",
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["file-theirs", "ID"]}}]},
        "tools.0.container.file_ids.1",
    ),
    (
        "/v1/responses",
        {"tools": [{"type": "shell", "environment": {"type": "container_auto", "file_ids": ["ID"]}}]},
        "tools.0.environment.file_ids.0",
    ),
    (
        "/v1/responses",
        {"tools": [{"type": "image_generation", "input_image_mask": {"file_id": "ID"}}]},
        "tools.0.input_image_mask.file_id",
    ),
    (
        "/v1/responses",
        {
            "input": [
                {
                    "type": "computer_call_output",
                    "call_id": "c",
                    "output": {"type": "computer_screenshot", "file_id": "ID"},
                }
            ]
        },
        "input.0.output.file_id",
    ),
    (
        "/v1/responses",
        {"prompt": {"id": "p", "variables": {"doc": {"type": "input_file", "file_id": "ID"}}}},
        "prompt.variables.doc.file_id",
    ),
    (
        "/v1/responses/input_tokens",
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["ID"]}}]},
        "tools.0.container.file_ids.0",
    ),
]


@pytest.fixture
def home(request: pytest.FixtureRequest) -> House:
    found: House = request.getfixturevalue("house")
    return found


@pytest.mark.parametrize(("path", "body", "place"), AT_THE_PROVIDER, ids=[place for _, _, place in AT_THE_PROVIDER])
def test_what_must_lie_at_the_provider_is_no_file_of_ours(
    home: House, path: str, body: dict[str, Any], place: str
) -> None:
    base: dict[str, Any] = {"model": "anthropic/m", "max_tokens": 9} if "messages" in path else {"model": "openai/m"}
    base |= {} if "messages" in path else {"input": "go"}
    told = json.dumps(base | body)
    for file_id in (home.upload("a.pdf", PDF), UNKNOWN):
        refused = home.post(path, told.replace("ID", file_id).encode())
        assert refused.status_code == 400, refused.text
        assert place in refused.json()["error"]["message"]
        assert refused.json()["error"].get("param", place) == place
    assert not home.upstream.seen
    theirs = "file_011CNha8iCJcU1wXNR6q4V8w"
    assert home.post(path, told.replace("ID", theirs).encode()).status_code == 200
    assert theirs.encode() in home.upstream.seen[-1].body


async def test_code_of_this_process_is_told_that_an_id_of_ours_is_no_data(home: House) -> None:
    picture = Media(kind="image", file_id=UNKNOWN)
    said = Message(role="user", parts=(Text(text="look"), picture))
    shown = Message(role="tool", parts=(ToolResult(id="c", content=(picture,)),))
    for messages, place in (((said,), "messages.0.parts.1.file_id"), ((said, shown)[1:], "parts.0.content.0.file_id")):
        request = ChatRequest(model="openai/m", messages=messages)
        with pytest.raises(Unsupported, match=place):
            await home.gateway.llm.chat(MINE, request)
        with pytest.raises(Unsupported, match=place):
            home.gateway.llm.stream(MINE, request)
    assert not home.upstream.seen
    theirs = Message(role="user", parts=(Media(kind="document", file_id="file-abc123"),))
    await home.gateway.llm.chat(MINE, ChatRequest(model="openai/m", messages=(theirs,)))
    assert home.sent["messages"][0]["content"][0]["file"] == {"file_id": "file-abc123"}
