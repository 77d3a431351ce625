"""Where a call goes: which deployments, in which order, and what is tried when one fails. No I/O."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

import msgspec

from nexus.core.errors import NexusError
from nexus.llm.errors import UpstreamRateLimited, UpstreamUnavailable
from nexus.llm.routing.fitting import unfit
from nexus.llm.routing.standing import RetryBudget, RoutingMeter, Standing
from nexus.llm.types import Call, Deployment, Route

Allows = Callable[[Deployment, int, float], bool]
"""Tells, without taking anything, whether a deployment's own limits admit a call of so many tokens now."""

_CHARACTERS_PER_TOKEN = 4
_USUAL_OUTPUT = 500
_STALE = 10.0
_CURIOSITY = 0.05
_MOST_STANDINGS = 4096


class Step(msgspec.Struct, frozen=True):
    """The next place to try, and how it is doing: `again` where it has failed this call, not before `not_before`."""

    route: Route
    deployment: Deployment
    standing: Standing
    again: bool = False
    not_before: float = 0.0


class Router:
    """Orders deployments by their route's strategy, and knows how each is doing."""

    def __init__(
        self,
        routes: Mapping[str, Route],
        *,
        pick: Callable[[], float] = random.random,
        retries: int = 1,
        budget: tuple[float, int] = (0.2, 10),
        longest_wait: float = 2.0,
        meter: RoutingMeter | None = None,
    ) -> None:
        """`pick` returns numbers in [0, 1); `budget` is the share and the floor of further attempts.

        A deployment that asks for a pause of at most `longest_wait` seconds may be waited for.
        """
        self.routes = routes
        self.retries = retries
        self.longest_wait = longest_wait
        self.meter = meter or RoutingMeter()
        self.allows: Allows | None = None
        self.streams = 0
        self._pick = pick
        self._budget = budget
        self._budgets: dict[str, RetryBudget] = {}
        self._standing: dict[str, Standing] = {}
        self._lone: dict[str, tuple[Step, RetryBudget]] = {}

    def standing(self, deployment: Deployment) -> Standing:
        """Return how this deployment is doing."""
        key = deployment.key
        found = self._standing.get(key)
        if found is None:
            if len(self._standing) >= _MOST_STANDINGS:
                self._forget_idle()
            found = self._standing[key] = Standing(key, self.meter)
        return found

    def budget(self, route: Route) -> RetryBudget:
        """Return what is left for further attempts of this route; direct names share one for each provider."""
        name = route.name if route.name in self.routes else f"{route.deployments[0].provider}/"
        found = self._budgets.get(name)
        if found is None:
            found = self._budgets[name] = RetryBudget(*self._budget)
        return found

    def plan(self, route: Route, now: float, call: Call | None = None, *, avoid: Deployment | None = None) -> Plan:
        """Count a call, and return where it may go, one step after another; `avoid` comes last of all."""
        budget = self.budget(route)
        budget.count(now)
        return Plan(self, route, call, avoid, budget)

    def only(self, route: Route, now: float, call: Call | None) -> Step | None:
        """Count a call and return its first step where a route has one place only, which can take it.

        Most calls never need a plan. None, and nothing counted, where it takes one.
        """
        if len(route.deployments) != 1:
            return None
        known = self._lone.get(route.name)
        if known is None or known[0].route is not route:
            known = self._lone_place(route)
        step, budget = known
        if not step.standing.admits(now) or not self.within_limits(step.deployment, call, now):
            return None
        if call is not None and unfit(call, step.deployment) is not None:
            return None
        budget.count(now)
        return step

    def _lone_place(self, route: Route) -> tuple[Step, RetryBudget]:
        """Return the only step of a route and its budget, which are kept for routes that have been set up."""
        (place,) = route.deployments
        found = Step(route, place, self.standing(place)), self.budget(route)
        if self.routes.get(route.name) is route:
            self._lone[route.name] = found
        return found

    def after(self, step: Step, call: Call | None) -> Plan:
        """Return where a call may go after its `only` step."""
        plan = Plan(self, step.route, call, None, self.budget(step.route))
        plan.begun()
        return plan

    def within_limits(self, deployment: Deployment, call: Call | None, now: float) -> bool:
        """Tell whether a deployment's own limits admit a call now."""
        if self.allows is None or (deployment.rpm is None and deployment.tpm is None):
            return True
        tokens = _input_tokens(call) + (call.max_tokens or 0 if call is not None else 0)
        return self.allows(deployment, tokens, now)

    def refusal(self, route: Route, now: float) -> NexusError:
        """Return why nothing was tried: everything is resting, asked to be left alone, or at its limit."""
        standings = [self.standing(item) for item in self._everywhere(route)]
        waits = [standing.free_at(now) - now for standing in standings]
        at_limit = any(wait <= 0 for wait in waits)
        wait = 1.0 if at_limit else max(min(waits), 0.0)
        if at_limit or all(standing.waits_until > now and standing.limited for standing in standings):
            return UpstreamRateLimited(retry_after=wait)
        text = "The provider has failed repeatedly and is left alone for now."
        return UpstreamUnavailable(text, retry_after=wait)

    def order(self, route: Route, now: float = 0.0, call: Call | None = None) -> Sequence[Deployment]:
        """Return the route's deployments in the order to try them."""
        items = route.deployments
        if len(items) == 1:
            return items
        shuffled = self._by_weight(list(items))
        if route.strategy == "least_busy":
            shuffled.sort(key=lambda item: self.standing(item).in_flight / max(item.weight, 1e-9))
        elif route.strategy == "lowest_latency":
            shuffled.sort(key=lambda item: self._slowness(item, now))
        elif route.strategy == "lowest_cost":
            shuffled.sort(key=lambda item: _cost(item, call))
        return shuffled

    def _slowness(self, deployment: Deployment, now: float) -> tuple[float, int]:
        """Return typical seconds and calls under way.

        What is not known, and now and then what has not been tried for a while, goes first: with one call
        at a time, so that curiosity never costs more than that one.
        """
        standing = self.standing(deployment)
        typical = standing.typical(now)
        if standing.in_flight == 0:
            if typical is None or (now - standing.measured_at > _STALE and self._pick() < _CURIOSITY):
                return 0.0, 0
        elif typical is None:
            return float("inf"), standing.in_flight
        return typical, standing.in_flight

    def _everywhere(self, route: Route) -> list[Deployment]:
        names, found = [route.name], list(route.deployments)
        waiting = list(route.fallbacks)
        while waiting:
            name = waiting.pop(0)
            if name not in names:
                names.append(name)
                found += self.routes[name].deployments
                waiting += self.routes[name].fallbacks
        return found

    def _by_weight(self, left: list[Deployment]) -> list[Deployment]:
        """Draw without putting back, in proportion to weight; weight 0 comes last."""
        drawn = []
        while left:
            point = self._pick() * sum(item.weight for item in left)
            chosen = len(left) - 1
            for position, item in enumerate(left):
                point -= item.weight
                if point < 0:
                    chosen = position
                    break
            drawn.append(left.pop(chosen))
        return drawn

    def _forget_idle(self) -> None:
        """Anybody may ask for any model of a provider: names must not pile up."""
        busy = {key: item for key, item in self._standing.items() if item.in_flight or item.opened}
        self._standing = busy
        self._lone.clear()


class Plan:
    """Where one call may still go: this route's deployments, further tries of them, then those of its fallbacks.

    One move to another deployment is free; whatever is beyond it comes out of the retry budget. `refused`
    says why the first deployment that cannot take the call was left out, `too_small` which one has found
    it too long.
    """

    refused: NexusError | None = None
    too_small: Deployment | None = None
    tries = 0
    _left: list[Deployment] | None = None
    _waiting: list[str] | None = None
    _again: tuple[tuple[float, Deployment], ...] = ()
    _seen: frozenset[str] = frozenset()

    def __init__(
        self, router: Router, route: Route, call: Call | None, avoid: Deployment | None, budget: RetryBudget
    ) -> None:
        """Begin with `route`."""
        # What most calls never come to is set when they do.
        self._router = router
        self._route = route
        self._call = call
        self._avoid = avoid
        self._budget = budget
        self._retries = router.retries

    def begun(self) -> None:
        """Note that the route's only place has been tried."""
        self._left = []
        self.tries = 1

    def next(self, now: float) -> Step | None:
        """Return the next step, None when there is nowhere left. What is resting or does not fit is left out."""
        step = self._find(now)
        if step is None or ((step.again or self.tries > 1) and not self._budget.take(now)):
            return None
        self.tries += 1
        return step

    def _find(self, now: float) -> Step | None:
        router, call = self._router, self._call
        while True:
            if self._left is None:
                ordered, avoid = router.order(self._route, now, call), self._avoid
                self._left = list(ordered) if avoid is None else [item for item in ordered if item != avoid]
            while self._left:
                deployment = self._left.pop(0)
                standing = router.standing(deployment)
                if standing.admits(now) and router.within_limits(deployment, call, now) and self._fits(deployment):
                    return Step(self._route, deployment, standing)
            if self._again and self._retries:
                self._retries -= 1
                not_before, deployment = first = min(self._again, key=lambda item: item[0])
                self._again = tuple(item for item in self._again if item is not first)
                return Step(self._route, deployment, router.standing(deployment), True, not_before)
            if not self._turn_to_fallback() and not self._turn_to_avoided():
                return None

    def _fits(self, deployment: Deployment) -> bool:
        refused = unfit(self._call, deployment, self.too_small) if self._call is not None else None
        self.refused = self.refused or refused
        return refused is None

    def again(self, deployment: Deployment, not_before: float = 0.0) -> None:
        """Note that the last step's deployment may be tried once more, not before a moment."""
        self._again = (*self._again, (not_before, deployment))

    @property
    def more(self) -> bool:
        """Tell whether there is somewhere else to go."""
        if len(self._route.deployments) > 1 if self._left is None else self._left:
            return True
        if not self._route.fallbacks and not self._waiting:
            return False
        return any(name not in self._seen for name in (*self._route.fallbacks, *(self._waiting or ())))

    def _turn_to_fallback(self) -> bool:
        if self._waiting is None:
            self._waiting = []
        self._seen = self._seen | {self._route.name}
        self._waiting += [name for name in self._route.fallbacks if name not in self._waiting]
        while self._waiting:
            name = self._waiting.pop(0)
            if name not in self._seen and name in self._router.routes:
                self._turn(self._router.routes[name])
                return True
        return False

    def _turn_to_avoided(self) -> bool:
        avoid, self._avoid = self._avoid, None
        if avoid is None:
            return False
        self._left = [avoid]
        self._again = ()
        return True

    def _turn(self, route: Route) -> None:
        self._route = route
        self._left = None
        self._again = ()
        self._retries = self._router.retries


def _input_tokens(call: Call | None) -> int:
    return -(-call.characters // _CHARACTERS_PER_TOKEN) if call is not None else 0


def _cost(deployment: Deployment, call: Call | None) -> float:
    """Return what a call would cost there, more or less; an unknown price counts as the highest."""
    price = deployment.price
    if price is None:
        return float("inf")
    if call is None:
        return price.input + price.output
    return price.input * _input_tokens(call) + price.output * (call.max_tokens or _USUAL_OUTPUT)
