"""`POST /api/v1/text/{task}`: one route for each file of `tasks/`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter

from nexus.access.guard import requires
from nexus.access.types import Principal, Scope
from nexus.http.depends import service
from nexus.llm.schemas import TextAnswer, request_of
from nexus.llm.text import TEXT_TASKS, TextTasks

router = APIRouter(prefix="/api/v1/text", tags=["language"])

Asking = Annotated[Principal, requires(Scope.LLM_INVOKE)]
Tasks = Annotated[TextTasks, service(TextTasks)]


def _route(name: str, summary: str) -> Callable[..., Awaitable[TextAnswer]]:
    async def run(body: Any, who: Asking, tasks: Tasks) -> TextAnswer:
        given = body.model_dump(exclude={"model"}, exclude_unset=True, by_alias=True)
        return TextAnswer.of(await tasks.run(who, name, given, model=body.model))

    run.__doc__ = summary
    return run


for _name, _task in TEXT_TASKS.all().items():
    _run = _route(_name, _task.summary)
    # The body's type is the task's own, known only now.
    _run.__annotations__["body"] = request_of(_name, _task)
    router.post(f"/{_name}", operation_id=f"text.{_name}")(_run)
