"""Whatever comes in the Gemini form, from clients or from Google, nothing breaks on it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus.core.errors import InvalidInput, NexusError
from nexus.llm.dialects.gemini import plug as gemini
from nexus.llm.providers.google import plug as google
from nexus.llm.wire.client import HttpAnswer

NAMES = st.sampled_from(
    [
        "contents",
        "parts",
        "text",
        "role",
        "inlineData",
        "mimeType",
        "data",
        "fileData",
        "fileUri",
        "functionCall",
        "name",
        "args",
        "id",
        "functionResponse",
        "response",
        "thought",
        "thoughtSignature",
        "systemInstruction",
        "tools",
        "functionDeclarations",
        "parameters",
        "parametersJsonSchema",
        "properties",
        "items",
        "anyOf",
        "minItems",
        "type",
        "toolConfig",
        "functionCallingConfig",
        "mode",
        "allowedFunctionNames",
        "generationConfig",
        "responseSchema",
        "responseJsonSchema",
        "responseMimeType",
        "thinkingConfig",
        "thinkingBudget",
        "thinkingLevel",
        "stopSequences",
        "candidateCount",
        "responseModalities",
        "logprobs",
        "requests",
        "content",
        "taskType",
        "outputDimensionality",
        "x",
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "AUTO", "user", "QUJD"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.slow
@settings(max_examples=300)
@given(VALUES, st.dictionaries(NAMES, VALUES, max_size=4))
def test_no_request_whatever_breaks_the_door(value: Any, more: dict[str, Any]) -> None:
    part = {"text": "hi"} | more
    for body in (
        more,
        {"contents": value},
        {"contents": [{"parts": [part]}]},
        {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]} | more,
    ):
        sent = msgspec.json.encode(body)
        with suppress(InvalidInput):
            gemini.parse(sent, path="/v1beta/models/m:generateContent").parse()
        for operation in ("embedContent", "batchEmbedContents"):
            with suppress(InvalidInput):
                gemini.parse_embedding(sent, path=f"/v1beta/models/m:{operation}")


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(["candidates", "usageMetadata", "promptFeedback", "error", "x"]), VALUES))
def test_no_answer_whatever_breaks_the_reader(body: dict[str, Any]) -> None:
    sent = msgspec.json.encode(body)
    call = gemini.parse(b'{"contents":[{"parts":[{"text":"x"}]}]}', path="/v1beta/models/m:streamGenerateContent")
    with suppress(NexusError):
        google.completion(HttpAnswer(status=200, headers={}, body=sent))
    with suppress(NexusError):
        gemini.inspect(sent)
    for reader in (google.decoder(call), gemini.relay(call)):
        with suppress(NexusError):
            reader.feed(b"data: " + sent + b"\n\n")
            reader.end()
