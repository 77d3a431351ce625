"""Call a web address: tell another system, or fetch from it.

The address may come from a user's input, so the request goes through `safe_fetch` and cannot reach
private networks. Every attempt of one step carries the same `Idempotency-Key`.
"""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import urlsplit

import orjson
from pydantic import Field

from nexus.automation.data.answers import failure_of
from nexus.automation.step import StepModel
from nexus.http.fetch import safe_fetch
from nexus.runs.types import StepContext

_OWN_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection", "idempotency-key"})


class HttpRequestInputs(StepModel):
    """What to call. A `url` of null calls nothing: the way to make a webhook optional."""

    url: str | None = Field(max_length=4_096)
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    headers: dict[str, str] = Field(default_factory=dict, max_length=50)
    json_: Any = Field(None, alias="json")
    body: str | None = Field(None, max_length=4 * 2**20)
    timeout: float = Field(30.0, gt=0, le=300, description="Seconds")


class HttpRequestOutputs(StepModel):
    """What came back. `json` is null for an answer that is no JSON."""

    called: bool
    status: int | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    text: str = ""
    json_: Any = Field(None, alias="json")


class HttpRequest:
    """The step `http.request`."""

    uses = "http.request"
    summary = "Call a web address with a stable Idempotency-Key."
    queue = "default"
    Inputs = HttpRequestInputs
    Outputs = HttpRequestOutputs

    def target(self, inputs: dict[str, Any]) -> str | None:
        """Return the host that is called."""
        try:
            return urlsplit(str(inputs.get("url") or "")).hostname
        except ValueError:
            return None

    async def run(self, context: StepContext, inputs: HttpRequestInputs) -> HttpRequestOutputs:
        """Send the request; 2xx is success, a passing trouble is worth a retry, the rest is a failure."""
        if inputs.url is None:
            context.log("no address given, nothing called")
            return HttpRequestOutputs(called=False)
        fetched = await safe_fetch(
            inputs.url,
            method=inputs.method,
            headers=_headers(context, inputs),
            body=_body(inputs),
            timeout=inputs.timeout,
        )
        context.log(f"{inputs.method} answered {fetched.status}")
        if not fetched.ok:
            raise failure_of(fetched)
        text = fetched.body.decode(errors="replace")
        return HttpRequestOutputs(
            called=True, status=fetched.status, headers=fetched.headers, text=text, json_=_json(fetched.body)
        )


def _headers(context: StepContext, inputs: HttpRequestInputs) -> dict[str, str]:
    headers = {name.lower(): value for name, value in inputs.headers.items() if name.lower() not in _OWN_HEADERS}
    if inputs.json_ is not None:
        headers.setdefault("content-type", "application/json")
    return {**headers, "idempotency-key": context.idempotency_key}


def _body(inputs: HttpRequestInputs) -> bytes:
    return orjson.dumps(inputs.json_) if inputs.json_ is not None else (inputs.body or "").encode()


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


plug = HttpRequest()
