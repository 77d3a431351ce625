"""What a call may take of its caller's limits: estimated and reserved before it goes anywhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator

from nexus.access.types import Principal
from nexus.ledger.limiter import Hold, Limiter
from nexus.llm.money.accounting import Entry
from nexus.llm.money.pricing import cost
from nexus.llm.registry import Registry
from nexus.llm.types import Call, Route, Usage

_CHARACTERS_PER_TOKEN = 4


class _AtOnce:
    """What is over as soon as it is awaited: most calls are admitted without waiting for anything."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


_DONE = _AtOnce()


class Admission:
    """Reserves for chats and embeddings; without a limiter nothing is limited."""

    def __init__(self, limiter: Limiter | None, registry: Registry, *, answer_tokens: int) -> None:
        """`answer_tokens` is what an answer is taken for where the call sets no limit of its own."""
        self.open: Callable[[Principal], Hold | None] = limiter.open if limiter is not None else _unlimited
        """Returns what must be admitted before the caller's next call, None where nothing limits them."""
        self._registry = registry
        self._answer_tokens = answer_tokens

    def chat(self, call: Call, entry: Entry, route: Route | None) -> Awaitable[None]:
        """Reserve for a chat, whose route may be at hand. Raises `RateLimitExceeded` or `BudgetExceeded`."""
        hold = entry.hold
        if hold is None:
            return _DONE
        most = call.max_tokens
        if most is None:
            most = self._answer_tokens
        usage = Usage(input_tokens=-(-entry.characters // _CHARACTERS_PER_TOKEN), output_tokens=most * call.choices)
        dollars = 0.0
        if hold.account.budgets:
            if route is None:
                return self._reserve(hold, entry.project, call.model, usage)
            dollars = _dearest(route, usage)
        tokens = usage.input_tokens + usage.output_tokens
        return _DONE if hold.reserve(tokens, dollars) else hold.admit(tokens, dollars)

    async def embedding(self, model: str, entry: Entry) -> None:
        """Reserve for an embedding. Raises as `chat` does."""
        if entry.hold is not None:
            usage = Usage(input_tokens=-(-entry.characters // _CHARACTERS_PER_TOKEN))
            await self._reserve(entry.hold, entry.project, model, usage, task="embedding")

    async def count(self, entry: Entry) -> None:
        """Reserve for a count of tokens, which takes none. Raises as `chat` does."""
        if entry.hold is not None:
            await entry.hold.admit()

    async def _reserve(self, hold: Hold, project: str, model: str, usage: Usage, *, task: str = "chat") -> None:
        dollars = 0.0
        if hold.account.budgets:
            dollars = _dearest(await self._registry.priced(model, task=task, project=project), usage)
        await hold.admit(usage.input_tokens + usage.output_tokens, dollars)


def _unlimited(_principal: Principal) -> None:
    """Limit nobody."""


def _dearest(route: Route, usage: Usage) -> float:
    """Return the most that the call may cost: nobody knows yet at which place of its route it will end."""
    most = 0.0
    for place in route.deployments:
        dollars = cost(usage, place.price)
        if dollars is not None and dollars > most:
            most = dollars
    return most
