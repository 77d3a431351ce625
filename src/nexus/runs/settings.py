"""Settings of durable work."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field


class RunsSettings(BaseModel):
    """How steps are queued, leased, repeated and given up. Times are in seconds.

    `data_dir` and `broker_url` are filled in by the composition (NEXUS_DATA_DIR, NEXUS_REDIS_URL).
    """

    data_dir: Path | None = None
    """Where engines leave the sockets and locks by which API and peers find them."""
    broker_url: str | None = Field(default=None, repr=False)
    """`redis://...`; None carries messages inside the engine process."""
    queues: list[str] = Field(default=["default", "llm", "cpu", "gpu"], min_length=1)
    """The queues that steps may name."""
    consume: list[str] | None = None
    """The queues that this engine works on; None: all of them."""
    concurrency: int = Field(default=8, ge=1, le=256)
    """Steps at once in one engine process."""
    lease: float = Field(default=30.0, gt=0)
    """A step whose engine is silent for so long is given to another."""
    heartbeat: float = Field(default=10.0, gt=0)
    """How often an engine renews its leases."""
    poll: float = Field(default=0.5, ge=0.05)
    """How often the outbox is looked at when no signal comes."""
    schedule: bool = True
    """Whether engines also do what happens by itself (schedules, triggers, rules); else `nexus scheduler` does."""
    tick: float = Field(default=0.5, ge=0.05)
    """How often schedules, triggers and rules are looked at when nothing is known to be due."""
    reap: float = Field(default=2.0, gt=0)
    """How often lost work is looked for."""
    republish: float = Field(default=60.0, gt=0)
    """A message that nobody acted on is sent again after so long, then after twice that, and so on."""
    drain: float = Field(default=20.0, ge=0)
    """How long running steps may go on after SIGTERM."""
    crash_limit: int = Field(default=20, ge=1)
    """A step is dead-lettered after its engine died under it so many times."""
    child_crash_limit: int = Field(default=3, ge=1)
    """A step is dead-lettered after its own child process died so many times."""
    step_limit: int = Field(default=1000, ge=1)
    """Most steps in one run."""
    queue_limit: int = Field(default=100_000, ge=1)
    """New runs are refused while so many steps wait for a worker."""
    in_flight: int = Field(default=32, ge=1)
    """Messages of one queue in the broker at once; the rest waits in the database, shared fairly among projects."""
    output_limit: int = Field(default=8 * 1024 * 1024, ge=1024)
    """Most bytes of JSON that a step may return; larger results belong in a file."""
    keep_days: float | None = Field(default=None, gt=0)
    """Runs that ended longer ago are deleted with their steps and logs; None keeps them for ever."""
    event_days: float = Field(default=90.0, gt=0)
    """Events (`run.finished`, `file.arrived`, ...) are kept so long for readers that are behind."""
    failpoints: dict[str, int] = Field(default_factory=dict)
    """For kill tests only: `{"after_claim": 3}` kills the engine when it gets there the third time."""
