"""`/livez` and `/readyz` for Kubernetes, before everything that could refuse a probe."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import orjson

from nexus.core.errors import MethodNotAllowed
from nexus.http.lifecycle import Lifecycle
from nexus.http.problem import send_error
from nexus.http.types import Scope, Send

log = logging.getLogger("nexus.http")

Check = Callable[[], Awaitable[bool]]


class Probes:
    """Live as long as the loop turns; ready when started, not draining, and every check holds."""

    paths: Final = frozenset({"/livez", "/readyz"})

    def __init__(
        self, *, lifecycle: Lifecycle, checks: Mapping[str, Check] | None = None, patience: float = 2.0
    ) -> None:
        """`checks` by name, each with `patience` seconds to answer. Their names are shown, their reasons are not."""
        self._lifecycle = lifecycle
        self._checks = dict(checks or {})
        self._patience = patience

    async def answer(self, scope: Scope, send: Send, path: str) -> None:
        """Answer one probe."""
        scope["route_template"] = path
        if scope["method"] not in ("GET", "HEAD"):
            await send_error(scope, send, MethodNotAllowed(allow="GET, HEAD"))
            return
        if path == "/livez":
            await _answer(send, 200, {"status": "ok"})
            return
        checks = await self.check()
        ready = all(checks.values())
        await _answer(send, 200 if ready else 503, {"status": "ready" if ready else "not ready", "checks": checks})

    async def check(self) -> dict[str, bool]:
        """Run all checks side by side and return what each says."""
        results = await asyncio.gather(*(self._one(name, check) for name, check in self._checks.items()))
        own = {"started": self._lifecycle.started, "not_draining": not self._lifecycle.draining.is_set()}
        return own | dict(zip(self._checks, results, strict=True))

    async def _one(self, name: str, check: Check) -> bool:
        try:
            async with asyncio.timeout(self._patience):
                return await check()
        except Exception as error:  # a check that raises says "not ready", whatever the reason; the log has it
            log.warning("the readiness check %s failed", name, exc_info=error)
            return False


async def _answer(send: Send, status: int, body: dict[str, Any]) -> None:
    content = orjson.dumps(body)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
