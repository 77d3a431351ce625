"""The engine process: Celery's worker in a thread pool, the dispatcher, the reaper, the pulse.

worker = EngineWorker(database=.., handlers=.., services=.., settings=..)
await worker.start()          # on the loop that handlers run on
...
await worker.drain()          # SIGTERM
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from collections import Counter
from typing import Any, Final

from celery.app.trace import setup_worker_optimizations
from celery.worker import WorkController
from celery.worker import state as celery_state

from nexus.core.clock import Clock, SystemClock
from nexus.core.ids import new_id
from nexus.core.services import Services
from nexus.runs import engine_storage as queries
from nexus.runs import memory_transport, storage
from nexus.runs.celery_app import Broker, make_app, queue_name
from nexus.runs.completion import give_back
from nexus.runs.dispatcher import Dispatcher
from nexus.runs.errors import EngineNotStarted
from nexus.runs.executor import Executor, terms_of
from nexus.runs.failpoints import Failpoints
from nexus.runs.pulse import Pulse
from nexus.runs.reaper import Reaper
from nexus.runs.settings import RunsSettings
from nexus.runs.signals import Presence, SocketEar
from nexus.runs.types import Handlers, PlainRenderer, Renderer
from nexus.storage.db import Database

log = logging.getLogger(__name__)
_START_LIMIT: Final = 30.0
_STUBBORN: Final = 3.0
_STALE: Final = 60.0


class EngineWorker:
    """Everything that executes steps in this process. One of them at a time in a process."""

    def __init__(
        self,
        *,
        database: Database,
        handlers: Handlers,
        settings: RunsSettings,
        services: Services | None = None,
        renderer: Renderer | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Prepare; nothing runs and nothing is connected before `start`."""
        self.owner = f"{socket.gethostname()[:24]}-{os.getpid()}-{new_id('eng')[-10:]}"
        self._database = database
        self._handlers = handlers
        self._settings = settings
        self._services = services or Services()
        self._renderer = renderer or PlainRenderer()
        self._clock = clock or SystemClock()
        self._ready = threading.Event()

    async def start(self) -> None:
        """Start to work. Handlers run on the loop this is awaited on. Raises `EngineNotStarted`."""
        loop = asyncio.get_running_loop()
        settings, clock, database = self._settings, self._clock, self._database
        failpoints = Failpoints(settings.failpoints)
        self._presence = Presence(settings.data_dir, self.owner)
        ear = self._ear = SocketEar(self._presence.socket_path)
        self.executor = Executor(
            owner=self.owner,
            database=database,
            handlers=self._handlers,
            services=self._services,
            renderer=self._renderer,
            loop=loop,
            settings=settings,
            clock=clock,
            failpoints=failpoints,
            wake=lambda: ear.nudge("outbox"),
        )
        self._pulse = Pulse(executor=self.executor, database=database, settings=settings, clock=clock)
        app = make_app(settings, self.executor.execute)
        self._broker = Broker(app, settings)
        self._dispatcher = Dispatcher(
            database=database,
            outlet=self._broker,
            ear=ear,
            settings=settings,
            clock=clock,
            failpoints=failpoints,
            on_cancel=self._pulse.check_cancels,
        )
        self._reaper = Reaper(
            database=database,
            presence=self._presence,
            settings=settings,
            terms=terms_of(settings, self._renderer),
            clock=clock,
            wake=self._dispatcher.wake,
            on_cancel=self._pulse.check_cancels,
        )
        await loop.run_in_executor(None, self._start, app)

    def _start(self, app: Any) -> None:
        celery_state.should_stop = celery_state.should_terminate = None
        memory_transport.open_again()
        # Pool threads find the task by the default app; this also leaves out what Celery does for canvas.
        setup_worker_optimizations(app, self.owner)
        self._celery = WorkController(
            app=app,
            hostname=f"nexus@{self.owner}",
            pool_cls="threads",
            concurrency=self._settings.concurrency,
            queues=[queue_name(name) for name in self._settings.consume or self._settings.queues],
            loglevel="WARNING",
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            ready_callback=lambda _consumer: self._ready.set(),
        )
        self._celery_thread = threading.Thread(target=self._celery.start, name="runs-celery", daemon=True)
        self._celery_thread.start()
        self._pulse.start()
        self._dispatcher.start()
        # Whatever a predecessor on this machine left is taken up at once.
        self._reaper.sweep()
        if self._settings.broker_url is None:
            self._republish_all()
        self._reaper.start()
        # A broker that is away delays the work, not the start: Celery keeps trying to connect.
        if self._settings.broker_url is None and not self._ready.wait(_START_LIMIT):
            raise EngineNotStarted

    def _republish_all(self) -> None:
        """Write messages for all that is ready and has none: an in-process broker forgets at each restart."""
        while self._database.write_now(
            queries.republish, self._clock.now(), self._settings.republish, 500, all_at_once=True
        ):
            self._dispatcher.wake()

    @property
    def tally(self) -> Counter[str]:
        """Return what this engine has done since its start, for metrics: claimed, succeeded, retried, fenced..."""
        return self.executor.tally

    async def healthy(self) -> bool:
        """Tell whether this engine takes work: not if steps have been ready for a minute and it took none."""
        if time.monotonic() - self.executor.last_claim < _STALE:
            return True
        if len(self.executor.running) >= self._settings.concurrency:
            return True
        counts = await self._database.read(storage.counts, self._clock.now())
        return counts.oldest_ready_age < _STALE

    async def drain(self, seconds: float | None = None) -> None:
        """Claim nothing more, give running steps `seconds` to end, release the rest, and stop.

        Released steps are ready again for the next engine at once, and this counts against none of them.
        """
        allowed = self._settings.drain if seconds is None else seconds
        self.executor.drain()
        celery_state.should_stop = os.EX_OK
        memory_transport.close()
        await self._until_idle(allowed)
        for attempt in list(self.executor.running.values()):
            attempt.halt("released")
        await self._until_idle(_STUBBORN)
        await asyncio.get_running_loop().run_in_executor(None, self._stop)

    async def _until_idle(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        # The threads that end steps have no loop to signal; a look each 20 ms costs nothing here.
        while self.executor.running and time.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    def _stop(self) -> None:
        self._pulse.flush()
        self._pulse.stop()
        self._reaper.stop()
        terms = terms_of(self._settings, self._renderer)
        for run_id, step_id, epoch in self._database.read_now(queries.steps_held_by, self.owner):
            self._database.write_now(give_back, run_id, step_id, epoch, self._clock.now(), terms, crashed=False)
        self._dispatcher.stop()
        self._celery_thread.join(5)
        # Messages that this process still holds are written again for whoever comes next.
        self._database.write_now(queries.republish, self._clock.now(), self._settings.republish, 1000, all_at_once=True)
        self._broker.close()
        self._ear.close()
        self._presence.leave()
