"""Executes one step after the other in a worker's thread: claim, render, call, end.

The handler itself runs on the engine's event loop; the database is spoken to from the thread. When
the end of a step makes another one of the same run ready, this thread takes it in the same
transaction, so a chain of n steps costs n + 1 transactions and one message.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from sqlalchemy.exc import StatementError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.orm import Session

from nexus.compute.errors import ComputeCrashed
from nexus.core.cause import behind
from nexus.core.clock import Clock
from nexus.core.errors import NexusError
from nexus.core.services import Services
from nexus.runs import engine_storage as queries
from nexus.runs.aiming import Aim
from nexus.runs.attempt import Attempt, Stop
from nexus.runs.completion import finish
from nexus.runs.engine_storage import Claimed, Ended, Terms
from nexus.runs.errors import InvalidRunSpec, StepTimeout
from nexus.runs.failpoints import Failpoints
from nexus.runs.graph import encoded
from nexus.runs.preparation import Preparation
from nexus.runs.settings import RunsSettings
from nexus.runs.transitions import (
    Cancelled,
    Failed,
    Outcome,
    Released,
    Succeeded,
    Waits,
    error_class,
)
from nexus.runs.types import Failure, Handler, Handlers, Parked, Renderer, StepContext
from nexus.storage.db import Database, DatabaseUnavailable

log = logging.getLogger(__name__)
_AWAY: Final = (DatabaseUnavailable, NoConnection)
_BUG: Final = Failed(Failure("internal_error", "The step failed unexpectedly; the server's log says why."))

_NO_OBJECT: Final = Failed(Failure("step_output_invalid", "The step returned something that is not a JSON object."))
_CHAIN: Final = 0.5
_STOPPED: Final[dict[Stop, Outcome | None]] = {"cancelled": Cancelled(), "released": Released(), "lost": None}


def terms_of(settings: RunsSettings, renderer: Renderer | None = None) -> Terms:
    """Return the numbers of `settings` that the queries need, and how `renderer` fills in a run's result."""
    return Terms(
        lease=settings.lease,
        republish=settings.republish,
        crash_limit=settings.crash_limit,
        child_crash_limit=settings.child_crash_limit,
        # Jitter only has to spread retries in time.
        random=random.random,
        render=None if renderer is None else renderer.render,
    )


class Executor:
    """The hands of one engine process. `execute` is called from many threads at once."""

    def __init__(
        self,
        *,
        owner: str,
        database: Database,
        handlers: Handlers,
        services: Services,
        renderer: Renderer,
        loop: asyncio.AbstractEventLoop,
        settings: RunsSettings,
        clock: Clock,
        failpoints: Failpoints,
        wake: Callable[[], None],
    ) -> None:
        """Execute on `loop` what `handlers` holds; call `wake` after writing messages."""
        self.owner = owner
        self.running: dict[str, Attempt] = {}
        self.tally: Counter[str] = Counter()
        self.last_claim = time.monotonic()
        self._database = database
        self._handlers = handlers
        self._services = services
        self._loop = loop
        self._settings = settings
        self._terms = terms_of(settings, renderer)
        self._preparation = Preparation(database, renderer)
        self._aim = Aim(clock)
        self._clock = clock
        self._failpoints = failpoints
        self._wake = wake
        self._draining = threading.Event()

    def drain(self) -> None:
        """Claim nothing more."""
        self._draining.set()

    def execute(self, step_id: str, epoch: int) -> None:
        """Execute a step, unless it is not to be had any more, and what follows from it."""
        claimed = self._claim(step_id, epoch)
        began = time.monotonic()
        while claimed is not None:
            # A run of slow steps makes room for others after each; only quick ones are worth the short cut.
            claimed = self._execute(claimed, began + _CHAIN)

    def _claim(self, step_id: str, epoch: int) -> Claimed | None:
        self._failpoints.reach("before_claim")
        for pause in (0.5, 1, 2, 4, 8, 0):
            if self._draining.is_set():
                return None
            try:
                claimed = self._database.write_now(
                    queries.claim, step_id, epoch, self.owner, self._clock.now(), self._terms
                )
            except _AWAY:
                # A message given up here is sent again by the reaper.
                self._draining.wait(pause)
                continue
            self.last_claim = time.monotonic()
            self.tally["claimed" if claimed else "dropped"] += 1
            self._failpoints.reach("after_claim")
            return claimed
        return None

    def _execute(self, claimed: Claimed, until: float) -> Claimed | None:
        attempt = Attempt(claimed, database=self._database, clock=self._clock)
        self.running[claimed.step_id] = attempt
        try:
            outcome = self._attempt(attempt)
            if outcome is None:
                self.tally["fenced"] += 1
                return None
            ended = self._end(attempt, outcome, until)
        finally:
            del self.running[claimed.step_id]
        self.tally[type(outcome).__name__.lower()] += 1
        self.tally["fenced"] += ended.fenced
        self.tally["retried"] += ended.retried
        self.tally["dead_lettered"] += ended.dead
        if ended.published:
            self._wake()
        return ended.next

    def _attempt(self, attempt: Attempt) -> Outcome | None:
        """Return how the attempt went, or None when it no longer counts."""
        claimed = attempt.claimed
        handler = self._handlers.get(claimed.uses)
        if handler is None:
            return Failed(Failure("handler_unknown", "This engine has no step of this kind.", field="uses"))
        try:
            if claimed.is_map and (claimed.state or {}).get("items"):
                return self._fitting(self._preparation.joined(claimed))
            inputs = self._preparation.inputs(attempt)
        except _AWAY:
            # Not the step's fault, and nothing has been done yet.
            return Released()
        except NexusError as error:
            return _failed(error)
        except Exception:
            # The renderer evaluates what users wrote; a bug in it must fail the step, not the worker.
            log.exception("rendering of step %s failed", claimed.step_id)
            return _BUG
        if not isinstance(inputs, dict):
            return inputs
        return self._called(attempt, handler, inputs)

    def _called(self, attempt: Attempt, handler: Handler, inputs: dict[str, Any]) -> Outcome | None:
        """Call the handler, unless the one it would call is known to be away."""
        inputs, target, pause = self._aim.take(attempt, handler, inputs)
        if target is not None and pause > 0:
            self.tally["breaker_parked"] += 1
            return Waits(pause * (1 + 0.2 * self._terms.random()), None, reason=f"{target[1]} does not answer")
        self._failpoints.reach("before_effect")
        outcome = asyncio.run_coroutine_threadsafe(self._call(attempt, handler, inputs), self._loop).result()
        self._failpoints.reach("after_effect")
        if target is not None:
            self.tally["breaker_opened"] += self._aim.learn(target, outcome)
        return self._checked(attempt, outcome) if outcome is not None else None

    async def _call(self, attempt: Attempt, handler: Handler, inputs: dict[str, Any]) -> Outcome | None:
        """Execute the handler on the loop and turn whatever happens into an outcome."""
        attempt.enter()
        limit = asyncio.timeout(attempt.claimed.timeout)
        try:
            async with limit:
                with behind(attempt.claimed.run.id):
                    return Succeeded(await handler(self._context(attempt), inputs))
        except asyncio.CancelledError:
            return _STOPPED[attempt.stop or "released"]
        except Parked as parked:
            left = None if parked.until is None else (parked.until - self._clock.now()).total_seconds()
            return Waits(None if left is None else max(0.0, left), parked.state)
        except NexusError as error:
            return _failed(error)
        except TimeoutError:
            if limit.expired():
                return _failed(StepTimeout(f"The step took longer than {attempt.claimed.timeout:g} s."))
            log.exception("step %s (%s) failed", attempt.claimed.step_id, attempt.claimed.uses)
            return _BUG
        except Exception:
            # The border of foreign code: its bug fails this step and nothing else.
            log.exception("step %s (%s) failed", attempt.claimed.step_id, attempt.claimed.uses)
            return _BUG

    def _context(self, attempt: Attempt) -> StepContext:
        claimed = attempt.claimed
        return StepContext(
            run_id=claimed.run_id,
            step_key=claimed.key,
            attempt=claimed.attempt,
            principal=claimed.run.principal,
            step_id=claimed.step_id,
            map_index=claimed.map_index if claimed.is_item else None,
            round=claimed.run.round,
            depth=claimed.run.depth,
            services=self._services,
            inputs_of_run=claimed.run.inputs,
            state=claimed.state,
            signal=claimed.signal,
            sink=attempt,
        )

    def _checked(self, attempt: Attempt, outcome: Outcome) -> Outcome:
        """Return the outcome without secrets, or a failure when its output cannot be stored."""
        match outcome:
            case Succeeded(output):
                if not isinstance(output, dict):
                    return _NO_OBJECT
                return self._fitting(Succeeded(attempt.hide(output)))
            case Failed(failure):
                return replace(outcome, failure=replace(failure, message=attempt.hide(failure.message)))
            case Waits():
                return replace(outcome, state=attempt.hide(outcome.state))
        return outcome

    def _fitting(self, succeeded: Outcome) -> Outcome:
        if not isinstance(succeeded, Succeeded):
            return succeeded
        try:
            size = len(encoded(succeeded.output, "output"))
        except InvalidRunSpec:
            return _NO_OBJECT
        if size > self._settings.output_limit:
            return Failed(Failure("step_output_invalid", "The step returned more than may be stored; use a file."))
        return succeeded

    def _end(self, attempt: Attempt, outcome: Outcome, until: float) -> Ended:
        """Store the outcome; wait for a database that is away, as long as it takes.

        A successor is taken along before the moment `until`.
        """
        pause = 0.1
        with attempt.writing:
            lines, progress = attempt.take()
            while True:
                try:
                    ended = self._database.write_now(self._finish, attempt.claimed, outcome, lines, progress, until)
                except _AWAY:
                    time.sleep(pause)
                    pause = min(5.0, 2 * pause)
                except StatementError:
                    # The database refuses these very values: the step fails with words it can store.
                    if outcome is _BUG:
                        raise
                    log.exception("the outcome of step %s cannot be stored", attempt.claimed.step_id)
                    outcome, lines, progress = _BUG, [], None
                else:
                    self._failpoints.reach("after_commit")
                    return ended

    def _finish(
        self,
        session: Session,
        claimed: Claimed,
        outcome: Outcome,
        lines: list[dict[str, Any]],
        progress: dict[str, Any] | None,
        until: float,
    ) -> Ended:
        ended = finish(
            session,
            claimed,
            outcome,
            self._clock.now(),
            self._terms,
            owner=self.owner,
            go_on=not self._draining.is_set() and time.monotonic() < until,
            lines=lines,
            progress=progress,
        )
        self._failpoints.reach("before_commit")
        return ended


def _failed(error: NexusError) -> Failed:
    return Failed(
        Failure(error.code, error.message, error.field),
        retryable=error.retryable or error.retry_after is not None,
        retry_after=error.retry_after,
        crashed=isinstance(error, ComputeCrashed),
        kind=error_class(error.status),
    )
