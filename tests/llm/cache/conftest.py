"""Time for caches, which passes when a test says so."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from nexus.llm import service
from nexus.llm.cache import dated
from nexus.storage.caches.memory import MemoryCache


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that lets so many seconds pass, at once, for the caches of the services made after it."""
    passed = 0.0

    def later(seconds: float) -> None:
        nonlocal passed
        passed += seconds

    monkeypatch.setattr(dated, "time", SimpleNamespace(time=lambda: time.time() + passed))
    monkeypatch.setattr(service, "MemoryCache", lambda: MemoryCache(timer=lambda: time.monotonic() + passed))
    return later
