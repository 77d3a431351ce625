"""Settings of the child processes (`NEXUS_COMPUTE__*`), and the environment they are given."""

from __future__ import annotations

import os

from pydantic import BaseModel, Field

# Nothing else of the parent's environment reaches a compute child: no keys, no passwords.
_PASSED_ON = frozenset(
    [
        "PATH",
        "HOME",
        "LANG",
        "LC_ALL",
        "LC_CTYPE",
        "TZ",
        "TMPDIR",
        "TEMP",
        "TMP",
        "LD_LIBRARY_PATH",
        "PYTHONPATH",
        "PYTHONPYCACHEPREFIX",
        "PYTHONDONTWRITEBYTECODE",
        "VIRTUAL_ENV",
        "SYSTEMROOT",
        "CUDA_VISIBLE_DEVICES",
        "CUDA_HOME",
    ]
)


class ComputeSettings(BaseModel):
    """How much work runs in child processes, and within which limits."""

    api_children: int = Field(1, ge=1, description="child processes of an API process")
    engine_children: int = Field(2, ge=1, description="child processes of an engine process")
    queue: int = Field(64, ge=1, description="calls that may wait before new ones get 429")
    timeout: float = Field(
        300.0, gt=0, description="seconds a call may take, waiting included, unless it says otherwise"
    )
    threads: int | None = Field(None, ge=1, description="threads of one child; none: the cores shared evenly")
    memory_mb: int | None = Field(4096, ge=256, description="memory of one child; none: no limit")
    idle_seconds: float = Field(600.0, gt=0, description="a child unused for so long is stopped")
    calls_per_child: int = Field(10_000, ge=1, description="a child is replaced after so many calls")
    warm_up: list[str] = Field(
        default_factory=list, description="modules that a child loads at once, such as statsforecast.models"
    )
    abandon_seconds: float = Field(2.0, ge=0, description="how long a call may go on after its caller has left")


def child_environment(threads: int) -> dict[str, str]:
    """Return the environment of a compute child whose numeric libraries may use `threads` threads."""
    environment = {name: value for name, value in os.environ.items() if name in _PASSED_ON}
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_MAX_THREADS"):
        environment[name] = str(threads)
    environment |= {"NIXTLA_ID_AS_COL": "1", "PYTHONWARNINGS": "ignore", "PYTHONUNBUFFERED": "1"}
    return environment


def inherited_environment() -> dict[str, str]:
    """Return this process's whole environment, for our own programs."""
    return dict(os.environ)


def available_cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
