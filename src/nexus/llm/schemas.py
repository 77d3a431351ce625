"""The wire forms of the native routes: text tasks, providers, routes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from nexus.llm.answer_cache import CacheFigures
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


class CacheRouteView(BaseModel):
    """How the cache of one route does: what is kept now, and how often it could answer since this process started."""

    route: str
    entries: int
    bytes: int
    hits: int
    semantic: int
    stale: int
    misses: int
    hit_rate: float | None

    @classmethod
    def of(cls, route: str, kept: tuple[int, int], figures: CacheFigures) -> CacheRouteView:
        """Write the figures of a route."""
        return cls(
            route=route,
            entries=kept[0],
            bytes=kept[1],
            hits=figures.hits,
            semantic=figures.semantic,
            stale=figures.stale,
            misses=figures.misses,
            hit_rate=figures.hit_rate,
        )


class CacheView(BaseModel):
    """Answer of `GET /api/v1/cache`: all answers that the project has kept, and each route that keeps some."""

    entries: int
    bytes: int
    hits: int
    misses: int
    hit_rate: float | None
    routes: list[CacheRouteView]


class CachePurged(BaseModel):
    """Answer of `DELETE /api/v1/cache`."""

    deleted: int
