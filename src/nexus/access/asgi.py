"""Deny by default: every request needs a principal, except those on one short public list.

The layer stands before routing, so that a route that forgets its guard is closed, not open. It
puts the `Principal` into `scope["principal"]` and the session, for one, into `scope["nexus.session"]`.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from typing import Final

from nexus.access.accounts import csrf_token
from nexus.access.credentials import SAFE_METHODS, Credentials, first_segment, lone_key, read_credentials
from nexus.access.errors import CsrfFailed, ProjectNotFound
from nexus.access.service import AccessService
from nexus.access.types import Principal
from nexus.access.types import Scope as Right
from nexus.core.errors import NexusError, Unauthenticated
from nexus.http.problem import send_error
from nexus.http.types import KNOWN, App, Receive, Scope, Send, path_of

PUBLIC: Final = frozenset(
    {
        ("GET", "/livez"),
        ("GET", "/readyz"),
        ("GET", "/api/v1/errors"),
        ("GET", "/api/v1/auth/status"),
        ("POST", "/api/v1/auth/setup"),
        ("POST", "/api/v1/auth/login"),
    }
)
"""With the dashboard's files and /hooks/*, whose senders sign, all that needs no credential."""

PROTECTED_SEGMENTS: Final = frozenset(
    {"api", "v1", "v1beta", "v2", "mcp", "metrics", "docs", "redoc", "openapi.json", "openapi.yaml"}
)
"""First path segments that are never the dashboard's files."""

_MODELS: Final = ("/v1/", "/v1beta/", "/v2/")
"""Where most requests go; nothing there is public."""

_PROOF: Final = "access.proof"
"""Where a scope has that its key was proved by the same head before."""

_METRICS: Final = Principal("system", "loopback", "", frozenset({Right.METRICS_READ}))


class Authentication:
    """The ASGI layer that authenticates every request."""

    def __init__(
        self,
        app: App,
        *,
        access: AccessService,
        observe_failure: Callable[[str], object] | None = None,
    ) -> None:
        """Stand before `app`. `observe_failure` hears the error code of every refusal, for the metrics."""
        self._app = app
        self._access = access
        self._observe_failure = observe_failure

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request, or refuse it in the dialect of its path. Only a cookie has to be waited for."""
        kind = scope["type"]
        if kind != "http":
            return self._app(scope, receive, send) if kind == "lifespan" else _close(receive, send)
        try:
            proof = scope.get(_PROOF)
            principal = self._access.proved(proof, _address(scope)) if proof is not None else None
            if principal is None:
                scope.pop("principal", None)
                path = path_of(scope)
                if not is_public(scope["method"], path):
                    token = lone_key(scope)
                    if token is None:
                        shown = read_credentials(scope, path, self._access.public_url)
                        if shown.token is None and shown.cookie is not None:
                            return self._by_cookie(scope, receive, send, shown, shown.cookie)
                        token = shown.token
                    scope["principal"] = self._by_key(scope, path, token)
            else:
                scope["principal"] = principal
        except NexusError as error:
            return self._refuse(scope, send, error)
        return self._app(scope, receive, send)

    def _by_key(self, scope: Scope, path: str, token: str | None) -> Principal:
        if token is not None:
            if KNOWN in scope:
                scope[KNOWN][_PROOF] = self._access.proof_of(token)
            return self._access.principal_from_key(token, _address(scope))
        # A public address means a proxy, which may be on this machine and say nothing of whom it speaks for.
        if path == "/metrics" and self._access.public_url is None and _is_loopback(scope):
            return _METRICS
        raise Unauthenticated

    async def _by_cookie(self, scope: Scope, receive: Receive, send: Send, shown: Credentials, cookie: str) -> None:
        try:
            scope["principal"] = await self._from_cookie(scope, shown, cookie)
        except NexusError as error:
            await self._refuse(scope, send, error)
            return
        await self._app(scope, receive, send)

    def _refuse(self, scope: Scope, send: Send, error: NexusError) -> Awaitable[None]:
        if self._observe_failure is not None:
            self._observe_failure(error.code)
        return send_error(scope, send, error)

    async def _from_cookie(self, scope: Scope, shown: Credentials, cookie: str) -> Principal:
        principal, found = await self._access.accounts.signed_in(cookie, shown.project_id)
        if scope["method"] not in SAFE_METHODS:
            expected = csrf_token(self._access.csrf_key, found.session.digest).encode()
            if not shown.same_origin or not hmac.compare_digest(expected, (shown.csrf or "").encode()):
                raise CsrfFailed
        if shown.project_id is not None and found.project_id is None:
            raise ProjectNotFound
        scope["nexus.session"] = found
        return principal


async def _close(receive: Receive, send: Send) -> None:
    """Close a websocket."""
    await receive()
    await send({"type": "websocket.close", "code": 1008})


def is_public(method: str, path: str) -> bool:
    """Tell whether a request needs no credential."""
    if path.startswith(_MODELS):
        return False
    if method == "HEAD":
        method = "GET"
    if (method, path) in PUBLIC:
        return True
    segment = first_segment(path)
    if segment == "hooks":
        return True
    return method == "GET" and segment not in PROTECTED_SEGMENTS


def _address(scope: Scope) -> str | None:
    client = scope.get("client")
    return client[0] if client else None


def _is_loopback(scope: Scope) -> bool:
    """Tell whether the caller is on this machine, and not a proxy on this machine that speaks for others."""
    client = scope.get("client")
    if not client or any(name in (b"x-forwarded-for", b"forwarded") for name, _ in scope["headers"]):
        return False
    try:
        return ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        return False
