"""Answers that were given before, given again: to the same request, of the same project, on routes that ask for it.

Who asks while the same question is under way joins that call instead of making one of their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec

from nexus.core.errors import DeadlineExceeded, InvalidInput, NotFound, RateLimited, Unavailable
from nexus.llm.cache.flight import ChatFlight, Listening
from nexus.llm.cache.kept import Kept
from nexus.llm.cache.key import CacheKey, Wish, key_of, may_be_kept, prefix_of, wish_of
from nexus.llm.cache.semantic import Meaning, SemanticIndex
from nexus.llm.dialect import Dialect
from nexus.llm.errors import AnswerFailed, NotCached, UpstreamError
from nexus.llm.flow import Hearing, Stream
from nexus.llm.money.accounting import Entry
from nexus.llm.routing.dropping import Headers, telling
from nexus.llm.types import CachePolicy, Call, ChatRequest, Completion, Route, Tally
from nexus.storage.cache import Cache

Ask = Callable[[], Awaitable[Kept]]
Begin = Callable[[], Awaitable[Hearing]]

_MOST_UNDERSTOOD = 4096
OUTAGE = (Unavailable, UpstreamError, RateLimited, DeadlineExceeded)


class Question(NamedTuple):
    """A request that may be answered from the cache."""

    route: Route
    policy: CachePolicy
    call: Call
    dialect: Dialect | None
    """None for code of this process, which takes answers in our own form."""
    entry: Entry
    key: CacheKey
    wish: Wish


class _Understood(NamedTuple):
    """The key of a request that came in these bytes before, for a route as it was then."""

    route: Route
    key: CacheKey | None


class AnswerCache:
    """Keeps answers in `store`, and joins callers who ask the same at the same time.

    With an `index`, routes may ask for answers to questions that mean the same.
    """

    def __init__(self, store: Cache, index: SemanticIndex | None = None) -> None:
        """Hold nothing yet."""
        self._store = store
        self._index = index
        self._flights: dict[str, ChatFlight] = {}
        self._understood: dict[tuple[object, ...], _Understood] = {}

    def question(self, route: Route, call: Call, dialect: Dialect | None, entry: Entry) -> Question | None:
        """Return the request with its key; None for one that goes past the cache. Raises `InvalidRequest`."""
        assert route.cache is not None
        wish = wish_of(call.received, route.cache, entry.invocation.key_id)
        key = None if wish.passes_by or call.alone else self._key(route, route.cache, call, entry.project)
        if key is None:
            if wish.mode == "only":
                raise NotCached
            mark(entry, b"bypass")
            return None
        return Question(route, route.cache, call, dialect, entry, key, wish)

    def _key(self, route: Route, policy: CachePolicy, call: Call, project: str) -> CacheKey | None:
        """Return where the answer is kept, None for one that is not; the same bytes are understood only once."""
        told = (project, call.dialect, call.model, call.apart, call.headers, hashlib.blake2b(call.body).digest())
        if call.body and (known := self._understood.get(told)) is not None and known.route is route:
            return known.key
        request = _own_form(call)
        if request is None:
            return None
        key = key_of(request, call, route, project) if may_be_kept(request, policy) else None
        if call.body:
            if len(self._understood) >= _MOST_UNDERSTOOD:
                self._understood.clear()
            self._understood[told] = _Understood(route, key)
        return key

    async def answer(self, question: Question, ask: Ask) -> bytes:
        """Return a whole answer in the caller's dialect, kept or fresh. Raises `NotCached` and what `ask` raises."""
        assert question.dialect is not None
        kept, again = await self._obtain(question, ask)
        return kept.whole(question.call, question.dialect, again=again)

    async def completion(self, question: Question, ask: Ask) -> Completion:
        """Return the same in our own form. Raises as `answer` does, and `AnswerFailed`."""
        kept, _ = await self._obtain(question, ask)
        AnswerFailed.check(kept.completion.failed)
        return kept.completion

    async def _obtain(self, question: Question, ask: Ask) -> tuple[Kept, bool]:
        """Return an answer, and whether it was given to another call before."""
        old = await self._look(question)
        if old is not None and _is_fresh(old, question):
            return self._serve(question, old, b"hit"), True
        meaning, alike = await self._look_alike(question)
        if alike is not None:
            return alike, True
        flight = self._flight(question)
        if flight is None:
            flight = self._start(question)
            flight.fly_whole(ask, lambda kept: self._keep(question, kept, meaning))
        self._board(question, flight)
        again = True
        try:
            kept = await flight.whole()
            if flight.pays(question.entry):
                again = False
                _tell_payer(question.entry, kept.dropped)
            else:
                self._serve(question, kept, b"hit")
        except OUTAGE:
            if old is None:
                raise
            kept = self._serve(question, old, b"stale")
        finally:
            flight.leave(question.entry)
        return kept, again

    async def open(self, question: Question, begin: Begin) -> Stream[bytes]:
        """Open a stream in the caller's dialect, kept or fresh. Raises as `answer` does."""
        assert question.dialect is not None
        old = await self._look(question)
        if old is not None and _is_fresh(old, question):
            return self._replay(question, old, b"hit")
        meaning, alike = await self._look_alike(question)
        if alike is not None:
            return Replay(alike.events(question.call, question.dialect))
        flight = self._flight(question)
        if flight is None:
            flight = self._start(question)
            flight.fly_stream(begin, lambda kept: self._keep(question, kept, meaning))
        self._board(question, flight)
        try:
            first = await flight.piece(0) if flight.streamed else None
            kept = await flight.whole() if first is None else None
        except BaseException as error:
            flight.leave(question.entry)
            if old is None or not isinstance(error, OUTAGE):
                raise
            return self._replay(question, old, b"stale")
        if first is None:
            flight.leave(question.entry)
            assert kept is not None
            return self._replay(question, kept, b"hit")
        again = not flight.pays(question.entry)
        if again:
            question.entry.served_from_cache(question.route, flight.tally)
            _repeat(question.entry, flight.dropped)
        else:
            _tell_payer(question.entry, flight.dropped)
        return Listening(flight, question.call, question.dialect, question.entry, first, again=again)

    async def measure(self, project_id: str, route: str | None = None) -> tuple[int, int]:
        """Return how many answers a project, or one of its routes, has kept, and their bytes."""
        return await self._store.measure(prefix_of(project_id, route))

    async def purge(self, project_id: str, route: str | None = None) -> int:
        """Forget the answers of a project, or of one of its routes; return how many."""
        return await self._store.purge(prefix_of(project_id, route))

    async def _look(self, question: Question) -> Kept | None:
        """Return the kept answer, fresh or stale."""
        if question.wish.mode == "refresh":
            return None
        data = await self._store.get(str(question.key))
        return Kept.read(data) if data is not None else None

    async def _look_alike(self, question: Question) -> tuple[Meaning | None, Kept | None]:
        """Return what the request means, and the answer to one that means the same, accounted for.

        Raises `NotCached` where the caller wants nothing but a kept answer.
        """
        meaning, policy = None, question.policy.semantic
        if policy.enabled and self._index is not None:
            invocation = question.entry.invocation
            owner = (invocation.project_id, invocation.key_id)
            meaning = await self._index.meaning(question.call.parse(), question.call, question.route, owner)
        if meaning is not None and self._index is not None and question.wish.mode != "refresh":
            found = self._index.find(meaning, policy)
            data = await self._store.get(found[0]) if found is not None else None
            kept = Kept.read(data) if data is not None else None
            if found is not None and kept is None:
                self._index.forget(meaning, found[0])
            elif found is not None and kept is not None and _is_fresh(kept, question):
                self._serve(question, kept, b"semantic")
                question.entry.headers += ((b"x-nexus-cache-similarity", b"%.4f" % found[1]),)
                return meaning, kept
        if question.wish.mode == "only":
            raise NotCached
        return meaning, None

    def _flight(self, question: Question) -> ChatFlight | None:
        flight = self._flights.get(str(question.key))
        return None if flight is None or flight.over or question.wish.mode == "refresh" else flight

    def _start(self, question: Question) -> ChatFlight:
        place = str(question.key)

        def over() -> None:
            if self._flights.get(place) is flight:
                del self._flights[place]

        flight = self._flights[place] = ChatFlight(question.call, question.dialect, over)
        return flight

    def _board(self, question: Question, flight: ChatFlight) -> None:
        if flight.board(question.entry):
            mark(question.entry, b"miss")
        elif flight.streamed and question.call.stream:
            mark(question.entry, b"hit", 0.0)

    async def _keep(self, question: Question, kept: Kept, meaning: Meaning | None) -> None:
        """Keep a sound answer, and where questions are compared, what was asked."""
        ttl = question.policy.ttl if question.wish.ttl is None else question.wish.ttl
        if ttl > 0 and kept.is_sound(question.policy):
            kept = msgspec.structs.replace(kept, ttl=ttl)
            await self._store.set(str(question.key), bytes(kept), ttl + question.policy.stale)
            if meaning is not None and self._index is not None:
                self._index.add(meaning, question.key, question.policy.semantic)

    def _serve(self, question: Question, kept: Kept, how: bytes) -> Kept:
        question.entry.served_from_cache(question.route, Tally.of(kept.completion))
        if kept.dropped or question.entry.headers:
            _repeat(question.entry, kept.dropped)
        mark(question.entry, how, kept.age)
        return kept

    def _replay(self, question: Question, kept: Kept, how: bytes) -> Replay:
        assert question.dialect is not None
        return Replay(self._serve(question, kept, how).events(question.call, question.dialect))


class Replay:
    """A kept answer as a stream: everything at once."""

    def __init__(self, first: bytes) -> None:
        """Hold the events."""
        self.first = first

    async def next(self) -> bytes | None:
        """Return the end."""
        return None

    async def close(self) -> None:
        """Hold nothing open."""


def mark(entry: Entry, how: bytes, age: float | None = None) -> None:
    """Tell the caller, and the call's row in the ledger, how the cache took part."""
    told: Headers = ((b"x-nexus-cache", how),)
    if age is not None:
        told = ((b"x-nexus-cache", how), (b"x-nexus-cache-age", b"%d" % age))
    if entry.headers:
        told = tuple(line for line in entry.headers if not line[0].startswith(b"x-nexus-cache")) + told
    entry.headers = told
    entry.cache = {"cache": how.decode()}


def _repeat(entry: Entry, dropped: bytes) -> None:
    """Tell the caller what the deployment that answered was not asked for, not what one that failed was not."""
    entry.headers = telling(entry.headers, dropped)


def _tell_payer(entry: Entry, dropped: bytes) -> None:
    """Tell who may have taken a call over what its first caller knows already."""
    _repeat(entry, dropped)
    mark(entry, b"miss")


def _is_fresh(kept: Kept, question: Question) -> bool:
    return kept.age < question.wish.longest(kept.ttl)


def _own_form(call: Call) -> ChatRequest | None:
    """Return the request in our own form; None for one that only its own dialect can say."""
    try:
        return call.parse()
    except (InvalidInput, NotFound):
        return None
