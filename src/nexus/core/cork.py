"""Corked writes: what the connections of an event loop have to say in one turn of it, said together.

Each write to a socket may have to wake whoever reads from it, which costs more than the copying does. A reader that
serves many connections (a client with several requests under way, a provider, a proxy) is awake already when the
writes come one after another. While only one request is under way nothing is held back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Any, Final

from nexus.core.per_loop import PerLoop

log = logging.getLogger(__name__)

FROM: Final = 2
"""So many requests are under way where words begin to wait for each other."""
_MOST: Final = 16
"""So many writes wait for each other at the most: the first of them should not wait for all the work of a long turn."""
_LARGE: Final = 16 * 1024
"""Larger pieces go at once, so that the transport tells in time when it has enough."""


class Cork:
    """The writes of one loop. What is said to a transport by it is said in order; `flush` before closing one."""

    __slots__ = ("_waiting", "crowd")

    def __init__(self) -> None:
        """Hold back nothing before `crowd`, the requests under way, is known."""
        self.crowd: Collection[Any] = ()
        self._waiting: list[tuple[asyncio.WriteTransport, bytes]] = []

    def write(self, transport: asyncio.WriteTransport, data: bytes) -> None:
        """Write `data` before the loop turns, or at once where nobody else may have something to say."""
        waiting = self._waiting
        if not waiting:
            if len(self.crowd) < FROM or len(data) > _LARGE:
                transport.write(data)
                return
            asyncio.get_running_loop().call_soon(self.flush)
        waiting.append((transport, data))
        if len(waiting) >= _MOST or len(data) > _LARGE:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        waiting, self._waiting = self._waiting, []
        for transport, data in waiting:
            try:
                if not transport.is_closing():
                    transport.write(data)
            except (RuntimeError, OSError) as error:  # one that is gone must not keep the others from what is theirs
                log.error("a transport took nothing", exc_info=error)


corks: Final = PerLoop(Cork)
