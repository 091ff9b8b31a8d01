"""Secrets in every field that a caller can fill, and none of them in what operators and others see."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from google.protobuf.descriptor import FieldDescriptor
from lethe.v1 import consent_pb2, dsr_pb2, generation_pb2, notice_pb2, subject_pb2

from gateway.admin.planting import plant_metadata
from gateway.client import Client
from tests.canaries import Canaries, branches
from tests.fakes.backend_server import serving_backend
from tests.fakes.collector import Collector, collecting
from tests.fakes.inference import FakeInference
from tests.gateway import PORTRAIT, consent_of, finished, free_port, header, make_folder
from tests.process import ROOT, Process, serving
from tests.wire import METHODS, Answer, ask, scrape

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALLERS = ("app", "officer", "auditor")


@dataclass
class Yard:
    """A gateway into which secrets are called, and all that can be seen of it."""

    process: Process
    collector: Collector
    backend: FakeInference
    metrics: str
    canaries: Canaries = field(default_factory=Canaries)
    answers: list[tuple[str, Answer]] = field(default_factory=list)
    seen: dict[str, bytes] = field(default_factory=dict)

    def look(self) -> None:
        """Remember what the system shows of the processes and the files."""
        pid = self.process.child.pid
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [child for task in tasks for child in (task / "children").read_text().split()]
        assert children, "the scrubber's worker is not there"
        for one in (str(pid), *children):
            for name in ("cmdline", "environ"):
                self._see(name, Path(f"/proc/{one}/{name}").read_bytes())
        self._see("threads", b" ".join((task / "comm").read_bytes() for task in tasks))
        data = self.process.layout.root / "data"
        self._see("files", "\n".join(str(path.relative_to(data)) for path in data.rglob("*")).encode())
        self._see("metrics", scrape(self.metrics).encode())

    def _see(self, name: str, what: bytes) -> None:
        self.seen[name] = self.seen.get(name, b"") + b"\n" + what


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def yard(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Yard]:
    """Call every secret in, look, end the gateway, and return what was seen."""
    metrics = f"127.0.0.1:{free_port()}"
    folder = tmp_path_factory.mktemp("canaries")
    async with collecting() as collector:
        seen = {"level": "debug", "metrics_address": metrics, "otlp_endpoint": collector.endpoint}
        layout = make_folder(folder / "dev", telemetry=seen)
        async with serving_backend(layout) as backend, serving(layout) as process:
            made = Yard(process, collector, backend, metrics)
            async with contextlib.AsyncExitStack() as stack:
                clients = [await stack.enter_async_context(process.client(name)) for name in CALLERS]
                await go_on_a_journey(made, clients[0], clients[1], folder)
                await asyncio.to_thread(made.look)
                for client in clients:
                    await call_everything(made, client)
                await call_nonsense(made, clients[0])
            await asyncio.to_thread(made.look)
            assert await process.drain() == 0
            made.seen["outputs"] = process.said()
            yield made


async def call_everything(yard: Yard, client: Client) -> None:
    """Send each method messages with a secret in each field: kept to the rules, and broken."""
    for method, known in METHODS.items():
        for breaking in (False, True):
            for branch in range(branches(known.input_type)):
                message = yard.canaries.message(known.input_type, breaking=breaking, branch=branch)
                # A watch needs no deadline, and has one all the same: nothing here may wait.
                answer = await ask(client.channel, method, message.SerializeToString(), timeout_s=5)
                yard.answers.append((method, answer))


async def call_nonsense(yard: Yard, client: Client) -> None:
    """Send secrets where no field is: in metadata, in paths, in bytes that are no message."""
    new, method = yard.canaries.new, "SubjectService/UpsertSubject"
    metadata = [
        ("x-request-id", new("metadata")),
        ("authorization", f"Bearer {new('authorization')}"),
        ("lethe-timeout-ms", new("lethe-timeout-ms")),
        ("traceparent", f"00-{new('traceparent')}-zz-01"),
        ("tracestate", f"vendor={new('tracestate')}"),
        ("baggage", f"user={new('baggage')}"),
        ("user-agent", new("user-agent")),
        ("x-secret-bin", new("binary metadata").encode()),
    ]
    for answer in (
        await ask(client.channel, method, metadata=metadata),
        await ask(client.channel, method, metadata=metadata, timeout_s=None),
        await ask(client.channel, method, b"\xff\xff" + new("no message").encode()),
        await ask(client.channel, method, b"\x0a\x25\x0a\x23\xff" + new("no UTF-8").encode()),
        await ask(client.channel, method, path=f"/lethe.v1.SubjectService/{new('method')}"),
        await ask(client.channel, method, path=f"/lethe.v1.{new('service')}/UpsertSubject"),
        await ask(client.channel, "GenerationService/CreateJob", *_picture(yard, new("no picture").encode())),
    ):
        yard.answers.append((method, answer))


def _picture(yard: Yard, content: bytes) -> Iterator[bytes]:
    subject = yard.canaries.new("the subject of a bad upload")
    yield generation_pb2.CreateJobRequest(header=header(subject)).SerializeToString()
    yield generation_pb2.CreateJobRequest(chunk=content).SerializeToString()


async def go_on_a_journey(yard: Yard, app: Client, officer: Client, folder: Path) -> None:
    """Do with secrets all that succeeds, up to the picture that the command line fetches."""
    new = yard.canaries.new
    notice = notice_pb2.Notice(
        name="notices/portraits",
        language="en",
        title=new("title"),
        text=new("text"),
        purposes=[1],
        retention_term=new("retention_term"),
        recipients=[new("recipient")],
        transfer_countries=["DE"],
        withdrawal_method=new("withdrawal_method"),
    )
    await officer.call(officer.notices.PublishNotice, notice_pb2.PublishNoticeRequest(notice=notice))
    subject = new("subject")
    person = subject_pb2.Subject(name=f"subjects/{subject}", residence="DE", birth_year=1980)
    person.guardian.verified_method = new("verified_method")
    person.guardian.relation = new("relation")
    await app.call(app.subjects.UpsertSubject, subject_pb2.UpsertSubjectRequest(subject=person))
    given = consent_of(
        subject,
        channel=new("channel"),
        ui_version=new("ui_version"),
        term_shown=new("term_shown"),
        signature=new("signature").encode(),
        withdrawal_method_shown=new("withdrawal_method_shown"),
    )
    await app.call(app.consents.RecordConsent, consent_pb2.RecordConsentRequest(consent=given))
    picture = plant_metadata(
        PORTRAIT.read_bytes(), gps=(1.0, 2.0), serial=new("serial number"), thumbnail=b"\xff\xd8\xff\xd9"
    )
    made = await app.create_job(header(subject), picture)
    assert (await finished(app, made.job.name)).state == generation_pb2.Job.STATE_SUCCEEDED
    await generate_by_command(yard, folder, subject, picture)
    opened = dsr_pb2.CreateDsrRequest(subject=f"subjects/{subject}", kind=dsr_pb2.Dsr.KIND_ERASURE)
    await officer.call(officer.dsrs.CreateDsr, opened)


async def generate_by_command(yard: Yard, folder: Path, subject: str, picture: bytes) -> None:
    """Run `lethe generate` on a picture whose name is a secret, the subject's id in a file."""
    photo = folder / f"{yard.canaries.new('file name')}.jpg"
    photo.write_bytes(picture)
    (folder / "id.txt").write_text(subject)
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.main", "generate", str(photo), "--out", str(folder / "out.jpg")),
        *("--notice", "notices/portraits", "--style", "studio_grey"),
        *("--subject-file", str(folder / "id.txt")),
        *("--as", str(yard.process.layout.profile("app")), "-o", "json"),
        cwd=ROOT,
        env=dict(os.environ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await child.communicate()
    assert child.returncode == 0, err.decode()
    yard.seen["command"] = out + err


def planted_fields(yard: Yard) -> set[str]:
    return set(yard.canaries.planted.values())


async def test_a_secret_was_planted_in_every_field(yard):
    def fields(kind, seen):
        for part in kind.fields:
            if part.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
                seen.add(part.full_name)
            elif part.type == FieldDescriptor.TYPE_MESSAGE and part.message_type.file.package == "lethe.v1":
                fields(part.message_type, seen)
        return seen

    wanted = set().union(*(fields(known.input_type, set()) for known in METHODS.values()))
    assert len(wanted) > 80
    assert wanted - planted_fields(yard) == set()


async def test_calls_came_as_far_as_the_flows(yard):
    """Secrets that the schema refuses at once prove little: some got deeper."""
    reasons = {answer.reason for _, answer in yard.answers}
    assert {"", "MESSAGE_INVALID", "ROLE_REQUIRED", "NOT_FOUND"} <= reasons
    assert {"SUBJECT_UNKNOWN", "NOTICE_UNKNOWN", "DEADLINE_REQUIRED"} <= reasons


async def test_no_call_met_a_fault_that_nobody_foresaw(yard):
    assert [(method, a.reason) for method, a in yard.answers if a.reason == "INTERNAL"] == []
    assert b'"level": "error"' not in yard.seen["outputs"]


@pytest.mark.parametrize("place", ["outputs", "cmdline", "environ", "threads", "files", "metrics", "command"])
async def test_no_secret_is_in(yard, place):
    assert len(yard.seen[place]) > 20
    assert yard.canaries.found_in(yard.seen[place]) == set()


async def test_no_secret_is_in_a_span(yard):
    assert len(yard.collector.spans) >= len(METHODS) * len(CALLERS) * 2
    assert yard.canaries.found_in(bytes(yard.collector.raw)) == set()


async def test_no_secret_is_in_a_refusal(yard):
    refused = [answer.words for _, answer in yard.answers if answer.code != "OK"]
    assert len(refused) > 300
    assert yard.canaries.found_in(*refused) == set()


async def test_no_secret_is_in_what_the_backend_got(yard):
    assert len(yard.backend.seen) > 2
    assert yard.canaries.found_in(yard.backend.everything_seen()) == set()


async def test_every_line_of_the_log_is_a_line_of_ours(yard):
    """Other libraries' words, on stderr as well, would be lines that are no JSON."""
    lines = yard.process.stderr.read_text().splitlines()
    assert [line for line in lines if not line.startswith("{")] == []
    assert {"call_ended", "gateway_ready", "gateway_stopped"} <= {json.loads(line)["event"] for line in lines}


async def test_a_secret_that_is_there_is_found(yard):
    secret = next(iter(yard.canaries.planted))
    assert yard.canaries.found_in(b"..." + secret.upper() + b"...") == {yard.canaries.planted[secret]}
