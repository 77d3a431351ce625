"""What a request shows to prove who it is: one resolver for every header and path.

An API key may come as `Authorization: Bearer`, `x-api-key`, `api-key`, `x-goog-api-key`, or `?key=`
below /v1beta and /v1/models; all are read, and two different ones are refused. The session cookie counts only
where browsers belong (not on /v1, /v1beta, /v2, /mcp, /hooks) and only without an API key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

from nexus.access.audit import Origin
from nexus.access.errors import InvalidKey
from nexus.http.gates.origins import normal_origin
from nexus.http.types import Scope, headers_of

SECURE_COOKIE: Final = "__Host-nexus"
PLAIN_COOKIE: Final = "nexus"
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

_KEY_HEADERS: Final = frozenset({b"x-api-key", b"api-key", b"x-goog-api-key"})
_READ: Final = _KEY_HEADERS | {
    b"authorization",
    b"cookie",
    b"x-csrf-token",
    b"x-nexus-project",
    b"origin",
    b"host",
    b"sec-fetch-site",
}
_NO_COOKIES: Final = frozenset({"v1", "v1beta", "v2", "mcp", "hooks"})


@dataclass(slots=True)
class Credentials:
    """The credentials of one request and what the check of a cookie needs."""

    token: str | None = None
    cookie: str | None = None
    csrf: str | None = None
    project_id: str | None = None
    same_origin: bool = False


def first_segment(path: str) -> str:
    """Return the first part of a path in lower case: what decides which door a request is at."""
    return path.lstrip("/").partition("/")[0].lower()


def lone_key(scope: Scope) -> str | None:
    """Return the API key of a request that shows one as nearly all do, None where `read_credentials` has to look."""
    headers = headers_of(scope)
    value = headers.get(b"authorization", b"")
    if not value.startswith(b"Bearer ") or scope.get("query_string") or not _KEY_HEADERS.isdisjoint(headers):
        return None
    if len(headers) != len(scope["headers"]):
        return None
    return value[7:].decode("latin-1").strip()


def read_credentials(scope: Scope, path: str, public_url: str | None) -> Credentials:
    """Collect what a request shows. Raises `InvalidKey` for malformed or contradicting API keys."""
    found = Credentials()
    tokens: set[str] = set()
    cookies: list[bytes] = []
    origin = host = site = None
    for name, value in scope["headers"]:
        if name not in _READ:
            continue
        if name == b"authorization":
            kind, _, token = value.decode("latin-1").partition(" ")
            if kind.lower() != "bearer":
                raise InvalidKey("Send the API key as Authorization: Bearer.")
            tokens.add(token.strip())
        elif name in _KEY_HEADERS:
            tokens.add(value.decode("latin-1").strip())
        elif name == b"cookie":
            cookies.append(value)
        elif name == b"x-csrf-token":
            found.csrf = value.decode("latin-1")
        elif name == b"x-nexus-project":
            found.project_id = value.decode("latin-1")
        elif name == b"origin":
            origin = value.decode("latin-1")
        elif name == b"host":
            host = value.decode("latin-1")
        elif name == b"sec-fetch-site":
            site = value
    segment = first_segment(path)
    if (segment == "v1beta" or path.startswith("/v1/models/")) and b"key=" in scope.get("query_string", b""):
        tokens.update(parse_qs(scope["query_string"].decode("latin-1")).get("key", []))
    if len(tokens) > 1:
        raise InvalidKey("The request carries different API keys; send one.")
    found.token = next(iter(tokens), None)
    if cookies and not tokens and segment not in _NO_COOKIES:
        found.cookie = _cookie(cookies, SECURE_COOKIE if is_secure(scope, public_url) else PLAIN_COOKIE)
        found.same_origin = _is_same_origin(origin, host, site, public_url)
    return found


def is_secure(scope: Scope, public_url: str | None) -> bool:
    """Tell whether the browser speaks https, with us or with a proxy before us."""
    return scope.get("scheme") in ("https", "wss") or (public_url or "").startswith("https://")


def origin_of(scope: Scope) -> Origin:
    """Return where the request comes from, for sessions and the audit trail."""
    client = scope.get("client")
    agent = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"user-agent"), None)
    return Origin(client[0] if client else None, agent[:255] if agent else None, scope.get("request_id"))


def _cookie(headers: list[bytes], name: str) -> str | None:
    for header in headers:
        for part in header.decode("latin-1").split(";"):
            key, _, value = part.strip().partition("=")
            if key == name and value:
                return value
    return None


def _is_same_origin(origin: str | None, host: str | None, site: bytes | None, public_url: str | None) -> bool:
    """Tell whether the browser says that one of our own pages sent this. Silence is no yes."""
    if site is not None and site != b"same-origin":
        return False
    if origin is None:
        return site == b"same-origin"
    normal = normal_origin(origin)
    if normal is None:
        return False
    own = normal_origin(f"{normal.partition('://')[0]}://{host or ''}")
    return normal in (own, normal_origin(public_url or ""))
