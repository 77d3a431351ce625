"""What can go wrong when work is handed to another process.

RateLimited        ComputeBusy       429 compute_busy
Unavailable        ComputeStopped    503 compute_stopped
                   ComputeCrashed    503 compute_crashed
                   ChildNotReady     503 child_not_ready
DeadlineExceeded   ComputeTimeout    504 compute_timeout
TooLarge           OutOfMemory       413 out_of_memory
NexusError         ComputeFailed     500 compute_failed
"""

from __future__ import annotations

from nexus.core.errors import DeadlineExceeded, NexusError, RateLimited, TooLarge, Unavailable


class ComputeBusy(RateLimited):
    """Too many computations are waiting; try again shortly."""

    code = "compute_busy"


class ComputeStopped(Unavailable):
    """The server is shutting down; try again shortly."""

    code = "compute_stopped"


class ComputeCrashed(Unavailable):
    """The computation ended without an answer; its process was replaced."""

    code = "compute_crashed"


class ChildNotReady(Unavailable):
    """A part of the server did not start in time."""

    code = "child_not_ready"


class ComputeTimeout(DeadlineExceeded):
    """The computation took longer than allowed and was stopped."""

    code = "compute_timeout"


class OutOfMemory(TooLarge):
    """The computation needs more memory than allowed."""

    code = "out_of_memory"


class ComputeFailed(NexusError):
    """The computation failed; the log says why."""

    code = "compute_failed"
