"""Headers that tell browsers what not to do (https://owasp.org/www-project-secure-headers/)."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from nexus.http.types import RawHeaders

CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
UNTRUSTED_FILE_POLICY: Final = "sandbox; default-src 'none'"
"""The policy for files that users uploaded; set it, and `content-disposition: attachment`, on the answer."""

_ALWAYS: Final = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
    (b"cache-control", b"no-store"),
)
_HSTS: Final = (b"strict-transport-security", b"max-age=31536000")
_NAMES: Final = frozenset(name for name, _ in _ALWAYS)


def security_lines(headers: RawHeaders, *, https: bool) -> bytes:
    """Return each of ours that the headers of an answer (ASGI has them in lower case) lack, as finished lines."""
    return lines_beside(_NAMES.intersection(dict(headers)), https=https)


@lru_cache(maxsize=512)
def lines_beside(present: frozenset[bytes], *, https: bool) -> bytes:
    """Return each of ours but those that are `present`, as finished lines."""
    lacking = [item for item in _ALWAYS if item[0] not in present]
    return b"".join(b"%b: %b\r\n" % item for item in [*lacking, *([_HSTS] if https else [])])
