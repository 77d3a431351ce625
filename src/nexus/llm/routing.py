"""Where a call goes: which deployments, in which order, and which are resting after failures. No I/O."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from nexus.llm.types import Deployment, Route

FAILURES = 5
WINDOW = 10.0
REST = 10.0


@dataclass(slots=True)
class Standing:
    """How one deployment is doing: calls under way, typical seconds to answer, recent failures."""

    in_flight: int = 0
    latency: float | None = None
    failures: deque[float] = field(default_factory=lambda: deque(maxlen=FAILURES))
    rests_until: float = 0.0

    def succeeded(self, seconds: float) -> None:
        """Note an answer and how long it took (to the first token, for a stream)."""
        self.latency = seconds if self.latency is None else 0.8 * self.latency + 0.2 * seconds
        self.failures.clear()
        self.rests_until = 0.0

    def failed(self, now: float) -> None:
        """Note a failure; five within ten seconds, or one right after a rest, open the breaker."""
        self.failures.append(now)
        if len(self.failures) == FAILURES and now - self.failures[0] <= WINDOW:
            self.rests_until = now + REST

    def rests(self, now: float) -> bool:
        """Tell whether no calls should be sent now. Once the rest is over, the next failure begins another."""
        return now < self.rests_until


class Router:
    """Orders deployments by their route's strategy, and follows fallbacks."""

    def __init__(self, routes: Mapping[str, Route], *, pick: Callable[[], float] = random.random) -> None:
        """`pick` returns numbers in [0, 1) and decides among weights."""
        self._routes = routes
        self._pick = pick
        self._standing: dict[str, Standing] = {}

    def standing(self, deployment: Deployment) -> Standing:
        """Return how this deployment is doing."""
        found = self._standing.get(deployment.key)
        if found is None:
            found = self._standing[deployment.key] = Standing()
        return found

    def plan(self, route: Route, now: float) -> Iterator[tuple[Route, Deployment]]:
        """Yield where to try, best first: this route's deployments, then those of its fallbacks.

        Resting deployments are left out.
        """
        waiting, seen = [route.name], {route.name}
        routes = {route.name: route}
        while waiting:
            current = routes.get(waiting[0]) or self._routes[waiting[0]]
            del waiting[0]
            for deployment in self.order(current):
                if not self.standing(deployment).rests(now):
                    yield current, deployment
            for name in current.fallbacks:
                if name not in seen:
                    seen.add(name)
                    waiting.append(name)

    def rest_seconds(self, route: Route, now: float) -> float:
        """Return the seconds until the first deployment of the route ends its rest."""
        return max(0.0, min(self.standing(item).rests_until for item in route.deployments) - now)

    def order(self, route: Route) -> list[Deployment]:
        """Return the route's deployments in the order to try them."""
        items = list(route.deployments)
        if len(items) == 1:
            return items
        shuffled = self._by_weight(items)
        if route.strategy == "least_busy":
            shuffled.sort(key=lambda item: self.standing(item).in_flight / max(item.weight, 1e-9))
        elif route.strategy == "lowest_latency":
            shuffled.sort(key=lambda item: self.standing(item).latency or 0.0)
        elif route.strategy == "lowest_cost":
            shuffled.sort(key=lambda item: (item.price.input + item.price.output) if item.price else float("inf"))
        return shuffled

    def _by_weight(self, items: list[Deployment]) -> list[Deployment]:
        """Draw without putting back, in proportion to weight; weight 0 comes last."""
        drawn, left = [], items
        while left:
            point = self._pick() * sum(item.weight for item in left)
            chosen = left[-1]
            for item in left:
                point -= item.weight
                if point < 0:
                    chosen = item
                    break
            drawn.append(chosen)
            left = [item for item in left if item is not chosen]
        return drawn
