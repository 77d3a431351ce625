"""What a step gives to its plug, and what others read of its output, checked by the plug's own models. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from nexus.automation.errors import ExpressionError
from nexus.automation.reporter import Reporter
from nexus.automation.step import StepModel, StepPlug
from nexus.automation.templates import has_templates
from nexus.automation.types import StepDefinition


def check_plug(step: StepDefinition, plug: StepPlug | None, problem: Reporter) -> None:
    """Report what the plug of a step does not know, lacks, or cannot take. Templates are taken on trust."""
    if plug is None:
        problem(("uses",), "There is no step of this kind.")
        return
    names = _fields(plug.Inputs)
    open_ended = plug.Inputs.model_config.get("extra") == "allow"
    for part, given in (("with", step.with_), ("fallback", step.fallback or {})):
        for name, value in given.items():
            if name not in names and not open_ended:
                problem((part, name), f"{step.uses} has no input of this name; it has {', '.join(sorted(names))}.")
            elif name in names:
                _check_value(plug.Inputs, names[name], value, problem.below((part, name)))
    required = [name for name, attribute in names.items() if plug.Inputs.model_fields[attribute].is_required()]
    for name in required:
        if name not in step.with_:
            problem(("with",), f"{step.uses} needs the input {name}.")
    _check_together(step, plug, problem)


def output_problem(step: StepDefinition, plug: StepPlug | None, name: str) -> str | None:
    """Return what is wrong with reading `name` of a step's output; None for nothing that is known."""
    if step.map is not None:
        listed = f"The output of {step.key} is a list, for it has a map"
        return f"{listed}; take an item of it, or pluck(steps.{step.key}.output, '{name[:80]}')."
    if plug is None or plug.Outputs.model_config.get("extra") == "allow":
        return None
    names = _fields(plug.Outputs)
    return None if name in names else f"{step.uses} gives no {name[:80]}; it gives {', '.join(sorted(names))}."


def _fields(model: type[StepModel]) -> dict[str, str]:
    """Return the attribute of each field by the name that definitions use."""
    return {field.alias or attribute: attribute for attribute, field in model.model_fields.items()}


def _check_value(model: type[StepModel], attribute: str, value: Any, problem: Reporter) -> None:
    try:
        if has_templates(value):
            return
        _adapter(model, attribute).validate_python(value)
    except ExpressionError:
        # Reported with the templates.
        return
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        problem(tuple(first["loc"]), f"{first['msg']}.")


def _check_together(step: StepDefinition, plug: StepPlug, problem: Reporter) -> None:
    """Report inputs that do not go with each other, where none has to be filled in first."""
    try:
        if not has_templates(step.with_):
            plug.Inputs.model_validate(step.with_)
    except ExpressionError:
        return
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        if not first["loc"]:  # the others were found above
            problem(("with",), f"{first['msg']}.")


@lru_cache(maxsize=1024)
def _adapter(model: type[StepModel], attribute: str) -> TypeAdapter[Any]:
    field = model.model_fields[attribute]
    annotation: Any = field.annotation
    for one in field.metadata:
        annotation = Annotated[annotation, one]
    return TypeAdapter(annotation)
