"""What a call may take of its caller's limits: estimated and reserved before it goes anywhere."""

from __future__ import annotations

from nexus.access.types import Principal
from nexus.ledger.limiter import Hold, Limiter
from nexus.llm.accounting import Entry
from nexus.llm.pricing import cost
from nexus.llm.registry import Registry
from nexus.llm.types import Call, Usage

_CHARACTERS_PER_TOKEN = 4


class Admission:
    """Reserves for chats and embeddings; without a limiter nothing is limited."""

    def __init__(self, limiter: Limiter | None, registry: Registry, *, answer_tokens: int) -> None:
        """`answer_tokens` is what an answer is taken for where the call sets no limit of its own."""
        self._limiter = limiter
        self._registry = registry
        self._answer_tokens = answer_tokens

    def open(self, principal: Principal) -> Hold | None:
        """Return what must be admitted before the caller's next call, None where nothing limits them."""
        return None if self._limiter is None else self._limiter.open(principal)

    async def chat(self, call: Call, entry: Entry) -> None:
        """Reserve for a chat. Raises `RateLimitExceeded` or `BudgetExceeded`."""
        if entry.hold is not None:
            most = self._answer_tokens if call.max_tokens is None else call.max_tokens
            await self._reserve(entry.hold, entry.project, call.model, entry.characters, most * call.choices)

    async def embedding(self, model: str, entry: Entry) -> None:
        """Reserve for an embedding. Raises as `chat` does."""
        if entry.hold is not None:
            await self._reserve(entry.hold, entry.project, model, entry.characters, 0, task="embedding")

    async def count(self, entry: Entry) -> None:
        """Reserve for a count of tokens, which takes none. Raises as `chat` does."""
        if entry.hold is not None:
            await entry.hold.admit()

    async def _reserve(
        self, hold: Hold, project: str, model: str, characters: int, output: int, *, task: str = "chat"
    ) -> None:
        usage = Usage(input_tokens=-(-characters // _CHARACTERS_PER_TOKEN), output_tokens=output)
        dollars = 0.0
        if hold.counts_dollars:
            # Nobody knows yet where the call will end; the dearest place of its route is the one to be ready for.
            places = (await self._registry.priced(model, task=task, project=project)).deployments
            dollars = max(cost(usage, place.price) or 0.0 for place in places)
        await hold.admit(usage.input_tokens + output, dollars)
