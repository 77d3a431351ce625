"""Waking by socket and by NOTIFY, and seeing that a peer is dead."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
from pathlib import Path

import pytest

from nexus.access.types import Principal
from nexus.core.clock import SystemClock
from nexus.runs import steering, storage
from nexus.runs.signals import Bell, PostgresEar, Presence, SocketEar, lock_folder, socket_folder
from nexus.runs.types import RunSpec, StepSpec
from nexus.storage.db import Database


def heard(ear: SocketEar | PostgresEar, seconds: float = 2) -> set[str]:
    with selectors.DefaultSelector() as selector:
        selector.register(ear, selectors.EVENT_READ)
        return ear.words() if selector.select(seconds) else set()


def test_a_bell_is_heard_by_every_engine(tmp_path: Path) -> None:
    bell = Bell(tmp_path)
    bell.ring("outbox")
    engines = [Presence(tmp_path, f"engine{n}") for n in range(2)]
    ears = [SocketEar(engine.socket_path) for engine in engines]
    for word in ("outbox", "cancel"):
        bell.ring(word)
        assert [heard(ear) for ear in ears] == [{word}, {word}]
    assert heard(ears[0], 0) == set()
    ears[0].nudge("outbox")
    assert heard(ears[0]) == {"outbox"}
    for _ in range(10_000):
        bell.ring("outbox")
        ears[1].nudge("outbox")
    assert heard(ears[1]) == {"outbox"}
    for ear, engine in zip(ears, engines, strict=True):
        ear.close()
        engine.leave()
    bell.ring("outbox")
    bell.close()
    assert list(lock_folder(tmp_path).iterdir()) == []
    assert list(socket_folder(tmp_path).iterdir()) == []


def test_a_bell_without_a_folder_is_silent() -> None:
    Bell(None).ring("outbox")


def test_a_deep_data_folder_has_its_sockets_elsewhere(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    assert len(os.fsencode(socket_folder(deep))) < 70
    engine = Presence(deep, "host-1-abcdefghij")
    ear = SocketEar(engine.socket_path)
    Bell(deep).ring("outbox")
    assert heard(ear) == {"outbox"}
    ear.close()
    engine.leave()


def test_a_dead_peer_is_seen_at_once(tmp_path: Path) -> None:
    code = (
        "import sys,time\nfrom pathlib import Path\nfrom nexus.runs.signals import Presence\n"
        "held = Presence(Path(sys.argv[1]), 'other')\nprint('here', flush=True)\ntime.sleep(60)"
    )
    peer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert peer.stdout is not None
    assert peer.stdout.readline() == b"here\n"
    me = Presence(tmp_path, "me")
    assert me.dead_peers() == []
    peer.kill()
    peer.wait()
    peer.stdout.close()
    assert me.dead_peers() == ["other"]
    me.bury("other")
    assert me.dead_peers() == []
    me.leave()


def test_a_commit_notifies_engines_on_postgresql(any_database: Database, who: Principal) -> None:
    if any_database.is_sqlite:
        pytest.skip("SQLite has no NOTIFY; there the bell rings")
    ear = PostgresEar(any_database)
    spec = RunSpec("test", "x", [StepSpec("a", "noop")])

    run = any_database.write_now(storage.add_run, spec, who, SystemClock().now(), 60.0)[0]
    assert heard(ear) == {"outbox"}
    any_database.write_now(steering.request_cancel, run.project_id, run.id, SystemClock().now(), 60.0)
    assert heard(ear) == {"cancel"}
    ear.close()


@pytest.mark.slow
def test_the_api_side_never_imports_celery() -> None:
    code = "import sys, nexus.runs.service, nexus.runs.routes; print(sorted({'celery', 'kombu'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
