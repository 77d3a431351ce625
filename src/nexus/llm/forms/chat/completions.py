"""The older completions form beside that of chats: a text in the place of a message, log probabilities in columns.

Source: https://platform.openai.com/docs/api-reference/completions.
"""

from __future__ import annotations

from typing import Any


def as_chat(body: dict[str, Any], *, said: str = "message") -> dict[str, Any]:
    """Return an answer of this form, or with `said` "delta" an event of its stream, as one of a chat's."""
    return body | {"choices": [_choice(choice, said) for choice in body.get("choices") or ()]}


def _choice(choice: dict[str, Any], said: str) -> dict[str, Any]:
    text = choice.get("text")
    if text is not None and not isinstance(text, str):
        raise TypeError("a completion's text is a string")
    rest = {name: value for name, value in choice.items() if name != "text"}
    spoken: dict[str, Any] = {} if text is None else {"content": text}
    if said == "message":
        spoken["role"] = "assistant"
    return rest | {said: spoken, "logprobs": read_logprobs(choice.get("logprobs"))}


def read_logprobs(given: Any) -> dict[str, Any] | None:
    """Turn the columns of log probabilities into those of chats, a row for each token."""
    if not isinstance(given, dict) or not given.get("tokens"):
        return None
    tokens, values, tops = (given.get(name) or () for name in ("tokens", "token_logprobs", "top_logprobs"))
    rows = []
    for i, token in enumerate(tokens):
        top = tops[i] if i < len(tops) else None
        alike = [{"token": other, "logprob": value} for other, value in (top or {}).items()]
        rows.append({"token": token, "logprob": values[i] if i < len(values) else None, "top_logprobs": alike})
    return {"content": rows}


def write_logprobs(given: Any) -> dict[str, Any] | None:
    """Turn the log probabilities of chat completions into the older columns."""
    tokens = given.get("content") if isinstance(given, dict) else None
    if not tokens:
        return None
    offsets, place = [], 0
    for token in tokens:
        offsets.append(place)
        place += len(token.get("token") or "")
    return {
        "tokens": [token.get("token") for token in tokens],
        "token_logprobs": [token.get("logprob") for token in tokens],
        "top_logprobs": [
            {top.get("token"): top.get("logprob") for top in token.get("top_logprobs") or ()} for token in tokens
        ],
        "text_offset": offsets,
    }
