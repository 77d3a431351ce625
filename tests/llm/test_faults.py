"""Every fault of the fake upstream, at every kind of provider, asked for in every dialect, plain and streamed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from typing import Any, TypeVar

import anthropic
import httpx
import openai
import pytest
from google import genai
from google.genai import errors
from tests.llm.conftest import Gateway
from tests.llm.faulty import AT_MOST, RETRIES, SAYS, Case, Pair, every_fault, play, play_and_check, rows_of
from tests.llm.speakers import KINDS, SPEAKERS, account, installed_dialects, installed_kinds

from nexus.testing.unreachable import UNREACHABLE
from nexus.testing.upstream import FakeUpstream

pytestmark = pytest.mark.slow


def test_every_kind_and_dialect_is_here() -> None:
    assert set(installed_kinds()) <= set(KINDS)
    assert set(installed_dialects()) <= set(SPEAKERS)


@pytest.mark.parametrize("dialect", installed_dialects())
def test_every_fault_is_told_and_recorded_truly(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, dialect: str
) -> None:
    kinds = installed_kinds()
    pair = Pair.made(make_gateway, providers=[account(kind, upstream) for kind in kinds], retries=RETRIES)
    play_and_check(pair, upstream, SPEAKERS[dialect], every_fault(*kinds))


class Unreachable(Case):
    """A request to a provider's account that cannot be reached, in one of the ways of `UNREACHABLE`."""

    @property
    def model(self) -> str:
        return "echo"

    @property
    def waits(self) -> bool:
        return self.fault == "silent"


@pytest.mark.parametrize("dialect", installed_dialects())
def test_an_upstream_that_cannot_be_reached_is_told_in_time(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, dialect: str
) -> None:
    speaker = SPEAKERS[dialect]
    cases = [
        Unreachable(f"{kind}-{name}", name, stream, 0)
        for kind in installed_kinds()
        for name in UNREACHABLE
        for stream in (False, True)
    ]
    with ExitStack() as stack:
        urls = {name: stack.enter_context(make()) for name, make in UNREACHABLE.items()}
        accounts = [
            account(kind, upstream) | {"name": f"{kind}-{name}", "base_url": url}
            for kind in installed_kinds()
            for name, url in urls.items()
        ]
        pair = Pair.made(make_gateway, providers=accounts, retries=RETRIES)
        answers = asyncio.run(play(pair, speaker, cases))
    for case, (answer, seconds) in zip(cases, answers, strict=True):
        assert isinstance(answer, httpx.Response), case
        assert answer.status_code in ((504,) if case.fault == "silent" else (503, 529)), (case, answer.text)
        assert seconds <= AT_MOST, case
        speaker.listen(answer.status_code, answer.content, stream=False)
        assert urls[case.fault].partition("://")[2].partition(":")[0] not in answer.text
    rows = rows_of(pair, len(cases))
    assert {model: [row.status for row in found] for model, found in rows.items()} == {
        case.asked: ["error"] * 2 for case in cases
    }


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
    pair = Pair.made(make_gateway, providers=[account(kind, upstream) for kind in kinds], retries=0)
    ask, error = OFFICIAL[dialect]

    def ask_all(kind: str) -> None:
        for number, fault in enumerate(BREAKS):
            case = Case(kind, fault, stream=True, number=number)
            if case.applies():
                with pytest.raises(error):
                    ask(pair.asked(case).url, case.asked)

    assert [ask(pair.patient.url, f"{kind}/echo") for kind in kinds] == [SAYS] * len(kinds)
    with ThreadPoolExecutor(len(kinds)) as pool:
        list(pool.map(ask_all, kinds))


C = TypeVar("C")


def kept(make: Callable[[str], C]) -> Callable[[str], C]:
    """Make one client for each address: making it takes longer than most of its calls."""
    known, making = cache(make), threading.Lock()

    def find(url: str) -> C:
        with making:
            return known(url)

    return find


openai_at = kept(lambda url: openai.OpenAI(base_url=f"{url}/v1", api_key="nx", max_retries=0))
anthropic_at = kept(lambda url: anthropic.Anthropic(base_url=url, api_key="nx", max_retries=0))
gemini_at = kept(lambda url: genai.Client(api_key="nx", http_options={"base_url": url}))


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
