"""`nexus fake-upstream` and `nexus replay`: servers to test against, which run until they are stopped."""

from __future__ import annotations

import random
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nexus.cli.output import console, fail

if TYPE_CHECKING:
    from nexus.testing.upstream import FakeUpstream

Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Where to listen; 0 is any free port.")]
Host = Annotated[str, typer.Option("--host", help="The address to listen on.")]


def fake_upstream(port: Port = 8400, host: Host = "127.0.0.1") -> None:
    """Serve a fake provider that speaks every wire format; model names like `fault-503` say what goes wrong."""
    from nexus.testing.upstream import FAULTS, FakeUpstream

    _serve(FakeUpstream(host=host, port=port, remember=1000), f"faults: {', '.join(FAULTS)}")


def replay(
    paths: Annotated[list[Path], typer.Argument(exists=True, help="Recordings (VCR, HAR), or folders of them.")],
    port: Port = 8400,
    host: Host = "127.0.0.1",
    cut: Annotated[int | None, typer.Option("--cut", help="Cut streams at random bytes, by this seed.")] = None,
    gap: Annotated[float, typer.Option("--gap", min=0, help="Milliseconds between the pieces of a stream.")] = 0.0,
) -> None:
    """Serve recorded provider traffic: each request gets the answer that was recorded for it."""
    from nexus.testing.replay import ReplayServer

    seed = None if cut is None else random.Random(cut)  # noqa: S311  reproducible on purpose
    server = ReplayServer(paths, cut=seed, gap=gap / 1000, host=host, port=port, remember=1000)
    for path, reason in server.recordings.left_out.items():
        console.print(f"left out {path}: {reason}", markup=False, highlight=False, soft_wrap=True)
    if not server.recordings.exchanges:
        fail("there is no recording to replay")
    _serve(server, f"{len(server.recordings.exchanges)} exchanges from {len(server.recordings.files)} files")


def _serve(server: FakeUpstream, told: str) -> None:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        with server:
            console.print(f"base_url for every kind of provider: {server.url}", markup=False, highlight=False)
            console.print(told, markup=False, highlight=False, soft_wrap=True)
            stop.wait()
    except OSError as error:
        fail(f"cannot listen on {server.host}:{server.port}: {error.strerror}")
