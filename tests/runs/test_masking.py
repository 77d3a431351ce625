"""Secrets are hidden in every text of a value, in the forms in which they travel."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote

import pytest

from nexus.runs.masking import masked

SECRET = 'a"b c/+\u00e9'


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (f"say {SECRET}!", "say ***!"),
        ([{"k": (SECRET, 1)}], [{"k": ["***", 1]}]),
        ({SECRET: None}, {"***": None}),
        (json.dumps({"t": SECRET}, ensure_ascii=False), '{"t": "***"}'),
        (f"https://x/?t={quote(SECRET, safe='')}", "https://x/?t=***"),
        (base64.b64encode(SECRET.encode()).decode(), "***"),
        (7, 7),
    ],
)
def test_every_form_is_hidden(value: Any, shown: Any) -> None:
    assert masked(value, [SECRET]) == shown


def test_the_longer_of_two_that_overlap_goes_first() -> None:
    assert masked("secret-and-more", ["secret", "secret-and-more"]) == "***"


def test_short_ones_would_blacken_everything() -> None:
    assert masked("a cat", ["cat"]) == "a cat"
    value = {"a": 1}
    assert masked(value, []) is value
