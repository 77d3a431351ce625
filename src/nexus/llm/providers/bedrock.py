"""AWS Bedrock: chat by Converse and ConverseStream, embeddings by InvokeModel, tokens by CountTokens.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_Operations_Amazon_Bedrock_Runtime.html. A model is
an id, an inference profile or an ARN. Calls are signed with the credentials that AWS's own tools would find
(`credentials.aws`), or carry a Bedrock API key as `api_key`. Options: `region`; `access_key_id`, `secret_access_key`
and `session_token`; `profile`; `role_arn` with `external_id`; `family` where an ARN does not name its model's maker;
`guardrailConfig`, which then holds for every call; `api: converse` to translate what Anthropic clients say to Claude
models, which else goes to them as it is, by InvokeModel (`betas`: which beta features then pass); `headers`.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgspec

from nexus.core.errors import NexusError
from nexus.core.ids import new_id
from nexus.core.services import Services
from nexus.llm.account import Account, Endpoint
from nexus.llm.errors import UpstreamMalformed, UpstreamTruncated
from nexus.llm.forms.chat.embeddings import refuse_rest
from nexus.llm.forms.converse import embeddings as converse_embeddings
from nexus.llm.forms.converse import requests as converse_requests
from nexus.llm.forms.converse.answers import EventReader, read_completion
from nexus.llm.forms.converse.families import Family, family_of, plain_name
from nexus.llm.forms.messages import requests as messages_requests
from nexus.llm.provider import Decoder, Provider
from nexus.llm.types import Call, Capabilities, Chunk, Completion, Embedding, EmbeddingRequest, Tally
from nexus.llm.wire.bedrock import countable, error_of, find_endpoint, post, read_error, told_of
from nexus.llm.wire.client import HttpAnswer, HttpRequest
from nexus.llm.wire.eventstream import Frame, FrameSplitter
from nexus.llm.wire.invoked_messages import InvokedMessages
from nexus.llm.wire.upstream_json import json_of

_SERVICE: Final = "bedrock"
_encode = msgspec.json.Encoder().encode


class BedrockProvider(Provider):
    """Models behind the Bedrock runtime."""

    dialect = converse_requests.DIALECT
    environment = "AWS_BEARER_TOKEN_BEDROCK"
    lists_models = False
    capabilities = Capabilities(choices=False, logprobs=False)

    def __init__(self, model: str = "", family: Family | None = None, shown: str = "") -> None:
        """`model` of `family` answers under the name `shown`; without them this is the kind as such."""
        self._model = model
        self._family = family
        self._shown = shown

    async def endpoint(self, account: Account, services: Services) -> Endpoint:
        """Find region and credentials. Raises `UpstreamCredentials` where there are none."""
        return await find_endpoint(account, services, service=_SERVICE)

    def serving(self, account: Account, model: str, call: Call) -> Provider:
        """Return the codec for this model: Claude's own form for those who speak it, else Converse.

        Converse names no model, so it answers under the name that the client asked for.
        """
        family = family_of(model, account.options.get("family"))
        own = call.dialect == messages_requests.DIALECT and family.reasoning == "claude"
        if own and account.options.get("api") != "converse":
            return InvokedMessages(self)
        return BedrockProvider(model, family, call.model)

    def chat(self, endpoint: Endpoint, model: str, call: Call) -> HttpRequest:
        """Write a chat request. Raises what `converse_requests.write_request` does."""
        body = self._converse(endpoint, model, call)
        return post(endpoint, model, "converse-stream" if call.stream else "converse", _encode(body))

    def completion(self, answer: HttpAnswer) -> Completion:
        """Read a whole answer."""
        name = answer.headers.get("x-amzn-requestid") or new_id("msg")
        try:
            return read_completion(json_of(answer.body), name=name, model=self._shown)
        except (KeyError, TypeError, AttributeError, ValueError):
            raise UpstreamMalformed from None

    def decoder(self, call: Call) -> Decoder:
        """Return a reader for one stream."""
        structured = False
        if self._family is not None and "json_schema" in call.needs:
            structured = converse_requests.answers_by_tool(call.parse(), self._model, self._family)
        return ConverseDecoder(structured=structured)

    def embed(self, endpoint: Endpoint, model: str, request: EmbeddingRequest) -> HttpRequest:
        """Write an embedding request; the models differ. Raises `Unsupported` for one that makes none."""
        refuse_rest(request)
        return post(endpoint, model, "invoke", _encode(converse_embeddings.write_request(model, request)))

    def most_inputs(self, endpoint: Endpoint, model: str) -> int | None:
        """Return how many texts the model takes at once."""
        return converse_embeddings.most_texts(model)

    def embedding(self, answer: HttpAnswer, request: EmbeddingRequest) -> Embedding:
        """Read an embedding answer."""
        try:
            return converse_embeddings.read_answer(json_of(answer.body), answer.headers, request.model)
        except (KeyError, TypeError, ValueError, AttributeError, struct.error):
            raise UpstreamMalformed from None

    def count(self, endpoint: Endpoint, model: str, call: Call) -> HttpRequest | None:
        """Write a request that counts tokens, for the models that can: they want their own name, of no profile."""
        if not family_of(model, endpoint.options.get("family")).counts_tokens or not countable(model):
            return None
        body = converse_requests.write_count(self._converse(endpoint, model, call))
        return post(endpoint, plain_name(model), "count-tokens", _encode(body))

    def counted(self, answer: HttpAnswer) -> int:
        """Read the answer to `count`."""
        tokens = json_of(answer.body).get("inputTokens")
        if not isinstance(tokens, int):
            raise UpstreamMalformed
        return tokens

    def error(self, answer: HttpAnswer) -> NexusError:
        """Turn an error answer into ours."""
        return read_error(answer)

    def _converse(self, endpoint: Endpoint, model: str, call: Call) -> dict[str, Any]:
        family = self._family or family_of(model, endpoint.options.get("family"))
        body = converse_requests.write_request(call.parse(), model, family, fields=call.fields)
        if (guard := endpoint.options.get("guardrailConfig")) is not None:
            body["guardrailConfig"] = guard
        return body


class ConverseDecoder:
    """Reads a ConverseStream: it is over with its metadata, which follows the message's stop, or ends with that."""

    def __init__(self, *, structured: bool = False) -> None:
        """Expect one answer, by way of the answer tool if `structured`."""
        self.tally = Tally()
        self._splitter = FrameSplitter()
        self._reader = EventReader(structured=structured)
        self._named = False
        self._counted = False

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
        # Metadata only counts: an answer that was stopped properly is whole without them.
        self.tally.done = self.tally.done or self._reader.finished
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
            self.tally.hear(chunk)
        if chunks and not self._named:
            self._named = True
            chunks[0] = msgspec.structs.replace(chunks[0], id=new_id("msg"))
        return chunks

    def _read(self, frame: Frame) -> list[Chunk]:
        said = frame.header(":message-type")
        if said == "error":
            raise error_of(frame.header(":error-code"), frame.header(":error-message"))
        if said == "exception":
            raise error_of(frame.header(":exception-type"), told_of(frame.payload).get("message"))
        kind = frame.header(":event-type")
        try:
            chunks = self._reader.read(kind, json_of(frame.payload))
        except (KeyError, TypeError, AttributeError, ValueError):
            raise UpstreamMalformed from None
        self.tally.events += 1
        self._counted = self._counted or kind == "metadata"
        if self._counted and self._reader.finished:
            self.tally.done = True
        return chunks


plug = BedrockProvider()
