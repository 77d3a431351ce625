"""Attempts that failed after their provider had begun to bill: what they cost must not vanish with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from nexus.llm.money.advice import Advised, with_advice
from nexus.llm.money.pricing import cost
from nexus.llm.types import Deployment, Usage


class FailedAttempt(NamedTuple):
    """Where it went, what the provider read and wrote, and how it failed; `reason` is the provider's word for why.

    `others` are models that took part.
    """

    deployment: Deployment
    usage: Usage
    error_code: str | None
    reason: str | None = None
    others: tuple[Advised, ...] = ()

    @property
    def cost(self) -> float | None:
        """Return its dollars, None without a price."""
        return with_advice(cost(self.usage, self.deployment.price), self.others)

    def told(self) -> dict[str, Any]:
        """Return what the ledger's row keeps of it."""
        return {
            "deployment": self.deployment.key,
            "error_code": self.error_code,
            "input_tokens": self.usage.input_tokens,
            "output_tokens": self.usage.output_tokens,
            "estimated": self.usage.estimated,
            "cost_usd": self.cost,
        } | (
            ({"finish_reason": self.reason} if self.reason else {})
            | ({"advice": [other.told() for other in self.others]} if self.others else {})
        )


def tokens_of(failed: Sequence[FailedAttempt], last: Usage | None = None) -> Usage | None:
    """Return the tokens of all of them and of the attempt that answered; None where there are none."""
    if not failed:
        return last
    total = Usage()
    for usage in (*(attempt.usage for attempt in failed), *([last] if last is not None else [])):
        for name in Usage.__struct_fields__:
            if name.endswith("_tokens"):
                setattr(total, name, getattr(total, name) + getattr(usage, name))
        total.estimated |= usage.estimated
    return total


def cost_with(failed: Sequence[FailedAttempt], *more: float | None) -> float | None:
    """Return the dollars of all of them and of `more`; None where any is not known."""
    total = 0.0
    for dollars in (*(attempt.cost for attempt in failed), *more):
        if dollars is None:
            return None
        total += dollars
    return total
