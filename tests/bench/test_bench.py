"""Benchmarks: the contract, and that figures are compared the right way round."""

from __future__ import annotations

import pytest

from nexus.bench.bench import BENCHES, Bench, Figure


@pytest.mark.parametrize("name", BENCHES.names())
def test_every_benchmark_fulfils_the_contract(name: str) -> None:
    plug = BENCHES.get(name)
    assert isinstance(plug, Bench)
    assert plug.summary


@pytest.mark.parametrize(
    ("value", "target", "lower", "met"),
    [(1.0, 2.0, True, True), (3.0, 2.0, True, False), (3.0, 2.0, False, True), (1.0, None, True, None)],
)
def test_targets(value: float, target: float | None, lower: bool, met: bool | None) -> None:
    assert Figure("x", value, "s", target, lower).met is met
