"""Which language model may be asked for what must be right: never the built-in one, which is for demonstrations."""

from __future__ import annotations

from typing import Literal, overload

from nexus.automation.errors import ModelRequired
from nexus.llm.registry import LOCAL
from nexus.llm.service import LLMService

_HOW = "Configure a provider and name one of its models (docs/providers.md)"


@overload
def real_model(llm: LLMService, wanted: str | None, *, required: Literal[True] = True) -> str: ...
@overload
def real_model(llm: LLMService, wanted: str | None, *, required: Literal[False]) -> str | None: ...
def real_model(llm: LLMService, wanted: str | None, *, required: bool = True) -> str | None:
    """Return `wanted`, or the first chat route of one's own.

    Without either, or for a demo model: None, or with `required` raises `ModelRequired`. Raises `UnknownModel`.
    """
    if wanted is not None:
        route = llm.registry.find(wanted)
        # `provider/model` reaches the same model by another name.
        if not route.built_in and all(deployment.model != LOCAL for deployment in route.deployments):
            return wanted
        why = f"The model {wanted[:80]} is for demonstrations only."
    else:
        routes = llm.registry.routes.values()
        found = next((route.name for route in routes if route.task == "chat" and not route.built_in), None)
        if found is not None:
            return found
        why = "No real language model is configured."
    if required:
        raise ModelRequired(f"{why} {_HOW}.", field="model")
    return None
