"""How each deployment is doing: its circuit breaker, its speed, when it asked to be left alone. No I/O, no clock.

Times are seconds of a monotonic clock, given by the caller.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Breaker = Literal["closed", "half_open", "open"]

FAILURES = 5
WINDOW = 10.0
REST = 10.0
LONGEST_REST = 60.0
LONGEST_WAIT = 300.0
HALF_LIFE = 30.0


class RoutingMeter:
    """Is told what happens on the way of calls; this one forgets it all."""

    def breaker(self, deployment: str, state: Breaker) -> None:
        """Note that a deployment's breaker changed."""

    def failed(self, provider: str, code: str) -> None:
        """Note that an attempt failed."""

    def fell_back(self, route: str) -> None:
        """Note that another deployment than the first answered."""


@dataclass(slots=True)
class Standing:
    """How one deployment is doing.

    Five failures in a row within ten seconds open the breaker. After a rest exactly one call is let
    through; its success closes the breaker, its failure begins a rest twice as long (at most a minute).
    """

    key: str = ""
    meter: RoutingMeter = field(default_factory=RoutingMeter)
    in_flight: int = 0
    latency: float | None = None
    measured_at: float = 0.0
    failures: list[float] = field(default_factory=list)
    last_error: str | None = None
    rests_until: float = 0.0
    waits_until: float = 0.0
    limited: bool = False
    opened: bool = False
    probing: bool = False
    rest: float = REST

    def admits(self, now: float) -> bool:
        """Tell whether a call may be sent now."""
        if now < self.waits_until:
            return False
        return not self.opened or (now >= self.rests_until and not self.probing)

    def state(self, now: float) -> Breaker:
        """Return the state of the breaker."""
        if not self.opened:
            return "closed"
        return "open" if now < self.rests_until else "half_open"

    def enter(self) -> bool:
        """Count a call in; True where it is the one that tries an open breaker."""
        self.in_flight += 1
        if not self.opened or self.probing:
            return False
        self.probing = True
        self.meter.breaker(self.key, "half_open")
        return True

    def leave(self, *, probe: bool = False) -> None:
        """Count it out again, whatever became of it."""
        self.in_flight -= 1
        if probe:
            self.probing = False

    def succeeded(self, seconds: float, now: float, *, whole: bool = True) -> None:
        """Note an answer and how long it took: to the first token for a stream, which is not `whole` yet."""
        known = self.typical(now)
        self.latency = seconds if known is None else 0.8 * known + 0.2 * seconds
        self.measured_at = now
        if whole or self.opened:
            self.answered()

    def answered(self) -> None:
        """Note that the provider did its part: a whole answer, or a proper refusal."""
        if self.failures:
            self.failures.clear()
        if self.opened:
            self.opened = self.probing = False
            self.rest = REST
            self.meter.breaker(self.key, "closed")

    def failed(self, now: float, code: str | None = None, *, probe: bool = False) -> None:
        """Note a failure; five within ten seconds, or the one that tried after a rest, begin a rest."""
        self.last_error = code
        self.failures.append(now)
        del self.failures[:-FAILURES]
        if probe:
            self.rest = min(2 * self.rest, LONGEST_REST)
        elif self.opened or len(self.failures) < FAILURES or now - self.failures[0] > WINDOW:
            return
        self.opened, self.probing = True, False
        self.rests_until = now + self.rest
        self.meter.breaker(self.key, "open")

    def asked_to_wait(self, seconds: float, now: float, *, limited: bool = True) -> None:
        """Note that the provider wants no calls for so long, because they are too many or because it is not well.

        Five minutes at most are believed.
        """
        self.waits_until = max(self.waits_until, now + min(seconds, LONGEST_WAIT))
        self.limited = limited

    def free_at(self, now: float) -> float:
        """Return when calls may be sent again; a moment later than now while one call tries the breaker."""
        free = max(self.waits_until, self.rests_until if self.opened else 0.0)
        return now + 1.0 if free <= now and self.opened and self.probing else free

    def typical(self, now: float) -> float | None:
        """Return the seconds that an answer takes; a figure halves with age, so that what was slow is tried again."""
        if self.latency is None:
            return None
        age = now - self.measured_at
        return float(self.latency * 0.5 ** (age / HALF_LIFE)) if age > 1.0 else self.latency


class RetryBudget:
    """Bounds further attempts to a share of the requests of the last ten to twenty seconds, as Envoy does.

    Source: https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/cluster/v3/circuit_breaker.proto
    (retry_budget). Without it an outage is answered by a multiple of the load that caused it.
    """

    __slots__ = ("_before", "_began", "_extra", "_floor", "_ratio", "_requests")

    def __init__(self, ratio: float = 0.2, floor: int = 10) -> None:
        """Allow `ratio` further attempts for each request, and `floor` in any case."""
        self._ratio = ratio
        self._floor = floor
        self._began = 0.0
        self._requests = self._extra = 0
        self._before = (0, 0)

    def count(self, now: float) -> None:
        """Count a request."""
        if now - self._began >= WINDOW:
            self._turn(now)
        self._requests += 1

    def take(self, now: float) -> bool:
        """Take one further attempt out of the budget; False when it is spent."""
        if now - self._began >= WINDOW:
            self._turn(now)
        requests, extra = self._before
        if self._extra + extra >= self._floor + self._ratio * (self._requests + requests):
            return False
        self._extra += 1
        return True

    def _turn(self, now: float) -> None:
        recent = now - self._began < 2 * WINDOW
        self._before = (self._requests, self._extra) if recent else (0, 0)
        self._requests = self._extra = 0
        self._began = now
