"""Users: made, changed and disabled by a platform administrator."""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy.orm import Session

from nexus.access import storage
from nexus.access.audit import NOWHERE, AuditLog, Origin, lock_state
from nexus.access.errors import EmailTaken, LastOwner, UserNotFound
from nexus.access.passwords import Passwords, check_strength
from nexus.access.snapshot import KeySnapshot
from nexus.access.tables import UserRow
from nexus.access.types import Principal, Scope
from nexus.core.clock import Clock
from nexus.core.ids import new_id
from nexus.storage.db import Database


class Users:
    """The people who can sign in."""

    def __init__(
        self, *, database: Database, clock: Clock, audit: AuditLog, snapshot: KeySnapshot, passwords: Passwords
    ) -> None:
        """Be part of an `AccessService`, which makes the arguments."""
        self._database = database
        self._clock = clock
        self._audit = audit
        self._snapshot = snapshot
        self._passwords = passwords

    async def page(self, principal: Principal, *, after: str | None = None, limit: int = 20) -> list[UserRow]:
        """Return a page of all users, for a platform administrator."""
        principal.require(Scope.ADMIN)
        return await self._database.read(storage.users, after, limit)

    async def get(self, principal: Principal, user_id: str) -> UserRow:
        """Return a user: oneself, or anybody for a platform administrator. Raises `UserNotFound`."""
        if principal.user_id != user_id or principal.kind != "session":
            principal.require(Scope.ADMIN)
        return await self.find(user_id)

    async def create(
        self,
        principal: Principal,
        *,
        email: str,
        password: str,
        name: str = "",
        superadmin: bool = False,
        origin: Origin = NOWHERE,
    ) -> UserRow:
        """Make a user. Raises `EmailTaken` or `WeakPassword`."""
        principal.require(Scope.ADMIN)
        check_strength(password, email=email)
        hashed = await self._passwords.hash(password)
        return await self._database.write(self.add, principal, email, hashed, name, superadmin, origin)

    async def change(
        self,
        principal: Principal,
        user_id: str,
        *,
        name: str | None = None,
        superadmin: bool | None = None,
        disabled: bool | None = None,
        origin: Origin = NOWHERE,
    ) -> UserRow:
        """Rename, promote, demote, disable or enable a user; a change of rights ends their sessions.

        Raises `UserNotFound`, and `LastOwner` for the last platform administrator.
        """
        principal.require(Scope.ADMIN)

        def change(session: Session) -> UserRow:
            storage.touch(session)
            user = storage.user(session, user_id)
            if user is None:
                raise UserNotFound
            done: dict[str, Any] = {}
            if name is not None and name != user.name:
                user.name = done["name"] = name
            if superadmin is not None and superadmin != user.superadmin:
                user.superadmin = done["superadmin"] = superadmin
            if disabled is not None and disabled != (user.disabled_at is not None):
                user.disabled_at = self._clock.now() if disabled else None
                done["disabled"] = disabled
            session.flush()
            if not storage.count_superadmins(session):
                raise LastOwner
            if done.keys() - {"name"}:
                storage.end_sessions(session, user_id)
            self._audit.add(session, principal, "user.change", user_id, origin=origin, details=done)
            return user

        changed = await self._database.write(change)
        await asyncio.to_thread(self._snapshot.load)
        return changed

    async def set_password(
        self, principal: Principal, user_id: str, password: str, *, origin: Origin = NOWHERE, field: str = "password"
    ) -> None:
        """Set a user's password and end all their sessions: one's own, or anybody's for an administrator."""
        user = await self.get(principal, user_id)
        check_strength(password, email=user.email, field=field)
        hashed = await self._passwords.hash(password)

        def change(session: Session) -> None:
            set_password_hash(session, user_id, hashed)
            storage.end_sessions(session, user_id)
            self._audit.add(session, principal, "user.password", user_id, origin=origin)

        await self._database.write(change)

    async def find(self, user_id: str | None) -> UserRow:
        """Return a user by id. Raises `UserNotFound`."""
        found = await self._database.read(storage.user, user_id) if user_id else None
        if found is None:
            raise UserNotFound
        return found

    def add(
        self,
        session: Session,
        principal: Principal | None,
        email: str,
        hashed: str,
        name: str,
        superadmin: bool,
        origin: Origin,
    ) -> UserRow:
        """Add a user inside a transaction. Raises `EmailTaken`."""
        lock_state(session)
        if storage.user_by_email(session, email) is not None:
            raise EmailTaken(field="email")
        user = UserRow(
            id=new_id("usr"),
            email=email.strip().lower(),
            name=name,
            password_hash=hashed,
            superadmin=superadmin,
            created_at=self._clock.now(),
        )
        session.add(user)
        session.flush()
        self._audit.add(session, principal or as_actor(user), "user.create", user.id, origin=origin)
        return user


def as_actor(user: UserRow) -> Principal:
    """Return the user as the author of an audit event that no principal stands for yet."""
    return Principal("session", user.id, "", frozenset(), user_id=user.id)


def set_password_hash(session: Session, user_id: str, hashed: str) -> None:
    """Keep the hash of a new password."""
    session.get_one(UserRow, user_id).password_hash = hashed
