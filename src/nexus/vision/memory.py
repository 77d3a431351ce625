"""Giving memory back to the machine.

The buffers of a text reader are hundreds of megabytes for a second, and glibc keeps what is freed: a
process that read six pages stayed at 640 MB, with trimming at 162 MB, in the same CPU time.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any


@cache
def _trim() -> Callable[[int], Any] | None:
    try:
        trim: Callable[[int], Any] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    except OSError:
        return None
    return trim


def give_back() -> None:
    """Return free memory to the system where the C library can (glibc); takes about a millisecond."""
    trim = _trim()
    if trim is not None:
        trim(0)
