"""Passwords: argon2id, two at a time, and no well-known ones.

Parameters are OWASP's m=19456 KiB, t=2, p=1 (about 0.2 s here; research: security_api F12). Work is
bounded: two threads and a queue of twenty, then 429, so that a flood of sign-ins starves nobody else.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from nexus.access.errors import PasswordQueueFull, WeakPassword

T = TypeVar("T")

MINIMUM: Final = 12
MAXIMUM: Final = 256
_SLOTS: Final = 2
_QUEUE: Final = 20
_LEET: Final = str.maketrans("01345@$!7", "oieasasit")


class Passwords:
    """Hashes and verifies passwords in threads of its own."""

    def __init__(self) -> None:
        """Start no thread before the first password."""
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
        self._threads = ThreadPoolExecutor(_SLOTS, thread_name_prefix="password")
        self._inside = 0
        self._dummy: str | None = None

    async def hash(self, password: str) -> str:
        """Return the encoded hash. Raises `PasswordQueueFull`."""
        return await self._run(lambda: self._hasher.hash(password))

    async def verify(self, encoded: str | None, password: str) -> bool:
        """Tell whether the password is right. `encoded` None (no such user) takes as long and is False."""
        if encoded is None:
            await self._run(lambda: self._matches(self._dummy_hash(), password))
            return False
        return await self._run(lambda: self._matches(encoded, password))

    def needs_rehash(self, encoded: str) -> bool:
        """Tell whether the hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(encoded)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _dummy_hash(self) -> str:
        if self._dummy is None:
            self._dummy = self._hasher.hash("nobody has this password")
        return self._dummy

    def _matches(self, encoded: str, password: str) -> bool:
        try:
            return self._hasher.verify(encoded, password)
        except (Argon2Error, InvalidHashError):
            return False

    async def _run(self, work: Callable[[], T]) -> T:
        if self._inside >= _SLOTS + _QUEUE:
            raise PasswordQueueFull(retry_after=2)
        self._inside += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._inside -= 1


def check_strength(password: str, *, email: str = "", field: str = "password") -> None:
    """Raise `WeakPassword` for one that is short, well known, a pattern, or made from the address."""
    if not MINIMUM <= len(password) <= MAXIMUM:
        raise WeakPassword(f"The password must have {MINIMUM} to {MAXIMUM} characters.", field=field)
    plain = password.lower()
    core = re.sub(r"^[\W\d_]+|[\W\d_]+$", "", plain)
    letters = re.sub(r"[^a-z]", "", core.translate(_LEET))
    local = email.partition("@")[0].lower()
    weak = (
        len(set(plain)) < 5
        or plain.isdigit()
        or plain in _common()
        or _is_made_of_common_words(re.sub(r"[^a-z]", "", plain))
        or _is_made_of_common_words(letters)
        or (len(local) >= 4 and local in plain)
    )
    if weak:
        raise WeakPassword(field=field)


@cache
def _common() -> frozenset[str]:
    return frozenset(Path(__file__).with_name("common_passwords.txt").read_text("utf-8").split())


def _is_made_of_common_words(letters: str) -> bool:
    """Tell whether nothing but listed words is left: one repeated (qwertyqwerty1), or two (adminhello1)."""
    words = _common()
    if any(
        len(letters) % len(word) == 0 and word * (len(letters) // len(word)) == letters for word in words if letters
    ):
        return True
    return any(letters[:cut] in words and letters[cut:] in words for cut in range(3, len(letters) - 2))
