from __future__ import annotations

import asyncio

import pytest

from nexus.access.errors import PasswordQueueFull, WeakPassword
from nexus.access.passwords import Passwords, check_strength


@pytest.mark.parametrize(
    "password",
    [
        "",
        "x",
        "short",
        "elevenchars",
        "a" * 257,
        "aaaaaaaaaaaaaaaa",
        "password1234",
        "Password2026!",
        "P@ssw0rd1234",
        "passwordpassword",
        "qwertyuiop12",
        "qwertyqwerty",
        "123456789012",
        "839201748563",
        "adminadmin123",
        "administrator1",
        "changemechangeme",
        "iloveyou12345",
        "welcomeadmin1",
        "1q2w3e4r5t6y",
        "jane.doe-2026-x",
    ],
)
def test_weak_passwords_are_refused(password: str) -> None:
    with pytest.raises(WeakPassword) as refusal:
        check_strength(password, email="jane.doe@example.com")
    assert refusal.value.field == "password"
    assert not password or len(password) < 3 or password not in refusal.value.message


@pytest.mark.parametrize(
    "password",
    [
        "correct zebra staple cloud",
        "Xk9$mPq2vLw7",
        "длинный пароль здесь",
        "tr0ub4dor&3 elephants",
        "päßwörter sind toll",
    ],
)
def test_good_passwords_are_taken(password: str) -> None:
    check_strength(password, email="jane.doe@example.com")


async def test_hashes_are_argon2id_with_the_parameters_of_owasp() -> None:
    passwords = Passwords()
    encoded = await passwords.hash("correct zebra staple cloud")
    assert encoded.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert await passwords.verify(encoded, "correct zebra staple cloud")
    assert not await passwords.verify(encoded, "correct zebra staple clouds")
    assert not await passwords.verify(None, "nobody has this password")
    assert not await passwords.verify("no hash at all", "x")
    assert not passwords.needs_rehash(encoded)
    passwords.close()


async def test_a_flood_is_turned_away_at_once() -> None:
    passwords = Passwords()
    encoded = await passwords.hash("x")
    answers = await asyncio.gather(*(passwords.verify(encoded, "y") for _ in range(60)), return_exceptions=True)
    assert sum(isinstance(answer, PasswordQueueFull) for answer in answers) == 60 - 22
    assert sum(answer is False for answer in answers) == 22
    passwords.close()
