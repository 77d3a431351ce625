"""Every check of `nexus smoke`, one test each, on one instance."""

from __future__ import annotations

import httpx2
import pytest

from nexus.smoke import CHECKS, Outcome, run_checks

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def outcomes(place: object) -> dict[str, Outcome]:
    """What the checks found, in their own order, for one follows from another."""
    headers = {"authorization": f"Bearer {place.key}"}  # type: ignore[attr-defined]
    with httpx2.Client(base_url=place.url, headers=headers, timeout=120, trust_env=False) as client:  # type: ignore[attr-defined]
        return {outcome.what: outcome for outcome in run_checks(client, webhook=True)}


@pytest.mark.parametrize("what", [name for name, _ in CHECKS])
def test_holds(outcomes: dict[str, Outcome], what: str) -> None:
    assert outcomes[what].ok, outcomes[what].result
