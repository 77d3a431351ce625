"""Access as one service: who asks, and what they may do.

who = access.principal_from_key("nx_...")                    # microseconds, no database
who, signed_in = await access.accounts.signed_in(cookie, project_id)
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import timedelta

from sqlalchemy.exc import SQLAlchemyError

from nexus.access import storage
from nexus.access.accounts import Accounts
from nexus.access.attempts import Attempts
from nexus.access.audit import AuditLog
from nexus.access.key_service import Keys
from nexus.access.passwords import Passwords
from nexus.access.projects import Projects
from nexus.access.roles import EVERYTHING
from nexus.access.settings import AccessSettings
from nexus.access.snapshot import KeySnapshot, Proof
from nexus.access.types import Principal
from nexus.access.users import Users
from nexus.core.clock import Clock, SystemClock
from nexus.core.errors import Unavailable
from nexus.core.secrets import Keyring
from nexus.storage.cache import Cache
from nexus.storage.db import Database

log = logging.getLogger(__name__)

_CLEAN_EVERY = 3600.0
_LAST_USED_EVERY = 60.0


class AccessService:
    """Projects, people, keys and sessions, each in its own part: `projects`, `users`, `accounts`, `keys`, `audit`.

    `limits` tells what each key and project may use at most.
    """

    def __init__(
        self,
        *,
        database: Database,
        keyring: Keyring,
        cache: Cache,
        settings: AccessSettings | None = None,
        clock: Clock | None = None,
        public_url: str | None = None,
    ) -> None:
        """Build the parts. `cache` counts failed sign-ins and may be shared by several processes.

        With an https `public_url`, cookies are Secure whatever the last hop speaks.
        """
        self.public_url = public_url
        self.settings = settings or AccessSettings()
        self._database = database
        self._clock = clock or SystemClock()
        self.csrf_key = keyring.key("csrf")
        pepper = keyring.key("api-key")
        self._passwords = Passwords()
        self._snapshot = self.limits = KeySnapshot(database, pepper, self._clock)
        self.audit = AuditLog(database, keyring, self._clock)
        attempts = Attempts(cache, limit=self.settings.login_failures, window=self.settings.login_window_seconds)
        self.projects = Projects(database=database, clock=self._clock, audit=self.audit, snapshot=self._snapshot)
        self.users = Users(
            database=database,
            clock=self._clock,
            audit=self.audit,
            snapshot=self._snapshot,
            passwords=self._passwords,
        )
        self.accounts = Accounts(
            database=database,
            settings=self.settings,
            clock=self._clock,
            audit=self.audit,
            users=self.users,
            passwords=self._passwords,
            attempts=attempts,
        )
        self.keys = Keys(
            database=database,
            settings=self.settings,
            clock=self._clock,
            audit=self.audit,
            snapshot=self._snapshot,
            pepper=pepper,
        )
        self._refreshing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the keys and begin to look for changes made by other processes."""
        await asyncio.to_thread(self._snapshot.load)
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh(), name="access-refresh")

    async def stop(self) -> None:
        """Stop looking, and keep when keys were last used."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            with suppress(asyncio.CancelledError):
                await self._refreshing
            self._refreshing = None
        with suppress(Unavailable, SQLAlchemyError):
            await asyncio.to_thread(self._snapshot.write_last_used)
        self._passwords.close()

    def principal_from_key(self, token: str, client: str | None = None) -> Principal:
        """Return who an API key stands for; `client` is the caller's address. Touches no database.

        Raises `InvalidKey`, or `AddressNotAllowed` for a key bound to other networks.
        """
        return self._snapshot.principal_of(token, client)

    def proof_of(self, token: str) -> Proof:
        """Return what spares whoever keeps it a second look at the same key. Raises `InvalidKey`."""
        return self._snapshot.proof_of(token)

    def proved(self, proof: Proof, client: str | None = None) -> Principal | None:
        """Return who a key stands for that was looked at before; None where any key has changed since then.

        Raises as `principal_from_key` does.
        """
        return self._snapshot.proved(proof, client)

    async def system_principal(self, project: str | None = None) -> Principal:
        """Return NEXUS itself, with every right, in the project of this id or name, else in the oldest one.

        For the command line and background work that nobody in particular has asked for.
        """
        rows = await self._database.read(storage.projects_of, None, None, 1000)
        chosen = next((row for row in rows if project is None or project in (row.id, row.name)), None)
        return Principal("system", "system", chosen.id if chosen else (project or ""), EVERYTHING)

    async def _refresh(self) -> None:
        """Every few seconds: changed keys; every minute: last use; every hour: remove what has ended."""
        loop = asyncio.get_running_loop()
        used_at = cleaned_at = loop.time()
        while True:
            await asyncio.sleep(self.settings.key_refresh_seconds)
            try:
                await asyncio.to_thread(self._snapshot.load, only_if_changed=True)
                if loop.time() - used_at >= _LAST_USED_EVERY:
                    used_at = loop.time()
                    await asyncio.to_thread(self._snapshot.write_last_used)
                if loop.time() - cleaned_at >= _CLEAN_EVERY:
                    cleaned_at = loop.time()
                    await self.remove_ended()
            except (Unavailable, SQLAlchemyError) as error:
                # Keys go on as last known: with the database away nobody can have revoked one either.
                log.warning("API keys could not be refreshed (%s)", type(error).__name__)

    async def remove_ended(self) -> None:
        """Remove ended sessions, used-up tokens and remembered answers that have expired."""
        now = self._clock.now()
        idle_since = now - timedelta(hours=self.settings.session_idle_hours)
        await self._database.write(storage.remove_ended, now, idle_since)
