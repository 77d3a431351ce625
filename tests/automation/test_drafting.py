"""From words to a workflow: a fake provider writes wrong and right drafts; the demo model is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.automation.conftest import WHO as MAKER

import nexus.ledger.tables  # noqa: F401  the database fixtures create what has been imported
from nexus.access.types import Scope
from nexus.automation.drafting import ROUNDS, DraftService, instructions
from nexus.automation.errors import DraftInvalid, ModelRequired
from nexus.automation.real_models import real_model
from nexus.automation.service import AutomationService
from nexus.automation.step import STEPS
from nexus.core.clock import SystemClock
from nexus.files.service import FileService
from nexus.llm.errors import UnknownModel
from nexus.llm.service import LLMService
from nexus.llm.settings import LLMSettings
from nexus.runs.service import RunService
from nexus.runs.settings import RunsSettings
from nexus.storage.blobs.local import LocalBlobs
from nexus.storage.db import Database
from nexus.testing.said import Said
from nexus.testing.script import Script, Seen
from nexus.testing.upstream import FakeUpstream, saying

WHO = replace(MAKER, scopes=MAKER.scopes | {Scope.LLM_INVOKE})
GOOD: dict[str, Any] = {
    "name": "note",
    "inputs": {"text": {"type": "string"}},
    "steps": [{"key": "keep", "uses": "file.write", "with": {"name": "note.txt", "content": "{{ inputs.text }}"}}],
}
WRONG = {**GOOD, "steps": [{"key": "keep", "uses": "file.burn", "with": {}}]}


class Author:
    """A provider that says one thing after the other."""

    def __init__(self, *replies: str) -> None:
        self.replies = list(replies)

    def __call__(self, request: Seen) -> Script:
        text = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        return saying(Said(text=text))(request)


@pytest.fixture
def upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream() as server:
        yield server


def service(database: Database, folder: Path, upstream: FakeUpstream | None) -> DraftService:
    providers = [{"name": "up", "kind": "openai", "base_url": f"{upstream.url}/v1", "api_key": "k"}] if upstream else []
    routes = [{"name": "smart", "deployments": [{"provider": "up", "model": "gpt-4o"}]}] if upstream else []
    settings = LLMSettings.model_validate({"providers": providers, "routes": routes})
    llm = LLMService(settings=settings, record=lambda _call: None)
    runs = RunService(database=database, settings=RunsSettings(data_dir=folder))
    files = FileService(database=database, blobs=LocalBlobs(folder / "files"))
    automation = AutomationService(database=database, runs=runs, files=files, clock=SystemClock())
    return DraftService(automation=automation, llm=llm)


def reply(workflow: dict[str, Any], *notes: str) -> str:
    return orjson.dumps({"workflow": workflow, "notes": notes}).decode()


@pytest.mark.parametrize(
    ("replies", "rounds"),
    [
        ([reply(GOOD, "Keeps it.")], 1),
        ([reply(WRONG), reply(GOOD, "Keeps it.")], 2),
        (["I would rather not.", reply(WRONG), f"```json\n{reply(GOOD, 'Keeps it.')}\n```"], 3),
        (["```yaml\nname: x\n```", reply(GOOD, "Keeps it.")], 2),
    ],
)
async def test_a_draft_is_mended_until_it_is_valid(
    database: Database, tmp_path: Path, upstream: FakeUpstream, replies: list[str], rounds: int
) -> None:
    upstream.answering = Author(*replies)
    draft = await service(database, tmp_path, upstream).draft(WHO, "Keep a text as a note.")
    assert draft.rounds == rounds == len(upstream.seen)
    assert draft.definition["steps"][0]["uses"] == "file.write"
    assert draft.notes == ["Keeps it."]
    assert "{{ inputs.text }}" in draft.yaml
    asked = upstream.seen[-1].json["messages"]
    assert asked[0]["role"] == "system"
    assert asked[1]["content"] == "Keep a text as a note."
    if rounds == 2 and replies[0] == reply(WRONG):
        assert "steps.0.uses: There is no step of this kind." in asked[-1]["content"]


async def test_a_draft_that_is_never_right_tells_what_is_wrong(
    database: Database, tmp_path: Path, upstream: FakeUpstream
) -> None:
    upstream.answering = Author(reply(WRONG))
    with pytest.raises(DraftInvalid) as raised:
        await service(database, tmp_path, upstream).draft(WHO, "Burn it.")
    assert len(upstream.seen) == ROUNDS
    assert raised.value.details["problems"][0]["field"] == "steps.0.uses"
    assert (raised.value.status, raised.value.code) == (422, "draft_invalid")


@pytest.mark.parametrize("model", [None, "nexus-local", "local/nexus-local"])
async def test_the_demo_model_is_refused(database: Database, tmp_path: Path, model: str | None) -> None:
    drafts = service(database, tmp_path, None)
    with pytest.raises((ModelRequired, UnknownModel)) as raised:
        await drafts.draft(WHO, "Anything.", model)
    if model != "local/nexus-local":
        assert (raised.value.status, raised.value.field) == (400, "model")
        assert "docs/providers.md" in raised.value.message
    assert real_model(drafts._llm, None, required=False) is None


def test_the_model_is_told_every_step_and_the_schema() -> None:
    told = instructions()
    assert all(f'"uses":"{name}"' in told for name in STEPS.names())
    assert '"on_failure"' in told
