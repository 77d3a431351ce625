from __future__ import annotations

import asyncio
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from nexus.telemetry.context import current
from nexus.telemetry.settings import TelemetrySettings
from nexus.telemetry.traces import (
    TraceRequests,
    child_of,
    configure,
    current_trace,
    outgoing_headers,
    parse_traceparent,
    shutdown,
    span,
)

VALID = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_valid_header_is_read() -> None:
    context = parse_traceparent(VALID)
    assert context is not None
    assert context.header == VALID
    later = parse_traceparent("01" + VALID[2:] + "-more")
    assert later is not None
    assert later.sampled


@pytest.mark.parametrize(
    "value",
    [
        "",
        "ff" + VALID[2:],
        VALID + "-more",
        VALID.upper(),
        VALID.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
        VALID.replace("00f067aa0ba902b7", "0" * 16),
        VALID[:-1],
        VALID.replace("-", "_"),
    ],
)
def test_an_invalid_header_starts_a_new_trace(value: str) -> None:
    assert parse_traceparent(value) is None


def test_spans_nest_and_leave_no_trace_behind() -> None:
    assert outgoing_headers() == {}
    with span("outer") as outer:
        with span("inner", kind="client", gen_ai__request__model="m", empty=None) as inner:
            assert inner.trace_id == outer.trace_id
            assert inner.span_id != outer.span_id
            assert outgoing_headers() == {"traceparent": inner.header}
            assert current()["trace_id"] == outer.trace_id
        assert current_trace() == outer
    assert current_trace() is None


async def call(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    seen: dict[str, str] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.update(outgoing_headers())

    scope = {"type": "http", "method": "GET", "headers": headers}
    await asyncio.create_task(TraceRequests(app)(scope, None, None))
    return seen


async def test_requests_continue_the_trace_of_the_caller() -> None:
    seen = await call([(b"traceparent", VALID.encode())])
    assert seen["traceparent"].startswith(VALID[:36])
    assert seen["traceparent"].endswith("-01")
    assert VALID[36:52] not in seen["traceparent"]
    fresh = await call([(b"traceparent", b"rubbish \xff")])
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", fresh["traceparent"])


def test_without_an_endpoint_nothing_is_exported() -> None:
    assert configure(TelemetrySettings()) is False


def test_children_keep_the_sampling_of_their_parent() -> None:
    parent = child_of(None, sampled=True)
    assert child_of(parent).sampled
    assert not child_of(None).sampled


def fail_inside() -> None:
    with span("outer", key="sk-canary-0123456789abcdef") as outer, span("inner", kind="client"):
        assert outgoing_headers()["traceparent"].startswith(f"00-{outer.trace_id}-")
        raise ValueError("hunter2")


def test_with_the_extra_spans_reach_a_collector_without_secrets() -> None:
    pytest.importorskip("opentelemetry.sdk", reason="the `otel` extra is not installed")
    received: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

    server = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    assert configure(TelemetrySettings(otlp_endpoint=endpoint, trace_ratio=1.0))
    try:
        with pytest.raises(ValueError, match="hunter2"):
            fail_inside()
    finally:
        shutdown()
        server.shutdown()
    sent = b"".join(received)
    assert b"outer" in sent
    assert b"inner" in sent
    assert b"ValueError" in sent
    assert b"canary" not in sent
    assert b"hunter2" not in sent
