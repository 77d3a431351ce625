"""API keys: made, listed, changed, rotated and revoked."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from nexus.access import keys, storage
from nexus.access.audit import NOWHERE, AuditLog, Origin
from nexus.access.errors import KeyNotFound, KeyRevoked, ProjectNotFound, ScopeNotHeld
from nexus.access.settings import AccessSettings
from nexus.access.snapshot import KeySnapshot
from nexus.access.tables import KeyRow, KeySecretRow
from nexus.access.types import NO_LIMITS, KeyLimits, Principal, Scope
from nexus.core.clock import Clock
from nexus.core.errors import Forbidden, InvalidInput
from nexus.core.ids import new_id
from nexus.core.secrets import Secret
from nexus.storage.db import Database

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class KeyView:
    """A key with the public parts of its secrets; `token` only when it was just made."""

    row: KeyRow
    public_ids: tuple[str, ...]
    token: Secret | None = None


class Keys:
    """The API keys of projects.

    Whoever has `keys:manage` handles all keys of the project; every other signed-in member
    handles their own. No key ever has more rights than its creator has at the moment of use.
    """

    def __init__(
        self,
        *,
        database: Database,
        settings: AccessSettings,
        clock: Clock,
        audit: AuditLog,
        snapshot: KeySnapshot,
        pepper: bytes,
    ) -> None:
        """Be part of an `AccessService`, which makes the arguments."""
        self._database = database
        self._settings = settings
        self._clock = clock
        self._audit = audit
        self._snapshot = snapshot
        self._pepper = pepper

    async def create(
        self,
        principal: Principal,
        *,
        name: str,
        scopes: Sequence[Scope],
        models: Sequence[str] | None = None,
        cidrs: Sequence[str] = (),
        limits: KeyLimits = NO_LIMITS,
        expires_at: datetime | None = None,
        origin: Origin = NOWHERE,
    ) -> KeyView:
        """Make a key in the caller's project. Raises `ScopeNotHeld` for a right that the caller lacks.

        The principal `kind="system"` is the command line of whoever owns the machine.
        """
        _own_only(principal)
        for scope in scopes:
            if not principal.may(scope):
                raise ScopeNotHeld(f"You do not have the scope {scope.value} yourself.", field="scopes")
        now = self._clock.now()
        if expires_at is not None and expires_at <= now:
            raise InvalidInput("The key would have expired already.", field="expires_at")
        row = KeyRow(
            id=new_id("key"),
            project_id=principal.project_id,
            created_by=principal.user_id,
            name=name,
            scopes=sorted({scope.value for scope in scopes}),
            models=None if models is None else list(models),
            cidrs=_networks(cidrs),
            rpm=limits.rpm,
            tpm=limits.tpm,
            parallel=limits.parallel,
            budget_usd=limits.budget_usd,
            budget_period=limits.budget_period,
            created_at=now,
            expires_at=expires_at,
        )
        return await self._with_new_secret(principal, row, "key.create", origin)

    async def page(self, principal: Principal, *, after: str | None = None, limit: int = 20) -> list[KeyView]:
        """Return a page of keys, newest first, revoked ones too."""
        rows = await self._database.read(storage.keys, principal.project_id, _own_only(principal), after, limit)
        return await self._views(rows)

    async def get(self, principal: Principal, key_id: str) -> KeyView:
        """Return one key. Raises `KeyNotFound`."""
        row = await self._database.read(_key, principal, key_id)
        return (await self._views([row]))[0]

    async def change(
        self, principal: Principal, key_id: str, changes: dict[str, Any], *, origin: Origin = NOWHERE
    ) -> KeyView:
        """Set some of name, scopes, models, cidrs, rpm, tpm, parallel, budget_usd, budget_period, expires_at.

        Raises `ScopeNotHeld` when a right is added that the caller lacks.
        """
        changes = dict(changes)
        if "cidrs" in changes:
            changes["cidrs"] = _networks(changes["cidrs"])

        def change(session: Session) -> KeyRow:
            row = _unrevoked(session, principal, key_id)
            if "scopes" in changes:
                wanted = {Scope(scope) for scope in changes["scopes"]}
                for scope in wanted:
                    if scope.value not in row.scopes and not principal.may(scope):
                        raise ScopeNotHeld(f"You do not have the scope {scope.value} yourself.", field="scopes")
                changes["scopes"] = sorted(scope.value for scope in wanted)
            for name, value in changes.items():
                setattr(row, name, value)
            self._audit.add(
                session, principal, "key.change", key_id, origin=origin, details={"fields": sorted(changes)}
            )
            storage.touch(session)
            return row

        row = await self._change(change)
        return (await self._views([row]))[0]

    async def rotate(
        self,
        principal: Principal,
        key_id: str,
        *,
        overlap_hours: float | None = None,
        origin: Origin = NOWHERE,
    ) -> KeyView:
        """Give the key a new secret; older ones go on for `overlap_hours` (24 unless told) and end then."""
        hours = self._settings.rotate_overlap_hours if overlap_hours is None else overlap_hours
        ends = self._clock.now() + timedelta(hours=hours)

        def end_old(session: Session) -> KeyRow:
            row = _unrevoked(session, principal, key_id)
            # The new secret is shown to whoever asks for it: it must open no more than they may open themselves.
            _hold_all(principal, row.scopes)
            for secret in storage.secrets_of(session, [key_id]):
                secret.expires_at = min(secret.expires_at or ends, ends)
            return row

        return await self._with_new_secret(principal, end_old, "key.rotate", origin)

    async def revoke(self, principal: Principal, key_id: str, *, origin: Origin = NOWHERE) -> None:
        """End a key for good: at once in this process, within `key_refresh_seconds` in others."""

        def revoke(session: Session) -> None:
            row = _key(session, principal, key_id)
            if row.revoked_at is None:
                row.revoked_at = self._clock.now()
                self._audit.add(session, principal, "key.revoke", key_id, origin=origin)
                storage.touch(session)

        await self._change(revoke)

    async def _with_new_secret(
        self, principal: Principal, source: KeyRow | Callable[[Session], KeyRow], action: str, origin: Origin
    ) -> KeyView:
        made = keys.new_key()

        def add(session: Session) -> KeyRow:
            if isinstance(source, KeyRow):
                row = source
                if storage.project(session, row.project_id) is None:
                    raise ProjectNotFound
                session.add(row)
                session.flush()
            else:
                row = source(session)
            digest = keys.digest(self._pepper, made.secret).hex()
            secret = KeySecretRow(public_id=made.public_id, key_id=row.id, digest=digest, created_at=self._clock.now())
            session.add(secret)
            self._audit.add(session, principal, action, row.id, origin=origin, details={"name": row.name})
            storage.touch(session)
            return row

        row = await self._change(add)
        return KeyView(row, (made.public_id,), Secret(made.token))

    async def _views(self, rows: Sequence[KeyRow]) -> list[KeyView]:
        secrets = await self._database.read(storage.secrets_of, [row.id for row in rows])
        return [KeyView(row, tuple(secret.public_id for secret in secrets if secret.key_id == row.id)) for row in rows]

    async def _change(self, work: Callable[[Session], T]) -> T:
        result = await self._database.write(work)
        await asyncio.to_thread(self._snapshot.load)
        return result


def _own_only(principal: Principal) -> str | None:
    """Return None for who handles all keys, else the user whose keys alone are handled."""
    if principal.models is not None or principal.limits != NO_LIMITS:
        raise Forbidden("An API key with limits of its own cannot handle keys: it could lift them.")
    if principal.may(Scope.KEYS_MANAGE) or principal.kind == "system":
        return None
    if principal.kind != "session" or principal.user_id is None:
        principal.require(Scope.KEYS_MANAGE)
    return principal.user_id


def _key(session: Session, principal: Principal, key_id: str) -> KeyRow:
    row = storage.key(session, principal.project_id, key_id, _own_only(principal))
    if row is None:
        raise KeyNotFound
    return row


def _unrevoked(session: Session, principal: Principal, key_id: str) -> KeyRow:
    row = _key(session, principal, key_id)
    if row.revoked_at is not None:
        raise KeyRevoked
    return row


def _hold_all(principal: Principal, scopes: Sequence[str]) -> None:
    for scope in scopes:
        if not principal.may(Scope(scope)):
            raise ScopeNotHeld(f"You do not have the scope {scope} of this key yourself.", field="scopes")


def _networks(cidrs: Sequence[str]) -> list[str]:
    try:
        return [str(ipaddress.ip_network(cidr, strict=False)) for cidr in cidrs]
    except ValueError:
        raise InvalidInput(
            "An allowed address must be an IP address or a network (10.0.0.0/8).", field="cidrs"
        ) from None
