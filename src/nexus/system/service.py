"""What an operator asks of the installation: is it well, how loaded is it, how is it set up."""

from __future__ import annotations

import platform
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from nexus import __version__
from nexus.core.errors import NexusError
from nexus.settings import Settings
from nexus.telemetry.system import Sampler

Check = Callable[[], Awaitable[str]]
"""A look at one component: what to say of it when it is well; raises `NexusError` when it is not."""

_HIDDEN: Final = (
    "key", "secret", "token", "password", "credential", "authorization", "cookie",
    "database_url", "redis_url", "broker_url",
)  # fmt: skip
_OPEN: Final = frozenset({"first_token", "between_tokens"})
"""Settings whose names only look like a secret's."""


class SystemService:
    """The installation as a whole."""

    def __init__(self, *, settings: Settings, sampler: Sampler, checks: Mapping[str, Check]) -> None:
        """Report on `checks` by name, on the samples of `sampler`, and on `settings` without their secrets."""
        self.sampler = sampler
        self._settings = settings
        self._checks = checks
        self._started = time.monotonic()

    def info(self) -> dict[str, Any]:
        """Return version, uptime (seconds) and the kind of installation."""
        return {
            "name": "nexus",
            "version": __version__,
            "python": platform.python_version(),
            "platform": f"{platform.system()} {platform.machine()}",
            "uptime_s": round(time.monotonic() - self._started, 1),
            "mode": "embedded" if self._settings.embedded else "cluster",
            "database": "postgresql" if self._settings.database_url else "sqlite",
            "broker": "redis" if self._settings.redis_url else "in-process",
            "device": self._settings.device,
        }

    async def health(self) -> dict[str, Any]:
        """Return every component with its status: ok or failing."""
        components = [await self._component(name, check) for name, check in self._checks.items()]
        well = all(component["status"] == "ok" for component in components)
        return {"status": "ok" if well else "degraded", "components": components}

    async def _component(self, name: str, check: Check) -> dict[str, Any]:
        started = time.perf_counter()
        try:
            status, detail = "ok", await check()
        except NexusError as error:
            status, detail = "failing", error.message
        return {"name": name, "status": status, "detail": detail, "ms": round((time.perf_counter() - started) * 1e3, 1)}

    def config(self) -> dict[str, Any]:
        """Return the effective settings; what may be a secret is shown as set or not set."""
        shown: dict[str, Any] = _masked(self._settings.model_dump(mode="json", fallback=lambda _value: "set"))
        return shown


def _masked(value: Any, name: str = "") -> Any:
    if any(word in name.lower() for word in _HIDDEN) and not name.endswith("_file") and name not in _OPEN:
        return "set" if value else None
    if isinstance(value, dict) and name == "headers":
        return dict.fromkeys(value, "set")
    if isinstance(value, dict):
        return {key: _masked(item, str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item, name) for item in value]
    return value


def error_codes() -> list[dict[str, Any]]:
    """Return every error code of this process with its status, whether a retry may help, and its message."""
    found: dict[str, dict[str, Any]] = {}
    waiting: list[type[NexusError]] = [NexusError]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if kind.__module__.startswith("nexus.") and "code" in vars(kind):
            message = (kind.__doc__ or "").strip().partition("\n")[0]
            entry = {"code": kind.code, "status": kind.status, "retryable": kind.retryable, "message": message}
            found.setdefault(kind.code, entry)
    return [found[code] for code in sorted(found)]
