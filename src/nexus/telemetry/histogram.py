"""A histogram for prometheus_client whose observations cost little: every request makes several of them."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Series:
    """What was observed under one set of label values. Safe to use from every thread."""

    __slots__ = ("_bounds", "_guard", "counts", "created", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Nothing has been observed; `bounds` are the upper ends of all buckets but the last."""
        self._bounds = bounds
        self._guard = threading.Lock()
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.created = time.time()

    def observe(self, *amounts: float) -> None:
        """Count one observation, or several."""
        with self._guard:
            for amount in amounts:
                self.counts[bisect_left(self._bounds, amount)] += 1
                self.total += amount


class Histogram(Collector):
    """A histogram with labels, shown as prometheus_client's own is."""

    def __init__(
        self, name: str, text: str, labels: Sequence[str], *, buckets: Sequence[float], registry: CollectorRegistry
    ) -> None:
        """Show it in `registry`; `buckets` are the upper ends in seconds, rising, without infinity."""
        self._name, self._text, self._labels = name, text, tuple(labels)
        self._bounds = tuple(buckets)
        self._names = [floatToGoString(bound) for bound in (*buckets, float("inf"))]  # type: ignore[no-untyped-call]
        self._series: dict[tuple[str, ...], Series] = {}
        registry.register(self)

    def labels(self, *values: str) -> Series:
        """Return the series of these label values."""
        found = self._series.get(values)
        return found if found is not None else self._series.setdefault(values, Series(self._bounds))

    def clear(self) -> None:
        """Forget all series."""
        self._series.clear()

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Return what there is, for the exposition."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for values, series in list(self._series.items()):
            counts = list(zip(self._names, accumulate(series.counts), strict=True))
            family.add_metric(values, counts, series.total)
            labels = dict(zip(self._labels, values, strict=True))
            family.add_sample(f"{self._name}_created", labels, series.created)
        yield family
