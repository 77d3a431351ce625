"""Whose calls go where: a configured provider, and the address and credential that it has at the moment."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import msgspec

from nexus.core.secrets import Secret


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """One configured provider: a kind, where it is, its credential and its kind's own options."""

    name: str
    kind: str
    base_url: str
    secret: Secret | None = None
    options: dict[str, Any] = msgspec.field(default_factory=dict)


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Where to send requests now, and with which credential; good until `expires_at` (monotonic seconds)."""

    base_url: str
    secret: Secret | None = None
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    expires_at: float | None = None

    @cached_property
    def bearer(self) -> tuple[tuple[str, str], ...]:
        """The headers of a JSON request with the credential as a bearer token, where there is one."""
        json = ("content-type", "application/json")
        return (json,) if self.secret is None else (json, ("authorization", f"Bearer {self.secret.reveal()}"))
