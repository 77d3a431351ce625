"""Language models, told from top to bottom: find the route, ask the provider, price the answer, record it.

    completion = await llm.chat(who, ChatRequest(model="nexus-local", messages=(...)))
    async with llm.stream(who, request) as stream:
        async for chunk in stream: ...
    embedding = await llm.embed(who, EmbeddingRequest(model="minilm-l6-v2", input=("text",)))

Every call leaves exactly one row in the ledger, whatever happens to it.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any

import msgspec

from nexus.access.types import Principal, Scope
from nexus.core.services import Services
from nexus.files.service import FileService
from nexus.ledger.limiter import Limiter
from nexus.llm.account import Endpoint
from nexus.llm.cache.answers import AnswerCache
from nexus.llm.cache.embeddings import EmbeddingCache
from nexus.llm.cache.flight import listen_alone
from nexus.llm.cache.overhearing import ask, overhear
from nexus.llm.cache.semantic import SemanticIndex
from nexus.llm.dialect import Dialect
from nexus.llm.embeddings import Embeddings
from nexus.llm.errors import UnknownModel
from nexus.llm.flow import Flow, Reading, Stream, Translation
from nexus.llm.forms.named_files import refuse_ours_in
from nexus.llm.local.children import LocalChildren
from nexus.llm.local.embedder import Embedder
from nexus.llm.local.runtime import LocalRuntime
from nexus.llm.money.accounting import Entry, Record
from nexus.llm.money.admission import Admission
from nexus.llm.money.pricing import Published
from nexus.llm.money.quotas import Quotas
from nexus.llm.named_files import NamedFiles
from nexus.llm.provider import Provider
from nexus.llm.registry import PricesBeside, Registry
from nexus.llm.routing.delivery import Delivery, Target, request_for, written
from nexus.llm.routing.health import Health
from nexus.llm.routing.router import Router
from nexus.llm.session import Session, Sessions
from nexus.llm.settings import LLMSettings
from nexus.llm.types import (
    Call,
    ChatRequest,
    Chunk,
    Completion,
    Embedding,
    EmbeddingRequest,
    ModelCard,
    TokenCount,
)
from nexus.llm.wire.client import HttpClient
from nexus.storage.cache import Cache
from nexus.storage.caches.memory import MemoryCache


class LLMService:
    """Chat, streams, embeddings and the list of models. One for each process."""

    def __init__(
        self,
        *,
        settings: LLMSettings,
        record: Record,
        local: LocalRuntime | None = None,
        children: LocalChildren | None = None,
        embedder: Embedder | None = None,
        client: HttpClient | None = None,
        registry: Registry | None = None,
        published: Published | None = None,
        cache: Cache | None = None,
        limiter: Limiter | None = None,
        files: FileService | None = None,
    ) -> None:
        """Take `record` and `limiter` from the ledger; `local` and `embedder` serve the built-in models.

        `children` serve others of this machine, `cache` keeps answers, `published` has prices, `files` uploads.
        """
        self.settings = settings
        self.registry = registry or Registry(settings, published)
        self.client = client or HttpClient(
            connections=settings.connections,
            keepalive=settings.keepalive,
            answer_limit=settings.max_answer,
            ca_file=settings.ca_file,
        )
        shelf = Services()
        shelf.put(self.client)
        for one in filter(None, (local, children)):
            shelf.put(one)
        self.router = Router(
            self.registry.routes,
            retries=settings.retries,
            budget=(settings.retry_budget, settings.retry_floor),
            longest_wait=settings.retry_wait,
        )
        store = cache or MemoryCache()
        self.cache = AnswerCache(store, SemanticIndex(embedder.vector) if embedder else None)
        self.limiter = limiter
        self.named_files = NamedFiles(files, limit=settings.max_files)
        self._beside = PricesBeside(self.registry)
        self._quotas = Quotas()
        self.router.allows = self._quotas.allows
        self._admission = Admission(limiter, self.registry, answer_tokens=settings.reserve_tokens)
        self._record, self._local = record, local
        self._sessions: dict[str, Sessions] = {}
        self._delivery = Delivery(registry=self.registry, router=self.router, client=self.client, shelf=shelf)
        self._embeddings = Embeddings(
            record=record,
            admission=self._admission,
            quotas=self._quotas,
            registry=self.registry,
            delivery=self._delivery,
            embedder=embedder,
            cache=EmbeddingCache(store),
        )
        self.health = Health(
            registry=self.registry, router=self.router, client=self.client, delivery=self._delivery, record=record
        )

    def reconfigured(self) -> None:
        """Go by what the registry knows now."""
        self.router.routes = self.registry.routes
        self._delivery.forget()

    async def start(self) -> None:
        """Look prices up, in a thread of its own: whoever calls a model before they are there waits for them."""
        self.health.start()
        if self.registry.accounts():
            threading.Thread(target=self.registry.price, name="prices", daemon=True).start()

    async def stop(self) -> None:
        """Close unused upstream connections, and the local model if this process started it."""
        await self.health.stop()
        await self.client.close()
        if self._local is not None:
            await self._local.stop()

    async def chat(
        self, principal: Principal, request: ChatRequest, *, kind: str = "chat", **origin: Any
    ) -> Completion:
        """Ask for a whole answer; `origin` is request_id, run_id or step_key.

        Raises `UnknownModel`, `Unsupported`, `ContextTooLong` or an upstream's error.
        """
        call = Call.of(refuse_ours_in(request))
        with self.entry(principal, call, kind=kind, **origin) as entry:
            await self._admission.chat(call, entry, self.registry.at_hand(call.model))

            async def attempt(target: Target) -> Completion:
                asked = request_for(target, call, entry)
                return entry.takes(target.provider.completion(await self._delivery.fetch(target, asked, "", entry)))

            route = await self.registry.priced(call.model, project=entry.project)
            if route.cache is not None and (question := self.cache.question(route, call, None, entry)) is not None:
                completion = await self.cache.completion(
                    question, lambda: ask(self._delivery, route, call, None, entry)
                )
            else:
                completion = await self._delivery.along(route, entry, attempt, call)
            return msgspec.structs.replace(
                completion, usage=entry.usage(), invocation_id=entry.id, cost_usd=entry.cost()
            )

    def stream(self, principal: Principal, request: ChatRequest, *, kind: str = "chat", **origin: Any) -> ChatStream:
        """Ask for a streamed answer: enter what this returns, then iterate over its chunks. Raises `Unsupported`."""
        call = Call.of(refuse_ours_in(request), stream=True)
        return ChatStream(self, call, self.entry(principal, call, kind=kind, **origin))

    async def embed(
        self,
        principal: Principal,
        request: EmbeddingRequest,
        received: Iterable[tuple[bytes, bytes]] = (),
        **origin: Any,
    ) -> Embedding:
        """Turn texts into vectors. Raises `UnknownModel`, `InvalidRequest` or an upstream's error."""
        return await self._embeddings.embed(principal, request, received, **origin)

    def models(self, project: str = "") -> list[ModelCard]:
        """Return every model that a project can ask for by a name of ours."""
        return self.registry.cards(project)

    # What the doors of `/v1` ask, in the client's own dialect.

    def entry(self, principal: Principal, call: Call, *, kind: str = "chat", **origin: Any) -> Entry:
        """Open the account of a call. Raises `Forbidden` without the scope, `UnknownModel` beyond the key's list."""
        principal.require(Scope.LLM_INVOKE)
        if not principal.may_use_model(call.model):
            raise UnknownModel(field="model")
        return Entry(
            self._record,
            principal,
            kind=kind,
            model=call.model[:256],
            stream=call.stream,
            characters=call.characters,
            answer_tokens=call.max_tokens or 0,
            hold=self._admission.open(principal),
            quotas=self._quotas,
            price_of=self._beside.price_of,
            **origin,
        )

    def session(self, call: Call, entry: Entry) -> Session | None:
        """Return what stands around a call whose dialect has a memory."""
        sessions = self._sessions.get(call.dialect)
        return sessions.open(call, entry) if sessions is not None else None

    def remember(self, sessions: Sessions) -> None:
        """Let `sessions` stand around the calls of its dialect."""
        self._sessions[sessions.dialect] = sessions

    async def reach(self, account: str) -> tuple[Provider, Endpoint]:
        """Return the kind of an account and where its calls go now, for what is no call. Raises KeyError."""
        found, provider = self.registry.account(account)
        return provider, await self._delivery.endpoint(found, provider)

    async def count(
        self, principal: Principal, call: Call, named: Callable[[Call], Awaitable[Call]] | None = None
    ) -> TokenCount:
        """Return how many tokens a request has: the provider's figure, or an estimate of ours.

        `named` puts files into it. Raises as `chat` does, and what `named` raises. Leaves a row in the ledger as
        every call, without tokens: counting is free.
        """
        with self.entry(principal, call, kind="count") as entry:
            if named is not None:
                call = await named(call)
                entry.characters = call.characters
            await self._admission.count(entry)

            async def attempt(target: Target) -> TokenCount:
                asked = written(target, call, entry, target.provider.count)
                if asked is None:
                    return TokenCount(tokens=max(1, -(-call.characters // 4)), estimated=True)
                answer = await self._delivery.fetch(target, asked, call.dialect, entry)
                entry.sent = False
                own = target.provider.dialect == call.dialect
                return TokenCount(tokens=target.provider.counted(answer), body=answer.body if own else b"")

            return await self._delivery.along(
                await self.registry.priced(call.model, project=entry.project), entry, attempt, call
            )

    async def answer(self, call: Call, dialect: Dialect, entry: Entry) -> bytes:
        """Return a whole answer in the client's dialect: the provider's own bytes where both speak the same."""
        route = self.registry.at_hand(call.model)
        await self._admission.chat(call, entry, route)
        route = route or await self.registry.priced(call.model, project=entry.project)
        if call.advisors:
            await self._beside.look_up(route, call.advisors)
        if route.cache is not None and (question := self.cache.question(route, call, dialect, entry)) is not None:
            return await self.cache.answer(question, lambda: ask(self._delivery, route, call, dialect, entry))

        async def attempt(target: Target) -> bytes:
            asked = request_for(target, call, entry)
            answer = await self._delivery.fetch(target, asked, dialect.name, entry)
            if target.provider.dialect == dialect.name:
                entry.tally = dialect.inspect(answer.body)
                return answer.body
            return dialect.completion(entry.takes(target.provider.completion(answer)), call)

        return await self._delivery.along(route, entry, attempt, call)

    async def open(self, call: Call, dialect: Dialect, entry: Entry) -> Stream[bytes]:
        """Open a stream in the client's dialect; its first piece has come when this returns."""
        route = self.registry.at_hand(call.model)
        await self._admission.chat(call, entry, route)
        route = route or await self.registry.priced(call.model, project=entry.project)
        if call.advisors:
            await self._beside.look_up(route, call.advisors)
        if route.cache is not None and (question := self.cache.question(route, call, dialect, entry)) is not None:
            return await self.cache.open(question, lambda: overhear(self._delivery, route, call, dialect, entry))
        if route.continuation:
            return await listen_alone(
                call, dialect, entry, lambda: overhear(self._delivery, route, call, dialect, entry)
            )

        async def attempt(target: Target) -> Flow[bytes]:
            if target.provider.dialect == dialect.name:
                return await self._delivery.begin(target, call, entry, dialect.relay(call))
            translation = Translation(target.provider.decoder(call), dialect.writer(call))
            return await self._delivery.begin(target, call, entry, translation)

        return await self._delivery.along(route, entry, attempt, call)

    async def open_chunks(self, call: Call, entry: Entry) -> Flow[list[Chunk]]:
        """Open a stream of typed chunks."""
        await self._admission.chat(call, entry, self.registry.at_hand(call.model))

        async def attempt(target: Target) -> Flow[list[Chunk]]:
            return await self._delivery.begin(target, call, entry, Reading(target.provider.decoder(call)))

        return await self._delivery.along(
            await self.registry.priced(call.model, project=entry.project), entry, attempt, call
        )


class ChatStream:
    """A streamed answer to code in this process.

    Its row is recorded when the `async with` block is left, or at the latest when the object goes away.
    """

    def __init__(self, service: LLMService, call: Call, entry: Entry) -> None:
        """Ask for nothing yet."""
        self._service = service
        self._call = call
        self._flow: Flow[list[Chunk]] | None = None
        self._waiting: list[Chunk] = []
        self.entry = entry

    async def __aenter__(self) -> ChatStream:
        """Open the stream; its first piece has come when this returns. Raises as `LLMService.chat` does."""
        try:
            self._flow = await self._service.open_chunks(self._call, self.entry)
        except BaseException as error:
            self.entry.close(error)
            raise
        self._waiting = self._flow.first[::-1]
        self.entry.first_token()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Record, and let go of the upstream."""
        whole = self.entry.tally.done or self.entry.tally.finished >= self._call.choices
        self.entry.close(error if error is not None or whole else GeneratorExit())
        if self._flow is not None:
            await self._flow.close()

    def __aiter__(self) -> ChatStream:
        """Iterate over the chunks."""
        return self

    async def __anext__(self) -> Chunk:
        """Return the next chunk."""
        assert self._flow is not None
        if not self._waiting:
            self._waiting = (await self._flow.next() or [])[::-1]
        if not self._waiting:
            raise StopAsyncIteration
        return self._waiting.pop()

    def __del__(self) -> None:
        """Record what was dropped on the floor."""
        self.entry.close(GeneratorExit())
