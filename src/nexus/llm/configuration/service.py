"""Providers and routes that administrators add over the API, beside those of the settings file.

They are kept in the database, credentials encrypted for their own row, and known at once in the process
that changes them and within seconds in every other one. What the settings file names is read-only here.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from nexus.access.audit import NOWHERE, AuditLog, Origin
from nexus.access.types import Principal, Scope
from nexus.core.clock import Clock
from nexus.core.errors import Conflict, NexusError, NotFound, PreconditionFailed
from nexus.core.secrets import Keyring, SecretError
from nexus.http.problem import Issue, ValidationFailed
from nexus.llm.errors import InvalidRequest
from nexus.llm.local.own_routes import LOCAL_ACCOUNT
from nexus.llm.registry import LOCAL, RESERVED
from nexus.llm.service import LLMService
from nexus.llm.settings import ProviderSettings, RouteSettings
from nexus.llm.tables import ConfigurationRow, ProviderRow, RouteRow
from nexus.storage.db import Database

log = logging.getLogger(__name__)

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


class ReadOnly(Conflict):
    """This comes from the settings file and is changed there."""

    code = "configured_in_file"


class NameTaken(Conflict):
    """The name is taken."""

    code = "name_taken"


class StillUsed(Conflict):
    """A route still leads here."""

    code = "still_used"


@dataclass(frozen=True, slots=True)
class Stored:
    """What is kept of a provider or route, apart from its content: which change it is, and when it was made."""

    name: str
    revision: int
    created_at: datetime
    updated_at: datetime


class Configuration:
    """The stored providers and routes."""

    def __init__(
        self,
        *,
        database: Database,
        keyring: Keyring,
        clock: Clock,
        audit: AuditLog,
        llm: LLMService,
        refresh: float = 5.0,
        learn_secret: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Look for changes of other processes every `refresh` seconds; `learn_secret` keeps keys out of the logs."""
        self._database = database
        self._keyring = keyring
        self._clock = clock
        self._audit = audit
        self._llm = llm
        self._refresh = refresh
        self._learn_secret = learn_secret
        self._version = 0
        self._stored: dict[str, Stored] = {}
        self._loading = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load what is stored, and watch for changes."""
        await self._load()
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def stop(self) -> None:
        """Watch no longer."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    def stored(self, kind: str, name: str) -> Stored | None:
        """Return what is kept of a `provider` or `route`; None for one that comes from elsewhere."""
        return self._stored.get(f"{kind} {name}")

    async def put_provider(
        self,
        principal: Principal,
        given: dict[str, Any],
        *,
        name: str | None = None,
        revision: int | None = None,
        origin: Origin = NOWHERE,
    ) -> str:
        """Make a provider, or with `name` change one: what `given` leaves out stays, None removes. Return its name.

        Raises `ValidationFailed` naming the field, `NameTaken`, `ReadOnly`, `NotFound` and `PreconditionFailed`.
        """
        principal.require(Scope.ADMIN)

        def put(session: Session) -> str:
            row = None if name is None else self._changeable(session, ProviderRow, name, revision)
            known = {} if row is None else self._open(row)
            checked = _checked(ProviderSettings, _merged(known, given) | ({"name": name} if name else {}))
            if not self._llm.registry.knows_kind(checked.kind):
                raise InvalidRequest(f"There is no provider kind {checked.kind}.", field="kind")
            now = self._clock.now()
            if row is None:
                self._must_be_free(session, ProviderRow, checked.name)
                row = ProviderRow(name=checked.name, revision=0, created_at=now)
                session.add(row)
            secret = checked.api_key.get_secret_value() if checked.api_key else None
            sealed = json.dumps({"api_key": secret, "options": checked.options()})
            row.kind, row.base_url = checked.kind, checked.base_url
            row.sealed = self._keyring.encrypt(sealed, _place(checked.name))
            row.revision, row.updated_at = row.revision + 1, now
            action = "provider.create" if name is None else "provider.change"
            self._note(session, principal, action, checked.name, sorted(given), origin)
            return checked.name

        return await self._change(put)

    async def put_route(
        self,
        principal: Principal,
        given: dict[str, Any],
        *,
        name: str | None = None,
        revision: int | None = None,
        origin: Origin = NOWHERE,
    ) -> str:
        """Make a route, or with `name` change one, as `put_provider` does."""
        principal.require(Scope.ADMIN)

        def put(session: Session) -> str:
            row = None if name is None else self._changeable(session, RouteRow, name, revision)
            known = {} if row is None else row.body
            checked = _checked(RouteSettings, _merged(known, given) | ({"name": name} if name else {}))
            self._must_lead_somewhere(session, checked)
            now = self._clock.now()
            if row is None:
                self._must_be_free(session, RouteRow, checked.name)
                row = RouteRow(name=checked.name, revision=0, created_at=now)
                session.add(row)
            row.body = checked.model_dump(mode="json", exclude_unset=True)
            row.revision, row.updated_at = row.revision + 1, now
            action = "route.create" if name is None else "route.change"
            self._note(session, principal, action, checked.name, sorted(given), origin)
            return checked.name

        return await self._change(put)

    async def delete_provider(
        self, principal: Principal, name: str, *, revision: int | None = None, origin: Origin = NOWHERE
    ) -> None:
        """Delete a provider. Raises `StillUsed` while a route leads there, and as `put_provider` does."""
        principal.require(Scope.ADMIN)

        def delete(session: Session) -> None:
            row = self._changeable(session, ProviderRow, name, revision)
            for route in self._every_route(session):
                if any(item.provider == name for item in route.deployments):
                    raise StillUsed(f"The route {route.name} still leads to this provider.")
            session.delete(row)
            self._note(session, principal, "provider.delete", name, [], origin)

        await self._change(delete)

    async def delete_route(
        self, principal: Principal, name: str, *, revision: int | None = None, origin: Origin = NOWHERE
    ) -> None:
        """Delete a route. Raises `StillUsed` while another one falls back to it, and as `put_route` does."""
        principal.require(Scope.ADMIN)

        def delete(session: Session) -> None:
            row = self._changeable(session, RouteRow, name, revision)
            for route in self._every_route(session):
                if route.name != name and name in route.fallbacks:
                    raise StillUsed(f"The route {route.name} still falls back to this one.")
            session.delete(row)
            self._note(session, principal, "route.delete", name, [], origin)

        await self._change(delete)

    def _changeable(self, session: Session, table: type[Any], name: str, revision: int | None) -> Any:
        row = session.get(table, name, with_for_update=True)
        if row is None:
            raise ReadOnly if name in RESERVED or self._has_own(table, name) else NotFound
        if revision is not None and row.revision != revision:
            raise PreconditionFailed
        return row

    def _must_be_free(self, session: Session, table: type[Any], name: str) -> None:
        if name in RESERVED or self._has_own(table, name) or session.get(table, name) is not None:
            raise NameTaken(f"There is one called {name} already.", field="name")

    def _has_own(self, table: type[Any], name: str) -> bool:
        """Tell whether the settings file, or NEXUS itself, has one of this name."""
        registry = self._llm.registry
        return registry.has_own_provider(name) if table is ProviderRow else registry.has_own_route(name)

    def _must_lead_somewhere(self, session: Session, route: RouteSettings) -> None:
        stored = set(session.scalars(select(ProviderRow.name)))
        for position, item in enumerate(route.deployments):
            if (item.provider, item.model) == (LOCAL_ACCOUNT, LOCAL):
                field = f"deployments.{position}.model"
                raise InvalidRequest(f"{LOCAL} is a demo model, no deployment of a route.", field=field)
            here = item.provider == LOCAL_ACCOUNT and self._llm.settings.local.enabled
            if not here and item.provider not in stored and not self._llm.registry.has_own_provider(item.provider):
                field = f"deployments.{position}.provider"
                raise InvalidRequest(f"There is no provider {item.provider}.", field=field)
        others = set(session.scalars(select(RouteRow.name)))
        for position, name in enumerate(route.fallbacks):
            if name == LOCAL:
                raise InvalidRequest(f"{LOCAL} is a demo model and no fallback.", field=f"fallbacks.{position}")
            if name == route.name or (name not in others and not self._llm.registry.has_own_route(name)):
                raise InvalidRequest(f"There is no other route {name}.", field=f"fallbacks.{position}")

    def _every_route(self, session: Session) -> list[RouteSettings]:
        return [*self._llm.settings.routes, *_routes(session)]

    def _note(
        self, session: Session, who: Principal, action: str, target: str, fields: list[str], origin: Origin
    ) -> None:
        """Keep who did it, and let every process know that something has changed."""
        self._audit.add(session, who, action, target, origin=origin, details={"fields": fields} if fields else None)
        row = session.get(ConfigurationRow, 1, with_for_update=True)
        if row is None:
            session.add(ConfigurationRow(id=1, version=1))
        else:
            row.version += 1

    def _open(self, row: ProviderRow) -> dict[str, Any]:
        """Return a provider as the settings file would say it. Raises `SecretError`."""
        sealed = json.loads(self._keyring.decrypt(row.sealed, _place(row.name)).reveal())
        told = {"name": row.name, "kind": row.kind, "base_url": row.base_url, "api_key": sealed["api_key"]}
        return {name: value for name, value in (sealed["options"] | told).items() if value is not None}

    async def _change(self, work: Callable[[Session], T]) -> T:
        result = await self._database.write(work)
        await self._load()
        return result

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._refresh)
            try:
                if await self._database.read(_version) != self._version:
                    await self._load()
            except NexusError as error:
                log.warning("changes of providers and routes could not be read: %s", error.code)

    async def _load(self) -> None:
        # One after another, so that an older state never takes the place of a newer one.
        async with self._loading:
            version, providers, routes, stored = await self._database.read(self._read)
            await asyncio.to_thread(self._llm.registry.extend, providers, routes)
            self._llm.reconfigured()
            for name, why in self._llm.registry.left_out.items():
                log.warning("%s is left out: %s", name, why)
            self._version, self._stored = version, stored

    def _read(self, session: Session) -> tuple[int, list[ProviderSettings], list[RouteSettings], dict[str, Stored]]:
        providers, stored = [], {}
        for row in session.scalars(select(ProviderRow).order_by(ProviderRow.created_at)):
            stored[f"provider {row.name}"] = Stored(row.name, row.revision, row.created_at, row.updated_at)
            try:
                given = ProviderSettings.model_validate(self._open(row))
            except (SecretError, ValidationError):
                log.warning("the provider %s cannot be read with this installation's secret key", row.name)
                continue
            if given.api_key is not None:
                self._learn_secret(given.api_key.get_secret_value())
            providers.append(given)
        for route in session.scalars(select(RouteRow)):
            stored[f"route {route.name}"] = Stored(route.name, route.revision, route.created_at, route.updated_at)
        return _version(session), providers, _routes(session), stored


def _version(session: Session) -> int:
    return session.scalar(select(func.max(ConfigurationRow.version))) or 0


def _routes(session: Session) -> list[RouteSettings]:
    found = []
    for row in session.scalars(select(RouteRow).order_by(RouteRow.created_at)):
        try:
            found.append(RouteSettings.model_validate(row.body))
        except ValidationError:
            log.warning("the route %s is not valid any more", row.name)
    return found


def _checked(model: type[M], given: dict[str, Any]) -> M:
    """Validate. Raises `ValidationFailed` without a word of what was given."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        issues = [
            Issue(".".join(map(str, item["loc"])), item["type"], item["msg"])
            for item in error.errors(include_input=False, include_url=False, include_context=False)
        ]
        raise ValidationFailed(issues) from None


def _merged(known: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields with changes (RFC 7396 at the top level): None removes."""
    return {name: value for name, value in (known | given).items() if value is not None}


def _place(name: str) -> str:
    return f"llm_provider|{name}|*|sealed"
