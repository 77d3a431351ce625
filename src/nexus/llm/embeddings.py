"""Embeddings, told from top to bottom: find the route, look what is known, ask for the rest, record it.

`LLMService.embed` is its door for code in this process, the doors of the dialects for everybody else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from nexus.access.types import Principal, Scope
from nexus.llm.cache.embeddings import EmbeddingCache
from nexus.llm.errors import UnknownModel
from nexus.llm.local.embedder import Embedder
from nexus.llm.money.accounting import Entry, Record
from nexus.llm.money.admission import Admission
from nexus.llm.money.quotas import Quotas
from nexus.llm.pieces import gathered, pieces_of
from nexus.llm.registry import IN_PROCESS, Registry
from nexus.llm.routing.delivery import Delivery, Target
from nexus.llm.types import Embedding, EmbeddingRequest, Route, Tally


class Embeddings:
    """Turns texts into vectors. One for each process."""

    def __init__(
        self,
        *,
        record: Record,
        admission: Admission,
        quotas: Quotas,
        registry: Registry,
        delivery: Delivery,
        embedder: Embedder | None,
        cache: EmbeddingCache,
    ) -> None:
        """`embedder` serves the built-in model."""
        self._record = record
        self._admission = admission
        self._quotas = quotas
        self._registry = registry
        self._delivery = delivery
        self._embedder = embedder
        self._cache = cache

    async def embed(
        self,
        principal: Principal,
        request: EmbeddingRequest,
        received: Iterable[tuple[bytes, bytes]] = (),
        **origin: Any,
    ) -> Embedding:
        """Turn texts into vectors; `received` are the caller's headers, `origin` is request_id, run_id or step_key.

        Raises `UnknownModel`, `InvalidRequest` or an upstream's error.
        """
        principal.require(Scope.LLM_INVOKE)
        if not principal.may_use_model(request.model):
            raise UnknownModel(field="model")
        origin |= {"hold": self._admission.open(principal), "quotas": self._quotas, "characters": _length(request)}
        with Entry(self._record, principal, kind="embedding", model=request.model[:256], **origin) as entry:
            entry.items = len(request.input)
            await self._admission.embedding(request.model, entry)
            route = await self._registry.priced(request.model, task="embedding", project=entry.project)
            question = self._cache.question(route, request, received, entry) if route.cache is not None else None
            if question is None:
                embedding = await self._ask(route, request, entry)
                usage = entry.usage()
            else:
                embedding = await self._cache.answer(question, lambda part: self._ask(route, part, entry, request))
                usage = embedding.usage
            return msgspec.structs.replace(
                embedding, usage=usage, invocation_id=entry.id, cost_usd=entry.cost(), headers=entry.headers
            )

    async def _ask(
        self, route: Route, request: EmbeddingRequest, entry: Entry, whole: EmbeddingRequest | None = None
    ) -> Embedding:
        """Ask a provider for `request`, a part of `whole` perhaps, and note what it used."""
        entry.characters = _length(request)
        if route.deployments[0].provider == IN_PROCESS:
            if self._embedder is None:
                raise UnknownModel("This process does not serve the built-in embedding model.", field="model")
            entry.goes_to(route, route.deployments[0])
            embedding = await self._embedder.embed(request)
        else:
            told = (whole or request).dialect.partition(".")[0]

            async def attempt(target: Target) -> Embedding:
                provider, model = target.provider, target.deployment.model
                same = provider.dialect.partition(".")[0] == told

                async def ask(piece: EmbeddingRequest) -> Embedding:
                    asked = provider.embed(target.endpoint, model, piece)
                    answer = await self._delivery.fetch(target, asked, provider.dialect if same else "", entry)
                    return provider.embedding(answer, piece)

                return await gathered(pieces_of(request, provider.most_inputs(target.endpoint, model)), ask)

            embedding = await self._delivery.along(route, entry, attempt)
        entry.sent = True
        entry.tally = Tally(usage=embedding.usage, done=True)
        return embedding


def _length(request: EmbeddingRequest) -> int:
    return sum(len(item) if isinstance(item, str) else 4 * len(item) for item in request.input)
