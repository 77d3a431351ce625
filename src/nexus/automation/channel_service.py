"""Channels of projects: kept, tried, and told things, each once and as often as it takes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets as randomness
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError
from sqlalchemy.orm import Session

from nexus.access.types import Principal
from nexus.automation import channel_storage as queries
from nexus.automation.alert_tables import ChannelRow, DeliveryRow
from nexus.automation.channel import CHANNELS, ChannelConfig, Notice
from nexus.automation.channels.webhook import signature
from nexus.automation.errors import (
    ChannelDisabled,
    ChannelGone,
    ChannelInvalid,
    ChannelNotFound,
    CredentialMissing,
    NoticeNotFound,
)
from nexus.automation.secrets import SecretService
from nexus.core.clock import Clock, rfc3339
from nexus.core.errors import NexusError, NotFound
from nexus.core.ids import new_id
from nexus.runs.service import RunService
from nexus.runs.types import RetryPolicy, Run, RunSpec, StepSpec
from nexus.storage.db import Database

RETRIES: Final = RetryPolicy(max=12, backoff="exponential", base=5.0, cap=3600.0)
"""5 s, 10 s, 20 s, ... an hour: some six hours in all."""
TIMEOUT: Final = 60.0


def delivering(key: str, delivery_id: str, needs: Sequence[str] = ()) -> StepSpec:
    """Return the durable step that sends a delivery."""
    given = {"delivery_id": delivery_id}
    return StepSpec(key, "alerts.deliver", given, needs=list(needs), retries=RETRIES, timeout=TIMEOUT)


class ChannelService:
    """Keeps channels and sends notices to them."""

    def __init__(
        self,
        *,
        database: Database,
        runs: RunService,
        secrets: SecretService,
        clock: Clock,
        public_url: str | None = None,
    ) -> None:
        """Look credentials up in `secrets`; links lead to `public_url`."""
        self._database, self._runs, self._secrets, self._clock = database, runs, secrets, clock
        self._public_url = public_url.rstrip("/") if public_url else None

    async def create(
        self,
        principal: Principal,
        *,
        name: str,
        kind: str,
        config: dict[str, Any],
        secret: str | None,
        credential: str | None,
        enabled: bool,
    ) -> tuple[ChannelRow, str | None]:
        """Keep a channel; return it, and the key that was made for a webhook without one.

        `secret` names a secret of the project; a `credential` is kept as a new one. Raises `ChannelInvalid`,
        `NameTaken`, `SecretNotFound`.
        """
        checked = _checked(kind, config)
        channel_id, made = new_id("chn"), None
        if secret is not None and credential is not None:
            raise ChannelInvalid("Give a secret's name or a credential, not both.", field="credential")
        if kind == "webhook" and secret is None and credential is None:
            credential = made = "whsec_" + base64.b64encode(randomness.token_bytes(32)).decode()
        now = self._clock.now()
        values = {
            "id": channel_id,
            "project_id": principal.project_id,
            "name": name,
            "kind": kind,
            "config": checked,
            "secret": await self._secret(principal, kind, channel_id, secret, credential),
            "enabled": enabled,
            "disabled_because": None,
            "created_at": now,
            "updated_at": now,
        }
        return await self._database.write(queries.add, values), made

    async def _secret(
        self, principal: Principal, kind: str, channel_id: str, secret: str | None, credential: str | None
    ) -> str | None:
        if secret is not None:
            await self._secrets.get(principal, secret)
            return secret
        if credential is None:
            return None
        if CHANNELS.get(kind).credential is None:
            raise ChannelInvalid("Channels of this kind have no credential.", field="credential")
        if kind == "webhook":
            signature(credential, "", "", b"")
        stored, _ = await self._secrets.put(principal, channel_id, credential)
        return stored.name

    async def get(self, principal: Principal, name_or_id: str) -> ChannelRow:
        """Return a channel of the project. Raises `ChannelNotFound`."""
        row = await self._database.read(queries.get, principal.project_id, name_or_id)
        if row is None:
            raise ChannelNotFound
        return row

    async def page(
        self, principal: Principal, *, after: str | None = None, limit: int = 20, descending: bool = True
    ) -> Sequence[ChannelRow]:
        """Return a page of the project's channels."""
        return await self._database.read(queries.listed, principal.project_id, after, limit, descending)

    async def change(self, principal: Principal, name_or_id: str, changes: dict[str, Any]) -> ChannelRow:
        """Change some of name, config, secret, credential and enabled. Raises as `create` does."""
        row = await self.get(principal, name_or_id)
        values = {name: value for name, value in changes.items() if name in ("name", "enabled")}
        if "config" in changes:
            values["config"] = _checked(row.kind, changes["config"])
        if "secret" in changes or "credential" in changes:
            given = changes.get("secret"), changes.get("credential")
            values["secret"] = await self._secret(principal, row.kind, row.id, *given)
        if values.get("enabled"):
            values["disabled_because"] = None
        values["updated_at"] = self._clock.now()
        changed = await self._database.write(queries.change, principal.project_id, row.id, values)
        if changed is None:
            raise ChannelNotFound
        return changed

    async def delete(self, principal: Principal, name_or_id: str) -> None:
        """Delete a channel with its log, and the credential that was kept for it. Raises `ChannelNotFound`."""
        row = await self.get(principal, name_or_id)
        await self._database.write(queries.remove, principal.project_id, row.id)
        if row.secret == row.id:
            try:
                await self._secrets.delete(principal, row.id)
            except NotFound:
                return

    async def test(self, principal: Principal, name_or_id: str) -> DeliveryRow:
        """Send a notice at once and return how that went; a disabled channel is tried too.

        Raises `ChannelNotFound` only: what goes wrong on the way stands in the delivery.
        """
        row = await self.get(principal, name_or_id)
        text = "If you can read this, the channel works."
        notice = self.notice("notice", f"test:{row.id}", "info", f"Test of the channel {row.name}", text, {})
        delivery = await self._database.write(queries.plan, row, asdict(notice), f"test:{notice.id}", self._clock.now())
        with contextlib.suppress(NexusError):
            await self.deliver(principal.project_id, delivery.id, even_disabled=True)
        return await self.delivery(principal, delivery.id)

    async def deliveries(
        self,
        principal: Principal,
        channel: str | None = None,
        *,
        after: str | None = None,
        limit: int = 20,
        descending: bool = True,
    ) -> Sequence[DeliveryRow]:
        """Return a page of the log, of one channel or of all. Raises `ChannelNotFound`."""
        channel_id = None if channel is None else (await self.get(principal, channel)).id
        return await self._database.read(queries.deliveries, principal.project_id, channel_id, after, limit, descending)

    async def delivery(self, principal: Principal, delivery_id: str) -> DeliveryRow:
        """Return one line of the log. Raises `NoticeNotFound`."""
        row = await self._database.read(queries.delivery, principal.project_id, delivery_id)
        if row is None:
            raise NoticeNotFound
        return row

    async def redeliver(self, principal: Principal, delivery_id: str) -> tuple[DeliveryRow, Run]:
        """Send the same notice again, under the same message id, as a durable run.

        Raises `NoticeNotFound`, `ChannelDisabled`.
        """
        first = await self.delivery(principal, delivery_id)
        channel = await self.get(principal, first.channel_id)
        if not channel.enabled:
            raise ChannelDisabled

        def start(session: Session) -> tuple[DeliveryRow, Run]:
            once = f"redelivery:{new_id('dlv')}"
            row = queries.plan(session, channel, first.notice, once, self._clock.now(), first.alert_id)
            spec = RunSpec("alert", channel.name, [delivering("notify", row.id)], trigger={"type": "redelivery"})
            run, _ = self._runs.start_in(session, principal, spec)
            row.run_id = run.id
            return row, run

        row, run = await self._database.write(start)
        self._runs.ring()
        return row, run

    def notice(
        self, event: Any, key: str, severity: Any, title: str, text: str, details: dict[str, Any], page: str = ""
    ) -> Notice:
        """Return a notice of now; `page` is the path below which people find what it is about."""
        link = f"{self._public_url}{page}" if self._public_url and page else None
        at = rfc3339(self._clock.now()) or ""
        return Notice(new_id("msg"), event, key, severity, title, text, at, details, link)

    async def tell(
        self,
        project_id: str,
        channel: str,
        notice: Notice,
        *,
        once: str,
        run_id: str | None = None,
        kept: Notice | None = None,
    ) -> DeliveryRow:
        """Send a notice now, under a name that makes every repetition the same delivery.

        `kept` is what the log has of it, without secrets; a redelivery has no more than that. Raises
        `ChannelNotFound`, `ChannelDisabled`, `CredentialMissing` and what sending raises.
        """
        found = await self._database.read(queries.get, project_id, channel)
        if found is None:
            raise ChannelNotFound(field="channel")

        def plan(session: Session) -> DeliveryRow:
            row = queries.plan(session, found, asdict(kept or notice), once, self._clock.now())
            row.run_id = run_id
            return row

        row = await self._database.write(plan)
        # An earlier attempt may have written it down: every attempt is the same message.
        same = replace(notice, id=row.message_id, at=row.notice["at"])
        await self.deliver(project_id, row.id, notice=same)
        done = await self._database.read(queries.delivery, project_id, row.id)
        assert done is not None
        return done

    async def deliver(
        self, project_id: str, delivery_id: str, *, even_disabled: bool = False, notice: Notice | None = None
    ) -> int | None:
        """Send a delivery unless that was done; return the status of the answer.

        What is sent is `notice`, or what was kept of it. A channel that says 410 is disabled. Raises
        `NoticeNotFound`, `ChannelDisabled`, `CredentialMissing` and what the channel raises; how it went stands
        in the log each time.
        """
        found = await self._database.read(queries.to_send, project_id, delivery_id)
        if found is None:
            raise NoticeNotFound
        row, channel, summary = found
        if row.status == "delivered":
            return row.answer_status
        try:
            if not channel.enabled and not even_disabled:
                raise ChannelDisabled
            status = await self._send(channel, notice or Notice(**row.notice), summary)
        except NexusError as error:
            if isinstance(error, ChannelGone):
                why = "The other side answered 410: there is nobody to tell any more."
                await self._database.write(queries.disable, channel.id, why, self._clock.now())
            went = _went("failed", error.details.get("answer_status"), error, self._clock.now())
            await self._database.write(queries.note, row.id, went)
            raise
        await self._database.write(queries.note, row.id, _went("delivered", status, None, self._clock.now()))
        return status

    async def _send(self, channel: ChannelRow, notice: Notice, summary: str | None) -> int | None:
        plug = CHANNELS.get(channel.kind)
        if summary and notice.event == "alert.firing":
            notice = replace(notice, text=f"{notice.text}\n\n{summary}".strip())
        credential = None
        if channel.secret is not None:
            opened = self._secrets.opened(channel.project_id)
            try:
                credential = await asyncio.to_thread(opened.__getitem__, channel.secret)
            except KeyError:
                raise CredentialMissing from None
        return await plug.send(notice, plug.Config.model_validate(channel.config), credential)


def _went(status: str, answered: int | None, error: NexusError | None, at: datetime) -> dict[str, Any]:
    """Return how an attempt went, as the log has it."""
    told = None if error is None else {"code": error.code, "message": error.message}
    return {"status": status, "answer_status": answered, "error": told, "finished_at": at}


def _checked(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a channel as they are kept. Raises `ChannelInvalid` naming the field."""
    if kind not in CHANNELS:
        raise ChannelInvalid(
            f"There is no channel of this kind; there are {', '.join(CHANNELS.names())}.", field="kind"
        )
    model: type[ChannelConfig] = CHANNELS.get(kind).Config
    try:
        return model.model_validate(config).model_dump(mode="json")
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(["config", *(str(part) for part in first["loc"])])
        raise ChannelInvalid(f"{field}: {first['msg']}.", field=field) from None
