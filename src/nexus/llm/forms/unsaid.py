"""What one form asks for and another has no words for: refused by the name of its field, never silently left out.

Hints, which change no answer, are the exception: each dialect names its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from nexus.core.errors import NexusError
from nexus.llm.errors import Unsupported
from nexus.llm.types import ChatRequest

MESSAGES: Final = "anthropic.messages"
CHAT: Final = "openai.chat"
COMPLETIONS: Final = "openai.completions"
RESPONSES: Final = "openai.responses"
_FILED: Final = ("metadata", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "safety_identifier")
# Of each dialect that is checked here, the further fields that another model may be asked without: marks for a cache,
# how soon and at which price an answer comes, what is noted about it, and what of the conversation need not be read.
_HINTS: Final[dict[str, frozenset[str]]] = {
    MESSAGES: frozenset(
        ("cache_control", "service_tier", "speed", "diagnostics", "context_management", "fallback_credit_token")
    ),
    # `reasoning` and `thinking` are what `reasoning_effort` is called by some servers, and read as that.
    CHAT: frozenset((*_FILED, "max_completion_tokens", "prediction", "reasoning", "store", "thinking")),
    COMPLETIONS: frozenset(_FILED),
    # Calls of the provider's own tools, which `max_tool_calls` counts, there are none of elsewhere.
    RESPONSES: frozenset((*_FILED, "background_options", "client_metadata", "max_tool_calls")),
}
_OUR_PLACE: Final = re.compile(r"messages\.(\d+)(?:\.content)?(?:\.(\d+))?")
_NOTHING: Final[tuple[Any, ...]] = (None, False, "", [], {})


def refuse_fields(given: Mapping[str, Any], known: Iterable[str], hints: Iterable[str], prefix: str = "") -> None:
    """Raise `Unsupported` for a field that asks for something and is neither `known` nor among the `hints`."""
    for name, value in given.items():
        if name not in known and name not in hints and value not in _NOTHING:
            raise Unsupported(f"This model does not support {prefix}{name}.", field=f"{prefix}{name}")


def refuse_unsaid(request: ChatRequest, dialect: str, taken: Iterable[str] = ()) -> None:
    """Refuse what a request of another form asks in further fields, but for those that are `taken`.

    To be called by the writers of every form; `dialect` is theirs. Raises `Unsupported` naming the field.
    """
    hints = None if request.dialect == dialect else _HINTS.get(request.dialect)
    if hints is None:
        return
    usual = ("fallbacks",) if request.extra.get("fallbacks") == "default" else ()
    refuse_fields(request.extra, (*taken, *usual), hints)
    _refuse_sound(request)
    for name, value in request.extra.items():
        if isinstance(value, dict) and name == "context_management":
            _refuse_edits(value.get("edits"))


def _refuse_sound(request: ChatRequest) -> None:
    """Refuse an answer in sound that lies at the provider that gave it, and of which nothing else is told."""
    for i, message in enumerate(request.messages):
        if message.extra.get("audio") and not message.parts:
            field = f"messages.{i}.audio"
            raise Unsupported(f"{field}: this model cannot hear an answer that lies at another provider.", field=field)


def _refuse_edits(edits: Any) -> None:
    """Refuse edits of a conversation that put something in it; what they only leave out may as well be read."""
    for i, edit in enumerate(edits if isinstance(edits, list) else ()):
        kind = str(edit.get("type")) if isinstance(edit, dict) else ""
        if not kind.startswith("clear_"):
            raise Unsupported(f"This model does not support {kind}.", field=f"context_management.edits.{i}")


def as_client_says(error: NexusError, request: ChatRequest) -> NexusError:
    """Return the error of a writer with the place in our messages as the client calls it."""
    found = _OUR_PLACE.match(error.field or "")
    if found is None or request.places is None or error.field is None:
        return error
    message, part = int(found[1]), int(found[2] or 0)
    places = request.places()
    if message < len(places) and part < len(places[message]):
        theirs = places[message][part] + error.field[found.end() :]
        error.message, error.field = error.message.replace(error.field, theirs), theirs
    return error
