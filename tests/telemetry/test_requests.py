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


def test_second_after_second_leaves_the_window() -> None:
    now = [100.0]
    meter = RequestMeter(window=10, clock=lambda: now[0])
    now[0] = 200.0
    for second in range(30):
        now[0] = 200.5 + second
        for number in range(4):
            meter.observe("/v1/models", "GET", 503 if number == 0 and second >= 20 else 200, second / 1000)
        if second % 3 == 0:
            meter.summary()
    # Of eleven seconds, as the window begins in the middle of the first of them.
    assert meter.summary() == {"per_second": 4.19, "p50_ms": 24.0, "p95_ms": 29.0, "error_ratio": 0.2273}
    now[0] = 300.0
    assert meter.summary()["per_second"] == 0.0


def test_the_times_of_very_many_are_told_as_well() -> None:
    now = [100.0]
    meter = RequestMeter(window=10, clock=lambda: now[0])
    now[0] = 110.0
    for number in range(40_000):
        meter.observe("/v1/models", "GET", 200, number / 40_000)
    summary = meter.summary()
    assert summary["per_second"] == 4000.0
    assert abs(summary["p50_ms"] - 500) < 1
    assert abs(summary["p95_ms"] - 950) < 1


def test_the_rate_is_right_where_there_are_too_many_to_keep() -> None:
    now = [100.0]
    meter = RequestMeter(window=10, most=5_000, clock=lambda: now[0])
    now[0] = 200.0
    for second in range(20):
        for number in range(1000):
            now[0] = 200 + second + number / 1000
            meter.observe("/v1/models", "GET", 200, 0.01)
        meter.summary()
    assert 900 <= meter.summary()["per_second"] <= 1100
