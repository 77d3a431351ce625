"""The built-in embedding model: all-MiniLM-L6-v2 on ONNX Runtime, mean-pooled and of length one.

Source: https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2. English; text beyond 256 tokens is
cut off, as the model was trained. The files come from the catalogue, the loaded model from the pool.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, NamedTuple

from nexus.catalog.pool import ModelPool
from nexus.catalog.service import CatalogService
from nexus.catalog.types import ModelVersion
from nexus.llm.errors import InvalidRequest, Unsupported
from nexus.llm.forms.chat.embeddings import refuse_rest
from nexus.llm.settings import EmbeddingSettings
from nexus.llm.types import Embedding, EmbeddingRequest, Usage

_MAX_TOKENS = 256


class _Loaded(NamedTuple):
    session: Any
    tokenizer: Any


class Embedder:
    """Turns texts into vectors in this process, in a thread."""

    def __init__(self, *, catalog: CatalogService, pool: ModelPool, settings: EmbeddingSettings) -> None:
        """Load nothing yet."""
        self._catalog = catalog
        self._pool = pool
        self._settings = settings
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="embed")

    async def embed(self, request: EmbeddingRequest) -> Embedding:
        """Return a vector for each text. Raises `InvalidRequest`, or what the catalogue says of the model."""
        refuse_rest(request)
        texts = [item for item in request.input if isinstance(item, str)]
        if len(texts) != len(request.input):
            raise Unsupported("This model takes texts, not token ids.", field="input")
        if not texts:
            raise InvalidRequest("input must have at least one text.", field="input")
        if len(texts) > self._settings.max_inputs:
            raise InvalidRequest(f"input may have at most {self._settings.max_inputs} texts.", field="input")
        version = await self._catalog.find(self._settings.model)
        dimensions = int(version.meta.get("dimensions", 384))
        if request.dimensions not in (None, dimensions):
            raise InvalidRequest(f"This model has vectors of {dimensions} dimensions only.", field="dimensions")

        async with self._loaded(version) as model:
            loop = asyncio.get_running_loop()
            vectors, tokens = await loop.run_in_executor(self._threads, _run, model, texts, self._settings.batch)
        return Embedding(model=request.model, vectors=vectors, dimensions=dimensions, usage=Usage(input_tokens=tokens))

    async def vector(self, text: str) -> bytes:
        """Return the vector of one text, packed. Raises as `embed` does."""
        return (await self.embed(EmbeddingRequest(model=self._settings.model, input=(text,)))).vectors[0]

    async def load(self, version: ModelVersion) -> None:
        """Bring an embedding model into memory (the catalogue's `Runner`)."""
        async with self._loaded(version):
            return

    async def unload(self, version: ModelVersion) -> None:
        """Hold nothing outside of the pool."""

    def _loaded(self, version: ModelVersion) -> AbstractAsyncContextManager[_Loaded]:
        def load() -> _Loaded:
            return _load(version.files["model"], version.files["tokenizer"], self._settings.threads)

        return self._pool.use(version.key, load, size=version.memory or 200_000_000)

    def close(self) -> None:
        """Stop the thread."""
        self._threads.shutdown(wait=False)


def _load(model: Path, tokenizer: Path, threads: int) -> _Loaded:
    import onnxruntime
    from tokenizers import Tokenizer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin while they wait take the machine from everybody else.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    reader = Tokenizer.from_file(str(tokenizer))
    reader.enable_truncation(_MAX_TOKENS)
    reader.enable_padding()
    return _Loaded(session, reader)


def _run(model: _Loaded, texts: list[str], batch: int) -> tuple[tuple[bytes, ...], int]:
    """Return packed little-endian float32 vectors in the order given, and the number of tokens read."""
    import numpy as np

    # Alike lengths share a batch, so that little of it is padding.
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    vectors: list[bytes] = [b""] * len(texts)
    tokens = 0
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        encoded = model.tokenizer.encode_batch([texts[i] for i in chosen])
        ids = np.array([item.ids for item in encoded], dtype=np.int64)
        mask = np.array([item.attention_mask for item in encoded], dtype=np.int64)
        tokens += int(mask.sum())
        output = model.session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        for i, vector in zip(chosen, np.asarray(output, dtype="<f4"), strict=True):
            vectors[i] = vector.tobytes()
    return tuple(vectors), tokens
