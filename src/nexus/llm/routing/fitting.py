"""Whether a model can take a request: what it lacks is said by name, never silently thinned out. No I/O."""

from __future__ import annotations

from nexus.core.errors import NexusError
from nexus.llm.errors import ContextTooLong, Unsupported
from nexus.llm.types import Call, Deployment, Need

# No tokenizer makes longer tokens on average: what is longer than this cannot fit, and is not sent to be counted.
_MOST_CHARACTERS_PER_TOKEN = 16
_NOUNS: dict[Need, str] = {
    "tools": "tools",
    "images": "images",
    "audio": "audio",
    "documents": "documents",
    "json_schema": "structured output",
    "reasoning": "reasoning settings",
    "choices": "more than one choice",
    "logprobs": "log probabilities",
}


def unfit(call: Call, deployment: Deployment, too_small: Deployment | None = None) -> NexusError | None:
    """Return why this model cannot take the request, or None; `too_small` is one that found it too long."""
    able = deployment.capabilities
    for need in call.needs:
        if able.lacks(need):
            field = call.fields.get(need, need)
            return Unsupported(f"The model {call.model} does not support {_NOUNS[need]} ({field}).", field=field)
    limit = able.context_tokens
    if limit is not None and call.characters > limit * _MOST_CHARACTERS_PER_TOKEN:
        return ContextTooLong(f"The model {call.model} reads at most {limit} tokens.", field="messages")
    if too_small is not None and not _is_wider(deployment, too_small):
        return ContextTooLong(field="messages")
    return None


def _is_wider(deployment: Deployment, than: Deployment) -> bool:
    """Tell whether a model may read what was too long for another: unknown sizes have the benefit of the doubt."""
    mine, other = deployment.capabilities.context_tokens, than.capabilities.context_tokens
    if mine is not None and other is not None:
        return mine > other
    return deployment.model != than.model
