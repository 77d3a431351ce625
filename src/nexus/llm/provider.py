"""The contract of a provider kind: requests in, HTTP requests out; bytes in, typed pieces out. No I/O.

A kind is one file in `providers/` with a public `plug`, or a row of `compatible.toml` that names one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from nexus.core.errors import NexusError
from nexus.core.services import Services
from nexus.llm.account import Account, Endpoint
from nexus.llm.types import Call, Capabilities, Chunk, Completion, Embedding, EmbeddingRequest, Tally
from nexus.llm.wire.client import HttpAnswer, HttpRequest


class Decoder(Protocol):
    """Reads one stream. Bytes may be cut anywhere."""

    tally: Tally

    def feed(self, data: bytes) -> list[Chunk]:
        """Return the pieces that `data` completes; an error that the stream reports goes to `tally.failure`."""
        ...

    def end(self) -> list[Chunk]:
        """Return what was held back at the end of the bytes. Raises `UpstreamTruncated` if they ended too early."""
        ...


class Provider(ABC):
    """One kind of upstream: `dialect` names the wire form of its chat endpoint ("" if no client speaks it)."""

    dialect: str = ""
    base_url: str = ""
    environment: str | None = None
    capabilities: Capabilities = Capabilities()
    lists_models: bool = True  # by GET base_url/models, with the headers of a chat
    json_streams: bool = False  # a stream may come as `application/json`

    async def endpoint(self, account: Account, services: Services) -> Endpoint:
        """Find where the account's calls go. The only place for I/O: tokens to exchange, a child to await."""
        return Endpoint(base_url=account.base_url, secret=account.secret, options=account.options)

    def serving(self, account: Account, model: str, call: Call) -> Provider:
        """Return the codec for this call: a kind with several wire forms picks the nearest to the caller's."""
        return self

    @abstractmethod
    def chat(self, endpoint: Endpoint, model: str, call: Call) -> HttpRequest:
        """Write a chat request; where the call has this kind's dialect, with every field of its body kept."""

    @abstractmethod
    def completion(self, answer: HttpAnswer) -> Completion:
        """Read a whole answer. Raises `UpstreamMalformed`, or the error that the answer carries."""

    @abstractmethod
    def decoder(self, call: Call) -> Decoder:
        """Return a reader for one stream."""

    @abstractmethod
    def embed(self, endpoint: Endpoint, model: str, request: EmbeddingRequest) -> HttpRequest:
        """Write an embedding request. Raises `Unsupported` where the kind has none."""

    def most_inputs(self, endpoint: Endpoint, model: str) -> int | None:
        """Return how many inputs one embedding request may have, None for any number: more are asked in pieces."""
        return None

    @abstractmethod
    def embedding(self, answer: HttpAnswer, request: EmbeddingRequest) -> Embedding:
        """Read an embedding answer; one in the caller's own dialect is kept as `body`. Raises `UpstreamMalformed`."""

    def count(self, endpoint: Endpoint, model: str, call: Call) -> HttpRequest | None:
        """Write a request that counts the tokens of `call`; None where the kind has none (we then estimate)."""
        return None

    def counted(self, answer: HttpAnswer) -> int:
        """Read the answer to `count`. Raises `UpstreamMalformed`."""
        raise NotImplementedError

    @abstractmethod
    def error(self, answer: HttpAnswer) -> NexusError:
        """Turn an answer with an error status into the error to raise, free of the upstream's secrets."""
