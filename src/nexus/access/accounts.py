"""Signing in: the first administrator, passwords and sessions."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from nexus.access import storage
from nexus.access.attempts import Attempts
from nexus.access.audit import NOWHERE, AuditLog, Origin, lock_state
from nexus.access.errors import (
    AlreadySetUp,
    InvalidCredentials,
    InvalidSetupToken,
    SessionEnded,
    SessionNotFound,
)
from nexus.access.passwords import Passwords, check_strength
from nexus.access.roles import Role, scopes_of
from nexus.access.settings import AccessSettings
from nexus.access.tables import MembershipRow, ProjectRow, SessionRow, SetupTokenRow, UserRow
from nexus.access.types import Principal
from nexus.access.users import Users, as_actor, set_password_hash
from nexus.core.clock import Clock
from nexus.core.ids import new_id
from nexus.core.secrets import Secret
from nexus.storage.db import Database

_TOKEN_LIFE = timedelta(hours=1)
_SEEN_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class SignIn:
    """A new session: its cookie value, which is shown once, and whose it is."""

    cookie: Secret
    session: SessionRow
    user: UserRow


def sha256(text: str) -> str:
    """Return the hex digest under which a session or set-up token is kept."""
    return hashlib.sha256(text.encode()).hexdigest()


class Accounts:
    """Who may sign in, and who is."""

    def __init__(
        self,
        *,
        database: Database,
        settings: AccessSettings,
        clock: Clock,
        audit: AuditLog,
        users: Users,
        passwords: Passwords,
        attempts: Attempts,
    ) -> None:
        """Be part of an `AccessService`, which makes the arguments."""
        self._database = database
        self._settings = settings
        self._clock = clock
        self._audit = audit
        self._users = users
        self._passwords = passwords
        self._attempts = attempts

    # the first administrator

    async def needs_setup(self) -> bool:
        """Tell whether there is no user yet."""
        return await self._database.read(storage.count_users) == 0

    async def issue_setup_token(self) -> Secret | None:
        """Return a new one-hour token for the set-up page, or None when there is a user already."""
        token = secrets.token_urlsafe(24)
        made = await self._database.write(_add_setup_token, sha256(token), self._clock.now() + _TOKEN_LIFE)
        return Secret(token) if made else None

    async def set_up(
        self, token: str, email: str, password: str, name: str = "", *, origin: Origin = NOWHERE
    ) -> SignIn:
        """Make the first administrator with the one-time token, and sign them in.

        Raises `AlreadySetUp`, `InvalidSetupToken` or `WeakPassword`. Of many at once exactly one wins.
        """
        if not await self.needs_setup():
            raise AlreadySetUp
        await self._attempts.begin(origin.ip)
        digest = sha256(token)
        if not await self._database.read(_setup_token_holds, digest, self._clock.now()):
            raise InvalidSetupToken(field="token")
        check_strength(password, email=email)
        hashed = await self._passwords.hash(password)
        user = await self._database.write(self._first_admin, email, hashed, name, origin, digest)
        return await self._begin_session(user, origin)

    async def create_admin(self, email: str, password: str, name: str = "") -> UserRow:
        """Make a platform administrator, from the command line. Raises `EmailTaken` or `WeakPassword`."""
        check_strength(password, email=email)
        hashed = await self._passwords.hash(password)
        if await self.needs_setup():
            return await self._database.write(self._first_admin, email, hashed, name, NOWHERE, None)
        return await self._database.write(self._users.add, None, email, hashed, name, True, NOWHERE)

    def _first_admin(
        self, session: Session, email: str, hashed: str, name: str, origin: Origin, token_digest: str | None
    ) -> UserRow:
        lock_state(session)
        if storage.count_users(session):
            raise AlreadySetUp
        if token_digest is not None:
            if not _setup_token_holds(session, token_digest, self._clock.now()):
                raise InvalidSetupToken(field="token")
            session.delete(session.get_one(SetupTokenRow, token_digest))
        user = self._users.add(session, None, email, hashed, name, True, origin)
        now = self._clock.now()
        project = ProjectRow(id=new_id("prj"), name="default", created_at=now)
        session.add(project)
        session.flush()
        session.add(MembershipRow(project_id=project.id, user_id=user.id, role=Role.OWNER.value, created_at=now))
        return user

    # signing in

    async def sign_in(self, email: str, password: str, *, origin: Origin = NOWHERE) -> SignIn:
        """Check the password and begin a session. Raises `InvalidCredentials` or `TooManyAttempts`.

        A wrong address and a wrong password take as long and read the same.
        """
        account = email.strip().lower()
        await self._attempts.begin(origin.ip, account)
        user = await self._database.read(storage.user_by_email, account)
        right = await self._passwords.verify(user.password_hash if user else None, password)
        if user is None or not right or user.disabled_at is not None:
            await self._audit.record(None, "session.refused", user.id if user else None, origin=origin)
            raise InvalidCredentials
        await self._attempts.succeeded(origin.ip, account)
        if self._passwords.needs_rehash(user.password_hash):
            hashed = await self._passwords.hash(password)
            await self._database.write(set_password_hash, user.id, hashed)
            user.password_hash = hashed
        return await self._begin_session(user, origin)

    async def _begin_session(self, user: UserRow, origin: Origin) -> SignIn:
        cookie, now = Secret(secrets.token_urlsafe(32)), self._clock.now()
        row = SessionRow(
            id=new_id("ses"),
            digest=sha256(cookie.reveal()),
            user_id=user.id,
            created_at=now,
            last_seen_at=now,
            expires_at=now + timedelta(days=self._settings.session_days),
            ip=origin.ip,
            user_agent=(origin.user_agent or "")[:255].replace("\x00", ""),
        )

        def begin(session: Session) -> None:
            found = storage.user(session, user.id)
            if found is None or found.disabled_at is not None or found.password_hash != user.password_hash:
                raise InvalidCredentials
            session.add(row)
            found.last_login_at = now
            self._audit.add(session, as_actor(user), "session.begin", row.id, origin=origin)

        await self._database.write(begin)
        return SignIn(cookie, row, user)

    async def signed_in(self, cookie: str, project_id: str | None) -> tuple[Principal, storage.SignedIn]:
        """Return whose session a cookie is, in the project asked for. Raises `SessionEnded`."""
        now = self._clock.now()
        found = await self._database.read(storage.signed_in, sha256(cookie), project_id, now, self._idle_since(now))
        if found is None:
            raise SessionEnded
        if now - found.session.last_seen_at > _SEEN_EVERY:
            await self._database.write(storage.see, found.session.id, now)
        principal = Principal(
            kind="session",
            id=found.user.id,
            project_id=found.project_id or "",
            scopes=scopes_of(found.role, superadmin=found.user.superadmin),
            user_id=found.user.id,
        )
        return principal, found

    def _idle_since(self, now: datetime) -> datetime:
        return now - timedelta(hours=self._settings.session_idle_hours)

    async def sessions(self, user_id: str) -> list[SessionRow]:
        """Return a user's own sessions."""
        return await self._database.read(storage.sessions_of, user_id, self._clock.now())

    async def end_session(self, principal: Principal, session_id: str, *, origin: Origin = NOWHERE) -> None:
        """End one of the caller's own sessions. Raises `SessionNotFound`."""

        def end(session: Session) -> None:
            if principal.user_id is None or not storage.end_sessions(session, principal.user_id, session_id=session_id):
                raise SessionNotFound
            self._audit.add(session, principal, "session.end", session_id, origin=origin)

        await self._database.write(end)

    async def change_password(
        self, principal: Principal, current: str, new: str, *, origin: Origin = NOWHERE
    ) -> SignIn:
        """Change the caller's own password, end all their sessions and begin a new one."""
        user = await self._users.find(principal.user_id)
        await self._attempts.begin(origin.ip, user.email)
        if not await self._passwords.verify(user.password_hash, current):
            raise InvalidCredentials("The current password is wrong.", field="current_password")
        await self._attempts.succeeded(origin.ip, user.email)
        await self._users.set_password(principal, user.id, new, origin=origin, field="new_password")
        return await self._begin_session(await self._users.find(user.id), origin)


def csrf_token(key: bytes, session_digest: str) -> str:
    """Return the token that a page of this session sends with every change."""
    return hmac.digest(key, session_digest.encode(), "sha256").hex()


def _add_setup_token(session: Session, digest: str, expires_at: datetime) -> bool:
    lock_state(session)
    if storage.count_users(session):
        return False
    session.add(SetupTokenRow(digest=digest, expires_at=expires_at))
    return True


def _setup_token_holds(session: Session, digest: str, now: datetime) -> bool:
    found = session.get(SetupTokenRow, digest)
    return found is not None and found.expires_at > now
