"""Named queries: people, projects, sessions and keys."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from nexus.access.audit import lock_state
from nexus.access.roles import Role
from nexus.access.tables import (
    AccessStateRow,
    IdempotencyRow,
    KeyRow,
    KeySecretRow,
    MembershipRow,
    ProjectRow,
    SessionRow,
    SetupTokenRow,
    UserRow,
)


def touch(session: Session) -> None:
    """Tell every process that keys or rights have changed."""
    lock_state(session).version += 1


def version(session: Session) -> int:
    """Return the version of keys and rights."""
    return session.scalar(select(AccessStateRow.version).where(AccessStateRow.id == 1)) or 0


# people


def count_users(session: Session) -> int:
    """Return how many users there are."""
    return session.scalar(select(func.count()).select_from(UserRow)) or 0


def user(session: Session, user_id: str) -> UserRow | None:
    """Return a user by id."""
    return session.get(UserRow, user_id)


def user_by_email(session: Session, email: str) -> UserRow | None:
    """Return a user by address, whatever its case."""
    return session.scalar(select(UserRow).where(UserRow.email == email.strip().lower()))


def users(session: Session, after: str | None, limit: int) -> list[UserRow]:
    """Return a page of users, oldest first."""
    query = select(UserRow).order_by(UserRow.id).limit(limit)
    return list(session.scalars(query.where(UserRow.id > after) if after else query))


def count_superadmins(session: Session) -> int:
    """Return how many can administer the platform."""
    query = select(func.count()).where(UserRow.superadmin.is_(True), UserRow.disabled_at.is_(None))
    return session.scalar(query) or 0


# projects


def project(session: Session, project_id: str) -> ProjectRow | None:
    """Return a project that is not archived."""
    found = session.get(ProjectRow, project_id)
    return found if found is not None and found.archived_at is None else None


def projects_of(session: Session, user_id: str | None, after: str | None, limit: int) -> list[ProjectRow]:
    """Return a page of the projects of a user, or of all with None, oldest first."""
    query = select(ProjectRow).where(ProjectRow.archived_at.is_(None)).order_by(ProjectRow.id).limit(limit)
    if user_id is not None:
        query = query.join(MembershipRow, MembershipRow.project_id == ProjectRow.id).where(
            MembershipRow.user_id == user_id
        )
    return list(session.scalars(query.where(ProjectRow.id > after) if after else query))


def role_of(session: Session, project_id: str, user_id: str) -> Role | None:
    """Return a user's role in a project, None for no member."""
    found = session.get(MembershipRow, (project_id, user_id))
    return Role(found.role) if found else None


def membership(session: Session, project_id: str, user_id: str) -> MembershipRow | None:
    """Return a membership."""
    return session.get(MembershipRow, (project_id, user_id))


def members(session: Session, project_id: str) -> list[tuple[MembershipRow, UserRow]]:
    """Return the members of a project with their users, oldest first."""
    query = select(MembershipRow, UserRow).join(UserRow, UserRow.id == MembershipRow.user_id)
    query = query.where(MembershipRow.project_id == project_id).order_by(MembershipRow.created_at, UserRow.id)
    return [(found[0], found[1]) for found in session.execute(query)]


def count_owners(session: Session, project_id: str) -> int:
    """Return how many owners a project has."""
    query = select(func.count()).where(MembershipRow.project_id == project_id, MembershipRow.role == Role.OWNER.value)
    return session.scalar(query) or 0


# sessions


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A living session with everything that decides what it may do."""

    session: SessionRow
    user: UserRow
    project_id: str | None
    role: Role | None


def signed_in(
    session: Session, digest: str, project_id: str | None, now: datetime, idle_since: datetime
) -> SignedIn | None:
    """Return the living session of this digest, for `project_id` or else the user's first project.

    None when there is none, it has ended, or the user is disabled.
    """
    found = session.execute(
        select(SessionRow, UserRow)
        .join(UserRow, UserRow.id == SessionRow.user_id)
        .where(SessionRow.digest == digest, SessionRow.expires_at > now, SessionRow.last_seen_at > idle_since)
        .where(UserRow.disabled_at.is_(None))
    ).one_or_none()
    if found is None:
        return None
    row, person = found[0], found[1]
    chosen = _project_for(session, person, project_id)
    return SignedIn(row, person, chosen, role_of(session, chosen, person.id) if chosen else None)


def _project_for(session: Session, person: UserRow, project_id: str | None) -> str | None:
    """Return the project that a user works in: the one asked for when it is theirs, else their first."""
    if project_id is not None:
        open_to = project(session, project_id) is not None and (
            person.superadmin or role_of(session, project_id, person.id) is not None
        )
        return project_id if open_to else None
    own = projects_of(session, person.id, None, 1)
    if not own and person.superadmin:
        own = projects_of(session, None, None, 1)
    return own[0].id if own else None


def see(session: Session, session_id: str, now: datetime) -> None:
    """Keep when a session was last used."""
    session.execute(update(SessionRow).where(SessionRow.id == session_id).values(last_seen_at=now))


def sessions_of(session: Session, user_id: str, now: datetime) -> list[SessionRow]:
    """Return a user's sessions that have not ended, newest first."""
    query = select(SessionRow).where(SessionRow.user_id == user_id, SessionRow.expires_at > now)
    return list(session.scalars(query.order_by(SessionRow.id.desc())))


def end_sessions(session: Session, user_id: str, *, session_id: str | None = None, except_id: str | None = None) -> int:
    """End one session of a user, or all, or all but one; return how many."""
    query = delete(SessionRow).where(SessionRow.user_id == user_id)
    if session_id is not None:
        query = query.where(SessionRow.id == session_id)
    if except_id is not None:
        query = query.where(SessionRow.id != except_id)
    return len(session.scalars(query.returning(SessionRow.id)).all())


# keys


@dataclass(frozen=True, slots=True)
class LivingKey:
    """A key that may open something, with one of its secrets and the standing of its creator."""

    key: KeyRow
    secret: KeySecretRow
    creator: UserRow | None
    role: Role | None


def living_keys(session: Session, now: datetime) -> tuple[int, list[LivingKey]]:
    """Return the version of keys and rights, and every secret of every key that is not revoked or expired."""
    at = version(session)
    query = (
        select(KeyRow, KeySecretRow, UserRow, MembershipRow.role)
        .join(KeySecretRow, KeySecretRow.key_id == KeyRow.id)
        .join(ProjectRow, ProjectRow.id == KeyRow.project_id)
        .outerjoin(UserRow, UserRow.id == KeyRow.created_by)
        .outerjoin(
            MembershipRow,
            (MembershipRow.project_id == KeyRow.project_id) & (MembershipRow.user_id == KeyRow.created_by),
        )
        .where(KeyRow.revoked_at.is_(None), ProjectRow.archived_at.is_(None))
        .where((KeyRow.expires_at.is_(None)) | (KeyRow.expires_at > now))
        .where((KeySecretRow.expires_at.is_(None)) | (KeySecretRow.expires_at > now))
    )
    found = session.execute(query)
    return at, [LivingKey(row[0], row[1], row[2], Role(row[3]) if row[3] else None) for row in found]


def limited_projects(session: Session) -> list[ProjectRow]:
    """Return the projects that have limits of their own."""
    limited = ProjectRow.rpm.is_not(None) | ProjectRow.tpm.is_not(None) | ProjectRow.parallel.is_not(None)
    return list(session.scalars(select(ProjectRow).where(ProjectRow.archived_at.is_(None), limited)))


def key(session: Session, project_id: str, key_id: str, created_by: str | None = None) -> KeyRow | None:
    """Return a key of the project, only those of one creator when given."""
    found = session.get(KeyRow, key_id)
    if found is None or found.project_id != project_id or (created_by is not None and found.created_by != created_by):
        return None
    return found


def keys(session: Session, project_id: str, created_by: str | None, after: str | None, limit: int) -> list[KeyRow]:
    """Return a page of the project's keys, newest first."""
    query = select(KeyRow).where(KeyRow.project_id == project_id).order_by(KeyRow.id.desc()).limit(limit)
    if created_by is not None:
        query = query.where(KeyRow.created_by == created_by)
    return list(session.scalars(query.where(KeyRow.id < after) if after else query))


def secrets_of(session: Session, key_ids: Sequence[str]) -> list[KeySecretRow]:
    """Return the secrets of some keys, oldest first."""
    query = select(KeySecretRow).where(KeySecretRow.key_id.in_(key_ids))
    return list(session.scalars(query.order_by(KeySecretRow.created_at)))


def keys_used(session: Session, key_ids: Collection[str], now: datetime) -> None:
    """Keep when keys were last used."""
    session.execute(update(KeyRow).where(KeyRow.id.in_(key_ids)).values(last_used_at=now))


def remove_ended(session: Session, now: datetime, idle_since: datetime) -> None:
    """Remove what nobody can use any more: ended sessions, set-up tokens, remembered answers, old secrets."""
    session.execute(delete(SessionRow).where((SessionRow.expires_at <= now) | (SessionRow.last_seen_at <= idle_since)))
    session.execute(delete(SetupTokenRow).where(SetupTokenRow.expires_at <= now))
    session.execute(delete(IdempotencyRow).where(IdempotencyRow.expires_at <= now))
    session.execute(delete(KeySecretRow).where(KeySecretRow.expires_at <= now))
