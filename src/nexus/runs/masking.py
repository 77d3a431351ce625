"""Hiding the secrets that a step has used wherever its words are kept. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

MASK: Final = "***"
SHORTEST: Final = 4
"""Shorter values are not hidden: they would blacken every text."""


def masked(value: Any, secrets: Sequence[str]) -> Any:
    """Return `value` with every one of `secrets` in any text of it replaced; the same object if there is none."""
    wanted = sorted((secret for secret in secrets if len(secret) >= SHORTEST), key=len, reverse=True)
    return _masked(value, wanted) if wanted else value


def _masked(value: Any, secrets: Sequence[str]) -> Any:
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, MASK)
        return value
    if isinstance(value, Mapping):
        return {_masked(key, secrets): _masked(item, secrets) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(item, secrets) for item in value]
    return value
