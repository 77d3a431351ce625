"""What is said in one turn of the loop goes in order, soon, and never further than it should."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from nexus.core.cork import Cork, corks

Said = list[tuple[str, bytes]]


class Wire(asyncio.WriteTransport):
    """A transport that writes down what it is given."""

    def __init__(self, name: str, said: Said, *, broken: bool = False) -> None:
        super().__init__()
        self.name, self.said, self.broken, self.closed = name, said, broken, False

    def write(self, data: Any) -> None:
        if self.broken:
            raise RuntimeError("the handle is closed")
        self.said.append((self.name, data))

    def is_closing(self) -> bool:
        return self.closed


def crowded(count: int = 2) -> Cork:
    cork = Cork()
    cork.crowd = range(count)
    return cork


@pytest.mark.parametrize("count", [0, 1])
async def test_who_is_alone_does_not_wait(count: int) -> None:
    said: Said = []
    crowded(count).write(Wire("a", said), b"1")
    assert said == [("a", b"1")]


async def test_a_crowd_speaks_together_before_the_loop_turns() -> None:
    said: Said = []
    cork, a, b = crowded(), Wire("a", said), Wire("b", said)
    for wire, words in ((a, b"1"), (b, b"2"), (a, b"3")):
        cork.write(wire, words)
    assert said == []
    await asyncio.sleep(0)
    assert said == [("a", b"1"), ("b", b"2"), ("a", b"3")]
    cork.write(b, b"4")
    await asyncio.sleep(0)
    assert said[3:] == [("b", b"4")]


async def test_nobody_overtakes_what_waits_when_the_crowd_goes() -> None:
    said: Said = []
    cork, a = crowded(), Wire("a", said)
    cork.write(a, b"1")
    cork.crowd = ()
    cork.write(a, b"2")
    cork.flush()
    assert said == [("a", b"1"), ("a", b"2")]


async def test_much_or_many_do_not_wait_and_keep_their_order() -> None:
    said: Said = []
    cork, a = crowded(), Wire("a", said)
    cork.write(a, b"large" * 10_000)
    assert len(said) == 1
    cork.write(a, b"small")
    cork.write(a, b"large" * 10_000)
    assert [len(words) for _, words in said] == [50_000, 5, 50_000]
    for number in range(100):
        cork.write(a, b"%d" % number)
    assert len(said) > 3 + 50
    cork.flush()
    assert [words for _, words in said[3:]] == [b"%d" % number for number in range(100)]


async def test_one_that_is_gone_keeps_nobody_from_what_is_theirs(caplog: pytest.LogCaptureFixture) -> None:
    said: Said = []
    cork, gone, broken, there = crowded(), Wire("gone", said), Wire("broken", said, broken=True), Wire("there", said)
    gone.closed = True
    for wire in (gone, broken, there):
        cork.write(wire, b"1")
    cork.flush()
    assert said == [("there", b"1")]
    assert "a transport took nothing" in caplog.text


def test_a_loop_is_not_kept_by_its_cork() -> None:
    loop = asyncio.new_event_loop()
    corks.of(loop)
    gone = weakref.ref(loop)
    loop.close()
    del loop
    gc.collect()
    assert gone() is None
