"""Projects and their members."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from nexus.access import storage
from nexus.access.audit import NOWHERE, AuditLog, Origin
from nexus.access.errors import AlreadyMember, LastOwner, MemberNotFound, ProjectNotFound, RoleNotAllowed, UserNotFound
from nexus.access.roles import Role, may_grant
from nexus.access.snapshot import KeySnapshot
from nexus.access.tables import MembershipRow, ProjectRow, UserRow
from nexus.access.types import Principal, Scope
from nexus.core.clock import Clock
from nexus.core.ids import new_id
from nexus.storage.db import Database

T = TypeVar("T")


class Projects:
    """The tenants, and who has which role in each.

    A project that the caller is no member of does not exist for them. Members are managed by
    signed-in administrators of the project; an API key sees its own project and changes none,
    unless it carries the platform's `admin` scope.
    """

    def __init__(self, *, database: Database, clock: Clock, audit: AuditLog, snapshot: KeySnapshot) -> None:
        """Be part of an `AccessService`, which makes the arguments."""
        self._database = database
        self._clock = clock
        self._audit = audit
        self._snapshot = snapshot

    async def page(self, principal: Principal, *, after: str | None = None, limit: int = 20) -> list[ProjectRow]:
        """Return a page of the projects that the caller may see, oldest first."""
        if principal.may(Scope.ADMIN):
            return await self._database.read(storage.projects_of, None, after, limit)
        if principal.kind == "session" and principal.user_id:
            return await self._database.read(storage.projects_of, principal.user_id, after, limit)
        own = await self._database.read(storage.project, principal.project_id)
        return [own] if own is not None and (after is None or own.id > after) else []

    async def of_user(self, user_id: str) -> list[ProjectRow]:
        """Return the projects that a user is a member of, oldest first."""
        return await self._database.read(storage.projects_of, user_id, None, 1000)

    async def get(self, principal: Principal, project_id: str) -> ProjectRow:
        """Return one project. Raises `ProjectNotFound`."""
        return await self._database.read(_visible, principal, project_id)

    async def create(self, principal: Principal, *, name: str, origin: Origin = NOWHERE) -> ProjectRow:
        """Make a project; the caller becomes its owner. For a platform administrator."""
        principal.require(Scope.ADMIN)

        def make(session: Session) -> ProjectRow:
            now = self._clock.now()
            project = ProjectRow(id=new_id("prj"), name=name, created_at=now)
            session.add(project)
            session.flush()
            if principal.user_id is not None:
                owner = MembershipRow(project_id=project.id, user_id=principal.user_id, role=Role.OWNER, created_at=now)
                session.add(owner)
            storage.touch(session)
            self._audit.add(session, principal, "project.create", project.id, origin=origin, project_id=project.id)
            return project

        return await self._change(make)

    async def change(
        self, principal: Principal, project_id: str, changes: dict[str, Any], *, origin: Origin = NOWHERE
    ) -> ProjectRow:
        """Set some of name, rpm, tpm and parallel. A project's limits are for a platform administrator."""
        if changes.keys() - {"name"}:
            principal.require(Scope.ADMIN)

        def change(session: Session) -> ProjectRow:
            project = _administered(session, principal, project_id)[0]
            for name, value in changes.items():
                setattr(project, name, value)
            action = "project.rename" if list(changes) == ["name"] else "project.change"
            details = {"fields": sorted(changes)}
            self._audit.add(
                session, principal, action, project_id, origin=origin, details=details, project_id=project_id
            )
            storage.touch(session)
            return project

        return await self._change(change)

    async def archive(self, principal: Principal, project_id: str, *, origin: Origin = NOWHERE) -> None:
        """Close a project: its keys stop at once, its data stays. For a platform administrator."""
        principal.require(Scope.ADMIN)

        def archive(session: Session) -> None:
            project = _visible(session, principal, project_id)
            project.archived_at = self._clock.now()
            storage.touch(session)
            self._audit.add(session, principal, "project.archive", project_id, origin=origin, project_id=project_id)

        await self._change(archive)

    async def members(self, principal: Principal, project_id: str) -> list[tuple[MembershipRow, UserRow]]:
        """Return who is in the project."""

        def read(session: Session) -> list[tuple[MembershipRow, UserRow]]:
            _visible(session, principal, project_id)
            return storage.members(session, project_id)

        return await self._database.read(read)

    async def add_member(
        self, principal: Principal, project_id: str, *, email: str, role: Role, origin: Origin = NOWHERE
    ) -> tuple[MembershipRow, UserRow]:
        """Give a user a role in the project.

        Raises `UserNotFound`, `AlreadyMember`, or `RoleNotAllowed` for a role above the caller's own.
        """

        def add(session: Session) -> tuple[MembershipRow, UserRow]:
            own = _administered(session, principal, project_id)[1]
            _check_grant(principal, own, role)
            user = storage.user_by_email(session, email)
            if user is None:
                raise UserNotFound(field="email")
            if storage.membership(session, project_id, user.id) is not None:
                raise AlreadyMember
            row = MembershipRow(project_id=project_id, user_id=user.id, role=role.value, created_at=self._clock.now())
            session.add(row)
            self._sign(session, principal, "member.add", project_id, user.id, origin, {"role": role.value})
            return row, user

        return await self._change(add)

    async def change_member(
        self, principal: Principal, project_id: str, user_id: str, *, role: Role, origin: Origin = NOWHERE
    ) -> tuple[MembershipRow, UserRow]:
        """Change a member's role; their sessions end. The last owner stays one (`LastOwner`)."""

        def change(session: Session) -> tuple[MembershipRow, UserRow]:
            row, user = _member(session, principal, project_id, user_id)
            own = storage.role_of(session, project_id, principal.user_id or "")
            _check_grant(principal, own, role)
            before, row.role = row.role, role.value
            _check_owner_left(session, project_id)
            storage.end_sessions(session, user_id)
            details = {"role": role.value, "before": before}
            self._sign(session, principal, "member.change", project_id, user_id, origin, details)
            return row, user

        return await self._change(change)

    async def remove_member(
        self, principal: Principal, project_id: str, user_id: str, *, origin: Origin = NOWHERE
    ) -> None:
        """Take a member out; their keys for this project stop and their sessions end."""

        def remove(session: Session) -> None:
            row, _ = _member(session, principal, project_id, user_id)
            session.delete(row)
            _check_owner_left(session, project_id)
            storage.end_sessions(session, user_id)
            self._sign(session, principal, "member.remove", project_id, user_id, origin, {"role": row.role})

        await self._change(remove)

    def _sign(
        self,
        session: Session,
        principal: Principal,
        action: str,
        project_id: str,
        user_id: str,
        origin: Origin,
        details: dict[str, Any],
    ) -> None:
        storage.touch(session)
        self._audit.add(session, principal, action, user_id, origin=origin, details=details, project_id=project_id)

    async def _change(self, work: Callable[[Session], T]) -> T:
        result = await self._database.write(work)
        await asyncio.to_thread(self._snapshot.load)
        return result


def _visible(session: Session, principal: Principal, project_id: str) -> ProjectRow:
    project = storage.project(session, project_id)
    if project is None:
        raise ProjectNotFound
    if principal.may(Scope.ADMIN) or (principal.kind != "session" and principal.project_id == project_id):
        return project
    if principal.kind != "session" or storage.role_of(session, project_id, principal.user_id or "") is None:
        raise ProjectNotFound
    return project


def _administered(session: Session, principal: Principal, project_id: str) -> tuple[ProjectRow, Role | None]:
    """Return the project and the caller's role, who must be one of its administrators."""
    project = _visible(session, principal, project_id)
    if principal.may(Scope.ADMIN):
        return project, Role.OWNER
    role = storage.role_of(session, project_id, principal.user_id or "") if principal.kind == "session" else None
    if role not in (Role.OWNER, Role.ADMIN):
        raise RoleNotAllowed
    return project, role


def _check_grant(principal: Principal, own: Role | None, role: Role) -> None:
    if not may_grant(own, role, superadmin=principal.may(Scope.ADMIN)):
        raise RoleNotAllowed(field="role")


def _member(session: Session, principal: Principal, project_id: str, user_id: str) -> tuple[MembershipRow, UserRow]:
    """Return a member whom the caller may change."""
    own = _administered(session, principal, project_id)[1]
    row = storage.membership(session, project_id, user_id)
    user = storage.user(session, user_id)
    if row is None or user is None:
        raise MemberNotFound
    _check_grant(principal, own, Role(row.role))
    return row, user


def _check_owner_left(session: Session, project_id: str) -> None:
    session.flush()
    if not storage.count_owners(session, project_id):
        raise LastOwner
