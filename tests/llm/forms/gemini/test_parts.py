"""Seals in the parts of Gemini's messages."""

from __future__ import annotations

import base64

import pytest

from nexus.llm.forms.gemini.parts import read_signature, write_signature


@pytest.mark.parametrize("seal", ["c2VhbA==", "+/+/", "gAAAAAB-not_base64!", "EqQB", "x", "ü"])
def test_seals_of_all_makers_survive_googles_clients(seal: str) -> None:
    written = write_signature(seal)["thoughtSignature"]
    data = base64.b64decode(written, validate=True)
    assert read_signature(base64.urlsafe_b64encode(data).decode()).seal == seal, "as the SDK sends it back"
    assert read_signature(written).seal == seal


def test_sealed_thoughts_survive_googles_clients() -> None:
    told = write_signature(None, "sealed thought")["thoughtSignature"]
    assert read_signature(told).redacted == "sealed thought"
    assert read_signature(None) == (None, None)
