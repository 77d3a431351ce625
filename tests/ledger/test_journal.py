from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from nexus.ledger.journal import Journal, decode, encode, read_lines
from nexus.ledger.types import Invocation


def invocation(**changes: object) -> Invocation:
    return Invocation(**({"project_id": "prj_a", "principal_id": "key_a", "kind": "chat", "model": "m"} | changes))


def test_what_is_appended_can_be_read_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "ledger")
    written = [invocation(model=f"m{i}", cost_usd=i / 7, details={"i": i}) for i in range(20)]
    assert [journal.append(one) for one in written] == list(range(1, 21))
    [segment] = journal.seal()
    assert [decode(line) for line in read_lines(segment)] == written


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "lone \ud800 surrogate"},
        {"model": "x" * 200_000},
        {"details": {"long": "x" * 200_000}},
        {"details": {"numpy": np.float32(0.5), "array": np.arange(3)}},
        {"details": {"object": object()}},
        {"details": {"surrogate": "\udfff"}},
        {"details": {1: 2, "nested": {(1, 2): 3}}},
        {"cost_usd": float("nan"), "latency_ms": float("inf")},
        {"latency_ms": np.float64(1.25), "items": 3},
    ],
)
def test_every_record_has_a_line_that_reads_back(changes: dict[str, object], tmp_path: Path) -> None:
    line = encode(invocation(id="inv_x", **changes))
    assert len(line) <= 64 * 1024 + 1
    (tmp_path / "s.jsonl").write_bytes(line)
    [kept] = read_lines(tmp_path / "s.jsonl")
    back = decode(kept)
    assert isinstance(back, Invocation)
    assert back.id == "inv_x"


def test_a_torn_last_line_does_not_hide_the_others(tmp_path: Path) -> None:
    whole = [invocation(), invocation()]
    path = tmp_path / "s.jsonl"
    path.write_bytes(b"".join(encode(one) for one in whole) + encode(invocation())[:40])
    assert [decode(line) for line in read_lines(path)] == [*whole, None]


def test_a_living_journal_is_not_adopted_and_a_dead_one_is_once(tmp_path: Path) -> None:
    living, heir = Journal(tmp_path), Journal(tmp_path)
    living.append(invocation())
    assert list(heir.adopt()) == []
    os.close(living._lock_file)  # what the kernel does when its process dies
    [segment] = heir.adopt()
    assert len(read_lines(segment)) == 1
    segment.unlink()
    assert list(heir.adopt()) == []
    assert list(tmp_path.iterdir()) == []


def test_closing_an_empty_journal_leaves_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(invocation())
    for segment in journal.seal():
        segment.unlink()
    journal.close()
    assert list(tmp_path.iterdir()) == []
