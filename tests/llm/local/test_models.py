"""Any GGUF as a chat model: a child for each, shared, evicted, restarted, and a project's own for itself only."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.llm.conftest import Gateway, serving
from tests.llm.local.test_local import WHO, catalog

from nexus.access.types import Principal, Scope
from nexus.catalog.errors import ModelNotFound
from nexus.catalog.importing import import_model
from nexus.catalog.service import CatalogService
from nexus.core.errors import NexusError
from nexus.ledger.service import Ledger
from nexus.llm.errors import UnknownModel
from nexus.llm.local.children import LocalChildren, LocalModel, LocalModelsBusy, local_model
from nexus.llm.local.models import LocalModels
from nexus.llm.local.runtime import LocalRuntime, living
from nexus.llm.service import LLMService
from nexus.llm.settings import LLMSettings
from nexus.storage.db import Base, Database

pytestmark = pytest.mark.slow
__all__ = ["catalog"]
OTHER = Principal("key", "key_2", "prj_2", frozenset({Scope.LLM_INVOKE}), key_id="key_2")
OWNER = Principal("key", "key_1", "prj_1", frozenset({Scope.LLM_INVOKE}), key_id="key_1")


class Served:
    """A gateway whose only caller is of project `prj_1`."""

    def __init__(self, gateway: Gateway, children: LocalChildren, models: LocalModels, catalog: CatalogService) -> None:
        self.gateway, self.children, self.models, self.catalog = gateway, children, models, catalog

    def ask(self, model: str, **more: Any) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4} | more
        return httpx.post(f"{self.gateway.url}/v1/chat/completions", json=body, timeout=120)

    def model(self, name: str) -> LocalModel:
        account = self.gateway.llm.registry.find(name, project="prj_1").deployments[0].provider
        found = self.gateway.llm.registry.account(account)[0].options["local_model"]
        assert isinstance(found, LocalModel)
        return found

    def another(self, **settings: Any) -> LocalChildren:
        """Return what another process of this machine has."""
        return LocalChildren(
            data_dir=self.children._folder.parent.parent,
            settings=self.children._settings.model_copy(update=settings),
            runtime=self.children._runtime,
        )

    def pid(self, name: str) -> int | None:
        child = living(self.children.notice(self.model(name).key))
        return child.pid if child else None


@pytest.fixture(scope="module")
def served(catalog: CatalogService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("data")
    database = Database(f"sqlite:///{folder / 'nexus.db'}")
    Base.metadata.create_all(database.engine)
    routes = [
        {"name": "house", "deployments": [{"provider": "local", "model": "smollm2-135m-instruct"}]},
        {"name": "away", "deployments": [{"provider": "local", "model": "llama-3.2-1b-instruct"}]},
        {
            "name": "either",
            "deployments": [{"provider": "local", "model": "llama-3.2-1b-instruct"}],
            "fallbacks": ["house"],
        },
    ]
    settings = LLMSettings(local={"children": 2, "parallel": 1, "longest_context": 512, "threads": 1}, routes=routes)
    runtime = LocalRuntime(data_dir=folder, settings=settings.local, catalog=catalog)
    children = LocalChildren(data_dir=folder, settings=settings.local, runtime=runtime)
    ledger = Ledger(database=database, folder=folder / "ledger")
    llm = LLMService(settings=settings, record=ledger.record, local=runtime, children=children)
    models = LocalModels(catalog=catalog, llm=llm, every=1.0, local=settings.local)

    async def bring() -> None:
        file = (await catalog.find("smollm2-135m-instruct")).files["model"]
        for who, name in ((OWNER, "mine"), (OWNER, "second"), (OWNER, "third"), (OTHER, "theirs")):
            await _import(catalog, who, name, file)
        await models.refresh()

    asyncio.run(bring())
    with serving(llm, ledger, WHO) as gateway:
        yield Served(gateway, children, models, catalog)
    for running in children._running.values():
        running.kill()
    ledger.flush_now()
    database.close()


async def _import(catalog: CatalogService, who: Principal, name: str, file: Path) -> None:
    try:
        await catalog.own.get(who, name)
    except ModelNotFound:
        await import_model(catalog, who, name, file)


def test_two_imported_models_answer_at_once_at_no_price_and_share_their_children(served: Served) -> None:
    answers: dict[str, httpx.Response] = {}
    threads = [
        threading.Thread(target=lambda name=name: answers.update({name: served.ask(name)}))  # type: ignore[misc]
        for name in ("mine", "local/second")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, response in answers.items():
        assert response.status_code == 200, response.text
        assert response.json()["model"] == name.removeprefix("local/")
        assert response.json()["choices"][0]["message"]["content"]
    assert len(answers) == 2
    assert served.pid("mine") != served.pid("second")
    assert {row.cost_usd for row in served.gateway.rows} == {0.0}
    again = served.another()
    child = asyncio.run(again.find(served.model("mine")))
    assert (child.pid, again._running) == (served.pid("mine"), {})


def test_a_route_leads_to_models_of_this_machine_and_on_from_those_that_are_not_here(served: Served) -> None:
    for name in ("house", "either"):
        answer = served.ask(name)
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"]
        row = served.gateway.rows[-1]
        assert (row.model, row.cost_usd) == (name, 0.0)
    absent = served.ask("away")
    assert absent.status_code == 404
    assert "llama-3.2-1b-instruct is not on this machine" in absent.json()["error"]["message"]
    route = served.gateway.llm.registry.find("house")
    assert route.timeouts.first_token == 180
    assert not route.deployments[0].capabilities.demo


def test_a_third_ends_the_one_that_was_idle_longest(served: Served) -> None:
    for name in ("mine", "second"):
        assert served.ask(name).status_code == 200
    first = served.pid("second")
    assert first is not None
    time.sleep(1.5)
    before = _used(served, "mine")
    assert served.ask("mine", max_tokens=1).status_code == 200
    _until(lambda: _used(served, "mine") > before)
    assert served.ask("third").status_code == 200
    _until(lambda: served.pid("second") is None)
    assert served.pid("mine") is not None
    assert served.pid("third") is not None


def test_no_child_ends_in_the_middle_of_an_answer(served: Served) -> None:
    assert served.ask("mine").status_code == 200
    pid = served.pid("mine")
    assert pid is not None
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(served.ask("mine", max_tokens=150, temperature=0)))
    asking.start()
    time.sleep(0.5)
    os.kill(pid, signal.SIGUSR1)
    asking.join()
    assert answers[0].status_code == 200
    assert answers[0].json()["usage"]["completion_tokens"] > 4
    _until(lambda: served.pid("mine") is None)


def test_a_child_that_crashed_is_started_again(served: Served) -> None:
    assert served.ask("mine").status_code == 200
    pid = served.pid("mine")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert served.ask("mine").status_code == 200
    assert served.pid("mine") not in (None, pid)


def test_an_imported_model_is_only_its_projects(served: Served) -> None:
    assert served.ask("theirs").status_code == 404
    assert served.ask("local/theirs").status_code == 404
    names = {card["id"] for card in httpx.get(f"{served.gateway.url}/v1/models").json()["data"]}
    assert {"mine", "second", "third", "smollm2-135m-instruct", "nexus-local"} <= names
    assert "theirs" not in names
    registry = served.gateway.llm.registry
    assert registry.find("theirs", project="prj_2").name == "theirs"
    with pytest.raises(UnknownModel):
        registry.find("mine", project="prj_2")


def test_what_the_file_does_not_know_is_refused_and_what_is_not_here_says_so(served: Served) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    error = served.ask("mine", tools=tools).json()["error"]
    assert (error["param"], error["code"]) == ("tools", "unsupported_parameter")
    error = served.ask("mine", messages=[{"role": "user", "content": "word " * 3000}]).json()["error"]
    assert error["code"] == "context_length_exceeded"
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = served.ask("mine", response_format=form, max_tokens=40)
    assert isinstance(json.loads(answer.json()["choices"][0]["message"]["content"])["a"], bool)
    absent = served.ask("llama-3.2-1b-instruct")
    assert absent.status_code == 404
    assert "pulled" in absent.json()["error"]["message"]
    assert served.ask("local/no-such-model").status_code == 404


async def test_load_and_unload(served: Served) -> None:
    children = served.another()
    served.catalog.runners["llm"] = children
    try:
        await served.catalog.load(OWNER, "second")
        assert served.pid("second") is not None
        await served.catalog.unload(OWNER, "second")
        await asyncio.to_thread(_until, lambda: served.pid("second") is None)
    finally:
        await children.stop()


async def test_where_all_are_at_work_it_says_so(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nexus.llm.local.children._LONGEST_WAIT", 0.2)
    monkeypatch.setattr("nexus.llm.local.children._STILL_AT_WORK", 1e6)
    running = served.another(children=1)
    await asyncio.to_thread(served.ask, "mine")
    with pytest.raises(LocalModelsBusy):
        await running.find(LocalModel(name="x", key="x@1", file=str(tmp_path / "x.gguf"), context=512))


def test_capabilities_are_those_of_the_file(served: Served) -> None:
    version = asyncio.run(served.catalog.find("smollm2-135m-instruct"))
    model = local_model(version, 100_000)
    assert (model.tools, model.context, model.project) == (False, 8192, "")
    assert local_model(version, 512).context == 512


def _used(served: Served, name: str) -> float:
    return served.children.notice(served.model(name).key).stat().st_mtime


def _until(holds: Any) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


async def test_a_file_that_is_no_model_is_told(served: Served, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    children = served.another(children=8)
    with pytest.raises(NexusError) as caught:
        await children.find(LocalModel(name="broken", key="broken@1", file=str(tmp_path / "x.gguf"), context=512))
    assert caught.value.code == "local_model_unavailable"
    await children.stop()
