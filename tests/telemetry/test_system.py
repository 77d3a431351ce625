from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from nexus.telemetry.gpus import GPUs, GPUState
from nexus.telemetry.system import Sampler, SystemCollector


def test_a_sample_has_every_field(tmp_path: Path) -> None:
    sampler = Sampler(data_dir=tmp_path / "not" / "yet" / "there")
    sampler.sample()
    sample = sampler.sample()
    json.dumps(sample)
    assert set(sample) == {"ts", "cpu", "memory", "disk", "network", "process", "gpu", "requests"}
    assert len(sample["cpu"]["cores"]) == sample["cpu"]["count"]
    assert 0 <= sample["cpu"]["percent"] <= 100
    assert 0 < sample["memory"]["used"] < sample["memory"]["total"]
    assert 0 < sample["disk"]["used"] <= sample["disk"]["total"]
    assert sample["process"]["rss"] > 1_000_000
    assert sample["process"]["threads"] >= 1
    assert sample["network"]["receive_rate"] is None or sample["network"]["receive_rate"] >= 0


@pytest.mark.parametrize(
    ("files", "total", "used", "cores"),
    [
        (
            {
                "memory.max": "536870912\n",
                "memory.current": "300000000",
                "memory.stat": "anon 5\ninactive_file 100000000\n",
                "cpu.max": "150000 100000",
            },
            536870912,
            200000000,
            1.5,
        ),
        ({"memory.max": "max\n", "cpu.max": "max 100000\n"}, None, None, None),
        ({"memory.max": "1000000", "memory.current": "9000000", "cpu.max": "rubbish"}, 1000000, 1000000, None),
        ({}, None, None, None),
    ],
)
def test_inside_a_container_the_smaller_limit_is_shown(
    tmp_path: Path, files: dict[str, str], total: int | None, used: int | None, cores: float | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    sample = Sampler(data_dir=tmp_path, cgroup=tmp_path).sample()
    assert sample["cpu"]["limit"] == cores
    assert sample["memory"]["limited"] == (total is not None)
    if total is not None:
        assert (sample["memory"]["total"], sample["memory"]["used"]) == (total, used)


async def test_one_sampler_serves_many_watchers(tmp_path: Path) -> None:
    sampler = Sampler(data_dir=tmp_path, interval=0.02, history=0.2)
    await sampler.start()
    try:

        async def watch(count: int) -> list[int]:
            seen = []
            async for sample in sampler.watch():
                seen.append(sample["n"])
                if len(seen) == count:
                    break
            return seen

        async with asyncio.timeout(10):
            first, second = await asyncio.gather(watch(5), watch(5))
        assert first == sorted(set(first))
        assert set(first) & set(second)
        async with asyncio.timeout(10):
            while len(sampler.history()) < 10:
                await asyncio.sleep(0.02)
        assert len(sampler.history()) == 10
        newest = sampler.latest
        assert newest is not None
        assert [sample["n"] for sample in sampler.history(since=newest["n"] - 3)][:3] == [
            newest["n"] - 2,
            newest["n"] - 1,
            newest["n"],
        ]
        assert len(sampler.history(limit=4)) == 4
    finally:
        await sampler.stop()
    assert not sampler._watchers


async def test_a_slow_watcher_misses_the_oldest_and_holds_nobody_up(tmp_path: Path) -> None:
    sampler = Sampler(data_dir=tmp_path)
    watcher = sampler.watch(since=0)
    waiting = asyncio.ensure_future(anext(watcher))
    await asyncio.sleep(0)
    for _ in range(100):
        sampler._publish({"cpu": {}})
    seen = [(await waiting)["n"]] + [(await anext(watcher))["n"] for _ in range(7)]
    assert seen == list(range(93, 101))
    await watcher.aclose()  # type: ignore[attr-defined]
    assert not sampler._watchers


async def test_a_reconnecting_watcher_gets_what_it_missed(tmp_path: Path) -> None:
    sampler = Sampler(data_dir=tmp_path)
    for _ in range(10):
        sampler._publish({"cpu": {}})
    watcher = sampler.watch(since=6)
    assert [(await anext(watcher))["n"] for _ in range(4)] == [7, 8, 9, 10]
    sampler._publish({"cpu": {}})
    assert (await anext(watcher))["n"] == 11


def test_without_a_gpu_the_state_says_so_and_asks_again_later() -> None:
    moments = [0.0]
    gpus = GPUs(clock=lambda: moments[0])
    first = gpus.sample()
    assert first["state"] in set(GPUState)
    if first["state"] == GPUState.OK:
        pytest.skip("this machine has a GPU")
    assert first["devices"] == []
    tries: list[float] = []
    gpus._open = lambda: tries.append(moments[0])  # type: ignore[method-assign]
    for moment in (30.0, 61.0):
        moments[0] = moment
        gpus.sample()
    assert tries == [61.0]


def test_prometheus_reads_the_same_sample(tmp_path: Path) -> None:
    sampler, registry = Sampler(data_dir=tmp_path), CollectorRegistry()
    SystemCollector(sampler).register(registry)
    assert list(registry.collect()) == []
    sample: dict[str, Any] = sampler.sample()
    device = {"index": 0, "utilization": None, "memory_used": 5, "memory_total": 9, "temperature": 40, "power": 70.5}
    sample["gpu"]["devices"] = [device]
    sampler._publish(sample)
    assert registry.get_sample_value("nexus_process_rss_bytes") == sample["process"]["rss"]
    assert registry.get_sample_value("nexus_gpu_memory_used_bytes", {"gpu": "0"}) == 5
    assert registry.get_sample_value("nexus_gpu_utilization_percent", {"gpu": "0"}) is None
