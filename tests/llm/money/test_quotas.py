"""Limits of deployments, with the clock held still."""

from __future__ import annotations

from nexus.llm.money.quotas import Quotas
from nexus.llm.types import Deployment

PLACE = Deployment(provider="p", model="m", rpm=2, tpm=1000)


def test_requests_and_tokens_of_a_deployment() -> None:
    now = 100.0
    quotas = Quotas(now=lambda: now)
    assert quotas.allows(PLACE, 900, now)
    first = quotas.take(PLACE, 900)
    assert first is not None
    assert not quotas.allows(PLACE, 200, now)
    quotas.settle(first, 300)
    assert quotas.allows(PLACE, 200, now)
    quotas.take(PLACE, 200)
    assert not quotas.allows(PLACE, 1, now), "two requests were made"
    assert quotas.allows(PLACE, 1, now + 60)


def test_without_limits_everything_goes() -> None:
    free = Deployment(provider="p", model="m")
    quotas = Quotas()
    assert quotas.take(free, 10**9) is None
    assert quotas.allows(free, 10**9, 0.0)


def test_a_limit_is_divided_among_processes() -> None:
    quotas = Quotas(now=lambda: 0.0, share=lambda: 2)
    quotas.take(PLACE, 0)
    assert not quotas.allows(PLACE, 0, 0.0)
