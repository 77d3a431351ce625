"""The few system calls that keep a child from outliving its parent, or outgrowing its share."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
# Loaded at import: nothing may be imported between fork and exec.
_LIBC: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Ask the kernel to send this process signal `number` when the thread that started it ends.

    See prctl(2), PR_SET_PDEATHSIG: it is the *thread* that counts, so a child must be started from
    one that lives as long as it is needed. Does nothing where the system has no such call.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def limit_memory(megabytes: int) -> None:
    """Make allocations of this process beyond `megabytes` fail.

    RLIMIT_DATA and not RLIMIT_AS: allocators reserve far more address space than they use.
    """
    import resource

    size = megabytes * 1024 * 1024
    # A system without this limit, or with a lower one already, keeps its own.
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    except (ValueError, OSError):
        return


def signal_group(pid: int, number: int) -> None:
    """Send a signal to the process group that `pid` leads; a group that is gone is fine."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return
