"""The programs of an installation: the API and an engine, each a process of its own.

`python -m nexus.programs api|engine` is how `supervision` starts them: without the command line and its libraries,
whose memory a server has no use for.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
from pathlib import Path

from nexus.core.errors import NexusError
from nexus.settings import Settings, load_settings

CANNOT_START = 78
"""The exit status of a program whose settings or surroundings are wrong (EX_CONFIG of sysexits.h)."""


def serve_api(settings: Settings, listener: socket.socket) -> int:
    """Serve the API until a signal; return the exit status. Raises `NexusError` if it cannot start."""
    from nexus.app import create_app
    from nexus.http.lifecycle import Lifecycle
    from nexus.http.server import serve
    from nexus.telemetry.logs import configure

    configure(settings.telemetry)
    lifecycle = Lifecycle(grace=settings.http.shutdown_grace)
    return serve(create_app(settings, lifecycle), settings.http, lifecycle, sockets=[listener])


def work_as_engine(settings: Settings) -> None:
    """Execute the steps of runs until a signal. Raises `NexusError` if it cannot start."""
    from nexus.engine import run_engine
    from nexus.telemetry.logs import configure

    configure(settings.telemetry)
    asyncio.run(run_engine(settings))


def main(arguments: list[str]) -> int:
    """Run one program; return its exit status."""
    parser = argparse.ArgumentParser("nexus")
    parser.add_argument("program", choices=("api", "engine"))
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--host")
    parser.add_argument("--listen-fd", type=int)
    asked = parser.parse_args(arguments)
    try:
        settings = load_settings(data_dir=asked.data_dir, host=asked.host)
        if asked.program == "api":
            return serve_api(settings, socket.socket(fileno=asked.listen_fd))
        work_as_engine(settings)
    except NexusError as error:
        sys.stderr.write(f"nexus: {error.message}\n")
        return CANNOT_START
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
