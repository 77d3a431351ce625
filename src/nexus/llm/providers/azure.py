"""Azure OpenAI and Azure AI Foundry: OpenAI's forms at an address of one's own, with Azure's credentials.

Sources: https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle (`base_url` ends in `/openai/v1`) and
https://learn.microsoft.com/azure/ai-foundry/openai/reference (the older form: the resource's address alone; the model
is a deployment's name in the path). Options: those of OpenAI's kind, and

- `api_version`: of the older form, or `preview` for the newer one
- `auth`: `key` (header `api-key`, the usual) or `bearer`, where the key is a token that somebody else renews
- `tenant_id`, `client_id`: an application of Entra ID whose secret is the key; its tokens are fetched and renewed here
- `authority`, `scope`: where and for what such tokens are asked; other clouds have their own
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from nexus.core.secrets import Secret
from nexus.core.services import Services
from nexus.llm.account import Account, Endpoint
from nexus.llm.errors import UpstreamCredentials, UpstreamError
from nexus.llm.providers.openai import OpenAIProvider
from nexus.llm.providers.openai_responses import OpenAIResponsesProvider
from nexus.llm.types import Timeouts
from nexus.llm.wire.client import HttpClient, HttpRequest
from nexus.llm.wire.openai import OpenAIWire
from nexus.llm.wire.upstream_json import json_of

_VERSION = "2024-10-21"
_AUTHORITY = "https://login.microsoftonline.com"
_SCOPE = "https://cognitiveservices.azure.com/.default"
# A token is renewed this many seconds before its end.
_EARLY = 300.0
_BEARER = "nexus.bearer"


class AzureWire(OpenAIWire):
    """Azure's addresses and credentials."""

    base_url = ""
    environment = "AZURE_OPENAI_API_KEY"

    async def endpoint(self, account: Account, services: Services) -> Endpoint:
        """Return where the calls go; an application gets its token first. Raises `UpstreamError`."""
        if not account.base_url:
            raise UpstreamError("The address (base_url) of this resource is not configured.")
        options = dict(account.options)
        if "tenant_id" not in options:
            options[_BEARER] = options.get("auth") == "bearer"
            return Endpoint(base_url=account.base_url, secret=account.secret, options=options)
        token, seconds = await _token(account, services.get(HttpClient))
        options[_BEARER] = True
        expires_at = asyncio.get_running_loop().time() + max(60.0, seconds - _EARLY)
        return Endpoint(base_url=account.base_url, secret=Secret(token), options=options, expires_at=expires_at)

    def request(
        self, endpoint: Endpoint, path: str, body: bytes, model: str, more: tuple[tuple[bytes, bytes], ...] = ()
    ) -> HttpRequest:
        """Write a request to the endpoint at `path` for the deployment `model`."""
        bare = msgspec.structs.replace(endpoint, base_url=_place(endpoint, path, model))
        request = super().request(bare, _with_version(endpoint, path), body, model, more)
        if endpoint.secret is None or endpoint.options.get(_BEARER):
            return request
        headers = tuple(pair for pair in request.headers if pair[0] != "authorization")
        return msgspec.structs.replace(request, headers=(*headers, ("api-key", endpoint.secret.reveal())))


class AzureResponses(AzureWire, OpenAIResponsesProvider):
    """Responses at Azure."""


class AzureProvider(AzureWire, OpenAIProvider):
    """Chat completions at Azure, and what lies beside them."""

    responses = AzureResponses

    def _has(self, account: Account, endpoint: str, missing: set[str]) -> bool:
        told = account.options.get(endpoint)
        return told if isinstance(told, bool) else endpoint == "responses" and _is_v1(account.base_url)


def _is_v1(base_url: str) -> bool:
    return base_url.endswith("/v1")


def _place(endpoint: Endpoint, path: str, model: str) -> str:
    """Return what comes before `path`: in the older form the deployment is named there."""
    base = endpoint.base_url
    if _is_v1(base) or "/deployments/" in base:
        return base
    root = base.removesuffix("/openai") + "/openai"
    return root if path.startswith("/responses") else f"{root}/deployments/{quote(model, safe='')}"


def _with_version(endpoint: Endpoint, path: str) -> str:
    version = endpoint.options.get("api_version") or (None if _is_v1(endpoint.base_url) else _VERSION)
    if version is None:
        return path
    return f"{path}{'&' if '?' in path else '?'}{urlencode({'api-version': version})}"


async def _token(account: Account, client: HttpClient) -> tuple[str, float]:
    """Ask for a token of the application; return it and its life in seconds. Raises `UpstreamCredentials`."""
    options: dict[str, Any] = account.options
    form = {
        "grant_type": "client_credentials",
        "client_id": str(options.get("client_id", "")),
        "client_secret": account.secret.reveal() if account.secret is not None else "",
        "scope": str(options.get("scope", _SCOPE)),
    }
    authority = str(options.get("authority", _AUTHORITY)).rstrip("/")
    request = HttpRequest(
        url=f"{authority}/{quote(str(options['tenant_id']), safe='')}/oauth2/v2.0/token",
        body=urlencode(form).encode(),
        headers=(("content-type", "application/x-www-form-urlencoded"),),
    )
    answer = await client.fetch(request, Timeouts(total=30))
    told = json_of(answer.body) if answer.status == 200 else {}
    token, seconds = told.get("access_token"), told.get("expires_in")
    if not isinstance(token, str) or not token:
        raise UpstreamCredentials
    return token, float(seconds) if isinstance(seconds, int | float) else 3600.0


plug = AzureProvider()
