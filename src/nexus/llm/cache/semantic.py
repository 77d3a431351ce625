"""Finding a question that means the same as one answered before. Off unless a route asks for it.

Vectors of meaning are blind to what matters most: a flight on 3 May and one on 4 May are closer (0.947) than
two ways to ask for the capital of France (0.944). So a likeness counts only between questions that agree
exactly in everything around them (project, key, route, system prompt, parameters), and word for word, in
order, in their numbers, dates, negations, directions, quotations, names and identifiers.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec

from nexus.core.errors import NexusError
from nexus.llm.cache.key import CacheKey, digest_of
from nexus.llm.types import CachePolicy, Call, ChatRequest, Message, Route, SemanticPolicy, Text

log = logging.getLogger(__name__)

Embed = Callable[[str], Awaitable[bytes]]
"""Turns a text into a vector of length one: float32, little-endian, packed."""

# The built-in model reads 256 tokens: what is longer would be alike however it goes on.
_LONGEST = 600
_LAST_LATIN = 0x24F
_MOST_VECTORS = 100_000
_FIRST_ROWS = 64

_NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion first "
    "second third fourth fifth last next previous once twice half double triple quarter both all every each any some "
    "only single"
)
_DATE_WORDS = (
    "january february march april may june july august september october november december jan feb mar apr jun jul aug "
    "sep sept oct nov dec monday tuesday wednesday thursday friday saturday sunday mon tue wed thu fri sat sun today "
    "tomorrow yesterday tonight morning noon afternoon evening night midnight spring summer autumn fall winter am pm"
)
_NEGATIONS = (
    "no not never none nobody nothing neither nor without cannot unless except excluding hardly barely stop avoid "
    "refuse deny forbid prevent fail"
)
_DIRECTIONS = (
    "from to before after above below over under up down left right on off out more less fewer most least greater "
    "smaller larger bigger higher lower longer shorter older newer faster slower better worse best worst min max "
    "minimum maximum increase decrease rise enable disable allow block open close start end begin finish add remove "
    "delete create buy sell import export encode decode encrypt decrypt input output true false why how when where who"
)
_TELLING = frozenset(f"{_NUMBER_WORDS} {_DATE_WORDS} {_NEGATIONS} {_DIRECTIONS}".split())
_QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|«[^»]*»|`[^`]*`|(?<!\w)'[^']*'(?!\w)")
_WORD = re.compile(r"[\w@#$€£¥%§&+*/\\=<>^~|.:,-]+(?:'\w+)?", re.UNICODE)
_EDGES = ".,:;-"


class Meaning(NamedTuple):
    """A question to be compared: all around it, what must agree in it, and its vector."""

    scope: str
    telling: tuple[str, ...]
    vector: bytes


def question_of(request: ChatRequest, policy: CachePolicy) -> str | None:
    """Return the one question of a request; None where a likeness would not be enough."""
    *before, last = request.messages
    if any(message.role not in ("system", "developer") for message in before) or last.role != "user":
        return None
    if request.tools or request.choices > 1 or not all(isinstance(part, Text) for part in last.parts):
        return None
    if request.temperature != 0 and not policy.any_temperature:
        return None
    text = last.text
    if not text.strip() or len(text) > _LONGEST:
        return None
    # Letters of other scripts are all one to the built-in model.
    return None if any(letter.isalpha() and ord(letter) > _LAST_LATIN for letter in text) else text


def scope_of(request: ChatRequest, call: Call, route: Route, project_id: str, key_id: str | None) -> str:
    """Return what stands for everything around the question."""
    blank = msgspec.structs.replace(request, messages=(*request.messages[:-1], Message(role="user", parts=())))
    return f"{project_id}|{key_id}|{digest_of(blank, call, route, project_id)}"


def telling_of(text: str) -> tuple[str, ...]:
    """Return what two questions must have in common, in order: numbers, dates, negations, names, quotations ..."""
    found: list[tuple[int, str]] = [(match.start(), match.group()[1:-1]) for match in _QUOTED.finditer(text)]
    bare = _QUOTED.sub(lambda match: " " * len(match.group()), text)
    fresh = True
    for match in _WORD.finditer(bare):
        word = match.group().strip(_EDGES)
        if (plain := _telling(word, fresh=fresh)) is not None:
            found.append((match.start(), plain))
        fresh = match.group().endswith((".", ":")) or bare[match.end() : match.end() + 1] in ("?", "!")
    return tuple(word for _, word in sorted(found))


def _telling(word: str, *, fresh: bool) -> str | None:
    """Return the word, in one form, where it must not differ; `fresh` at the beginning of a sentence."""
    bare = re.sub(r"'s$", "", word)
    low = bare.lower()
    if not bare:
        return None
    if low.endswith("n't"):
        return "not"
    if low in _TELLING or low.endswith("est"):
        return low
    # Digits and signs make an identifier; so does a capital inside, or at the head in the middle of a sentence.
    names = not bare.replace("'", "").isalpha() or bare[1:] != low[1:] or (bare != low and not fresh)
    return bare if names else None


class SemanticIndex:
    """The questions that were answered, by what stands around them. In this process only; the answers are elsewhere."""

    def __init__(self, embed: Embed, *, most: int = _MOST_VECTORS) -> None:
        """Hold at most `most` vectors; whole scopes, those used longest ago, are dropped beyond that."""
        self._embed = embed
        self._most = most
        self._scopes: OrderedDict[str, _Scope] = OrderedDict()

    async def meaning(
        self, request: ChatRequest, call: Call, route: Route, owner: tuple[str, str | None]
    ) -> Meaning | None:
        """Return what a request means; None where it is not to be compared, or cannot be now."""
        text = question_of(request, route.cache) if route.cache is not None else None
        if text is None:
            return None
        try:
            vector = await self._embed(text)
        except NexusError as error:
            log.warning("questions cannot be compared: %s", error.code)
            return None
        return Meaning(scope_of(request, call, route, *owner), telling_of(text), vector)

    def find(self, meaning: Meaning, policy: SemanticPolicy) -> tuple[str, float] | None:
        """Return where the answer to the likest question is kept, and how like it is."""
        scope = self._scopes.get(meaning.scope)
        if scope is None:
            return None
        self._scopes.move_to_end(meaning.scope)
        found = scope.nearest(meaning)
        return found if found is not None and found[1] >= policy.threshold else None

    def add(self, meaning: Meaning, key: CacheKey, policy: SemanticPolicy) -> None:
        """Note that the answer to a question is kept; the oldest of the scope is forgotten beyond its limit."""
        scope = self._scopes.get(meaning.scope)
        if scope is None:
            scope = self._scopes[meaning.scope] = _Scope(len(meaning.vector) // 4)
        self._scopes.move_to_end(meaning.scope)
        scope.add(meaning, str(key), policy.entries)
        while len(self._scopes) > 1 and sum(len(item.keys) for item in self._scopes.values()) > self._most:
            self._scopes.popitem(last=False)

    def forget(self, meaning: Meaning, key: str) -> None:
        """Forget a question whose answer is gone."""
        if (scope := self._scopes.get(meaning.scope)) is not None:
            scope.forget(key)


class _Scope:
    """The questions of one scope: a matrix with a row for each."""

    def __init__(self, dimensions: int) -> None:
        import numpy as np

        self._rows: Any = np.zeros((_FIRST_ROWS, dimensions), dtype="<f4")
        self.keys: list[str] = []
        self._telling: list[tuple[str, ...]] = []
        self._marks: Any = np.zeros(_FIRST_ROWS, dtype=np.int64)
        self._next = 0

    def nearest(self, meaning: Meaning) -> tuple[str, float] | None:
        import numpy as np

        count = len(self.keys)
        alike = np.flatnonzero(self._marks[:count] == _mark(meaning.telling))
        if not len(alike):
            return None
        likeness = self._rows[alike] @ np.frombuffer(meaning.vector, dtype="<f4")
        best = int(likeness.argmax())
        row = int(alike[best])
        if self._telling[row] != meaning.telling or not self.keys[row]:
            return None
        return self.keys[row], min(1.0, float(likeness[best]))

    def add(self, meaning: Meaning, key: str, most: int) -> None:
        import numpy as np

        if key in self.keys:
            return
        if len(self.keys) < most:
            row = len(self.keys)
            self.keys.append(key)
            self._telling.append(meaning.telling)
            if row == len(self._rows):
                self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
                self._marks = np.concatenate([self._marks, np.zeros_like(self._marks)])
        else:
            row, self._next = self._next % most, self._next + 1
            self.keys[row], self._telling[row] = key, meaning.telling
        self._rows[row] = np.frombuffer(meaning.vector, dtype="<f4")
        self._marks[row] = _mark(meaning.telling)

    def forget(self, key: str) -> None:
        if key in self.keys:
            row = self.keys.index(key)
            self.keys[row], self._marks[row] = "", 0


def _mark(telling: tuple[str, ...]) -> int:
    """Return a number other than 0 that stands for the words."""
    digest = hashlib.sha256("\0".join(telling).encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True) or 1
