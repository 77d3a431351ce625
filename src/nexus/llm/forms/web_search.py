"""A search in the web that the model's provider makes: how it is asked for in any form, and what no form may drop."""

from __future__ import annotations

from collections.abc import Container
from typing import Any, Final

from nexus.llm.errors import InvalidRequest, Unsupported
from nexus.llm.types import ChatRequest, WebSearch

_PLACES: Final = ("city", "country", "region", "timezone")
_SIZES: Final = ("low", "medium", "high")
_USUAL: Final = "medium"


def read_search(told: dict[str, Any], location: Any, *, name: str, place: str, domains: Any = None) -> WebSearch:
    """Read what a search has in the words of both of OpenAI's forms; `name` is what the client calls it.

    Its settings stand at `place`. Raises `InvalidRequest` naming the field.
    """
    size = told.get("search_context_size") or _USUAL
    if size not in _SIZES:
        field = f"{place}.search_context_size"
        raise InvalidRequest(f"{field} must be one of low, medium, high.", field=field)
    if location is not None and not isinstance(location, dict):
        raise InvalidRequest(f"{place}.user_location must be an object.", field=f"{place}.user_location")
    if domains is not None and not (isinstance(domains, list) and all(isinstance(one, str) for one in domains)):
        field = f"{place}.filters.allowed_domains"
        raise InvalidRequest(f"{field} must be a list of domains.", field=field)
    where = {key: str(location[key]) for key in _PLACES if location.get(key)} if location is not None else None
    return WebSearch(name=name, place=place, size=size, domains=tuple(domains or ()), location=where)


def search_for(request: ChatRequest, has: Container[str] = ()) -> WebSearch | None:
    """Return the search that a model is to be offered, None for none.

    `has` names what its form has words for: a `search` as such, its `size`, `domains` and `location`. Raises
    `Unsupported` naming the field of what is asked for beyond that.
    """
    search = request.search
    if search is None or (request.tool_choice is not None and request.tool_choice.mode == "none"):
        return None
    asked = {
        "search": (True, search.name),
        "size": (search.size != _USUAL, f"{search.place}.search_context_size"),
        "domains": (bool(search.domains), f"{search.place}.filters.allowed_domains"),
        "location": (bool(search.location), f"{search.place}.user_location"),
    }
    for what, (wanted, field) in asked.items():
        if wanted and what not in has:
            raise Unsupported(f"This model does not support {field}.", field=field)
    return search
