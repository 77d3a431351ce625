"""`POST /hooks/{id}`: where signed webhooks come in. Public, as the signature says who calls.

A raw handler: signatures are made over the bytes that were sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import orjson

from nexus.automation.settings import AutomationSettings
from nexus.automation.trigger_service import TriggerService
from nexus.core.cause import HEADER, behind, run_of_key
from nexus.core.errors import NexusError
from nexus.core.services import Services
from nexus.http.body import read_body
from nexus.http.types import Handler, Receive, Scope, Send, path_of
from nexus.telemetry import metrics

_PREFIX: Final = "/hooks/"


async def hook(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 202 with the run once a delivery is kept, 200 with the same run when it was there already."""
    services: Services = scope["app_services"]
    headers: dict[str, str] = {}
    for raw, value in scope["headers"]:
        name, text = raw.decode("latin-1"), value.decode("latin-1")
        headers[name] = f"{headers[name]}, {text}" if name in headers else text
    try:
        body = await read_body(receive, services.get(AutomationSettings).hook_body_limit)
        with behind(run_of_key(headers.get(HEADER.decode()))):
            taken = await services.get(TriggerService).knock(path_of(scope).removeprefix(_PREFIX), headers, body)
    except NexusError as error:
        metrics.HOOKS.labels(error.code).inc()
        raise
    if taken is None:
        metrics.HOOKS.labels("ping").inc()
        await _answer(send, 200, {"outcome": "ping"})
        return
    delivery, new = taken
    metrics.HOOKS.labels(delivery.outcome if new else "duplicate").inc()
    shown = {"delivery_id": delivery.id, "outcome": delivery.outcome, "run_id": delivery.run_id, "duplicate": not new}
    await _answer(send, 202 if new else 200, shown)


async def _answer(send: Send, status: int, content: Mapping[str, object]) -> None:
    body = orjson.dumps(content)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


HOOKS: Final[dict[tuple[str, str], Handler]] = {("POST", "/hooks/*"): hook}
