"""The wire forms of the native routes: text tasks, providers, routes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from nexus.llm.task import TextTask
from nexus.llm.text import TaskDone


def request_of(name: str, task: TextTask[Any]) -> type[BaseModel]:
    """Return the body of `POST /api/v1/text/{name}`: the task's parameters, and which model is to do it."""
    which = Field(None, min_length=1, max_length=256, description="A route or provider/model.")
    made: type[BaseModel] = create_model(
        f"{name.capitalize()}Request",
        __base__=task.parameters,
        __doc__=task.summary,
        model=(str | None, which),
    )
    return made


class TextUsage(BaseModel):
    """Tokens of all calls that a task made."""

    input_tokens: int
    output_tokens: int
    estimated: bool


class TextAnswer(BaseModel):
    """Answer of every text task; `id` names the last call's row in the ledger."""

    model_config = ConfigDict(extra="allow")

    id: str
    task: str
    model: str
    text: str
    usage: TextUsage
    calls: int
    cost_usd: float | None

    @classmethod
    def of(cls, done: TaskDone) -> TextAnswer:
        """Write a finished task."""
        usage = TextUsage(
            input_tokens=done.usage.input_tokens,
            output_tokens=done.usage.output_tokens,
            estimated=done.usage.estimated,
        )
        return cls(
            id=done.id,
            task=done.task,
            model=done.model,
            text=done.result.text,
            usage=usage,
            calls=done.calls,
            cost_usd=done.cost_usd,
            **done.result.fields,
        )


class CacheCounts(BaseModel):
    """How often a cache could answer in a period, whichever process was asked: what the ledger's rows say.

    `partial` are batches of which a part was kept; `hit_rate` is the share of those answered wholly from the cache.
    """

    hits: int
    semantic: int
    stale: int
    partial: int
    misses: int
    hit_rate: float | None

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> CacheCounts:
        """Write what was counted for each way in which the cache took part."""
        hits, semantic, stale = counts.get("hit", 0), counts.get("semantic", 0), counts.get("stale", 0)
        partial, misses = counts.get("partial", 0), counts.get("miss", 0)
        served = hits + semantic + stale
        asked = served + partial + misses
        rate = served / asked if asked else None
        return cls(hits=hits, semantic=semantic, stale=stale, partial=partial, misses=misses, hit_rate=rate)


class CacheRouteView(CacheCounts):
    """How the cache of one route does: what is kept now, and how often it could answer."""

    route: str
    entries: int
    bytes: int

    @classmethod
    def write(cls, route: str, kept: tuple[int, int], counts: Mapping[str, int]) -> CacheRouteView:
        """Write the figures of a route."""
        return cls(route=route, entries=kept[0], bytes=kept[1], **CacheCounts.of(counts).model_dump())


class CacheView(CacheCounts):
    """Answer of `GET /api/v1/cache`: all answers that the project has kept, and each route that keeps some."""

    entries: int
    bytes: int
    since: datetime
    until: datetime | None
    routes: list[CacheRouteView]


class CachePurged(BaseModel):
    """Answer of `DELETE /api/v1/cache`."""

    deleted: int
