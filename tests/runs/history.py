"""What the history of a run must be like, whatever happened: a checker of timelines, of its own making.

It walks over the events of one run in the order of their commits, and over what people asked for in between, with
a small model of its own that shares no code with the engine. A run without a fault in its history has ended; no
step has ended twice or had two attempts at once; none began before what it needs had ended well, before its time,
in a paused run or in one that is to stop; attempts and retries are counted right; and whoever asked for
something was refused exactly when there was nothing of the kind to be done, and then nothing happened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from nexus.runs.types import RunEvent, RunSpec, StepSpec

Place = tuple[str, int]
ENDS: Final = {f"step.{how}": how for how in ("succeeded", "failed", "skipped", "cancelled")}
PAUSES: Final = {"step.retrying": "ready", "step.lost": "ready", "step.released": "ready", "step.waiting": "waiting"}
GOING_ON: Final = {*PAUSES, "step.started", "step.spread", "step.resumed"}
EARLY: Final = timedelta(seconds=1)
"""How much before its time a step may begin, as clocks differ."""


class WrongHistory(AssertionError):
    """A history that must not be."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody asked of a run, and whether it was done; `after` and `until` are the last events around it.

    `what` is cancel, pause, resume, wake, retry or from.
    """

    what: str
    done: bool
    after: int
    until: int


@dataclass(slots=True)
class _Stand:
    """Where a step, or an item of one, stands in the model."""

    status: str = "pending"
    attempt: int = 0
    retries: int = 0
    free: bool = False  # the last attempt did not count
    earliest: Any = None
    by_failure: bool = False
    reopened: bool = False

    @property
    def ended(self) -> bool:
        return self.status in ENDS.values()


@dataclass(slots=True)
class _Walk:
    steps: Mapping[str, StepSpec]
    late: Mapping[str, StepSpec]
    rendered: bool = False
    stands: dict[Place, _Stand] = field(default_factory=dict)
    status: str = "queued"
    begun: bool = False
    failing: bool = False
    cancelling: bool = False
    paused: bool = False

    def stand(self, place: Place) -> _Stand:
        return self.stands.setdefault(place, _Stand())

    def demand(self, holds: object, event: RunEvent, why: str) -> None:
        if not holds:
            place = event.step_key if event.map_index is None else f"{event.step_key}[{event.map_index}]"
            raise WrongHistory(f"{event.run_id}, event {event.id}: {event.type} {place or ''}: {why}")

    # steps

    def step(self, event: RunEvent) -> None:
        assert event.step_key is not None
        place = event.step_key, -1 if event.map_index is None else event.map_index
        self.demand(place[0] in self.steps or place[0] in self.late, event, "no such step")
        self.demand(self.begun or event.type in ENDS, event, "the run has not started")
        self.demand(not (self.cancelling and event.type in GOING_ON), event, "the run is to stop")
        stand = self.stand(place)
        self.demand(not stand.ended, event, f"it has {stand.status} already")
        if event.type == "step.started":
            self.start(event, place, stand)
        elif event.type in ENDS:
            self.end(event, place, stand)
        elif event.type == "step.resumed":
            self.demand(stand.status in ("waiting", "running"), event, f"it does not wait, it is {stand.status}")
            stand.status, stand.earliest = "ready", None
        elif event.type == "step.spread":
            self.demand(stand.status == "running", event, "it does not run")
            self.spread(event, place[0], stand)
        else:
            self.pause(event, place, stand)

    def start(self, event: RunEvent, place: Place, stand: _Stand) -> None:
        self.demand(stand.status != "running", event, "another attempt still runs")
        self.demand(not self.paused, event, "the run is paused")
        self.demand(stand.earliest is None or event.at >= stand.earliest, event, f"its time is {stand.earliest}")
        counted = stand.attempt + (not stand.free)
        self.demand(event.data["attempt"] == counted, event, f"it is attempt {counted}, not {event.data['attempt']}")
        if place[1] == -1:
            self.check_needs(event, stand)
            items = [item for (key, index), item in self.stands.items() if key == place[0] and index >= 0]
            if stand.status == "spread":
                self.demand(all(item.ended for item in items), event, "not all items have ended")
        else:
            self.demand(self.stand((place[0], -1)).status == "spread", event, "its step is not spread")
        stand.status, stand.attempt, stand.free, stand.earliest = "running", counted, False, None

    def check_needs(self, event: RunEvent, stand: _Stand) -> None:
        key = str(event.step_key)
        if key in self.late:
            self.demand(self.failing, event, "the run has not failed")
        needs = self.needs(key)
        for need in needs:
            before = self.stand((need, -1))
            tolerated = before.status == "failed" and self.spec(need).go_on
            fine = before.status in ("succeeded", "skipped") and not before.by_failure
            self.demand(fine or tolerated, event, f"{need}, which it needs, is {before.status}")
        skipped = needs and all(self.stand((need, -1)).status == "skipped" for need in needs)
        self.demand(not skipped or stand.reopened, event, "all that it needs were skipped")

    def end(self, event: RunEvent, place: Place, stand: _Stand) -> None:
        how = ENDS[event.type]
        if how in ("succeeded", "failed"):
            self.demand(stand.status == "running", event, f"it does not run, it is {stand.status}")
        if stand.status == "running":
            self.demand(event.data.get("attempt") == stand.attempt, event, f"attempt {stand.attempt} runs")
        elif how == "skipped":
            self.skip(event, place, stand)
        elif place[1] >= 0:
            failed = any(key == place[0] and index >= 0 and of.status == "failed" for (key, index), of in self.of_all())
            self.demand(failed and not self.spec(place[0]).go_on, event, "no item has failed")
        else:
            self.demand(self.cancelling, event, "nobody wanted it to stop")
        stand.status = how

    def skip(self, event: RunEvent, place: Place, stand: _Stand) -> None:
        before = [(need, self.stand((need, -1))) for need in self.needs(place[0])]
        stand.by_failure = any(
            of.by_failure or of.status == "cancelled" or (of.status == "failed" and not self.spec(need).go_on)
            for need, of in before
        )
        all_skipped = before and all(of.status == "skipped" for _, of in before)
        self.demand(stand.by_failure or all_skipped, event, "what it needs has not failed, nor been skipped")

    def spread(self, event: RunEvent, key: str, stand: _Stand) -> None:
        for (name, index), item in self.of_all():
            self.demand(name != key or index < 0 or item.status != "running", event, f"item {index} still runs")
        self.stands = {place: of for place, of in self.stands.items() if place[0] != key or place[1] < 0}
        self.stands |= {(key, index): _Stand() for index in range(event.data["items"])}
        stand.status = "spread"

    def pause(self, event: RunEvent, place: Place, stand: _Stand) -> None:
        self.demand(stand.status == "running", event, f"it does not run, it is {stand.status}")
        stand.status = PAUSES[event.type]
        seconds = event.data.get("delay", event.data.get("seconds"))
        stand.earliest = None if seconds is None else event.at + timedelta(seconds=seconds) - EARLY
        stand.free = event.type == "step.waiting" and event.data.get("reason") is not None
        if event.type == "step.retrying":
            stand.retries += 1
            self.demand(stand.retries <= self.spec(place[0]).retries.max, event, "it may not be tried again")

    # the run

    def run(self, event: RunEvent) -> None:
        what = event.type.removeprefix("run.")
        self.demand((what == "created") == (self.status == "queued" and not self.stands), event, "born twice")
        if what == "created":
            self.stands = {(key, -1): _Stand() for key in self.steps}
        elif what == "started":
            self.demand(not self.begun, event, "it has started before")
            self.begun, self.status = True, "going"
        elif what == "cancelling":
            self.cancelling, self.paused = True, False
        elif what in ("paused", "resumed"):
            self.demand(self.paused == (what == "resumed") and not self.cancelling, event, "there is nothing of that")
            self.paused = what == "paused"
        elif what == "failing":
            self.check_all_ended(event)
            self.demand(not self.failing and self.late and "failed" in self.verdicts(), event, "it has not failed")
            self.failing, self.cancelling = True, False
            self.stands |= {(key, -1): _Stand() for key in self.late}
        elif what == "finished":
            self.finish(event)
        elif what == "retried":
            self.retry(event)

    def finish(self, event: RunEvent) -> None:
        self.check_all_ended(event)
        said = event.data["status"]
        self.demand(said in self.verdicts(), event, f"the run should have {self.verdicts()}, and has {said}")
        self.demand(said != "failed" or not self.late or self.failing, event, "the steps for a failure were forgotten")
        self.status, self.paused = said, False

    def verdicts(self) -> set[str]:
        """Return how the run may end now that all steps have."""
        ends = {
            of.status
            for (key, index), of in self.of_all()
            if index < 0 and not (of.status == "failed" and self.spec(key).go_on)
        }
        if self.failing:
            return {"failed"}
        if self.cancelling and "cancelled" in ends:
            return {"cancelled", "failed"}  # failed: it was its deadline that cancelled it
        if not ends.isdisjoint({"failed", "cancelled"}):
            return {"failed"}
        return {"succeeded", "failed"} if self.rendered else {"succeeded"}

    def retry(self, event: RunEvent) -> None:
        self.demand(self.ended, event, "it has not ended")
        self.stands = {place: of for place, of in self.of_all() if place[0] not in self.late}
        opened, begin = set(event.data["steps"]), event.data.get("from")
        for key in opened:
            fresh = self.open((key, -1))
            fresh.reopened = opened.isdisjoint(self.needs(key))
            items = [place for place in self.stands if place[0] == key and place[1] >= 0]
            if key == begin or not fresh.reopened:
                for place in items:
                    del self.stands[place]
            elif broken := [place for place in items if self.stands[place].status in ("failed", "cancelled")]:
                fresh.status = "spread"
                for place in broken:
                    self.open(place)
        self.status, self.failing, self.cancelling, self.paused = "going", False, False, False

    def open(self, place: Place) -> _Stand:
        before = self.stands[place]
        self.stands[place] = _Stand(attempt=before.attempt, free=before.free)
        return self.stands[place]

    def cancel_items(self, event: RunEvent) -> None:
        idle = [of for (_, index), of in self.of_all() if index >= 0 and not of.ended and of.status != "running"]
        self.demand(len(idle) == event.data["count"], event, f"{len(idle)} items were idle, not {event.data['count']}")
        for of in idle:
            of.status = "cancelled"

    def check_all_ended(self, event: RunEvent) -> None:
        left = [place for place, of in self.of_all() if not of.ended]
        self.demand(not left, event, f"{left} have not ended")
        self.demand(not self.ended, event, "it has ended before")

    @property
    def ended(self) -> bool:
        return self.status in ("succeeded", "failed", "cancelled")

    def of_all(self) -> list[tuple[Place, _Stand]]:
        return list(self.stands.items())

    def spec(self, key: str) -> StepSpec:
        return self.steps[key] if key in self.steps else self.late[key]

    def needs(self, key: str) -> list[str]:
        return self.spec(key).needs

    def take(self, event: RunEvent) -> None:
        known = event.type in ENDS or event.type in GOING_ON
        if not known and not event.type.startswith(("run.", "items.")):
            return  # words of the step itself
        self.demand(not self.ended or event.type == "run.retried", event, f"the run has {self.status} already")
        if known:
            self.step(event)
        elif event.type == "items.cancelled":
            self.cancel_items(event)
        else:
            self.run(event)

    def allows(self, what: str) -> bool | None:
        """Tell whether what somebody asks for can be done as the run stands; None: either may be."""
        if what == "cancel":
            return self.status in ("queued", "going", "cancelled")
        if what == "pause":
            return not self.ended and not self.cancelling
        if what == "resume":
            return self.paused
        if what == "wake":
            waiting = [of for of in self.stands.values() if of.status == "waiting"]
            # One whose time has come may be ready already, though it could not begin yet.
            return None if waiting and all(of.earliest is not None for of in waiting) else bool(waiting)
        return self.status in ("failed", "cancelled", *(("succeeded",) if what == "from" else ()))


def check_history(
    spec: RunSpec, events: Sequence[RunEvent], asked: Iterable[Asked] = (), *, ended: bool = True
) -> dict[Place, str]:
    """Walk over the events of a run of this description; return how each step, and each item (by index), stands.

    `asked` is all that people asked for, in order. With `ended` the run must have come to an end. Raises
    `WrongHistory`, which names the event.
    """
    steps, late = ({step.key: step for step in of} for of in (spec.steps, spec.on_failure))
    walk = _Walk(steps, late, rendered=spec.outputs is not None)
    waiting = list(asked)
    last: int | None = None
    for event in events:
        while waiting and waiting[0].after < event.id:
            _check_asked(walk, waiting.pop(0), events[0].run_id)
        if last is not None and event.id <= last:
            raise WrongHistory(f"{event.run_id}: event {event.id} after {last}")
        last = event.id
        walk.take(event)
    for left in waiting:
        _check_asked(walk, left, events[0].run_id)
    if ended and not walk.ended:
        raise WrongHistory(f"{events[0].run_id} has not ended: it is {walk.status}, {walk.stands}")
    return {place: stand.status for place, stand in walk.stands.items()}


def _check_asked(walk: _Walk, asked: Asked, run_id: str) -> None:
    allowed = walk.allows(asked.what)
    if allowed is not None and asked.done != allowed:
        raise WrongHistory(f"{run_id}: {asked} after event {asked.after}, though the run is {walk.status}")
    if not asked.done and asked.until != asked.after:
        raise WrongHistory(f"{run_id}: {asked} was refused, and yet something happened")
