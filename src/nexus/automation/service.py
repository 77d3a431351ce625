"""Automation as one story: check a definition, keep it as a version, start a run of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import orjson

from nexus.access.types import Principal
from nexus.automation import storage
from nexus.automation.chains import DEEPEST, depth_of
from nexus.automation.document import Path, Place, check_definition, read_document
from nexus.automation.errors import NotRerunnable, RunLoop, WorkflowNotFound
from nexus.automation.graph import Graph, check_graph, step_specs
from nexus.automation.inputs import checked_run_inputs
from nexus.automation.step import STEPS, StepPlug
from nexus.automation.tables import WorkflowRow, WorkflowVersionRow
from nexus.automation.types import Definition, Workflow, WorkflowVersion
from nexus.core.cause import run_behind
from nexus.core.clock import Clock
from nexus.core.errors import NotFound
from nexus.files.service import FileService
from nexus.runs.service import RunService
from nexus.runs.types import Parent, Run, RunSpec
from nexus.storage.db import Database

_BY_HAND: Final = {"type": "manual"}


class AutomationService:
    """Workflows of projects and their runs."""

    def __init__(self, *, database: Database, runs: RunService, files: FileService, clock: Clock) -> None:
        """Keep definitions in `database`, start runs through `runs`."""
        self._database = database
        self._runs = runs
        self._files = files
        self._clock = clock

    def check(self, text: bytes) -> Definition:
        """Return the definition in a YAML or JSON text. Raises `WorkflowInvalid` with every problem."""
        data, places = read_document(text)
        definition = check_definition(data, places)
        _graph(definition, places)
        return definition

    async def apply(self, principal: Principal, text: bytes) -> tuple[Workflow, bool]:
        """Keep the definition as the newest version of its name; say whether that is new.

        Raises `WorkflowInvalid`.
        """
        definition = self.check(text)
        data = definition.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        digest = hashlib.sha256(orjson.dumps(data, option=orjson.OPT_SORT_KEYS)).hexdigest()
        row, written = await self._database.write(
            storage.save_version, principal.project_id, data, digest, principal.id, self._clock.now()
        )
        return _workflow(row), written

    async def get(self, principal: Principal, name_or_id: str) -> Workflow:
        """Return a workflow of the project. Raises `WorkflowNotFound`."""
        return _workflow(await self._row(principal, name_or_id))

    async def list(
        self, principal: Principal, *, after: str | None = None, limit: int = 20, descending: bool = True
    ) -> Sequence[Workflow]:
        """Return workflows by the time they were made, those beyond the one with the id `after`."""
        rows = await self._database.read(storage.list_workflows, principal.project_id, after, limit, descending)
        return [_workflow(row) for row in rows]

    async def versions(self, principal: Principal, name_or_id: str) -> Sequence[WorkflowVersion]:
        """Return every version, the newest first. Raises `WorkflowNotFound`."""
        row = await self._row(principal, name_or_id)
        return [_version(version) for version in await self._database.read(storage.versions_of, row.id)]

    async def version(self, principal: Principal, name_or_id: str, version: int | None = None) -> WorkflowVersion:
        """Return one version, or the newest. Raises `WorkflowNotFound`."""
        row = await self._row(principal, name_or_id)
        found = await self._database.read(storage.get_version, row.id, row.version if version is None else version)
        if found is None:
            raise WorkflowNotFound("This workflow has no such version.", field="version")
        return _version(found)

    async def delete(self, principal: Principal, name_or_id: str) -> None:
        """Take a workflow out of use; its runs stay. Raises `WorkflowNotFound`."""
        at = self._clock.now()
        if not await self._database.write(storage.delete_workflow, principal.project_id, name_or_id, at):
            raise WorkflowNotFound

    async def start(
        self,
        principal: Principal,
        name_or_id: str,
        inputs: dict[str, Any],
        *,
        version: int | None = None,
        idempotency_key: str | None = None,
        trigger: dict[str, Any] | None = None,
        priority: int | None = None,
        parent: Parent | None = None,
    ) -> Run:
        """Start a run of a version, which it is pinned to.

        `trigger` says what started it, `{"type": "schedule", "id": ..}`: stored with the run, `run.trigger`
        in its templates. Raises `WorkflowNotFound`, `InputsInvalid`, `QueueFull`, and `RunLoop` when the step of
        a run asks that stands at the end of a chain.
        """
        spec = await self.spec(
            principal,
            name_or_id,
            inputs,
            version=version,
            idempotency_key=idempotency_key,
            trigger=trigger if parent else await self._counted(trigger or _BY_HAND),
            priority=priority,
            parent=parent,
        )
        return await self._runs.start(principal, spec)

    async def spec(
        self,
        principal: Principal,
        name_or_id: str,
        inputs: dict[str, Any],
        *,
        version: int | None = None,
        idempotency_key: str | None = None,
        trigger: dict[str, Any] | None = None,
        priority: int | None = None,
        parent: Parent | None = None,
    ) -> RunSpec:
        """Return what `start` would start: for `RunService.start_in`, in a transaction of the caller's."""
        found = await self.version(principal, name_or_id, version)
        definition = found.definition
        values = await checked_run_inputs(definition, inputs, lambda file_id: self._has_file(principal, file_id))
        graph = _graph(definition)
        return RunSpec(
            kind="workflow",
            name=definition.name,
            version=found.version,
            inputs=values,
            steps=step_specs(definition.steps, graph, _queue_of, found.workflow_id),
            on_failure=step_specs(definition.on_failure, graph, _queue_of, found.workflow_id),
            outputs=definition.outputs,
            idempotency_key=idempotency_key,
            deadline=definition.timeout,
            priority=definition.priority if priority is None else priority,
            lane=found.workflow_id,
            concurrency=None if parent else definition.concurrency,
            trigger=_caused(trigger or _BY_HAND, parent),
            parent=parent,
            origin=found.workflow_id,
        )

    async def rerun(
        self,
        principal: Principal,
        run_id: str,
        inputs: dict[str, Any],
        *,
        version: int | None = None,
        idempotency_key: str | None = None,
    ) -> Run:
        """Start a new run like an earlier one, with other `inputs` in place of those of the same name.

        It is of the same version unless another is asked for; inputs that the other one does not know any more
        are left out. Raises `RunNotFound`, `NotRerunnable`, `WorkflowNotFound`, `InputsInvalid`.
        """
        run = await self._runs.get(principal, run_id)
        if run.kind != "workflow" or run.origin is None:
            raise NotRerunnable
        wanted = run.version if version is None else version
        found = await self.version(principal, run.origin, wanted)
        kept = {name: value for name, value in run.inputs.items() if name in found.definition.inputs}
        return await self.start(
            principal,
            run.origin,
            {**kept, **inputs},
            version=wanted,
            idempotency_key=idempotency_key,
            trigger={"type": "rerun", "run_id": run.id},
            priority=run.priority,
        )

    async def _counted(self, trigger: dict[str, Any]) -> dict[str, Any]:
        """Return what starts a run, with how many starts stand before it where another run's step asks."""
        cause = run_behind()
        if cause is None:
            return trigger
        depth = await self._database.read(depth_of, {"caused_by": cause})
        if depth >= DEEPEST:
            raise RunLoop
        return {**trigger, "depth": depth + 1}

    async def _has_file(self, principal: Principal, file_id: str) -> bool:
        try:
            await self._files.get(principal, file_id)
        except NotFound:
            return False
        return True

    async def _row(self, principal: Principal, name_or_id: str) -> WorkflowRow:
        row = await self._database.read(storage.find_workflow, principal.project_id, name_or_id)
        if row is None:
            raise WorkflowNotFound
        return row


def _queue_of(uses: str) -> str:
    return STEPS.get(uses).queue


def _plug_of(uses: str) -> StepPlug | None:
    return STEPS.get(uses) if uses in STEPS else None


def _graph(definition: Definition, places: dict[Path, Place] | None = None) -> Graph:
    return check_graph(definition, _plug_of, places)


def _workflow(row: WorkflowRow) -> Workflow:
    return Workflow(row.id, row.name, row.description, row.version, row.created_at, row.updated_at)


def _version(row: WorkflowVersionRow) -> WorkflowVersion:
    definition = Definition.model_validate(row.definition)
    return WorkflowVersion(row.workflow_id, row.version, definition, row.sha256, row.created_at, row.created_by)


def _caused(trigger: dict[str, Any], parent: Parent | None) -> dict[str, Any]:
    """Return what starts a run, with the run whose step called our API to do so."""
    cause = run_behind()
    return trigger if cause is None or parent is not None else {**trigger, "caused_by": cause}
