"""What Gemini's answers cite, and the notes that all forms share (`notes`). Google counts in bytes of UTF-8.

Sources: https://ai.google.dev/api/generate-content#GroundingMetadata and #CitationMetadata.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from nexus.llm.forms.notes import notes_in, url_note
from nexus.llm.types import Searched

_BY_QUESTION = re.compile(r"gemini-[12](?:\.|-|$)")
_KINDS = ("web", "retrievedContext", "maps", "image")


def read_notes(candidate: Mapping[str, Any], text: str) -> list[dict[str, Any]]:
    """Read what a candidate cites of addresses, for its whole `text` so far."""
    cited, grounds = candidate.get("citationMetadata"), candidate.get("groundingMetadata")
    if not cited and not grounds:
        return []
    found = [*_cited(cited), *_grounded(grounds)]
    if not found:
        return []
    said = text.encode()
    places = {place: len(said[:place].decode(errors="ignore")) for _, _, *both in found for place in both}
    return [url_note(url, title, places[begin], places[end]) for url, title, begin, end in found]


def count_searches(grounds: Any, model: str) -> int:
    """Return how many searches of a candidate are billed: older models are by the question, newer ones by the query.

    Source: https://ai.google.dev/gemini-api/docs/google-search#pricing.
    """
    queries = len(set(_queries(grounds)))
    return min(queries, 1) if _BY_QUESTION.search(model) else queries


def _queries(grounds: Any) -> list[str]:
    told = grounds.get("webSearchQueries") if isinstance(grounds, dict) else None
    return [query for query in told if isinstance(query, str) and query] if isinstance(told, list) else []


def read_search(candidate: Mapping[str, Any]) -> Searched | None:
    """Read which searches a candidate rests on; None for none."""
    grounds = candidate.get("groundingMetadata")
    queries = _queries(grounds)
    if not queries:
        return None
    chunks = grounds.get("groundingChunks") if isinstance(grounds, dict) else None
    found = [_source(chunk) for chunk in chunks] if isinstance(chunks, list) else []
    return Searched(queries=tuple(queries), sources=tuple(source[0] for source in found if source is not None))


def _cited(told: Any) -> Iterator[tuple[str, Any, int, int]]:
    """Yield address, title and bytes of what the model repeats."""
    listed = (told.get("citations") or told.get("citationSources")) if isinstance(told, dict) else None
    for item in _objects(listed):
        if isinstance(url := item.get("uri"), str) and url:
            yield url, item.get("title"), _byte(item, "startIndex"), _byte(item, "endIndex")


def _grounded(told: Any) -> Iterator[tuple[str, Any, int, int]]:
    """Yield address, title and bytes of what rests on a search."""
    if not isinstance(told, dict):
        return
    chunks = told.get("groundingChunks")
    sources = [_source(chunk) for chunk in chunks] if isinstance(chunks, list) else []
    for support in _objects(told.get("groundingSupports")):
        segment = support.get("segment")
        segment = segment if isinstance(segment, dict) else {}
        for number in support.get("groundingChunkIndices") or ():
            if isinstance(number, int) and 0 <= number < len(sources) and (source := sources[number]) is not None:
                yield *source, _byte(segment, "startIndex"), _byte(segment, "endIndex")


def _source(chunk: Any) -> tuple[str, Any] | None:
    for kind in _KINDS:
        told = chunk.get(kind) if isinstance(chunk, dict) else None
        if isinstance(told, dict) and isinstance(url := told.get("uri") or told.get("sourceUri"), str) and url:
            return url, told.get("title")
    return None


def _objects(listed: Any) -> list[dict[str, Any]]:
    return [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []


def _byte(told: dict[str, Any], name: str) -> int:
    value = told.get(name)
    return value if isinstance(value, int) and value > 0 else 0


def write_notes(extra: Mapping[str, Any], text: str) -> dict[str, Any]:
    """Write the notes in an `extra` on a candidate's whole `text`; empty where there are none."""
    cited = [
        {
            "startIndex": len(text[: note.begin].encode()),
            "endIndex": len(text[: note.end].encode()),
            "uri": note.url,
        }
        | ({"title": note.title} if note.title else {})
        for note in notes_in(extra)
    ]
    return {"citationMetadata": {"citations": cited}} if cited else {}
