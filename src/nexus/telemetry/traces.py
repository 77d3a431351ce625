"""Traces: W3C traceparent in and out always, OpenTelemetry spans where the `otel` extra is installed.

The API of OpenTelemetry is a no-op until an SDK is configured, so code calls `span` without asking. Trace
ids reach the logs in any case (https://www.w3.org/TR/trace-context/).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Any

from nexus.telemetry.context import become, bind_request_id, bound
from nexus.telemetry.redact import redactor
from nexus.telemetry.settings import TelemetrySettings
from nexus.telemetry.traceparent import Entered, TraceContext, child_of, fresh_bits, parse_traceparent

_current: ContextVar[TraceContext | Entered | None] = ContextVar("nexus_trace", default=None)


def current_trace() -> TraceContext | None:
    """Return where we are, None outside of every trace."""
    here = _current.get()
    return here.place() if isinstance(here, Entered) else here


def outgoing_headers() -> dict[str, str]:
    """Return the headers that carry the present trace to a callee (HTTP call, queue message, webhook)."""
    here = current_trace()
    return {"traceparent": here.header} if here else {}


class _Tracing:
    """The tracer of this process, None without an SDK."""

    tracer: Any = None
    provider: Any = None


def configure(settings: TelemetrySettings, *, service: str = "nexus", version: str = "") -> bool:
    """Export spans to `settings.otlp_endpoint`; return whether that is possible and asked for."""
    if not settings.otlp_endpoint or find_spec("opentelemetry.sdk") is None:
        return False
    # Of the `otel` extra; nobody else pays for it.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # type: ignore[import-not-found,unused-ignore]
    from opentelemetry.sdk.resources import Resource  # type: ignore[import-not-found,unused-ignore]
    from opentelemetry.sdk.trace import TracerProvider  # type: ignore[import-not-found,unused-ignore]
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # type: ignore[import-not-found,unused-ignore]
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased  # type: ignore[import-not-found,unused-ignore]

    resource = Resource.create({"service.name": service, "service.version": version})
    provider = TracerProvider(resource=resource, sampler=ParentBased(TraceIdRatioBased(settings.trace_ratio)))
    endpoint = settings.otlp_endpoint.rstrip("/") + "/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    _Tracing.provider, _Tracing.tracer = provider, provider.get_tracer("nexus", version)
    return True


def shutdown() -> None:
    """Send what is left and stop exporting."""
    provider, _Tracing.provider, _Tracing.tracer = _Tracing.provider, None, None
    if provider is not None:
        provider.shutdown()


@contextmanager
def span(name: str, *, kind: str = "internal", **attributes: Any) -> Iterator[TraceContext]:
    """Do a block inside a span. Attribute names are the semantic conventions' with `__` for each dot.

    `span("chat gpt-4o", kind="client", gen_ai__request__model="gpt-4o")`. Text is redacted; None is left out.
    """
    parent = current_trace()
    if _Tracing.tracer is None:
        with _entered(child_of(parent)) as context:
            yield context
        return
    with _exported(name, kind, parent, attributes) as context, _entered(context):
        yield context


@contextmanager
def _entered(context: TraceContext) -> Iterator[TraceContext]:
    token = _current.set(context)
    try:
        with bound(trace_id=context.trace_id, span_id=context.span_id):
            yield context
    finally:
        _current.reset(token)


@contextmanager
def _exported(name: str, kind: str, parent: TraceContext | None, attributes: dict[str, Any]) -> Iterator[TraceContext]:
    from opentelemetry import trace

    above = None
    if parent is not None:
        flags = trace.TraceFlags(1 if parent.sampled else 0)
        remote = trace.SpanContext(int(parent.trace_id, 16), int(parent.span_id, 16), is_remote=True, trace_flags=flags)
        above = trace.set_span_in_context(trace.NonRecordingSpan(remote))
    values = {
        key.replace("__", "."): redactor(value) if isinstance(value, str) else value
        for key, value in attributes.items()
        if value is not None
    }
    started = _Tracing.tracer.start_span(
        redactor(name), context=above, kind=trace.SpanKind[kind.upper()], attributes=values
    )
    seen = started.get_span_context()
    try:
        yield TraceContext(f"{seen.trace_id:032x}", f"{seen.span_id:016x}", seen.trace_flags.sampled)
    except BaseException as error:
        # The type alone: texts of exceptions may hold what nobody should see.
        started.set_attribute("error.type", type(error).__name__)
        started.set_status(trace.StatusCode.ERROR)
        raise
    finally:
        started.end()


Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]


def enter_request(request_id: str, traceparent: bytes | None) -> None:
    """Begin a request in this context: its id, and its place in the caller's trace or at the start of a new one."""
    if _Tracing.tracer is not None:
        bind_request_id(request_id)  # `TraceRequests` stands further out
        return
    entered = Entered(request_id, traceparent, fresh_bits())
    _current.set(entered)
    become(entered)


class TraceRequests:
    """ASGI layer where spans are exported: continues the caller's trace, or begins one, for each request."""

    def __init__(self, app: App) -> None:
        """Wrap `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = next((value for name, value in scope["headers"] if name == b"traceparent"), None)
        _current.set(parse_traceparent(sent.decode("latin-1")) if sent else None)
        with span(f"{scope['method']}", kind="server", http__request__method=scope["method"]):
            await self._app(scope, receive, send)
