"""Clients who leave before, during and at the end of an answer: every call is on record, and nothing stays held."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable

import pytest
from tests.ledger.test_limiter import Limits
from tests.llm.conftest import PATIENT, WHO, Gateway, fast, serving

from nexus.access.types import KeyLimits
from nexus.ledger.budget_book import BudgetBook
from nexus.ledger.limiter import Limiter
from nexus.ledger.service import Ledger
from nexus.llm.service import LLMService
from nexus.llm.settings import LLMSettings
from nexus.storage.db import Database
from nexus.testing.script import Script, Seen
from nexus.testing.upstream import FakeUpstream, answer

WORDS = " ".join(f"word{number}" for number in range(30))
TOLD = (12, 30)  # what the fake counts of them
WHEN = ("at once", "after 3 chunks", "at 99 %")


async def leave(url: str, when: str, *, stream: bool) -> None:
    """Ask, and close the connection at this point of the answer."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    model = "up/slow-3" if stream else "up/gpt-4o"
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": WORDS}]}
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
    writer.write(head.encode() + b"content-length: %d\r\n\r\n" % len(data) + data)
    await writer.drain()
    if when == "at once":
        await asyncio.sleep(0.001)
    elif not stream:
        # The fake waits a moment before it answers: leave while it does, or as the first byte comes.
        await (asyncio.sleep(0.02) if when == "after 3 chunks" else reader.read(1))
    else:
        seen, enough = b"", 4 if when == "after 3 chunks" else 30
        while seen.count(b"data:") < enough and (piece := await reader.read(65_536)):
            seen += piece
    writer.transport.abort()


def slow_plain(request: Seen) -> Script:
    """Answer as the fake does, whole answers after 400 ms."""
    script = answer(request)
    return script if request.json.get("stream") else Script((0.4, *script.pieces), close=script.close)


def settled(gateway: Gateway, count: int, limiter: Limiter, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and (len(gateway.rows) < count or any(m.in_flight for m in limiter.meters())):
        time.sleep(0.02)


def go(
    upstream: FakeUpstream,
    ledger: Ledger,
    database: Database,
    make: Callable[[int], list[tuple[str, bool]]],
    count: int,
) -> None:
    limits = Limits(key_1=KeyLimits(parallel=10_000, tpm=10**9, budget_usd=1000.0, budget_period="day"))
    book = BudgetBook(database=database, ledger=ledger)
    limiter = Limiter(limits, book)
    provider = {"name": "up", "kind": "openai", "base_url": upstream.url}
    llm = LLMService(
        settings=LLMSettings(**fast(providers=[provider], timeouts=PATIENT)), record=ledger.record, limiter=limiter
    )
    upstream.answering = slow_plain
    plan = make(count)

    async def everybody(url: str) -> None:
        for start in range(0, len(plan), 50):
            await asyncio.gather(*(leave(url, when, stream=stream) for when, stream in plan[start : start + 50]))

    with serving(llm, ledger, WHO) as gateway:
        asyncio.run(everybody(gateway.url))
        settled(gateway, count, limiter)
        counts = Counter((row.stream, row.status) for row in gateway.rows)
        print(dict(counts))
        # A client may be gone before its request was even read: only what reached a provider must be on record.
        assert len(gateway.rows) >= len(upstream.seen)
        assert count - len(gateway.rows) <= count // 50
        left = [row for row in gateway.rows if row.status == "client_disconnect"]
        assert len(left) >= count * 3 // 4, "all but those who left as the last byte came"
        assert not [row for row in gateway.rows if row.status == "error"]
        assert all(meter.in_flight == 0 for meter in limiter.meters()), "nothing stays held"
        hold = limiter.open(WHO)
        assert hold is not None
        assert hold.account.budgets[0].reserved == 0
        sent = [row for row in gateway.rows if row.provider is not None and row.input_tokens is not None]
        assert len(sent) >= len(upstream.seen)
        # Of those who left as the last events came the provider had told the figures: they are its own.
        told = [row for row in left if row.input_tokens is not None and not row.estimated]
        assert all((row.input_tokens, row.output_tokens) == TOLD for row in told)
        partial = [row for row in left if row.stream and row.output_tokens and row.estimated]
        assert partial, "what was produced before a client left is billed"
        assert all(0 < (row.output_tokens or 0) <= len(WORDS) // 4 + 1 for row in partial)


def mixed(count: int) -> list[tuple[str, bool]]:
    return [(WHEN[number % 3], number % 2 == 0) for number in range(count)]


@pytest.mark.slow
def test_clients_who_leave(upstream: FakeUpstream, ledger: Ledger, database: Database) -> None:
    go(upstream, ledger, database, mixed, 60)


@pytest.mark.long
def test_500_clients_who_leave(upstream: FakeUpstream, ledger: Ledger, database: Database) -> None:
    go(upstream, ledger, database, mixed, 500)
