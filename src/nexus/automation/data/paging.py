"""Records out of a web API, page by page. Pure but for the fetching, which is handed in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

import orjson
from pydantic import Field, model_validator

from nexus.automation.errors import DataUnreadable
from nexus.automation.step import StepModel
from nexus.http.fetch import Fetched

_NEXT: Final = re.compile(r'<([^>]+)>\s*;[^,]*\brel="?next"?')


class Paging(StepModel):
    """How the next page is asked for. Pages end with the first that is empty or names no next one."""

    by: Literal["page", "offset", "cursor", "next_url", "link_header"]
    parameter: str | None = Field(None, max_length=100, description="Of the address: page, offset, cursor ...")
    start: int = Field(1, ge=0, description="Number of the first page")
    size: int | None = Field(None, ge=1, le=100_000, description="Records of a page")
    size_parameter: str | None = Field(None, max_length=100, description="Of the address, for the size")
    next: str | None = Field(None, max_length=500, description="Where the answer holds the cursor or the next address")

    @model_validator(mode="after")
    def _complete(self) -> Paging:
        if self.by in ("page", "offset", "cursor") and self.parameter is None:
            raise ValueError(f"paging by {self.by} needs the name of the parameter")
        if self.by in ("cursor", "next_url") and self.next is None:
            raise ValueError(f"paging by {self.by} needs next: where the answer holds it, such as meta.next")
        return self


def first_url(url: str, paging: Paging | None) -> str:
    """Return the address of the first page."""
    if paging is None:
        return url
    more: dict[str, Any] = {}
    if paging.size is not None and paging.size_parameter is not None:
        more[paging.size_parameter] = paging.size
    if paging.by == "page":
        more[str(paging.parameter)] = paging.start
    elif paging.by == "offset":
        more[str(paging.parameter)] = 0
    return with_query(url, more)


def next_url(url: str, fetched: Fetched, answer: Any, count: int, paging: Paging | None) -> str | None:
    """Return the address of the page behind the one at `url` with `count` records; None behind the last."""
    if paging is None or count == 0:
        return None
    name = str(paging.parameter)
    if paging.by in ("page", "offset"):
        if paging.size is not None and count < paging.size:
            return None
        at = int(dict(parse_qsl(urlsplit(url).query)).get(name, "0"))
        return with_query(url, {name: at + (1 if paging.by == "page" else count)})
    if paging.by == "link_header":
        found = _NEXT.search(fetched.headers.get("link", ""))
        return urljoin(fetched.url, found[1]) if found else None
    told = looked_up(answer, str(paging.next))
    if told is None or told in ("", False):
        return None
    return urljoin(fetched.url, str(told)) if paging.by == "next_url" else with_query(url, {name: told})


def with_query(url: str, more: Mapping[str, Any]) -> str:
    """Return an address with parameters set."""
    if not more:
        return url
    parts = urlsplit(url)
    kept = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name not in more]
    query = urlencode([*kept, *((name, str(value)) for name, value in more.items())])
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


def records_of(body: bytes, path: str | None) -> tuple[Any, list[dict[str, Any]]]:
    """Return the answer and the records in it: at `path` (`data.items`), else the answer itself. JSON or JSON Lines.

    Raises `DataUnreadable`.
    """
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = _lines(body)
    found = looked_up(answer, path) if path else answer
    if isinstance(found, dict):
        found = [found]
    if not isinstance(found, list):
        raise DataUnreadable("The answer has no list of records there.", field="with.http.records")
    return answer, [one if isinstance(one, dict) else {"value": one} for one in found]


def _lines(body: bytes) -> list[Any]:
    try:
        return [orjson.loads(line) for line in body.splitlines() if line.strip()]
    except orjson.JSONDecodeError:
        raise DataUnreadable("The answer is no JSON.", field="with.http.url") from None


def looked_up(value: Any, path: str) -> Any:
    """Return what lies at a path of names and numbers joined by dots; None for nothing."""
    for name in path.split("."):
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value
