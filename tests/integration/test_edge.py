"""The door: who gets a connection, what a call must look like, how the gateway leaves."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from lethe.v1 import generation_pb2, notice_pb2

from gateway.admin.folder import Layout
from gateway.admin.pki import Authority
from gateway.client import Client, Refused
from gateway.client.client import refusal
from gateway.ports.records import Records
from gateway.rpc.wire import ALL
from tests.fakes.backend_server import serving_backend
from tests.gateway import (
    PORTRAIT,
    Gateway,
    add_subject,
    consent,
    finished,
    free_port,
    header,
    make_folder,
    publish_notice,
    running,
)
from tests.process import PATIENCE_S, Process, serving, until
from tests.wire import ask, sample, scrape

MAIN = "from gateway.main import main; main()"
REFUSED = "lethe_handshakes_without_call_total"
CROWD = 'lethe_alarms_total{alarm="handshakes_refused"}'
BAD_CERTIFICATE = 'lethe_alarms_total{alarm="certificate_bad"}'
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""A client's first words in HTTP/2, with empty SETTINGS."""


def edge_folder(directory: Path, **listen: Any) -> tuple[Layout, str]:
    """Return a folder whose gateway counts the refused quickly, and its metrics' address."""
    metrics = f"127.0.0.1:{free_port()}"
    quick = {"reload_s": 0.05, "handshake_grace_s": 0.3, "refused_alarm_per_minute": 5, **listen}
    return make_folder(directory, listen=quick, telemetry={"metrics_address": metrics}), metrics


async def value(metrics: str, name: str) -> float:
    """Return what a metric shows now."""
    return sample(await asyncio.to_thread(scrape, metrics), name)


# --- the handshake -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stranger:
    """Somebody at the door, with TLS of Python's own."""

    address: str
    ca: Path
    cert: Path | None = None
    newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(self.ca)
        context.maximum_version = self.newest
        context.set_alpn_protocols(["h2"])
        if self.cert:
            context.load_cert_chain(self.cert, self.cert.with_suffix(".key"))
        return context

    def _knock(self) -> tuple[bytes, bytes]:
        """Return the server's first words, empty where it hangs up, and its certificate in DER."""
        host, _, port = self.address.rpartition(":")
        try:
            with (
                socket.create_connection((host, int(port)), 5) as plain,
                self._context().wrap_socket(plain) as wire,
            ):
                theirs = wire.getpeercert(binary_form=True) or b""
                wire.sendall(HELLO)
                return wire.recv(64), theirs
        except OSError:  # ssl.SSLError is one
            return b"", b""

    async def knock(self) -> tuple[bytes, bytes]:
        return await asyncio.to_thread(self._knock)

    async def gets_in(self) -> bool:
        return bool((await self.knock())[0])


def plaintext(address: str) -> bytes:
    """Return what the server answers to somebody without TLS before it hangs up."""
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 5) as wire:
        wire.sendall(HELLO)
        return wire.recv(64)
    return b""


def issue(folder: Path, authority: Authority, identity: str) -> Path:
    """Write a client's certificate and key, and return the certificate's path."""
    chain, key = authority.issue(identity, datetime.now(UTC))
    cert = folder / "issued.pem"
    cert.write_bytes(chain)
    cert.with_suffix(".key").write_bytes(key)
    return cert


def authority(layout: Layout) -> Authority:
    """Return the folder's own CA."""
    key = load_pem_private_key(layout.ca.with_name("ca.key").read_bytes(), None)
    return Authority(key, x509.load_pem_x509_certificate(layout.ca.read_bytes()))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Door:
    """A gateway as a process, and where its metrics are."""

    process: Process
    metrics: str

    @property
    def known(self) -> Path:
        return self.process.layout.profile("app").with_suffix(".pem")

    def stranger(self, cert: Path | None = None, **changes: Any) -> Stranger:
        return Stranger(self.process.address, self.process.layout.ca, cert, **changes)

    async def refused(self) -> float:
        return await value(self.metrics, REFUSED)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Door]:
    layout, metrics = edge_folder(tmp_path_factory.mktemp("door") / "dev")
    async with serving(layout) as process:
        yield Door(process, metrics)


@pytest.mark.asyncio(loop_scope="module")
class TestHandshake:
    async def test_tls_1_3_with_a_known_certificate_gets_in(self, door):
        assert await door.stranger(door.known).gets_in()

    async def test_tls_1_2_is_refused(self, door):
        assert not await door.stranger(door.known, newest=ssl.TLSVersion.TLSv1_2).gets_in()

    async def test_plaintext_is_refused(self, door):
        assert await asyncio.to_thread(plaintext, door.process.address) == b""

    async def test_no_certificate_is_refused(self, door):
        assert not await door.stranger().gets_in()

    async def test_a_certificate_of_a_foreign_ca_is_refused(self, door, tmp_path):
        foreign = Authority.create("Lethe development CA", datetime.now(UTC))
        cert = issue(tmp_path, foreign, "spiffe://lethe.test/client/app")
        assert not await door.stranger(cert).gets_in()

    async def test_a_certificate_of_the_backends_ca_is_refused(self, door):
        assert not await door.stranger(door.process.layout.cert("gateway-to-backend")).gets_in()

    @pytest.mark.parametrize("who", ["plaintext", "tls_1_2", "no_certificate", "foreign_ca"])
    async def test_who_is_refused_is_counted(self, door, tmp_path, who):
        before = await door.refused()
        if who == "plaintext":
            await asyncio.to_thread(plaintext, door.process.address)
        else:
            foreign = Authority.create("another", datetime.now(UTC))
            await {
                "tls_1_2": door.stranger(door.known, newest=ssl.TLSVersion.TLSv1_2),
                "no_certificate": door.stranger(),
                "foreign_ca": door.stranger(issue(tmp_path, foreign, "spiffe://lethe.test/client/app")),
            }[who].knock()

        async def is_counted() -> bool:
            return await door.refused() > before

        await until(is_counted)

    async def test_a_crowd_at_the_door_raises_the_alarm(self, door):
        for _ in range(6):
            await asyncio.to_thread(plaintext, door.process.address)
        await until(lambda: b'"alarm": "handshakes_refused"' in door.process.said())
        assert await value(door.metrics, CROWD) == 1

    async def test_a_bomb_is_refused_and_not_unpacked(self, door):
        def peak_kib() -> int:
            status = Path(f"/proc/{door.process.child.pid}/status").read_text()
            return int(status.partition("VmHWM:")[2].split()[0])

        async with door.process.client("officer") as officer:
            await ask(officer.channel, "NoticeService/ListNotices")
            before = peak_kib()
            bomb = notice_pb2.PublishNoticeRequest(notice=notice_pb2.Notice(text="0" * (64 << 20)))
            answer = await ask(
                officer.channel,
                "NoticeService/PublishNotice",
                bomb.SerializeToString(),
                compression=grpc.Compression.Gzip,
                timeout_s=60,
            )
        assert answer.code in {"UNIMPLEMENTED", "RESOURCE_EXHAUSTED"}
        assert peak_kib() - before < 16 << 10


async def test_a_call_over_tls_1_2_is_refused_even_where_grpc_would_take_it(tmp_path):
    """grpc reads the suites that rule TLS 1.2 out when it is imported: here it was imported before."""
    layout, _ = edge_folder(tmp_path / "dev")
    late = ("-c", "import os; os.environ.pop('GRPC_SSL_CIPHER_SUITES'); import grpc\n" + MAIN)
    async with serving(layout, command=late) as process:
        cert = layout.profile("app").with_suffix(".pem")
        old = Stranger(process.address, layout.ca, cert, ssl.TLSVersion.TLSv1_2)
        assert await old.gets_in(), "grpc refuses TLS 1.2 by itself now: the second wall can go"
        async with terminator(old._context(), process.address) as relay:
            channel = grpc.aio.insecure_channel(relay)
            answer = await ask(channel, "NoticeService/ListNotices")
            health = health_pb2_grpc.HealthStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await health.Check(health_pb2.HealthCheckRequest(), timeout=5)
            await channel.close()
    assert (answer.code, answer.reason, answer.detail) == (
        "PERMISSION_DENIED",
        "ROLE_REQUIRED",
        "tls_version",
    )
    assert refusal(refused.value).detail == "tls_version"


@contextlib.asynccontextmanager
async def terminator(context: ssl.SSLContext, target: str) -> AsyncIterator[str]:
    """Take plaintext on loopback and carry it to `target` over the context's TLS."""
    host, _, port = target.rpartition(":")

    async def pour(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner = await asyncio.open_connection(host, int(port), ssl=context)
        await asyncio.gather(pour(reader, inner[1]), pour(inner[0], writer))

    server = await asyncio.start_server(carry, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


# --- a gateway in this process -------------------------------------------------------------------


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    layout, metrics = edge_folder(tmp_path / "dev", max_deadline_s=4, max_concurrent_calls=4)
    async with running(layout) as started:
        assert started.settings.telemetry.metrics_address == metrics
        yield started


@pytest.fixture
async def app(gateway: Gateway) -> AsyncIterator[Client]:
    async with gateway.client("app") as client:
        yield client


@pytest.fixture
async def subject(gateway: Gateway, app: Client) -> str:
    async with gateway.client("officer") as officer:
        await publish_notice(officer)
    await add_subject(app, "crew-1")
    await consent(app, "crew-1")
    return "crew-1"


async def test_a_certificate_of_our_ca_with_an_unknown_identity_is_nobody(gateway, tmp_path):
    cert = issue(tmp_path, authority(gateway.layout), "spiffe://lethe.test/client/stranger")
    credentials = grpc.ssl_channel_credentials(
        gateway.layout.ca.read_bytes(), cert.with_suffix(".key").read_bytes(), cert.read_bytes()
    )
    async with grpc.aio.secure_channel(gateway.settings.listen.address, credentials) as channel:
        answer = await ask(channel, "NoticeService/ListNotices")
    assert (answer.code, answer.reason, answer.detail) == (
        "PERMISSION_DENIED",
        "ROLE_REQUIRED",
        "identity_unknown",
    )


async def test_a_new_certificate_is_served_and_open_connections_stand(gateway, app):
    layout = gateway.layout
    stranger = Stranger(gateway.settings.listen.address, layout.ca, layout.profile("app").with_suffix(".pem"))
    assert (await ask(app.channel, "NoticeService/ListNotices")).code == "OK"
    chain, key = authority(layout).issue(
        "spiffe://lethe.test/gateway", datetime.now(UTC), hosts=("127.0.0.1",)
    )
    layout.cert("gateway").write_bytes(chain)
    layout.key("gateway").write_bytes(key)
    new = x509.load_pem_x509_certificate(chain).public_bytes(Encoding.DER)
    assert (await stranger.knock())[1] == new
    metrics, begun = gateway.settings.telemetry.metrics_address, "lethe_handshakes_begun_total"
    before = await value(metrics, begun)
    assert (await ask(app.channel, "NoticeService/ListNotices")).code == "OK"
    assert await value(metrics, begun) == before, "the connection was made again"


async def test_a_bad_new_certificate_keeps_the_old_and_raises_one_alarm(gateway):
    layout, metrics = gateway.layout, gateway.settings.telemetry.metrics_address
    stranger = Stranger(gateway.settings.listen.address, layout.ca, layout.profile("app").with_suffix(".pem"))
    old = (await stranger.knock())[1]
    layout.cert("gateway").write_bytes(b"garbage")

    async def is_alarmed() -> bool:
        return await value(metrics, BAD_CERTIFICATE) > 0

    await until(is_alarmed)
    for _ in range(3):
        assert (await stranger.knock())[1] == old
    assert await value(metrics, BAD_CERTIFICATE) == 1


async def test_health_is_told_for_the_whole_and_for_each_service(app):
    health = health_pb2_grpc.HealthStub(app.channel)
    for name in ["", *(service.full_name for service in ALL)]:
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_lists_every_service(app):
    reflection = reflection_pb2_grpc.ServerReflectionStub(app.channel)
    call = reflection.ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=5
    )
    (answer,) = [answer async for answer in call]
    listed = {service.name for service in answer.list_services_response.service}
    assert listed == {service.full_name for service in ALL} | {
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


async def test_a_message_above_the_limit_is_refused(app):
    request = notice_pb2.GetNoticeRequest(name="n" * (1 << 20))
    answer = await ask(app.channel, "NoticeService/GetNotice", request.SerializeToString())
    assert answer.code == "RESOURCE_EXHAUSTED"


async def test_a_compressed_message_is_refused(app):
    request = notice_pb2.GetNoticeRequest(name="notices/" + "n" * 60)
    answer = await ask(
        app.channel,
        "NoticeService/GetNotice",
        request.SerializeToString(),
        compression=grpc.Compression.Gzip,
    )
    assert answer.code == "UNIMPLEMENTED"


async def test_a_method_of_no_contract_is_unimplemented(app):
    answer = await ask(app.channel, "NoticeService/ListNotices", path="/lethe.v1.NoticeService/Other")
    assert answer.code == "UNIMPLEMENTED"


async def test_a_call_without_a_deadline_is_refused(app):
    for said in (None, "", "soon", "-5", "1e3", "9" * 10):
        metadata = [] if said is None else [("lethe-timeout-ms", said)]
        answer = await ask(app.channel, "NoticeService/ListNotices", timeout_s=None, metadata=metadata)
        assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "DEADLINE_REQUIRED")


async def test_a_deadline_may_be_said_in_metadata(app):
    answer = await ask(
        app.channel, "NoticeService/ListNotices", timeout_s=None, metadata=[("lethe-timeout-ms", "5000")]
    )
    assert answer.code == "OK"


async def test_a_deadline_in_metadata_is_kept(app, subject, gateway):
    gateway.backend.hold()
    made = await app.create_job(header(subject), PORTRAIT.read_bytes())
    request = generation_pb2.WatchJobRequest(name=made.job.name)
    answer = await ask(
        app.channel,
        "GenerationService/WatchJob",
        request.SerializeToString(),
        timeout_s=None,
        metadata=[("lethe-timeout-ms", "300")],
    )
    assert (answer.code, answer.reason) == ("DEADLINE_EXCEEDED", "DEADLINE_TOO_SHORT")


async def test_a_deadline_too_short_for_any_work_is_refused(app):
    answer = await ask(
        app.channel, "NoticeService/ListNotices", timeout_s=None, metadata=[("lethe-timeout-ms", "5")]
    )
    assert (answer.code, answer.reason) == ("DEADLINE_EXCEEDED", "DEADLINE_TOO_SHORT")


async def test_a_huge_deadline_is_cut_to_the_longest_that_is_allowed(app, subject, gateway):
    gateway.backend.hold()
    made = await app.create_job(header(subject), PORTRAIT.read_bytes())
    request = generation_pb2.WatchJobRequest(name=made.job.name)
    async with asyncio.timeout(20):
        answer = await ask(
            app.channel, "GenerationService/WatchJob", request.SerializeToString(), timeout_s=86400
        )
    assert (answer.code, answer.reason) == ("DEADLINE_EXCEEDED", "DEADLINE_TOO_SHORT")


async def test_more_calls_than_the_limit_are_turned_away(app, subject, gateway):
    gateway.backend.hold()
    made = await app.create_job(header(subject), PORTRAIT.read_bytes())
    watches = [app.generation.WatchJob(generation_pb2.WatchJobRequest(name=made.job.name)) for _ in range(4)]
    for watch in watches:
        await watch.read()
    answer = await ask(app.channel, "NoticeService/ListNotices")
    assert answer.code == "RESOURCE_EXHAUSTED"
    for watch in watches:
        watch.cancel()

    async def is_taken() -> bool:
        return (await ask(app.channel, "NoticeService/ListNotices")).code == "OK"

    await until(is_taken)


def upload(subject: str) -> Iterator[generation_pb2.GenerateRequest]:
    """Yield an upload without a request_id."""
    yield generation_pb2.GenerateRequest(header=header(subject))
    portrait = PORTRAIT.read_bytes()
    for start in range(0, len(portrait), 256 << 10):
        yield generation_pb2.GenerateRequest(chunk=portrait[start : start + (256 << 10)])


async def test_a_deadline_that_passes_ends_the_work_that_nobody_can_return_to(app, subject, gateway):
    gateway.backend.hold()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        async for _ in app.generation.Generate(upload(subject), timeout=3):
            pass
    assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    (job,) = (await app.call(app.generation.ListJobs, generation_pb2.ListJobsRequest())).jobs
    ended = await finished(app, job.name)
    assert ended.state == generation_pb2.Job.STATE_CANCELLED
    await until(lambda: not gateway.backend.running)


async def test_a_call_with_a_request_id_may_be_returned_to_after_its_deadline(app, subject, gateway):
    gateway.backend.hold()
    asked = header(subject, request_id=str(uuid.uuid4()))
    with pytest.raises(Refused) as refused:
        async for _ in app.generate(asked, PORTRAIT.read_bytes(), timeout_s=3):
            pass
    assert refused.value.code == "DEADLINE_EXCEEDED"
    gateway.backend.release()
    answers = [answer async for answer in app.generate(asked, PORTRAIT.read_bytes())]
    assert any(answer.WhichOneof("part") == "chunk" for answer in answers)
    assert len((await app.call(app.generation.ListJobs, generation_pb2.ListJobsRequest())).jobs) == 1


@dataclass
class StuckRecords:
    """Records that, once stuck, answer nobody, and tell who gave up."""

    inner: Records
    is_stuck: bool = False
    given_up: asyncio.Event = field(default_factory=asyncio.Event)

    async def transact(self, fn: Any) -> Any:
        if self.is_stuck:
            try:
                await asyncio.Event().wait()
            finally:
                self.given_up.set()
        return await self.inner.transact(fn)


async def test_a_deadline_reaches_the_records(tmp_path):
    layout, _ = edge_folder(tmp_path / "dev")
    stuck: list[StuckRecords] = []

    def wrap(outside):
        stuck.append(StuckRecords(outside.records))
        return replace(outside, records=stuck[0])

    async with running(layout, wrap=wrap) as gateway, gateway.client("app") as app:
        assert (await ask(app.channel, "NoticeService/ListNotices")).code == "OK"
        stuck[0].is_stuck = True
        answer = await ask(app.channel, "NoticeService/ListNotices", timeout_s=0.3)
        async with asyncio.timeout(5):
            await stuck[0].given_up.wait()
        stuck[0].is_stuck = False
    assert answer.code == "DEADLINE_EXCEEDED"


# --- the end -------------------------------------------------------------------------------------


async def test_sigterm_lets_a_running_call_finish(tmp_path):
    layout, _ = edge_folder(tmp_path / "dev", drain_s=2 * PATIENCE_S)
    async with serving_backend(layout) as backend, serving(layout) as process, process.client("app") as app:
        await ready(process, app)
        backend.hold()
        going = asyncio.create_task(everything(app))
        await asyncio.wait_for(backend.held.wait(), PATIENCE_S)
        watch = health_pb2_grpc.HealthStub(app.channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        process.child.terminate()
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
        backend.release()
        answers = await going
        async with asyncio.timeout(PATIENCE_S):
            assert await process.child.wait() == 0
    assert answers[-1].WhichOneof("part") == "receipt"
    assert b"gateway_stopped" in process.said()


async def test_a_drain_ends_although_a_call_does_not_and_nobody_collects_spans(tmp_path):
    layout, _ = edge_folder(tmp_path / "dev", drain_s=0.5)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        text = layout.config.read_text()
        port = mute.getsockname()[1]
        layout.config.write_text(
            text.replace("telemetry:\n", f"telemetry:\n  otlp_endpoint: http://127.0.0.1:{port}\n")
        )
        async with (
            serving_backend(layout) as backend,
            serving(layout) as process,
            process.client("app") as app,
        ):
            await ready(process, app)
            backend.hold()
            going = asyncio.create_task(everything(app))
            await asyncio.wait_for(backend.held.wait(), PATIENCE_S)
            # The call has more time than `drain` has patience.
            assert await process.drain() == 0
            with pytest.raises(Refused):
                await going


async def ready(process: Process, app: Client) -> None:
    """Publish a notice and make a consenting subject known."""
    async with process.client("officer") as officer:
        await publish_notice(officer)
    await add_subject(app, "crew-1")
    await consent(app, "crew-1")


async def everything(app: Client) -> list[generation_pb2.GenerateResponse]:
    return [
        answer
        async for answer in app.generate(header("crew-1"), PORTRAIT.read_bytes(), timeout_s=2 * PATIENCE_S)
    ]
