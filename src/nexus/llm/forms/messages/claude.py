"""What the generations of Claude models take, told from their names; every host names them by the same pattern.

Source: https://platform.claude.com/docs/en/about-claude/models/overview, .../build-with-claude/extended-thinking,
.../adaptive-thinking and .../effort. A name without a version in it is taken for a server that merely speaks the
Messages form.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from nexus.llm.errors import Unsupported
from nexus.llm.forms.wishes import check_effort
from nexus.llm.types import ChatRequest, Reasoning

_NAME = re.compile(r"claude-(?:(?P<line>[a-z]+)-)?(?P<major>\d)(?:[-.](?P<minor>\d)(?!\d))?")
# From which version on the models of a line always think, and refuse to be held to a tool.
_ALWAYS = {"fable": (5, 0), "opus": (5, 5), "sonnet": (5, 5)}
_UNBOUND = {"fable": (5, 1), "opus": (5, 5), "sonnet": (5, 5)}
_NEVER = (99, 0)
# Thinking tokens for an effort by name, and the least that may be asked for.
_BUDGETS = {"low": 4096, "medium": 8192, "high": 16_384, "xhigh": 32_000, "max": 32_000}
_LEAST_BUDGET = 1024
_LEAST_TOP_P = 0.95


class Claude(NamedTuple):
    """One generation: how it is told to think, its highest effort by name, how long an answer to ask for unasked.

    One that `always` thinks refuses to be told not to; an `unbound` one refuses to be held to a tool.
    """

    thinking: Literal["none", "budget", "adaptive"]
    highest_effort: Literal["max", "xhigh"]
    answer_tokens: int
    always: bool = False
    unbound: bool = False


@lru_cache(maxsize=1024)
def claude(model: str) -> Claude:
    """Return what the model of this name takes."""
    found = _NAME.search(model)
    if found is None:
        return Claude("budget", "max", 8192)
    version = int(found["major"]), int(found["minor"] or 0)
    if version < (3, 5):
        return Claude("none", "max", 4096)
    if version < (3, 7):
        return Claude("none", "max", 8192)
    if version < (4, 6):
        return Claude("budget", "max", 32_000)
    line = found["line"] or ""
    always, unbound = version >= _ALWAYS.get(line, _NEVER), version >= _UNBOUND.get(line, _NEVER)
    return Claude("adaptive", "max" if version < (4, 7) else "xhigh", 32_000, always, unbound)


def refuse_sampling(request: ChatRequest) -> None:
    """Raise `Unsupported` for what no Claude takes while it thinks: a cool temperature, a low `top_p`, a `top_k`.

    Source: https://platform.claude.com/docs/en/build-with-claude/extended-thinking#feature-compatibility.
    """
    asked = {
        "temperature": request.temperature is not None and request.temperature < 1,
        "top_p": request.top_p is not None and request.top_p < _LEAST_TOP_P,
        "top_k": request.top_k is not None,
    }
    for field, value in asked.items():
        if value:
            raise Unsupported(f"The model {request.model} does not support this {field} while it thinks.", field=field)


def effort_of(budget: int) -> str:
    """Return the effort by name that comes nearest to a budget of thinking tokens."""
    return "low" if budget <= _BUDGETS["low"] else "medium" if budget <= _BUDGETS["medium"] else "high"


def thinking_fields(asked: Reasoning, model: str, *, max_tokens: int | None, free: bool) -> dict[str, Any]:
    """Return the fields `thinking` and `effort` for what was asked, as far as this generation takes them.

    Without `free` the request binds the model to a tool, or lacks the sealed thoughts before its last tool
    calls: a budget would be refused then, and is left out, since it is a leave and no demand. Raises
    `Unsupported` for a generation that does not think.
    """
    check_effort(asked.effort)
    able = claude(model)
    off = asked.effort == "none" or asked.budget_tokens == 0
    if able.thinking == "adaptive":
        return _adaptive(asked, able, off=off)
    if off or asked.effort == "minimal" or (asked.effort is None and asked.budget_tokens is None):
        return {}
    if able.thinking == "none":
        raise Unsupported(f"The model {model} does not reason.", field="reasoning_effort")
    budget = asked.budget_tokens if asked.budget_tokens is not None and asked.budget_tokens > 0 else None
    budget = max(_BUDGETS.get(asked.effort or "", _BUDGETS["medium"]) if budget is None else budget, _LEAST_BUDGET)
    if max_tokens is not None:
        budget = min(budget, max_tokens * 3 // 4)
    if budget < _LEAST_BUDGET or not free:
        return {}
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}


def _adaptive(asked: Reasoning, able: Claude, *, off: bool) -> dict[str, Any]:
    if off:
        return {"effort": "low"} if able.always else {"thinking": {"type": "disabled"}}
    effort = {"minimal": "low", "xhigh": able.highest_effort}.get(asked.effort or "", asked.effort)
    out: dict[str, Any] = {"effort": effort} if effort else {}
    if asked.effort != "minimal":
        shown = {"display": "summarized"} if asked.summary not in (None, "none") else {}
        out["thinking"] = {"type": "adaptive"} | shown
    return out
