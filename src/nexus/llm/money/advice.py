"""What other models than the one that was asked cost: a provider's own tool may let one advise it in the same call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from nexus.llm.money.pricing import cost
from nexus.llm.types import Deployment, Price, Usage

PriceOf = Callable[[Deployment, str], Price | None]
"""Returns what another model costs that a deployment's provider makes use of, None where that is not known."""


class Advised(NamedTuple):
    """What one model added: its tokens and dollars, `guessed` by the price of the model that was asked."""

    model: str
    usage: Usage
    dollars: float | None
    guessed: bool

    def told(self) -> dict[str, Any]:
        """Return what the ledger's row keeps of it."""
        return {
            "model": self.model,
            "input_tokens": self.usage.input_tokens,
            "output_tokens": self.usage.output_tokens,
            "cost_usd": self.dollars,
            "estimated": self.guessed,
        }


def advised(usage: Usage, deployment: Deployment, price_of: PriceOf | None) -> list[Advised]:
    """Return what other models had to do with a call to a deployment."""
    found = []
    for advice in usage.advice:
        price = price_of(deployment, advice.model) if price_of is not None else None
        dollars = cost(advice.usage, price or deployment.price)
        found.append(Advised(advice.model, advice.usage, dollars, price is None))
    return found


def with_advice(dollars: float | None, others: Sequence[Advised]) -> float | None:
    """Return the dollars of a call with those of the other models; None where any is not known."""
    for other in others:
        if dollars is None or other.dollars is None:
            return None
        dollars += other.dollars
    return dollars
