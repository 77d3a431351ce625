"""Prefixed identifiers that sort by time: `run_01ja8w3x...`.

The body is a ULID (https://github.com/ulid/spec): 48 bits of milliseconds, 80 random bits, in
lower-case Crockford base 32. One letter group tells a reader of a log what an id is.
"""

from __future__ import annotations

import re
import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_ID = re.compile(r"^[a-z]{2,8}_[0-9a-hjkmnp-tv-z]{26}$")


def new_id(prefix: str) -> str:
    """Return a new id such as `run_01ja8w3xk5v0m2c7tqz9r4h6ye`."""
    value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    digits = [_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5)]
    return f"{prefix}_{''.join(digits)}"


def is_id(text: str, prefix: str) -> bool:
    """Tell whether `text` has the form of an id with this prefix."""
    return text.startswith(prefix + "_") and _ID.match(text) is not None
