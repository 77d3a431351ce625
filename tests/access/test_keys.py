from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus.access.keys import ALPHABET, checksum, digest, new_key, parse


def test_a_new_key_parses_back_and_hides_itself() -> None:
    key = new_key()
    assert parse(key.token) == key
    assert len(key.token) == 62
    assert key.secret not in repr(key)
    assert new_key().token != key.token


def test_one_wrong_character_anywhere_is_seen_without_a_store() -> None:
    token = new_key().token
    for place in range(len(token)):
        other = "A" if token[place] != "A" else "B"
        assert parse(token[:place] + other + token[place + 1 :]) is None


@pytest.mark.parametrize(
    "token",
    [
        "",
        "nx_",
        "sk-1234567890",
        "' OR 1=1--",
        "'; select pg_sleep(5)--",
        "nx_12345678_" + "a" * 43 + "_000000",
        "nx_12345678_" + "a" * 42 + "'_000000",
        "nx_" + "\uff11" * 8 + "_" + "a" * 43 + "_000000",
        "\x00" * 62,
        "nx_" + "a" * 10_000_000,
        "nx_12345678_" + "a" * 43 + "_000000\n",
    ],
)
def test_hostile_tokens_are_no_keys(token: str) -> None:
    assert parse(token) is None


@given(st.text(max_size=80))
def test_random_text_is_no_key(text: str) -> None:
    assert parse(text) is None


def test_digests_depend_on_pepper_and_secret() -> None:
    assert len({digest(b"p", "a"), digest(b"p", "b"), digest(b"q", "a")}) == 3


def test_the_checksum_is_crc32_in_base_62() -> None:
    # CRC-32 of "123456789" is the published check value 0xCBF43926 = 3421780262.
    value = 0
    for digit in checksum("123456789"):
        value = value * 62 + ALPHABET.index(digit)
    assert value == 0xCBF43926
