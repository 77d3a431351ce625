"""The window of the last requests."""

from __future__ import annotations

from nexus.telemetry.requests import RequestMeter


def test_tells_rate_latency_and_errors_of_the_window() -> None:
    now = [100.0]
    meter = RequestMeter(window=10, clock=lambda: now[0])
    assert meter.summary() == {"per_second": 0.0, "p50_ms": None, "p95_ms": None, "error_ratio": 0.0}
    now[0] = 120.0
    for seconds in range(1, 21):
        meter.observe("/v1/models", "GET", 500 if seconds == 20 else 200, seconds / 1000)
    assert meter.summary() == {"per_second": 2.0, "p50_ms": 11.0, "p95_ms": 20.0, "error_ratio": 0.05}
    now[0] = 131.0
    assert meter.summary()["per_second"] == 0.0


def test_probes_and_endless_streams_do_not_count() -> None:
    meter = RequestMeter()
    for route in ("/livez", "/readyz", "/metrics", "/api/v1/events"):
        meter.observe(route, "GET", 200, 1.0)
    assert meter.summary()["per_second"] == 0.0


def test_memory_is_bounded() -> None:
    meter = RequestMeter(most=100)
    for _ in range(1000):
        meter.observe("/", "GET", 200, 0.001)
    assert meter.summary()["per_second"] <= 100
