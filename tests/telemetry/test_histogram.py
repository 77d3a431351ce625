from __future__ import annotations

import random
import re

from prometheus_client import CollectorRegistry
from prometheus_client import Histogram as Theirs
from prometheus_client.exposition import choose_encoder

from nexus.telemetry.histogram import Histogram

BUCKETS = (0.005, 0.1, 1.0, 60.0, 14400.0)


def test_scrapers_see_what_the_library_would_have_shown() -> None:
    theirs, ours = CollectorRegistry(auto_describe=True), CollectorRegistry(auto_describe=True)
    one = Theirs("h", "Text.", ["route", "kind"], buckets=BUCKETS, registry=theirs)
    other = Histogram("h", "Text.", ["route", "kind"], buckets=BUCKETS, registry=ours)

    def shown(registry: CollectorRegistry, accept: str) -> str:
        text = choose_encoder(accept)[0](registry).decode()
        return re.sub(r"(_created{[^}]*}) \S+", r"\1 then", text)

    for amount in (0.0, 0.005, 0.1, 1, 70, 20_000, *(random.random() for _ in range(100))):
        labels = random.choice(["a", 'b"\n']), random.choice(["c", "d"])
        one.labels(*labels).observe(amount)
        other.labels(*labels).observe(amount)
    for accept in ("", "application/openmetrics-text; version=1.0.0"):
        assert shown(ours, accept) == shown(theirs, accept)
    other.clear()
    assert "_bucket" not in shown(ours, "")


def test_several_at_once_are_each_counted() -> None:
    registry = CollectorRegistry()
    Histogram("h", "Text.", ["route"], buckets=BUCKETS, registry=registry).labels("a").observe(0.01, 0.5, 2)
    assert registry.get_sample_value("h_count", {"route": "a"}) == 3
    assert registry.get_sample_value("h_bucket", {"route": "a", "le": "1.0"}) == 2
    assert registry.get_sample_value("h_sum", {"route": "a"}) == 2.51
