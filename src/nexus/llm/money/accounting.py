"""The account of one call: opened before anything can fail, recorded exactly once however it ends.

    with Entry(ledger.record, principal, kind="chat", model="gpt-4o") as entry:
        ...

Leaving the block records, without awaiting anything, so that neither a disconnect nor a cancellation can
skip it (research: security_api F1).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal

import msgspec

from nexus.access.types import Principal
from nexus.core.errors import NexusError
from nexus.core.ids import new_id
from nexus.ledger.limiter import Hold
from nexus.ledger.types import Invocation
from nexus.llm.errors import AnswerFailed, UpstreamStalled
from nexus.llm.money.advice import Advised, PriceOf, advised, with_advice
from nexus.llm.money.failed_attempts import FailedAttempt, cost_with, tokens_of
from nexus.llm.money.pricing import cost
from nexus.llm.money.quotas import Quotas, Reserved
from nexus.llm.types import Completion, Deployment, Route, Tally, Usage

Record = Callable[[Invocation], None]
Status = Literal["ok", "error", "cancelled", "client_disconnect"]
_CHARACTERS_PER_TOKEN = 4


class Entry:
    """One call's account. `sent` says whether an upstream had got the request when it ended, `route` by which way.

    `headers` are lines that the answer carries to the caller besides its own. `hold` is what was reserved for the
    call of the caller's limits; closing settles it. An attempt that failed after its provider had begun to bill
    is kept beside the one that answered, and its cost counts; where it was `carried` on by another, its tokens too.
    `cache` tells how a cache took part, None where there was none to ask.
    """

    __slots__ = (
        *("_begun", "_deployment", "_failed", "_first", "_price_of", "_quotas"),
        *("_record", "_recorded", "_reserved"),
        *("answer_tokens", "attempts", "cache", "carried", "characters", "gone"),
        *("headers", "hold", "invocation", "items", "route", "sent", "tally"),
    )

    def __init__(
        self,
        record: Record,
        principal: Principal,
        *,
        kind: str,
        model: str,
        stream: bool = False,
        characters: int = 0,
        request_id: str | None = None,
        run_id: str | None = None,
        step_key: str | None = None,
        answer_tokens: int = 0,
        hold: Hold | None = None,
        quotas: Quotas | None = None,
        price_of: PriceOf | None = None,
    ) -> None:
        """Open the account; `characters` is the length of the input, `answer_tokens` the most that may come of it.

        `quotas` counts what goes to deployments that have limits of their own; `price_of` knows what models cost
        that take part unasked.
        """
        self._record = record
        self._begun = time.perf_counter()
        self._first: float | None = None
        self._recorded = False
        self._deployment: Deployment | None = None
        self._failed: Sequence[FailedAttempt] = ()
        self._quotas = quotas
        self._price_of = price_of
        self._reserved: Reserved | None = None
        self.answer_tokens = answer_tokens
        self.attempts = 0
        self.cache: dict[str, Any] | None = None
        self.carried = False
        self.characters = characters
        self.gone = False
        self.headers: tuple[tuple[bytes, bytes], ...] = ()
        self.hold = hold
        self.sent = False
        self.items: int | None = None
        self.route: Route | None = None
        self.tally = Tally()
        self.invocation = Invocation(
            id=new_id("inv"),
            created_at=datetime.now(UTC),
            project_id=principal.project_id,
            principal_id=principal.id,
            key_id=principal.key_id,
            kind=kind,
            model=model,
            stream=stream,
            request_id=request_id,
            run_id=run_id,
            step_key=step_key,
        )

    @property
    def id(self) -> str:
        """Return the id of the ledger row that this will be."""
        return self.invocation.id

    @property
    def closed(self) -> bool:
        """Tell whether the call is on record."""
        return self._recorded

    @property
    def project(self) -> str:
        """Return the project that asks."""
        return self.invocation.project_id

    @property
    def deployment(self) -> Deployment | None:
        """Return where the last attempt went."""
        return self._deployment

    def goes_to(self, route: Route, deployment: Deployment) -> None:
        """Note where the next attempt goes; what an earlier one had said no longer counts."""
        if self._deployment is not None:
            self.failed()
        self.route, self._deployment = route, deployment
        if self._quotas is not None and (deployment.rpm is not None or deployment.tpm is not None):
            expected = -(-self.characters // _CHARACTERS_PER_TOKEN) + self.answer_tokens
            self._reserved = self._quotas.take(deployment, expected)
        self.attempts += 1

    def failed(self, error: NexusError | None = None) -> None:
        """Note that this attempt is over without an answer, and what its provider will bill for it all the same."""
        deployment, usage = self._deployment, self.tally.usage
        if usage is None and (self.tally.characters or (self.sent and isinstance(error, UpstreamStalled))):
            usage = self._estimate()
        if deployment is not None and usage is not None:
            code, others = error.code if error is not None else None, tuple(self._others(usage))
            self._failed = (*self._failed, FailedAttempt(deployment, usage, code, self.tally.failed, others))
        self._settle_quota(usage)
        self.tally = Tally()
        self.sent = False

    def served_from_cache(self, route: Route, tally: Tally) -> None:
        """Note that a kept answer of `route` serves this call: its tokens are told, and it costs nothing."""
        self.route, self._deployment = route, None
        self.tally = tally
        self.invocation.cached = True

    def hands_over(self) -> None:
        """Note that somebody else, who waits for the same answer, pays for it from here on."""
        self.invocation.cached = True
        self.tally = msgspec.structs.replace(self.tally)
        self._failed = ()

    def takes_over(self, other: Entry, tally: Tally) -> None:
        """Account for the call that `other` began and has handed over; `tally` is what is seen of it."""
        self.route, self._deployment = other.route, other._deployment
        self.attempts, self.sent, self.tally = other.attempts, other.sent, tally
        self._failed = self._failed or other._failed
        self._reserved, other._reserved = other._reserved, None
        self.invocation.cached = False

    def takes(self, completion: Completion) -> Completion:
        """Account for a whole answer that is told in other words. Raises `AnswerFailed` for one that failed."""
        self.tally = Tally.of(completion)
        AnswerFailed.check(self.tally.failed)
        return completion

    def first_token(self) -> None:
        """Note that the first piece of the answer is on its way to the caller."""
        if self._first is None:
            self._first = time.perf_counter()

    def __enter__(self) -> Entry:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Record how it ended."""
        self.close(error)

    def close(self, error: BaseException | None = None) -> None:
        """Record now, unless that has been done."""
        if self._recorded:
            return
        self._recorded = True
        ended = time.perf_counter()
        row, deployment, failed, hold = self.invocation, self._deployment, self._failed, self.hold
        if error is not None or self.gone:
            row.status, row.error_code = _verdict(error, gone=self.gone)
        row.latency_ms = (ended - self._begun) * 1000
        if self._first is not None:
            row.first_token_ms = (self._first - self._begun) * 1000
        if deployment is not None:
            row.provider = deployment.provider
        if self.route is not None:
            row.route = self.route.name
        if self.items is not None:
            row.items = self.items
        usage = self.tally.usage or self.usage(row.status)
        others = self._others(usage) if usage is not None and usage.advice else ()
        told = tokens_of(failed, usage) if self.carried or usage is None else usage
        if told is not None:
            row.input_tokens, row.output_tokens = told.input_tokens, told.output_tokens
            row.cache_read_tokens, row.cache_write_tokens = told.cache_read_tokens, told.cache_write_tokens
            row.cache_write_1h_tokens = told.cache_write_1h_tokens
            row.reasoning_tokens = told.reasoning_tokens
            row.estimated = told.estimated
        if usage is not None:
            row.cost_usd = self._cost(usage, others)
        if others:
            row.estimated |= any(other.guessed for other in others)
        if failed:
            row.cost_usd = cost_with(failed, *([row.cost_usd] if usage is not None else []))
        row.details = self._details(row.status, others)
        if self._reserved is not None:
            self._settle_quota(usage)
        if hold is not None:
            worked = None if row.cached else usage
            if failed:
                worked = tokens_of(failed, worked)
            hold.settle(worked.input_tokens + worked.output_tokens if worked is not None else None, row.cost_usd)
        self._record(row)

    def _settle_quota(self, usage: Usage | None) -> None:
        reserved, self._reserved = self._reserved, None
        if reserved is not None and self._quotas is not None:
            self._quotas.settle(reserved, usage.input_tokens + usage.output_tokens if usage is not None else 0)

    def usage(self, status: Status = "ok") -> Usage | None:
        """Return the tokens used: the upstream's figures, else an estimate, else None when it did no work."""
        if self.tally.usage is not None:
            return self.tally.usage
        worked = self.tally.characters > 0 or (self.sent and status in ("ok", "cancelled", "client_disconnect"))
        if not worked:
            return None
        return self._estimate()

    def cost(self) -> float | None:
        """Return the dollars that this comes to so far; None without a price or without tokens."""
        usage = self.usage()
        return 0.0 if self.invocation.cached else None if usage is None else self._cost(usage, self._others(usage))

    def _cost(self, usage: Usage, others: Sequence[Advised]) -> float | None:
        if self.invocation.cached:
            return 0.0
        if self._deployment is None:
            return None
        dollars = cost(usage, self._deployment.price)
        return with_advice(dollars, others) if others else dollars

    def _others(self, usage: Usage) -> Sequence[Advised]:
        return advised(usage, self._deployment, self._price_of) if self._deployment is not None else ()

    def _estimate(self) -> Usage:
        return Usage(
            input_tokens=-(-self.characters // _CHARACTERS_PER_TOKEN),
            output_tokens=-(-self.tally.characters // _CHARACTERS_PER_TOKEN),
            estimated=True,
        )

    def _details(self, status: Status, others: Sequence[Advised]) -> dict[str, Any]:
        details = {**self.cache} if self.cache is not None else {}
        if self._deployment is not None and self._deployment.model != self.invocation.model:
            details["deployment"] = self._deployment.key
        if self.attempts > 1:
            details["attempts"] = self.attempts
        if self._failed:
            details["failed_attempts"] = [attempt.told() for attempt in self._failed]
        if others:
            details["advice"] = [other.told() for other in others]
        finish = "client_disconnect" if status == "client_disconnect" else self.tally.finish_reason
        if finish is not None:
            details["finish_reason"] = finish
        return details


def _verdict(error: BaseException | None, *, gone: bool) -> tuple[Status, str | None]:
    """Return how a call ended, and the code of its error."""
    if gone:
        return "client_disconnect", None
    if error is None:
        return "ok", None
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return "cancelled", None
    return "error", error.code if isinstance(error, NexusError) else "internal_error"
