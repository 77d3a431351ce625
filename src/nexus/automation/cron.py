"""When a cron expression fires, in any time zone, exactly: no I/O, no clock.

    cron = Cron.parse("30 2 * * mon-fri", "Europe/Berlin")
    cron.next(moment)                # the first instant after `moment`, in UTC

Five fields as of crontab(5): minute, hour, day of month, month, day of week; lists, ranges, steps, names, `?` for `*`;
`L` is the last day of the month, `fri#2` the second Friday, `friL` the last one, and `@hourly` and its like are known.
Where neither day begins with `*`, one of them suffices; else both must fit.

Clock changes, as Debian's cron treats them: an expression whose minute or hour begins with `*` follows real time, so
it fires in each pass of a repeated hour and not at all in a skipped one. Any other fires once a day it names: a time
that is skipped fires at the first instant after the gap, a time that comes twice in its first pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from heapq import heappop, heappush
from importlib import resources
from itertools import chain
from typing import Final
from zoneinfo import ZoneInfo

import tzdata

from nexus.automation.errors import CronInvalid

_NAMES: Final = {
    "month": ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    "day of week": ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
}
_MACROS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_BOUNDS: Final = (
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of month", 1, 31),
    ("month", 1, 12),
    ("day of week", 0, 7),
)
_NTH: Final = re.compile(r"(\w+)(?:#([1-5])|(l))")
_ZONE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+){0,2}")
_LONGEST: Final = 200
# A leap day on a given day of the week comes once in 28 years, and once in 40 around 2100.
_HORIZON: Final = 366 * 41
# No fold or gap is longer, but for days that a country skipped at the date line, which are gaps of a whole day.
_FOLD: Final = timedelta(hours=3)
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Cron:
    """A parsed expression in its zone. `follows_clock` tells one that fires by real time (see above)."""

    expression: str
    zone: ZoneInfo
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    nth: frozenset[tuple[int, int]]
    last_day: bool
    both_days: bool
    follows_clock: bool

    @classmethod
    def parse(cls, expression: str, zone: str = "UTC") -> Cron:
        """Read an expression. Raises `CronInvalid` naming the field at fault, or one that can never fire."""
        return _parse(expression, zone)

    def next(self, after: datetime) -> datetime:
        """Return the first instant after `after` (aware) at which it fires, in UTC."""
        return next(self.fires(after))

    def fires(self, after: datetime) -> Iterator[datetime]:
        """Yield every instant after `after`, in UTC and in order, without end."""
        after = after.astimezone(UTC)
        start = after.astimezone(self.zone).replace(tzinfo=None, fold=0) - _FOLD
        waiting: list[tuple[datetime, datetime]] = []
        for naive in chain(self._local(start), (None,)):
            # What the clock shows more than a fold later is not before it in truth either.
            while waiting and (naive is None or naive > waiting[0][1] + _FOLD):
                instant = heappop(waiting)[0]
                if instant > after:
                    after = instant
                    yield instant
            if naive is not None:
                for instant in self._instants(naive):
                    if instant > after:
                        heappush(waiting, (instant, naive))

    def _local(self, start: datetime) -> Iterator[datetime]:
        """Yield the wall-clock minutes that match, from the hour of `start` on, whatever the clock does.

        It ends after so many days without any that there are none.
        """
        today, from_hour, quiet = start.date(), start.hour, 0
        while quiet < _HORIZON:
            if self._names(today):
                quiet = 0
                for hour in self.hours:
                    if hour >= from_hour:
                        for minute in self.minutes:
                            yield datetime(today.year, today.month, today.day, hour, minute)
            today, from_hour, quiet = today + _DAY, 0, quiet + 1

    def _names(self, day: date) -> bool:
        """Tell whether the expression names this day."""
        if day.month not in self.months:
            return False
        in_month = day.day in self.days or (self.last_day and (day + timedelta(days=1)).day == 1)
        weekday = day.isoweekday() % 7
        in_week = weekday in self.weekdays or any(weekday == named and _is_nth(day, count) for named, count in self.nth)
        return in_month and in_week if self.both_days else in_month or in_week

    def _instants(self, naive: datetime) -> tuple[datetime, ...]:
        """Return the instants at which the wall clock shows this time and the expression fires."""
        first = naive.replace(tzinfo=self.zone).astimezone(UTC)
        second = naive.replace(tzinfo=self.zone, fold=1).astimezone(UTC)
        if first == second:
            return (first,)
        if second > first:
            return (first, second) if self.follows_clock else (first,)
        # Skipped: the later reading is by the offset from before the gap, the earlier by that from after it.
        return () if self.follows_clock else (_change(self.zone, second, first),)


def _is_nth(day: date, count: int) -> bool:
    """Tell whether it is the `count`-th of its weekday in its month; 0 is the last."""
    return (day + timedelta(days=7)).month != day.month if count == 0 else (day.day + 6) // 7 == count


def _change(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """Return the instant between two at which the zone's offset changes."""
    offset = before.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = before + (after - before) / 2
        middle = middle.replace(microsecond=0)
        if middle.astimezone(zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after


def zone_database() -> str:
    """Return the version of the zones that answer here, such as `2026b`."""
    return str(tzdata.IANA_VERSION)


@lru_cache(maxsize=1024)
def zone_of(name: str) -> ZoneInfo:
    """Return the zone of an IANA name. Raises `CronInvalid`.

    It is read from the `tzdata` package and never from the machine, whose zones may be years older: all
    processes must agree on when a schedule fires.
    """
    try:
        if not _ZONE.fullmatch(name):
            raise ValueError
        with resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as file:
            return ZoneInfo.from_file(file, key=name)
    except (OSError, ValueError):
        text = f"There is no time zone {name[:64]!r}; use an IANA name like Europe/Berlin."
        raise CronInvalid(text, field="timezone") from None


@lru_cache(maxsize=1024)
def _parse(expression: str, zone: str) -> Cron:
    if len(expression) > _LONGEST:
        raise CronInvalid("A cron expression has five short fields.", field="cron")
    text = _MACROS.get(expression.strip().lower(), expression)
    fields = text.lower().split()
    if len(fields) != len(_BOUNDS):
        raise CronInvalid("A cron expression has five fields: minute, hour, day, month, weekday.", field="cron")
    minutes, hours = _values(fields[0], 0), _values(fields[1], 1)
    days, last_day = _days(fields[2])
    weekdays, nth = _weekdays(fields[4])
    cron = Cron(
        expression=expression,
        zone=zone_of(zone),
        minutes=tuple(sorted(minutes)),
        hours=tuple(sorted(hours)),
        days=days,
        months=_values(fields[3], 3),
        weekdays=weekdays,
        nth=nth,
        last_day=last_day,
        both_days=fields[2].startswith(("*", "?")) or fields[4].startswith(("*", "?")),
        follows_clock=fields[0].startswith("*") or fields[1].startswith("*"),
    )
    # Any span with a leap year in it will do: what names no day in it names none at all.
    if next(cron._local(datetime(2000, 1, 2)), None) is None:  # noqa: SLF001  a calendar, not a moment
        raise CronInvalid("There is no such day: this would never fire.", field="cron")
    return cron


def _days(text: str) -> tuple[frozenset[int], bool]:
    parts = text.split(",")
    plain = [part for part in parts if part != "l"]
    days = frozenset[int]().union(*(_values(part, 2) for part in plain)) if plain else frozenset[int]()
    return days, len(plain) < len(parts)


def _weekdays(text: str) -> tuple[frozenset[int], frozenset[tuple[int, int]]]:
    weekdays: set[int] = set()
    nth: set[tuple[int, int]] = set()
    for part in text.split(","):
        if found := _NTH.fullmatch(part):
            weekday = _value(found[1], 4) % 7
            nth.add((weekday, int(found[2] or 0)))
        else:
            weekdays |= {value % 7 for value in _values(part, 4)}
    return frozenset(weekdays), frozenset(nth)


def _values(text: str, field: int) -> frozenset[int]:
    """Return the numbers that a field names. Raises `CronInvalid`."""
    name, low, high = _BOUNDS[field]
    values: set[int] = set()
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        step = 1
        if slash:
            step = int(step_text) if step_text.isascii() and step_text.isdigit() and len(step_text) < 4 else 0
            if not 1 <= step <= high:
                raise CronInvalid(f"The {name} {part[:32]!r} has no step from 1 to {high}.", field="cron")
        if span in ("*", "?"):
            first, last = low, high if field != 4 else 6
        elif "-" in span:
            start, _, end = span.partition("-")
            first, last = _value(start, field), _value(end, field)
            if first > last:
                raise CronInvalid(f"The {name} {span[:32]!r} runs backwards.", field="cron")
        else:
            first = _value(span, field)
            last = high if slash else first
        values.update(range(first, last + 1, step))
    return frozenset(values)


def _value(text: str, field: int) -> int:
    name, low, high = _BOUNDS[field]
    names = _NAMES.get(name, ())
    if text in names:
        return names.index(text) + (1 if name == "month" else 0)
    if text.isascii() and text.isdigit() and len(text) <= 2 and low <= int(text) <= high:
        return int(text)
    raise CronInvalid(f"The {name} {text[:32]!r} is none from {low} to {high}.", field="cron")
