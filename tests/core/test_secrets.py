"""Secrets stay secret."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from nexus.core.secrets import Keyring, Secret, SecretError, WeakSecretKey


def test_a_secret_does_not_print_itself() -> None:
    secret = Secret("sk-very-secret-1234")
    assert "very" not in f"{secret} {secret!r} {[secret]}"
    assert (secret.reveal(), secret.last4, Secret("short").last4) == ("sk-very-secret-1234", "1234", "")


def test_what_is_sealed_for_one_place_opens_only_there() -> None:
    ring = Keyring(b"k" * 32)
    sealed = ring.encrypt("hello", "provider|1|api_key")
    assert ring.decrypt(sealed, "provider|1|api_key").reveal() == "hello"
    assert "hello" not in sealed
    for text, place in [(sealed, "provider|2|api_key"), (sealed[:-4] + "AAAA", "provider|1|api_key"), ("x", "y")]:
        with pytest.raises(SecretError):
            ring.decrypt(text, place)
    with pytest.raises(SecretError):
        Keyring(b"j" * 32).decrypt(sealed, "provider|1|api_key")


def test_the_key_file_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "data" / "secret.key"
    first = Keyring.from_file(path, create=True)
    assert Keyring.from_file(path, create=True).key_id == first.key_id
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["secret.key"]


@pytest.mark.parametrize("content", [None, b"", b"short"])
def test_a_missing_or_weak_key_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "secret.key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeakSecretKey):
        Keyring.from_file(path, create=False)
