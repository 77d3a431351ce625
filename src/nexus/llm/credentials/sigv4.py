"""Signature Version 4, the way in which AWS wants requests signed.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html. Written for
services other than S3: the path is normalised and encoded once more, and the body's hash is no header.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, urlsplit

import msgspec

from nexus.core.secrets import Secret

_ALGORITHM = "AWS4-HMAC-SHA256"
# What proxies may change on the way.
_UNSIGNED = frozenset(("connection", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
                       "user-agent", "x-amzn-trace-id"))  # fmt: skip


class AwsCredentials(msgspec.Struct, frozen=True, kw_only=True):
    """An access key; `expires_at` is in seconds since 1970 for one that does."""

    access_key_id: str
    secret_access_key: Secret
    session_token: Secret | None = None
    expires_at: float | None = None


class Signer(NamedTuple):
    """What signs the requests to one service in one region."""

    credentials: AwsCredentials
    region: str
    service: str

    def sign(self, url: str, body: bytes, headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        """Return `headers` with those that sign a POST request now."""
        return signed(url, body, headers, self.credentials, region=self.region, service=self.service)


def signed(
    url: str,
    body: bytes,
    headers: Iterable[tuple[str, str]],
    credentials: AwsCredentials,
    *,
    region: str,
    service: str,
    method: str = "POST",
    now: datetime | None = None,
) -> tuple[tuple[str, str], ...]:
    """Return `headers` with those that sign the request: date, token and authorization."""
    stamp = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    added = [*headers, ("x-amz-date", stamp)]
    if credentials.session_token is not None:
        added.append(("x-amz-security-token", credentials.session_token.reveal()))
    names, canonical = _canonical(method, url, body, added)
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    told = f"{_ALGORITHM}\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = _key(credentials.secret_access_key, stamp[:8], region, service)
    signature = hmac.new(key, told.encode(), hashlib.sha256).hexdigest()
    words = f"Credential={credentials.access_key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    return (*added, ("authorization", f"{_ALGORITHM} {words}"))


@lru_cache(maxsize=64)
def _key(secret: Secret, day: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret.reveal()}".encode()
    for word in (day, region, service, "aws4_request"):
        key = hmac.digest(key, word.encode(), "sha256")
    return key


def _canonical(method: str, url: str, body: bytes, headers: Iterable[tuple[str, str]]) -> tuple[str, str]:
    """Return the names of the signed headers, and the request in its canonical form."""
    parts = urlsplit(url)
    told: dict[str, list[str]] = {"host": [_host(parts.hostname or "", parts.port)]}
    for name, value in headers:
        if name.lower() not in _UNSIGNED:
            told.setdefault(name.lower(), []).append(" ".join(value.split()))
    names = ";".join(sorted(told))
    lines = "".join(f"{name}:{','.join(told[name])}\n" for name in sorted(told))
    path = quote(_normal(parts.path), safe="/~")
    digest = hashlib.sha256(body).hexdigest()
    return names, f"{method}\n{path}\n{_query(parts.query)}\n{lines}\n{names}\n{digest}"


def _host(name: str, port: int | None) -> str:
    """Return the host header as the client writes it."""
    name = f"[{name}]" if ":" in name else name
    return name if port is None else f"{name}:{port}"


def _normal(path: str) -> str:
    """Resolve dots and doubled slashes, as AWS does: no slash stays where a dot stood last."""
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            kept = kept[:-1]
        elif part not in ("", "."):
            kept.append(part)
    end = "/" if kept and path.endswith("/") else ""
    return "/" + "/".join(kept) + end


def _query(query: str) -> str:
    """Sort what is already percent-encoded."""
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return "&".join(f"{name}={value}" for name, _, value in sorted(pairs))
