from __future__ import annotations

import re

import pytest

from nexus.http.types import read_lines
from nexus.ledger.rate_headers import rate_headers
from nexus.ledger.windows import Standing

REQUESTS = Standing(100, 97, 59.2)
TOKENS = Standing(2_000_000, 0, 0.25)


def shown(path: str, requests: Standing | None, tokens: Standing | None) -> dict[str, str]:
    pairs = read_lines(rate_headers(path, requests, tokens))
    assert len(dict(pairs)) == len(pairs)
    return {name.decode(): value.decode() for name, value in pairs}


def test_without_limits_there_are_none() -> None:
    assert rate_headers("/v1/chat/completions", None, None) == b""


def test_openai_names() -> None:
    assert shown("/v1/chat/completions", REQUESTS, TOKENS) == {
        "x-ratelimit-limit-requests": "100",
        "x-ratelimit-remaining-requests": "97",
        "x-ratelimit-reset-requests": "59.2s",
        "x-ratelimit-limit-tokens": "2000000",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "250ms",
        "ratelimit-policy": '"req";q=100;w=60, "tok";q=2000000;w=60;qu="tokens"',
        "ratelimit": '"req";r=97;t=60, "tok";r=0;t=1',
    }


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_anthropic_names(path: str) -> None:
    found = shown(path, None, TOKENS)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", found.pop("anthropic-ratelimit-tokens-reset"))
    assert found == {
        "anthropic-ratelimit-tokens-limit": "2000000",
        "anthropic-ratelimit-tokens-remaining": "0",
        "ratelimit-policy": '"tok";q=2000000;w=60;qu="tokens"',
        "ratelimit": '"tok";r=0;t=1',
    }


@pytest.mark.parametrize("path", ["/v1beta/models/m:generateContent", "/api/v1/playground/chat", "/v1"])
def test_elsewhere_only_the_common_ones(path: str) -> None:
    assert shown(path, REQUESTS, None) == {"ratelimit-policy": '"req";q=100;w=60', "ratelimit": '"req";r=97;t=60'}
