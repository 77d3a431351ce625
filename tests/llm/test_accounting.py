"""A call is recorded once, however it ends."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from nexus.access.types import Principal
from nexus.core.errors import NotFound
from nexus.ledger.types import Invocation
from nexus.llm.accounting import Entry
from nexus.llm.types import Deployment, Price, Route, Tally, Usage

WHO = Principal("key", "key_1", "prj_1", key_id="key_1")
WHERE = Deployment(provider="p", model="m", price=Price(input=10, output=20))
ROUTE = Route(name="r", deployments=(WHERE,))


def entry(rows: list[Invocation]) -> Entry:
    return Entry(rows.append, WHO, kind="chat", model="r", characters=10)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (None, "ok", None),
        (asyncio.CancelledError(), "cancelled", None),
        (NotFound(), "error", "not_found"),
        (ZeroDivisionError(), "error", "internal_error"),
    ],
)
def test_every_ending_leaves_one_row(error: BaseException | None, status: str, code: str | None) -> None:
    rows: list[Invocation] = []
    open_entry = entry(rows)
    with contextlib.suppress(type(error) if error is not None else KeyError), open_entry:
        if error is not None:
            raise error
    open_entry.close()
    assert [(row.status, row.error_code) for row in rows] == [(status, code)]
    assert rows[0].latency_ms is not None


def test_the_providers_figures_come_before_estimates() -> None:
    rows: list[Invocation] = []
    with entry(rows) as open_entry:
        open_entry.goes_to(ROUTE, WHERE)
        open_entry.tally = Tally(usage=Usage(input_tokens=7, output_tokens=3), characters=999)
    assert (rows[0].input_tokens, rows[0].output_tokens, rows[0].estimated) == (7, 3, False)
    assert rows[0].cost_usd == pytest.approx((7 * 10 + 3 * 20) / 1e6)


def test_without_figures_the_work_is_estimated_and_says_so() -> None:
    rows: list[Invocation] = []
    with entry(rows) as open_entry:
        open_entry.goes_to(ROUTE, WHERE)
        open_entry.sent = True
        open_entry.gone = True
        open_entry.tally = Tally(characters=9)
    assert (rows[0].status, rows[0].input_tokens, rows[0].output_tokens, rows[0].estimated) == (
        "client_disconnect", 3, 3, True,
    )  # fmt: skip


def test_a_failed_attempt_without_an_answer_costs_nothing() -> None:
    rows: list[Invocation] = []
    with contextlib.suppress(NotFound), entry(rows) as open_entry:
        open_entry.goes_to(ROUTE, WHERE)
        open_entry.sent = True
        raise NotFound
    assert (rows[0].input_tokens, rows[0].cost_usd) == (None, None)


def test_a_second_attempt_starts_from_nothing() -> None:
    rows: list[Invocation] = []
    with entry(rows) as open_entry:
        open_entry.goes_to(ROUTE, WHERE)
        open_entry.tally = Tally(characters=100)
        open_entry.goes_to(ROUTE, WHERE)
    assert rows[0].output_tokens is None
    assert rows[0].details["attempts"] == 2
