"""What each role of a project may do. Rights are looked up at use time, so a demotion bites at once."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from nexus.access.types import Scope


class Role(StrEnum):
    """A member's role in one project, the mightiest first."""

    OWNER = "owner"
    ADMIN = "admin"
    DEVELOPER = "developer"
    OPERATOR = "operator"
    VIEWER = "viewer"


_READ: Final = frozenset(
    {
        Scope.ANALYTICS_READ,
        Scope.MODELS_READ,
        Scope.FILES_READ,
        Scope.SEARCH_READ,
        Scope.AUTOMATION_READ,
        Scope.HISTORY_READ,
        Scope.USAGE_READ,
    }
)
_OPERATE: Final = _READ | {Scope.AUTOMATION_RUN, Scope.AUTOMATION_APPROVE, Scope.METRICS_READ}
_DEVELOP: Final = _READ | {
    Scope.LLM_INVOKE,
    Scope.VISION_INVOKE,
    Scope.ANALYTICS_TRAIN,
    Scope.ANALYTICS_PREDICT,
    Scope.MODELS_MANAGE,
    Scope.FILES_WRITE,
    Scope.SEARCH_WRITE,
    Scope.AUTOMATION_WRITE,
    Scope.AUTOMATION_RUN,
    Scope.METRICS_READ,
}
_ADMINISTER: Final = frozenset(Scope) - {Scope.ADMIN}

SCOPES: Final[Mapping[Role, frozenset[Scope]]] = {
    Role.OWNER: _ADMINISTER,
    Role.ADMIN: _ADMINISTER,
    Role.DEVELOPER: _DEVELOP,
    Role.OPERATOR: _OPERATE,
    Role.VIEWER: _READ,
}
"""Scope `admin` is the platform's: providers, users and every project. Only a superadmin has it."""

EVERYTHING: Final = frozenset(Scope)

_RANK: Final = {role: rank for rank, role in enumerate(reversed(Role))}


def scopes_of(role: Role | None, *, superadmin: bool) -> frozenset[Scope]:
    """Return the rights of a user in a project; None is no member."""
    if superadmin:
        return EVERYTHING
    return SCOPES[role] if role is not None else frozenset()


def may_grant(granter: Role | None, role: Role, *, superadmin: bool) -> bool:
    """Tell whether somebody may give or take `role`: administrators, and none above themselves."""
    if superadmin:
        return True
    return granter in (Role.OWNER, Role.ADMIN) and _RANK[role] <= _RANK[granter]
