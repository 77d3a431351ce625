"""Cron in every zone: by hand at the changes of clocks, and against a simulation of the wall clock itself."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from importlib import resources
from itertools import islice

import numpy as np
import pytest
from tests.clock import no_runaway

from nexus.automation.cron import Cron, zone_of
from nexus.automation.errors import CronInvalid

BERLIN, NEW_YORK, LORD_HOWE, KOLKATA = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"


def local(cron: Cron, after: str, count: int) -> list[str]:
    """Return the next fires on the wall clock of the zone, with the offset."""
    start = datetime.fromisoformat(after)
    return [fire.astimezone(cron.zone).strftime("%m-%d %H:%M %z") for fire in islice(cron.fires(start), count)]


@pytest.mark.parametrize(
    ("zone", "expression", "after", "fires"),
    [
        # Spring in Berlin: 02:00 to 03:00 of 29 March 2026 is skipped.
        (BERLIN, "30 2 * * *", "2026-03-28T00:00Z", ["03-28 02:30 +0100", "03-29 03:00 +0200", "03-30 02:30 +0200"]),
        (BERLIN, "30 * * * *", "2026-03-29T00:00Z", ["03-29 01:30 +0100", "03-29 03:30 +0200"]),
        (BERLIN, "*/30 2 * * *", "2026-03-29T00:00Z", ["03-30 02:00 +0200"]),
        (BERLIN, "0,30 2 * * *", "2026-03-29T00:00Z", ["03-29 03:00 +0200", "03-30 02:00 +0200"]),
        # Autumn in Berlin: 02:00 to 03:00 of 25 October 2026 comes twice.
        (BERLIN, "30 2 * * *", "2026-10-24T12:00Z", ["10-25 02:30 +0200", "10-26 02:30 +0100"]),
        (BERLIN, "30 * * * *", "2026-10-24T23:00Z", ["10-25 01:30 +0200", "10-25 02:30 +0200", "10-25 02:30 +0100"]),
        # New York, both ways.
        (NEW_YORK, "30 1 * * *", "2026-11-01T04:00Z", ["11-01 01:30 -0400", "11-02 01:30 -0500"]),
        (NEW_YORK, "15 2 8 3 *", "2026-01-01T00:00Z", ["03-08 03:00 -0400", "03-08 02:15 -0500"]),
        # Lord Howe moves by half an hour: 02:00 to 02:30 is skipped in October, 01:30 to 02:00 comes twice in April.
        (LORD_HOWE, "15 2 * * *", "2026-10-03T12:00Z", ["10-04 02:30 +1100", "10-05 02:15 +1100"]),
        (LORD_HOWE, "45 1 * * *", "2026-04-04T12:00Z", ["04-05 01:45 +1100", "04-06 01:45 +1030"]),
        (LORD_HOWE, "30 * * * *", "2026-04-04T14:00Z", ["04-05 01:30 +1100", "04-05 01:30 +1030", "04-05 02:30 +1030"]),
        (LORD_HOWE, "15 */2 * * *", "2026-04-04T14:00Z", ["04-05 02:15 +1030", "04-05 04:15 +1030"]),
        (LORD_HOWE, "0 */2 * * *", "2026-04-04T14:00Z", ["04-05 02:00 +1030", "04-05 04:00 +1030"]),
        (KOLKATA, "0 9 * * mon-fri", "2026-11-20T04:00Z", ["11-23 09:00 +0530", "11-24 09:00 +0530"]),
        # A whole day that never was: Samoa crossed the date line.
        ("Pacific/Apia", "0 12 30 12 *", "2011-12-01T00:00Z", ["12-31 00:00 +1400", "12-30 12:00 +1400"]),
        ("UTC", "0 0 29 2 *", "2026-01-01T00:00Z", ["02-29 00:00 +0000"]),
        ("UTC", "59 23 l * *", "2026-01-31T23:59Z", ["02-28 23:59 +0000", "03-31 23:59 +0000"]),
        ("UTC", "0 8 * * fri#2", "2026-11-01T00:00Z", ["11-13 08:00 +0000", "12-11 08:00 +0000"]),
        ("UTC", "0 8 * * friL", "2026-11-01T00:00Z", ["11-27 08:00 +0000", "12-25 08:00 +0000"]),
        ("UTC", "0 0 13 * 5", "2026-11-01T00:00Z", ["11-06 00:00 +0000", "11-13 00:00 +0000", "11-20 00:00 +0000"]),
        ("UTC", "0 0 */2 * fri", "2026-11-01T00:00Z", ["11-13 00:00 +0000", "11-27 00:00 +0000"]),
        ("UTC", "@weekly", "2026-11-26T00:00Z", ["11-29 00:00 +0000"]),
        ("UTC", "0 0 * * 7", "2026-11-26T00:00Z", ["11-29 00:00 +0000"]),
        ("UTC", "5/20 * * * *", "2026-11-26T00:06Z", ["11-26 00:25 +0000", "11-26 00:45 +0000", "11-26 01:05 +0000"]),
    ],
)
def test_changes_of_clocks(zone: str, expression: str, after: str, fires: list[str]) -> None:
    assert local(Cron.parse(expression, zone), after, len(fires)) == fires


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("", "five fields"),
        ("* * * *", "five fields"),
        ("* * * * * *", "five fields"),
        ("60 * * * *", "minute '60'"),
        ("* 24 * * *", "hour '24'"),
        ("* * 0 * *", "day of month '0'"),
        ("* * * 13 *", "month '13'"),
        ("* * * * 8", "day of week '8'"),
        ("5-1 * * * *", "backwards"),
        ("*/0 * * * *", "step"),
        ("*/x * * * *", "step"),
        ("a * * * *", "minute 'a'"),
        ("1,,2 * * * *", "minute ''"),
        ("-1 * * * *", "minute ''"),
        ("٣ * * * *", "minute"),
        ("0 0 31 2 *", "never fire"),
        ("0 0 30 2 *", "never fire"),
        ("@reboot", "five fields"),
        ("* " * 200, "short"),
    ],
)
def test_what_is_none_says_why(expression: str, words: str) -> None:
    with pytest.raises(CronInvalid) as caught:
        Cron.parse(expression)
    assert words in caught.value.message
    assert caught.value.field == "cron"


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd", "europe", "/etc/localtime", "a\0b"])
def test_zones_that_are_none(zone: str) -> None:
    with pytest.raises(CronInvalid) as caught:
        Cron.parse("* * * * *", zone)
    assert caught.value.field == "timezone"


def test_a_look_ahead_costs_little() -> None:
    with no_runaway():
        for expression in ("* * * * *", "0 0 29 2 mon#1", "59 23 l 12 *"):
            Cron.parse(expression, BERLIN).next(datetime(2026, 3, 1, tzinfo=UTC))


EXPRESSIONS = (
    "30 2 * * *",
    "15 */2 * * *",
    "30 * * * *",
    "0,45 0-3 * * *",
    "*/20 1 * * *",
    "5 3 * * sun",
    "0 0 1 * *",
    "45 23 l * *",
)


class WallClock:
    """The wall clock of a zone, minute by minute: all that the zone is asked for."""

    def __init__(self, zone: str, start: datetime, days: int) -> None:
        place = zone_of(zone)
        count = days * 24 * 60 + 1
        self.start = start
        # Clocks are changed at full quarters of an hour.
        quarters = [start + timedelta(minutes=15 * n) for n in range(count // 15 + 1)]
        offsets = [int(moment.astimezone(place).utcoffset().total_seconds()) // 60 for moment in quarters]  # type: ignore[union-attr]
        minutes = int(start.timestamp()) // 60 + np.arange(count)
        self.walls = minutes + np.repeat(offsets, 15)[:count]

    def fires(self, expression: str) -> list[datetime]:
        """Return when cron, watching this clock, starts something.

        An expression that follows the clock fires when the clock shows a time of it; any other when the
        clock passes one for the first time, be it by a leap.
        """
        if expression.startswith("*") or expression.split()[1].startswith("*"):
            hits = np.flatnonzero(shows(expression, self.walls))
        else:
            furthest = np.maximum.accumulate(self.walls)
            steps = np.diff(furthest, prepend=furthest[0])
            hits = np.flatnonzero(shows(expression, self.walls) & (steps > 0))
            leaps = [
                n
                for n in np.flatnonzero(steps > 1)
                if shows(expression, np.arange(furthest[n - 1] + 1, furthest[n] + 1)).any()
            ]
            hits = np.union1d(hits, np.array(leaps, dtype=int))
        return [self.start + timedelta(minutes=int(n)) for n in hits if n > 0]


def shows(expression: str, walls: np.ndarray) -> np.ndarray:
    """Tell at which wall-clock minutes (since 1970) an expression matches."""
    minute, hour, day, _month, weekday = expression.split()
    days = walls // 1440
    found = np.isin(walls % 60, list(numbers(minute, 59))) & np.isin(walls // 60 % 24, list(numbers(hour, 23)))
    if day != "*":
        dates = days.astype("datetime64[D]")
        in_month = (dates - dates.astype("datetime64[M]")).astype(int) + 1
        tomorrow = ((dates + 1) - (dates + 1).astype("datetime64[M]")).astype(int) + 1
        found &= tomorrow == 1 if day == "l" else in_month == int(day)
    return found & ((days + 4) % 7 == 0) if weekday != "*" else found


def numbers(text: str, high: int) -> set[int]:
    out: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        low, end = (0, high) if span == "*" else (int(span.split("-")[0]), int(span.split("-")[-1]))
        out |= set(range(low, end + 1, int(step or 1)))
    return out


def zones(count: int) -> list[str]:
    """Return the zones with the oddest clocks, and others drawn from all."""
    odd = [BERLIN, NEW_YORK, LORD_HOWE, KOLKATA, "Pacific/Chatham", "Africa/Casablanca", "America/St_Johns",
           "Asia/Gaza", "Antarctica/Troll", "Pacific/Norfolk", "America/Santiago", "Africa/Cairo", "Asia/Kathmandu",
           "America/Havana"]  # fmt: skip
    listed = resources.files("tzdata").joinpath("zones").read_text().split()
    others = sorted(name for name in listed if "/" in name and not name.startswith("Etc"))
    return (odd + random.Random(50).sample(others, count))[:count]


def check(zone: str, days: int) -> None:
    start = datetime(2026, 2, 1, 3, 0, tzinfo=UTC)
    clock = WallClock(zone, start, days)
    for expression in EXPRESSIONS:
        wanted = clock.fires(expression)
        found = []
        for fire in Cron.parse(expression, zone).fires(start):
            if fire > start + timedelta(days=days):
                break
            found.append(fire)
        assert found == wanted, (zone, expression, sorted(set(found) ^ set(wanted))[:4])


@pytest.mark.slow
@pytest.mark.parametrize("zone", zones(8))
def test_every_fire_is_where_the_wall_clock_says(zone: str) -> None:
    check(zone, 120)


@pytest.mark.long
@pytest.mark.parametrize("zone", zones(50))
def test_400_days_in_50_zones(zone: str) -> None:
    check(zone, 400)
