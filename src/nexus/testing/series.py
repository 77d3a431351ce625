"""Tiny series and tables for tests, the smoke test and examples: the same every time."""

from __future__ import annotations

import math
import random
from datetime import date, timedelta


def monthly(length: int = 60, *, start: int = 2020, base: float = 100.0, seed: int = 1) -> list[tuple[str, float]]:
    """Return (first of month, value) with a trend of 1 a month, a yearly season of 10 and a little noise."""
    noise = random.Random(seed)  # noqa: S311  no secret, only repeatable
    return [
        (
            f"{start + step // 12}-{step % 12 + 1:02d}-01",
            round(base + step + 10 * math.sin(step * math.pi / 6) + noise.gauss(0, 1), 3),
        )
        for step in range(length)
    ]


def daily(length: int = 120, *, seed: int = 1) -> list[tuple[str, float]]:
    """Return (day, value) with a weekly season."""
    noise = random.Random(seed)  # noqa: S311  no secret, only repeatable
    first = date(2024, 1, 1)
    return [
        ((first + timedelta(days=day)).isoformat(), round(50 + 8 * (day % 7 >= 5) + noise.gauss(0, 1), 3))
        for day in range(length)
    ]


def series_csv(series: dict[str, list[tuple[str, float]]] | None = None) -> bytes:
    """Return a CSV `unique_id,ds,y` of the given series, of one monthly series by default."""
    chosen = series or {"A": monthly()}
    lines = ["unique_id,ds,y", *(f"{name},{ds},{y}" for name, rows in chosen.items() for ds, y in rows)]
    return ("\n".join(lines) + "\n").encode()


def churn_csv(rows: int = 300, *, seed: int = 1) -> bytes:
    """Return a CSV of customers whose `churn` (yes, no) follows from plan, months and calls, mostly.

    Some ages are missing; `spent` is a number to learn by regression.
    """
    noise = random.Random(seed)  # noqa: S311  no secret, only repeatable
    lines = ["plan,months,calls,age,churn,spent"]
    for _ in range(rows):
        plan = noise.choice(["basic", "plus", "pro"])
        months, calls = noise.randint(1, 60), noise.randint(0, 10)
        age = "" if noise.random() < 0.1 else str(noise.randint(18, 90))
        leaning = 0.6 * calls - 0.08 * months + (1.5 if plan == "basic" else -0.5)
        churn = "yes" if leaning + noise.gauss(0, 0.7) > 0 else "no"
        price = {"basic": 5, "plus": 10, "pro": 25}[plan]
        lines.append(f"{plan},{months},{calls},{age},{churn},{round(months * price + noise.gauss(0, 10), 2)}")
    return ("\n".join(lines) + "\n").encode()
