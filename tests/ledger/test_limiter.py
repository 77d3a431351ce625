"""Reserve, then settle: limits of keys and projects in one process, with the clock held still."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from nexus.access.types import KeyLimits, Principal
from nexus.ledger.budget_book import BudgetBook
from nexus.ledger.budgets import BudgetReached
from nexus.ledger.errors import BudgetExceeded, RateLimitExceeded
from nexus.ledger.limiter import Hold, Limiter
from nexus.ledger.service import Ledger
from nexus.ledger.tables import BudgetRow
from nexus.ledger.types import Invocation
from nexus.ledger.windows import Standing
from nexus.storage.db import Database
from nexus.storage.events import Events

WHO = Principal("key", "key_1", "prj_1", key_id="key_1")
NOBODY = Principal("session", "usr_1", "prj_9")


class Limits:
    """Limits by owner; setting some makes a new generation."""

    def __init__(self, **limits: KeyLimits) -> None:
        self.limits = limits
        self.generation: object = object()

    def limits_of(self, owner: str) -> KeyLimits | None:
        return self.limits.get(owner)

    def set(self, **limits: KeyLimits) -> None:
        self.limits, self.generation = limits, object()


class Moment:
    """Seconds since 1970, moved by hand."""

    def __init__(self) -> None:
        self.seconds = 1_000_000.0

    def __call__(self) -> float:
        return self.seconds


class WallClock:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.at = datetime.now(UTC)

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()


def opened(limiter: Limiter, who: Principal = WHO) -> Hold:
    hold = limiter.open(who)
    assert hold is not None
    return hold


async def admitted(limiter: Limiter, tokens: int = 0, dollars: float = 0.0, who: Principal = WHO) -> Hold:
    hold = opened(limiter, who)
    await hold.admit(tokens, dollars)
    return hold


async def test_requests_in_a_minute() -> None:
    now = Moment()
    limiter = Limiter(Limits(key_1=KeyLimits(rpm=3)), now=now)
    for _ in range(3):
        (await admitted(limiter)).settle(tokens=5)
    with pytest.raises(RateLimitExceeded) as refused:
        await admitted(limiter)
    assert refused.value.retry_after == 60
    assert "3 requests per minute" in refused.value.message
    requests, tokens = limiter.standing(WHO)
    assert requests == Standing(3, 0, 60.0)
    assert tokens is None
    now.seconds += 59.9
    with pytest.raises(RateLimitExceeded):
        await admitted(limiter)
    now.seconds += 0.1
    await admitted(limiter)


async def test_tokens_are_reserved_and_settled() -> None:
    limiter = Limiter(Limits(key_1=KeyLimits(tpm=1000)), now=Moment())
    first = await admitted(limiter, tokens=800)
    with pytest.raises(RateLimitExceeded, match="1000 tokens per minute"):
        await admitted(limiter, tokens=300)
    first.settle(tokens=100)
    second = await admitted(limiter, tokens=900)
    second.settle()
    standing = limiter.standing(WHO)[1]
    assert standing is not None
    assert standing.left == 900, "a call that failed gives all of it back"
    with pytest.raises(RateLimitExceeded):
        await admitted(limiter, tokens=5000)


async def test_a_call_larger_than_the_limit_runs_alone() -> None:
    now = Moment()
    limiter = Limiter(Limits(key_1=KeyLimits(tpm=1000)), now=now)
    hold = await admitted(limiter, tokens=5000)
    hold.settle(tokens=3000)
    with pytest.raises(RateLimitExceeded) as refused:
        await admitted(limiter, tokens=1)
    assert refused.value.retry_after == 60
    now.seconds += 60
    await admitted(limiter, tokens=1)


async def test_calls_in_parallel() -> None:
    limiter = Limiter(Limits(key_1=KeyLimits(parallel=2)), now=Moment())
    first, second = await admitted(limiter), await admitted(limiter)
    with pytest.raises(RateLimitExceeded, match="2 parallel calls"):
        await admitted(limiter)
    first.settle()
    first.settle()
    third = await admitted(limiter)
    with pytest.raises(RateLimitExceeded):
        await admitted(limiter)
    second.settle()
    third.settle()
    assert [meter.in_flight for meter in limiter.meters()] == [0]


async def test_a_refusal_by_one_limit_uses_none_of_the_others() -> None:
    limits = Limits(key_1=KeyLimits(rpm=10, tpm=10_000), prj_1=KeyLimits(tpm=100, parallel=5))
    limiter = Limiter(limits, now=Moment())
    (await admitted(limiter, tokens=100)).settle(tokens=100)
    for _ in range(20):
        with pytest.raises(RateLimitExceeded, match="this project"):
            await admitted(limiter, tokens=50)
    requests, tokens = limiter.standing(WHO)
    assert requests is not None
    assert requests.left == 9
    assert tokens is not None
    assert tokens.limit == 100, "the tighter of two limits is told"
    other = Principal("key", "key_2", "prj_1", key_id="key_2")
    with pytest.raises(RateLimitExceeded):
        await admitted(limiter, tokens=50, who=other)
    assert limiter.open(NOBODY) is None
    assert limiter.standing(NOBODY) == (None, None)


async def test_a_changed_limit_holds_at_once_and_forgets_nothing() -> None:
    limits = Limits(key_1=KeyLimits(rpm=2))
    limiter = Limiter(limits, now=Moment())
    for _ in range(2):
        await admitted(limiter)
    limits.set(key_1=KeyLimits(rpm=3))
    await admitted(limiter)
    with pytest.raises(RateLimitExceeded):
        await admitted(limiter)
    limits.set()
    assert limiter.open(WHO) is None


@pytest.fixture
async def ledger(database: Database, tmp_path: Path) -> AsyncIterator[Ledger]:
    ledger = Ledger(database=database, folder=tmp_path / "ledger")
    yield ledger
    await ledger.stop()


def spend(ledger: Ledger, dollars: float, *, key: str = "key_1", at: datetime | None = None) -> None:
    call = Invocation(project_id="prj_1", principal_id=key, key_id=key, kind="chat", model="m", cost_usd=dollars)
    if at is not None:
        call.created_at = at
    ledger.record(call)


def add_budget(database: Database, **fields: object) -> None:
    now = datetime.now(UTC)
    row = {"id": "bud_1", "project_id": "prj_1", "key_id": None, "name": "", "amount_usd": 20.0, "period": "month",
           "hard": True, "alerts": [80, 100], "created_at": now, "updated_at": now} | fields  # fmt: skip
    database.write_now(lambda session: session.add(BudgetRow(**row)))


async def book_of(database: Database, ledger: Ledger, clock: WallClock | None = None) -> BudgetBook:
    book = BudgetBook(database=database, ledger=ledger, clock=clock or WallClock())
    await book.reread()
    return book


async def test_200_at_once_with_a_budget_for_20(database: Database, ledger: Ledger) -> None:
    limiter = Limiter(Limits(key_1=KeyLimits(budget_usd=20.0, budget_period="total")), await book_of(database, ledger))
    done, refused = 0, 0

    async def call() -> None:
        nonlocal done, refused
        hold = opened(limiter)
        try:
            await hold.admit(dollars=1.0)
        except BudgetExceeded:
            refused += 1
            return
        await asyncio.sleep(0.001)
        spend(ledger, 1.0)
        hold.settle(dollars=1.0)
        done += 1

    await asyncio.gather(*(call() for _ in range(200)))
    assert (done, refused) == (20, 180)
    assert await ledger.spend("prj_1") == 20.0
    with pytest.raises(BudgetExceeded) as error:
        await admitted(limiter)
    assert (error.value.retry_after, error.value.retryable) == (None, False)


async def test_calls_dearer_than_their_reserve_overspend_by_no_more_than_what_is_under_way(
    database: Database, ledger: Ledger
) -> None:
    limiter = Limiter(Limits(key_1=KeyLimits(budget_usd=20.0, budget_period="day")), await book_of(database, ledger))
    holds = []
    for _ in range(200):
        hold = opened(limiter)
        try:
            await hold.admit(dollars=2.0)
        except BudgetExceeded:
            continue
        holds.append(hold)
    assert len(holds) == 10
    for hold in holds:
        spend(ledger, 3.0)
        hold.settle(dollars=3.0)
    assert await ledger.spend("prj_1") == 30.0
    budget = holds[0].account.budgets[0]
    assert budget.reserved == 0
    with pytest.raises(BudgetExceeded):
        await admitted(limiter)


async def test_budgets_begin_with_what_the_ledger_holds(database: Database, ledger: Ledger) -> None:
    clock = WallClock()
    clock.at = datetime(2026, 11, 15, 12, tzinfo=UTC)
    spend(ledger, 5.0, at=datetime(2026, 10, 31, 23, 59, tzinfo=UTC))
    spend(ledger, 7.0, at=datetime(2026, 11, 1, tzinfo=UTC))
    spend(ledger, 8.0, at=clock.at, key="key_2")
    add_budget(database)
    book = await book_of(database, ledger, clock)
    limiter = Limiter(Limits(), book)
    hold = await admitted(limiter, dollars=4.0)
    assert hold.account.budgets[0].total == 15.0
    with pytest.raises(BudgetExceeded, match="this project for this month"):
        await admitted(limiter, dollars=2.0)
    spend(ledger, 4.0, at=clock.at)
    hold.settle(dollars=4.0)
    assert hold.account.budgets[0].total == 19.0

    spend(ledger, 3.0, at=clock.at, key="key_2")  # by another process
    await book.refresh()
    with pytest.raises(BudgetExceeded):
        await admitted(limiter)
    clock.at = datetime(2026, 12, 1, tzinfo=UTC)
    await admitted(limiter)


async def test_a_budget_of_a_key_is_no_concern_of_others(database: Database, ledger: Ledger) -> None:
    add_budget(database, key_id="key_1", amount_usd=1.0, period="total")
    spend(ledger, 1.0)
    limiter = Limiter(Limits(), await book_of(database, ledger))
    with pytest.raises(BudgetExceeded, match="this API key is used up"):
        await admitted(limiter)
    assert limiter.open(Principal("key", "key_2", "prj_1", key_id="key_2")) is None


async def test_a_soft_budget_tells_and_refuses_nothing(database: Database, ledger: Ledger) -> None:
    add_budget(database, amount_usd=10.0, hard=False, alerts=[50, 100])
    book = await book_of(database, ledger)
    told: list[BudgetReached] = []
    book.on_reached(told.append)
    limiter = Limiter(Limits(), book)
    for _ in range(12):
        (await admitted(limiter, dollars=1.0)).settle(dollars=1.0)
    await asyncio.sleep(0)
    assert [event.percent for event in told] == [50, 100]
    assert told[0].budget_id == "bud_1"


async def test_one_of_several_processes_tells(database: Database, ledger: Ledger) -> None:
    claimed: set[str] = set()

    async def claim(name: str, _seconds: float) -> bool:
        first = name not in claimed
        claimed.add(name)
        return first

    told: list[BudgetReached] = []
    add_budget(database, amount_usd=1.0)
    spend(ledger, 0.9)
    for _ in range(3):
        book = BudgetBook(database=database, ledger=ledger, claim=claim)
        await book.reread()
        book.on_reached(told.append)
        await admitted(Limiter(Limits(), book))
        await asyncio.sleep(0.05)
    assert [event.percent for event in told] == [80]
    (event,) = await Events(database).newest("prj_1")
    assert (event.type, event.subject, event.data["percent"]) == ("budget.reached", "bud_1", 80)


async def test_a_database_that_is_away_keeps_what_is_known(database: Database, ledger: Ledger) -> None:
    clock = WallClock()
    add_budget(database, amount_usd=1.0, period="total")
    book = await book_of(database, ledger, clock)
    limiter = Limiter(Limits(), book)
    (await admitted(limiter, dollars=0.5)).settle(dollars=0.9)
    clock.at += timedelta(days=400)
    hold = await admitted(limiter, dollars=0.1)
    with pytest.raises(BudgetExceeded):
        await admitted(limiter, dollars=0.1)
    hold.settle()


def test_asking_costs_microseconds() -> None:
    """0.3 and 9 us where this was written; the bounds leave room for any machine, and none for a query."""
    free = Limiter(Limits())
    bound = Limiter(Limits(key_1=KeyLimits(rpm=10**9, tpm=10**9, parallel=1000)))

    async def cycle() -> None:
        for _ in range(2000):
            hold = bound.open(WHO)
            assert hold is not None
            await hold.admit(100, 0.0)
            hold.settle(tokens=90, dollars=0.001)

    def best(work: object, rounds: int = 7) -> float:
        times = []
        for _ in range(rounds):
            began = time.thread_time()
            work() if callable(work) else None
            times.append(time.thread_time() - began)
        return min(times) / 2000 * 1e6

    without = best(lambda: [free.open(NOBODY) for _ in range(2000)])
    bounded = best(lambda: asyncio.run(cycle()))
    print(f"without limits {without:.2f} us, with limits {bounded:.2f} us")
    assert without < 10
    assert bounded < 100
