"""The limits of deployments themselves: a provider's requests and tokens per minute, counted before it says no."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from nexus.ledger.windows import Window
from nexus.llm.types import Deployment


class Reserved(NamedTuple):
    """What an attempt holds of a deployment's tokens until it is settled."""

    window: Window
    tokens: int
    at: float


class Quotas:
    """Counts what goes to each deployment that has limits. Times are monotonic seconds."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic, share: Callable[[], int] = lambda: 1) -> None:
        """`share` tells among how many processes a limit is divided."""
        self._now = now
        self._share = share
        self._requests: dict[str, Window] = {}
        self._tokens: dict[str, Window] = {}

    def allows(self, deployment: Deployment, tokens: int, now: float) -> bool:
        """Tell, without taking anything, whether a call of so many tokens may go there now."""
        requests = self._window(self._requests, deployment, deployment.rpm)
        if requests is not None and requests.room(now) < 1:
            return False
        window = self._window(self._tokens, deployment, deployment.tpm)
        return window is None or window.room(now) >= min(tokens, window.limit)

    def take(self, deployment: Deployment, tokens: int) -> Reserved | None:
        """Count an attempt; return what is to be settled once its tokens are known."""
        now = self._now()
        requests = self._window(self._requests, deployment, deployment.rpm)
        if requests is not None:
            requests.take(1, now)
        window = self._window(self._tokens, deployment, deployment.tpm)
        if window is None:
            return None
        window.take(tokens, now)
        return Reserved(window, tokens, now)

    def settle(self, reserved: Reserved, tokens: int) -> None:
        """Replace what was reserved by what was used."""
        reserved.window.correct(tokens - reserved.tokens, reserved.at, self._now())

    def _window(self, windows: dict[str, Window], deployment: Deployment, limit: int | None) -> Window | None:
        if limit is None:
            return None
        limit = max(1, limit // max(1, self._share()))
        window = windows.get(deployment.key)
        if window is None:
            window = windows[deployment.key] = Window(limit)
        window.limit = limit
        return window
