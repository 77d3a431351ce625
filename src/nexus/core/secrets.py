"""Secrets that do not print themselves, and the keyring that encrypts them at rest.

Stored secrets are AES-256-GCM with the row's place as associated data, so that a cipher text moved
to another row does not decrypt (research: security_api section 4). Keys are derived by HKDF, one
for each use, from the single secret file of the installation.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Final

from nexus.core.errors import NexusError

_MINIMUM_BYTES: Final = 32


class SecretError(NexusError):
    """A stored secret could not be read with this installation's secret key."""

    code = "secret_unreadable"


class WeakSecretKey(NexusError):
    """The secret key file is missing, unreadable or shorter than 32 bytes."""

    code = "weak_secret_key"


class Secret:
    """A string that shows only when asked to by `reveal`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        """Wrap `value`."""
        self._value = value

    def reveal(self) -> str:
        """Return the value itself."""
        return self._value

    @property
    def last4(self) -> str:
        """Return the last four characters, or nothing for a value too short to hint at."""
        return self._value[-4:] if len(self._value) >= 12 else ""

    def __repr__(self) -> str:
        return "Secret('***')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(self._value)


class Keyring:
    """Derives one key for each use from the installation's secret."""

    def __init__(self, root: bytes) -> None:
        """Take the root secret: at least 32 bytes, else `WeakSecretKey`."""
        if len(root) < _MINIMUM_BYTES:
            raise WeakSecretKey
        self._root = root

    @classmethod
    def from_file(cls, path: Path, *, create: bool) -> Keyring:
        """Read the secret file; with `create`, make it (mode 0600) when it is not there."""
        if create and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _create_once(path, secrets.token_bytes(48))
        try:
            return cls(path.read_bytes())
        except OSError:
            raise WeakSecretKey from None

    def key(self, use: str) -> bytes:
        """Return the 32-byte key for `use` (HKDF-SHA-256, RFC 5869)."""
        pseudo_random = hmac.digest(b"nexus", self._root, "sha256")
        return hmac.digest(pseudo_random, use.encode() + b"\x01", "sha256")

    def sign(self, use: str, data: bytes) -> bytes:
        """Return the HMAC-SHA-256 of `data` under the key for `use`."""
        return hmac.digest(self.key(use), data, "sha256")

    def encrypt(self, plain: str, place: str) -> str:
        """Encrypt `plain` for `place` (`table|row|field`) and return printable text."""
        # Heavy to import, and only the few processes that touch stored credentials need it.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = os.urandom(12)
        sealed = AESGCM(self.key("encrypt")).encrypt(nonce, plain.encode(), place.encode())
        return f"v1.{self.key_id}." + base64.urlsafe_b64encode(nonce + sealed).decode()

    def decrypt(self, text: str, place: str) -> Secret:
        """Return what `encrypt` sealed for the same place, else raise `SecretError`."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            version, key_id, body = text.split(".", 2)
            raw = base64.urlsafe_b64decode(body)
            if version != "v1" or key_id != self.key_id:
                raise SecretError
            plain = AESGCM(self.key("encrypt")).decrypt(raw[:12], raw[12:], place.encode())
        except (ValueError, InvalidTag):
            raise SecretError from None
        return Secret(plain.decode())

    @property
    def key_id(self) -> str:
        """Name the root secret without telling it: eight hex digits."""
        return hashlib.sha256(b"id" + self._root).hexdigest()[:8]


def _create_once(path: Path, content: bytes) -> None:
    """Write `path` with mode 0600 unless somebody else was first. Never leaves half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink(missing_ok=True)
