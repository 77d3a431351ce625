"""Wishes that every form says in its own way: how an answer is to look, and how soon and at what price it comes."""

from __future__ import annotations

import msgspec

from nexus.llm.errors import InvalidRequest
from nexus.llm.types import ChatRequest, ResponseFormat

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
# For models that have no parameter for it; what is usual goes without saying.
_VERBOSITY = {"low": "Keep your answer brief.", "high": "Answer in full detail."}
_ONLY_JSON = "Answer with a single JSON object and nothing else: no words around it, no code fence."
_BY_SCHEMA = "Answer with JSON that is valid by this schema and nothing else: no words around it, no code fence.\n"
_VERBOSITIES = (None, "low", "medium", "high")
_USUAL_TIERS = frozenset(("", "auto", "default", "standard", "standard_only", "on_demand", "scale"))
_QUICK = frozenset(("fast", "priority"))


def verbosity_words(request: ChatRequest) -> str | None:
    """Return the wish for a short or long answer in words, None where nothing is to be said.

    Raises `InvalidRequest` for a word that is none for it.
    """
    if request.verbosity not in _VERBOSITIES:
        raise InvalidRequest("verbosity must be one of low, medium, high.", field="verbosity")
    return _VERBOSITY.get(request.verbosity or "")


def json_words(form: ResponseFormat) -> str:
    """Return the wish for JSON in words, for models that cannot be held to it otherwise."""
    if form.kind == "json_object" or not form.schema:
        return _ONLY_JSON
    return _BY_SCHEMA + msgspec.json.encode(form.described).decode()


def check_effort(effort: str | None) -> None:
    """Raise `InvalidRequest` for an effort by a name that no model knows."""
    if effort is not None and effort not in EFFORTS:
        told = f"The reasoning effort must be one of {', '.join(EFFORTS)}."
        raise InvalidRequest(told, field="reasoning_effort")


def tier_of(request: ChatRequest) -> str | None:
    """Return the service tier that was asked for: `flex`, `priority`, another one, or None for the usual one."""
    tier = request.service_tier or ""
    return "priority" if tier in _QUICK else None if tier in _USUAL_TIERS else tier
