"""What a step is executed with: its condition, its rendered inputs, its items, the outputs of its items."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any, Final

from nexus.runs import engine_storage as queries
from nexus.runs.attempt import Attempt
from nexus.runs.engine_storage import Claimed
from nexus.runs.transitions import Failed, Outcome, Skipped, Spread, Succeeded
from nexus.runs.types import Failure, PlainRenderer, Renderer, StepStatus
from nexus.storage.db import Database

_PLAIN: Final = PlainRenderer()


class Preparation:
    """Reads what the templates of a step name, and renders them."""

    def __init__(self, database: Database, renderer: Renderer) -> None:
        """Read outputs from `database`."""
        self._database = database
        self._renderer = renderer

    def inputs(self, attempt: Attempt) -> dict[str, Any] | Spread | Skipped:
        """Return the handler's inputs; or that the step is skipped, or what items it has."""
        claimed = attempt.claimed
        kinds = self._renderer.kinds
        renderer = self._renderer if kinds is None or claimed.run.kind in kinds else _PLAIN
        mapped = claimed.is_map
        template = {"map": claimed.options["map"]} if mapped else claimed.with_
        if claimed.when is None and not template:
            return {}
        scope = self._scope(claimed, renderer.reads({**template, "": claimed.options.get("fallback")}, claimed.when))
        if claimed.when is not None and not renderer.holds(claimed.when, scope):
            return Skipped()
        if mapped:
            return Spread(renderer.items(claimed.options["map"], scope))
        secrets = renderer.secrets(claimed.run.principal.project_id)
        if secrets is not None:
            scope["secrets"] = secrets
        inputs, fallback = renderer.render(claimed.with_, scope), claimed.options.get("fallback")
        if fallback is not None:
            attempt.fallback = renderer.render(fallback, scope)
        attempt.secrets = [] if secrets is None else secrets.revealed
        return inputs

    def _scope(self, claimed: Claimed, wanted: Collection[str] | None) -> dict[str, Any]:
        """Return what the templates of a step may name; of the outputs only those of the steps `wanted`."""
        run = claimed.run
        steps = {key: claimed.known[key] for key in claimed.known if wanted is None or key in wanted}
        if wanted is None or not steps.keys() >= set(wanted):
            steps = self._database.read_now(queries.outputs_of, run.id, wanted)
        named = {"id": run.id, "name": run.name, "version": run.version, "trigger": run.trigger}
        scope: dict[str, Any] = {"inputs": run.inputs, "steps": steps, "run": named}
        if claimed.is_item:
            scope |= {"item": claimed.item, "index": claimed.map_index}
        if run.failure is not None:
            scope["failure"] = run.failure
        return scope

    def joined(self, claimed: Claimed) -> Outcome:
        """Return the outputs of a mapped step's items as its own, in order; or the first failure among them."""
        items = self._database.read_now(queries.items_of, claimed.run_id, claimed.key)
        for index, status, _, error in items:
            if status in (StepStatus.FAILED, StepStatus.CANCELLED) and not claimed.go_on:
                if status == StepStatus.CANCELLED and any(item.status == StepStatus.FAILED for item in items):
                    continue
                said = Failure(**error) if error else Failure("step_cancelled", "The item was stopped.")
                return Failed(replace(said, message=f"Item {index}: {said.message}"))
        return Succeeded([output for _, _, output, _ in items])
