"""Every fault of the fake upstream, at every kind of provider, asked for in every dialect, plain and streamed.

What must hold (research: security_api T6, T7, T9): a mapped error in the caller's dialect, in time, without a
word of the upstream's secrets; tries only before the first words; never a false end; one row, with the truth.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import anthropic
import httpx
import openai
import pytest
from google import genai
from google.genai import errors
from tests.llm.conftest import Gateway
from tests.llm.speakers import (
    KINDS,
    SECRET,
    SPEAKERS,
    Speaker,
    account,
    installed_dialects,
    installed_kinds,
)

from nexus.ledger.types import Invocation
from nexus.testing.faults import CANARIES, FAULTS, Fault
from nexus.testing.unreachable import UNREACHABLE
from nexus.testing.upstream import FakeUpstream

pytestmark = pytest.mark.slow

SAYS = "grüße aus köln ☃ und tschüß"
LIMITS = {"connect": 2.0, "first_token": 0.8, "between_tokens": 0.8, "total": 3.0}
RETRIES = 1
TOGETHER = 12
PAIRS = [(kind, dialect) for kind in installed_kinds() for dialect in installed_dialects()]
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


def test_every_kind_and_dialect_is_here() -> None:
    assert set(installed_kinds()) <= set(KINDS)
    assert set(installed_dialects()) <= set(SPEAKERS)


@dataclass
class Case:
    """One fault, played to one caller; `model` names it in the row and at the upstream."""

    fault: str
    stream: bool
    number: int

    @property
    def model(self) -> str:
        return f"fault-{self.fault}+case{self.number}"

    @property
    def told(self) -> Fault:
        return FAULTS[self.fault]

    def applies(self, kind: str) -> bool:
        """Tell whether it happens: one of the other form of stream does not, nor one of streams to a plain answer."""
        form = "frames" if kind == "bedrock" else "events"
        return (self.stream or not self.told.streams) and self.told.form in (None, form)

    def __str__(self) -> str:
        return f"{self.fault}-{'stream' if self.stream else 'plain'}"


PLAYED = [(name, stream) for name, fault in FAULTS.items() for stream in (False, True) if stream or not fault.streams]
CASES = [Case(name, stream, number) for number, (name, stream) in enumerate(PLAYED)]


@pytest.mark.parametrize(("kind", "dialect"), PAIRS, ids=[f"{k}-asked-in-{d}" for k, d in PAIRS])
def test_every_fault_is_told_and_recorded_truly(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, kind: str, dialect: str
) -> None:
    gateway = make_gateway(providers=[account(kind, upstream)], timeouts=LIMITS, retries=RETRIES)
    speaker = SPEAKERS[dialect]
    results = asyncio.run(_all(gateway, speaker, [(case, f"{kind}/{case.model}") for case in CASES]))
    rows = _rows(gateway, len(CASES))
    wrong = []
    for case, (answer, seconds) in zip(CASES, results, strict=True):
        seen = [request for request in upstream.seen if request.model == case.model]
        own = [row for row in rows if row.model == f"{kind}/{case.model}"]
        try:
            check(case, kind, speaker, answer, seconds, tries=len(seen), rows=own)
        except (AssertionError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            wrong.append(f"{case}: {type(error).__name__} {str(error)[:300]}")
    print(f"{len(CASES)} faults of {kind} asked for in {dialect}: {len(CASES) - len(wrong)} right")
    assert not wrong, "\n".join([f"{len(wrong)} of {len(CASES)} wrong", *wrong])
    assert len(rows) == len(CASES)


async def _all(
    gateway: Gateway, speaker: Speaker, cases: list[tuple[Any, str]]
) -> list[tuple[httpx.Response | Exception, float]]:
    turn = asyncio.Semaphore(TOGETHER)

    async def one(case: Any, model: str) -> tuple[httpx.Response | Exception, float]:
        async with turn:
            began = time.monotonic()
            body = speaker.body(model, SAYS, stream=case.stream)
            url = gateway.url + speaker.path(model, stream=case.stream)
            try:
                answer: httpx.Response | Exception = await client.post(url, json=body)
            except httpx.HTTPError as error:
                answer = error
            return answer, time.monotonic() - began

    async with httpx.AsyncClient(timeout=20, verify=False) as client:
        return list(await asyncio.gather(*(one(case, model) for case, model in cases)))


def _rows(gateway: Gateway, count: int) -> list[Invocation]:
    end = time.monotonic() + 2
    while len(gateway.rows) < count and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.05)
    return list(gateway.rows)


def check(
    case: Case,
    kind: str,
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
    assert seconds <= LIMITS["total"] + 1, f"took {seconds:.1f} s"
    if answer.text == NONSENSE and not case.stream:
        return  # the provider's own words go to a caller of its dialect as they are
    heard = speaker.listen(answer.status_code, answer.content, stream=case.stream)
    assert heard.honest, f"neither whole nor an error: {answer.text[-200:]}"
    # A kept connection that dies unused says nothing about the request: it goes out once more, uncounted.
    most = (RETRIES + 1) * (2 if case.fault.endswith("_at_once") else 1)
    assert 1 <= tries <= most, f"{tries} tries: {answer.text[:200]}"
    assert len(rows) == 1, f"{len(rows)} rows"
    assert rows[0].status == ("ok" if heard.whole else "error"), f"the row says {rows[0].status}"
    wanted = case.told.outcome if case.applies(kind) else "whole"
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


@pytest.mark.parametrize(("kind", "dialect"), PAIRS, ids=[f"{k}-asked-in-{d}" for k, d in PAIRS])
def test_an_upstream_that_cannot_be_reached_is_told_in_time(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, kind: str, dialect: str
) -> None:
    speaker = SPEAKERS[dialect]
    for name, make in UNREACHABLE.items():
        with make() as url:
            own = account(kind, upstream) | {"base_url": url}
            gateway = make_gateway(providers=[own], timeouts=LIMITS, retries=RETRIES)
            cases = [Case("503", False, 1), Case("503", True, 2)]
            for answer, seconds in asyncio.run(_all(gateway, speaker, [(case, f"{kind}/echo") for case in cases])):
                assert isinstance(answer, httpx.Response), name
                assert answer.status_code in ((504,) if name == "silent" else (503, 529)), (name, answer.text)
                assert seconds <= LIMITS["total"] + 1, name
                speaker.listen(answer.status_code, answer.content, stream=False)
                assert url.partition("://")[2].partition(":")[0] not in answer.text
            assert [row.status for row in _rows(gateway, 2)] == ["error"] * 2


BREAKS = (
    "truncated",
    "reset_mid_stream",
    "stall_mid_stream",
    "error_event",
    "no_finish_no_done",
    "broken_event",
    "bad_message_crc",
)


@pytest.mark.parametrize("dialect", installed_dialects())
def test_the_official_client_raises_for_a_stream_that_breaks(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, dialect: str
) -> None:
    kinds = installed_kinds()
    gateway = make_gateway(providers=[account(kind, upstream) for kind in kinds], timeouts=LIMITS, retries=0)
    ask, error = OFFICIAL[dialect]
    for kind in kinds:
        assert ask(gateway.url, f"{kind}/echo") == SAYS
        for number, fault in enumerate(BREAKS):
            case = Case(fault, stream=True, number=number)
            if case.applies(kind):
                with pytest.raises(error):
                    ask(gateway.url, f"{kind}/{case.model}")


# Making a client takes longer than most of its calls.
openai_at = cache(lambda url: openai.OpenAI(base_url=f"{url}/v1", api_key="nx", max_retries=0))
anthropic_at = cache(lambda url: anthropic.Anthropic(base_url=url, api_key="nx", max_retries=0))
gemini_at = cache(lambda url: genai.Client(api_key="nx", http_options={"base_url": url}))


def _ask_chat(url: str, model: str) -> str:
    ask = [{"role": "user", "content": SAYS}]
    chunks = openai_at(url).chat.completions.create(model=model, messages=ask, stream=True)
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def _ask_completions(url: str, model: str) -> str:
    chunks = openai_at(url).completions.create(model=model, prompt=SAYS, stream=True)
    return "".join(choice.text for chunk in chunks for choice in chunk.choices)


def _ask_responses(url: str, model: str) -> str:
    with openai_at(url).responses.stream(model=model, input=SAYS) as stream:
        return stream.get_final_response().output_text


def _ask_messages(url: str, model: str) -> str:
    ask = [{"role": "user", "content": SAYS}]
    with anthropic_at(url).messages.stream(model=model, max_tokens=99, messages=ask) as stream:
        return stream.get_final_text()


def _ask_gemini(url: str, model: str) -> str:
    pieces = gemini_at(url).models.generate_content_stream(model=model, contents=SAYS)
    return "".join(piece.text or "" for piece in pieces)


# A response that fails is an event to OpenAI's client, which then misses the completed one.
OFFICIAL: dict[str, tuple[Callable[[str, str], str], Any]] = {
    "openai_chat": (_ask_chat, openai.APIError),
    "openai_completions": (_ask_completions, openai.APIError),
    "openai_responses": (_ask_responses, (openai.APIError, RuntimeError)),
    "anthropic_messages": (_ask_messages, anthropic.APIError),
    "gemini": (_ask_gemini, errors.APIError),
}
