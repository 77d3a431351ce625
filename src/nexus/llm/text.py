"""Text tasks as a service: validates the input, lends the task a model, adds up what it used."""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic import ValidationError

from nexus.access.types import Principal
from nexus.core.plugins import PluginFolder
from nexus.http.problem import Issue, ValidationFailed
from nexus.llm.registry import LOCAL
from nexus.llm.service import LLMService
from nexus.llm.task import TaskResult, TextTask
from nexus.llm.types import ChatRequest, Completion, Message, Need, ResponseFormat, Usage

_DEFAULT_CONTEXT = 16_000
_MOST_CONTEXT = 128_000
_CHARACTERS_PER_TOKEN = 3

# The folder only checks with isinstance, so an abstract contract will do.
TEXT_TASKS: PluginFolder[TextTask[Any]] = PluginFolder("nexus.llm.tasks", TextTask, noun="text task")  # type: ignore[type-abstract]


class TaskDone(msgspec.Struct, frozen=True, kw_only=True):
    """A finished task: its result, the model that did it, and the sum of its calls."""

    id: str
    task: str
    model: str
    result: TaskResult
    usage: Usage
    calls: int
    cost_usd: float | None


class TextTasks:
    """Runs the tasks of `tasks/` on any chat model."""

    def __init__(self, *, llm: LLMService) -> None:
        """List the tasks; import none."""
        self._llm = llm

    def names(self) -> list[str]:
        """Return the names of all tasks."""
        return TEXT_TASKS.names()

    async def run(
        self, principal: Principal, task: str, given: dict[str, Any], *, model: str | None = None, **origin: Any
    ) -> TaskDone:
        """Run a task on `model` (default: the first configured chat route, else the built-in demo model).

        `origin` is request_id, run_id or step_key. Raises `NotFound` for an unknown task,
        `ValidationFailed` naming the field, and what asking the model raises.
        """
        plug = TEXT_TASKS.get(task)
        try:
            parameters = plug.parameters.model_validate(given)
        except ValidationError as error:
            raise ValidationFailed(
                [Issue(".".join(map(str, item["loc"])), item["type"], item["msg"]) for item in error.errors()]
            ) from None
        asked = _Asked(self._llm, principal, model or self.default_model(), f"text.{task}", origin)
        result = await plug.run(asked, parameters)
        return TaskDone(
            id=asked.last_id,
            task=task,
            model=asked.name,
            result=result,
            usage=asked.usage,
            calls=asked.calls,
            cost_usd=asked.cost_usd,
        )

    def default_model(self) -> str:
        """Return the model for tasks that name none."""
        routes = self._llm.registry.routes.values()
        return next((route.name for route in routes if route.task == "chat" and not route.built_in), LOCAL)


class _Asked:
    """The `Model` lent to one run of a task."""

    def __init__(self, llm: LLMService, principal: Principal, name: str, kind: str, origin: dict[str, Any]) -> None:
        route = llm.registry.find(name, project=principal.project_id)
        self._abilities = [deployment.capabilities for deployment in route.deployments]
        known = [able.context_tokens for able in self._abilities if able.context_tokens]
        self._context = min(known, default=None)
        self.name = name
        # Room for the instructions and the answer is left in the context.
        usable = min(self._context or _DEFAULT_CONTEXT, _MOST_CONTEXT) * 3 // 4 - 100
        self.input_characters = max(500, usable * _CHARACTERS_PER_TOKEN)
        self.usage = Usage()
        self.cost_usd: float | None = 0.0
        self.calls = 0
        self.last_id = ""
        self._llm = llm
        self._principal = principal
        self._kind = kind
        self._origin = origin

    def lacks(self, need: Need) -> bool:
        return all(able.lacks(need) for able in self._abilities)

    async def ask(
        self, messages: tuple[Message, ...], *, max_tokens: int, response_format: ResponseFormat | None = None
    ) -> Completion:
        if self._context is not None:
            asked = sum(len(message.text) for message in messages) // _CHARACTERS_PER_TOKEN
            max_tokens = max(16, min(max_tokens, self._context - asked - 32))
        request = ChatRequest(
            model=self.name,
            messages=messages,
            max_tokens=max_tokens,
            temperature=0.0,
            response_format=response_format,
        )
        completion = await self._llm.chat(self._principal, request, kind=self._kind, **self._origin)
        self.calls += 1
        self.last_id = completion.invocation_id or ""
        if completion.usage is not None:
            self.usage.input_tokens += completion.usage.input_tokens
            self.usage.output_tokens += completion.usage.output_tokens
            self.usage.estimated = self.usage.estimated or completion.usage.estimated
        both = self.cost_usd is not None and completion.cost_usd is not None
        self.cost_usd = self.cost_usd + completion.cost_usd if both else None  # type: ignore[operator]
        return completion
