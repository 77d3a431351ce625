from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.parser import text_string_to_metric_families

from nexus.telemetry import metrics
from nexus.telemetry.metrics import Bounded


@pytest.fixture(autouse=True)
def _limit() -> Iterator[None]:
    yield
    metrics.set_limit(200)


def series(registry: CollectorRegistry) -> int:
    return sum(len(metric.samples) for metric in registry.collect())


def test_a_thousand_keys_and_five_hundred_models_stay_bounded() -> None:
    registry = CollectorRegistry()
    counter = Bounded(Counter("c", "c", ["key", "model"], registry=registry), ["key", "model"])
    histogram = Bounded(Histogram("h", "h", ["model"], registry=registry), ["model"], share=8)
    for key in range(1000):
        for model in range(0, 500, 7):
            counter.labels(f"key{key}", f"model{model}").inc()
    for model in range(500):
        histogram.labels(f"model{model}").observe(0.1)
    assert series(registry) < 1000
    total = sum(s.value for m in registry.collect() for s in m.samples if s.name == "c_total")
    assert total == 1000 * 72
    assert registry.get_sample_value("c_total", {"key": "other", "model": "other"}) > 70_000


def test_all_metrics_together_stay_below_ten_thousand_series() -> None:
    before = series(metrics.registry)
    bounded = [value for value in vars(metrics).values() if isinstance(value, Bounded)]
    assert len(bounded) >= 25
    for metric in bounded:
        for number in range(1000):
            child = metric.labels(*[f"v{number}"] * len(metric._labels))
            child.observe(1) if hasattr(child, "observe") else child.inc()
    assert before < series(metrics.registry) <= 12_000
    for metric in bounded:
        metric.clear()


def test_the_exposition_is_what_a_scraper_reads() -> None:
    metrics.observe_request("/api/v1/runs/{run_id}", "GET", 200, 0.02)
    text, content_type = metrics.render("")
    assert content_type.startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(text.decode())}
    sample = next(s for s in families["nexus_http_requests"].samples if s.name.endswith("_total"))
    assert sample.labels == {"route": "/api/v1/runs/{run_id}", "method": "GET", "status": "200"}
    assert metrics.render("application/openmetrics-text; version=1.0.0")[0].rstrip().endswith(b"# EOF")


def test_names_and_labels_follow_the_rules() -> None:
    forbidden = {"user", "key", "key_id", "url", "path", "prompt", "email"}
    for name in metrics.names():
        assert re.fullmatch(r"nexus_[a-z0-9_]+", name), name
    for value in vars(metrics).values():
        if isinstance(value, Bounded):
            assert not forbidden & set(value._labels)


def test_clearing_makes_room_again() -> None:
    metrics.set_limit(10)
    gauge = metrics.MODEL_LOADED
    gauge.clear()
    for number in range(50):
        gauge.labels(f"m{number}", "1").set(1)
    assert metrics.registry.get_sample_value("nexus_model_loaded", {"model": "m49", "version": "1"}) is None
    gauge.clear()
    gauge.labels("m49", "1").set(1)
    assert metrics.registry.get_sample_value("nexus_model_loaded", {"model": "m49", "version": "1"}) == 1
    gauge.clear()
