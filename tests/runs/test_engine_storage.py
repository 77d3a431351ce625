"""Claims, fences, leases and messages on both databases, with threads that race for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from nexus.access.types import Principal
from nexus.runs import engine_storage as queries
from nexus.runs import steering, storage
from nexus.runs.completion import finish, give_back
from nexus.runs.engine_storage import Claimed, Ended, Message, Terms
from nexus.runs.reaper import Reaper
from nexus.runs.settings import RunsSettings
from nexus.runs.signals import Presence
from nexus.runs.tables import OutboxRow, StepEventRow, StepRow
from nexus.runs.transitions import Cancelled, Failed, Outcome, Released, Skipped, Succeeded, Waits
from nexus.runs.types import Failure, RetryPolicy, Run, RunSpec, RunStatus, StepSpec, StepStatus
from nexus.storage.db import Database
from nexus.storage.events import newest

TERMS = Terms(lease=30, republish=60, crash_limit=20, child_crash_limit=3, random=lambda: 0.5)
T0 = datetime(2026, 11, 23, 7, tzinfo=UTC)
BUSY = Failed(Failure("busy", "Busy."), retryable=True)


def later(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


class Bench:
    """Short words for what an engine does to a database."""

    def __init__(self, database: Database, who: Principal) -> None:
        self.db = database
        self.who = who

    def start(self, *steps: StepSpec, deadline: float | None = None) -> Run:
        spec = RunSpec("test", "x", list(steps), deadline=deadline)
        return self.db.write_now(storage.add_run, spec, self.who, T0, 60.0)[0]

    def publish(self, at: float = 0, limit: int = 100) -> list[Message]:
        def take(session: Session) -> list[Message]:
            found = queries.due_messages(session, later(at), limit)
            queries.delete_messages(session, [message.outbox_id for message in found])
            return found

        return self.db.write_now(take)

    def claim(self, message: Message, owner: str = "one", at: float = 0) -> Claimed | None:
        return self.db.write_now(queries.claim, message.step_id, message.epoch, owner, later(at), TERMS)

    def take(self, at: float = 0, owner: str = "one") -> Claimed:
        (message,) = self.publish(at)
        claimed = self.claim(message, owner, at)
        assert claimed is not None
        return claimed

    def end(self, claimed: Claimed, outcome: Outcome, at: float = 0, **more: Any) -> Ended:
        return self.db.write_now(finish, claimed, outcome, later(at), TERMS, owner="one", **more)

    def run(self, run: Run) -> Run:
        return self.db.read_now(storage.run_with_steps, run.project_id, run.id)

    def statuses(self, run: Run) -> dict[str, str]:
        return {step.key: step.status.value for step in self.run(run).steps}


@pytest.fixture
def bench(any_database: Database, who: Principal) -> Bench:
    return Bench(any_database, who)


A = StepSpec("a", "noop")
B = StepSpec("b", "noop", needs=["a"])


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    gate = threading.Barrier(len(calls))

    def go(call: Callable[[], Any]) -> Any:
        gate.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(go, calls))


def test_of_many_claims_one_wins(bench: Bench) -> None:
    for _ in range(5):
        run = bench.start(A)
        (message,) = bench.publish()
        claims = at_once([lambda n=n, m=message: bench.claim(m, f"engine {n}") for n in range(8)])
        assert len([claim for claim in claims if claim is not None]) == 1
        assert bench.run(run).steps[0].attempts == 1


def test_of_many_ends_one_counts(bench: Bench) -> None:
    for _ in range(5):
        run = bench.start(A, B)
        claimed = bench.take()
        outcomes: list[Outcome] = [Succeeded({"n": 1}), Succeeded({"n": 2}), BUSY, Skipped(), Cancelled(), Released()]
        ends = at_once([lambda c=claimed, o=outcome: bench.end(c, o) for outcome in outcomes])
        assert len([ended for ended in ends if not ended.fenced]) == 1
        with bench.db.engine.connect() as connection:
            messages = connection.execute(select(func.count()).select_from(OutboxRow)).scalar_one()
        assert messages <= 1
        assert bench.run(run).progress.done in (0, 1, 2)
        bench.publish()


def test_both_sides_of_a_diamond_may_end_at_once(bench: Bench) -> None:
    for _ in range(5):
        join = StepSpec("end", "noop", needs=["b", "c"])
        run = bench.start(A, B, StepSpec("c", "noop", needs=["a"]), join)
        bench.end(bench.take(), Succeeded({}))
        sides = [bench.claim(message) for message in bench.publish()]
        assert len(sides) == 2
        at_once([lambda s=side: bench.end(s, Succeeded({})) for side in sides])
        bench.end(bench.take(), Succeeded({"x": 1}))
        assert bench.run(run).status is RunStatus.SUCCEEDED
        assert bench.run(run).result == {"x": 1}


def test_the_lease_of_a_dead_engine_passes_on_and_fences_the_thawed_one(bench: Bench) -> None:
    run = bench.start(A)
    frozen = bench.take()
    assert bench.db.read_now(queries.lost_steps, later(29), 10) == []
    ((run_id, step_id, epoch),) = bench.db.read_now(queries.lost_steps, later(31), 10)
    assert bench.db.write_now(give_back, run_id, step_id, epoch, later(31), TERMS)
    assert not bench.db.write_now(give_back, run_id, step_id, epoch, later(31), TERMS)
    second = bench.take(at=31, owner="two")
    assert (second.epoch, second.attempt) == (2, 2)
    assert bench.db.write_now(queries.renew, "one", [step_id], later(32), 30.0) == {}
    assert bench.end(frozen, Succeeded({"by": "one"}), at=33).fenced
    assert not bench.db.write_now(queries.save_state, frozen, {"by": "one"})
    bench.end(second, Succeeded({"by": "two"}), at=34)
    assert bench.end(frozen, Succeeded({"by": "one"}), at=35).fenced
    stands = bench.run(run)
    assert (stands.status, stands.result, stands.progress.done) == (RunStatus.SUCCEEDED, {"by": "two"}, 1)


def test_only_steps_that_an_engine_knows_of_are_renewed(bench: Bench) -> None:
    bench.start(A)
    claimed = bench.take()
    assert bench.db.write_now(queries.renew, "one", [], later(20), 30.0) == {}
    assert bench.db.write_now(queries.renew, "one", [claimed.step_id], later(20), 30.0) == {claimed.step_id: 1}
    assert bench.db.read_now(queries.lost_steps, later(49), 10) == []
    assert len(bench.db.read_now(queries.lost_steps, later(51), 10)) == 1


def test_leases_from_the_future_are_shortened(bench: Bench) -> None:
    bench.start(A)
    bench.take(at=3600)
    assert bench.db.write_now(queries.mend_leases, later(0), 30.0) == 1
    assert len(bench.db.read_now(queries.lost_steps, later(31), 10)) == 1


def test_twenty_engine_deaths_are_a_dead_letter(bench: Bench) -> None:
    run = bench.start(A, B)
    now = 0.0
    for _ in range(20):
        now += 100
        claimed = bench.take(at=now)
        assert bench.db.write_now(give_back, run.id, claimed.step_id, claimed.epoch, later(now), TERMS)
    stands = bench.run(run)
    assert stands.status is RunStatus.FAILED
    assert stands.error is not None
    assert (stands.error.code, stands.error.step) == ("step_dead_lettered", "a")
    assert bench.statuses(run) == {"a": "failed", "b": "skipped"}
    (told,) = bench.db.read_now(newest, run.project_id, 10, ["step.dead_lettered"])
    assert (told.data["run_id"], told.data["step"], told.data["error"]["code"]) == (run.id, "a", "step_dead_lettered")


@pytest.mark.parametrize("outcome", [Succeeded({}), Skipped(), BUSY, Released(), Waits(5, None)])
def test_what_ends_after_a_cancel(bench: Bench, outcome: Outcome) -> None:
    run = bench.start(A, B)
    claimed = bench.take()
    bench.db.write_now(steering.request_cancel, run.project_id, run.id, T0, 60.0)
    assert bench.statuses(run) == {"a": "running", "b": "cancelled"}
    assert bench.db.read_now(queries.cancelled_among, [run.id]) == {run.id}
    bench.end(claimed, outcome, go_on=True)
    assert bench.run(run).status is RunStatus.CANCELLED
    assert bench.publish(at=100) == []


def test_a_cancel_and_an_end_may_race(bench: Bench) -> None:
    for _ in range(10):
        run = bench.start(A, B)
        claimed = bench.take()
        cancel = lambda r=run: bench.db.write_now(steering.request_cancel, r.project_id, r.id, T0, 60.0)  # noqa: E731
        at_once([cancel, lambda c=claimed: bench.end(c, Succeeded({}))])
        assert bench.statuses(run) == {"a": "succeeded", "b": "cancelled"}
        assert bench.run(run).status is RunStatus.CANCELLED
        assert all(bench.claim(message, at=100) is None for message in bench.publish(at=100))


def test_a_retry_waits_its_time(bench: Bench) -> None:
    run = bench.start(StepSpec("a", "noop", retries=RetryPolicy(max=5, base=8)))
    assert bench.end(bench.take(), BUSY).retried
    assert bench.publish(at=7) == []
    assert bench.db.read_now(queries.next_due).one().first == later(8)
    (message,) = bench.publish(at=8)
    assert bench.claim(message, at=6) is None
    assert bench.claim(message, at=8) is not None
    assert bench.run(run).steps[0].attempts == 2


def test_parking_gives_the_worker_back_and_a_timer_brings_it_again(bench: Bench) -> None:
    run = bench.start(A)
    bench.end(bench.take(), Waits(10, {"n": 1}))
    assert bench.run(run).status is RunStatus.WAITING
    assert bench.publish(at=9) == []
    claimed = bench.take(at=10)
    assert claimed.state == {"n": 1}
    assert bench.run(run).status is RunStatus.RUNNING
    bench.end(claimed, Waits(None, None), at=10)
    assert bench.publish(at=10**6) == []
    bench.db.write_now(steering.wake_waiting, run.project_id, run.id, later(20), 60.0, key="a", signal={"go": 1})
    claimed = bench.take(at=20)
    assert (claimed.state, claimed.signal) == ({"n": 1}, {"go": 1})


def test_a_stale_timer_does_not_wake_a_step_that_was_signalled(bench: Bench) -> None:
    run = bench.start(A)
    bench.end(bench.take(), Waits(10, None))
    bench.db.write_now(steering.wake_waiting, run.project_id, run.id, later(5), 60.0)
    first, second = bench.publish(at=10)
    claims = [bench.claim(message, at=10) for message in (first, second)]
    assert len([claim for claim in claims if claim]) == 1


def test_a_ready_step_in_the_same_queue_is_taken_without_a_message(bench: Bench) -> None:
    run = bench.start(A, B, StepSpec("c", "noop", needs=["a"], queue="llm"))
    ended = bench.end(bench.take(), Succeeded({}), go_on=True)
    assert ended.next is not None
    assert ended.next.key == "b"
    assert [message.queue for message in bench.publish()] == ["llm"]
    bench.end(ended.next, Succeeded({}))
    assert bench.statuses(run) == {"a": "succeeded", "b": "succeeded", "c": "ready"}


def test_forgotten_messages_are_sent_again_ever_more_rarely(bench: Bench) -> None:
    bench.start(A)
    (lost,) = bench.publish()
    assert bench.db.write_now(queries.republish, later(59), 60.0, 10) == 0
    times = []
    for now in range(60, 3000, 10):
        if bench.db.write_now(queries.republish, later(now), 60.0, 10):
            times.append(now)
            assert bench.db.write_now(queries.republish, later(now), 60.0, 10, all_at_once=True) == 0
            assert [message.epoch for message in bench.publish(at=now)] == [lost.epoch]
    gaps = [b - a for a, b in pairwise(times)]
    assert times[0] <= 70
    assert gaps == sorted(gaps)
    assert len(times) == 5


def test_an_empty_broker_is_refilled_at_once(bench: Bench) -> None:
    bench.start(A)
    bench.start(A)
    bench.publish()
    assert bench.db.write_now(queries.republish, later(1), 60.0, 10, all_at_once=True) == 2
    assert len(bench.publish(at=1)) == 2


def test_projects_take_turns(bench: Bench, who: Principal) -> None:
    for _ in range(50):
        bench.start(A)
    small = Principal("key", "key_s", "prj_small")
    run = bench.db.write_now(storage.add_run, RunSpec("test", "x", [A]), small, T0, 60.0)[0]
    first = bench.publish(limit=4)
    assert run.steps[0].id in [message.step_id for message in first]


def test_dispatchers_do_not_share_messages_on_postgresql(bench: Bench) -> None:
    if bench.db.is_sqlite:
        pytest.skip("SQLite has no row locks; two dispatchers there make duplicates, which claims drop")
    for _ in range(40):
        bench.start(A)
    batches = at_once([lambda: bench.publish(limit=20) for _ in range(2)])
    ids = [message.outbox_id for batch in batches for message in batch]
    assert len(ids) == len(set(ids))


def test_deadlines_are_found(bench: Bench) -> None:
    run = bench.start(A, deadline=10)
    assert bench.db.read_now(queries.overdue_runs, later(9), 10) == []
    assert bench.db.read_now(queries.overdue_runs, later(11), 10) == [(run.project_id, run.id)]


def test_one_owner_at_a_time_has_a_lease(bench: Bench) -> None:
    def take(owner: str, at: float) -> bool:
        return bench.db.write_now(storage.take_lease, "cron", owner, later(at), 15.0)

    assert take("one", 0)
    assert not take("two", 14)
    assert take("one", 14)
    assert not take("two", 28)
    assert take("two", 30)
    assert not take("one", 31)
    assert take("one", -1000), "a clock set back must not keep the lease for ever"


def test_what_is_old_is_forgotten_whole(bench: Bench) -> None:
    old = bench.start(A)
    bench.end(bench.take(), Succeeded({}))
    young = bench.start(A)
    assert bench.db.write_now(storage.forget_runs, later(1), 10) == 1
    assert bench.run(young).id == young.id
    with bench.db.engine.connect() as connection:
        for table in (StepRow, StepEventRow):
            left = connection.execute(select(func.count()).where(table.run_id == old.id)).scalar_one()
            assert left == 0


def test_counts_tell_what_waits_and_how_long(bench: Bench) -> None:
    bench.start(A)
    claimed = bench.take()
    bench.start(A, B)
    counts = bench.db.read_now(storage.counts, later(40))
    assert (counts.ready, counts.running, counts.outbox) == ({"default": 1}, {"default": 1}, 1)
    assert (counts.oldest_ready_age, counts.oldest_outbox_age, counts.expired_leases) == (40, 40, 1)
    bench.end(claimed, Waits(None, None))
    assert bench.db.read_now(storage.counts, later(40)).waiting == 1


def test_events_of_a_run_keep_the_order_of_their_commits(bench: Bench) -> None:
    steps = [StepSpec(f"s{n}", "noop") for n in range(8)]
    run = bench.start(*steps)
    claims = [bench.claim(message) for message in bench.publish()]
    seen: list[int] = []
    stop = threading.Event()

    def follow() -> None:
        while not stop.is_set():
            rows = bench.db.read_now(storage.events_after, run.id, seen[-1] if seen else 0, 100)
            seen.extend(row.id for row in rows)

    reader = threading.Thread(target=follow)
    reader.start()
    at_once([lambda c=claim: bench.end(c, Succeeded({})) for claim in claims])
    stop.set()
    reader.join()
    everything = [row.id for row in bench.db.read_now(storage.events_after, run.id, 0, 1000)]
    rest = [row.id for row in bench.db.read_now(storage.events_after, run.id, seen[-1], 1000)] if seen else everything
    assert seen + rest == everything


def test_a_moment_of_a_step_is_kept_exactly(bench: Bench) -> None:
    run = bench.start(A)
    bench.end(bench.take(at=1.5), Succeeded({}), at=2.25)
    step = bench.run(run).steps[0]
    assert (step.started_at, step.finished_at) == (later(1.5), later(2.25))
    assert (bench.run(run).started_at, bench.run(run).finished_at) == (later(1.5), later(2.25))


def test_a_stored_state_belongs_to_the_running_attempt(bench: Bench) -> None:
    bench.start(A)
    claimed = bench.take()
    assert bench.db.write_now(queries.save_state, claimed, {"chunk": 3})
    bench.end(claimed, Released())
    assert not bench.db.write_now(queries.save_state, claimed, {"chunk": 9})
    assert bench.take().state == {"chunk": 3}


def test_a_broken_status_would_be_seen(bench: Bench) -> None:
    """The fence looks at the status too: a step set aside by hand is not ended by a late worker."""
    run = bench.start(A)
    claimed = bench.take()
    with bench.db.engine.begin() as connection:
        connection.execute(update(StepRow).where(StepRow.run_id == run.id).values(status=StepStatus.CANCELLED))
    assert bench.end(claimed, Succeeded({})).fenced


def test_one_idempotency_key_makes_one_run_however_many_ask(bench: Bench) -> None:
    spec = RunSpec("test", "x", [A, B], idempotency_key="k")

    def start(_: int) -> tuple[str, bool]:
        run, _digest, created = bench.db.write_now(storage.add_run, spec, bench.who, T0, 60.0)
        return run.id, created

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(start, range(24)))
    assert len({run_id for run_id, _ in made}) == 1
    assert sum(created for _, created in made) == 1
    assert len(bench.publish()) == 1


class HeldClock:
    def now(self) -> datetime:
        return T0

    def monotonic(self) -> float:
        return 0.0


class OneDeadPeer(Presence):
    def __init__(self) -> None:
        super().__init__(None, "one")
        self.buried: list[str] = []

    def dead_peers(self) -> list[str]:
        return ["two"]

    def bury(self, owner: str) -> None:
        self.buried.append(owner)


@pytest.mark.parametrize(("broker", "sent"), [(None, 1), ("redis://127.0.0.1:1", 0)])
def test_what_a_dead_peer_held_in_its_memory_is_sent_again_at_once(bench: Bench, broker: str | None, sent: int) -> None:
    bench.start(A)
    assert len(bench.publish()) == 1  # into the peer's broker, where nobody takes it
    peers = OneDeadPeer()
    woken: list[None] = []
    reaper = Reaper(
        database=bench.db,
        presence=peers,
        settings=RunsSettings(broker_url=broker),
        terms=TERMS,
        clock=HeldClock(),
        wake=lambda: woken.append(None),
        on_cancel=lambda: None,
    )
    assert reaper.sweep() == sent
    assert (len(woken), peers.buried) == (sent, ["two"])
    assert len(bench.publish()) == sent
