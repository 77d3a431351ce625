"""The generated tables of the documentation, made from the code itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from nexus.analytics.forecaster import FORECASTERS
from nexus.analytics.predictor import PREDICTORS
from nexus.app import openapi
from nexus.automation.channel import CHANNELS
from nexus.automation.step import STEPS
from nexus.automation.trigger import TRIGGERS
from nexus.bench.bench import BENCHES
from nexus.catalog.catalogue import shipped_catalogue
from nexus.llm.hot import hot_routes
from nexus.llm.text import TEXT_TASKS
from nexus.settings import Settings
from nexus.system.service import error_codes
from nexus.telemetry import metrics
from nexus.testing.faults import FAULTS
from nexus.vision.task import TASKS


def table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return a Markdown table."""
    heads = list(columns)
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return str("" if value is None else value).replace("|", "\\|").replace("\n", " ")


def settings() -> str:
    """Every setting by its environment variable."""
    return table(("name", "default", "meaning"), _settings(Settings, "NEXUS_"))


def _settings(model: type[BaseModel], prefix: str) -> Iterable[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from _settings(annotation, f"{prefix}{name.upper()}__")
        else:
            yield f"`{prefix}{name.upper()}`", f"`{_default(field)}`", field.description or _attribute_doc(model, name)


def _default(field: Any) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "(required)"
    return "none" if value is None else str(value) if not isinstance(value, str) else value or '""'


def _attribute_doc(model: type[BaseModel], name: str) -> str:
    """Return the string that stands below an attribute in the source."""
    import ast
    import inspect
    import textwrap

    body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    assert isinstance(body, ast.ClassDef)
    for statement, following in zip(body.body, body.body[1:], strict=False):
        is_it = isinstance(statement, ast.AnnAssign) and getattr(statement.target, "id", "") == name
        if is_it and isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            return inspect.cleandoc(str(following.value.value))
    return ""


def routes() -> str:
    """Every route: the native ones from OpenAPI, the raw ones from their table."""
    described = openapi()
    rows = [(f"`{method} {path}`", "wire-compatible, raw handler") for method, path in sorted(hot_routes())]
    for path, methods in described["paths"].items():
        rows += [
            (
                f"`{method.upper()} {path}`",
                (operation.get("description") or operation.get("summary") or "").split("\n")[0],
            )
            for method, operation in methods.items()
        ]
    return table(("route", "what it does"), sorted(rows, key=lambda row: row[0].split(" ")[1]))


def errors() -> str:
    """Every error code."""
    return table(
        ("code", "status", "retry helps", "meaning"),
        [(f"`{e['code']}`", e["status"], "yes" if e["retryable"] else "no", e["message"]) for e in error_codes()],
    )


def plugs() -> str:
    """Every plug of every folder."""
    rows: list[tuple[str, str, str]] = []
    rows += [("step", f"`{name}`", plug.summary) for name, plug in STEPS.all().items()]
    rows += [("trigger", f"`{name}`", plug.summary) for name, plug in TRIGGERS.all().items()]
    rows += [("channel", f"`{name}`", plug.summary) for name, plug in CHANNELS.all().items()]
    rows += [("text task", f"`{name}`", plug.summary) for name, plug in TEXT_TASKS.all().items()]
    rows += [("vision task", f"`{name}`", plug.title) for name, plug in TASKS.all().items()]
    rows += [("forecaster", f"`{name}`", _first(plug)) for name, plug in FORECASTERS.all().items()]
    rows += [("predictor", f"`{name}`", _first(plug)) for name, plug in PREDICTORS.all().items()]
    rows += [("benchmark", f"`{name}`", plug.summary) for name, plug in BENCHES.all().items()]
    return table(("kind", "name", "what it is"), rows)


def _first(plug: object) -> str:
    return (type(plug).__doc__ or "").strip().split("\n")[0]


def models() -> str:
    """The starter models."""
    rows = shipped_catalogue().starters()
    return table(("name", "task", "licence"), [(f"`{row.name}`", row.task, row.licence) for row in rows])


def metric_names() -> str:
    """Every metric."""
    return table(("metric", "meaning"), sorted((f"`{m.name}`", m.documentation) for m in metrics.registry.collect()))


def faults() -> str:
    """Every fault of the fake upstream."""
    forms = {"events": "streams of events", "frames": "streams of frames", None: ""}
    rows = [
        (f"`{name}`", fault.told, forms[fault.form] or ("streams" if fault.streams else "all"), fault.outcome)
        for name, fault in FAULTS.items()
    ]
    return table(("fault", "what happens", "concerns", "outcome"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "settings": settings,
    "routes": routes,
    "errors": errors,
    "plugs": plugs,
    "models": models,
    "metrics": metric_names,
    "faults": faults,
}
