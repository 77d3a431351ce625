"""How many starts stand one after another: what runs do may start runs, which may start them again without end.

Whatever starts a run for a trigger, or for the step of another run that calls our API, looks here first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy.orm import Session

from nexus.automation import trigger_storage as queries

DEEPEST: Final = 5
"""A run that stands at the end of so many starts starts no further one."""
_LEVELS: Final = 12


def depth_of(session: Session, data: Mapping[str, Any]) -> int:
    """Return how many starts stand before what an event's `data` tell of: those before the run behind it."""
    trigger = data.get("trigger")
    if not isinstance(trigger, Mapping):
        # No more is known than which run has done it, or which it is about.
        trigger = {"caused_by": data.get("caused_by") or data.get("run_id")}
    for _ in range(_LEVELS):
        if not isinstance(trigger, Mapping):
            return 0
        # A run within a run, or one of before these were counted: what started the first counts.
        earlier = trigger.get("run_id") if trigger.get("type") == "workflow" else trigger.get("caused_by")
        if "depth" in trigger or earlier is None:
            break
        trigger = queries.trigger_of_run(session, str(earlier))
    else:
        return DEEPEST
    depth = trigger.get("depth", 0)
    return depth if isinstance(depth, int) else 0
