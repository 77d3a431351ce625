from __future__ import annotations

import pytest

from nexus.access.roles import Role, may_grant, scopes_of
from nexus.access.types import Scope

READ = {
    Scope.ANALYTICS_READ,
    Scope.MODELS_READ,
    Scope.FILES_READ,
    Scope.SEARCH_READ,
    Scope.AUTOMATION_READ,
    Scope.HISTORY_READ,
    Scope.USAGE_READ,
}
RUN = {Scope.AUTOMATION_RUN, Scope.METRICS_READ}
WORK = {
    Scope.LLM_INVOKE,
    Scope.VISION_INVOKE,
    Scope.ANALYTICS_TRAIN,
    Scope.ANALYTICS_PREDICT,
    Scope.MODELS_MANAGE,
    Scope.FILES_WRITE,
    Scope.SEARCH_WRITE,
    Scope.AUTOMATION_WRITE,
}
MATRIX = {
    Role.VIEWER: READ,
    Role.OPERATOR: READ | RUN | {Scope.AUTOMATION_APPROVE},
    Role.DEVELOPER: READ | RUN | WORK,
    Role.ADMIN: READ | RUN | WORK | {Scope.AUTOMATION_APPROVE, Scope.KEYS_MANAGE},
    Role.OWNER: READ | RUN | WORK | {Scope.AUTOMATION_APPROVE, Scope.KEYS_MANAGE},
}


@pytest.mark.parametrize("role", Role)
def test_each_role_has_the_rights_of_the_matrix(role: Role) -> None:
    assert scopes_of(role, superadmin=False) == MATRIX[role]


def test_no_role_reaches_the_platform() -> None:
    assert all(Scope.ADMIN not in scopes_of(role, superadmin=False) for role in Role)
    assert scopes_of(None, superadmin=False) == frozenset()
    assert scopes_of(None, superadmin=True) == frozenset(Scope)


@pytest.mark.parametrize("granter", [*Role, None])
@pytest.mark.parametrize("role", Role)
def test_nobody_grants_above_themselves(granter: Role | None, role: Role) -> None:
    order = [Role.VIEWER, Role.OPERATOR, Role.DEVELOPER, Role.ADMIN, Role.OWNER]
    expected = granter in (Role.ADMIN, Role.OWNER) and order.index(role) <= order.index(granter)
    assert may_grant(granter, role, superadmin=False) is expected
    assert may_grant(granter, role, superadmin=True)
