"""Limits of keys and projects: reserved before a call, settled after it.

    hold = limiter.open(principal)                  # None without any limit: a look into a dictionary
    if hold is not None and not hold.reserve(tokens=1200, dollars=0.01):  # estimates
        await hold.admit(tokens=1200, dollars=0.01)  # raises RateLimitExceeded or BudgetExceeded
    ...
    if hold is not None:
        hold.settle(tokens=950, dollars=0.008)       # what it really was; None gives everything back

Everything is counted in this process, in microseconds. Where several processes share limits, `nexus.ledger.sharing`
provides windows that draw on a common count, and tells what is under way elsewhere.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from nexus.access.types import KeyLimits, Principal
from nexus.ledger.budget_book import BudgetBook
from nexus.ledger.budgets import Budget, BudgetReached
from nexus.ledger.errors import BudgetExceeded, RateLimitExceeded
from nexus.ledger.windows import Standing, Window

_MOST_ACCOUNTS = 20_000
_TRIES = 4
_NOUNS = {"key": "this API key", "project": "this project"}


class LimitSource(Protocol):
    """Who has limits. `generation` is another object whenever any of them may have changed."""

    @property
    def generation(self) -> object:
        """Return what stands for the present state of all limits."""
        ...

    def limits_of(self, owner: str) -> KeyLimits | None:
        """Return the limits of a key or project by its id, None where it has none."""
        ...


class Meter:
    """What one key or project uses. `elsewhere` are its calls under way in other processes."""

    __slots__ = ("elsewhere", "id", "in_flight", "parallel", "requests", "scope", "tokens", "used_at")

    def __init__(self, owner: str, scope: str) -> None:
        """Count for nobody yet."""
        self.id = owner
        self.scope = scope
        self.parallel: int | None = None
        self.in_flight = 0
        self.elsewhere = 0
        self.requests: Window | None = None
        self.tokens: Window | None = None
        self.used_at = 0.0

    @property
    def key(self) -> str:
        """Return the name of this meter among processes."""
        return f"{self.scope}:{self.id}"

    def here(self) -> int:
        """Return the calls under way in this process."""
        return self.in_flight

    def learn(self, elsewhere: int) -> None:
        """Hear of calls under way in other processes."""
        self.elsewhere = elsewhere


class Account(NamedTuple):
    """All that limits one caller."""

    meters: tuple[Meter, ...]
    budgets: tuple[Budget, ...]


class Refill(Protocol):
    """What gets room for a call from a count that several processes share."""

    def window(self, meter: str, metric: str, limit: int) -> Window:
        """Return a window that draws on the common count."""
        ...

    async def fill(self, window: Window, amount: int) -> bool:
        """Get room for `amount` into the window; tell whether there was any."""
        ...


class Limiter:
    """Knows what limits whom; `Hold` decides whether a call may begin."""

    def __init__(
        self,
        limits: LimitSource,
        book: BudgetBook | None = None,
        *,
        sharing: Refill | None = None,
        now: Callable[[], float] | None = None,
    ) -> None:
        """Take limits from `limits` and budgets from `book`; `now` returns seconds since 1970, as the book does."""
        self.book = book
        self.sharing = sharing
        self.now = now or (book.seconds if book is not None else time.time)
        self.mutex = threading.Lock()
        self._limits = limits
        self._limits_known: object = None
        self._budgets_known: object = None
        self._accounts: dict[tuple[str | None, str], Account | None] = {}
        self._meters: dict[str, Meter] = {}

    def open(self, principal: Principal) -> Hold | None:
        """Return what is to be asked before the caller's next call, or None where nothing limits them."""
        book = self.book
        if self._limits.generation is not self._limits_known or (
            book is not None and book.generation is not self._budgets_known
        ):
            self._accounts.clear()
            self._limits_known = self._limits.generation
            self._budgets_known = None if book is None else book.generation
        key = (principal.key_id, principal.project_id)
        try:
            account = self._accounts[key]
        except KeyError:
            if len(self._accounts) > _MOST_ACCOUNTS:
                self._accounts.clear()
            account = self._accounts[key] = self._learn(principal)
        return None if account is None else Hold(self, account)

    def standing(self, principal: Principal) -> tuple[Standing | None, Standing | None]:
        """Return how the tightest limits of requests and tokens stand."""
        hold = self.open(principal)
        return (None, None) if hold is None else hold.standing()

    def meters(self) -> list[Meter]:
        """Return every meter that counts."""
        return list(self._meters.values())

    def counted(self) -> list[Meter | Budget]:
        """Return what other processes must know of: calls under way, and reservations of budgets."""
        return [*(meter for meter in self._meters.values() if meter.parallel is not None), *self.budgets()]

    def budgets(self) -> list[Budget]:
        """Return every budget that binds somebody who has called."""
        bound = [account.budgets for account in list(self._accounts.values()) if account is not None]
        return list({id(budget): budget for budgets in bound for budget in budgets}.values())

    def _learn(self, principal: Principal) -> Account | None:
        meters = []
        for owner, scope in ((principal.key_id, "key"), (principal.project_id, "project")):
            limits = self._limits.limits_of(owner) if owner else None
            if owner and limits is not None and (limits.rpm or limits.tpm or limits.parallel):
                meters.append(self._meter(owner, scope, limits))
        own = self._limits.limits_of(principal.key_id) if principal.key_id else None
        budgets = self.book.budgets_of(principal, own) if self.book is not None else ()
        return Account(tuple(meters), budgets) if meters or budgets else None

    def _meter(self, owner: str, scope: str, limits: KeyLimits) -> Meter:
        """Return the owner's meter with these limits; what it has counted stays."""
        meter = self._meters.setdefault(owner, Meter(owner, scope))
        meter.parallel = limits.parallel
        meter.requests = self._window(meter, "requests", meter.requests, limits.rpm)
        meter.tokens = self._window(meter, "tokens", meter.tokens, limits.tpm)
        return meter

    def _window(self, meter: Meter, metric: str, present: Window | None, limit: int | None) -> Window | None:
        if limit is None:
            return None
        if present is not None:
            present.limit = limit
            return present
        return Window(limit) if self.sharing is None else self.sharing.window(meter.key, metric, limit)


class Hold:
    """A call's reservation. It must be settled once it was admitted; settling again does nothing."""

    __slots__ = ("_at", "_dollars", "_limiter", "_tokens", "account", "open")
    _tokens: int
    _dollars: float
    _at: float

    def __init__(self, limiter: Limiter, account: Account) -> None:
        """Hold nothing yet."""
        self._limiter = limiter
        self.account = account
        self.open = False

    def reserve(self, tokens: int = 0, dollars: float = 0.0, *, insist: bool = False) -> bool:
        """Reserve at once; where that cannot be, `admit` waits or raises.

        With `insist` a refusal is raised: `RateLimitExceeded` or `BudgetExceeded`. Nothing is reserved then.
        """
        limiter = self._limiter
        now = limiter.now()
        meters, budgets = self.account
        with limiter.mutex:
            for meter in meters:
                requests, window = meter.requests, meter.tokens
                if (
                    (meter.parallel is not None and meter.in_flight + meter.elsewhere >= meter.parallel)
                    or (requests is not None and requests.room(now) < 1)
                    or (window is not None and (room := window.room(now)) < tokens and room < window.limit)
                ):
                    if insist:
                        raise _exceeded(meter, tokens, now)
                    return False
            for budget in budgets:
                if insist and limiter.book is not None:
                    budget.turn(limiter.book.now())
                elif now >= budget.ends_at or not budget.loaded:
                    return False
                if budget.hard and not budget.admits(dollars):
                    if insist:
                        raise _used_up(budget)
                    return False
            for meter in meters:
                meter.in_flight += 1
                meter.used_at = now
                if meter.requests is not None:
                    meter.requests.take(1, now)
                if (window := meter.tokens) is not None:
                    window.take(tokens if tokens < window.limit else window.limit, now)
            for budget in budgets:
                budget.reserve(dollars, now)
            self._tokens, self._dollars, self._at, self.open = tokens, dollars, now, True
        return True

    async def admit(self, tokens: int = 0, dollars: float = 0.0) -> None:
        """Reserve, or raise `RateLimitExceeded` or `BudgetExceeded`; nothing is reserved then."""
        book, sharing, account = self._limiter.book, self._limiter.sharing, self.account
        if book is not None and not all(budget.loaded for budget in account.budgets):
            await book.load(account.budgets)
        for again in range(_TRIES, 0, -1):
            drawn = sharing is None or await _draw(sharing, account, tokens)
            try:
                self.reserve(tokens, dollars, insist=True)
            except RateLimitExceeded:
                # Another call of this process may have been quicker than the one that drew the permits.
                if sharing is None or not drawn or again == 1:
                    raise
            else:
                return

    def standing(self) -> tuple[Standing | None, Standing | None]:
        """Return how the tightest limits of requests and tokens stand."""
        limiter = self._limiter
        now = limiter.now()
        requests: Standing | None = None
        tokens: Standing | None = None
        with limiter.mutex:
            for meter in self.account.meters:
                if meter.requests is not None:
                    standing = meter.requests.standing(now)
                    if requests is None or standing.left * requests.limit < requests.left * standing.limit:
                        requests = standing
                if meter.tokens is not None:
                    standing = meter.tokens.standing(now)
                    if tokens is None or standing.left * tokens.limit < tokens.left * standing.limit:
                        tokens = standing
        return requests, tokens

    def settle(self, tokens: int | None = None, dollars: float | None = None) -> None:
        """Replace the reservation by what was used; never waits, never raises."""
        limiter = self._limiter
        now = limiter.now()
        reached: list[BudgetReached] = []
        with limiter.mutex:
            if not self.open:
                return
            self.open = False
            held = self._tokens
            meters, budgets = self.account
            for meter in meters:
                meter.in_flight -= 1
                if (window := meter.tokens) is not None:
                    window.correct((tokens or 0) - (held if held < window.limit else window.limit), self._at, now)
            for budget in budgets:
                if budget.settle(self._dollars, dollars) and dollars:
                    reached += budget.reached()
        if reached and limiter.book is not None:
            limiter.book.tell(reached)


async def _draw(sharing: Refill, account: Account, tokens: int) -> bool:
    """Get room for a call from the common counts; tell whether there was any."""
    for meter in account.meters:
        if meter.requests is not None and not await sharing.fill(meter.requests, 1):
            return False
        if meter.tokens is not None and not await sharing.fill(meter.tokens, tokens):
            return False
    return True


def _exceeded(meter: Meter, tokens: int, now: float) -> RateLimitExceeded:
    """Return which limit of this meter is reached."""
    noun = _NOUNS[meter.scope]
    if meter.parallel is not None and meter.in_flight + meter.elsewhere >= meter.parallel:
        return RateLimitExceeded(f"The limit of {meter.parallel} parallel calls of {noun} is reached.", retry_after=1)
    if (window := meter.requests) is not None and window.room(now) < 1:
        message = f"The limit of {window.limit} requests per minute of {noun} is reached."
        return RateLimitExceeded(message, retry_after=window.wait(1, now))
    window = meter.tokens
    assert window is not None
    message = f"The limit of {window.limit} tokens per minute of {noun} is reached: this call may take {tokens}."
    return RateLimitExceeded(message, retry_after=window.wait(tokens, now))


def _used_up(budget: Budget) -> BudgetExceeded:
    period = {"day": " for today", "month": " for this month", "total": ""}[budget.period]
    return BudgetExceeded(f"The budget of {_NOUNS[budget.scope]}{period} is used up ({budget.amount:g} US dollars).")
