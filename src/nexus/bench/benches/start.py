"""How long a start takes, and how much memory an idle API process holds.

Each repetition starts `nexus serve` on an empty data dir that shares the pulled models, with warm
file caches, and asks until the first chat completion is answered by the built-in model.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import ClassVar

import httpx2
import psutil

from nexus.bench.bench import Figure
from nexus.cli.first_run import ensure
from nexus.cli.instance import ALONE, Place, private
from nexus.settings import load_settings

_ASK = {"model": "nexus-local", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
_HEAVY = ("torch", "sklearn", "statsforecast", "lightgbm", "pandas", "cv2", "celery")


class Start:
    """The benchmark `start`."""

    summary: ClassVar[str] = "start to first answer, and memory of the idle API process"

    def run(self, *, quick: bool) -> list[Figure]:
        """Measure three starts (one with `quick`) after a warm-up."""
        settings = load_settings()
        ensure(settings, starters=True, first_admin=False)
        models = settings.data_dir / "models"
        with tempfile.TemporaryDirectory(prefix="nexus-bench-") as folder:
            data_dir = Path(folder)
            (data_dir / "models").symlink_to(models.absolute(), target_is_directory=True)
            _one_start(data_dir)
            samples = [_one_start(data_dir) for _ in range(1 if quick else 3)]
        live, chat, memory, heavy = zip(*samples, strict=True)
        return [
            Figure("start to first answered request", statistics.median(live), "s", 5.0),
            Figure("start to first chat completion", statistics.median(chat), "s", 5.0),
            Figure("API process, idle, RSS", statistics.median(memory), "MB", 200.0),
            Figure("heavy libraries in the API process", max(heavy), "modules", 0.0),
        ]


def _one_start(data_dir: Path) -> tuple[float, float, float, float]:
    started = time.perf_counter()
    with private(data_dir, settings=ALONE, log=data_dir / "instance.log") as (place, process):
        live = _first_answer(place, started)
        api = _child(process.pid, "api")
        memory = api.memory_info().rss / 1e6
        heavy = sum(any(f"/{name}/" in region.path for region in api.memory_maps()) for name in _HEAVY)
        answer = httpx2.post(
            place.url + "/v1/chat/completions", json=_ASK, headers=_auth(place), timeout=60, trust_env=False
        )
        answer.raise_for_status()
        return live, time.perf_counter() - started, memory, float(heavy)


def _first_answer(place: Place, started: float) -> float:
    httpx2.get(place.url + "/v1/models", headers=_auth(place), timeout=60, trust_env=False).raise_for_status()
    return time.perf_counter() - started


def _auth(place: Place) -> dict[str, str]:
    return {"authorization": f"Bearer {place.key}"}


def _child(parent: int, name: str) -> psutil.Process:
    for process in psutil.Process(parent).children(recursive=True):
        if name in process.cmdline():
            return process
    raise RuntimeError(f"there is no process {name}")


plug = Start()
