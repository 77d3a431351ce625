"""The built-in models for real: the child process, the embedder, and a summary made with them."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import stat
import struct
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
from tests.llm.conftest import Gateway, serving

from nexus.access.types import Principal, Scope
from nexus.catalog.pool import ModelPool
from nexus.catalog.service import CatalogService
from nexus.catalog.settings import CatalogSettings
from nexus.core.clock import SystemClock
from nexus.core.errors import NexusError
from nexus.core.secrets import Keyring
from nexus.ledger.service import Ledger
from nexus.ledger.types import Invocation
from nexus.llm.errors import InvalidRequest, Unsupported
from nexus.llm.local.embedder import Embedder
from nexus.llm.local.runtime import LocalRuntime
from nexus.llm.service import LLMService
from nexus.llm.settings import EmbeddingSettings, LLMSettings, LocalSettings
from nexus.llm.text import TextTasks
from nexus.llm.types import ChatRequest, EmbeddingRequest, Message, Text
from nexus.storage.db import Base, Database

pytestmark = pytest.mark.slow
WHO = Principal("key", "key_1", "prj_1", frozenset({Scope.LLM_INVOKE}), key_id="key_1")
SENTENCES = (
    "The city council of Bergen approved a project to convert a historic warehouse into a public library. "
    "The building will hold a makerspace. The budget is twelve million euros, and residents welcomed the decision. "
)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CatalogService]:
    """A catalogue that has the two built-in models; they are fetched once and kept for later sessions."""
    kept = Path(tempfile.gettempdir()) / f"nexus-test-models-{os.getuid()}"
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('catalog') / 'catalog.db'}")
    Base.metadata.create_all(database.engine)
    catalog = CatalogService(
        settings=CatalogSettings(data_dir=kept),
        database=database,
        keyring=Keyring(b"k" * 32),
        clock=SystemClock(),
        pool=ModelPool(),
    )

    async def pull() -> None:
        for name in ("smollm2-135m-instruct", "minilm-l6-v2"):
            await catalog.pull(name)

    try:
        asyncio.run(pull())
    except NexusError as error:
        pytest.skip(f"the built-in models cannot be fetched here: {error.code}")
    yield catalog
    catalog.pool.close()
    database.close()


@pytest.fixture(scope="module")
def served(catalog: CatalogService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, LocalRuntime]]:
    folder = tmp_path_factory.mktemp("data")
    database = Database(f"sqlite:///{folder / 'nexus.db'}")
    Base.metadata.create_all(database.engine)
    settings = LLMSettings()
    local = LocalRuntime(data_dir=folder, settings=settings.local, catalog=catalog)
    embedder = Embedder(catalog=catalog, pool=catalog.pool, settings=settings.embeddings)
    ledger = Ledger(database=database, folder=folder / "ledger")
    llm = LLMService(settings=settings, record=ledger.record, local=local, embedder=embedder)
    with serving(llm, ledger, WHO) as gateway:
        yield gateway, local
    asyncio.run(_stop(local))
    ledger.flush_now()
    database.close()


async def _stop(local: LocalRuntime) -> None:
    running, local._running = local._running, None
    if running is not None:
        running.kill()
    local._drop_lock()


def sdk(gateway: Gateway) -> openai.OpenAI:
    gateway.rows.clear()
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="nx_test", max_retries=0, timeout=120)


def test_the_child_starts_on_demand_and_chats(served: tuple[Gateway, LocalRuntime]) -> None:
    gateway, local = served
    ask = [{"role": "user", "content": "Say hello."}]
    completion = sdk(gateway).chat.completions.create(model="nexus-local", messages=ask, max_tokens=12, temperature=0)
    assert completion.choices[0].message.content
    assert completion.model == "nexus-local", "the path of the file must not show"
    row = gateway.row()
    assert (row.status, row.provider, row.cost_usd, row.estimated) == ("ok", "local", 0.0, False)
    assert completion.usage is not None
    assert row.output_tokens == completion.usage.completion_tokens
    assert stat.S_IMODE(local.notice.stat().st_mode) == 0o600


def test_the_child_streams_with_usage_on_record(served: tuple[Gateway, LocalRuntime]) -> None:
    gateway, _ = served
    ask = [{"role": "user", "content": "Count to five."}]
    stream = sdk(gateway).chat.completions.create(model="nexus-local", messages=ask, max_tokens=16, stream=True)
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert not any(chunk.usage for chunk in chunks)
    row = gateway.row()
    assert row.status == "ok"
    assert 0 < (row.output_tokens or 0) <= 16
    assert not row.estimated


@pytest.mark.parametrize(
    ("more", "status", "param", "code"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, 400, "tools", "unsupported_parameter"),
        ({"n": 2}, 400, "n", "unsupported_parameter"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
            400,
            "messages.0.content.0",
            "unsupported_parameter",
        ),
        ({"messages": [{"role": "user", "content": "word " * 3000}]}, 400, "messages", "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": "word " * 30_000}]}, 400, "messages", "context_length_exceeded"),
    ],
)
def test_what_the_local_model_cannot_do_is_refused(
    served: tuple[Gateway, LocalRuntime], more: dict[str, object], status: int, param: str, code: str
) -> None:
    gateway, _ = served
    body = {"model": "nexus-local", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4} | more
    response = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=60)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (status, param, code), error


def test_the_child_comes_back_after_a_crash(served: tuple[Gateway, LocalRuntime]) -> None:
    gateway, local = served
    ask = [{"role": "user", "content": "hi"}]
    client = sdk(gateway)
    client.chat.completions.create(model="nexus-local", messages=ask, max_tokens=2)
    pid = json.loads(local.notice.read_text())["pid"]
    os.kill(pid, signal.SIGKILL)
    client.chat.completions.create(model="nexus-local", messages=ask, max_tokens=2)
    assert json.loads(local.notice.read_text())["pid"] != pid


async def test_a_second_process_finds_the_same_child(
    served: tuple[Gateway, LocalRuntime], catalog: CatalogService
) -> None:
    _, first = served
    second = LocalRuntime(data_dir=first._data_dir, settings=LocalSettings(), catalog=catalog)
    assert (await second.find()).address == json.loads(first.notice.read_text())["address"]
    assert second._running is None


def test_a_notice_left_by_a_dead_child_is_not_believed(tmp_path: Path, catalog: CatalogService) -> None:
    local = LocalRuntime(data_dir=tmp_path, settings=LocalSettings(), catalog=catalog)
    local.notice.parent.mkdir()
    local.notice.write_text(json.dumps({"address": "http://127.0.0.1:1", "key": "k", "pid": os.getpid()}))
    assert local.look() is None


def test_a_long_text_is_summarised_in_parts(served: tuple[Gateway, LocalRuntime]) -> None:
    gateway, _ = served
    gateway.rows.clear()
    text = "\n\n".join(f"Paragraph {i}. {SENTENCES}" for i in range(24))
    body = {"text": text, "max_words": 12, "model": "nexus-local"}
    response = httpx.post(f"{gateway.url}/api/v1/text/summarize", json=body, timeout=300)
    answer = response.json()
    assert response.status_code == 200, answer
    assert answer["text"]
    assert answer["parts"] > 1
    assert answer["calls"] == len(gateway.rows) > answer["parts"]
    assert {row.kind for row in gateway.rows} == {"text.summarize"}
    assert answer["usage"]["input_tokens"] == sum(row.input_tokens or 0 for row in gateway.rows)
    assert answer["cost_usd"] == 0.0


@pytest.fixture
async def embedder(catalog: CatalogService) -> AsyncIterator[Embedder]:
    embedder = Embedder(catalog=catalog, pool=catalog.pool, settings=EmbeddingSettings())
    yield embedder
    embedder.close()


async def test_embeddings_are_of_length_one_and_mean_something(embedder: Embedder) -> None:
    texts = ("A man is playing a guitar.", "Someone plays an instrument.", "The stock market fell today.", "")
    result = await embedder.embed(EmbeddingRequest(model="minilm-l6-v2", input=texts))
    vectors = np.stack([np.frombuffer(vector, "<f4") for vector in result.vectors])
    assert vectors.shape == (4, 384)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    alike = vectors @ vectors.T
    assert alike[0, 1] > 0.5 > 0.2 > alike[0, 2]
    assert result.usage is not None
    assert result.usage.input_tokens > 15


async def test_a_text_has_the_same_vector_alone_and_in_a_batch(embedder: Embedder) -> None:
    texts = tuple(f"sentence number {i} " + "and more words " * (i % 9) for i in range(70))
    together = await embedder.embed(EmbeddingRequest(model="m", input=texts))
    for i in (0, 8, 69):
        alone = await embedder.embed(EmbeddingRequest(model="m", input=(texts[i],)))
        one, other = (np.frombuffer(vector, "<f4") for vector in (alone.vectors[0], together.vectors[i]))
        assert float(one @ other) > 0.9999


async def test_what_the_embedder_cannot_do_is_refused(embedder: Embedder) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await embedder.embed(EmbeddingRequest(model="m", input=("a",), dimensions=100))
    assert caught.value.field == "dimensions"
    with pytest.raises(Unsupported):
        await embedder.embed(EmbeddingRequest(model="m", input=((1, 2),)))


@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_the_sdk_embeds_locally(served: tuple[Gateway, LocalRuntime], encoding: str | None) -> None:
    gateway, _ = served
    client = sdk(gateway)
    more = {"encoding_format": encoding} if encoding else {}
    answer = client.embeddings.create(model="minilm-l6-v2", input=["one", "two"], **more)  # type: ignore[arg-type]
    vector = answer.data[1].embedding
    if encoding == "base64":
        assert isinstance(vector, str)
        vector = list(struct.unpack("<384f", base64.b64decode(vector)))
    assert len(vector) == 384
    row = gateway.row()
    assert (row.kind, row.items, row.cost_usd) == ("embedding", 2, 0.0)


def test_a_chat_model_does_not_embed(served: tuple[Gateway, LocalRuntime]) -> None:
    gateway, _ = served
    response = httpx.post(f"{gateway.url}/v1/embeddings", json={"model": "nexus-local", "input": "a"})
    assert response.status_code == 404
    ask = {"model": "minilm-l6-v2", "messages": [{"role": "user", "content": "a"}]}
    assert httpx.post(f"{gateway.url}/v1/chat/completions", json=ask).status_code == 404


async def test_code_in_this_process_chats_and_streams(
    catalog: CatalogService, served: tuple[Gateway, LocalRuntime]
) -> None:
    rows: list[Invocation] = []
    _, first = served
    local = LocalRuntime(data_dir=first._data_dir, settings=LocalSettings(), catalog=catalog)
    llm = LLMService(settings=LLMSettings(), record=rows.append, local=local)
    say = Message(role="user", parts=(Text(text="Say hello."),))
    request = ChatRequest(model="nexus-local", messages=(say,), max_tokens=8, temperature=0)
    whole = await llm.chat(WHO, request)
    async with llm.stream(WHO, request) as stream:
        streamed = "".join([chunk.text or "" async for chunk in stream])
    assert whole.text == streamed != ""
    assert whole.invocation_id == rows[0].id
    assert [row.status for row in rows] == ["ok", "ok"]
    assert rows[0].output_tokens == rows[1].output_tokens == 8
    assert "summarize" in TextTasks(llm=llm).names()
    await llm.stop()
