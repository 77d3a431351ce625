"""Which requests may be answered from a cache, and when two of them are the same. No I/O.

The key is made of our own form of the request, so that key order, white space, the wish to have it
streamed and the dialect it came in make no difference, while everything that changes the answer does.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import msgspec

from nexus.llm.errors import InvalidRequest
from nexus.llm.forms.own_words import own_words
from nexus.llm.types import CachePolicy, Call, ChatRequest, EmbeddingRequest, Foreign, Route

Mode = Literal["use", "off", "refresh", "only"]

_MODES: dict[bytes, Mode] = {b"off": "off", b"refresh": "refresh", b"only": "only", b"on": "use", b"use": "use"}
_LONGEST_TTL = 30 * 86_400.0
# Who asks, and how the provider is to file it, changes no word of the answer.
_IRRELEVANT = frozenset(
    ("user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "cache_control")
)
# Nor does the wish to have it streamed, or kept; what an earlier response said is part of the request by now.
_MANNER = frozenset(("stream", "stream_options", "store", "include", "previous_response_id"))
_NUMBERS = ("temperature", "top_p", "presence_penalty", "frequency_penalty")
_encode = msgspec.json.Encoder(order="sorted").encode


class Wish(NamedTuple):
    """What a caller asks of the cache: `x-nexus-cache` and `x-nexus-cache-ttl` (seconds).

    `barred` tells that the caller's key has no part in it.
    """

    mode: Mode = "use"
    ttl: float | None = None
    barred: bool = False

    @property
    def passes_by(self) -> bool:
        """Tell whether the cache is neither read nor written."""
        return self.barred or self.mode == "off"

    def longest(self, ttl: float) -> float:
        """Return how old an answer kept for `ttl` seconds may be."""
        return ttl if self.ttl is None else min(ttl, self.ttl)


class CacheKey(NamedTuple):
    """Where an answer is kept: `prefix` is common to its project and route."""

    prefix: str
    digest: str

    def __str__(self) -> str:
        return self.prefix + self.digest


def wish_of(received: Iterable[tuple[bytes, bytes]], policy: CachePolicy, key_id: str | None) -> Wish:
    """Read what the caller asks of the cache in headers. Raises `InvalidRequest` naming the header.

    What is asked for this very request comes before what the route says of the caller's key.
    """
    mode: Mode = "use"
    ttl = None
    for name, value in [line for line in received if line[0].startswith(b"x-nexus-cache")]:
        if name == b"x-nexus-cache":
            found = _MODES.get(value.strip().lower())
            if found is None:
                raise InvalidRequest("x-nexus-cache is one of off, refresh, only.", field="x-nexus-cache")
            mode = found
        elif name == b"x-nexus-cache-ttl":
            try:
                ttl = float(value)
            except ValueError:
                ttl = math.nan
            if not 0 <= ttl <= _LONGEST_TTL:
                text = f"x-nexus-cache-ttl is a number of seconds, at most {_LONGEST_TTL:.0f}."
                raise InvalidRequest(text, field="x-nexus-cache-ttl")
    given = policy.keys.get(key_id or "")
    return Wish(mode, given if ttl is None else ttl, barred=given == 0)


def may_be_kept(request: ChatRequest, policy: CachePolicy) -> bool:
    """Tell whether the answer would be the same if asked again, as far as the route's owner is concerned."""
    if request.temperature and not policy.any_temperature:
        return False
    return policy.tools or not request.tools


def prefix_of(project_id: str, route: str | None = None) -> str:
    """Return what the keys of a project, or of one of its routes, begin with."""
    if route is None:
        return f"answer:{project_id}:"
    return f"answer:{project_id}:{hashlib.sha256(route.encode()).hexdigest()[:16]}:"


def key_of(request: ChatRequest, call: Call, route: Route, project_id: str) -> CacheKey:
    """Return where the answer to a request is kept. Two projects never share one."""
    return CacheKey(prefix_of(project_id, route.name), digest_of(request, call, route, project_id))


def digest_of(request: ChatRequest, call: Call, route: Route, project_id: str) -> str:
    """Return the SHA-256 of everything that changes the answer."""
    places = [item.key for item in route.deployments]
    headers = sorted((name, value) for name, value in call.headers if not name.endswith(b"-version"))
    content: list[Any] = [project_id, route.name, places, headers, _canonical(request, apart=bool(call.apart))]
    if call.apart:
        content.append(call.apart)
    if call.body and (told := own_words(call.body, _IRRELEVANT | _MANNER)):
        content.append([call.dialect, told])
    return hashlib.sha256(_encode(content)).hexdigest()


def keys_of_vectors(request: EmbeddingRequest, own: Any, route: Route, project_id: str) -> list[CacheKey]:
    """Return where the vector of each input is kept; one place for all where `own` words may tie them together."""
    prefix = prefix_of(project_id, route.name)
    base = [project_id, route.name, [item.key for item in route.deployments], request.dimensions, request.task]
    if own is not None:
        asked = [[*base, "all", request.dialect, request.form, own, request.input]]
    else:
        asked = [[*base, "each", item] for item in request.input]
    return [CacheKey(prefix, hashlib.sha256(_encode(content)).hexdigest()) for content in asked]


def _canonical(request: ChatRequest, *, apart: bool) -> ChatRequest:
    """Return the request without what makes no difference."""
    extra = {name: value for name, value in request.extra.items() if name not in _IRRELEVANT and value is not None}
    changes: dict[str, Any] = {"user": None, "model": "", "extra": extra, "places": None, "service_tier": None}
    for name in _NUMBERS:
        value = getattr(request, name)
        changes[name] = None if value is None else float(value)
    if not extra and not apart and not _speaks_its_own(request):
        changes["dialect"] = ""
    return msgspec.structs.replace(request, **changes)


def _speaks_its_own(request: ChatRequest) -> bool:
    """Tell whether some of the request means something in its own dialect only."""
    if any(tool.value is not None for tool in request.tools):
        return True
    return any(
        message.extra or any(isinstance(part, Foreign) for part in message.parts) for message in request.messages
    )
