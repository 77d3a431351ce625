"""Every field that Google's SDK lets a client send, and what becomes of it with every other kind of provider."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from google.genai import types
from tests.llm.every_field import TARGETS, Row, Table, fields_of

from nexus.llm.dialects.gemini import plug

OTHERS = [target for target in TARGETS if target != "gemini"]
SCHEMA = {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}}
BASE: dict[str, Any] = {
    "contents": [
        {"role": "user", "parts": [{"text": "hello"}]},
        {"role": "model", "parts": [{"text": "a call"}, {"functionCall": {"id": "c1", "name": "f", "args": {"a": 1}}}]},
        {"role": "user", "parts": [{"functionResponse": {"id": "c1", "name": "f", "response": {"output": "42"}}}]},
        {"role": "model", "parts": [{"text": "It is 42."}]},
        {"role": "user", "parts": [{"text": "And now?"}]},
    ],
    "systemInstruction": {"parts": [{"text": "be brief"}]},
    "tools": [{"functionDeclarations": [{"name": "f", "description": "d", "parameters": SCHEMA}]}],
    "generationConfig": {"maxOutputTokens": 20_000},
}
SAID, REFUSED = "said", "refused"
HINT = "left: a hint, which changes no answer that others give"
ELSEWHERE = {"responses": REFUSED, "messages": REFUSED, "nova": REFUSED, "claude": REFUSED}
PNG = {"mimeType": "image/png", "data": "iVBORw0KGgo="}
URL = "https://host.example/a.png"
FETCHED = {"claude": REFUSED, "nova": REFUSED}
CONVERSE = dict.fromkeys(("claude", "nova"), SAID)
CHAT = {"chat": SAID, "responses": SAID}
USER, CALL, RESULT = "contents.4.parts.1", "contents.1.parts.2", "contents.2.parts.0"
DECLARED, CONFIG = "tools.0.functionDeclarations.1", "generationConfig"
UNSAID = {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}, "description": "x"}

SHAPES: dict[str, tuple[str, Row]] = {
    "GenerateContentConfig": ("", Row(BASE, SAID)),
    "GenerationConfig": (CONFIG, Row(BASE[CONFIG] | {"temperature": 1.0}, SAID)),
    "Content": ("contents.5", Row({"role": "model", "parts": [{"text": "So"}]}, SAID)),
    "Part": (USER, Row({"text": "x"}, SAID)),
    "PartMediaResolution": ("Blob.mediaResolution", Row({"level": "MEDIA_RESOLUTION_LOW"}, HINT, CHAT)),
    "CodeExecutionResult": (CALL, Row({"codeExecutionResult": {"outcome": "OUTCOME_OK"}}, REFUSED)),
    "ExecutableCode": (CALL, Row({"executableCode": {"code": "1"}}, REFUSED)),
    "FileData": (USER, Row({"fileData": {"fileUri": URL, "mimeType": "image/png"}}, SAID, FETCHED)),
    "FunctionCall": (CALL, Row({"functionCall": {"id": "c2", "name": "g", "args": {"b": 1}}}, SAID)),
    "PartialArg": (CALL, Row({"functionCall": {"name": "g", "partialArgs": [{"jsonPath": "$.a"}]}}, REFUSED)),
    "FunctionResponse": (
        RESULT,
        Row({"functionResponse": {"id": "c1", "name": "f", "response": {"output": "7"}}}, SAID),
    ),
    "FunctionResponsePart": (
        RESULT,
        Row({"functionResponse": {"id": "c1", "name": "f", "parts": [{"inlineData": PNG}]}}, SAID),
    ),
    "FunctionResponseBlob": (
        RESULT,
        Row({"functionResponse": {"id": "c1", "name": "f", "parts": [{"inlineData": PNG}]}}, SAID),
    ),
    "FunctionResponseFileData": (
        RESULT,
        Row({"functionResponse": {"id": "c1", "name": "f", "parts": [{"fileData": {"fileUri": URL}}]}}, SAID, FETCHED),
    ),
    "VideoMetadata": ("Blob.videoMetadata", Row({"fps": 1}, REFUSED)),
    "DocumentMetadata": ("Blob.documentMetadata", Row({"startPage": 1}, REFUSED)),
    "SpreadsheetMetadata": ("Blob.spreadsheetMetadata", Row({"sheetIndex": 1}, REFUSED)),
    "AudioMetadata": ("Blob.audioMetadata", Row({"startOffset": "1s"}, REFUSED)),
    "Blob": (USER, Row({"inlineData": PNG}, SAID)),
    "ToolCall": (CALL, Row({"toolCall": {"id": "t"}}, REFUSED)),
    "ToolResponse": (CALL, Row({"toolResponse": {"id": "t"}}, REFUSED)),
    "Transcription": ("Part.audioTranscription", Row({"text": "x"}, REFUSED)),
    "SpeechMetadata": ("Part.speechMetadata", Row({"speaker": "x"}, REFUSED)),
    "FunctionDeclaration": (DECLARED, Row({"name": "g", "parameters": SCHEMA}, SAID)),
    "Schema": (DECLARED, Row({"name": "g", "parameters": SCHEMA}, SAID)),
    "GenerationConfigRoutingConfig": (f"{CONFIG}.routingConfig", Row({"manualMode": {"modelName": "m"}}, HINT)),
    "ModelSelectionConfig": (f"{CONFIG}.modelSelectionConfig", Row({"featureSelectionPreference": "BALANCED"}, HINT)),
    "SafetySetting": ("safetySettings", Row([{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}], HINT)),
    "ToolConfig": ("toolConfig", Row({}, "left: says nothing")),
    "RetrievalConfig": ("toolConfig.retrievalConfig", Row({"languageCode": "en"}, HINT)),
    "FunctionCallingConfig": ("toolConfig.functionCallingConfig", Row({"mode": "ANY"}, SAID)),
    "SpeechConfig": (f"{CONFIG}.speechConfig", Row({"languageCode": "en"}, REFUSED)),
    "ThinkingConfig": (f"{CONFIG}.thinkingConfig", Row({"thinkingBudget": 0}, "left: the default", CHAT)),
    "ImageConfig": (f"{CONFIG}.imageConfig", Row({"aspectRatio": "1:1"}, REFUSED)),
    "ModelArmorConfig": ("modelArmorConfig", Row({"promptTemplateName": "x"}, REFUSED)),
    "AudioTranscriptionConfig": (f"{CONFIG}.audioTranscriptionConfig", Row({"diarization": True}, REFUSED)),
    "GenerationOutputConfig": (f"{CONFIG}.generationOutputConfig", Row({"outputUriPrefix": "gs://x"}, REFUSED)),
    "ResponseFormat": (f"{CONFIG}.responseFormat", Row([{"text": {"mimeType": "text/plain"}}], REFUSED)),
    "TranslationConfig": (f"{CONFIG}.translationConfig", Row({"targetLanguageCode": "en"}, REFUSED)),
    "Tool": ("tools.1", Row({"functionDeclarations": [{"name": "g"}]}, SAID)),
}  # fmt: skip
# Types of which nothing is told to others, or which are looked at as a whole.
WHOLE = {name for name, (_, row) in SHAPES.items() if row.fate == REFUSED}
WHOLE |= {"GenerationConfigRoutingConfig", "ModelSelectionConfig", "RetrievalConfig", "SafetySetting"}
ONLY_GOOGLE = (
    "retrieval", "computerUse", "fileSearch", "googleSearch", "googleMaps", "codeExecution", "enterpriseWebSearch",
    "googleSearchRetrieval", "parallelAiSearch", "urlContext", "mcpServers", "exaAiSearch",
)  # fmt: skip
WHOLE |= {f"Tool.{name}" for name in ONLY_GOOGLE}
PARAMETERS = {
    "additionalProperties": False, "defs": {"D": SCHEMA}, "ref": "#/defs/D", "anyOf": [SCHEMA], "default": {},
    "description": "x", "enum": ["x"], "example": {}, "format": "date", "items": {"type": "STRING"}, "maxItems": 3,
    "maxLength": 3, "maxProperties": 3, "maximum": 3, "minItems": 1, "minLength": 1, "minProperties": 1, "minimum": 1,
    "nullable": True, "pattern": "x", "properties": {"b": {"type": "STRING"}}, "required": ["a"], "title": "t",
    "type": None,
}  # fmt: skip
FIELDS: dict[str, Row] = {
    "GenerateContentConfig.systemInstruction": Row({"parts": [{"text": "other"}]}, SAID),
    "GenerateContentConfig.safetySettings": Row([{"category": "x", "threshold": "OFF"}], HINT),
    "GenerateContentConfig.tools": Row([{"functionDeclarations": [{"name": "h"}]}], SAID),
    "GenerateContentConfig.toolConfig": Row({"functionCallingConfig": {"mode": "ANY"}}, SAID),
    "GenerateContentConfig.labels": Row({"a": "b"}, HINT),
    "GenerateContentConfig.cachedContent": Row("cachedContents/x", REFUSED),
    "GenerateContentConfig.modelArmorConfig": Row({"promptTemplateName": "x"}, REFUSED),
    "GenerateContentConfig.serviceTier": Row(None, SAID),
    "GenerateContentConfig.serviceTier=flex": Row(None, SAID, {"messages": REFUSED}),
    "GenerateContentConfig.serviceTier=unspecified": Row(None, "left: says nothing"),
    "GenerateContentConfig.serviceTier=standard": Row(None, "left: the default"),
    "GenerateContentConfig.store": Row(True, HINT),
    "GenerationConfig.temperature": Row(0.9, SAID),
    "GenerationConfig.topP": Row(0.9, SAID),
    "GenerationConfig.topK": Row(5, SAID, {"responses": REFUSED}),
    "GenerationConfig.candidateCount": Row(2, SAID, ELSEWHERE),
    "GenerationConfig.maxOutputTokens": Row(7, SAID),
    "GenerationConfig.stopSequences": Row(["END"], SAID, {"responses": REFUSED}),
    "GenerationConfig.responseLogprobs": Row(True, SAID, {"messages": REFUSED, "claude": REFUSED, "nova": REFUSED}),
    "GenerationConfig.logprobs": Row(2, "left: asked for by responseLogprobs"),
    "GenerationConfig.presencePenalty": Row(0.5, SAID, ELSEWHERE),
    "GenerationConfig.frequencyPenalty": Row(0.5, SAID, ELSEWHERE),
    "GenerationConfig.seed": Row(3, SAID, ELSEWHERE),
    "GenerationConfig.responseMimeType": Row("application/json", SAID),
    "GenerationConfig.responseSchema": Row(SCHEMA, SAID),
    "GenerationConfig.responseJsonSchema": Row({"type": "object"}, SAID),
    "GenerationConfig.routingConfig": Row({"manualMode": {"modelName": "m"}}, HINT),
    "GenerationConfig.modelSelectionConfig": Row({"featureSelectionPreference": "BALANCED"}, HINT),
    "GenerationConfig.responseModalities": Row(["IMAGE"], REFUSED),
    "GenerationConfig.responseModalities=TEXT": Row(None, "left: the default"),
    "GenerationConfig.mediaResolution": Row(None, "left: there is no picture here"),
    "GenerationConfig.speechConfig": Row({"languageCode": "en"}, REFUSED),
    "GenerationConfig.audioTimestamp": Row(True, REFUSED),
    "GenerationConfig.thinkingConfig": Row({"thinkingBudget": 2000}, SAID),
    "GenerationConfig.enableEnhancedCivicAnswers": Row(True, HINT),
    "GenerationConfig.enableAffectiveDialog": Row(True, REFUSED),
    "GenerationConfig.audioTranscriptionConfig": Row({"diarization": True}, REFUSED),
    "GenerationConfig.responseFormat": Row([{"text": {"mimeType": "text/plain"}}], REFUSED),
    "GenerationConfig.translationConfig": Row({"targetLanguageCode": "en"}, REFUSED),
    "GenerationConfig.imageConfig": Row({"aspectRatio": "1:1"}, REFUSED),
    "GenerationConfig.generationOutputConfig": Row({"outputUriPrefix": "gs://x"}, REFUSED),
    "GenerationConfig.continuationToken": Row("eA==", REFUSED),
    "GenerationConfig.automaticContinuation": Row(True, REFUSED),
    "Content.role": Row("user", SAID),
    "Content.parts": Row([{"text": "other"}], SAID),
    "Part.mediaResolution": Row({"level": "MEDIA_RESOLUTION_LOW"}, "left: there is no picture here"),
    "Part.codeExecutionResult": Row({"outcome": "OUTCOME_OK"}, REFUSED),
    "Part.executableCode": Row({"code": "1"}, REFUSED),
    "Part.fileData": Row({"fileUri": URL, "mimeType": "image/png"}, SAID, FETCHED),
    "Part.functionCall": Row({"name": "g"}, SAID),
    "Part.functionResponse": Row({"name": "f", "id": "c1", "response": {"output": "7"}}, SAID),
    "Part.inlineData": Row(PNG, SAID),
    "Part.text": Row("other", SAID),
    "Part.thought": Row(True, SAID),
    "Part.thoughtSignature": Row("c2VhbA==", "left: a seal is for its own model"),
    "Part.videoMetadata": Row({"fps": 1}, REFUSED),
    "Part.toolCall": Row({"id": "t"}, REFUSED),
    "Part.toolResponse": Row({"id": "t"}, REFUSED),
    "Part.partMetadata": Row({"a": 1}, HINT),
    "Part.audioTranscription": Row({"text": "x"}, REFUSED),
    "Part.mediaProcessing": Row(None, HINT),
    "Part.speechMetadata": Row({"speaker": "x"}, REFUSED),
    "Part.documentMetadata": Row({"startPage": 1}, REFUSED),
    "Part.spreadsheetMetadata": Row({"sheetIndex": 1}, REFUSED),
    "Part.audioMetadata": Row({"startOffset": "1s"}, REFUSED),
    "PartMediaResolution.level": Row(None, HINT, CHAT),
    "PartMediaResolution.level=MEDIA_RESOLUTION_LOW": Row(None, "left: so it was"),
    "PartMediaResolution.numTokens": Row(100, HINT),
    "FileData.displayName": Row("x", "left: others have no names for pictures", FETCHED),
    "FileData.fileUri": Row("https://host.example/b.png", SAID, FETCHED),
    "FileData.mimeType": Row("image/jpeg", "left: whoever fetches it sees what it is", FETCHED),
    "FunctionCall.id": Row("c3", SAID),
    "FunctionCall.args": Row({"c": 1}, SAID),
    "FunctionCall.name": Row("h", SAID),
    "FunctionCall.partialArgs": Row([{"jsonPath": "$.a"}], REFUSED),
    "FunctionCall.willContinue": Row(True, REFUSED),
    "FunctionResponse.willContinue": Row(True, REFUSED),
    "FunctionResponse.scheduling": Row(None, HINT),
    "FunctionResponse.parts": Row([{"inlineData": PNG}], SAID),
    "FunctionResponse.id": Row("c7", SAID),
    "FunctionResponse.name": Row("g", "left: its call names it"),
    "FunctionResponse.response": Row({"output": "8"}, SAID),
    "FunctionResponsePart.inlineData": Row(PNG | {"data": "R0lGODlh"}, SAID),
    "FunctionResponsePart.fileData": Row({"fileUri": URL}, "left: there is a picture already"),
    "FunctionResponsePart.mediaProcessing": Row(None, HINT),
    "FunctionResponsePart.mediaResolution": Row({"level": "MEDIA_RESOLUTION_LOW"}, HINT),
    "FunctionResponsePart.videoMetadata": Row({"fps": 1}, REFUSED),
    "FunctionResponsePart.documentMetadata": Row({"startPage": 1}, REFUSED),
    "FunctionResponsePart.spreadsheetMetadata": Row({"sheetIndex": 1}, REFUSED),
    "FunctionResponsePart.audioMetadata": Row({"startOffset": "1s"}, REFUSED),
    "FunctionResponseBlob.mimeType": Row("image/gif", SAID),
    "FunctionResponseBlob.data": Row("R0lGODlh", SAID),
    "FunctionResponseBlob.displayName": Row("x", "left: others have no names for pictures"),
    "FunctionResponseFileData.fileUri": Row("https://host.example/b.png", SAID, FETCHED),
    "FunctionResponseFileData.mimeType": Row("image/png", "left: whoever fetches it sees what it is", FETCHED),
    "FunctionResponseFileData.displayName": Row("x", "left: others have no names for pictures", FETCHED),
    "Blob.data": Row("R0lGODlh", SAID),
    "Blob.displayName": Row("x", "left: others have no names for pictures"),
    "Blob.mimeType": Row("image/gif", SAID),
    "ToolConfig.retrievalConfig": Row({"languageCode": "en"}, HINT),
    "ToolConfig.functionCallingConfig": Row({"mode": "ANY"}, SAID),
    "ToolConfig.includeServerSideToolInvocations": Row(True, "left: there are no such tools elsewhere"),
    "FunctionCallingConfig.allowedFunctionNames": Row(["f"], SAID),
    "FunctionCallingConfig.mode": Row(None, SAID),
    "FunctionCallingConfig.mode=ANY": Row(None, "left: so it was"),
    "FunctionCallingConfig.mode=NONE": Row(None, SAID, {"nova": REFUSED}),
    "FunctionCallingConfig.streamFunctionCallArguments": Row(True, "left: others stream as they do"),
    "ThinkingConfig.includeThoughts": Row(True, "left: there are none"),
    "ThinkingConfig.thinkingBudget": Row(9000, SAID),
    "ThinkingConfig.thinkingLevel": Row(None, SAID),
    "ThinkingConfig.thinkingLevel=MINIMAL": Row(None, SAID, dict.fromkeys(("messages", "claude"), "left: the default")),
    "ThinkingConfig.thinkingLevel=THINKING_LEVEL_UNSPECIFIED": Row(None, "left: says nothing"),
    "FunctionDeclaration.description": Row("x", SAID),
    "FunctionDeclaration.name": Row("h", SAID),
    "FunctionDeclaration.parameters": Row(UNSAID, SAID),
    "FunctionDeclaration.parametersJsonSchema": Row({"type": "object", "title": "t"}, SAID),
    "FunctionDeclaration.response": Row(SCHEMA, "left: what it returns is seen when it does"),
    "FunctionDeclaration.responseJsonSchema": Row({"type": "object"}, "left: what it returns is seen when it does"),
    "FunctionDeclaration.behavior": Row(None, "left: the default"),
    "FunctionDeclaration.behavior=NON_BLOCKING": Row(None, REFUSED),
    "Tool.functionDeclarations": Row([{"name": "h"}], SAID),
} | {f"Tool.{name}": Row({"x": 1}, REFUSED) for name in ONLY_GOOGLE} | {
    f"Schema.{name}": Row(value, SAID) for name, value in PARAMETERS.items()
} | {
    "Schema.propertyOrdering": Row(["a"], "left: objects have no order elsewhere"),
    "Schema.type=OBJECT": Row(None, "left: so it was"),
    "Schema.type=TYPE_UNSPECIFIED": Row(None, "left: an object then"),
}  # fmt: skip
INSIDE = {
    "FileData": "fileData", "FunctionCall": "functionCall", "FunctionResponse": "functionResponse",
    "Blob": "inlineData",
    "FunctionResponsePart": "functionResponse.parts.0", "FunctionResponseBlob": "functionResponse.parts.0.inlineData",
    "FunctionResponseFileData": "functionResponse.parts.0.fileData", "Schema": "parameters",
}  # fmt: skip
# What the SDK keeps to itself, and what the two places of settings both have.
SDK_ONLY = {"httpOptions", "shouldReturnHttpResponse", "automaticFunctionCalling"}
TABLE = Table(plug, "/v1beta/models/m:generateContent", BASE, SHAPES, FIELDS, INSIDE, ("responseModalities",))


@cache
def listed() -> list[str]:
    """What the types of the SDK have: settings of a call go out as fields of the request or of `generationConfig`."""
    seen: set[str] = {"HttpOptions", "AutomaticFunctionCallingConfig", "File", "GenerateContentConfig"}
    top = {name.removeprefix("GenerateContentConfig.") for name in FIELDS if name.startswith("GenerateContentConfig.")}
    shapes = (types.GenerationConfig, types.Content, types.Tool, types.SafetySetting, types.ToolConfig)
    shapes += (types.ModelArmorConfig, types.ImageConfig, types.GenerationOutputConfig)
    names = [name for shape in shapes for name in fields_of(shape, WHOLE, seen)]
    asked = list(
        fields_of(types.GenerateContentConfig, set(), {"File", "HttpOptions"} | seen - {"GenerateContentConfig"})
    )
    for name in asked:
        kind, _, field = name.partition(".")
        if kind == "GenerateContentConfig" and field and field.partition("=")[0] not in SDK_ONLY:
            names.append(name if field.partition("=")[0] in top else f"GenerationConfig.{field}")
    return list(dict.fromkeys(names))


@pytest.mark.parametrize("target", OTHERS)
def test_every_field_has_its_fate(target: str) -> None:
    wrong = TABLE.wrong(listed(), target)
    assert not wrong, "\n".join(wrong)


def test_the_same_answer_serves_only_the_same_question() -> None:
    for name in listed():
        before, after, row, _ = TABLE.pair(name)
        if before != after and TABLE.same_answer(before, after):
            assert row.fate.startswith("left") or "serviceTier" in name, name


def test_our_own_kind_gets_every_field_as_it_is() -> None:
    for name in listed():
        _, after, _, _ = TABLE.pair(name)
        assert TABLE.write(after, "gemini") == after, name


def test_no_row_is_left_over() -> None:
    names = listed()
    assert set(SHAPES) - {"GenerateContentConfig"} <= set(names)
    known = {name.partition("=")[0] for name in names}
    assert {name.partition("=")[0] for name in FIELDS} <= known
