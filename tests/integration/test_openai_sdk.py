"""The official OpenAI SDK, unchanged: base URL and key are all that differs."""

from __future__ import annotations

import time
from typing import Any

import openai
import pytest

from nexus.cli.instance import Place

pytestmark = pytest.mark.slow
HELLO = [{"role": "user", "content": "Write one short sentence about the sea."}]


@pytest.fixture
def client(place: Place) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{place.url}/v1", api_key=place.key, max_retries=0, timeout=120)


def test_chats(client: openai.OpenAI) -> None:
    done = client.chat.completions.create(model="nexus-local", messages=HELLO, max_tokens=24, temperature=0)
    assert done.choices[0].message.content
    assert done.usage
    assert 0 < done.usage.completion_tokens <= 24
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens


def test_streams(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="nexus-local", messages=HELLO, max_tokens=24, temperature=0, seed=1)
    chunks = list(
        client.chat.completions.create(
            model="nexus-local",
            messages=HELLO,
            max_tokens=24,
            temperature=0,
            seed=1,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert len(chunks) > 5
    assert chunks[-1].usage
    assert chunks[-1].choices == []


def test_usage_comes_only_when_asked_for(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="nexus-local", messages=HELLO, max_tokens=8, stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeds(client: openai.OpenAI, encoding: str) -> None:
    found = client.embeddings.create(model="minilm-l6-v2", input=["a cat", "a kitten"], encoding_format=encoding)  # type: ignore[arg-type]
    assert [item.index for item in found.data] == [0, 1]
    vectors = [item.embedding for item in found.data]
    if encoding == "float":
        assert all(len(vector) == 384 for vector in vectors)


def test_lists_models(client: openai.OpenAI) -> None:
    names = {model.id for model in client.models.list()}
    assert {"nexus-local", "minilm-l6-v2"} <= names
    assert client.models.retrieve("nexus-local").id == "nexus-local"


def test_errors_are_the_sdk_s_own(client: openai.OpenAI, place: Place) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="no-such-model", messages=HELLO)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model="nexus-local", messages=[{"role": "wizard", "content": "x"}])  # type: ignore[list-item]
    assert "messages" in str(bad.value.param)
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="nx_wrong").models.list()


def test_responds_and_goes_on(client: openai.OpenAI) -> None:
    first = client.responses.create(model="nexus-local", input="Say hello.", max_output_tokens=16, temperature=0)
    assert first.output_text
    assert first.usage
    assert client.responses.retrieve(first.id).output_text == first.output_text
    events = list(
        client.responses.create(
            model="nexus-local", input="And again.", previous_response_id=first.id, max_output_tokens=16, stream=True
        )
    )
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert events[-1].type in ("response.completed", "response.incomplete")
    final = events[-1].response
    assert text == final.output_text
    assert final.previous_response_id == first.id
    items = client.responses.input_items.list(final.id, order="asc").data
    assert [item.type for item in items] == ["message", "message", "message"]
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)


def test_responds_in_the_background(client: openai.OpenAI) -> None:
    made = client.responses.create(model="nexus-local", input="Say hello.", max_output_tokens=16, background=True)
    assert made.status == "queued"
    end = time.monotonic() + 60
    while (found := client.responses.retrieve(made.id)).status in ("queued", "in_progress"):
        assert time.monotonic() < end
        time.sleep(0.2)
    assert found.status in ("completed", "incomplete")
    assert found.output_text
    assert found.background is True


def test_completes_in_the_older_form(client: openai.OpenAI) -> None:
    done = client.completions.create(model="nexus-local", prompt="Once upon a time", max_tokens=8)
    assert done.choices[0].text


def test_names_files(client: openai.OpenAI) -> None:
    note = client.files.create(file=("note.md", b"# The sea\nIt is wide and blue.\n"), purpose="user_data")
    bill = client.files.create(file=("bill.pdf", b"%PDF-1.4\n%%EOF\n"), purpose="user_data")

    def ask(file_id: str) -> str:
        parts: Any = [{"type": "file", "file": {"file_id": file_id}}, {"type": "text", "text": "What is this?"}]
        told: Any = [{"role": "user", "content": parts}]
        done = client.chat.completions.create(model="nexus-local", messages=told, max_tokens=8)
        return done.choices[0].message.content or ""

    assert ask(note.id)
    with pytest.raises(openai.BadRequestError) as unable:
        ask(bill.id)
    assert unable.value.param == "messages.0.content.0"
    client.files.delete(note.id)
    with pytest.raises(openai.NotFoundError) as gone:
        ask(note.id)
    assert (gone.value.code, gone.value.param) == ("file_not_found", "messages.0.content.0.file.file_id")
