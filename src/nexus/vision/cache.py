"""Results by what they depend on: the very bytes, the question, the very model.

A hit spares even the decoding. Pictures are never kept, only findings; projects do not share
entries, so that nobody can tell from a quick answer what another project has asked.
"""

from __future__ import annotations

import hashlib

import msgspec

from nexus.catalog.types import ModelVersion
from nexus.storage.cache import Cache
from nexus.vision.backend import Runtime
from nexus.vision.question import Question
from nexus.vision.types import Result


class ResultCache:
    """Results over any `Cache`; `ttl` seconds, 0 switches it off."""

    def __init__(self, cache: Cache | None, *, ttl: float) -> None:
        """Use this store, or none."""
        self._cache = cache if ttl > 0 else None
        self._ttl = ttl

    def key(self, project: str, question: Question, image: bytes, version: ModelVersion, runtime: Runtime) -> str:
        """Return the key of one question about one image."""
        asked = question.parameters.model_dump_json()
        parts = (project, question.task.name, version.key, version.digest, asked, runtime.precision)
        digest = hashlib.sha256("\0".join(parts).encode())
        digest.update(hashlib.sha256(image).digest())
        return f"vision:{digest.hexdigest()}"

    async def get(self, key: str) -> Result | None:
        """Return the result, marked as cached, or None. One of an older shape counts as none."""
        body = await self._cache.get(key) if self._cache else None
        if body is None:
            return None
        try:
            result = msgspec.msgpack.decode(body, type=Result)
        except (msgspec.DecodeError, msgspec.ValidationError):
            return None
        result.cached = True
        return result

    async def put(self, key: str, result: Result) -> None:
        """Keep a result."""
        if self._cache:
            await self._cache.set(key, msgspec.msgpack.encode(result), self._ttl)
