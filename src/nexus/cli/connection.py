"""The instance that a command speaks to: the one named, the one that runs here, or a private one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from nexus.cli.first_run import ensure
from nexus.cli.instance import Client, Place, private, running
from nexus.cli.options import settings_of
from nexus.cli.output import fail


@contextlib.contextmanager
def connect(data_dir: Path | None, url: str | None, key: str | None) -> Iterator[Client]:
    """Yield a client of the instance at `url`, else of the one over the data dir, else of a private one over it."""
    settings = settings_of(data_dir)
    if url:
        yield Client(Place(url.rstrip("/"), key or ""))
    elif place := running(settings.data_dir):
        if not (key or place.key):
            fail(f"{place.url} runs, but there is no API key for this machine; give one by --key")
        yield Client(Place(place.url, key or place.key))
    else:
        # In the foreground: it prints the first admin's password, once.
        ensure(settings, starters=True, first_admin=True)
        with private(settings.data_dir) as (place, _process):
            yield Client(place)
