"""Kombu's Redis transport with one client for a channel, and not one for each command.

A client of redis-py is cheap to use and dear to make; the stock channel makes four for each message (a
tenth of an engine's time, measured by `nexus bench runs`). Importing this sets it in the stock one's place.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis

for _scheme in ("redis", "rediss"):
    TRANSPORT_ALIASES[_scheme] = f"{__name__}:Transport"


class Channel(redis.Channel):
    """Keeps its client for as long as the pool of connections behind it."""

    _kept: Any = None

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:
            return super()._create_client(asynchronous)  # type: ignore[no-untyped-call]
        if self._kept is None or self._kept.connection_pool is not self.pool:
            self._kept = super()._create_client()  # type: ignore[no-untyped-call]
        return self._kept

    def sizes(self, queues: Iterable[str]) -> list[int]:
        """Return how many messages lie in each queue, asked for at once. Ours have no priorities in the broker."""
        with self.conn_or_acquire() as client, client.pipeline(transaction=False) as asked:
            for queue in queues:
                asked.llen(queue)
            return [int(size) for size in asked.execute()]


class Transport(redis.Transport):
    """The stock transport with our channel."""

    Channel = Channel
