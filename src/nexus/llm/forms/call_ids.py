"""Ids of calls for Mistral's models, which take nine letters and digits and nothing else."""

from __future__ import annotations

import hashlib
import re
from typing import Final

_SHORT: Final = re.compile(r"[a-zA-Z0-9]{9}")


def short_id(given: str) -> str:
    """Return the id if it is one that they take, else one made from it, for the call and its result alike."""
    return given if _SHORT.fullmatch(given) else hashlib.sha256(given.encode()).hexdigest()[:9]
