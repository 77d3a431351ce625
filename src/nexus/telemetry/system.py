"""The one sampler of machine and process: a ring of the last minutes, fanned out to whoever watches.

psutil keeps the last reading for its rates in module state, so there is exactly one sampler in a process, and
Prometheus, the API and the event stream all read the same samples.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, Final

import psutil
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily

from nexus.telemetry.gpus import GPUs
from nexus.telemetry.requests import RequestMeter

log = logging.getLogger("nexus.telemetry")

Sample = dict[str, Any]

_WAITING: Final = 8


class Sampler:
    """Takes a sample each `interval` seconds and keeps `history` seconds of them."""

    def __init__(
        self,
        *,
        data_dir: Path,
        interval: float = 1.0,
        history: float = 600.0,
        cgroup: Path = Path("/sys/fs/cgroup"),
        gpus: GPUs | None = None,
        requests: RequestMeter | None = None,
    ) -> None:
        """`data_dir` is the disk to watch; `requests` tells how the web face does."""
        self._requests = requests
        self._data_dir = data_dir
        self._interval = interval
        self._ring: deque[Sample] = deque(maxlen=max(1, int(history / interval)))
        self._cgroup = cgroup
        self._gpus = gpus or GPUs()
        self._process = psutil.Process()
        self._watchers: set[asyncio.Queue[Sample]] = set()
        self._task: asyncio.Task[None] | None = None
        self._rates = _Rates()
        self._count = 0

    async def start(self) -> None:
        """Begin sampling."""
        # The first reading of both says 0.0, whatever the load is.
        psutil.cpu_percent(percpu=True)
        self._process.cpu_percent()
        self._task = asyncio.create_task(self._run(), name="system-sampler")

    async def stop(self) -> None:
        """End sampling."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._gpus.close()

    @property
    def latest(self) -> Sample | None:
        """The newest sample, None before the first."""
        return self._ring[-1] if self._ring else None

    def history(self, *, since: int = 0, limit: int | None = None) -> list[Sample]:
        """Return the samples with a number above `since`, oldest first; with `limit`, the newest of them."""
        found = [sample for sample in self._ring if sample["n"] > since]
        return found[-limit:] if limit is not None else found

    async def watch(self, *, since: int | None = None) -> AsyncIterator[Sample]:
        """Give out samples as they come, after those above number `since`; a slow reader misses the oldest."""
        queue: asyncio.Queue[Sample] = asyncio.Queue(_WAITING)
        self._watchers.add(queue)
        try:
            seen = since if since is not None else (self.latest or {"n": 0})["n"]
            for sample in self.history(since=seen):
                seen = sample["n"]
                yield sample
            while True:
                sample = await queue.get()
                if sample["n"] > seen:
                    yield sample
        finally:
            self._watchers.discard(queue)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        upcoming = loop.time()
        while True:
            try:
                self._publish(await asyncio.to_thread(self.sample))
            except (OSError, psutil.Error) as error:
                log.warning("a system sample failed: %s", type(error).__name__)
            # Steady beat: a slow sample shortens the next pause, a very slow one skips beats.
            upcoming = max(upcoming + self._interval, loop.time())
            await asyncio.sleep(upcoming - loop.time())

    def _publish(self, sample: Sample) -> None:
        self._count += 1
        sample["n"] = self._count
        self._ring.append(sample)
        for queue in self._watchers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(sample)

    def sample(self) -> Sample:
        """Take one sample now. Sizes in bytes, rates in bytes per second, shares in percent."""
        return {
            "ts": round(time.time(), 3),
            "cpu": self._cpu(),
            "memory": self._memory(),
            "disk": self._disk(),
            "network": self._network(),
            "process": self._own(),
            "gpu": self._gpus.sample(),
            "requests": self._requests.summary() if self._requests else None,
        }

    def _cpu(self) -> dict[str, Any]:
        cores = psutil.cpu_percent(percpu=True)
        return {
            "percent": round(sum(cores) / max(1, len(cores)), 1),
            "cores": cores,
            "count": os.cpu_count(),
            "limit": self._cpu_limit(),
            "load": [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        }

    def _memory(self) -> dict[str, Any]:
        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        total, used = memory.total, memory.total - memory.available
        # Inside a container psutil shows the node; the smaller limit is the one that kills.
        limit = _number(self._cgroup / "memory.max")
        if limit is not None and limit < total:
            inside = _number(self._cgroup / "memory.current") or 0
            total, used = limit, min(limit, max(0, inside - self._reclaimable()))
        return {
            "total": total,
            "used": used,
            "percent": round(100 * used / total, 1) if total else None,
            "limited": limit is not None and limit <= total,
            "swap_total": swap.total,
            "swap_used": swap.used,
        }

    def _reclaimable(self) -> int:
        """Page cache that the kernel gives back before it kills (`inactive_file`)."""
        try:
            lines = (self._cgroup / "memory.stat").read_text().splitlines()
        except OSError:
            return 0
        return next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)

    def _cpu_limit(self) -> float | None:
        """How many cores the cgroup may use, None for no limit."""
        try:
            quota, period = (self._cgroup / "cpu.max").read_text().split()
            return None if quota == "max" else round(int(quota) / int(period), 2)
        except (OSError, ValueError):
            return None

    def _disk(self) -> dict[str, Any]:
        usage = psutil.disk_usage(str(_existing(self._data_dir)))
        totals: Any = psutil.disk_io_counters()
        return {
            "total": usage.total,
            "used": usage.used,
            "free": usage.free,
            "percent": usage.percent,
            "read_rate": self._rates.of("disk_read", totals.read_bytes) if totals else None,
            "write_rate": self._rates.of("disk_write", totals.write_bytes) if totals else None,
        }

    def _network(self) -> dict[str, Any]:
        totals: Any = psutil.net_io_counters()
        return {
            "receive_rate": self._rates.of("net_in", totals.bytes_recv) if totals else None,
            "send_rate": self._rates.of("net_out", totals.bytes_sent) if totals else None,
        }

    def _own(self) -> dict[str, Any]:
        process = self._process
        with process.oneshot():
            return {
                "rss": process.memory_info().rss,
                "cpu": process.cpu_percent(),
                "threads": process.num_threads(),
                "fds": process.num_fds() if hasattr(process, "num_fds") else None,
                "uptime": round(time.time() - process.create_time(), 1),
            }


class _Rates:
    """Turns growing totals into rates."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, int]] = {}

    def of(self, name: str, total: int) -> float | None:
        """The rate since the last call, None the first time."""
        now = time.monotonic()
        before = self._last.get(name)
        self._last[name] = (now, total)
        if before is None or now <= before[0]:
            return None
        return round(max(0, total - before[1]) / (now - before[0]), 1)


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _existing(path: Path) -> Path:
    return next((folder for folder in (path, *path.parents) if folder.exists()), Path("/"))


class SystemCollector:
    """Shows the newest sample to Prometheus."""

    def __init__(self, sampler: Sampler) -> None:
        """Read from `sampler`."""
        self._sampler = sampler

    def register(self, registry: CollectorRegistry) -> None:
        """Join `registry`."""
        registry.register(self)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Give out the gauges of the newest sample."""
        sample = self._sampler.latest
        if sample is None:
            return
        single = {
            "nexus_system_cpu_percent": sample["cpu"]["percent"],
            "nexus_system_memory_used_bytes": sample["memory"]["used"],
            "nexus_system_memory_total_bytes": sample["memory"]["total"],
            "nexus_system_disk_used_bytes": sample["disk"]["used"],
            "nexus_system_disk_total_bytes": sample["disk"]["total"],
            "nexus_process_rss_bytes": sample["process"]["rss"],
            "nexus_process_threads": sample["process"]["threads"],
            "nexus_process_fds": sample["process"]["fds"],
        }
        for name, value in single.items():
            if value is not None:
                yield GaugeMetricFamily(name, "From the newest sample.", value=value)
        yield from self._gpu(sample["gpu"]["devices"])

    def _gpu(self, devices: list[dict[str, Any]]) -> Iterable[GaugeMetricFamily]:
        shown = ("utilization", "memory_used", "memory_total", "temperature", "power")
        units = ("percent", "bytes", "bytes", "celsius", "watts")
        for key, unit in zip(shown, units, strict=True):
            family = GaugeMetricFamily(f"nexus_gpu_{key}_{unit}", "From the newest sample.", labels=["gpu"])
            for device in devices:
                if device[key] is not None:
                    family.add_metric([str(device["index"])], device[key])
            yield family
