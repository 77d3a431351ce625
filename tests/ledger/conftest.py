"""A ledger on a database, and somebody who may read it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nexus.access.types import Principal, Scope
from nexus.ledger.service import Ledger
from nexus.storage.db import Database


@pytest.fixture
def reader() -> Principal:
    return Principal("session", "usr_a", "prj_a", frozenset({Scope.USAGE_READ, Scope.HISTORY_READ}))


@pytest.fixture
def stranger() -> Principal:
    return Principal("session", "usr_b", "prj_b", frozenset({Scope.USAGE_READ, Scope.HISTORY_READ}))


@pytest.fixture
async def ledger(any_database: Database, tmp_path: Path) -> AsyncIterator[Ledger]:
    ledger = Ledger(database=any_database, folder=tmp_path / "ledger")
    await ledger.start()
    yield ledger
    await ledger.stop()
