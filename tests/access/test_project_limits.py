"""Limits of projects: set by the platform, seen by members, known to whoever enforces them."""

from __future__ import annotations

import pytest

from nexus.access.roles import EVERYTHING
from nexus.access.service import AccessService
from nexus.access.types import KeyLimits, Principal, Scope
from nexus.core.errors import Forbidden

PLATFORM = Principal("system", "system", "", EVERYTHING)


async def test_limits_of_projects_and_keys_are_known(access: AccessService) -> None:
    project = await access.projects.create(PLATFORM, name="tenant")
    before = access.limits.generation
    await access.projects.change(PLATFORM, project.id, {"rpm": 10, "parallel": 2})
    assert access.limits.generation is not before
    assert access.limits.limits_of(project.id) == KeyLimits(rpm=10, parallel=2)
    within = Principal("system", "system", project.id, EVERYTHING)
    limits = KeyLimits(tpm=5, budget_usd=1.0)
    made = await access.keys.create(within, name="k", scopes=[Scope.LLM_INVOKE], limits=limits)
    assert access.limits.limits_of(made.row.id) == limits
    await access.keys.revoke(within, made.row.id)
    assert access.limits.limits_of(made.row.id) is None
    await access.projects.change(PLATFORM, project.id, {"rpm": None, "parallel": None})
    assert access.limits.limits_of(project.id) is None


async def test_a_project_cannot_lift_its_own_limits(access: AccessService) -> None:
    project = await access.projects.create(PLATFORM, name="tenant")
    owner = Principal("session", "usr_1", project.id, frozenset(Scope) - {Scope.ADMIN}, user_id="usr_1")
    with pytest.raises(Forbidden):
        await access.projects.change(owner, project.id, {"rpm": None})
