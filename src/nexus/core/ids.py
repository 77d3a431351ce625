"""Prefixed identifiers that sort by time: `run_01ja8w3x...`.

The body is a ULID (https://github.com/ulid/spec): 48 bits of milliseconds, 80 random bits, in
lower-case Crockford base 32. One letter group tells a reader of a log what an id is.
"""

from __future__ import annotations

import os
import re
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_ID = re.compile(r"^[a-z]{2,8}_[0-9a-hjkmnp-tv-z]{26}$")

_LETTERS = 16
_AT_ONCE = 256
# Every letter stands for eight of the 256 bytes, so random bytes become random letters one by one.
_TO_LETTERS = (_ALPHABET * 8).encode()
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]

# Random ends of ids, made many at a time: asking the system for each would cost more. `pop` is safe in every thread.
_ends: list[str] = []
# A forked child would give out the same ids as its parent.
os.register_at_fork(after_in_child=_ends.clear)


class _Second:
    """The first letters of the moment, which stay the same for a second (1024 ms); ids often come in swarms."""

    known = (-1, "")


def new_id(prefix: str) -> str:
    """Return a new id such as `run_01ja8w3xk5v0m2c7tqz9r4h6ye`."""
    moment = time.time_ns() // 1_000_000
    second = moment >> 10
    known, text = _Second.known
    if second != known:
        text = "".join([_ALPHABET[(second >> shift) & 31] for shift in range(35, -1, -5)])
        _Second.known = (second, text)
    try:
        end = _ends.pop()
    except IndexError:
        end = _more()
    return f"{prefix}_{text}{_PAIRS[moment & 1023]}{end}"


def _more() -> str:
    letters = os.urandom(_LETTERS * _AT_ONCE).translate(_TO_LETTERS).decode()
    ends = [letters[start : start + _LETTERS] for start in range(0, len(letters), _LETTERS)]
    _ends.extend(ends[1:])
    return ends[0]


def is_id(text: str, prefix: str) -> bool:
    """Tell whether `text` has the form of an id with this prefix."""
    return text.startswith(prefix + "_") and _ID.match(text) is not None
