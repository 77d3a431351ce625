"""What Hugging Face has beside chat completions: Text Embeddings Inference, and embedding on the router.

Source: https://huggingface.github.io/text-embeddings-inference. These requests name no model: put `/as/NAME`
in front of the path to say what is to happen. Chats come as chat completions.
"""

from __future__ import annotations

import re

from nexus.testing.said import Said
from nexus.testing.script import Seen
from nexus.testing.wire import Asked, Refused, Wire, encode, vectors

_KINDS = {400: "Validation", 413: "Validation", 422: "Tokenizer", 424: "Backend", 429: "Overloaded"}


class HuggingFace(Wire):
    """Embedding."""

    def asked(self, seen: Seen) -> Asked | None:
        """Read a request."""
        if seen.method == "GET" and seen.route.endswith("/info"):
            return Asked(seen, "models", seen.model)
        if seen.method == "POST" and re.search(r"/(embed|feature-extraction|predict_embed)$", seen.route):
            return Asked(seen, "embed", seen.model)
        return None

    def whole(self, asked: Asked, said: Said) -> bytes:
        """Write nothing: there are no chats here."""
        return b"{}"

    def events(self, asked: Asked, said: Said) -> list[bytes]:
        """Write nothing: there are no chats here."""
        return []

    def other(self, asked: Asked) -> bytes:
        """Write vectors, or what the server serves."""
        if asked.operation == "models":
            return encode({"model_id": "fake", "model_dtype": "float32", "max_input_length": 512, "version": "1.9.0"})
        given = asked.fields.get("inputs")
        vectors_made = vectors(len(given) if isinstance(given, list) else 1, asked.fields.get("dimensions") or 8)
        return encode(vectors_made)

    def refusal(self, status: int, message: str, *, wait: int | None = None, reason: str = "") -> Refused:
        """Write an error."""
        kind = _KINDS.get(status, "Unhealthy" if status == 503 else "Backend")
        headers = () if wait is None else (f"retry-after: {wait}",)
        return Refused(encode({"error": message, "error_type": kind}), headers)

    def accident(self, asked: Asked, status: int, message: str) -> bytes:
        """Write an error."""
        return self.refusal(status, message).body


plug = HuggingFace()
