"""What a caller asks: a task, a model if it matters which, and the task's own parameters."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nexus.core.errors import InvalidInput
from nexus.http.handlers import issues_of
from nexus.http.problem import ValidationFailed
from nexus.vision.errors import VisionTaskNotFound
from nexus.vision.task import TASKS, Parameters, VisionTask


class ModelChoice(BaseModel):
    """Which model answers: by name, and by version number or alias; by default the task's best."""

    model_config = ConfigDict(frozen=True)

    model: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    version: Annotated[int, Field(ge=1, le=2**31)] | None = None
    alias: Annotated[str, Field(min_length=1, max_length=100)] | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A checked question."""

    task: VisionTask[Any, Any]
    choice: ModelChoice
    parameters: Parameters


def task_of(name: str) -> VisionTask[Any, Any]:
    """Return the plug of this name. Raises `VisionTaskNotFound`."""
    if name not in TASKS:
        raise VisionTaskNotFound
    return TASKS.get(name)


def ask(task: str, fields: Mapping[str, Any], *, form: bool = False) -> Question:
    """Check a question. `form` says that the values are text, as forms have them.

    Raises `VisionTaskNotFound`, and `ValidationFailed` naming each wrong field.
    """
    plug = task_of(task)
    chosen = {name: value for name, value in fields.items() if name in ModelChoice.model_fields}
    others = {name: value for name, value in fields.items() if name not in chosen}
    try:
        if form:
            chosen, others = _read(ModelChoice, chosen), _read(plug.parameters, others)
        choice = ModelChoice.model_validate(chosen, strict=not form)
        parameters = plug.parameters.model_validate(others, strict=not form)
    except ValidationError as error:
        raise ValidationFailed(issues_of(error.errors())) from None
    if choice.model is None and (choice.version is not None or choice.alias is not None):
        raise InvalidInput("Name the model whose version or alias this is.", field="model")
    return Question(plug, choice, parameters)


def _read(model: type[BaseModel], fields: Mapping[str, str]) -> dict[str, Any]:
    """Read `a, b` as a list where the parameter is one; leave out what was sent empty."""
    return {
        name: [part.strip() for part in value.split(",")]
        if name in model.model_fields and _is_list(model, name)
        else value
        for name, value in fields.items()
        if value != ""
    }


def _is_list(model: type[BaseModel], name: str) -> bool:
    annotation = model.model_fields[name].annotation
    return any(typing.get_origin(kind) is list for kind in (annotation, *typing.get_args(annotation)))
