"""Whom a step is going to call: the first choice, the fallback, or nobody for a while."""

from __future__ import annotations

from typing import Any

from nexus.core.clock import Clock
from nexus.runs.attempt import Attempt
from nexus.runs.breaker import AWAY, Breakers
from nexus.runs.engine_storage import Claimed
from nexus.runs.transitions import Failed, Outcome, Succeeded
from nexus.runs.types import Handler

Target = tuple[str, str]
"""The project and the name of the one to call: what one project suffers must not stop another."""


class Aim:
    """Chooses with the breakers of one engine, and learns from what came of it."""

    def __init__(self, clock: Clock) -> None:
        """Know nothing of any target yet."""
        self._breakers = Breakers()
        self._clock = clock

    def take(
        self, attempt: Attempt, handler: Handler, inputs: dict[str, Any]
    ) -> tuple[dict[str, Any], Target | None, float]:
        """Return the inputs, whom the handler will call with them, and how long that one is to be left alone.

        The fallback of a step takes its place in the last attempt, and whenever the first choice is away.
        """
        claimed, fallback = attempt.claimed, attempt.fallback
        if fallback is not None and 0 < claimed.policy.max <= claimed.failures:
            inputs, fallback = {**inputs, **fallback}, None
        target = self._target(claimed, handler, inputs)
        pause = 0.0 if target is None else self._breakers.wait(target, self._clock.monotonic())
        if pause > 0 and fallback is not None:
            second = {**inputs, **fallback}
            other = self._target(claimed, handler, second)
            if other is None or self._breakers.wait(other, self._clock.monotonic()) == 0:
                return second, other, 0.0
        return inputs, target, pause

    def _target(self, claimed: Claimed, handler: Handler, inputs: dict[str, Any]) -> Target | None:
        named = getattr(handler, "target", None)
        target = named(inputs) if named is not None else None
        return None if target is None else (claimed.run.principal.project_id, target)

    def learn(self, target: Target, outcome: Outcome | None) -> bool:
        """Note how a call went; tell whether the target is to be left alone from now on."""
        if isinstance(outcome, Failed) and outcome.retryable and outcome.kind in AWAY:
            return self._breakers.failed(target, self._clock.monotonic(), outcome.retry_after)
        if isinstance(outcome, Succeeded | Failed):
            self._breakers.succeeded(target)
        return False
