"""What the routes of access take and give. Requests refuse fields they do not know (mass assignment)."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from nexus.access.key_service import KeyView
from nexus.access.roles import Role
from nexus.access.storage import SignedIn
from nexus.access.tables import MembershipRow, ProjectRow, SessionRow, UserRow
from nexus.access.types import BudgetPeriod, KeyLimits, Principal, Scope
from nexus.core.clock import rfc3339

_EMAIL = re.compile(r"[^@\s\x00-\x20\x7f]{1,64}@[^@\s\x00-\x20\x7f]{1,189}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _email(text: str) -> str:
    if not _EMAIL.fullmatch(text):
        raise ValueError("is not an e-mail address")
    return text.lower()


def _line(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("must be one line without control characters")
    return text


Email = Annotated[str, StringConstraints(strip_whitespace=True, max_length=254), AfterValidator(_email)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=120), AfterValidator(_line)]
Password = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1, strict=True)]
Dollars = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False, strict=True)]
Scopes = Annotated[list[Scope], Field(min_length=1, max_length=64)]
ModelNames = Annotated[
    list[Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_line)]], Field(max_length=200)
]
Cidrs = Annotated[list[Annotated[str, StringConstraints(max_length=64)]], Field(max_length=100)]


class Input(BaseModel):
    """The root of every request."""

    model_config = ConfigDict(extra="forbid")


class SetupIn(Input):
    """The first administrator, by the one-time token."""

    token: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    email: Email
    password: Password
    name: Annotated[str, StringConstraints(max_length=120), AfterValidator(_line)] = ""


class LoginIn(Input):
    """A sign-in."""

    email: Annotated[str, StringConstraints(min_length=1, max_length=254)]
    password: Password


class PasswordIn(Input):
    """A change of one's own password."""

    current_password: Password
    new_password: Password


class ProjectIn(Input):
    """A project's name."""

    name: Name


class ProjectPatch(Input):
    """What of a project can be changed; what is left out stays, null lifts a limit."""

    name: Name | None = None
    rpm: Count | None = None
    tpm: Count | None = None
    parallel: Count | None = None

    def changes(self) -> dict[str, Any]:
        """Return the fields that were sent; a name cannot be lifted."""
        sent = {name: getattr(self, name) for name in self.model_fields_set}
        return {name: value for name, value in sent.items() if value is not None or name != "name"}


class MemberIn(Input):
    """A new member."""

    email: Email
    role: Role


class MemberPatch(Input):
    """A member's new role."""

    role: Role


class UserIn(Input):
    """A new user."""

    email: Email
    password: Password
    name: Annotated[str, StringConstraints(max_length=120), AfterValidator(_line)] = ""
    superadmin: Annotated[bool, Field(strict=True)] = False


class UserPatch(Input):
    """What of a user can be changed; what is left out stays."""

    name: Annotated[str, StringConstraints(max_length=120), AfterValidator(_line)] | None = None
    superadmin: Annotated[bool, Field(strict=True)] | None = None
    disabled: Annotated[bool, Field(strict=True)] | None = None
    password: Password | None = None


class KeyIn(Input):
    """A new API key."""

    name: Name
    scopes: Scopes
    models: ModelNames | None = None
    cidrs: Cidrs = []
    rpm: Count | None = None
    tpm: Count | None = None
    parallel: Count | None = None
    budget_usd: Dollars | None = None
    budget_period: BudgetPeriod = "month"
    expires_at: AwareDatetime | None = None

    def limits(self) -> KeyLimits:
        """Return the limits of the key."""
        return KeyLimits(self.rpm, self.tpm, self.parallel, self.budget_usd, self.budget_period)


class KeyPatch(Input):
    """What of a key can be changed; what is left out stays, null lifts a limit."""

    name: Name | None = None
    scopes: Scopes | None = None
    models: ModelNames | None = None
    cidrs: Cidrs | None = None
    rpm: Count | None = None
    tpm: Count | None = None
    parallel: Count | None = None
    budget_usd: Dollars | None = None
    budget_period: BudgetPeriod | None = None
    expires_at: AwareDatetime | None = None

    def changes(self) -> dict[str, Any]:
        """Return the fields that were sent; null is a value only where a limit can be lifted."""
        sent = {name: getattr(self, name) for name in self.model_fields_set}
        lasting = ("name", "scopes", "cidrs", "budget_period")
        return {name: value for name, value in sent.items() if value is not None or name not in lasting}


class RotateIn(Input):
    """How long the old secret goes on."""

    overlap_hours: Annotated[float, Field(ge=0, le=720, strict=True, allow_inf_nan=False)] | None = None


def project_out(row: ProjectRow) -> dict[str, Any]:
    """Return a project as the API shows it."""
    return {
        "id": row.id,
        "name": row.name,
        "rpm": row.rpm,
        "tpm": row.tpm,
        "parallel": row.parallel,
        "created_at": rfc3339(row.created_at),
    }


def user_out(row: UserRow) -> dict[str, Any]:
    """Return a user as the API shows it."""
    return {
        "id": row.id,
        "email": row.email,
        "name": row.name,
        "superadmin": row.superadmin,
        "disabled": row.disabled_at is not None,
        "created_at": rfc3339(row.created_at),
        "last_login_at": rfc3339(row.last_login_at),
    }


def member_out(found: tuple[MembershipRow, UserRow]) -> dict[str, Any]:
    """Return a member as the API shows it."""
    row, user = found
    return {
        "user_id": user.id,
        "email": user.email,
        "name": user.name,
        "role": row.role,
        "disabled": user.disabled_at is not None,
        "created_at": rfc3339(row.created_at),
    }


def session_out(row: SessionRow, current_id: str | None) -> dict[str, Any]:
    """Return a session as the API shows it."""
    return {
        "id": row.id,
        "created_at": rfc3339(row.created_at),
        "last_seen_at": rfc3339(row.last_seen_at),
        "expires_at": rfc3339(row.expires_at),
        "ip": row.ip,
        "user_agent": row.user_agent,
        "current": row.id == current_id,
    }


def key_out(view: KeyView) -> dict[str, Any]:
    """Return a key as the API shows it; `key` is there once, when it was just made."""
    row = view.row
    shown: dict[str, Any] = {
        "id": row.id,
        "name": row.name,
        "project_id": row.project_id,
        "created_by": row.created_by,
        "prefixes": [f"nx_{public_id}" for public_id in view.public_ids],
        "scopes": row.scopes,
        "models": row.models,
        "cidrs": row.cidrs,
        "rpm": row.rpm,
        "tpm": row.tpm,
        "parallel": row.parallel,
        "budget_usd": row.budget_usd,
        "budget_period": row.budget_period,
        "created_at": rfc3339(row.created_at),
        "expires_at": rfc3339(row.expires_at),
        "last_used_at": rfc3339(row.last_used_at),
        "revoked_at": rfc3339(row.revoked_at),
    }
    return shown if view.token is None else {"key": view.token.reveal()} | shown


def me_out(principal: Principal, found: SignedIn | None, csrf: str | None) -> dict[str, Any]:
    """Return who is asking, and what they may do here."""
    limits = principal.limits
    return {
        "kind": principal.kind,
        "id": principal.id,
        "project_id": principal.project_id or None,
        "role": found.role.value if found and found.role else None,
        "scopes": sorted(scope.value for scope in principal.scopes),
        "models": None if principal.models is None else list(principal.models),
        "limits": {
            "rpm": limits.rpm,
            "tpm": limits.tpm,
            "parallel": limits.parallel,
            "budget_usd": limits.budget_usd,
            "budget_period": limits.budget_period,
        },
        "user": user_out(found.user) if found else None,
        "csrf_token": csrf,
    }
