"""AWS Bedrock: chat by Converse and ConverseStream, embeddings by InvokeModel, tokens by CountTokens.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_Operations_Amazon_Bedrock_Runtime.html. A model is
an id, an inference profile or an ARN. Calls are signed with the credentials that AWS's own tools would find
(`aws_credentials`), or carry a Bedrock API key as `api_key`. Options: `region`; `access_key_id`, `secret_access_key`
and `session_token`; `profile`; `role_arn` with `external_id`; `family` where an ARN does not name its model's maker;
`guardrailConfig`, which then holds for every call; `headers`.
"""

from __future__ import annotations

import asyncio
import re
import struct
import time
from typing import Any, Final
from urllib.parse import quote

import msgspec

from nexus.core.errors import NexusError, TooLarge
from nexus.core.ids import new_id
from nexus.core.services import Services
from nexus.llm import converse_json, invoke_embeddings
from nexus.llm.account import Account, Endpoint
from nexus.llm.aws_credentials import CredentialSource, domain_of, region_of
from nexus.llm.client import HttpAnswer, HttpClient, HttpRequest
from nexus.llm.converse_answers import EventReader, read_completion
from nexus.llm.converse_families import Family, family_of, plain_name
from nexus.llm.errors import (
    ContextTooLong,
    UpstreamCredentials,
    UpstreamError,
    UpstreamMalformed,
    UpstreamModelMissing,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamTruncated,
    UpstreamUnavailable,
    from_status,
    retry_after_seconds,
)
from nexus.llm.eventstream import Frame, FrameSplitter
from nexus.llm.provider import Decoder, Provider
from nexus.llm.settings import surroundings
from nexus.llm.sigv4 import AwsCredentials, signed
from nexus.llm.types import Call, Capabilities, Chunk, Completion, Embedding, EmbeddingRequest, Tally

_any = msgspec.json.Decoder()
_encode = msgspec.json.Encoder().encode
_SERVICE: Final = "bedrock"
# Files and the environment are read again so often; credentials that expire are renewed before they do.
_REREAD: Final = 300.0
_CREDENTIALS: Final = (
    "AccessDenied",
    "ExpiredToken",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidSignature",
    "MissingAuthenticationToken",
    "NotAuthorized",
    "OptInRequired",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClient",
)
_TOO_MANY: Final = ("Throttl", "TooManyRequests", "ServiceQuotaExceeded", "RequestLimitExceeded")
_PASSING: Final = ("ModelNotReady", "ServiceUnavailable", "InternalServer", "InternalFailure", "ModelStreamError")
_TOO_LONG: Final = re.compile(
    r"too long|too many (?:input )?tokens|exceeds? the (?:maximum|model|context)|maximum context"
    r"|maximum tokens you requested|context (?:length|window|limit)|input tokens? exceed",
    re.IGNORECASE,
)
_NAMES: Final = re.compile(r"arn:aws[\w-]*:[^\s\"',;)]*|\b\d{12}\b")


class BedrockProvider(Provider):
    """Models behind the Bedrock runtime."""

    dialect = converse_json.DIALECT
    environment = "AWS_BEARER_TOKEN_BEDROCK"
    capabilities = Capabilities(choices=False, logprobs=False)

    def __init__(self, model: str = "", family: Family | None = None, shown: str = "") -> None:
        """`model` of `family` answers under the name `shown`; without them this is the kind as such."""
        self._model = model
        self._family = family
        self._shown = shown

    async def endpoint(self, account: Account, services: Services) -> Endpoint:
        """Find region and credentials. Raises `UpstreamCredentials` where there are none."""
        options = account.options
        around = await asyncio.to_thread(surroundings, "AWS_")
        region = await asyncio.to_thread(region_of, options, account.base_url, around)
        url = account.base_url or f"https://bedrock-runtime.{region}.{domain_of(region)}"
        now = asyncio.get_running_loop().time()
        if account.secret is not None and not options.get("access_key_id"):
            return Endpoint(base_url=url, secret=account.secret, options=options | {"region": region})
        if CredentialSource not in services:
            services.put(CredentialSource(services.get(HttpClient)))
        given = options
        if account.secret is not None and not options.get("secret_access_key"):
            given = options | {"secret_access_key": account.secret.reveal()}
        found = await services.get(CredentialSource).find(account.name, given, region=region)
        left = _REREAD if found.expires_at is None else found.expires_at - time.time()
        return Endpoint(
            base_url=url,
            secret=found.secret_access_key,
            options=options | {"region": region, "credentials": found},
            expires_at=now + max(left - min(_REREAD, left / 4), 1.0) if found.expires_at else now + _REREAD,
        )

    def serving(self, account: Account, model: str, call: Call) -> Provider:
        """Return the codec for this model, which answers under the name that the client asked for."""
        return BedrockProvider(model, family_of(model, account.options.get("family")), call.model)

    def chat(self, endpoint: Endpoint, model: str, call: Call) -> HttpRequest:
        """Write a chat request. Raises what `converse_json.write_request` does."""
        body = self._converse(endpoint, model, call)
        return self._post(endpoint, model, "converse-stream" if call.stream else "converse", body)

    def completion(self, answer: HttpAnswer) -> Completion:
        """Read a whole answer."""
        name = answer.headers.get("x-amzn-requestid") or new_id("msg")
        try:
            return read_completion(_json(answer.body), name=name, model=self._shown)
        except (KeyError, TypeError, AttributeError, ValueError):
            raise UpstreamMalformed from None

    def decoder(self, call: Call) -> Decoder:
        """Return a reader for one stream."""
        structured = False
        if self._family is not None and "json_schema" in call.needs:
            structured = converse_json.answers_by_tool(call.parse(), self._model, self._family)
        return ConverseDecoder(structured=structured)

    def embed(self, endpoint: Endpoint, model: str, request: EmbeddingRequest) -> HttpRequest:
        """Write an embedding request; the models differ. Raises `Unsupported` for one that makes none."""
        return self._post(endpoint, model, "invoke", invoke_embeddings.write_request(model, request))

    def most_inputs(self, endpoint: Endpoint, model: str) -> int | None:
        """Return how many texts the model takes at once."""
        return invoke_embeddings.most_texts(model)

    def embedding(self, answer: HttpAnswer, request: EmbeddingRequest) -> Embedding:
        """Read an embedding answer."""
        try:
            return invoke_embeddings.read_answer(_json(answer.body), answer.headers, request.model)
        except (KeyError, TypeError, ValueError, AttributeError, struct.error):
            raise UpstreamMalformed from None

    def count(self, endpoint: Endpoint, model: str, call: Call) -> HttpRequest | None:
        """Write a request that counts tokens, for the models that can: they want their own name, of no profile."""
        if not family_of(model, endpoint.options.get("family")).counts_tokens or "application-" in model:
            return None
        body = converse_json.write_count(self._converse(endpoint, model, call))
        return self._post(endpoint, plain_name(model), "count-tokens", body)

    def counted(self, answer: HttpAnswer) -> int:
        """Read the answer to `count`."""
        tokens = _json(answer.body).get("inputTokens")
        if not isinstance(tokens, int):
            raise UpstreamMalformed
        return tokens

    def error(self, answer: HttpAnswer) -> NexusError:
        """Turn an error answer into ours; what is said of the caller's fault is kept, free of account numbers."""
        told = _told(answer.body)
        kind = answer.headers.get("x-amzn-errortype") or told.get("__type") or told.get("code") or ""
        after = retry_after_seconds(answer.headers.get("retry-after"))
        return error_of(str(kind), told.get("message", told.get("Message")), status=answer.status, retry_after=after)

    def _converse(self, endpoint: Endpoint, model: str, call: Call) -> dict[str, Any]:
        family = self._family or family_of(model, endpoint.options.get("family"))
        body = converse_json.write_request(call.parse(), model, family, fields=call.fields)
        if (guard := endpoint.options.get("guardrailConfig")) is not None:
            body["guardrailConfig"] = guard
        return body

    def _post(self, endpoint: Endpoint, model: str, action: str, told: dict[str, Any]) -> HttpRequest:
        options = endpoint.options
        url = f"{endpoint.base_url}/model/{quote(model, safe='-._~')}/{action}"
        headers: tuple[tuple[str, str], ...] = (
            ("content-type", "application/json"),
            ("accept", "application/json"),
            *options.get("headers", {}).items(),
        )
        body = _encode(told)
        credentials = options.get("credentials")
        if isinstance(credentials, AwsCredentials):
            headers = signed(url, body, headers, credentials, region=options["region"], service=_SERVICE)
        elif endpoint.secret is not None:
            headers = (*headers, ("authorization", f"Bearer {endpoint.secret.reveal()}"))
        return HttpRequest(url=url, body=body, headers=headers)


class ConverseDecoder:
    """Reads a ConverseStream: it is over with its metadata, which follows the message's stop."""

    def __init__(self, *, structured: bool = False) -> None:
        """Expect one answer, by way of the answer tool if `structured`."""
        self.tally = Tally()
        self._splitter = FrameSplitter()
        self._reader = EventReader(structured=structured)
        self._named = False

    def feed(self, data: bytes) -> list[Chunk]:
        """Return the pieces that `data` completes."""
        try:
            frames = self._splitter.feed(data)
        except NexusError as error:
            self.tally.failure = self.tally.failure or error
            return []
        return self._pass(frames)

    def end(self) -> list[Chunk]:
        """Return the rest. Raises `UpstreamTruncated` when no end was seen."""
        if self._over():
            return []
        rest = self._pass(self._splitter.end())
        if not self._over():
            raise UpstreamTruncated
        return rest

    def _over(self) -> bool:
        return self.tally.done or self.tally.failure is not None

    def _pass(self, frames: list[Frame]) -> list[Chunk]:
        chunks: list[Chunk] = []
        try:
            for frame in frames:
                if not self.tally.done:
                    chunks += self._read(frame)
        except NexusError as error:
            self.tally.failure = error
        for chunk in chunks:
            self._count(chunk)
        if chunks and not self._named:
            self._named = True
            chunks[0] = msgspec.structs.replace(chunks[0], id=new_id("msg"))
        return chunks

    def _read(self, frame: Frame) -> list[Chunk]:
        said = frame.header(":message-type")
        if said == "error":
            raise error_of(frame.header(":error-code"), frame.header(":error-message"))
        if said == "exception":
            raise error_of(frame.header(":exception-type"), _told(frame.payload).get("message"))
        kind = frame.header(":event-type")
        try:
            chunks = self._reader.read(kind, _json(frame.payload))
        except (KeyError, TypeError, AttributeError, ValueError):
            raise UpstreamMalformed from None
        self.tally.events += 1
        if kind == "metadata" and self._reader.finished:
            self.tally.done = True
        return chunks

    def _count(self, chunk: Chunk) -> None:
        tally = self.tally
        tally.characters += len(chunk.text or "") + len(chunk.thinking or "")
        if chunk.tool is not None:
            tally.characters += len(chunk.tool.arguments)
        if chunk.finish_reason is not None:
            tally.finished += 1
            tally.finish_reason = chunk.native_finish_reason
        if chunk.usage is not None:
            tally.usage = chunk.usage


def error_of(kind: str, message: Any, *, status: int | None = None, retry_after: float | None = None) -> NexusError:
    """Turn an error of AWS, by its type and status, into ours.

    `kind` may be `com.amazon.coral.validate#ValidationException`, `ValidationException:http://...` or in camel case.
    """
    name = kind.partition(":")[0].rpartition("#")[2]
    name = name[:1].upper() + name[1:]
    told = _NAMES.sub("...", message)[:2000] if isinstance(message, str) and message else None
    if name.startswith(_CREDENTIALS):
        return UpstreamCredentials()
    if name.startswith(_TOO_MANY):
        return UpstreamRateLimited(retry_after=retry_after)
    if name.startswith("ModelTimeout"):
        return UpstreamTimeout(retry_after=retry_after)
    if name.startswith(_PASSING):
        return UpstreamUnavailable(retry_after=retry_after)
    if name.startswith("ModelError") or status == 424:
        return UpstreamError("The model failed at the provider.")
    if name.startswith("ResourceNotFound"):
        return UpstreamModelMissing()
    if told is not None and status in (None, 400, 422) and _TOO_LONG.search(told):
        return ContextTooLong(told, field="messages")
    if name.startswith("Validation") and status in (None, 400, 422):
        field = "model" if told is not None and "model identifier" in told else None
        return UpstreamRejected(told, upstream_status=status or 400, field=field)
    if status == 413:
        return TooLarge("The provider finds the request too large.")
    if status is None:
        return UpstreamUnavailable(retry_after=retry_after)
    return from_status(status, message=told, body=b"", retry_after=retry_after)


def _json(data: bytes) -> dict[str, Any]:
    try:
        body = _any.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamMalformed from None
    if not isinstance(body, dict):
        raise UpstreamMalformed
    return body


def _told(data: bytes) -> dict[str, Any]:
    """Return what an error body says, nothing if it is no JSON object."""
    try:
        return _json(data)
    except UpstreamMalformed:
        return {}


plug = BedrockProvider()
