"""The one list of all metric names, on prometheus_client (https://prometheus.io/docs/practices/naming/).

Labels are bounded: a metric keeps at most a fixed number of series, and whatever comes beyond is counted
under `other`, so that a thousand keys asking for five hundred models cannot fill the memory of the scraper.
No user, key, URL or prompt is ever a label.
"""

from __future__ import annotations

import threading
from collections import Counter as Tally
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from operator import itemgetter
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Info
from prometheus_client.exposition import choose_encoder

from nexus.telemetry.histogram import Histogram

OTHER: Final = "other"
_LATENCY: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_LONG: Final = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)
# A histogram has a series for every bucket and three more, so it may have fewer label sets.
_HISTOGRAM_SHARE: Final = 8

registry = CollectorRegistry(auto_describe=True)


class Limit:
    """How many label sets a metric may have; `set_limit` changes it for all at once."""

    series = 200


def set_limit(series: int) -> None:
    """Allow this many label sets for each metric (and an eighth for each histogram)."""
    Limit.series = series


class Bounded:
    """A metric whose label sets are counted."""

    def __init__(self, metric: Any, labels: Sequence[str], *, share: int = 1) -> None:
        """Guard `metric`, which has `labels`."""
        self._metric = metric
        self._labels = tuple(labels)
        self._share = share
        self._children: dict[tuple[str, ...], Any] = {}
        self._adding = threading.Lock()

    def labels(self, *values: object) -> Any:
        """Return the series of these label values, or that of `other` when there are too many."""
        key = tuple(map(str, values))
        child = self._children.get(key)
        return child if child is not None else self._add(key)

    def _add(self, key: tuple[str, ...]) -> Any:
        with self._adding:
            if key not in self._children and len(self._children) >= Limit.series // self._share:
                # Remembering who was turned away would be the same leak again.
                return self._metric.labels(*[OTHER] * len(self._labels))
            return self._children.setdefault(key, self._metric.labels(*key))

    def clear(self) -> None:
        """Forget all series (gauges that are set anew from time to time)."""
        with self._adding:
            self._children.clear()
            self._metric.clear()


def _counter(name: str, text: str, *labels: str) -> Bounded:
    return Bounded(Counter(name, text, labels, registry=registry), labels)


def _gauge(name: str, text: str, *labels: str) -> Bounded:
    return Bounded(Gauge(name, text, labels, registry=registry), labels)


def _histogram(name: str, text: str, *labels: str, buckets: Sequence[float] = _LATENCY) -> Bounded:
    metric = Histogram(name, text, labels, buckets=buckets, registry=registry)
    return Bounded(metric, labels, share=_HISTOGRAM_SHARE)


HTTP_REQUESTS = _counter("nexus_http_requests_total", "Requests answered.", "route", "method", "status")
HTTP_SECONDS = _histogram("nexus_http_request_duration_seconds", "From first byte in to last byte out.", "route")
HTTP_INFLIGHT = Gauge("nexus_http_inflight", "Requests being served.", registry=registry)

LLM_REQUESTS = _counter("nexus_llm_requests_total", "Calls to language models.", "provider", "model", "outcome")
LLM_TOKENS = _counter("nexus_llm_tokens_total", "Tokens by type (input, output, ...).", "provider", "model", "type")
LLM_COST = _counter("nexus_llm_cost_usd_total", "Cost of language model calls.", "project", "model")
LLM_FIRST_TOKEN = _histogram("nexus_llm_ttft_seconds", "Time to the first token.", "provider", "model")
LLM_STREAMS = Gauge("nexus_llm_streams_active", "Streams being relayed.", registry=registry)
LLM_UPSTREAM_ERRORS = _counter("nexus_llm_upstream_errors_total", "Failed provider calls.", "provider", "class")
LLM_FALLBACKS = _counter("nexus_llm_fallbacks_total", "Calls that another deployment answered.", "route")
LLM_BREAKER = _gauge("nexus_llm_breaker_state", "0 closed, 1 half open, 2 open.", "deployment")

CACHE_REQUESTS = _counter("nexus_cache_requests_total", "Look-ups in a cache.", "kind", "result")
RATELIMIT_REJECTIONS = _counter("nexus_ratelimit_rejections_total", "Requests refused by a limit.", "reason")
BUDGET_REMAINING = _gauge("nexus_budget_remaining_usd", "What is left of the tightest budget.", "project")
USAGE_UNRECORDED = Counter("nexus_usage_unrecorded_total", "Invocations lost; must be 0.", registry=registry)

VISION_SECONDS = _histogram("nexus_vision_inference_seconds", "By stage of a vision task.", "task", "model", "stage")
MODEL_LOADED = _gauge("nexus_model_loaded", "1 for each model in memory.", "model", "version")
MODEL_MEMORY = Gauge("nexus_model_memory_bytes", "Estimated memory of loaded models.", registry=registry)
PREDICTIONS = _counter("nexus_predictions_total", "Predictions, forecasts, anomaly scores.", "kind", "model", "outcome")
TRAINING_JOBS = _gauge("nexus_training_jobs", "Training runs by state.", "state")

RUNS = _counter("nexus_runs_total", "Runs that reached an end.", "workflow", "outcome")
RUN_SECONDS = _histogram("nexus_run_duration_seconds", "From start to end of a run.", "workflow", buckets=_LONG)
STEP_RETRIES = _counter("nexus_step_retries_total", "Steps tried again.", "uses")
QUEUE_DEPTH = _gauge("nexus_queue_depth", "Steps waiting.", "queue")
QUEUE_AGE = _gauge("nexus_queue_oldest_age_seconds", "Age of the oldest waiting step.", "queue")
DEAD_LETTERS = _counter("nexus_dead_letters_total", "Steps given up.", "uses")
SCHEDULER_LAG = Gauge("nexus_scheduler_lag_seconds", "How late the schedule that waits longest is.", registry=registry)
WEBHOOK_DELIVERIES = _counter("nexus_webhook_deliveries_total", "Notices sent to channels.", "outcome")
HOOKS = _counter("nexus_webhooks_received_total", "Webhooks that came in.", "outcome")

OUTBOUND_BLOCKED = _counter("nexus_outbound_blocked_total", "URLs that were not fetched.", "reason")
AUTH_FAILURES = _counter("nexus_auth_failures_total", "Refused credentials.", "reason")
DB_POOL = Gauge("nexus_db_pool_in_use", "Database connections in use.", registry=registry)
BUILD = Info("nexus_build", "What is running.", registry=registry)


_AT_ONCE: Final = 1000
_answered: deque[tuple[str, str, int, float]] = deque()
_hooks: list[Callable[[], None]] = []


def observe_request(route: str, method: str, status: int, seconds: float) -> None:
    """Count and time one answered request, together with others."""
    _answered.append((route, method, status, seconds))
    if len(_answered) >= _AT_ONCE:
        _count_answered()


def _count_answered() -> None:
    rows = []
    with suppress(IndexError):  # another thread may count too
        while True:
            rows.append(_answered.popleft())
    times: dict[str, list[float]] = {}
    for route, _, _, seconds in rows:
        times.setdefault(route, []).append(seconds)
    for route, several in times.items():
        HTTP_SECONDS.labels(route).observe(*several)
    for labels, number in Tally(map(itemgetter(0, 1, 2), rows)).items():
        HTTP_REQUESTS.labels(*labels).inc(number)


def before_render(hook: Callable[[], None]) -> None:
    """Call `hook` before every exposition: for what is counted together, now and then."""
    _hooks.append(hook)


def samples(wanted: Collection[str]) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Return `(labels, value)` of every series of the metrics `wanted`, by the names that `/metrics` shows."""
    _gather()
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for metric in registry.collect():
        for sample in metric.samples:
            if sample.name in wanted:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def _gather() -> None:
    _count_answered()
    for hook in _hooks:
        hook()


def render(accept: str = "") -> tuple[bytes, str]:
    """Return the exposition that a scraper with this Accept header reads, and its content type."""
    _gather()
    encoder, content_type = choose_encoder(accept)
    return encoder(registry), content_type


def names() -> list[str]:
    """Return the names of all metrics (docs, dashboards and alert rules are checked against it)."""
    return sorted(metric.name for metric in registry.collect())
