"""Hiding the secrets that a step has used wherever its words are kept. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

import orjson

MASK: Final = "***"
SHORTEST: Final = 4
"""Shorter values are not hidden: they would blacken every text."""


def masked(value: Any, secrets: Sequence[str]) -> Any:
    """Return `value` with every one of `secrets` in any text of it replaced; the same object if there is none.

    A secret is also found as it stands in JSON, in an address and in base 64.
    """
    forms = {form for secret in secrets if len(secret) >= SHORTEST for form in _forms(secret)}
    wanted = sorted(forms, key=len, reverse=True)
    return _masked(value, wanted) if wanted else value


@lru_cache(maxsize=256)
def _forms(secret: str) -> frozenset[str]:
    escaped = orjson.dumps(secret).decode()[1:-1]
    return frozenset({secret, escaped, quote(secret, safe=""), base64.b64encode(secret.encode()).decode()})


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
