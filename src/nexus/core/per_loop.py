"""What belongs to one event loop: kept as long as the loop is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary, ref

T = TypeVar("T")


class PerLoop(Generic[T]):
    """One value for each event loop, made when it is first asked for; that of the last call is found at once."""

    __slots__ = ("_last", "_make", "_values")

    def __init__(self, make: Callable[[], T]) -> None:
        """Make values by `make`."""
        self._make = make
        self._values: WeakKeyDictionary[asyncio.AbstractEventLoop, T] = WeakKeyDictionary()
        self._last: tuple[ref[asyncio.AbstractEventLoop], T] | None = None

    def of(self, loop: asyncio.AbstractEventLoop) -> T:
        """Return the value of this loop."""
        last = self._last
        if last is not None and last[0]() is loop:
            return last[1]
        value = self.known(loop)
        if value is None:
            value = self._values[loop] = self._make()
        self._last = (ref(loop), value)
        return value

    def known(self, loop: asyncio.AbstractEventLoop) -> T | None:
        """Return the value of this loop if it has been made."""
        return self._values.get(loop)

    def pop(self, loop: asyncio.AbstractEventLoop) -> T | None:
        """Forget the value of this loop, and return it."""
        self._last = None
        return self._values.pop(loop, None)
