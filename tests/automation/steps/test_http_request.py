"""The step `http.request` against a real server on this machine."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from nexus.access.types import Principal
from nexus.automation.data.answers import seconds_of
from nexus.automation.errors import RequestFailed, RequestFailedForNow
from nexus.automation.handlers import handler_of
from nexus.automation.step import STEPS
from nexus.core.errors import InvalidInput, NexusError
from nexus.http import fetch
from nexus.runs.types import StepContext

Seen = list[tuple[str, dict[str, str], bytes]]


@pytest.fixture
def server() -> Iterator[tuple[str, Seen]]:
    seen: Seen = []

    class Other(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            status = int(self.path.strip("/"))
            self.send_response(status)
            if status == 429:
                self.send_header("retry-after", "7")
            if status == 302:
                self.send_header("location", "/200")
            self.end_headers()
            self.wfile.write(b'{"ok": true}')

        do_GET = do_POST  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
    fetch.configure(["127.0.0.0/8"])
    yield f"http://127.0.0.1:{httpd.server_port}", seen
    fetch.configure([])
    httpd.shutdown()
    httpd.server_close()


def _context() -> StepContext:
    return StepContext("run_1", "tell", 2, Principal("system", "usr_1", "prj_1"))


async def _run(**inputs: Any) -> dict[str, Any]:
    return await handler_of(STEPS.get("http.request"))(_context(), inputs)


async def test_sends_json_with_a_key_that_is_the_same_for_every_attempt(server: tuple[str, Seen]) -> None:
    url, seen = server
    output = await _run(method="POST", url=f"{url}/200", json={"a": [1]}, headers={"Idempotency-Key": "forged"})
    assert (output["called"], output["status"], output["json"]) == (True, 200, {"ok": True})
    ((_, headers, body),) = seen
    assert headers["idempotency-key"] == "run_1.tell"
    assert headers["content-type"] == "application/json"
    assert body == b'{"a":[1]}'


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        ("", None),
        ("Wed, 21 Oct 2026 07:28:00", None),
        ("86400", 3600.0),
        ("9" * 20, None),
        ("-1", None),
    ],
)
def test_a_retry_after_is_at_most_an_hour(text: str, seconds: float | None) -> None:
    assert seconds_of(text) == seconds


async def test_calls_nothing_without_an_address() -> None:
    assert (await _run(url=None))["called"] is False


@pytest.mark.parametrize(
    ("status", "error", "retry_after"),
    [(400, RequestFailed, None), (404, RequestFailed, None), (302, RequestFailed, None),
     (429, RequestFailedForNow, 7.0), (503, RequestFailedForNow, None), (500, RequestFailedForNow, None)],
)  # fmt: skip
async def test_only_a_passing_trouble_is_worth_a_retry(
    server: tuple[str, Seen], status: int, error: type[NexusError], retry_after: float | None
) -> None:
    with pytest.raises(error) as caught:
        await _run(method="POST", url=f"{server[0]}/{status}")
    assert type(caught.value) is error
    assert caught.value.retry_after == retry_after


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/", "http://169.254.169.254/", "file:///etc/passwd", "http://[::1]/", "nonsense", 5]
)
async def test_reaches_no_private_address(url: Any) -> None:
    fetch.configure([])
    with pytest.raises((InvalidInput, NexusError)) as caught:
        await _run(url=url)
    assert caught.value.status in (400, 422)
