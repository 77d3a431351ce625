"""Figures as providers write them."""

from __future__ import annotations

from typing import Any


def count_of(value: Any) -> int:
    """Return a count of tokens; 0 for what is none: null, a text, a flag, a negative number."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
