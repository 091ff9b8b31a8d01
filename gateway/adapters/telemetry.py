"""Logs, spans and metrics: set up once, deny by default."""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

EXPORT_TIMEOUT_S = 2.0
"""A collector that does not answer may delay the end of a drain by so much."""

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

FIELDS: dict[str, re.Pattern[str] | type] = {
    "event": re.compile(r"[a-z][a-z0-9_]{1,63}"),
    "level": re.compile(r"[a-z]{4,8}"),
    "timestamp": re.compile(r"[0-9TZ:.+-]{10,40}"),
    "method": re.compile(r"[A-Za-z]{1,64}/[A-Za-z]{1,64}"),
    "code": re.compile(r"[A-Z_]{2,32}"),
    "reason": re.compile(r"[A-Z_0-9]{0,64}"),
    "detail": re.compile(r"[a-z0-9_]{0,64}"),
    "trace_id": re.compile(r"[0-9a-f]{32}"),
    "fault": re.compile(r"[A-Za-z]{0,64}"),
    "place": re.compile(r"[a-z0-9_]{0,48}(\.py)?(:[0-9]{1,6})?"),
    "address": re.compile(r"[0-9a-zA-Z.:\[\]-]{1,64}"),
    "adapter": re.compile(r"[a-z0-9_-]{1,32}"),
    "alarm": re.compile(r"[a-z0-9_]{1,64}"),
    "witness": re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}"),
    "backend": re.compile(r"[a-z0-9][a-z0-9._-]{0,62}"),
    "ms": float,
    "count": int,
    "size": int,
    "expired": int,
    "reaped": int,
    "orphans": int,
    "landlock": bool,
    "seccomp": bool,
    "rlimits": bool,
}
"""Every field that may be logged, and the form its value must have.  Nothing else leaves."""


def only_known_fields(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Drop every field that is not listed or whose value has not the listed form.

    The number of dropped fields is kept, so that a loss is seen.
    """
    kept: dict[str, Any] = {}
    dropped = 0
    for name, value in event.items():
        if _is_known(name, value):
            kept[name] = value
        else:
            dropped += 1
    if dropped:
        kept["dropped_fields"] = dropped
    kept.setdefault("event", "event_withheld")
    return kept


def _is_known(name: str, value: Any) -> bool:
    form = FIELDS.get(name)
    if form is None:
        return False
    if isinstance(form, re.Pattern):
        return isinstance(value, str) and form.fullmatch(value) is not None
    return isinstance(value, form) or (form is float and isinstance(value, int))


def set_up_logs(level: str, stream: TextIO | None = None) -> None:
    """Send events as JSON lines to `stream` (stderr), through the field filter.

    Other libraries' log records, and exceptions that nobody caught, are reduced to
    the name of the fault: their texts may quote input.
    """
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            only_known_fields,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_Reduced()]
    root.setLevel(logging.WARNING)
    sys.excepthook = lambda kind, _fault, _trace: _reduce(kind)
    sys.unraisablehook = lambda unraisable: _reduce(unraisable.exc_type)
    threading.excepthook = lambda raised: _reduce(raised.exc_type)


def _reduce(kind: type[BaseException] | None) -> None:
    """Log that something was raised where nobody could catch it, and nothing of what it says."""
    structlog.get_logger().error("fault_uncaught", fault=kind.__name__ if kind else "")


class _Reduced(logging.Handler):
    """Turns foreign log records into one code."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log that a library had something to say, and nothing of what."""
        fault = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else ""
        structlog.get_logger().warning("library_warning", fault=fault)


def set_up_traces(endpoint: str, exporter: SpanExporter | None = None) -> TracerProvider:
    """Return a tracer provider that exports over OTLP where an endpoint is configured, else nowhere."""
    provider = TracerProvider(resource=Resource.create({"service.name": "lethe"}))
    if exporter is None and endpoint:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_TIMEOUT_S)
    if exporter is not None:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def tracer(provider: TracerProvider) -> trace.Tracer:
    """Return the gateway's tracer."""
    return provider.get_tracer("lethe")
