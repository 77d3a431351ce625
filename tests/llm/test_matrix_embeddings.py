"""Every recorded embedding, asked for in each dialect that embeds, read by the official clients: the same vectors."""

from __future__ import annotations

import base64
import json
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from google import genai
from google.genai import errors
from tests.llm.conftest import Gateway
from tests.llm.recorded import LeftOut
from tests.llm.speakers import account
from tests.llm.test_matrix import model_of, recordings

from nexus.testing.recordings import Exchange
from nexus.testing.replay import form, replay
from nexus.testing.upstream import FakeUpstream

pytestmark = pytest.mark.slow

KINDS = {"embeddings": "openai", ":batchEmbedContents": "google", "invoke": "bedrock"}
# How many recordings are right, and how many are left out, whoever asks.
RIGHT = {"embeddings": (26, 0), ":batchEmbedContents": (10, 0), "invoke": (12, 5)}


def vectors_of(exchange: Exchange) -> list[list[float]]:
    """Read the vectors of a recording. Raises `LeftOut`."""
    body = json.loads(exchange.body or b"{}")
    if "data" in body:
        return [_floats(item["embedding"]) for item in body["data"] if "embedding" in item]
    if isinstance(found := body.get("embeddings"), list):
        return [item if isinstance(item, list) else item.get("values") or item["embedding"] for item in found]
    if isinstance(found, dict):
        return list(found["float"])
    if "embedding" in body:
        return [body["embedding"]]
    raise LeftOut("no vectors of floats")


def _floats(value: Any) -> list[float]:
    if isinstance(value, list):
        return value
    data = base64.b64decode(value)
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def _ask_openai(gateway: Gateway, model: str, count: int) -> list[list[float]]:
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="nx", max_retries=0)
    return [item.embedding for item in client.embeddings.create(model=model, input=["hi"] * count).data]


def _ask_gemini(gateway: Gateway, model: str, count: int) -> list[list[float]]:
    client = genai.Client(api_key="nx", http_options={"base_url": gateway.url})
    found = client.models.embed_content(model=model, contents=["hi"] * count).embeddings or []
    return [one.values or [] for one in found]


CLIENTS: dict[str, tuple[Callable[[Gateway, str, int], list[list[float]]], Any]] = {
    "openai": (_ask_openai, openai.APIError),
    "gemini": (_ask_gemini, errors.APIError),
}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("endpoint", KINDS)
def test_recorded_vectors_are_what_the_official_client_gets(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, shared: Path, endpoint: str, client: str
) -> None:
    kind = KINDS[endpoint]
    gateway = make_gateway(providers=[account(kind, upstream)], retries=0)
    ask, error = CLIENTS[client]
    counts: Counter[str] = Counter()
    wrong = []
    for name, exchange in recordings(shared):
        if form(exchange.path) != endpoint:
            continue
        gateway.llm.router._standing.clear()
        upstream.answering = replay([exchange])
        model = f"{kind}/{model_of(exchange)}"
        try:
            if exchange.status != 200:
                with pytest.raises(error):
                    ask(gateway, model, 1)
                counts["error"] += 1
                continue
            if not (recorded := vectors_of(exchange)):
                raise LeftOut("no vectors of floats")
            heard = ask(gateway, model, len(recorded))
            assert len(heard) == len(recorded)
            for one, other in zip(heard, recorded, strict=True):
                assert one == pytest.approx(other, rel=1e-5, abs=1e-7)
            counts["right"] += 1
        except LeftOut as reason:
            counts[f"left out: {reason}"] += 1
        except Exception as problem:  # noqa: BLE001  all are told together
            wrong.append(f"{name}: {type(problem).__name__} {str(problem)[:300]}")
    right = counts["right"] + counts["error"]
    print(f"{endpoint} asked by {client}: {dict(counts)}")
    assert not wrong, "\n".join([f"{len(wrong)} wrong", *wrong])
    assert (right, counts.total() - right) == RIGHT[endpoint]
