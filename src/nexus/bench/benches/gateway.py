"""The language gateway beside a direct call, nginx and LiteLLM's proxy, all in one run and on one upstream.

Everything is on at NEXUS: keys, limits, a budget, ledger rows, cost; one API process. LiteLLM runs without a
database, from a virtual environment of its own. Slices are interleaved, in both orders, and medians reported;
CPU time is that of the contestant's processes over the requests that they finished.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar, Final

import msgspec

from nexus.bench import contestants, load, upstream
from nexus.bench.bench import Figure
from nexus.bench.contestants import CACHED, MODEL, Contestant
from nexus.compute.settings import inherited_environment
from nexus.settings import load_settings

_CONNECTIONS: Final = (1, 16, 64)
_EVENTS: Final = upstream.CHUNKS + 2


@dataclass(frozen=True, slots=True)
class _Slice:
    rate: float
    p50: float
    p99: float
    first: float
    cpu_us: float


def _measure(who: Contestant, connections: int, seconds: float, *, stream: bool = False, model: str = MODEL) -> _Slice:
    plan = load.Plan(port=who.port, connections=connections, seconds=seconds, model=model, key=who.key, stream=stream)
    before = who.cpu_seconds()
    command = [sys.executable, "-m", "nexus.bench.load", msgspec.json.encode(plan).decode()]
    done = subprocess.run(command, env=inherited_environment(), capture_output=True, check=True)
    used = who.cpu_seconds() - before
    report = msgspec.json.decode(done.stdout, type=load.Report)
    if report.failed or not report.done:
        raise RuntimeError(f"{who.name} failed {report.failed} of {report.done} requests")
    return _Slice(report.done / report.seconds, report.p50, report.p99, report.first_p50, used / report.done * 1e6)


class Gateway:
    """The benchmark `gateway`."""

    summary: ClassVar[str] = "the language gateway beside a direct call, nginx and LiteLLM: requests, streams, memory"

    def run(self, *, quick: bool) -> list[Figure]:
        """Measure three rounds of four seconds (one of two with `quick`) after a warm-up."""
        rounds, seconds = (1, 2.0) if quick else (3, 4.0)
        home = load_settings().data_dir.absolute() / "bench"
        with ExitStack() as stack:
            direct = stack.enter_context(contestants.upstream())
            ours = stack.enter_context(contestants.nexus(direct.port))
            time.sleep(1)
            idle = ours.memory_mb()
            nginx = stack.enter_context(contestants.nginx(direct.port))
            peer = stack.enter_context(contestants.litellm(direct.port, home))
            everyone = [who for who in (direct, nginx, ours, peer) if who is not None]
            for who in everyone:
                _measure(who, 4, seconds)
            plain = {
                (who.name, count): _median(slices)
                for count in _CONNECTIONS
                for who, slices in _interleaved(everyone, rounds, lambda who, n=count: _measure(who, n, seconds))
            }
            streamed = {
                (who.name, count): _median(slices)
                for count in (1, 16)
                for who, slices in _interleaved(
                    everyone, rounds, lambda who, n=count: _measure(who, n, seconds, stream=True)
                )
            }
            _measure(ours, 4, 0.5, model=CACHED)
            cached = _measure(ours, 4, seconds, model=CACHED)
            loaded = ours.memory_mb()
        return _figures(plain, streamed, cached, idle, loaded)


def _interleaved(everyone: list[Contestant], rounds: int, measure: object) -> Iterable[tuple[Contestant, list[_Slice]]]:
    found: dict[str, list[_Slice]] = {who.name: [] for who in everyone}
    for number in range(rounds):
        for who in everyone if number % 2 == 0 else reversed(everyone):
            found[who.name].append(measure(who))  # type: ignore[operator]
    return [(who, found[who.name]) for who in everyone]


def _median(slices: list[_Slice]) -> _Slice:
    def middle(name: str) -> float:
        return float(statistics.median(getattr(one, name) for one in slices))

    return _Slice(middle("rate"), middle("p50"), middle("p99"), middle("first"), middle("cpu_us"))


def _figures(
    plain: dict[tuple[str, int], _Slice],
    streamed: dict[tuple[str, int], _Slice],
    cached: _Slice,
    idle: float,
    loaded: float,
) -> list[Figure]:
    figures = []
    for count in _CONNECTIONS:
        ours = plain["nexus", count]
        others = {name: plain[name, count] for name in ("direct", "nginx", "litellm") if (name, count) in plain}
        told = ", ".join(f"{name} {other.rate:.0f}" for name, other in others.items())
        figures.append(Figure(f"requests/s, {count} connections", ours.rate, "1/s", lower_is_better=False, peer=told))
        told = ", ".join(f"{name} {other.p50:.2f}/{other.p99:.2f}" for name, other in others.items())
        figures.append(Figure(f"p50, {count} connections", ours.p50, "ms", peer=told))
        figures.append(Figure(f"p99, {count} connections", ours.p99, "ms"))
        told = ", ".join(f"{name} {other.cpu_us:.0f}" for name, other in others.items())
        figures.append(Figure(f"CPU per request, {count} connections", ours.cpu_us, "us", peer=told))
        if "litellm" in others:
            ratio, target = ours.rate / others["litellm"].rate, 60 if count > 1 else None
            figures.append(Figure(f"times LiteLLM, {count} connections", ratio, "x", target, lower_is_better=False))
    ours, direct = streamed["nexus", 1], streamed["direct", 1]
    figures.append(Figure("added p50, 1 connection", plain["nexus", 1].p50 - plain["direct", 1].p50, "ms", 0.3))
    told = ", ".join(f"{name} {one.first:.2f}" for (name, count), one in streamed.items() if count == 1)
    figures.append(Figure("added time to first chunk", ours.first - direct.first, "ms", 0.5, peer=told))
    busy = streamed["nexus", 16]
    told = ", ".join(f"{name} {one.cpu_us / _EVENTS:.1f}" for (name, count), one in streamed.items() if count == 16)
    figures.append(Figure("CPU per relayed chunk", busy.cpu_us / _EVENTS, "us", 10, peer=told))
    told = ", ".join(f"{name} {one.rate:.0f}" for (name, count), one in streamed.items() if count == 16)
    figures.append(Figure("streams/s, 16 connections", busy.rate, "1/s", lower_is_better=False, peer=told))
    if ("nginx", 16) in plain:
        ratio = plain["nexus", 16].cpu_us / plain["nginx", 16].cpu_us
        figures.append(Figure("CPU per request over nginx, 16 connections", ratio, "x", 5))
    figures.append(Figure("cached answer, p99", cached.p99, "ms", 5))
    figures.append(Figure("API process, idle", idle, "MB", 120))
    figures.append(Figure("API process, after the load", loaded, "MB"))
    return figures


plug = Gateway()
