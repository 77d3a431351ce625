from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from tests.clock import soon

from nexus.access.types import Principal, Scope
from nexus.core.errors import Forbidden
from nexus.ledger.errors import InvalidUsageQuery, InvocationNotFound
from nexus.ledger.journal import Journal
from nexus.ledger.service import Ledger
from nexus.ledger.settings import LedgerSettings
from nexus.ledger.tables import InvocationRow
from nexus.ledger.types import Invocation
from nexus.storage.db import Database, DatabaseUnavailable

RECORDER = Path(__file__).with_name("recorder.py")


def invocation(**changes: object) -> Invocation:
    return Invocation(**({"project_id": "prj_a", "principal_id": "key_a", "kind": "chat", "model": "m"} | changes))


def stored_ids(session: Session) -> set[str]:
    return set(session.scalars(select(InvocationRow.id)))


async def test_a_record_is_in_the_database_soon_without_being_asked_for(ledger: Ledger, any_database: Database) -> None:
    one = invocation()
    ledger.record(one)
    await soon(lambda: one.id in any_database.read_now(stored_ids))


async def test_threads_record_at_once_and_nothing_is_lost_or_doubled(ledger: Ledger, any_database: Database) -> None:
    ids: list[str] = []

    def work() -> None:
        for _ in range(300):
            one = invocation()
            ledger.record(one)
            ids.append(one.id)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        await ledger.flush()
    await ledger.flush()
    assert len(ids) == 2400
    assert await any_database.read(stored_ids) == set(ids)


async def test_every_column_survives(ledger: Ledger, reader: Principal) -> None:
    one = invocation(
        key_id="key_1",
        version=3,
        provider="p",
        route="r",
        status="client_disconnect",
        error_code="x",
        input_tokens=2**40,
        output_tokens=2,
        cache_read_tokens=3,
        cache_write_tokens=4,
        reasoning_tokens=5,
        items=6,
        cost_usd=0.000125,
        estimated=True,
        latency_ms=1.5,
        first_token_ms=0.5,
        cached=True,
        stream=True,
        request_id="req",
        run_id="run",
        step_key="s",
        input_ref="in",
        output_ref="out",
        details={"a": [1, {"b": None}]},
    )
    ledger.record(one)
    row, feedback = await ledger.get(reader, one.id)
    assert feedback == []
    assert {name: getattr(row, name) for name in one.__struct_fields__} == {
        name: getattr(one, name) for name in one.__struct_fields__
    }


async def test_a_row_that_no_database_takes_is_put_aside_and_blocks_nothing(
    any_database: Database, tmp_path: Path
) -> None:
    seen: dict[str, float] = {}
    ledger = Ledger(database=any_database, folder=tmp_path, observe=lambda name, value: seen.update({name: value}))
    good = [invocation(model="a\x00b"), invocation(details={"big": 2**70, "nul": "\x00"}), invocation(model="y" * 5000)]
    for one in (*good[:2], invocation(id="inv_bad", items=2**80), good[2]):
        ledger.record(one)
    await ledger.flush()
    assert await any_database.read(stored_ids) == {one.id for one in good}
    assert seen["rejected"] == 1
    assert b"inv_bad" in (tmp_path / "rejected.jsonl").read_bytes()
    await ledger.stop()


async def test_records_wait_while_the_database_is_away(tmp_path: Path, database: Database) -> None:
    away = Database("postgresql://nobody@127.0.0.1:1/none")
    ledger = Ledger(database=away, folder=tmp_path / "ledger")
    ids = set()
    for _ in range(3):
        one = invocation()
        ids.add(one.id)
        ledger.record(one)
        with pytest.raises(DatabaseUnavailable):
            await ledger.flush()
    await ledger.stop()
    heir = Ledger(database=database, folder=tmp_path / "ledger")
    assert await heir.replay() == 3
    assert await database.read(stored_ids) == ids
    assert await heir.replay() == 0


async def test_a_full_disk_costs_no_record(database: Database, tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    folder.write_text("a file where the folder should be")
    ledger = Ledger(database=database, folder=folder)
    one = invocation()
    ledger.record(one)
    await ledger.flush()
    assert await database.read(stored_ids) == {one.id}


@pytest.mark.slow
@pytest.mark.parametrize("moment", [0.15, 0.6])
async def test_kill_9_loses_nothing_that_was_recorded(any_database: Database, tmp_path: Path, moment: float) -> None:
    url = any_database.url.render_as_string(hide_password=False)
    command = [sys.executable, str(RECORDER), url, str(tmp_path / "ledger"), "3"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    said = [process.stdout.readline().decode().strip() for _ in range(25)]
    timer = threading.Timer(moment, process.kill)
    timer.start()
    said += [line.decode().strip() for line in process.stdout if line.endswith(b"\n")]
    assert process.wait() == -signal.SIGKILL
    heir = Ledger(database=any_database, folder=tmp_path / "ledger", settings=LedgerSettings(replay_seconds=1))
    await heir.start()
    missing = set(said)
    deadline = time.monotonic() + 30
    while missing and time.monotonic() < deadline:
        missing = set(said) - await any_database.read(stored_ids)
        await asyncio.sleep(0.1)
    await heir.stop()
    assert len(said) > 20
    assert not missing
    total = await any_database.read(lambda session: session.scalar(select(func.count()).select_from(InvocationRow)))
    assert total >= len(said)  # those written but not yet said to be may be there too


@pytest.mark.slow
async def test_sigterm_drains(any_database: Database, tmp_path: Path) -> None:
    url = any_database.url.render_as_string(hide_password=False)
    command = [sys.executable, str(RECORDER), url, str(tmp_path / "ledger"), "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    said = [process.stdout.readline().decode().strip()]
    threading.Timer(0.3, process.terminate).start()
    said += [line.decode().strip() for line in process.stdout]
    assert process.wait(60) == 0
    assert await any_database.read(stored_ids) == set(said)
    assert list((tmp_path / "ledger").iterdir()) == []


async def test_usage_adds_up_in_every_grouping(ledger: Ledger, reader: Principal) -> None:
    day = datetime(2026, 11, 22, 23, 59, tzinfo=UTC)
    for model, key, kind, cost, moment in [
        ("a", "key_1", "chat", 1.0, day),
        ("a", "key_2", "chat", 2.0, day + timedelta(minutes=2)),
        ("b", "key_1", "vision.ocr", 0.5, day + timedelta(minutes=2)),
        ("b", "key_1", "vision.detect", None, day + timedelta(minutes=2)),
    ]:
        ledger.record(
            invocation(model=model, key_id=key, kind=kind, cost_usd=cost, created_at=moment, input_tokens=10, items=1)
        )
    ledger.record(invocation(project_id="prj_b", cost_usd=100.0))
    expected = {
        "model": {"a": 3.0, "b": 0.5},
        "key": {"key_1": 1.5, "key_2": 2.0},
        "day": {"2026-11-22": 1.0, "2026-11-23": 2.5},
        "kind": {"chat": 3.0, "vision.ocr": 0.5, "vision.detect": 0.0},
        "project": {"prj_a": 3.5},
    }
    for group, sums in expected.items():
        rows = await ledger.usage(reader, group_by=[group])
        assert {row[group]: row["cost_usd"] for row in rows} == sums
        assert sum(row["requests"] for row in rows) == 4
        assert sum(row["input_tokens"] for row in rows) == 40
    assert {row["kind"] for row in await ledger.usage(reader, group_by=["kind"], kind="vision")} == {
        "vision.ocr",
        "vision.detect",
    }
    [first] = await ledger.usage(reader, group_by=["day"], until=day + timedelta(minutes=1))
    assert first["day"] == "2026-11-22"
    assert await ledger.spend("prj_a", key_id="key_1") == 1.5


async def test_all_projects_are_for_the_platform_administrator(ledger: Ledger, reader: Principal) -> None:
    ledger.record(invocation(project_id="prj_b", cost_usd=1.0))
    with pytest.raises(Forbidden):
        await ledger.usage(reader, group_by=["project"], all_projects=True)
    root = Principal("session", "usr_root", "prj_a", frozenset({Scope.ADMIN}))
    [row] = await ledger.usage(root, group_by=["project"], all_projects=True)
    assert row["project"] == "prj_b"


@pytest.mark.parametrize("group_by", [[], ["nothing"], ["model", "model"], ["model; drop table invocation"]])
async def test_unknown_groupings_are_refused(ledger: Ledger, reader: Principal, group_by: list[str]) -> None:
    with pytest.raises(InvalidUsageQuery):
        await ledger.usage(reader, group_by=group_by)


async def test_pages_meet_without_gap_or_overlap(ledger: Ledger, reader: Principal) -> None:
    made = [invocation() for _ in range(25)]
    for one in made:
        ledger.record(one)
    for newest_first in (True, False):
        seen: list[str] = []
        after = None
        while page := await ledger.invocations(reader, after=after, limit=7, newest_first=newest_first):
            seen += [row.id for row in page]
            after = seen[-1]
        assert seen == sorted((one.id for one in made), reverse=newest_first)


async def test_another_projects_invocation_is_not_there(ledger: Ledger, reader: Principal, stranger: Principal) -> None:
    one = invocation(details={"secret": 1})
    ledger.record(one)
    assert (await ledger.get(reader, one.id))[0].id == one.id
    for attempt in (
        ledger.get(stranger, one.id),
        ledger.forget(stranger, one.id),
        ledger.add_feedback(stranger, one.id, rating="good"),
        ledger.get(reader, "inv_' OR 1=1--"),
    ):
        with pytest.raises(InvocationNotFound):
            await attempt
    assert await ledger.invocations(stranger) == []


async def test_feedback_stays_with_its_invocation(ledger: Ledger, reader: Principal) -> None:
    one = invocation(cost_usd=1.0, details={"text": "private"})
    ledger.record(one)
    await ledger.add_feedback(reader, one.id, rating="bad", comment="No.", expected={"label": "cat"})
    row, [word] = await ledger.get(reader, one.id)
    assert (word.rating, word.comment, word.expected) == ("bad", "No.", {"label": "cat"})
    await ledger.forget(reader, one.id)
    row, _ = await ledger.get(reader, one.id)
    assert (row.details, row.cost_usd) == ({}, 1.0)


async def test_what_a_dead_process_left_is_adopted_without_a_new_call(database: Database, tmp_path: Path) -> None:
    folder = tmp_path / "journals"
    dead = Journal(folder)
    one = invocation()
    dead.append(one)
    dead.close()
    ledger = Ledger(database=database, folder=folder)
    await ledger.start()
    await soon(lambda: one.id in database.read_now(stored_ids))
    await ledger.stop()
