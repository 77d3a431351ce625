"""A call is recorded once, however it ends."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from nexus.access.types import Principal
from nexus.core.errors import NexusError, NotFound
from nexus.ledger.types import Invocation
from nexus.llm.errors import UpstreamStalled, UpstreamTimeout, UpstreamTruncated, UpstreamUnavailable
from nexus.llm.money.accounting import Entry
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
        open_entry.sent = True
        open_entry.goes_to(ROUTE, WHERE)
    assert rows[0].output_tokens is None
    assert rows[0].details == {"deployment": "p/m", "attempts": 2}


CHEAP = Deployment(provider="q", model="m", price=Price(input=1, output=2))


@pytest.mark.parametrize(
    ("failed", "error", "tokens", "estimated"),
    [
        (Tally(usage=Usage(input_tokens=100, output_tokens=7)), UpstreamTruncated(), (100, 7), False),
        (Tally(characters=10), UpstreamTruncated(), (3, 3), True),
        (Tally(), UpstreamStalled(), (3, 0), True),
    ],
)
def test_what_a_failed_attempt_cost_is_kept(
    failed: Tally, error: NexusError, tokens: tuple[int, int], estimated: bool
) -> None:
    rows: list[Invocation] = []
    with entry(rows) as open_entry:
        open_entry.goes_to(ROUTE, WHERE)
        open_entry.sent, open_entry.tally = True, failed
        open_entry.failed(error)
        open_entry.goes_to(ROUTE, CHEAP)
        open_entry.sent, open_entry.tally = True, Tally(usage=Usage(input_tokens=50, output_tokens=5), done=True)
    row = rows[0]
    lost = (tokens[0] * 10 + tokens[1] * 20) / 1e6
    assert (row.input_tokens, row.output_tokens, row.estimated) == (50, 5, False)
    assert row.cost_usd == pytest.approx((50 + 10) / 1e6 + lost)
    assert row.details["failed_attempts"] == [
        {
            "deployment": "p/m", "error_code": error.code, "input_tokens": tokens[0], "output_tokens": tokens[1],
            "estimated": estimated, "cost_usd": pytest.approx(lost),
        }
    ]  # fmt: skip


@pytest.mark.parametrize("error", [UpstreamTimeout(), UpstreamUnavailable(), UpstreamTruncated()])
def test_a_failed_attempt_that_got_nothing_is_not_billed(error: NexusError) -> None:
    rows: list[Invocation] = []
    with entry(rows) as open_entry:
        open_entry.goes_to(ROUTE, WHERE)
        open_entry.sent = True
        open_entry.failed(error)
        open_entry.goes_to(ROUTE, CHEAP)
        open_entry.sent, open_entry.tally = True, Tally(usage=Usage(input_tokens=50), done=True)
    assert rows[0].cost_usd == pytest.approx(50 / 1e6)
    assert "failed_attempts" not in rows[0].details


def test_billed_attempts_show_where_no_answer_came_of_any() -> None:
    rows: list[Invocation] = []
    with contextlib.suppress(UpstreamTruncated), entry(rows) as open_entry:
        for place in (WHERE, CHEAP):
            open_entry.goes_to(ROUTE, place)
            open_entry.sent, open_entry.tally = True, Tally(usage=Usage(input_tokens=100))
            open_entry.failed(UpstreamTruncated())
        raise UpstreamTruncated
    assert (rows[0].status, rows[0].input_tokens) == ("error", 200)
    assert rows[0].cost_usd == pytest.approx(1100 / 1e6)


def test_one_unknown_price_makes_the_cost_unknown() -> None:
    rows: list[Invocation] = []
    unknown = Deployment(provider="q", model="new")
    with entry(rows) as open_entry:
        open_entry.goes_to(ROUTE, unknown)
        open_entry.tally = Tally(usage=Usage(input_tokens=100))
        open_entry.goes_to(ROUTE, WHERE)
        open_entry.tally = Tally(usage=Usage(input_tokens=10), done=True)
    assert rows[0].cost_usd is None


def test_an_answer_from_the_cache_costs_nothing_and_shows_its_tokens() -> None:
    rows: list[Invocation] = []
    with entry(rows) as open_entry:
        open_entry.served_from_cache(ROUTE, Tally(usage=Usage(input_tokens=7, output_tokens=3), done=True))
    assert (rows[0].cached, rows[0].cost_usd, rows[0].input_tokens, rows[0].route) == (True, 0.0, 7, "r")


def test_cache_tiers_are_kept() -> None:
    rows: list[Invocation] = []
    usage = Usage(input_tokens=9, cache_read_tokens=1, cache_write_tokens=5, cache_write_1h_tokens=2)
    with entry(rows) as open_entry:
        open_entry.goes_to(ROUTE, WHERE)
        open_entry.tally = Tally(usage=usage, done=True)
    assert (rows[0].cache_read_tokens, rows[0].cache_write_tokens, rows[0].cache_write_1h_tokens) == (1, 5, 2)
