"""A minute's window, with the clock held still."""

from __future__ import annotations

import random
from collections import deque

from nexus.ledger.windows import Window


def test_a_limit_holds_within_a_minute_and_is_whole_again_after_it() -> None:
    window = Window(3)
    for second in (10.0, 10.9, 30.5):
        assert window.room(second) > 0
        window.take(1, second)
    assert window.room(69.99) == 0
    assert window.wait(1, 30.5) == 39.5
    assert window.wait(2, 30.5) == 39.5
    assert window.wait(3, 30.5) == 59.5
    assert window.room(70.0) == 2, "both of second 10 are a minute old"
    assert window.room(89.99) == 2
    assert window.room(90.0) == 3
    assert window.standing(90.0).reset == 0


def test_settling_changes_the_second_that_was_charged() -> None:
    window = Window(100)
    window.take(80, 5.0)
    window.correct(-50, 5.0, 20.0)
    assert window.room(20.0) == 70
    window.correct(+90, 5.0, 21.0)
    assert window.room(21.0) == -20, "more was used than was reserved: what is owed stays owed"
    assert window.standing(21.0).left == 0
    assert window.room(65.0) == 100
    window.correct(-50, 5.0, 66.0)
    assert window.room(66.0) == 100, "what is forgotten cannot be given back"


def test_more_than_a_limit_fits_into_an_empty_window_only() -> None:
    window = Window(10)
    assert window.wait(50, 0.0) == 0
    window.take(1, 0.0)
    assert window.wait(50, 0.0) == 60.0


def test_long_silence_and_a_clock_set_back() -> None:
    window = Window(5)
    window.take(5, 100.0)
    assert window.room(10_000.0) == 5
    window.take(2, 10_000.0)
    assert window.room(9_000.0) == 3, "time that runs backwards frees nothing"


def test_no_minute_ever_has_more_than_the_limit() -> None:
    chance = random.Random(7)
    window, granted, now = Window(20), deque[float](), 1_000.0
    for _ in range(5_000):
        now += chance.expovariate(2.0)
        while granted and int(granted[0]) + 60 <= now:
            granted.popleft()
        assert window.room(now) == 20 - len(granted)
        if window.room(now) > 0:
            window.take(1, now)
            granted.append(now)
        else:
            assert abs(window.wait(1, now) - (int(granted[0]) + 60 - now)) < 1e-6
