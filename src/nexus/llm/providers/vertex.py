"""Vertex AI: Gemini and embedding models in Google's form, Claude in Anthropic's, other publishers by their full name.

Source: https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest. Options: `project`, `location` (default
`global`), `credentials` (see `credentials.google`), `headers`. An `api_key` that is no JSON is one of express mode,
which needs no project.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final
from urllib.parse import quote

import msgspec

from nexus.core.errors import NexusError
from nexus.core.services import Services
from nexus.llm.account import Account, Endpoint
from nexus.llm.credentials.google import GoogleTokens, NoGoogleCredentials
from nexus.llm.errors import InvalidRequest, retry_after_seconds
from nexus.llm.forms.chat.embeddings import refuse_rest
from nexus.llm.forms.gemini import embeddings as gemini_embeddings
from nexus.llm.forms.gemini import requests as gemini_requests
from nexus.llm.forms.gemini.errors import read_error, told_in
from nexus.llm.forms.gemini.names import camel
from nexus.llm.provider import Provider
from nexus.llm.providers.anthropic import AnthropicProvider
from nexus.llm.providers.google import GoogleProvider
from nexus.llm.settings import surroundings
from nexus.llm.types import Call, Embedding, EmbeddingRequest
from nexus.llm.wire.client import HttpAnswer, HttpClient, HttpRequest

_LOCATION: Final = re.compile(r"[a-z][a-z0-9-]{0,40}")
_MESSAGES_VERSION: Final = "vertex-2023-10-16"
_VERSIONED: Final = re.compile(r"/v\d[a-z0-9]*$")
_EARLY: Final = 300.0  # seconds before a token's end at which a new one is asked for
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode


async def find_endpoint(account: Account, services: Services) -> Endpoint:
    """Find address, project and token of an account. Raises `NoGoogleCredentials`."""
    options = account.options
    around = await asyncio.to_thread(surroundings, "GOOGLE_CLOUD_")
    location = str(options.get("location") or around.variables.get("GOOGLE_CLOUD_LOCATION") or "global")
    if not _LOCATION.fullmatch(location):
        raise NoGoogleCredentials("The location that is set for this provider is none.")
    base = account.base_url or address_of(location)
    secret = account.secret
    if secret is not None and not secret.reveal().lstrip().startswith("{"):
        return Endpoint(base_url=base, secret=secret, options=options | {"express": True})
    if GoogleTokens not in services:
        services.put(GoogleTokens(services.get(HttpClient)))
    token = await services.get(GoogleTokens).find(account.name, options, secret)
    project = options.get("project") or around.variables.get("GOOGLE_CLOUD_PROJECT") or token.project
    if not project:
        raise NoGoogleCredentials("There is no project set for this provider.")
    found: dict[str, Any] = {"parent": f"projects/{quote(str(project), safe='')}/locations/{location}"}
    if token.quota_project:
        found["headers"] = {"x-goog-user-project": token.quota_project} | options.get("headers", {})
    left = token.lifetime - min(_EARLY, token.lifetime / 2)
    return Endpoint(
        base_url=base,
        secret=token.secret,
        options=options | found,
        expires_at=asyncio.get_running_loop().time() + left,
    )


def address_of(location: str) -> str:
    """Return where the models of a location are served: one place in the world, of a continent, or of a region."""
    if location == "global":
        return "https://aiplatform.googleapis.com"
    if location in ("us", "eu"):
        return f"https://aiplatform.{location}.rep.googleapis.com"
    return f"https://{location}-aiplatform.googleapis.com"


def place_of(endpoint: Endpoint, model: str, publisher: str, version: str) -> str:
    """Return the URL of a model: by its name at the publisher, or by its full name as a resource.

    Raises `InvalidRequest` for a name that cannot be one.
    """
    parts = model.split("/")
    if len(parts) == 1:
        parts = [*publisher.split("/"), "models", model]
    elif len(parts) == 2:
        parts = ["publishers", parts[0], "models", parts[1]]
    if any(part in ("", ".", "..") for part in parts):
        raise InvalidRequest("This is no name of a model.", field="model")
    path = "/".join(quote(part, safe="@") for part in parts)
    base, parent = endpoint.base_url, endpoint.options.get("parent")
    if not _VERSIONED.search(base):
        base = f"{base}/{version}"
    return f"{base}/{path}" if parent is None or parts[0] == "projects" else f"{base}/{parent}/{path}"


def credential_of(endpoint: Endpoint) -> list[tuple[str, str]]:
    """Return the header that opens the door."""
    if endpoint.secret is None:
        return []
    if endpoint.options.get("express"):
        return [("x-goog-api-key", endpoint.secret.reveal())]
    return [("authorization", f"Bearer {endpoint.secret.reveal()}")]


class VertexProvider(GoogleProvider):
    """Google's own models."""

    base_url = ""
    environment = None

    async def endpoint(self, account: Account, services: Services) -> Endpoint:
        """Exchange credentials for a token. Raises `NoGoogleCredentials`."""
        return await find_endpoint(account, services)

    def serving(self, account: Account, model: str, call: Call) -> Provider:
        """Return the codec for this model: that of Anthropic's form for Claude."""
        return _CLAUDE if model.rpartition("/")[2].startswith("claude") else self

    def embed(self, endpoint: Endpoint, model: str, request: EmbeddingRequest) -> HttpRequest:
        """Write an embedding request, in the newer form for models that have it, else in the older one."""
        refuse_rest(request)
        if not _embeds_content(model):
            body = gemini_embeddings.write_predict(request)
            return self._post(endpoint, model, "predict", _encode(body))
        if request.dialect == gemini_embeddings.DIALECT and request.form == gemini_embeddings.ONE:
            return self._post(endpoint, model, request.form, self._own(request.body, model))
        return self._post(endpoint, model, gemini_embeddings.ONE, _encode(gemini_embeddings.write_one(request)))

    def embedding(self, answer: HttpAnswer, request: EmbeddingRequest) -> Embedding:
        """Read an embedding answer; the older form is not one that clients speak."""
        if b'"predictions"' in answer.body or request.form != gemini_embeddings.ONE:
            request = msgspec.structs.replace(request, dialect="")
        return super().embedding(answer, request)

    def most_inputs(self, endpoint: Endpoint, model: str) -> int | None:
        """Return how many texts one request may have: the newest models take one."""
        return 1 if _embeds_content(model) or "gemini-embedding" in model else 250

    def count(self, endpoint: Endpoint, model: str, call: Call) -> HttpRequest | None:
        """Write a request that counts tokens; here it is not wrapped."""
        if call.dialect != self.dialect:
            body = _encode(gemini_requests.write_request(call.parse(), model))
            return self._post(endpoint, model, "countTokens", body)
        told = _fields.decode(call.body)
        wrapped = next((value for name, value in told.items() if camel(name) == "generateContentRequest"), None)
        body = call.body if wrapped is None else bytes(wrapped)
        return self._post(endpoint, model, "countTokens", self._own(body, model), "", call.headers)

    def _own(self, body: bytes, model: str) -> bytes:
        """Return a body of this dialect without the name that some repeat, which is written otherwise here."""
        told = _fields.decode(body)
        return _encode({name: value for name, value in told.items() if name != "model"}) if "model" in told else body

    def _place(self, endpoint: Endpoint, model: str) -> str:
        return place_of(endpoint, model.removeprefix("models/"), "publishers/google", "v1beta1")

    def _credential(self, endpoint: Endpoint) -> list[tuple[str, str]]:
        return credential_of(endpoint)


def _embeds_content(model: str) -> bool:
    """Tell whether a model embeds contents, and not instances as the older ones do."""
    name = model.rpartition("/")[2]
    older = name.startswith(("gemini-embedding-001", "gemini-embedding-exp"))
    return ("gemini" in name and not older) or "maas" in name


class ClaudeOnVertex(AnthropicProvider):
    """Claude, in the Messages form: the model stands in the path, the version of the form in the body."""

    base_url = ""

    async def endpoint(self, account: Account, services: Services) -> Endpoint:
        """Exchange credentials for a token. Raises `NoGoogleCredentials`."""
        return await find_endpoint(account, services)

    def chat(self, endpoint: Endpoint, model: str, call: Call) -> HttpRequest:
        """Write a chat request; of a call in the Messages form every field but the model's name is kept."""
        return self._predict(endpoint, model, super().chat(endpoint, model, call), stream=call.stream)

    def count(self, endpoint: Endpoint, model: str, call: Call) -> HttpRequest:
        """Write a request that counts tokens: here a model of its own does, and is told for which."""
        asked = super().count(endpoint, model.rpartition("/")[2], call)
        return self._predict(endpoint, "count-tokens", asked, keeps_model=True)

    def error(self, answer: HttpAnswer) -> NexusError:
        """Turn an error answer into ours: Anthropic's, or one of Google's own servers before it."""
        told = told_in(answer.body)
        if "status" not in told:
            return super().error(answer)
        after = retry_after_seconds(answer.headers.get("retry-after"))
        return read_error(told, status=answer.status, retry_after=after)

    def _predict(
        self, endpoint: Endpoint, model: str, asked: HttpRequest, *, stream: bool = False, keeps_model: bool = False
    ) -> HttpRequest:
        """Turn a request to Anthropic itself into one to Vertex AI."""
        body = _fields.decode(asked.body) | {"anthropic_version": msgspec.Raw(_encode(_MESSAGES_VERSION))}
        if not keeps_model:
            del body["model"]
        headers = [item for item in asked.headers if item[0] not in ("x-api-key", "authorization", "anthropic-version")]
        operation = "streamRawPredict" if stream else "rawPredict"
        return HttpRequest(
            url=f"{place_of(endpoint, model, 'publishers/anthropic', 'v1')}:{operation}",
            body=_encode(body),
            headers=(*headers, *credential_of(endpoint)),
        )


_CLAUDE = ClaudeOnVertex()
plug = VertexProvider()
