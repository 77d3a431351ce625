"""The child process of the built-in model: `python -m nexus.llm.local.server --data-dir D --model FILE`.

llama.cpp's own HTTP server on loopback, at a free port, behind a random key. When it is ready its address
and key stand in `<data dir>/run/local-llm.json`, or where `--notice` says. It runs apart so that a crash of
native code takes no API down, and so that it is spoken to like any other provider. It touches its notice while
it works. With `--idle` it ends after so many seconds without work; SIGUSR1 ends it as soon as it has none.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import os
import re
import secrets
import signal
import threading
import time
from pathlib import Path

_LOOK_EVERY = 0.2
# Between the last word of an answer and its way out.
_MOMENT = 0.5
_AT_WORK = re.compile(r"^llamacpp:requests_(?:processing|deferred) (\d+)", re.MULTILINE)
_DONE = re.compile(r"^llamacpp:(?:prompt_tokens|tokens_predicted)_total (\S+)", re.MULTILINE)


def main(argv: list[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="nexus.llm.local.server")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--alias", default="nexus-local")
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--context", type=int, default=2048, help="tokens of each request")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--gpu-layers", type=int, default=0)
    parser.add_argument("--notice", type=Path)
    parser.add_argument("--idle", type=float, default=math.inf)
    given = parser.parse_args(argv)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    drain = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: drain.set())
    key = secrets.token_urlsafe(32)
    server = _serve(given, key)
    notice = given.notice or given.data_dir / "run" / "local-llm.json"
    write_notice(notice, {"address": server.listening_address, "key": key, "pid": os.getpid(), "model": given.alias})
    _wait(server, notice, stop, drain, given.idle)
    # Its threads may be in the middle of an answer; nothing of theirs is worth waiting for.
    os._exit(0)


def _wait(
    server: xllamacpp.Server,  # type: ignore[name-defined]  # noqa: F821
    notice: Path,
    stop: threading.Event,
    drain: threading.Event,
    idle: float,
) -> None:
    """Return when asked to stop, or without work for `idle` seconds, or for a moment once asked to drain."""
    used, before = time.monotonic(), _DONE.findall(server.handle_metrics())
    while not stop.wait(_LOOK_EVERY):
        now, metrics = time.monotonic(), server.handle_metrics()
        # A short answer begins and ends between two looks: only what was counted tells of it.
        done = _DONE.findall(metrics)
        if done != before or any(int(count) for count in _AT_WORK.findall(metrics)):
            used, before = now, done
            os.utime(notice)
        elif now - used >= (_MOMENT if drain.is_set() else idle):
            return


def _serve(given: argparse.Namespace, key: str) -> xllamacpp.Server:  # type: ignore[name-defined]  # noqa: F821
    import xllamacpp

    threads = given.threads or len(os.sched_getaffinity(0))
    params = xllamacpp.CommonParams()
    params.model.path = str(given.model)
    params.model_alias = {given.alias}
    params.n_parallel = given.parallel
    params.n_ctx = given.context * given.parallel
    params.n_gpu_layers = given.gpu_layers
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.verbosity = 0
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [key]
    params.endpoint_slots = False
    params.endpoint_metrics = True
    params.ui = False
    return xllamacpp.Server(params)


def write_notice(path: Path, content: dict[str, object]) -> int:
    """Write where the child is, readable by its owner only, in one step.

    Returns a descriptor whose lock says, for as long as this process lives and holds it, that the notice
    is true: process ids come back too soon to tell, above all in containers.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.write(descriptor, json.dumps(content).encode())
    temporary.replace(path)
    return descriptor


if __name__ == "__main__":
    main()
