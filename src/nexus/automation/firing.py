"""What a schedule has to do when its time has come, or has passed while nobody looked. No I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Final, Literal

from nexus.automation.cron import Cron

Misfire = Literal["skip", "once", "catch_up"]
Overlap = Literal["allow", "skip", "queue", "cancel"]

GRACE: Final = timedelta(seconds=60)
"""A fire that is no later than this is not missed."""

_MOST_MISSED: Final = 100_000


@dataclass(frozen=True, slots=True)
class Firing:
    """The fires to start runs for, oldest first; how many were passed over; and when to look again."""

    fires: tuple[datetime, ...]
    missed: int
    next: datetime


def firing(cron: Cron, due: datetime, now: datetime, misfire: Misfire, limit: int) -> Firing:
    """Return what to do about the fire that was `due` and all that came since.

    A fire later than `GRACE` was missed. `skip` starts nothing for it, `once` one run for all of them (that
    of the latest), `catch_up` one for each, the newest `limit` at most.
    """
    past = [due]
    for fire in islice(cron.fires(due), _MOST_MISSED):
        if fire > now:
            upcoming = fire
            break
        past.append(fire)
    else:
        # So long ago that counting makes no sense: go on from now.
        upcoming = cron.next(now)
    missed = [fire for fire in past if now - fire > GRACE]
    timely = [fire for fire in past if now - fire <= GRACE]
    if misfire == "skip":
        wanted = timely
    elif misfire == "once":
        wanted = timely or missed[-1:]
    else:
        wanted = [*missed, *timely][-limit:]
    return Firing(tuple(wanted), len(past) - len(wanted), upcoming)
