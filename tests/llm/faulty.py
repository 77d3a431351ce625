"""Faults of an upstream as callers see them: what is played, how many at a time, and what must hold of each answer.

What must hold (research: security_api T6, T7, T9): a mapped error in the caller's dialect, in time, without a
word of the upstream's secrets; tries only before the first words; never a false end; one row, with the truth.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from tests.clock import until
from tests.llm.conftest import PATIENT, Gateway
from tests.llm.speakers import SECRET, Speaker

from nexus.ledger.types import Invocation
from nexus.testing.faults import CANARIES, FAULTS, Fault
from nexus.testing.upstream import FakeUpstream

SAYS = "grüße aus köln ☃ und tschüß"
LIMITS = {"connect": 2.0, "first_token": 0.8, "between_tokens": 0.8, "total": 3.0}
AT_MOST = 15.0  # seconds: much more than these limits, and much less than the patience of others
RETRIES = 1
# Few at a time, so that no good answer is late because of others; those that wait for a limit take no time of theirs.
AT_WORK, WAITING = 4, 16
PRIVATE = (SECRET, "AKIDSECRET", "127.0.0.1", "169.254", "Please log in", *CANARIES)

# The status of each fault that is told before the answer begins; the first word of a name stands for its family.
STATUSES: dict[str, tuple[int, ...]] = {
    "400": (400,), "401": (502,), "402": (502,), "403": (502,), "404": (404,), "408": (504,), "409": (400, 409),
    "413": (413,), "422": (400, 422), "429": (429, 502), "500": (503,), "502": (503,), "503": (503,), "504": (503, 504),
    "529": (503,), "context_too_long": (400,), "redirect": (502,), "empty_200": (502,), "html_200": (502,),
    "json_error_200": (429, 502), "null_200": (502,), "nonsense_200": (502,), "gzip": (502,), "not_http": (502,),
    "huge_header": (502,), "two_lengths": (502,), "slow_header": (504,), "close": (503,), "reset_at_once": (503,),
    "stall": (504,), "truncated": (502,), "reset_mid_stream": (502,), "error_first": (503,), "error_event": (503,),
    "overloaded_event": (503,), "error_frame": (502, 503), "huge_event": (502, 504),
}  # fmt: skip
# What trying again cannot change.
FINAL = ("400", "401", "402", "403", "404", "409", "413", "422", "429", "context_too_long")
NONSENSE = '{"choices":[7],"content":9,"candidates":"x","output":3}'
NO_FIGURES = ("no_usage", "usage_negative", "usage_null", "usage_nonsense")


@dataclass
class Case:
    """One fault, played to one caller; `number` makes its model another's than that of all others."""

    kind: str
    fault: str
    stream: bool
    number: int

    @property
    def model(self) -> str:
        """The model as the upstream is asked for it."""
        return f"fault-{self.fault}+case{self.number}"

    @property
    def asked(self) -> str:
        """The model that the caller asks for, and that stands in the row."""
        return f"{self.kind}/{self.model}"

    @property
    def told(self) -> Fault:
        return FAULTS[self.fault]

    @property
    def waits(self) -> bool:
        """Tell whether it ends by a limit of time."""
        return self.fault.startswith(("stall", "slow"))

    def applies(self) -> bool:
        """Tell whether it happens: one of the other form of stream does not, nor one of streams to a plain answer."""
        form = "frames" if self.kind == "bedrock" else "events"
        return (self.stream or not self.told.streams) and self.told.form in (None, form)

    def __str__(self) -> str:
        return f"{self.fault}-{'stream' if self.stream else 'plain'} of {self.kind}"


Answer = tuple[httpx.Response | Exception, float]
"""What came, and after how many seconds."""


def every_fault(*kinds: str, case: type[Case] = Case) -> list[Case]:
    """Every fault, plain and streamed, of providers of these kinds."""
    modes = [
        (name, stream) for name, fault in FAULTS.items() for stream in (False, True) if stream or not fault.streams
    ]
    return [case(*played, number) for number, played in enumerate((kind, *mode) for kind in kinds for mode in modes)]


@dataclass
class Pair:
    """Two gateways before the same upstream: one with short limits of time for faults that end by these, one without.

    Where a machine has other things to do, good answers may take longer than short limits.
    """

    strict: Gateway
    patient: Gateway

    @classmethod
    def made(cls, make_gateway: Callable[..., Gateway], **settings: Any) -> Pair:
        return cls(make_gateway(timeouts=LIMITS, **settings), make_gateway(timeouts=PATIENT, **settings))

    def asked(self, case: Case) -> Gateway:
        return self.strict if case.waits else self.patient


async def play(pair: Pair, speaker: Speaker, cases: Sequence[Case]) -> list[Answer]:
    """Ask for every case, plain and streamed."""
    at_work, waiting = asyncio.Semaphore(AT_WORK), asyncio.Semaphore(WAITING)

    async def one(case: Case) -> Answer:
        async with waiting if case.waits else at_work:
            began = time.monotonic()
            body = speaker.body(case.asked, SAYS, stream=case.stream)
            url = pair.asked(case).url + speaker.path(case.asked, stream=case.stream)
            try:
                answer: httpx.Response | Exception = await client.post(url, json=body)
            except httpx.HTTPError as error:
                answer = error
            return answer, time.monotonic() - began

    async with httpx.AsyncClient(timeout=90, verify=False) as client:
        return list(await asyncio.gather(*map(one, cases)))


def rows_of(pair: Pair, count: int) -> dict[str, list[Invocation]]:
    """The rows by model, of which there must be so many."""
    rows = pair.patient.rows  # they have one ledger, which tells both of all
    until(lambda: len(rows) >= count)
    time.sleep(0.05)
    assert len(rows) == count
    found: dict[str, list[Invocation]] = defaultdict(list)
    for row in rows:
        found[str(row.model)].append(row)
    return found


def play_and_check(pair: Pair, upstream: FakeUpstream, speaker: Speaker, cases: Sequence[Case]) -> None:
    """Play all cases; everything must hold of each."""
    answers = asyncio.run(play(pair, speaker, cases))
    rows = rows_of(pair, len(cases))
    tries: dict[str | None, int] = defaultdict(int)
    for seen in upstream.seen:
        tries[seen.model] += 1
    wrong = []
    for case, (answer, seconds) in zip(cases, answers, strict=True):
        try:
            check(case, speaker, answer, seconds, tries=tries[case.model], rows=rows[case.asked])
        except (AssertionError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            wrong.append(f"{case}: {type(error).__name__} {str(error)[:300]}")
    print(f"{len(cases)} faults asked for in {speaker.name}: {len(cases) - len(wrong)} right")
    assert not wrong, "\n".join([f"{len(wrong)} of {len(cases)} wrong", *wrong])


def check(
    case: Case,
    speaker: Speaker,
    answer: httpx.Response | Exception,
    seconds: float,
    *,
    tries: int,
    rows: list[Invocation],
) -> None:
    """Check one answer and its row."""
    assert isinstance(answer, httpx.Response), f"the connection broke: {answer!r}"
    leaked = [word for word in PRIVATE if word in answer.text or word in str(answer.headers)]
    assert not leaked, f"leaked {leaked}"
    assert seconds <= AT_MOST, f"took {seconds:.1f} s"
    if answer.text == NONSENSE and not case.stream:
        return  # the provider's own words go to a caller of its dialect as they are
    heard = speaker.listen(answer.status_code, answer.content, stream=case.stream)
    assert heard.honest, f"neither whole nor an error: {answer.text[-200:]}"
    # A kept connection that dies unused says nothing about the request: it goes out once more, uncounted.
    most = (RETRIES + 1) * (2 if case.fault.endswith("_at_once") else 1)
    assert 1 <= tries <= most, f"{tries} tries: {answer.text[:200]}"
    assert len(rows) == 1, f"{len(rows)} rows"
    assert rows[0].status == ("ok" if heard.whole else "error"), f"the row says {rows[0].status}"
    wanted = case.told.outcome if case.applies() else "whole"
    if heard.whole:
        assert wanted != "error", f"an error passed for whole: {heard.text}"
        assert heard.text == SAYS, f"not what was said: {heard.text}"
        assert rows[0].input_tokens
        assert not rows[0].estimated or case.fault in NO_FIGURES or wanted == "either", "figures were there"
        return
    assert wanted != "whole", f"should be whole: {answer.status_code} {answer.text[-300:]}"
    if heard.status != 200:
        family = case.fault if case.fault in STATUSES else case.fault.partition("_")[0]
        status = 503 if answer.status_code == 529 else answer.status_code
        allowed = STATUSES.get(family, (502,))
        # How much had arrived before it broke is the network's choice.
        allowed += (503,) if 502 in allowed else ()
        assert status in allowed, f"{answer.status_code}: {answer.text[:200]}"
    if case.fault.startswith(FINAL):
        assert tries == 1, "tried again what cannot change"
    assert SAYS.startswith(heard.text), f"words twice, or none of its own: {heard.text}"
    if case.fault == "429_retry_after":
        assert answer.headers["retry-after"] == "7"
