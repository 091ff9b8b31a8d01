"""What is seen of a call: a span, three metrics, one log line; codes only, never a subject."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


@dataclass(slots=True)
class CallSight:
    """One call while it runs."""

    trace_id: str
    code: str = "OK"
    reason: str = ""
    fault: str = ""
    place: str = ""

    def ended(self, code: str, reason: str) -> None:
        """Note a refusal."""
        self.code, self.reason = code, reason

    def failed(self, fault: str, place: str) -> None:
        """Note a fault nobody foresaw: the name of its class and where it was raised, never its text."""
        self.code, self.reason, self.fault, self.place = "INTERNAL", "INTERNAL", fault, place


@dataclass(frozen=True, slots=True)
class Sight:
    """Counts, times and traces calls."""

    tracer: trace.Tracer
    registry: CollectorRegistry
    _calls: Counter = field(init=False)
    _seconds: Histogram = field(init=False)
    _running: Gauge = field(init=False)

    def __post_init__(self) -> None:
        """Register the metrics."""
        made = {
            "_calls": Counter(
                "lethe_calls", "Calls that ended.", ("method", "code", "reason"), registry=self.registry
            ),
            "_seconds": Histogram(
                "lethe_call_seconds",
                "Time a call took.",
                ("method",),
                registry=self.registry,
                buckets=_BUCKETS,
            ),
            "_running": Gauge("lethe_calls_running", "Calls being served.", registry=self.registry),
        }
        for name, metric in made.items():
            object.__setattr__(self, name, metric)

    @contextmanager
    def call(self, method: str, traceparent: str) -> Iterator[CallSight]:
        """See one call from start to end."""
        parent = (
            TraceContextTextMapPropagator().extract({"traceparent": traceparent}) if traceparent else None
        )
        started = time.monotonic()
        self._running.inc()
        with self.tracer.start_as_current_span(
            method,
            context=parent,
            kind=trace.SpanKind.SERVER,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            seen = CallSight(f"{span.get_span_context().trace_id:032x}")
            try:
                yield seen
            finally:
                seconds = time.monotonic() - started
                span.set_attribute("rpc.grpc.status_code", seen.code)
                span.set_attribute("lethe.reason", seen.reason)
                self._running.dec()
                self._calls.labels(method, seen.code, seen.reason).inc()
                self._seconds.labels(method).observe(seconds)
                write = structlog.get_logger().error if seen.fault else structlog.get_logger().info
                write(
                    "call_ended",
                    method=method,
                    code=seen.code,
                    reason=seen.reason,
                    trace_id=seen.trace_id,
                    ms=round(seconds * 1000, 1),
                    fault=seen.fault,
                    place=seen.place,
                )
