"""Secrets of a project by name: written once, read by steps only, shown to nobody.

    - key: tell
      uses: http.request
      with: {url: "{{ inputs.hook }}", headers: {authorization: "Bearer {{ secrets.HOOK }}"}}

A secret is rendered into a step's inputs at the moment of its execution and nowhere else. What the step says,
returns or fails with is kept with `***` in its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from nexus.access.types import Principal
from nexus.automation.errors import SecretInvalid, SecretNotFound
from nexus.automation.tables import SecretRow
from nexus.core.clock import Clock
from nexus.core.ids import new_id
from nexus.core.secrets import Keyring
from nexus.runs.masking import SHORTEST
from nexus.storage.db import Database
from nexus.telemetry.redact import redactor

_NAME: Final = re.compile(r"^[A-Za-z][A-Za-z0-9_]{0,63}$")
_LONGEST: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """All that is ever told of a secret."""

    name: str
    created_at: datetime
    updated_at: datetime
    updated_by: str


class ProjectSecrets(Mapping[str, str]):
    """The secrets of a project as templates see them; remembers which were asked for."""

    def __init__(self, database: Database, keyring: Keyring, project_id: str) -> None:
        """Read from `database` when asked, in the asking thread."""
        self._database, self._keyring, self._project_id = database, keyring, project_id
        self._known: dict[str, str | None] = {}

    @property
    def revealed(self) -> list[str]:
        """Return the values that were asked for."""
        return [value for value in self._known.values() if value is not None]

    def __getitem__(self, name: str) -> str:
        if name not in self._known:
            self._known[name] = self._read(name)
        value = self._known[name]
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        try:
            self[str(name)]
        except KeyError:
            return False
        return True

    def _read(self, name: str) -> str | None:
        row = self._database.read_now(find_secret, self._project_id, name)
        if row is None:
            return None
        value = self._keyring.decrypt(row.sealed, _place(row.id)).reveal()
        redactor.register(value)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "ProjectSecrets(***)"


class SecretService:
    """Keeps secrets, each sealed for its own row."""

    def __init__(self, *, database: Database, keyring: Keyring, clock: Clock) -> None:
        """Keep rows in `database`, sealed by `keyring`."""
        self._database, self._keyring, self._clock = database, keyring, clock

    async def put(self, principal: Principal, name: str, value: str) -> tuple[StoredSecret, bool]:
        """Keep a secret under a name, in place of what was there; tell whether it is a new one.

        Raises `SecretInvalid`.
        """
        if not _NAME.match(name):
            raise SecretInvalid("A name has letters, digits and _, begins with a letter, at most 64.", field="name")
        if not SHORTEST <= len(value) <= _LONGEST or "\0" in value:
            raise SecretInvalid(f"A secret has {SHORTEST} to {_LONGEST} characters.", field="value")
        now = self._clock.now()

        def keep(session: Session) -> tuple[StoredSecret, bool]:
            row = find_secret(session, principal.project_id, name)
            made = row is None
            if row is None:
                row = SecretRow(id=new_id("sec"), project_id=principal.project_id, name=name, created_at=now)
                session.add(row)
            row.sealed = self._keyring.encrypt(value, _place(row.id))
            row.updated_at, row.updated_by = now, principal.id
            session.flush()
            return _stored(row), made

        return await self._database.write(keep)

    async def list(self, principal: Principal, *, after: str | None = None, limit: int = 20) -> Sequence[StoredSecret]:
        """Return up to `limit` secrets by name, beyond the name `after`, without their values."""

        def read(session: Session) -> list[StoredSecret]:
            query = select(SecretRow).where(SecretRow.project_id == principal.project_id)
            query = query if after is None else query.where(SecretRow.name > after)
            return [_stored(row) for row in session.scalars(query.order_by(SecretRow.name).limit(limit))]

        return await self._database.read(read)

    async def get(self, principal: Principal, name: str) -> StoredSecret:
        """Return what is known of a secret, without its value. Raises `SecretNotFound`."""
        row = await self._database.read(find_secret, principal.project_id, name)
        if row is None:
            raise SecretNotFound
        return _stored(row)

    async def delete(self, principal: Principal, name: str) -> None:
        """Forget a secret. Raises `SecretNotFound`."""

        def remove(session: Session) -> bool:
            named = (SecretRow.project_id == principal.project_id, SecretRow.name == name)
            return session.execute(delete(SecretRow).where(*named).returning(SecretRow.id)).first() is not None

        if not await self._database.write(remove):
            raise SecretNotFound

    def opened(self, project_id: str) -> ProjectSecrets:
        """Return the secrets of a project for the templates of one step."""
        return ProjectSecrets(self._database, self._keyring, project_id)


def find_secret(session: Session, project_id: str, name: str) -> SecretRow | None:
    """Return the row of a secret by its name."""
    named = select(SecretRow).where(SecretRow.project_id == project_id, SecretRow.name == name)
    return session.scalars(named).one_or_none()


def _place(secret_id: str) -> str:
    return f"secret|{secret_id}|sealed"


def _stored(row: SecretRow) -> StoredSecret:
    return StoredSecret(row.name, row.created_at, row.updated_at, row.updated_by)
