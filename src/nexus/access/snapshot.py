"""Every living API key in memory, so that a request is authenticated without touching the database.

The table is replaced as a whole: at once by the process that changes a key or a right, and within
`key_refresh_seconds` by every other one, which asks the database for one number to learn whether
anything has changed. A key's rights are those it carries and its creator still has.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from nexus.access import keys, storage
from nexus.access.errors import AddressNotAllowed, InvalidKey
from nexus.access.roles import EVERYTHING, scopes_of
from nexus.access.tables import ProjectRow
from nexus.access.types import NO_LIMITS, KeyLimits, Principal, Scope
from nexus.core.clock import Clock
from nexus.storage.db import Database

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NOBODY: Final = b"\x00" * 32
_KNOWN: Final = frozenset(scope.value for scope in Scope)


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One secret of one key, ready to be compared."""

    digest: bytes
    principal: Principal
    expires_at: float | None
    networks: tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class _Table:
    """The entries by public id, and those that a token has been proved against, by the token's full BLAKE2b hash.

    One object, replaced as a whole, so that a token proved against old entries is never looked up beside new ones.
    """

    entries: Mapping[str, KeyEntry]
    limits: Mapping[str, KeyLimits] = field(default_factory=dict)
    proved: dict[bytes, KeyEntry] = field(default_factory=dict)


class Proof(NamedTuple):
    """That a token is the one of an entry, as long as the table is the same."""

    table: object
    entry: KeyEntry


class KeySnapshot:
    """The table of living keys."""

    def __init__(self, database: Database, pepper: bytes, clock: Clock) -> None:
        """Start empty; `load` fills the table."""
        self._database = database
        self._pepper = pepper
        self._clock = clock
        self._table = _Table({})
        self._version = -1
        self._mutex = threading.Lock()
        self._used: set[str] = set()

    @property
    def generation(self) -> object:
        """Return what stands for the present state: another object whenever keys or limits may have changed."""
        return self._table

    def limits_of(self, owner: str) -> KeyLimits | None:
        """Return the limits of a living key or a project by its id, None where it has none."""
        return self._table.limits.get(owner)

    def principal_of(self, token: str, client: str | None = None) -> Principal:
        """Return who a key stands for. Raises `InvalidKey` or `AddressNotAllowed`; touches no database."""
        return self._admit(self.proof_of(token).entry, client)

    def proof_of(self, token: str) -> Proof:
        """Return what spares a second look at the same token. Raises `InvalidKey`."""
        table = self._table
        proof = hashlib.blake2b(token.encode("utf-8", "surrogatepass")).digest()
        return Proof(table, table.proved.get(proof) or self._prove(table, token, proof))

    def proved(self, proof: Proof, client: str | None = None) -> Principal | None:
        """Return who a key stands for that was looked at before; None where keys have changed since then.

        Raises as `principal_of` does.
        """
        return self._admit(proof.entry, client) if proof.table is self._table else None

    def _admit(self, entry: KeyEntry, client: str | None) -> Principal:
        if entry.expires_at is not None and self._clock.now().timestamp() >= entry.expires_at:
            raise InvalidKey("The API key has expired.")
        if entry.networks and not _lies_in(client, entry.networks):
            raise AddressNotAllowed
        self._used.add(entry.principal.id)
        return entry.principal

    def _prove(self, table: _Table, token: str, proof: bytes) -> KeyEntry:
        parsed = keys.parse(token)
        if parsed is None:
            raise InvalidKey
        entry = table.entries.get(parsed.public_id)
        digest = keys.digest(self._pepper, parsed.secret)
        if not hmac.compare_digest(digest, entry.digest if entry else _NOBODY) or entry is None:
            raise InvalidKey
        table.proved[proof] = entry
        return entry

    def load(self, *, only_if_changed: bool = False) -> None:
        """Read the table anew. Reads are one after another, so an older one never replaces a newer one."""
        with self._mutex:
            if only_if_changed and self._database.read_now(storage.version) == self._version:
                return
            version, living = self._database.read_now(storage.living_keys, self._clock.now())
            entries = {key.secret.public_id: entry for key in living if (entry := _entry(key)) is not None}
            limits = {entry.principal.id: entry.principal.limits for entry in entries.values()}
            limits |= {row.id: limits_of(row) for row in self._database.read_now(storage.limited_projects)}
            self._table = _Table(entries, {owner: some for owner, some in limits.items() if some != NO_LIMITS})
            self._version = version

    def write_last_used(self) -> None:
        """Keep when each key was last used; called once a minute."""
        used, self._used = self._used, set()
        if used:
            self._database.write_now(storage.keys_used, used, self._clock.now())


def _entry(found: storage.LivingKey) -> KeyEntry | None:
    """Return the entry, or None where the creator's standing leaves the key nothing to open."""
    key, secret, creator = found.key, found.secret, found.creator
    if creator is None:
        # Made on the command line by whoever owns the machine. A creator that is gone takes the row along.
        rights = EVERYTHING
    elif creator.disabled_at is not None:
        return None
    else:
        rights = scopes_of(found.role, superadmin=creator.superadmin)
    if not rights:
        return None
    ends = [moment.timestamp() for moment in (key.expires_at, secret.expires_at) if moment is not None]
    principal = Principal(
        kind="key",
        id=key.id,
        project_id=key.project_id,
        scopes=frozenset(Scope(scope) for scope in key.scopes if scope in _KNOWN) & rights,
        user_id=key.created_by,
        key_id=key.id,
        models=None if key.models is None else tuple(key.models),
        limits=KeyLimits(key.rpm, key.tpm, key.parallel, key.budget_usd, key.budget_period),
    )
    networks = tuple(ipaddress.ip_network(cidr) for cidr in key.cidrs)
    return KeyEntry(bytes.fromhex(secret.digest), principal, min(ends, default=None), networks)


def limits_of(project: ProjectRow) -> KeyLimits:
    """Return the limits of all calls of a project together."""
    return KeyLimits(project.rpm, project.tpm, project.parallel)


def _lies_in(client: str | None, networks: tuple[Network, ...]) -> bool:
    try:
        address = ipaddress.ip_address(client or "")
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return any(mapped.version == network.version and mapped in network for network in networks)
