from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from nexus.access.audit import AuditLog, Origin
from nexus.access.tables import AuditRow
from nexus.access.types import Principal, Scope
from nexus.core.errors import Forbidden
from nexus.storage.db import Database

from .conftest import KEYRING

WHO = Principal("session", "usr_a", "prj_a", frozenset({Scope.KEYS_MANAGE}), user_id="usr_a")


@pytest.fixture
async def audit(any_database: Database) -> AuditLog:
    audit = AuditLog(any_database, KEYRING)
    for i in range(5):
        origin = Origin("203.0.113.5", "agent", "req_1")
        await audit.record(WHO, "thing.make", f"thg_{i}", origin=origin, details={"i": i, "x": 0.1, "ü": None})
    return audit


async def test_an_untouched_chain_is_sound(audit: AuditLog) -> None:
    verdict = await audit.verify()
    assert (verdict.sound, verdict.checked) == (True, 5)
    assert (await AuditLog(audit._database, KEYRING).verify()).sound


@pytest.mark.parametrize(
    ("tamper", "broken_at"),
    [
        (update(AuditRow).where(AuditRow.seq == 3).values(actor_id="usr_b"), 3),
        (update(AuditRow).where(AuditRow.seq == 1).values(details={"i": 9}), 1),
        (update(AuditRow).where(AuditRow.seq == 2).values(seal="0" * 64), 2),
        (delete(AuditRow).where(AuditRow.seq == 2), 2),
        (delete(AuditRow).where(AuditRow.seq == 5), 5),
        (delete(AuditRow), 1),
    ],
)
async def test_every_kind_of_tampering_shows(
    audit: AuditLog, any_database: Database, tamper: Any, broken_at: int
) -> None:
    await any_database.write(lambda session: session.execute(tamper))
    verdict = await audit.verify()
    assert (verdict.sound, verdict.broken_at) == (False, broken_at)


async def test_events_at_once_make_one_chain(audit: AuditLog) -> None:
    await asyncio.gather(*(audit.record(WHO, "thing.make", f"thg_{i}") for i in range(40)))
    assert (await audit.verify()).checked == 45


async def test_an_undone_deed_leaves_no_event(audit: AuditLog, any_database: Database) -> None:
    def fails(session: Any) -> None:
        audit.add(session, WHO, "thing.make", "thg_x")
        raise KeyError

    with pytest.raises(KeyError):
        await any_database.write(fails)
    assert (await audit.verify()).checked == 5


async def test_the_trail_is_the_projects_own(audit: AuditLog) -> None:
    events = await audit.events(WHO, limit=2)
    assert [event.seq for event in events] == [5, 4]
    assert [event.seq for event in await audit.events(WHO, after=4, limit=2)] == [3, 2]
    stranger = Principal("session", "usr_b", "prj_b", frozenset({Scope.KEYS_MANAGE}))
    assert await audit.events(stranger) == []
    with pytest.raises(Forbidden):
        await audit.events(stranger, all_projects=True)
    with pytest.raises(Forbidden):
        await audit.events(Principal("key", "key_a", "prj_a", frozenset({Scope.USAGE_READ})))


async def test_what_a_caller_says_cannot_break_a_row(audit: AuditLog, any_database: Database) -> None:
    await audit.record(WHO, "x" * 500, "\x00" * 500, origin=Origin("\x00", "a\x00b" * 500, "r" * 500))
    assert (await audit.verify()).sound
    row = await any_database.read(lambda session: session.scalars(select(AuditRow).where(AuditRow.seq == 6)).one())
    assert (len(row.action), row.ip) == (64, "")
