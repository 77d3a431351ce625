"""Vectors that were made before, given again: each input is kept by itself, so that of a batch only the rest is asked.

What only the caller's own dialect can say may tie the inputs of a batch together: such a batch is kept as a whole,
as its provider wrote it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import NamedTuple

import msgspec

from nexus.llm.cache.answers import OUTAGE, mark
from nexus.llm.cache.dated import Dated, now
from nexus.llm.cache.flight import Flight
from nexus.llm.cache.key import Wish, keys_of_vectors, wish_of
from nexus.llm.errors import NotCached, UpstreamMalformed
from nexus.llm.money.accounting import Entry
from nexus.llm.types import Embedding, EmbeddingRequest, Route, Tally, Usage
from nexus.storage.cache import Cache

Ask = Callable[[EmbeddingRequest], Awaitable[Embedding]]


class KeptVectors(Dated, frozen=True, kw_only=True):
    """What came of one input, or of a whole batch, and since when it is kept (Unix seconds).

    `place` is the model that made it, as its provider calls it: vectors of two models are never mixed.
    """

    model: str
    vectors: tuple[bytes, ...]
    dimensions: int
    tokens: int
    estimated: bool
    place: str
    ttl: float
    body: bytes = b""


Found = Mapping[str, KeptVectors]


class VectorQuestion(NamedTuple):
    """A request that may be answered from the cache: `keys` has a place for each input, or one for the `whole`."""

    route: Route
    request: EmbeddingRequest
    entry: Entry
    keys: list[str]
    whole: bool
    wish: Wish

    def part(self, keys: Iterable[str]) -> EmbeddingRequest:
        """Return the request for some of the places."""
        if self.whole:
            return self.request
        texts = dict(zip(self.keys, self.request.input, strict=True))
        wanted = tuple(texts[key] for key in keys)
        return msgspec.structs.replace(self.request, input=wanted, dialect="", body=b"")

    @property
    def ttl(self) -> float:
        """Return for how many seconds what comes now is to be kept."""
        assert self.route.cache is not None
        return self.route.cache.ttl if self.wish.ttl is None else self.wish.ttl


class EmbeddingCache:
    """Keeps vectors in `store`, and joins callers who ask the same at the same time."""

    def __init__(self, store: Cache) -> None:
        """Hold nothing yet."""
        self._store = store
        self._flights: dict[tuple[str, ...], Flight[Found]] = {}

    def question(
        self, route: Route, request: EmbeddingRequest, received: Iterable[tuple[bytes, bytes]], entry: Entry
    ) -> VectorQuestion | None:
        """Return the request with its keys; None for one that goes past the cache. Raises `InvalidRequest`."""
        assert route.cache is not None
        wish = wish_of(received, route.cache, entry.invocation.key_id)
        if not wish.passes_by:
            own = request.own()
            keys = [str(key) for key in keys_of_vectors(request, own, route, entry.project)]
            return VectorQuestion(route, request, entry, keys, own is not None, wish)
        if wish.mode == "only":
            raise NotCached
        mark(entry, b"bypass")
        return None

    async def answer(self, question: VectorQuestion, ask: Ask) -> Embedding:
        """Return the vectors, kept or fresh. Raises `NotCached` and what `ask` raises."""
        kept = await self._look(question)
        fresh = _of_one_model({key: one for key, one in kept.items() if one.age < question.wish.longest(one.ttl)})
        missing = tuple(key for key in dict.fromkeys(question.keys) if key not in fresh)
        if not missing:
            return self._serve(question, fresh, b"hit")
        if question.wish.mode == "only":
            raise NotCached
        entry, place = question.entry, (*question.keys, "", *missing)
        flight = self._flights.get(place)
        if flight is None or flight.over or question.wish.mode == "refresh":
            flight = self._start(place)
            flight.fly_whole(lambda: self._ask(question, fresh, missing, ask), lambda told: self._keep(question, told))
        if flight.board(entry):
            mark(entry, b"miss")
        try:
            told = await flight.whole()
            pays = flight.pays(entry)
        except OUTAGE:
            bridge = _of_one_model(kept)
            if any(key not in bridge for key in missing):
                raise
            return self._serve(question, bridge, b"stale")
        finally:
            flight.leave(entry)
        if not pays:
            return self._serve(question, {**fresh, **told}, b"hit")
        _mark_part(entry, sum(key not in told for key in question.keys), fresh)
        return _joined(question, {**fresh, **told})

    async def _look(self, question: VectorQuestion) -> Found:
        """Return what is kept, fresh or stale."""
        if question.wish.mode == "refresh":
            return {}
        found = await self._store.get_many(list(dict.fromkeys(question.keys)))
        read = {key: KeptVectors.read(data) for key, data in found.items()}
        return {key: one for key, one in read.items() if one is not None}

    async def _ask(self, question: VectorQuestion, known: Found, missing: tuple[str, ...], ask: Ask) -> Found:
        """Ask for what is missing; for everything where another model than that of the `known` answered."""
        told = _taken_apart(question, missing, await ask(question.part(missing)))
        places = {one.place for one in (*known.values(), *told.values())}
        if len(places) > 1:
            everything = tuple(dict.fromkeys(question.keys))
            told = _taken_apart(question, everything, await ask(question.part(everything)))
        return told

    async def _keep(self, question: VectorQuestion, told: Found) -> None:
        assert question.route.cache is not None
        if question.ttl > 0:
            values = {key: bytes(one) for key, one in told.items()}
            await self._store.set_many(values, question.ttl + question.route.cache.stale)

    def _start(self, place: tuple[str, ...]) -> Flight[Found]:
        def over() -> None:
            if self._flights.get(place) is flight:
                del self._flights[place]

        flight = self._flights[place] = Flight(over)
        return flight

    def _serve(self, question: VectorQuestion, found: Found, how: bytes) -> Embedding:
        """Answer from what is kept, at no cost."""
        answer = _joined(question, found)
        question.entry.served_from_cache(question.route, Tally(usage=answer.usage, done=True))
        mark(question.entry, how, max(one.age for one in found.values()))
        return answer


def _mark_part(entry: Entry, known: int, fresh: Found) -> None:
    """Tell of a batch whether all of it was asked for, or how many of its inputs were known."""
    if not known:
        mark(entry, b"miss")
        return
    mark(entry, b"partial", max(one.age for one in fresh.values()))
    entry.headers += ((b"x-nexus-cache-hits", b"%d" % known),)
    entry.cache = {"cache": "partial", "cached_items": known}


def _of_one_model(found: Found) -> Found:
    """Return those that the same model made as the first."""
    place = next((one.place for one in found.values()), "")
    return {key: one for key, one in found.items() if one.place == place}


def _taken_apart(question: VectorQuestion, keys: tuple[str, ...], answer: Embedding) -> Found:
    """Return an answer as it is kept: each vector with its share of the tokens. Raises `UpstreamMalformed`."""
    entry = question.entry
    usage = entry.usage() or Usage(estimated=True)
    deployment = entry.deployment

    def kept(vectors: tuple[bytes, ...], tokens: int, body: bytes = b"") -> KeptVectors:
        return KeptVectors(
            model=answer.model,
            vectors=vectors,
            dimensions=answer.dimensions,
            tokens=tokens,
            estimated=usage.estimated,
            place=deployment.model if deployment is not None else "",
            since=now(),
            ttl=question.ttl,
            body=body,
        )

    if question.whole:
        return {keys[0]: kept(answer.vectors, usage.input_tokens, answer.body)}
    if len(answer.vectors) != len(keys) or not all(answer.vectors):
        raise UpstreamMalformed("The provider did not answer with a vector for each input.")
    sizes = [max(1, len(item)) for item in question.part(keys).input]
    shares = _shares(usage.input_tokens, sizes)
    return {key: kept((vector,), tokens) for key, vector, tokens in zip(keys, answer.vectors, shares, strict=True)}


def _shares(total: int, sizes: list[int]) -> list[int]:
    """Return whole shares of `total` in proportion to `sizes`, which add up to it."""
    shares, seen, given = [], 0, 0
    for size in sizes:
        seen += size
        upto = total * seen // sum(sizes)
        shares.append(upto - given)
        given = upto
    return shares


def _joined(question: VectorQuestion, found: Found) -> Embedding:
    """Return the vectors in the order asked, and their tokens together."""
    parts = [found[key] for key in question.keys]
    usage = Usage(input_tokens=sum(one.tokens for one in parts), estimated=any(one.estimated for one in parts))
    return Embedding(
        model=parts[0].model,
        vectors=tuple(vector for one in parts for vector in one.vectors),
        dimensions=parts[0].dimensions,
        usage=usage,
        body=parts[0].body,
    )
