"""Triggers of projects: made, tried, changed, their secrets kept; what has arrived at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import ValidationError
from sqlalchemy.orm import Session

from nexus.access.types import Principal
from nexus.automation import trigger_storage as queries
from nexus.automation.errors import (
    DeliveryNotFound,
    DeliverySettled,
    ExpressionError,
    HookNotFound,
    InputsInvalid,
    TriggerInvalid,
    TriggerNotFound,
)
from nexus.automation.expressions import references
from nexus.automation.service import AutomationService
from nexus.automation.settings import AutomationSettings
from nexus.automation.templates import has_templates, template_references, unwrapped
from nexus.automation.trigger import TRIGGERS, Call, Door, TriggerConfig, TriggerPlug
from nexus.automation.trigger_firing import TriggerFiring, rendered, wanted
from nexus.automation.trigger_tables import TriggerDeliveryRow, TriggerRow
from nexus.core.clock import Clock
from nexus.core.errors import NexusError
from nexus.core.ids import is_id, new_id
from nexus.core.secrets import Keyring, Secret
from nexus.runs.records import starter_of
from nexus.storage.db import Database
from nexus.telemetry.redact import redactor

_KNOWN: Final = frozenset({"event", "trigger"})
_MOST_SECRETS: Final = 5


@dataclass(frozen=True, slots=True)
class Trial:
    """What an event would do: whether it is wanted, the run's inputs, and what is wrong."""

    event: dict[str, Any]
    admitted: bool
    holds: bool | None
    inputs: dict[str, Any] | None
    error: NexusError | None

    @property
    def starts(self) -> bool:
        """Tell whether a run would start."""
        return self.admitted and self.holds is not False and self.error is None


class TriggerService:
    """The triggers of projects, and the door at which webhooks come in."""

    def __init__(
        self,
        *,
        database: Database,
        automation: AutomationService,
        firing: TriggerFiring,
        keyring: Keyring,
        clock: Clock,
        settings: AutomationSettings | None = None,
    ) -> None:
        """Keep rows in `database`, secrets sealed by `keyring`; what arrives is for `firing`."""
        self._settings = settings or AutomationSettings()
        self._database = database
        self._automation = automation
        self._firing = firing
        self._keyring = keyring
        self._clock = clock

    async def create(
        self,
        principal: Principal,
        *,
        kind: str,
        workflow: str,
        name: str | None,
        config: dict[str, Any],
        inputs: dict[str, Any],
        when: str | None,
        secret: str | None,
        **given: Any,
    ) -> tuple[TriggerRow, Secret | None]:
        """Keep a trigger, whose runs have the rights of `principal`; return it, and its secret this once.

        `given` are version, overlap and enabled. Raises `TriggerInvalid`, `WorkflowNotFound`, `InputsInvalid`,
        `ExpressionError`, `NameTaken`.
        """
        plug, settings = self._configured(kind, config)
        found = await self._automation.get(principal, workflow)
        await self._check(principal, workflow, given["version"], inputs, when)
        now, trigger_id = self._clock.now(), new_id("trg")
        shared = self._new_secret(plug, settings, secret)
        values = {
            **given,
            "id": trigger_id,
            "project_id": principal.project_id,
            "name": name or f"{found.name}-{trigger_id[-6:]}",
            "kind": kind,
            "config": settings.model_dump(mode="json"),
            "secrets": [] if shared is None else [self._sealed(trigger_id, shared)],
            "workflow_id": found.id,
            "inputs": inputs,
            "condition": when,
            "starter": starter_of(principal),
            "created_at": now,
            "updated_at": now,
        }
        return await self._database.write(queries.add, values), shared

    async def get(self, principal: Principal, name_or_id: str) -> TriggerRow:
        """Return a trigger of the project. Raises `TriggerNotFound`."""
        row = await self._database.read(queries.get, principal.project_id, name_or_id)
        if row is None:
            raise TriggerNotFound
        return row

    async def page(
        self,
        principal: Principal,
        *,
        kind: str | None = None,
        after: str | None = None,
        limit: int = 20,
        descending: bool = True,
    ) -> Sequence[TriggerRow]:
        """Return a page of the project's triggers."""
        return await self._database.read(queries.listed, principal.project_id, after, limit, descending, kind)

    async def change(self, principal: Principal, name_or_id: str, changes: dict[str, Any]) -> TriggerRow:
        """Change name, config, version, inputs, when, overlap or enabled.

        Its runs have from then on the rights of `principal`. Raises as `create` does.
        """
        row = await self.get(principal, name_or_id)
        values = dict(changes)
        if "config" in changes:
            values["config"] = self._configured(row.kind, changes["config"])[1].model_dump(mode="json")
        if "when" in changes:
            values["condition"] = values.pop("when")
        if {"version", "inputs", "when"} & changes.keys():
            version, inputs = changes.get("version", row.version), changes.get("inputs", row.inputs)
            await self._check(principal, row.workflow_id, version, inputs, changes.get("when", row.condition))
        values |= {"starter": starter_of(principal), "updated_at": self._clock.now()}
        changed = await self._database.write(queries.change, principal.project_id, row.id, values)
        if changed is None:
            raise TriggerNotFound
        return changed

    async def delete(self, principal: Principal, name_or_id: str) -> None:
        """Delete a trigger and what is known of its deliveries; its runs stay. Raises `TriggerNotFound`."""
        if not await self._database.write(queries.remove, principal.project_id, name_or_id):
            raise TriggerNotFound

    async def rotate(self, principal: Principal, name_or_id: str, *, overlap: float, secret: str | None) -> Secret:
        """Give a webhook a new secret and return it this once; those of before are good for `overlap` seconds more.

        Raises `TriggerNotFound`, and `TriggerInvalid` where there is nothing to sign.
        """
        row = await self.get(principal, name_or_id)
        plug, settings = configured(row.kind, row.config)
        fresh = self._new_secret(plug, settings, secret)
        if fresh is None:
            raise TriggerInvalid("Triggers of this kind have no secret.", field="kind")
        ends = (self._clock.now() + timedelta(seconds=overlap)).isoformat()

        def rotate(session: Session) -> None:
            found = queries.get(session, principal.project_id, row.id)
            if found is None:
                raise TriggerNotFound
            older = [{**one, "expires_at": min(one["expires_at"] or ends, ends)} for one in self._valid(found)]
            found.secrets = [self._sealed(found.id, fresh), *older][:_MOST_SECRETS]
            found.updated_at = self._clock.now()

        await self._database.write(rotate)
        return fresh

    async def deliveries(
        self,
        principal: Principal,
        name_or_id: str,
        *,
        outcome: str | None = None,
        after: str | None = None,
        limit: int = 20,
        descending: bool = True,
    ) -> Sequence[TriggerDeliveryRow]:
        """Return a page of what has arrived. Raises `TriggerNotFound`."""
        row = await self.get(principal, name_or_id)
        return await self._database.read(queries.deliveries, row.id, after, limit, descending, outcome)

    async def delivery(self, principal: Principal, name_or_id: str, delivery_id: str) -> TriggerDeliveryRow:
        """Return one thing that has arrived. Raises `TriggerNotFound`, `DeliveryNotFound`."""
        row = await self.get(principal, name_or_id)
        found = await self._database.read(queries.delivery, row.id, delivery_id)
        if found is None:
            raise DeliveryNotFound
        return found

    async def again(self, principal: Principal, name_or_id: str, delivery_id: str) -> TriggerDeliveryRow:
        """Let a delivery that has started nothing try again. Raises as `delivery` does, and `DeliverySettled`."""
        row = await self.get(principal, name_or_id)
        delivery = await self.delivery(principal, row.id, delivery_id)
        if delivery.outcome == "started":
            raise DeliverySettled
        return await self._firing.again(row, delivery)

    async def trial(self, principal: Principal, name_or_id: str, event: dict[str, Any] | None) -> Trial:
        """Say what an event would do, and start nothing; without one, the newest delivery's or a made-up one.

        Raises `TriggerNotFound`.
        """
        row = await self.get(principal, name_or_id)
        plug, settings = configured(row.kind, row.config)
        if event is None:
            newest = await self._database.read(queries.deliveries, row.id, None, 1, True, None)
            event = newest[0].event if newest else plug.sample(settings)
        plain = {"id": "evt_example", "at": self._clock.now().isoformat(), "subject": "", "data": {}}
        shown = {**plain, "type": plug.sample(settings)["type"], **event}
        scope = {"event": shown, "trigger": {"id": row.id, "name": row.name, "kind": row.kind}}
        admitted, verdict, inputs = plug.admits(settings, shown), None, None
        try:
            verdict = None if row.condition is None else wanted(row.condition, scope)
            inputs = rendered(row.inputs, scope)
            await self._automation.spec(principal, row.workflow_id, inputs, version=row.version)
        except NexusError as error:
            return Trial(shown, admitted, verdict, inputs, error)
        return Trial(shown, admitted, verdict, inputs, None)

    async def knock(
        self, hook_id: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[TriggerDeliveryRow, bool] | None:
        """Take a call at the door of a webhook; return its delivery and whether that is new, None for a ping.

        Raises `HookNotFound` where there is none or it rests, and what its kind's `receive` and `firing` raise.
        """
        row = await self._database.read(queries.by_id, hook_id) if is_id(hook_id, "trg") else None
        plug = TRIGGERS.get(row.kind) if row is not None else None
        if row is None or not row.enabled or not isinstance(plug, Door):
            raise HookNotFound
        secrets = [self._keyring.decrypt(one["sealed"], _place(row.id)).reveal() for one in self._valid(row)]
        config = plug.Config.model_validate(row.config)
        arrival = plug.receive(config, secrets, Call(headers, body, self._clock.now().timestamp()))
        return None if arrival is None else await self._firing.receive(row, arrival)

    def _configured(self, kind: str, config: dict[str, Any]) -> tuple[TriggerPlug, TriggerConfig]:
        plug, settings = configured(kind, config)
        if (check := getattr(plug, "check", None)) is not None:
            check(settings, self._settings)
        return plug, settings

    def _valid(self, row: TriggerRow) -> list[dict[str, Any]]:
        now = self._clock.now()
        ends = [(one, one["expires_at"]) for one in row.secrets]
        return [one for one, end in ends if end is None or datetime.fromisoformat(end) > now]

    def _new_secret(self, plug: TriggerPlug, config: TriggerConfig, given: str | None) -> Secret | None:
        if not isinstance(plug, Door):
            if given is not None:
                raise TriggerInvalid("Triggers of this kind have no secret.", field="secret")
            return None
        secret = plug.secret(config, given)
        redactor.register(secret)
        return Secret(secret)

    def _sealed(self, trigger_id: str, secret: Secret) -> dict[str, Any]:
        return {"sealed": self._keyring.encrypt(secret.reveal(), _place(trigger_id)), "expires_at": None}

    async def _check(
        self, principal: Principal, workflow: str, version: int | None, inputs: dict[str, Any], when: str | None
    ) -> None:
        """Refuse now what could never start a run later."""
        if when is not None:
            _must_be_known(references(unwrapped(when)), "when")
        for name, value in inputs.items():
            try:
                _must_be_known(template_references(value), f"inputs.{name}")
            except ExpressionError as error:
                raise ExpressionError(error.message, field=f"inputs.{name}") from None
        if not has_templates(inputs):
            await self._automation.spec(principal, workflow, inputs, version=version)
            return
        # What templates will give is not known, but which inputs there are is.
        expected = (await self._automation.version(principal, workflow, version)).definition.inputs
        for name in inputs:
            if name not in expected:
                raise InputsInvalid(f"This workflow has no input {name[:80]}.", field=f"inputs.{name[:80]}")
        for name, spec in expected.items():
            if name not in inputs and spec.default is None and not spec.optional:
                raise InputsInvalid(f"The input {name} is missing.", field=f"inputs.{name}")


def configured(kind: str, config: dict[str, Any]) -> tuple[TriggerPlug, TriggerConfig]:
    """Return the plug of a kind and its settings. Raises `TriggerInvalid` naming the first field that is wrong."""
    if kind not in TRIGGERS:
        raise TriggerInvalid(f"The kinds of triggers are {', '.join(TRIGGERS.names())}.", field="kind")
    plug = TRIGGERS.get(kind)
    try:
        return plug, plug.Config.model_validate(config)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(["config", *(str(part) for part in first["loc"])])
        raise TriggerInvalid(f"{field}: {first['msg'].removeprefix('Value error, ')}.", field=field) from None


def _must_be_known(paths: set[str], field: str) -> None:
    for path in sorted(paths):
        if path.partition(".")[0] not in _KNOWN:
            raise ExpressionError(f"There is no {path[:80]} here; `event` and `trigger` can be named.", field=field)


def _place(trigger_id: str) -> str:
    return f"trigger|{trigger_id}|secret"
