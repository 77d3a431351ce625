"""The contract of a provider kind: requests in, HTTP requests out; bytes in, typed pieces out. No I/O.

A kind is one file in `providers/` with a public `plug`, or a row of `compatible.toml` that names one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import msgspec

from nexus.core.errors import NexusError
from nexus.core.secrets import Secret
from nexus.core.services import Services
from nexus.llm.client import HttpAnswer, HttpRequest
from nexus.llm.types import Call, Capabilities, Chunk, Completion, Embedding, EmbeddingRequest, Tally


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """One configured provider: a kind, where it is, its credential and its kind's own options."""

    name: str
    kind: str
    base_url: str
    secret: Secret | None = None
    options: dict[str, Any] = msgspec.field(default_factory=dict)


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where to send requests now, and with which credential; good until `expires_at` (monotonic seconds)."""

    base_url: str
    secret: Secret | None = None
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    expires_at: float | None = None


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

    async def endpoint(self, account: Account, services: Services) -> Endpoint:
        """Find where the account's calls go. The only place for I/O: tokens to exchange, a child to await."""
        return Endpoint(base_url=account.base_url, secret=account.secret, options=account.options)

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

    @abstractmethod
    def embedding(self, answer: HttpAnswer, request: EmbeddingRequest) -> Embedding:
        """Read an embedding answer; one in the caller's own dialect is kept as `body`. Raises `UpstreamMalformed`."""

    @abstractmethod
    def error(self, answer: HttpAnswer) -> NexusError:
        """Turn an answer with an error status into the error to raise, free of the upstream's secrets."""
