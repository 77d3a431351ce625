"""A fake upstream, and the official clients pointed straight at it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from nexus.testing.upstream import FakeUpstream

if TYPE_CHECKING:
    import anthropic
    import openai
    from google import genai

# pytest reads this file before it knows which tests there are, and in the process that only hands them out:
# what the clients take to import, some seconds, is spent where one is used.


@pytest.fixture(scope="session")
def upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream() as server:
        yield server


@pytest.fixture(scope="session")
def openai_client(upstream: FakeUpstream) -> openai.OpenAI:
    import openai

    return openai.OpenAI(base_url=upstream.url, api_key="sk-own", max_retries=0)


@pytest.fixture(scope="session")
def anthropic_client(upstream: FakeUpstream) -> anthropic.Anthropic:
    import anthropic

    return anthropic.Anthropic(base_url=upstream.address, api_key="sk-own", max_retries=0)


@pytest.fixture(scope="session")
def gemini_client(upstream: FakeUpstream) -> genai.Client:
    from google import genai

    return genai.Client(api_key="own", http_options={"base_url": upstream.address})


@pytest.fixture(scope="session")
def bedrock_client(upstream: FakeUpstream) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=upstream.address,
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="wJalrXUtnFEMI",
        config=Config(retries={"max_attempts": 1, "mode": "standard"}, read_timeout=5),
    )
