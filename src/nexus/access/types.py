"""Who asks, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from nexus.core.errors import Forbidden


class Scope(StrEnum):
    """One right. A key carries some; a role stands for a set of them."""

    LLM_INVOKE = "llm:invoke"
    VISION_INVOKE = "vision:invoke"
    ANALYTICS_READ = "analytics:read"
    ANALYTICS_TRAIN = "analytics:train"
    ANALYTICS_PREDICT = "analytics:predict"
    MODELS_READ = "models:read"
    MODELS_MANAGE = "models:manage"
    FILES_READ = "files:read"
    FILES_WRITE = "files:write"
    SEARCH_READ = "search:read"
    SEARCH_WRITE = "search:write"
    AUTOMATION_READ = "automation:read"
    AUTOMATION_WRITE = "automation:write"
    AUTOMATION_RUN = "automation:run"
    AUTOMATION_APPROVE = "automation:approve"
    HISTORY_READ = "history:read"
    USAGE_READ = "usage:read"
    METRICS_READ = "metrics:read"
    KEYS_MANAGE = "keys:manage"
    ADMIN = "admin"


BudgetPeriod = Literal["day", "month", "total"]


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What an API key may use at most; None is no limit of the key's own.

    `rpm` and `tpm` are requests and tokens per minute, `parallel` is calls in flight, the budget
    is in US dollars per `budget_period`.
    """

    rpm: int | None = None
    tpm: int | None = None
    parallel: int | None = None
    budget_usd: float | None = None
    budget_period: BudgetPeriod = "month"


NO_LIMITS = KeyLimits()


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking: an API key, a signed-in user, or NEXUS itself on somebody's behalf.

    Every query is bound to `project_id`; there is no way to ask without one. `models` is the
    key's allow-list of model and route names (None allows all, `*` ends a prefix).
    """

    kind: Literal["key", "session", "system"]
    id: str
    project_id: str
    scopes: frozenset[Scope] = field(default_factory=frozenset)
    user_id: str | None = None
    key_id: str | None = None
    models: tuple[str, ...] | None = None
    limits: KeyLimits = NO_LIMITS

    def may_use_model(self, name: str) -> bool:
        """Tell whether the key's allow-list admits the model or route called `name`."""
        if self.models is None:
            return True
        return any(name.startswith(entry[:-1]) if entry.endswith("*") else name == entry for entry in self.models)

    def may(self, scope: Scope) -> bool:
        """Tell whether this principal has the right, `admin` having all."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def require(self, scope: Scope) -> None:
        """Raise `Forbidden`, naming the missing scope, unless the principal has it."""
        if not self.may(scope):
            raise Forbidden(f"This needs the scope {scope.value}.", scope=scope.value)
