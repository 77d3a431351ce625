"""What an answer cites, as all forms share it: notes on a stretch of its text, in the way of chat completions.

They stand in the `extra` of a message or chunk, as `{"annotations": [{"type": "url_citation", "url_citation": {"url",
"title", "start_index", "end_index"}}]}`; the stretch is counted in characters of the whole text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class Note(NamedTuple):
    """One citation: an address, its title, and the stretch of text that rests on it."""

    url: str
    title: str
    begin: int
    end: int


def url_note(url: str, title: Any, begin: int, end: int) -> dict[str, Any]:
    """Return a note as it stands in `annotations`."""
    told = {"url": url, "title": title if isinstance(title, str) else "", "start_index": begin, "end_index": end}
    return {"type": "url_citation", "url_citation": told}


def notes_in(extra: Mapping[str, Any]) -> Iterator[Note]:
    """Yield the citations of addresses in the `extra` of a message or chunk, whoever wrote them."""
    noted = extra.get("annotations")
    for item in noted if isinstance(noted, list) else ():
        told = item.get("url_citation", item) if isinstance(item, dict) else None
        if isinstance(told, dict) and isinstance(url := told.get("url"), str):
            yield Note(url, str(told.get("title") or ""), _place(told, "start_index"), _place(told, "end_index"))


def _place(told: dict[str, Any], name: str) -> int:
    value = told.get(name)
    return value if isinstance(value, int) and value > 0 else 0
