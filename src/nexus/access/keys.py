"""The form of an API key: `nx_<8 public>_<43 secret>_<6 check>`, base 62.

The public part finds the row, the secret (256 bits) proves the right to it, and the check (CRC-32
of what is before it) lets clients, secret scanners and this process reject typing errors without
a look into any store. Only HMAC-SHA-256 of the secret is kept: with 256 random bits a slow hash
would add nothing but seconds (research: security_api F12).
"""

from __future__ import annotations

import hmac
import re
import secrets
import zlib
from dataclasses import dataclass
from typing import Final

ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FORM: Final = re.compile(r"nx_([0-9A-Za-z]{8})_([0-9A-Za-z]{43})_([0-9A-Za-z]{6})", re.ASCII)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key in full, which exists only when it is made and when it is presented."""

    public_id: str
    secret: str

    @property
    def token(self) -> str:
        """The text that a client sends."""
        body = f"nx_{self.public_id}_{self.secret}"
        return f"{body}_{checksum(body)}"

    def __repr__(self) -> str:
        return f"ApiKey(nx_{self.public_id}_***)"


def new_key() -> ApiKey:
    """Return a new random key."""
    return ApiKey(_random(8), _random(43))


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def checksum(body: str) -> str:
    """Return CRC-32 of the text as six base-62 digits."""
    value = zlib.crc32(body.encode())
    digits = []
    for _ in range(6):
        value, digit = divmod(value, 62)
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))


def parse(token: str) -> ApiKey | None:
    """Return the parts of a well-formed token, or None; touches no store."""
    if len(token) != 62:
        return None
    found = _FORM.fullmatch(token)
    if found is None or checksum(token[:55]) != found[3]:
        return None
    return ApiKey(found[1], found[2])


def digest(pepper: bytes, secret: str) -> bytes:
    """Return what is stored of a secret."""
    return hmac.digest(pepper, secret.encode(), "sha256")
