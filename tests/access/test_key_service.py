from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest
from tests.clock import PATIENCE, MovedClock

from nexus.access.errors import InvalidKey, KeyNotFound, KeyRevoked, ScopeNotHeld
from nexus.access.roles import Role
from nexus.access.service import AccessService
from nexus.access.types import KeyLimits, Principal, Scope
from nexus.core.errors import Forbidden
from nexus.storage.db import Database

from .conftest import PASSWORD, make_access


@pytest.fixture
async def owner(any_access: AccessService) -> Principal:
    await any_access.accounts.create_admin("root@example.com", PASSWORD)
    return await any_access.system_principal()


async def member(access: AccessService, owner: Principal, role: Role, email: str) -> Principal:
    user = await access.users.create(owner, email=email, password=PASSWORD)
    await access.projects.add_member(owner, owner.project_id, email=email, role=role)
    begun = await access.accounts.sign_in(email, PASSWORD)
    assert begun.user.id == user.id
    return (await access.accounts.signed_in(begun.cookie.reveal(), None))[0]


async def test_a_key_carries_its_attributes(any_access: AccessService, owner: Principal) -> None:
    limits = KeyLimits(rpm=5, tpm=1000, parallel=2, budget_usd=1.5, budget_period="day")
    view = await any_access.keys.create(
        owner, name="k", scopes=[Scope.LLM_INVOKE], models=["gpt-4o", "claude-*"], limits=limits
    )
    assert view.token is not None
    who = any_access.principal_from_key(view.token.reveal())
    assert who == Principal(
        "key",
        view.row.id,
        owner.project_id,
        frozenset({Scope.LLM_INVOKE}),
        key_id=view.row.id,
        models=("gpt-4o", "claude-*"),
        limits=limits,
    )
    assert who.may_use_model("claude-sonnet")
    assert not who.may_use_model("gpt-4o-mini")


async def test_the_secret_is_nowhere_in_the_database(any_access: AccessService, owner: Principal) -> None:
    view = await any_access.keys.create(owner, name="k", scopes=[Scope.LLM_INVOKE])
    assert view.token is not None
    secret = view.token.reveal().split("_")[2]
    shown = await any_access.keys.get(owner, view.row.id)
    assert shown.token is None
    stored = repr([vars(shown.row), await any_access.audit.events(owner)])
    assert secret not in stored
    assert secret not in repr(view)


async def test_rights_are_those_of_the_creator_at_the_time_of_use(any_access: AccessService, owner: Principal) -> None:
    developer = await member(any_access, owner, Role.DEVELOPER, "dev@example.com")
    with pytest.raises(ScopeNotHeld):
        await any_access.keys.create(developer, name="k", scopes=[Scope.KEYS_MANAGE])
    made = await any_access.keys.create(developer, name="k", scopes=[Scope.LLM_INVOKE, Scope.USAGE_READ])
    assert made.token is not None
    token = made.token.reveal()
    assert any_access.principal_from_key(token).may(Scope.LLM_INVOKE)
    user_id = developer.user_id or ""
    await any_access.projects.change_member(owner, owner.project_id, user_id, role=Role.VIEWER)
    assert any_access.principal_from_key(token).scopes == {Scope.USAGE_READ}
    await any_access.projects.change_member(owner, owner.project_id, user_id, role=Role.DEVELOPER)
    assert any_access.principal_from_key(token).may(Scope.LLM_INVOKE)
    await any_access.users.change(owner, user_id, disabled=True)
    with pytest.raises(InvalidKey):
        any_access.principal_from_key(token)
    await any_access.users.change(owner, user_id, disabled=False)
    await any_access.projects.remove_member(owner, owner.project_id, user_id)
    with pytest.raises(InvalidKey):
        any_access.principal_from_key(token)


async def test_members_handle_their_own_keys_and_no_others(any_access: AccessService, owner: Principal) -> None:
    developer = await member(any_access, owner, Role.DEVELOPER, "dev@example.com")
    viewer = await member(any_access, owner, Role.VIEWER, "view@example.com")
    made = await any_access.keys.create(developer, name="mine", scopes=[Scope.LLM_INVOKE])
    assert [view.row.id for view in await any_access.keys.page(developer)] == [made.row.id]
    assert await any_access.keys.page(viewer) == []
    for attempt in (
        any_access.keys.get(viewer, made.row.id),
        any_access.keys.change(viewer, made.row.id, {"name": "x"}),
        any_access.keys.rotate(viewer, made.row.id),
        any_access.keys.revoke(viewer, made.row.id),
    ):
        with pytest.raises(KeyNotFound):
            await attempt
    assert len(await any_access.keys.page(owner)) == 1


async def test_keys_of_another_project_are_not_there(any_access: AccessService, owner: Principal) -> None:
    made = await any_access.keys.create(owner, name="k", scopes=[Scope.LLM_INVOKE])
    project = await any_access.projects.create(owner, name="other")
    elsewhere = Principal("session", "usr_x", project.id, frozenset({Scope.KEYS_MANAGE}))
    for attempt in (
        any_access.keys.get(elsewhere, made.row.id),
        any_access.keys.change(elsewhere, made.row.id, {"name": "x"}),
        any_access.keys.rotate(elsewhere, made.row.id),
        any_access.keys.revoke(elsewhere, made.row.id),
    ):
        with pytest.raises(KeyNotFound):
            await attempt


async def test_a_limited_key_cannot_lift_its_limits(any_access: AccessService, owner: Principal) -> None:
    made = await any_access.keys.create(owner, name="k", scopes=[Scope.KEYS_MANAGE], limits=KeyLimits(rpm=1))
    assert made.token is not None
    limited = any_access.principal_from_key(made.token.reveal())
    with pytest.raises(Forbidden):
        await any_access.keys.change(limited, made.row.id, {"rpm": None})
    with pytest.raises(Forbidden):
        await any_access.keys.create(limited, name="child", scopes=[Scope.KEYS_MANAGE])


async def test_nobody_rotates_a_key_that_may_more_than_they(any_access: AccessService, owner: Principal) -> None:
    strong = await any_access.keys.create(owner, name="strong", scopes=[Scope.KEYS_MANAGE, Scope.MODELS_MANAGE])
    keeper = Principal("key", "key_k", owner.project_id, frozenset({Scope.KEYS_MANAGE}), key_id="key_k")
    with pytest.raises(ScopeNotHeld, match="models:manage"):
        await any_access.keys.rotate(keeper, strong.row.id)
    weak = await any_access.keys.create(owner, name="weak", scopes=[Scope.KEYS_MANAGE])
    assert (await any_access.keys.rotate(keeper, weak.row.id)).token is not None


async def test_rotation_overlaps_and_ends(any_access: AccessService, owner: Principal, clock: MovedClock) -> None:
    first = await any_access.keys.create(owner, name="k", scopes=[Scope.LLM_INVOKE])
    second = await any_access.keys.rotate(owner, first.row.id, overlap_hours=1)
    assert first.token is not None
    assert second.token is not None
    assert first.row.id == second.row.id
    assert any_access.principal_from_key(first.token.reveal()) == any_access.principal_from_key(second.token.reveal())
    clock.ahead = 3599 - 60
    assert any_access.principal_from_key(first.token.reveal())
    clock.ahead = 3600
    with pytest.raises(InvalidKey):
        any_access.principal_from_key(first.token.reveal())
    assert any_access.principal_from_key(second.token.reveal()).key_id == first.row.id
    third = await any_access.keys.rotate(owner, first.row.id, overlap_hours=0)
    with pytest.raises(InvalidKey):
        any_access.principal_from_key(second.token.reveal())
    await any_access.keys.revoke(owner, first.row.id)
    await any_access.keys.revoke(owner, first.row.id)
    assert third.token is not None
    with pytest.raises(InvalidKey):
        any_access.principal_from_key(third.token.reveal())
    with pytest.raises(KeyRevoked):
        await any_access.keys.rotate(owner, first.row.id)


async def test_a_key_expires_to_the_second(any_access: AccessService, owner: Principal, clock: MovedClock) -> None:
    soon = clock.now() + timedelta(seconds=600)
    made = await any_access.keys.create(owner, name="k", scopes=[Scope.LLM_INVOKE], expires_at=soon)
    assert made.token is not None
    assert any_access.principal_from_key(made.token.reveal())
    clock.ahead = 600
    with pytest.raises(InvalidKey):
        any_access.principal_from_key(made.token.reveal())


async def test_a_revocation_reaches_other_processes(any_database: Database) -> None:
    here = make_access(any_database)
    there = make_access(any_database, key_refresh_seconds=0.1)
    await here.start()
    await there.start()
    await here.accounts.create_admin("root@example.com", PASSWORD)
    owner = await here.system_principal()
    made = await here.keys.create(owner, name="k", scopes=[Scope.LLM_INVOKE])
    assert made.token is not None
    token = made.token.reveal()
    await _eventually(lambda: there.principal_from_key(token) is not None)
    await here.keys.revoke(owner, made.row.id)
    with pytest.raises(InvalidKey):
        here.principal_from_key(token)

    def refused() -> bool:
        try:
            there.principal_from_key(token)
        except InvalidKey:
            return True
        return False

    await _eventually(refused)
    await there.stop()
    await here.stop()


async def test_last_use_is_kept(any_database: Database) -> None:
    access = make_access(any_database)
    await access.start()
    await access.accounts.create_admin("root@example.com", PASSWORD)
    owner = await access.system_principal()
    made = await access.keys.create(owner, name="k", scopes=[Scope.LLM_INVOKE])
    assert made.token is not None
    access.principal_from_key(made.token.reveal())
    await access.stop()
    shown = await access.keys.get(owner, made.row.id)
    assert shown.row.last_used_at is not None
    assert abs(datetime.now(UTC) - shown.row.last_used_at) < timedelta(seconds=60)


async def _eventually(holds: object) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if holds():  # type: ignore[operator]
                return
        except InvalidKey:
            pass
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
