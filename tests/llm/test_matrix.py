"""Every recording whose endpoint we speak, asked for in every dialect through real HTTP, read by the official clients.

The answer of the recording is replayed, streams cut at random bytes, and what the client understands must be
what an independent reading of the recording holds: words, thoughts, tool calls, why it ended, usage with cache.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.llm.conftest import Gateway
from tests.llm.official import CLIENTS, Client
from tests.llm.recorded import READERS, Failed, LeftOut, Told, read
from tests.llm.speakers import account, installed_dialects

from nexus.testing.recordings import Exchange, load_cassette
from nexus.testing.replay import form, replay
from nexus.testing.script import Seen
from nexus.testing.upstream import FakeUpstream

pytestmark = pytest.mark.slow

# The kind of provider that asks each endpoint, kept to this endpoint where it has several.
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat/completions": ("openai", {"responses": False, "completions": False}),
    "completions": ("openai", {"responses": False, "completions": True}),
    "responses": ("openai_responses", {}),
    "messages": ("anthropic", {}),
    ":generateContent": ("google", {}),
    ":streamGenerateContent": ("google", {}),
    "converse": ("bedrock", {"api": "converse"}),
    "converse-stream": ("bedrock", {"api": "converse"}),
    "invoke": ("bedrock", {}),
    "invoke-with-response-stream": ("bedrock", {}),
}
# Endpoints that only callers of one dialect are served by.
ONLY = {
    "completions": "openai_completions",
    "invoke": "anthropic_messages",
    "invoke-with-response-stream": "anthropic_messages",
}


# How many recordings each endpoint has that are right, and that are left out, whoever asks.
RIGHT = {
    "chat/completions": (324, 1), "completions": (8, 0), "responses": (151, 1), "messages": (155, 0),
    ":generateContent": (113, 0), ":streamGenerateContent": (21, 0), "converse": (84, 0), "converse-stream": (13, 0),
    "invoke": (3, 14), "invoke-with-response-stream": (5, 10),
}  # fmt: skip


@cache
def recordings(shared: Path) -> list[tuple[str, Exchange]]:
    root = shared / "data" / "llm" / "cassettes"
    files = sorted(path for path in root.rglob("*") if path.suffix in (".yaml", ".json"))
    return [(f"{path.parent.name}/{path.name}", exchange) for path in files for exchange in load_cassette(path)]


@pytest.mark.parametrize("dialect", installed_dialects())
@pytest.mark.parametrize("endpoint", WAYS)
def test_what_was_recorded_is_what_the_official_client_understands(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, shared: Path, endpoint: str, dialect: str
) -> None:
    if ONLY.get(endpoint, dialect) != dialect:
        pytest.skip(f"{endpoint} only serves callers of {ONLY[endpoint]}")
    kind, options = WAYS[endpoint]
    gateway = make_gateway(providers=[account(kind, upstream) | options], retries=0)
    client, cut = CLIENTS[dialect], random.Random(20_261_126)
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for name, exchange in recordings(shared):
        if form(exchange.path) != endpoint or exchange.method != "POST":
            continue
        gateway.llm.router._standing.clear()
        upstream.answering = replay([exchange], cut=cut)
        try:
            counts[check(exchange, client, gateway, f"{kind}/{model_of(exchange)}")] += 1
        except LeftOut as reason:
            counts[f"left out: {reason}"] += 1
        except Exception as error:  # noqa: BLE001  all are told together
            said = str(error).partition("\nassert")[0]
            wrong.append(f"{name}: {type(error).__name__} {said[:600]}")
    passed = sum(count for what, count in counts.items() if not what.startswith("left out"))
    print(f"{endpoint} asked in {dialect}: {passed} right, {len(wrong)} wrong, {dict(counts)}")
    assert not wrong, "\n".join([f"{len(wrong)} wrong", *wrong])
    old = 9 if (endpoint, dialect) == (":generateContent", "gemini") else 0
    assert (passed, counts.total() - passed) == (RIGHT[endpoint][0] - old, RIGHT[endpoint][1] + old)


def model_of(exchange: Exchange) -> str:
    return Seen(exchange.path, {}, exchange.request).model or "unnamed"


def check(exchange: Exchange, client: Client, gateway: Gateway, model: str) -> str:
    """Ask for one recording and compare; say what it was."""
    stream = exchange.streamed or exchange.framed or "stream" in form(exchange.path)
    if exchange.status != 200:
        with pytest.raises(client.errors):
            client.ask(gateway.url, model, (), stream=stream)
        return "error"
    try:
        recorded = read(exchange)
    except Failed:
        with pytest.raises(client.errors):
            client.ask(gateway.url, model, (), stream=stream)
        return "error in the stream"
    if client.name == "gemini" and re.search(rb'"finishReason": \d', exchange.body):
        raise LeftOut("enums as numbers, as the old client asked, which the new one cannot read")
    if client.name != "gemini" and re.search(rb'"finishReason": ?"UNEXPECTED_TOOL_CALL"', exchange.body):
        # An answer that failed is an end in its provider's form only.
        with pytest.raises(client.errors):
            client.ask(gateway.url, model, (), stream=stream)
        return "failed"
    names = sorted({name for name, _ in recorded.tools})
    heard = client.ask(gateway.url, model, names, stream=stream)
    compare(recorded, heard, client)
    return "stream" if stream else "plain"


def compare(recorded: Told, heard: Told, client: Client) -> None:
    """Compare what was recorded with what was understood."""
    assert heard.text == recorded.text, f"text\n{heard.text!r}\n{recorded.text!r}"
    if client.name == "openai_completions":
        return
    # Plain text for a tool is an object with one field to whoever offers tools with a schema.
    tools = [(name, {"input": given} if isinstance(given, str) else given) for name, given in recorded.tools]
    assert heard.tools in (tools, recorded.tools), f"tools\n{heard.tools}\n{tools}"
    # What stands between two thoughts is each dialect's own affair.
    thoughts, wanted_thoughts = "".join(heard.thinking.split()), "".join(recorded.thinking.split())
    assert thoughts == wanted_thoughts, f"thinking\n{heard.thinking!r}\n{recorded.thinking!r}"
    check_finish(recorded, heard)
    if recorded.usage is not None and not (recorded.aside and heard.usage is None):
        usage = recorded.usage._replace(stored=min(recorded.usage.stored, recorded.usage.read - recorded.usage.cached))
        wanted_usage = usage if client.stores else usage._replace(stored=0)
        got = heard.usage if client.stores or heard.usage is None else heard.usage._replace(stored=0)
        assert got == wanted_usage, f"usage {got} for {wanted_usage}"


def check_finish(recorded: Told, heard: Told) -> None:
    """Compare why an answer ended: a refusal may be its own reason, and so may calls of tools."""
    allowed = {recorded.finish}
    if recorded.refused:
        allowed.add("filter")
    if recorded.tools:
        allowed.add("tools")
    if recorded.finish not in ("stop", "length", "tools", "filter"):
        allowed.add("stop")  # a word that only its provider has
    assert heard.finish in allowed, f"finish {heard.finish} for {recorded.finish}"


# What else was recorded: endpoints of the providers that are no chat, or that we do not speak.
OTHERS = {
    "embeddings": 26, ":batchEmbedContents": 10, ":embedContent": 1, "embed": 5, ":countTokens": 3, "count_tokens": 6,
    "count-tokens": 4, "responses/input_tokens": 3, "chat": 21, "rerank": 3,
}  # fmt: skip


def test_every_recorded_exchange_is_accounted_for(shared: Path) -> None:
    forms = Counter(form(exchange.path) for _, exchange in recordings(shared) if exchange.method == "POST")
    assert {name: forms[name] for name in WAYS} == {name: sum(both) for name, both in RIGHT.items()}
    assert {name: forms[name] for name in OTHERS} == OTHERS
    rest = forms.total() - sum(map(sum, RIGHT.values())) - sum(OTHERS.values())
    strangers = sorted(set(forms) - set(WAYS) - set(OTHERS))
    print(f"{sum(right for right, _ in RIGHT.values())} of {len(recordings(shared))} exchanges asked in every dialect")
    print(f"no language model was asked by {rest} others: {strangers}")
    assert rest == 51


def test_every_endpoint_that_is_read_is_asked() -> None:
    assert set(WAYS) == set(READERS)
    assert set(CLIENTS) >= set(installed_dialects())
