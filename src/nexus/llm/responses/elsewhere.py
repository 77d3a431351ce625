"""Responses that their provider keeps too: asked for there while they are worked on, cancelled and deleted there."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from urllib.parse import quote

import msgspec

from nexus.core.errors import Conflict
from nexus.llm.errors import UnknownResponse, UpstreamRejected
from nexus.llm.service import LLMService
from nexus.llm.tables import ResponseRow
from nexus.llm.types import Timeouts
from nexus.llm.wire.client import HttpRequest
from nexus.llm.wire.openai import OpenAIWire


class Elsewhere:
    """Speaks to the providers of stored responses, outside any call."""

    def __init__(self, llm: LLMService) -> None:
        """Reach providers as `llm` does."""
        self._llm = llm

    async def fetch(self, row: ResponseRow, method: str, end: str = "") -> bytes:
        """Return what a provider says of a response. Raises `UnknownResponse`, `Conflict` or an upstream's error."""
        request, provider = await self._request(row, method, end)
        answer = await self._llm.client.fetch(request, Timeouts())
        if answer.status == 404:
            raise UnknownResponse
        if answer.status != 200:
            error = provider.error(answer)
            raise Conflict("The provider refuses this.") if isinstance(error, UpstreamRejected) else error
        return answer.body

    async def follow(self, row: ResponseRow, after: int) -> AsyncGenerator[bytes]:
        """Yield a provider's own stream of a response that it works on, behind event number `after`."""
        since = f"&starting_after={after}" if after >= 0 else ""
        request, provider = await self._request(row, "GET", f"?stream=true{since}")
        async with self._llm.client.send(request, Timeouts(), stream=True) as answer:
            if answer.status != 200:
                raise provider.error(await answer.whole())
            while data := await answer.next():
                yield data

    async def _request(self, row: ResponseRow, method: str, end: str) -> tuple[HttpRequest, OpenAIWire]:
        name, _, model = (row.held_by or "").partition("/")
        try:
            provider, endpoint = await self._llm.reach(name)
        except KeyError:
            raise UnknownResponse("The provider that keeps this response is not configured any more.") from None
        if not isinstance(provider, OpenAIWire):
            raise UnknownResponse
        request = provider.request(endpoint, f"/responses/{quote(row.id, safe='')}{end}", b"", model)
        return msgspec.structs.replace(request, method=method), provider
