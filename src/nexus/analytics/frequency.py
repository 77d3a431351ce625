"""How far apart the observations of a series are, in the words of pandas (`MS`, `D`, `h`, `15min`).

Runs in a compute child, but for `canonical` and `season_of`, which are pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nexus.analytics.errors import FrequencyUnclear, InvalidSeries, shown
from nexus.analytics.types import Series

STEP: Final = "step"
_WORDS: Final = {
    "yearly": "YS",
    "quarterly": "QS",
    "monthly": "MS",
    "weekly": "W",
    "daily": "D",
    "hourly": "h",
    "minutely": "min",
    "secondly": "s",
}
_OLD: Final = {"Y": "YE", "A": "YE", "AS": "YS", "Q": "QE", "M": "ME", "BM": "BME", "H": "h", "T": "min", "S": "s"}
_FREQUENCY: Final = re.compile(
    r"^(\d{1,4})?(YS|YE|BYS|BYE|QS|QE|BQS|BQE|MS|ME|BMS|BME|W|D|B|h|min|s|Y|A|AS|Q|M|BM|H|T|S)(-[A-Z]{3})?$"
)
# Anchors that say no more than the unit itself does.
_PLAIN: Final = frozenset(
    ["YS-JAN", "YE-DEC", *(f"QS-{month}" for month in ("JAN", "APR", "JUL", "OCT"))]
    + [f"QE-{month}" for month in ("MAR", "JUN", "SEP", "DEC")]
)
_SEASONS: Final = {"Y": 1, "Q": 4, "M": 12, "W": 52, "D": 7, "B": 5, "h": 24, "min": 1440, "s": 60}


def canonical(frequency: str) -> str:
    """Return the frequency as today's pandas writes it. Raises `FrequencyUnclear` for an unknown one."""
    text = _WORDS.get(frequency.strip().lower(), frequency.strip())
    match = _FREQUENCY.match(text)
    if text == STEP:
        return STEP
    if match is None or match[1] == "0":
        raise FrequencyUnclear("This frequency is not known; examples are MS, W, D, h, 15min.", field="frequency")
    unit = _OLD.get(match[2], match[2])
    anchor = "" if f"{unit}{match[3] or ''}" in _PLAIN else match[3] or ""
    return f"{match[1] or ''}{unit}{anchor}"


def season_of(frequency: str) -> int:
    """Return the usual number of steps in a season: 12 for months, 24 for hours, 48 for half hours; 1 for none."""
    match = _FREQUENCY.match(frequency)
    if match is None:
        return 1
    base = match[2]
    unit = base if base in ("h", "min", "s", "W", "D", "B") else base.lstrip("B")[0]
    full, step = _SEASONS[unit], int(match[1] or 1)
    return full // step if full % step == 0 and full // step > 1 else 1


def infer(series: Sequence[Series]) -> str:
    """Return the frequency that the series share. Raises `FrequencyUnclear` when they have none."""
    import pandas as pd

    if series[0].ds.dtype.kind == "i":
        return STEP
    long = [one for one in series if len(one.ds) >= 3][:200]
    for one in long:
        found = pd.infer_freq(pd.DatetimeIndex(one.ds))
        if found is not None and _FREQUENCY.match(found):
            return canonical(found)
    if not long:
        raise FrequencyUnclear("No series has three observations, so name the frequency.", field="frequency")
    return _by_usual_distance(long)


def _by_usual_distance(series: Sequence[Series]) -> str:
    """Read the frequency off the commonest distance: gaps are found later, by `missing_steps`."""
    distances = np.concatenate([np.diff(one.ds) for one in series])
    values, counts = np.unique(distances, return_counts=True)
    usual, times = values[counts.argmax()], counts.max()
    days = usual / np.timedelta64(1, "D")
    first = series[0].ds[0].astype("datetime64[D]")
    starts = str(first).endswith("-01")
    if 28 <= days <= 31:
        return "MS" if starts else "ME"
    if 90 <= days <= 92:
        return "QS" if starts else "QE"
    if 365 <= days <= 366:
        return "YS" if starts else "YE"
    if times * 2 < len(distances):
        raise FrequencyUnclear("The times are irregular; no distance is usual.", field="frequency")
    seconds = int(usual / np.timedelta64(1, "s"))
    for size, unit in ((86400, "D"), (3600, "h"), (60, "min"), (1, "s")):
        if seconds and seconds % size == 0:
            many = seconds // size
            return f"{many if many > 1 else ''}{unit}"
    raise FrequencyUnclear("The times are less than a second apart.", field="frequency")


def grid(series: Series, frequency: str) -> NDArray[Any]:
    """Return every time from the first to the last of the series, by the frequency.

    Raises `InvalidSeries` for a time that does not lie on it.
    """
    import pandas as pd

    after = future(series, frequency, 1)[0]
    usual = (after - series.ds[-1]) or 1
    # Before the grid is laid out: two times a century apart, by the second, would be billions.
    if (series.ds[-1] - series.ds[0]) / usual > 50 * len(series.ds) + 1000:
        raise InvalidSeries(f"Series {shown(series.unique_id)} has far more gaps than observations.", field="ds")
    full: NDArray[Any]
    if frequency == STEP:
        return np.arange(series.ds[0], series.ds[-1] + usual, usual)
    full = pd.date_range(series.ds[0], series.ds[-1], freq=frequency).to_numpy()
    off = ~np.isin(series.ds, full)
    if off.any():
        when = pd.Timestamp(series.ds[np.flatnonzero(off)[0]]).isoformat()
        raise InvalidSeries(
            f"Series {shown(series.unique_id)}: {when} does not fit the frequency {frequency}.", field="ds"
        )
    return full


def _step(series: Series) -> int:
    return int(np.gcd.reduce(np.diff(series.ds))) if len(series.ds) > 1 else 1


def future(series: Series, frequency: str, horizon: int) -> NDArray[Any]:
    """Return the `horizon` times after the last of the series. Raises `InvalidSeries` beyond the year 2261."""
    import pandas as pd

    if frequency == STEP:
        step = _step(series)
        after: NDArray[Any] = series.ds[-1] + step * np.arange(1, horizon + 1)
        return after
    try:
        return pd.date_range(series.ds[-1], periods=horizon + 1, freq=frequency).to_numpy()[1:]
    except (OverflowError, ValueError):
        raise InvalidSeries("The forecast would end beyond the year 2261.", field="horizon") from None
