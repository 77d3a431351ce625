"""Whatever goes wrong at Bedrock or Hugging Face: an honest answer in the caller's dialect, no secrets, one row."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tests.llm.conftest import Gateway

from nexus.testing.faults import CANARIES
from nexus.testing.upstream import FAULTS, FakeUpstream

HTTP = httpx.Client()
KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
AWS = {"kind": "bedrock", "region": "us-east-1", "access_key_id": "AKIDEXAMPLE", "secret_access_key": KEY}
KINDS: dict[str, dict[str, Any]] = {
    "signed": AWS,
    "bearer": {"kind": "bedrock", "region": "us-east-1", "api_key": "sk-canary-of-bedrock"},
    "hugging face": {"kind": "huggingface", "api_key": "sk-canary-of-hf"},
}
CASES = [
    (kind, name, stream)
    for kind in KINDS
    for name, fault in FAULTS.items()
    for stream in (False, True)
    if (stream or not fault.streams)
    and fault.form != "events"
    # Hugging Face's streams are OpenAI's, and tried there.
    and (kind != "hugging face" or (fault.form is None and name != "nonsense_200"))
    and (kind != "bearer" or name in ("400_with_secrets", "401"))
]
WORDS = "grüße aus köln ☃ und noch mehr worte"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name", "stream"), CASES, ids=[f"{k}-{n}-{'stream' if s else 'plain'}" for k, n, s in CASES]
)
def test_faults(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, kind: str, name: str, stream: bool
) -> None:
    limits = {"connect": 1, "first_token": 0.4, "between_tokens": 0.4, "total": 1.0}
    provider = {"name": "up", "base_url": upstream.url} | KINDS[kind]
    gateway = make_gateway(providers=[provider], timeouts=limits, retries=0)
    ask = {"model": f"up/fault-{name}", "messages": [{"role": "user", "content": WORDS}], "stream": stream}
    response = HTTP.post(f"{gateway.url}/v1/chat/completions", json=ask, timeout=10)
    for secret in (*CANARIES, KEY, "AKIDEXAMPLE", "127.0.0.1", f":{upstream.port}", "Signature=", "169.254"):
        assert secret not in response.text, secret
    row = gateway.row()
    whole, failed = read(response, stream)
    outcome = FAULTS[name].outcome
    if outcome == "error":
        assert failed, response.text[:500]
    elif outcome == "whole":
        assert whole == WORDS, response.text[:500]
        assert not failed
    else:
        assert failed or whole == WORDS
    assert row.status == ("error" if failed else "ok")


def read(response: httpx.Response, stream: bool) -> tuple[str, bool]:
    """Return the words and whether a failure was told."""
    if response.status_code != 200:
        assert 400 <= response.status_code < 600
        assert response.json()["error"]["message"]
        return "", True
    if not stream:
        return response.json()["choices"][0]["message"]["content"], False
    words, failed = "", False
    lines = [line[6:] for line in response.text.split("\n") if line.startswith("data: ")]
    for line in lines:
        event = json.loads(line) if line != "[DONE]" else {}
        failed = failed or "error" in event
        for choice in event.get("choices") or ():
            words += choice["delta"].get("content") or ""
    assert (lines[-1] == "[DONE]") != failed
    return words, failed
