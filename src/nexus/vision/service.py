"""One call of vision, from bytes to result: the model, the cache, the picture, the network, the record.

What works on pixels is imported by the first call: a process that is never shown a picture needs none of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any, Protocol, TypeVar

from nexus.access.types import Principal
from nexus.catalog.errors import ModelNotFound
from nexus.catalog.pool import ModelPool
from nexus.catalog.types import ModelInfo, ModelVersion
from nexus.core.errors import DeadlineExceeded, NexusError
from nexus.ledger.service import Ledger
from nexus.ledger.types import Invocation
from nexus.storage.cache import Cache
from nexus.vision.backend import Runtime
from nexus.vision.cache import ResultCache
from nexus.vision.errors import ImageTooLarge, WrongTask
from nexus.vision.question import Question, ask, task_of
from nexus.vision.settings import VisionSettings
from nexus.vision.sources import Files
from nexus.vision.stopwatch import Stopwatch
from nexus.vision.task import TASKS, Loaded, VisionTask
from nexus.vision.types import Image, Pixels, Result, Size, Timing
from nexus.vision.workers import Seat, Workers

T = TypeVar("T")

Observe = Callable[[str, str, Timing], None]
"""Takes task, model and the milliseconds of each stage of a call that was not answered from the cache."""


class Models(Protocol):
    """What is needed of `nexus.catalog.service.CatalogService`."""

    async def find(
        self, name: str, *, version: int | None = None, alias: str | None = None, principal: Principal | None = None
    ) -> ModelVersion:
        """Return a version whose files are here."""
        ...

    async def default_for(self, task: str) -> ModelVersion:
        """Return the best ready model of a task."""
        ...

    async def list(
        self, principal: Principal, *, kind: str | None = None, task: str | None = None
    ) -> Sequence[ModelInfo]:
        """Return every model that the principal may use."""
        ...


@dataclass(frozen=True, slots=True)
class Trace:
    """What a call belongs to: a request, or a step of a run."""

    request_id: str | None = None
    run_id: str | None = None
    step_key: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A result, and the picture that tasks which make one have made."""

    result: Result
    picture: Pixels | None = field(default=None, repr=False)


class VisionService:
    """Answers questions about pictures. One for each process."""

    def __init__(
        self,
        *,
        settings: VisionSettings,
        catalog: Models,
        pool: ModelPool,
        ledger: Ledger,
        cache: Cache | None = None,
        files: Files | None = None,
        device: str = "auto",
        observe: Observe | None = None,
    ) -> None:
        """Start no thread and load nothing yet. `device` is auto, cpu, cuda or cuda:N."""
        self.settings = settings
        self.files = files
        self._catalog = catalog
        self._pool = pool
        self._ledger = ledger
        self._cache = ResultCache(cache, ttl=settings.cache_ttl)
        self._device = device
        self._observe = observe
        self.workers = Workers(workers=settings.workers, queue=settings.queue)

    async def stop(self) -> None:
        """Let running calls end, and start no others."""
        await asyncio.to_thread(self.workers.close)

    async def run(
        self,
        principal: Principal,
        task: str,
        image: bytes,
        params: Mapping[str, Any] | None = None,
        trace: Trace = Trace(),
    ) -> Result:
        """Return what `task` finds in the image file.

        `params` may name the `model` (with `version` or `alias`) and sets the task's own parameters;
        numbers must be numbers. Coordinates are pixels of the upright picture. Raises
        `VisionTaskNotFound`, `ValidationFailed`, `ModelNotFound`, `ModelNotPulled`, `WrongTask`,
        `ImageTooLarge`, `ImageUnreadable`, `VisionBusy`, `DeadlineExceeded`.
        """
        return (await self.answer(principal, ask(task, params or {}), image, trace)).result

    async def answer(self, principal: Principal, question: Question, image: bytes, trace: Trace = Trace()) -> Answer:
        """Do as `run` does with a checked question, and keep the picture that some tasks make."""
        invocation = Invocation(
            project_id=principal.project_id,
            principal_id=principal.id,
            key_id=principal.key_id,
            kind=f"vision.{question.task.name}",
            model=question.choice.model or "",
            items=1,
            request_id=trace.request_id,
            run_id=trace.run_id,
            step_key=trace.step_key,
        )
        start = perf_counter()
        try:
            return await self._within_time(self._answer(principal, question, image, invocation))
        except NexusError as error:
            invocation.status, invocation.error_code = "error", error.code
            raise
        except BaseException as error:
            given_up = isinstance(error, asyncio.CancelledError)
            if not given_up:
                invocation.status = "error"
            else:
                invocation.status = "client_disconnect" if trace.run_id is None else "cancelled"
            invocation.error_code = None if given_up else NexusError.code
            raise
        finally:
            invocation.latency_ms = (perf_counter() - start) * 1000
            self._ledger.record(invocation)

    async def draw(self, image: bytes, result: Result) -> bytes:
        """Return the upright picture with the result drawn on it, as PNG."""
        with self.workers.seat() as seat:
            return await self._within_time(seat.run(self._drawn, image, result))

    async def tasks(self, principal: Principal) -> list[dict[str, Any]]:
        """Return every task with its parameters (JSON schema) and the models that can do it."""
        return [await self._described(principal, plug) for plug in TASKS.all().values()]

    async def load(self, version: ModelVersion) -> None:
        """Bring a model into memory for every task that it serves (`nexus.catalog.runner.Runner`)."""
        for plug in TASKS.all().values():
            if plug.accepts(version):
                async with self._loaded(plug, version):
                    pass

    async def unload(self, version: ModelVersion) -> None:
        """Do nothing: all that vision loads lies in the `ModelPool`."""

    async def _described(self, principal: Principal, plug: VisionTask[Any, Any]) -> dict[str, Any]:
        models = await self._catalog.list(principal, task=plug.model_task)
        shown = [{"name": m.model, "version": m.version, "state": m.state, "licence": m.licence} for m in models]
        schema = plug.parameters.model_json_schema()
        return {"name": plug.name, "title": plug.title, "parameters": schema.get("properties", {}), "models": shown}

    async def _within_time(self, work: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self.settings.timeout):
                return await work
        except TimeoutError:
            raise DeadlineExceeded("Looking at the image took longer than allowed.") from None

    async def _answer(self, principal: Principal, question: Question, image: bytes, invocation: Invocation) -> Answer:
        if len(image) > self.settings.max_bytes:
            raise ImageTooLarge(f"The image is larger than {self.settings.max_bytes} bytes.", field="image")
        version = await self._model(principal, question)
        invocation.model, invocation.version = version.model, version.version
        runtime = question.task.runtime(self.settings, self._device)
        key = self._cache.key(principal.project_id, question, image, version, runtime)
        if known := await self._cache.get(key):
            known.id, invocation.cached = invocation.id, True
            return Answer(known)
        with self.workers.seat() as seat:
            answer = await self._look(principal, question, image, version, runtime, invocation.id, seat)
        if answer.picture is None:
            await self._cache.put(key, answer.result)
        if self._observe:
            self._observe(question.task.name, version.model, answer.result.timing_ms)
        return answer

    async def _model(self, principal: Principal, question: Question) -> ModelVersion:
        choice = question.choice
        if choice.model is None:
            default = await self._catalog.default_for(question.task.model_task)
            if not principal.may_use_model(default.model):
                raise ModelNotFound(field="model")
            return default
        if not principal.may_use_model(choice.model):
            raise ModelNotFound(field="model")
        version = await self._catalog.find(
            choice.model, version=choice.version, alias=choice.alias, principal=principal
        )
        if not question.task.accepts(version):
            raise WrongTask(f"This model does not do {question.task.name}.", field="model")
        return version

    async def _look(
        self,
        principal: Principal,
        question: Question,
        image: bytes,
        version: ModelVersion,
        runtime: Runtime,
        invocation_id: str,
        seat: Seat,
    ) -> Answer:
        """Decode, load, run, render. The picture is judged before a model is loaded for it."""
        from nexus.vision.rendering import records

        plug, watch = question.task, Stopwatch()
        seen = await seat.run(_decode, image, self.settings, plug.enough(version), watch)
        async with AsyncExitStack() as stack:
            companions = {}
            for name in plug.companions:
                other = await self._catalog.default_for(task_of(name).model_task)
                companions[name] = await stack.enter_async_context(self._loaded(task_of(name), other))
            loaded = await stack.enter_async_context(self._loaded(plug, version))
            ready = Loaded(loaded, version, companions)
            found = await seat.run(plug.run, ready, seen, question.parameters, watch)
        device = getattr(getattr(loaded, "session", loaded), "device", "cpu")
        result = Result(
            id=invocation_id,
            task=plug.name,
            model=version.model,
            version=version.version,
            image=Size(seen.width, seen.height),
            results=await seat.run(records, found, seen),
            text=found.text,
            timing_ms=watch.rounded(),
            precision=runtime.precision,
            device=device,
        )
        return Answer(result, found.picture)

    def _loaded(self, plug: VisionTask[Any, Any], version: ModelVersion) -> Any:
        runtime = plug.runtime(self.settings, self._device)
        size = version.memory or version.size
        return self._pool.use(f"{version.key}/{plug.name}", partial(plug.load, version, runtime), size=size)

    def _drawn(self, image: bytes, result: Result) -> bytes:
        from nexus.vision.annotate import annotate
        from nexus.vision.images import decode, encode_png

        return encode_png(annotate(decode(image, self.settings).pixels, result))


def _decode(image: bytes, settings: VisionSettings, enough: int | None, watch: Stopwatch) -> Image:
    from nexus.vision.images import decode

    with watch.stage("decode"):
        return decode(image, settings, enough=enough)
