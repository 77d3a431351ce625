"""Prefixed identifiers that sort by time: `run_01ja8w3x...`.

The body is a ULID (https://github.com/ulid/spec): 48 bits of milliseconds, 80 random bits, in
lower-case Crockford base 32. One letter group tells a reader of a log what an id is.
"""

from __future__ import annotations

import os
import re
import threading
import time
from base64 import b32encode

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_ID = re.compile(r"^[a-z]{2,8}_[0-9a-hjkmnp-tv-z]{26}$")


_LETTERS = 16
_POOL = 2560
# Sixteen letters of base 32 hold ten bytes; only the letters differ from those of RFC 4648.
_TO_CROCKFORD = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", _ALPHABET.encode())


class _Randomness(threading.local):
    """Random letters of one thread, made many at a time: asking the system for each id would cost more."""

    def __init__(self) -> None:
        self.pool = ""
        self.used = 0

    def take(self) -> str:
        start = self.used
        if start >= len(self.pool):
            self.pool, start = b32encode(os.urandom(_POOL)).translate(_TO_CROCKFORD).decode(), 0
        self.used = start + _LETTERS
        return self.pool[start : self.used]

    def forget(self) -> None:
        self.pool = ""
        self.used = 0


_randomness = _Randomness()
# A forked child would give out the same ids as its parent.
os.register_at_fork(after_in_child=_randomness.forget)


class _Moment:
    """The last millisecond written out; ids often come in swarms."""

    value = -1
    text = ""


def new_id(prefix: str) -> str:
    """Return a new id such as `run_01ja8w3xk5v0m2c7tqz9r4h6ye`."""
    moment = time.time_ns() // 1_000_000
    if moment != _Moment.value:
        text = "".join([_ALPHABET[(moment >> shift) & 31] for shift in range(45, -1, -5)])
        # One after the other: another thread then sees the old pair or makes the new one itself.
        _Moment.text, _Moment.value = text, moment
    else:
        text = _Moment.text
    return f"{prefix}_{text}{_randomness.take()}"


def is_id(text: str, prefix: str) -> bool:
    """Tell whether `text` has the form of an id with this prefix."""
    return text.startswith(prefix + "_") and _ID.match(text) is not None
