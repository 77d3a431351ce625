"""Log probabilities of Gemini's answers, and the form that all others share: that of chat completions.

Source: https://ai.google.dev/api/generate-content#LogprobsResult. The shared form stands in the `extra` of a
choice or chunk, as `{"logprobs": {"content": [{"token", "logprob", "bytes", "top_logprobs"}]}}`.
"""

from __future__ import annotations

from typing import Any


def read_logprobs(result: Any) -> dict[str, Any]:
    """Read a `logprobsResult`; empty where there is none."""
    if not isinstance(result, dict) or not result.get("chosenCandidates"):
        return {}
    tops = result.get("topCandidates") or []
    content = []
    for i, chosen in enumerate(result["chosenCandidates"]):
        top = tops[i].get("candidates") or () if i < len(tops) else ()
        content.append(_read_token(chosen) | {"top_logprobs": [_read_token(token) for token in top]})
    return {"logprobs": {"content": content}}


def _read_token(told: dict[str, Any]) -> dict[str, Any]:
    token = told.get("token") or ""
    return {"token": token, "logprob": told.get("logProbability", 0.0), "bytes": list(token.encode())}


def write_logprobs(extra: dict[str, Any]) -> dict[str, Any]:
    """Write the log probabilities in an `extra` as fields of a candidate; empty where there are none."""
    told = extra.get("logprobs")
    content = told.get("content") if isinstance(told, dict) else None
    if not content:
        return {}
    result: dict[str, Any] = {"chosenCandidates": [_write_token(token) for token in content]}
    tops = [[_write_token(top) for top in token.get("top_logprobs") or ()] for token in content]
    if any(tops):
        result["topCandidates"] = [{"candidates": top} for top in tops]
    average = sum(token.get("logprob") or 0.0 for token in content) / len(content)
    return {"logprobsResult": result, "avgLogprobs": average}


def _write_token(told: dict[str, Any]) -> dict[str, Any]:
    return {"token": told.get("token", ""), "logProbability": told.get("logprob", 0.0)}
