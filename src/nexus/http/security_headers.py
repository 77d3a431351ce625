"""Headers that tell browsers what not to do (https://owasp.org/www-project-secure-headers/)."""

from __future__ import annotations

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
_NO_STORE: Final = (b"cache-control", b"no-store")
_BUT_CACHE: Final = tuple(item for item in _ALWAYS if item != _NO_STORE)


def secured(headers: RawHeaders, *, https: bool) -> RawHeaders:
    """Return the headers of an answer with each of ours that it does not set itself."""
    present = [name for name, _ in headers if name in _NAMES]  # ASGI has them in lower case
    if not present:
        out = [*headers, *_ALWAYS]
    elif present == [b"cache-control"]:
        out = [*headers, *_BUT_CACHE]
    else:
        out = [*headers, *(item for item in _ALWAYS if item[0] not in present)]
    if https:
        out.append(_HSTS)
    return out
