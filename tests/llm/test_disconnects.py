"""Callers who leave, at any moment, in any dialect, and callers who hardly read: nothing is lost and nothing piles up.

Research: security_api T7 and T9, LiteLLM's lost usage (F1).
"""

from __future__ import annotations

import json
import random
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress

import psutil
import pytest
from tests.clock import PATIENCE, until
from tests.llm.conftest import PATIENT, Gateway
from tests.llm.speakers import SPEAKERS, Speaker, account, installed_dialects, installed_kinds

from nexus.ledger.types import Invocation
from nexus.testing.script import Answering, Script, Seen
from nexus.testing.upstream import FakeUpstream, Said, saying

pytestmark = pytest.mark.slow

WORDS = 60
# A moment to leave: the model that makes it last, whether it is streamed, and how many words are waited for.
MOMENTS: dict[str, tuple[str, bool, int]] = {
    "before anything": ("fault-stall_at_once", True, 0),
    "before the first word": ("fault-stall_after_head", True, 0),
    "after three words": ("slow-20+long-600", True, 3),
    "near the end": (f"slow-10+long-{WORDS}", True, WORDS - 1),
    "from a plain call": ("slow-5000", False, 0),
}


def leave(gateway: Gateway, upstream: FakeUpstream, speaker: Speaker, model: str, *, stream: bool, words: int) -> float:
    """Ask, wait until so many words have come (of none: until the upstream was asked), and hang up; return when."""
    host, port = gateway.url.removeprefix("http://").split(":")
    body = json.dumps(speaker.body(model, "w " * 40, stream=stream)).encode()
    head = (
        f"POST {speaker.path(model, stream=stream)} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with closing(socket.create_connection((host, int(port)), timeout=10)) as client:
        client.sendall(head.encode() + body)
        seen = b""
        while words and f"word{words}".encode() not in seen and (data := client.recv(65_536)):
            seen += data
        until(lambda: any(request.model == model.partition("/")[2] for request in upstream.seen))
    return time.monotonic()


def await_row(gateway: Gateway, model: str, until: float) -> list[Invocation]:
    """Return the rows of this call, waiting until then."""
    while not (rows := [row for row in gateway.rows if row.model == model]) and time.monotonic() < until:
        time.sleep(0.005)
    return rows


def await_closed(upstream: FakeUpstream, model: str, until: float) -> Seen | None:
    """Return the upstream's request once it has ended."""
    name = model.partition("/")[2]
    while time.monotonic() < until:
        for seen in upstream.seen:
            if seen.model == name and (seen.closed is not None or seen.finished):
                return seen
        time.sleep(0.005)
    return None


@pytest.mark.parametrize("times", [40, pytest.param(500, marks=pytest.mark.long)])
def test_whoever_leaves_stops_the_upstream_and_is_on_record(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, times: int
) -> None:
    kinds, dialects = installed_kinds(), installed_dialects()
    gateway = make_gateway(providers=[account(kind, upstream) for kind in kinds], timeouts=PATIENT)
    pick = random.Random(20_261_126)
    pairs = [(kind, dialect) for kind in kinds for dialect in dialects]
    pick.shuffle(pairs)
    counts: Counter[str] = Counter()
    for number in range(times):
        kind, dialect = pairs[number % len(pairs)]
        moment, (scene, stream, words) = list(MOMENTS.items())[number % len(MOMENTS)]
        model, case = f"{kind}/{scene}+case{number}", f"{moment}, {kind} asked in {dialect}"
        left = leave(gateway, upstream, SPEAKERS[dialect], model, stream=stream, words=words)
        rows = await_row(gateway, model, left + PATIENCE)
        assert len(rows) == 1, f"{case}: {len(rows)} rows"
        row = rows[0]
        seen = await_closed(upstream, model, left + PATIENCE)
        assert seen is not None, f"{case}: the upstream still talks"
        counts[row.status] += 1
        if words == WORDS - 1 and row.status == "ok":
            continue  # it was over before the leaving was noticed
        assert row.status == "client_disconnect", f"{case}: {row.status}"
        assert row.details["finish_reason"] == "client_disconnect", case
        assert row.input_tokens, case
        assert seen.closed is not None, case
        assert seen.closed - left < 4, f"{case}: closed after {seen.closed - left:.2f} s"
        if words:
            assert row.output_tokens, case
            assert row.estimated or kind in ("google", "vertex", "anthropic"), case  # those tell figures as they go
    time.sleep(0.1)
    print(f"{times} disconnects, {times - len(gateway.rows)} rows missing: {dict(counts)}")
    assert len(gateway.rows) == times
    assert len({row.id for row in gateway.rows}) == times


def cache_by_route(answering: Answering) -> Answering:
    """Answer every request to a path as the first one."""
    known: dict[str, Script] = {}

    def answer(request: Seen) -> Script:
        if request.route not in known:
            known[request.route] = answering(request)
        return known[request.route]

    return answer


@pytest.mark.parametrize("dialect", installed_dialects())
@pytest.mark.parametrize("count", [30, pytest.param(200, marks=pytest.mark.long)])
def test_slow_readers_hold_little_and_are_let_go(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, dialect: str, count: int
) -> None:
    # 20 MB for each, made once, so that memory tells of the gateway.
    upstream.answering = cache_by_route(saying(Said(text=f"{'x' * 20_000} " * 1000)))
    gateway = make_gateway(providers=[account("openai", upstream)], timeouts=PATIENT, write_timeout=1.0)
    speaker = SPEAKERS[dialect]
    body = json.dumps(speaker.body("openai/echo", "hi", stream=True)).encode()
    path = speaker.path("openai/echo", stream=True)
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    host, port = gateway.url.removeprefix("http://").split(":")
    process = psutil.Process()
    before = process.memory_info().rss
    readers, most = [], 0
    try:
        for _ in range(count):
            reader = socket.socket()
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect((host, int(port)))
            reader.sendall(head + body)
            readers.append(reader)
        end = time.monotonic() + 60
        while len(gateway.rows) < count and time.monotonic() < end:
            for reader in readers:
                # One that has got nothing yet holds up no other, and one that was let go may be told so.
                with suppress(OSError):
                    reader.recv(1, socket.MSG_DONTWAIT)
            most = max(most, process.memory_info().rss - before)
            time.sleep(0.5)
    finally:
        for reader in readers:
            reader.close()
    print(f"{count} slow readers in {dialect}: {most / 1e6:.0f} MB more at most")
    assert Counter(row.status for row in gateway.rows) == {"client_disconnect": count}
    # Fake, gateway and readers share this process; unread answers would be 20 MB each. How much the fake's threads
    # hold is the machine's: 3 MB for each where it is quiet, 7 where five others want its cores. The last event of
    # a response repeats all of it, so what has been said must be kept there.
    each = 10e6 if dialect == "openai_responses" else 8e6
    assert most < 60e6 + count * each, f"{most / 1e6:.0f} MB"
    until(lambda: all(seen.closed is not None for seen in upstream.seen))
