"""The services of one process start and end as one."""

from __future__ import annotations

from pathlib import Path

import pytest

from nexus.composition import build
from nexus.settings import load_settings


async def test_one_that_fails_to_end_keeps_none_from_ending(tmp_path: Path) -> None:
    parts = build(load_settings(data_dir=tmp_path), children=1)
    ended: list[str] = []

    def stop(name: str, *, fails: bool = False) -> object:
        async def end() -> None:
            ended.append(name)
            if fails:
                raise RuntimeError(name)

        return end

    parts.stops += [stop("first"), stop("second", fails=True), stop("third")]  # type: ignore[list-item]
    with pytest.raises(RuntimeError, match="second"):
        await parts.stop()
    assert ended == ["third", "second", "first"]
