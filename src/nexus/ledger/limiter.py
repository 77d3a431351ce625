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
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

import msgspec

from nexus.access.types import KeyLimits, Principal
from nexus.ledger.budget_book import BudgetBook
from nexus.ledger.budgets import Budget, BudgetReached
from nexus.ledger.errors import BudgetExceeded, RateLimitExceeded
from nexus.ledger.windows import Window

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


class Standing(msgspec.Struct, frozen=True, gc=False):
    """How a limit stands: the most in a minute, what is left of it, seconds until all of it is there again."""

    limit: int
    left: int
    reset: float


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
    """Decides whether a call may begin."""

    def __init__(
        self,
        limits: LimitSource,
        book: BudgetBook | None = None,
        *,
        sharing: Refill | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Take limits from `limits` and budgets from `book`; `now` returns seconds since 1970."""
        self._limits = limits
        self._book = book
        self._sharing = sharing
        self._now = now
        self._limits_known: object = None
        self._budgets_known: object = None
        self._accounts: dict[tuple[str | None, str], Account | None] = {}
        self._meters: dict[str, Meter] = {}
        self._mutex = threading.Lock()

    def open(self, principal: Principal) -> Hold | None:
        """Return what is to be asked before the caller's next call, or None where nothing limits them."""
        account = self._account(principal)
        return None if account is None else Hold(self, account)

    def binds(self, principal: Principal) -> bool:
        """Tell whether anything limits the caller."""
        return self._account(principal) is not None

    def standing(self, principal: Principal) -> tuple[Standing | None, Standing | None]:
        """Return how the tightest limits of requests and tokens stand."""
        account = self._account(principal)
        return (None, None) if account is None else self.standing_of(account)

    def standing_of(self, account: Account) -> tuple[Standing | None, Standing | None]:
        """Return the same of an account."""
        now = self._now()
        requests: Standing | None = None
        tokens: Standing | None = None
        with self._mutex:
            for meter in account.meters:
                if (window := meter.requests) is not None:
                    left, reset = window.standing(now)
                    if requests is None or left * requests.limit < requests.left * window.limit:
                        requests = Standing(window.limit, left, reset)
                if (window := meter.tokens) is not None:
                    left, reset = window.standing(now)
                    if tokens is None or left * tokens.limit < tokens.left * window.limit:
                        tokens = Standing(window.limit, left, reset)
        return requests, tokens

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

    def reserve(self, hold: Hold, tokens: int, dollars: float) -> bool:
        """Reserve for a call where everything is at hand; else `admit` waits for it, or says why there is nothing."""
        meters, budgets = hold.account
        now = self._now()
        with self._mutex:
            for meter in meters:
                requests, window = meter.requests, meter.tokens
                if (
                    (meter.parallel is not None and meter.in_flight + meter.elsewhere >= meter.parallel)
                    or (requests is not None and requests.room(now) < 1)
                    or (window is not None and window.room(now) < min(tokens, window.limit))
                ):
                    return False
            if budgets and self._book is not None:
                moment = self._book.seconds()
                for budget in budgets:
                    if moment >= budget.ends_at or not budget.loaded or (budget.hard and not budget.admits(dollars)):
                        return False
            self._hold(hold, tokens, dollars, now)
        return True

    async def admit(self, hold: Hold, tokens: int, dollars: float) -> None:
        """Reserve for a call. Raises `RateLimitExceeded` or `BudgetExceeded`; nothing is reserved then."""
        account = hold.account
        if self._book is not None and not all(budget.loaded for budget in account.budgets):
            await self._book.load(account.budgets)
        for again in range(_TRIES, 0, -1):
            drawn = self._sharing is None or await self._draw(self._sharing, account, tokens)
            try:
                self._take(hold, tokens, dollars)
            except RateLimitExceeded:
                # Another call of this process may have been quicker than the one that drew the permits.
                if self._sharing is None or not drawn or again == 1:
                    raise
            else:
                return

    async def _draw(self, sharing: Refill, account: Account, tokens: int) -> bool:
        """Get room for a call from the common counts; tell whether there was any."""
        for meter in account.meters:
            if meter.requests is not None and not await sharing.fill(meter.requests, 1):
                return False
            if meter.tokens is not None and not await sharing.fill(meter.tokens, tokens):
                return False
        return True

    def _take(self, hold: Hold, tokens: int, dollars: float) -> None:
        now = self._now()
        with self._mutex:
            for meter in hold.account.meters:
                _check(meter, tokens, now)
            for budget in hold.account.budgets:
                self._check_budget(budget, dollars)
            self._hold(hold, tokens, dollars, now)

    def _hold(self, hold: Hold, tokens: int, dollars: float, now: float) -> None:
        meters, budgets = hold.account
        for meter in meters:
            meter.in_flight += 1
            meter.used_at = now
            if meter.requests is not None:
                meter.requests.take(1, now)
            if (window := meter.tokens) is not None:
                window.take(min(tokens, window.limit), now)
        for budget in budgets:
            budget.reserve(dollars, now)
        hold.tokens, hold.dollars, hold.at, hold.open = tokens, dollars, now, True

    def settle(self, hold: Hold, tokens: int | None, dollars: float | None) -> None:
        """Replace the reservation by what was used."""
        now = self._now()
        reached: list[BudgetReached] = []
        with self._mutex:
            if not hold.open:
                return
            hold.open = False
            meters, budgets = hold.account
            for meter in meters:
                meter.in_flight -= 1
                if (window := meter.tokens) is not None:
                    window.correct((tokens or 0) - min(hold.tokens, window.limit), hold.at, now)
            for budget in budgets:
                budget.settle(hold.dollars, dollars)
                if dollars and budget.is_telling():
                    reached += budget.reached()
        if reached and self._book is not None:
            self._book.tell(reached)

    def _account(self, principal: Principal) -> Account | None:
        book = self._book
        if (
            self._limits.generation is not self._limits_known
            or (book is not None and book.generation is not self._budgets_known)
            or len(self._accounts) > _MOST_ACCOUNTS
        ):
            self._accounts.clear()
            self._limits_known = self._limits.generation
            self._budgets_known = None if book is None else book.generation
        key = (principal.key_id, principal.project_id)
        try:
            return self._accounts[key]
        except KeyError:
            account = self._accounts[key] = self._learn(principal)
            return account

    def _learn(self, principal: Principal) -> Account | None:
        meters = []
        for owner, scope in ((principal.key_id, "key"), (principal.project_id, "project")):
            limits = self._limits.limits_of(owner) if owner else None
            if owner and limits is not None and (limits.rpm or limits.tpm or limits.parallel):
                meters.append(self._meter(owner, scope, limits))
        own = self._limits.limits_of(principal.key_id) if principal.key_id else None
        budgets = self._book.budgets_of(principal, own) if self._book is not None else ()
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
        return Window(limit) if self._sharing is None else self._sharing.window(meter.key, metric, limit)

    def _check_budget(self, budget: Budget, dollars: float) -> None:
        if self._book is not None:
            budget.turn(self._book.now())
        if budget.hard and not budget.admits(dollars):
            period = {"day": " for today", "month": " for this month", "total": ""}[budget.period]
            noun = _NOUNS[budget.scope]
            raise BudgetExceeded(f"The budget of {noun}{period} is used up ({budget.amount:g} US dollars).")


class Hold:
    """A call's reservation. It must be settled once it was admitted; settling again does nothing."""

    __slots__ = ("_limiter", "account", "at", "dollars", "open", "tokens")

    def __init__(self, limiter: Limiter, account: Account) -> None:
        """Hold nothing yet."""
        self._limiter = limiter
        self.account = account
        self.tokens = 0
        self.dollars = 0.0
        self.at = 0.0
        self.open = False

    def reserve(self, tokens: int = 0, dollars: float = 0.0) -> bool:
        """Reserve at once; where that cannot be, `admit` waits or raises."""
        return self._limiter.reserve(self, tokens, dollars)

    def standing(self) -> tuple[Standing | None, Standing | None]:
        """Return how the tightest limits of requests and tokens stand."""
        return self._limiter.standing_of(self.account)

    def admit(self, tokens: int = 0, dollars: float = 0.0) -> Awaitable[None]:
        """Reserve, or raise `RateLimitExceeded` or `BudgetExceeded`."""
        return self._limiter.admit(self, tokens, dollars)

    def settle(self, tokens: int | None = None, dollars: float | None = None) -> None:
        """Say what was used; never waits, never raises."""
        if self.open:
            self._limiter.settle(self, tokens, dollars)


def _check(meter: Meter, tokens: int, now: float) -> None:
    """Raise `RateLimitExceeded` where a limit of this meter is reached."""
    noun = _NOUNS[meter.scope]
    if meter.parallel is not None and meter.in_flight + meter.elsewhere >= meter.parallel:
        raise RateLimitExceeded(f"The limit of {meter.parallel} parallel calls of {noun} is reached.", retry_after=1)
    if (window := meter.requests) is not None and window.room(now) < 1:
        message = f"The limit of {window.limit} requests per minute of {noun} is reached."
        raise RateLimitExceeded(message, retry_after=window.wait(1, now))
    if (window := meter.tokens) is not None and window.room(now) < min(tokens, window.limit):
        message = f"The limit of {window.limit} tokens per minute of {noun} is reached: this call may take {tokens}."
        raise RateLimitExceeded(message, retry_after=window.wait(tokens, now))
