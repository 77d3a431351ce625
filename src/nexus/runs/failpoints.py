"""Named places where a kill test lets the engine die. Switched by settings only; off they cost a dict look-up."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from typing import Final

NAMES: Final = (
    "before_claim",
    "after_claim",
    "before_effect",
    "after_effect",
    "before_commit",
    "after_commit",
    "before_publish",
    "after_publish",
)


class Failpoints:
    """Counts how often each armed place is reached, and kills the process at the wanted count."""

    def __init__(self, armed: Mapping[str, int]) -> None:
        """Arm `{name: n}`: die at the n-th arrival. Raises `ValueError` for an unknown name."""
        unknown = set(armed) - set(NAMES)
        if unknown:
            raise ValueError(f"unknown failpoints: {', '.join(sorted(unknown))}")
        self._left = dict(armed)
        self._lock = threading.Lock()

    def reach(self, name: str) -> None:
        """Die by SIGKILL, as kill -9 does, if `name` is armed and its count is used up."""
        if name not in self._left:
            return
        with self._lock:
            self._left[name] -= 1
            fatal = self._left[name] == 0
        if fatal:
            os.kill(os.getpid(), signal.SIGKILL)
