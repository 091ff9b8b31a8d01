"""What is seen of a call from outside: one span, metrics by code, one line in the log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from lethe.v1 import dsr_pb2, generation_pb2
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.backend_server import serving_backend
from tests.fakes.collector import collecting
from tests.gateway import (
    PORTRAIT,
    add_subject,
    consent,
    finished,
    free_port,
    header,
    make_folder,
    publish_notice,
)
from tests.process import serving
from tests.wire import METHODS, Answer, ask, scrape

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SUBJECT = "crew-4711"
LABELS = {
    "lethe_calls": {"method", "code", "reason"},
    "lethe_call_seconds": {"method", "le"},
    "lethe_calls_running": set(),
    "lethe_alarms": {"alarm"},
    "lethe_failing_seconds": {"alarm"},
    "lethe_requests_due": {"days"},
    "lethe_incidents_due": {"left"},
    "lethe_witness_answers": {"witness", "code"},
    "lethe_swept_objects": set(),
    "lethe_handshakes_begun": set(),
    "lethe_handshakes_without_call": set(),
}
"""Every metric there is, and every label it may have: no subject has a place here."""


PATIENCE_S = 20


@dataclass(frozen=True)
class Sight:
    """What a gateway's operator saw of the calls that were made."""

    spans: list[Span]
    metrics: str
    log: list[dict[str, Any]]
    answers: list[Answer]

    def calls(self, method: str) -> list[dict[str, Any]]:
        return [line for line in self.log if line.get("method") == method]

    def named(self, method: str) -> list[Span]:
        return [span for span in self.spans if span.name == method]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sight(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sight]:
    """Make some calls to a gateway, end it, and return what was seen."""
    metrics = f"127.0.0.1:{free_port()}"
    async with collecting() as collector:
        seen = {"metrics_address": metrics, "otlp_endpoint": collector.endpoint}
        layout = make_folder(tmp_path_factory.mktemp("sight") / "dev", telemetry=seen)
        async with serving_backend(layout), serving(layout) as process:
            async with process.client("app") as app, process.client("officer") as officer:
                await publish_notice(officer)
                await add_subject(app, SUBJECT)
                await consent(app, SUBJECT)
                made = await app.create_job(header(SUBJECT), PORTRAIT.read_bytes())
                assert (await finished(app, made.job.name)).state == generation_pb2.Job.STATE_SUCCEEDED
                missing = dsr_pb2.GetDsrRequest(name=f"dsrs/{'0' * 32}")
                answers = [
                    await ask(
                        app.channel,
                        "NoticeService/ListNotices",
                        metadata=[("traceparent", f"00-{TRACE}-{PARENT}-01")],
                    ),
                    await ask(app.channel, "DsrService/GetDsr", missing.SerializeToString()),
                    await ask(app.channel, "AuditService/Export"),
                    await ask(app.channel, "AnalyticsService/GetRecord"),
                ]
            text = await asyncio.to_thread(scrape, metrics)
            async with asyncio.timeout(PATIENCE_S):  # a caller has its answer before its call is counted out
                while "lethe_calls_running 0.0" not in text:
                    await asyncio.sleep(0.05)
                    text = await asyncio.to_thread(scrape, metrics)
            assert await process.drain() == 0
            log = [json.loads(line) for line in process.stderr.read_text().splitlines() if line[0] == "{"]
        yield Sight(collector.spans, text, log, answers)


async def test_every_call_has_one_span_and_one_line(sight):
    spans = sorted(f"{span.trace_id.hex()} {span.name}" for span in sight.spans)
    lines = sorted(f"{line['trace_id']} {line['method']}" for line in sight.log if "method" in line)
    assert spans == lines
    assert len(set(spans)) == len(spans)
    assert {span.name for span in sight.spans} <= set(METHODS)


async def test_a_span_has_the_callers_span_as_parent(sight):
    (span,) = sight.named("NoticeService/ListNotices")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    (line,) = sight.calls("NoticeService/ListNotices")
    assert line["trace_id"] == TRACE


async def test_a_call_without_a_parent_begins_a_trace(sight):
    (span,) = sight.named("ConsentService/RecordConsent")
    assert not span.parent_span_id


async def test_a_span_carries_code_and_reason_and_nothing_else(sight):
    (span,) = sight.named("DsrService/GetDsr")
    found = {attribute.key: attribute.value.string_value for attribute in span.attributes}
    assert found == {"rpc.grpc.status_code": "NOT_FOUND", "lethe.reason": "NOT_FOUND"}
    assert all(not span.events and not span.links for span in sight.spans)
    assert all(not span.status.message for span in sight.spans)


@pytest.mark.parametrize(
    ("method", "code", "reason"),
    [
        ("DsrService/GetDsr", "NOT_FOUND", "NOT_FOUND"),
        ("AuditService/Export", "PERMISSION_DENIED", "ROLE_REQUIRED"),
        ("NoticeService/ListNotices", "OK", ""),
        ("GenerationService/WatchJob", "OK", ""),
    ],
)
async def test_line_and_metric_say_the_same(sight, method, code, reason):
    (line,) = sight.calls(method)
    assert (line["event"], line["code"], line["reason"]) == ("call_ended", code, reason)
    assert f'lethe_calls_total{{code="{code}",method="{method}",reason="{reason}"}} 1.0' in sight.metrics
    assert f'lethe_call_seconds_count{{method="{method}"}} 1.0' in sight.metrics


async def test_metrics_have_the_listed_names_and_labels_only(sight):
    families = list(text_string_to_metric_families(sight.metrics))
    assert {family.name.removesuffix("_created") for family in families} == set(LABELS)
    for family in families:
        for sample in family.samples:
            assert set(sample.labels) <= LABELS[family.name.removesuffix("_created")]


async def test_no_call_runs_when_none_is_made(sight):
    assert "lethe_calls_running 0.0" in sight.metrics


async def test_no_line_lost_a_field(sight):
    assert not [line for line in sight.log if "dropped_fields" in line or line["event"] == "event_withheld"]


async def test_nothing_says_who_it_was_about(sight):
    everything = json.dumps(sight.log) + sight.metrics + "".join(str(span) for span in sight.spans)
    assert SUBJECT not in everything
