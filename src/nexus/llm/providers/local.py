"""The built-in chat model: llama.cpp's own server in a child process, spoken to like any other provider."""

from __future__ import annotations

from nexus.core.services import Services
from nexus.llm.account import Account, Endpoint
from nexus.llm.local.children import MODEL, LocalChildren
from nexus.llm.local.runtime import LocalRuntime
from nexus.llm.providers.openai import OpenAIProvider
from nexus.llm.types import Capabilities


class LocalProvider(OpenAIProvider):
    """The child found by `LocalRuntime`, or for a model of the catalogue or a project by `LocalChildren`.

    Tools are refused here because llama.cpp ignores them in silence with a model whose template has none;
    several choices because it then counts the tokens of one only (research: local_llm section 2.2).
    """

    base_url = "http://local.invalid/v1"
    capabilities = Capabilities(
        tools=False, images=False, audio=False, documents=False, choices=False, reasoning=False, demo=True
    )

    async def endpoint(self, account: Account, services: Services) -> Endpoint:
        """Wait for the child of the account's model, or of the built-in one.

        Raises `LocalModelUnavailable`, `LocalModelsBusy`.
        """
        model = account.options.get(MODEL)
        child = await (services.get(LocalRuntime).find() if model is None else services.get(LocalChildren).find(model))
        return Endpoint(base_url=f"{child.address}/v1", secret=child.key)


plug = LocalProvider()
