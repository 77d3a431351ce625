"""The one order in which every request passes the layers of `nexus.http.middleware`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from nexus.http.lifecycle import Lifecycle
from nexus.http.middleware.access_log import AccessLog, Observe
from nexus.http.middleware.body_limit import BodyLimit, Limit
from nexus.http.middleware.catch_errors import CatchErrors
from nexus.http.middleware.hosts import HostCheck
from nexus.http.middleware.inflight import InFlight
from nexus.http.middleware.origins import OriginCheck
from nexus.http.middleware.proxies import TrustedProxies
from nexus.http.middleware.request_id import RequestId
from nexus.http.middleware.security_headers import SecurityHeaders
from nexus.http.probes import Check, Probes
from nexus.http.settings import HTTPSettings
from nexus.http.types import App, Scope, header, path_of

_LARGE_JSON = ("/api/v1/vision/", "/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1beta/", "/v2/")


def build_edge(
    app: App,
    *,
    settings: HTTPSettings,
    lifecycle: Lifecycle,
    checks: Mapping[str, Check] | None = None,
    bind_request_id: Callable[[str], object] | None = None,
    observe: Observe | None = None,
) -> App:
    """Wrap `app` (authentication and below) in all layers of the edge.

    `checks` decide readiness; `bind_request_id` and `observe` carry ids to the logs and figures to the metrics.
    """
    app = BodyLimit(app, limit_of=limit_by(settings))
    app = OriginCheck(app, origins=[*settings.origins, *([settings.public_url] if settings.public_url else [])])
    app = HostCheck(app, hosts=hosts_of(settings))
    app = InFlight(app, lifecycle=lifecycle, limit=settings.max_inflight)
    app = Probes(app, lifecycle=lifecycle, checks=checks)
    app = CatchErrors(app)
    app = SecurityHeaders(app)
    app = AccessLog(app, observe=observe)
    app = TrustedProxies(app, networks=settings.trusted_proxies)
    return RequestId(app, bind=bind_request_id)


def hosts_of(settings: HTTPSettings) -> list[str]:
    """Return the names that the server answers for, besides localhost."""
    public = urlsplit(settings.public_url or "").hostname
    own = settings.host if settings.host not in ("0.0.0.0", "::") else None  # noqa: S104  compared, not bound
    return [name for name in (*settings.hosts, public, own) if name]


def limit_by(settings: HTTPSettings) -> Limit:
    """Return the cap for each request: JSON is held in memory, so it may be far smaller than a file upload."""

    def limit_of(scope: Scope) -> int:
        kind = (header(scope, b"content-type") or b"").partition(b";")[0].strip().lower()
        if kind == b"multipart/form-data" or kind == b"application/octet-stream":
            return settings.upload_limit + 1024 * 1024
        if path_of(scope).startswith(_LARGE_JSON):
            return settings.vision_json_limit
        return settings.json_limit

    return limit_of
