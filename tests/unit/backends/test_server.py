from __future__ import annotations

import asyncio
import contextlib
import io
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from lethe.backend.v1 import backend_pb2, backend_pb2_grpc
from PIL import Image

from gateway.backends.studio import server as studio_server
from gateway.backends.studio.main import StudioSettings, serve
from gateway.backends.studio.server import Limits, MutualTls, Studio, UnsafePlaintextOnLoopback, make_server
from gateway.weights import WeightsInvalid
from tests.fakes.studio import GatedStudio
from tests.unit.backends.pictures import as_file

PATIENCE_S = 10


class House:
    """A running studio and a stub to talk to it."""

    def __init__(self, studio: Studio, address: str, channel: grpc.aio.Channel) -> None:
        self.studio = studio
        self.address = address
        self.stub = backend_pb2_grpc.InferenceBackendServiceStub(channel)

    def gated(self, fault: Exception | None = None) -> GatedStudio:
        """Put a gated studio in the place of the real one."""
        benches = self.studio.benches
        benches._free.get_nowait()
        gated = GatedStudio(fault)
        benches._free.put_nowait(gated)
        return gated


@contextlib.asynccontextmanager
async def open_house(models, **limits) -> AsyncIterator[House]:
    studio = Studio(models, Limits(**{"benches": 1, "waiting": 1, **limits}))
    server, address = make_server(studio, "127.0.0.1:0", UnsafePlaintextOnLoopback())
    await server.start()
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            yield House(studio, address, channel)
    finally:
        await server.stop(0)
        studio.benches.close()


@pytest.fixture
async def house(models) -> AsyncIterator[House]:
    async with open_house(models) as opened:
        yield opened


def header(image: bytes, **changes) -> backend_pb2.GenerateRequest:
    fields = {
        "job_id": "j1",
        "style": "studio_grey",
        "image_type": "jpeg",
        "size_bytes": len(image),
        **changes,
    }
    return backend_pb2.GenerateRequest(header=backend_pb2.JobHeader(**fields))


def chunks(image: bytes, size: int = 256 << 10) -> list[backend_pb2.GenerateRequest]:
    return [backend_pb2.GenerateRequest(chunk=image[at : at + size]) for at in range(0, len(image), size)]


def order(image: bytes, **changes) -> list[backend_pb2.GenerateRequest]:
    return [header(image, **changes), *chunks(image)]


def generate(house: House, messages, timeout: float | None = PATIENCE_S):
    return house.stub.Generate(iter(messages), timeout=timeout)


async def collect(call) -> tuple[list[backend_pb2.Progress], backend_pb2.ResultHeader, bytes]:
    progress, result, image = [], None, b""
    async for response in call:
        part = response.WhichOneof("part")
        if part == "progress":
            assert result is None
            progress.append(response.progress)
        elif part == "result":
            assert result is None
            result = response.result
        else:
            assert result is not None
            assert 0 < len(response.chunk) <= 256 << 10
            image += response.chunk
    return progress, result, image


async def refusal(call) -> tuple[grpc.StatusCode, str, str]:
    """Return (code, reason, detail) of a call that must be refused."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await collect(call)
    status = rpc_status.from_call(refused.value)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "lethe.dev"
    return refused.value.code(), info.reason, info.metadata.get("detail", "")


async def until_gated(call) -> None:
    async for response in call:
        if response.progress.stage == "gated":
            return


# --- what it says ----------------------------------------------------------------------------


async def test_describe_declares_what_the_studio_does(house):
    facts = await house.stub.Describe(backend_pb2.DescribeRequest(), timeout=PATIENCE_S)
    assert (facts.name, facts.device, facts.region) == ("studio", "cpu", "local")
    assert list(facts.styles) == ["studio_blue", "studio_grey", "studio_warm"]
    assert (facts.retention_seconds, facts.trains_on_inputs) == (0, False)
    assert facts.picture_source == backend_pb2.DescribeResponse.PICTURE_SOURCE_COMPOSITE_SYNTHETIC
    assert facts.face_features == backend_pb2.DescribeResponse.FACE_FEATURES_DETECTION
    assert facts.supports_cancel
    assert facts.supports_forget
    assert len(facts.models) == 2
    assert len(facts.model_digest) == 64


async def test_a_job_gives_progress_then_one_result_then_its_bytes(house, portrait, made):
    progress, result, image = await collect(generate(house, order(portrait)))
    assert progress[0].stage == "queued"
    assert [step.percent for step in progress] == sorted(step.percent for step in progress)
    assert made("studio_grey").image == image
    assert (result.image_type, result.size_bytes, result.width, result.height) == (
        "jpeg",
        len(image),
        1024,
        1280,
    )
    facts = await house.stub.Describe(backend_pb2.DescribeRequest(), timeout=PATIENCE_S)
    assert (facts.name, facts.device, facts.model_digest) == (
        result.backend,
        result.device,
        result.model_digest,
    )


async def test_small_chunks_are_as_good_as_large_ones(house, portrait, made):
    messages = [header(portrait, style="studio_warm"), *chunks(portrait, 1000)]
    assert made("studio_warm").image == (await collect(generate(house, messages)))[2]


async def test_nothing_is_held_after_a_job(house, portrait):
    await collect(generate(house, order(portrait)))
    assert len(house.studio.jobs) == 0
    assert house.studio.jobs._here == {}


# --- stopping and forgetting -----------------------------------------------------------------


async def test_cancel_ends_a_running_job_and_frees_its_bench(house, portrait, made):
    gated = house.gated()
    call = generate(house, order(portrait))
    await until_gated(call)
    await house.stub.Cancel(backend_pb2.CancelRequest(job_id="j1"), timeout=PATIENCE_S)
    assert await refusal(call) == (grpc.StatusCode.CANCELLED, "JOB_CANCELLED", "")
    gated.gate.set()
    assert (await collect(generate(house, order(b"x"))))[2] == b"made of x"


async def test_cancel_ends_a_job_whose_upload_has_not_ended(house, portrait):
    call = house.stub.Generate(timeout=PATIENCE_S)
    await call.write(header(portrait))
    while not house.studio.jobs._here:
        await asyncio.wait_for(house.stub.Describe(backend_pb2.DescribeRequest()), PATIENCE_S)
    await house.stub.Cancel(backend_pb2.CancelRequest(job_id="j1"), timeout=PATIENCE_S)
    assert await refusal(call) == (grpc.StatusCode.CANCELLED, "JOB_CANCELLED", "")


@pytest.mark.parametrize("method", ["Cancel", "Forget"])
async def test_a_job_that_is_not_known_is_no_error(house, method):
    request = getattr(backend_pb2, f"{method}Request")(job_id="never-heard-of")
    for _ in range(2):
        await getattr(house.stub, method)(request, timeout=PATIENCE_S)


async def test_nothing_is_held_when_forget_has_answered(house):
    house.gated()
    call = generate(house, order(b"x"))
    await until_gated(call)
    assert len(house.studio.jobs) == 1
    await house.stub.Forget(backend_pb2.ForgetRequest(job_id="j1"), timeout=PATIENCE_S)
    assert len(house.studio.jobs) == 0
    assert await refusal(call) == (grpc.StatusCode.CANCELLED, "JOB_CANCELLED", "")


async def test_a_dead_client_stops_its_job(house):
    house.gated()
    call = generate(house, order(b"x"))
    await until_gated(call)
    job = next(iter(house.studio.jobs._here.values()))
    call.cancel()
    await asyncio.wait_for(job.gone.wait(), PATIENCE_S)
    assert len(house.studio.jobs) == 0


async def test_a_client_that_drops_its_connection_stops_its_job(models):
    async with open_house(models) as house:
        house.gated()
        async with grpc.aio.insecure_channel(house.address) as channel:
            stub = backend_pb2_grpc.InferenceBackendServiceStub(channel)
            await until_gated(stub.Generate(iter(order(b"x")), timeout=PATIENCE_S))
            job = next(iter(house.studio.jobs._here.values()))
        await asyncio.wait_for(job.gone.wait(), PATIENCE_S)


async def test_a_client_that_stops_reading_can_still_cancel(house):
    gated = house.gated()
    gated.result = bytes(8 << 20)
    gated.gate.set()
    call = generate(house, order(b"x"))
    async for response in call:
        if response.WhichOneof("part") == "result":
            break
    job = next(iter(house.studio.jobs._here.values()))
    await house.stub.Cancel(backend_pb2.CancelRequest(job_id="j1"), timeout=PATIENCE_S)
    await asyncio.wait_for(job.gone.wait(), PATIENCE_S)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        async for _ in call:
            pass
    assert refused.value.code() == grpc.StatusCode.CANCELLED


async def test_a_job_may_be_sent_again_under_its_name_while_the_first_still_runs(house):
    gated = house.gated()
    first = generate(house, order(b"one"))
    await until_gated(first)
    second = generate(house, order(b"two"))
    assert await refusal(first) == (grpc.StatusCode.CANCELLED, "JOB_CANCELLED", "")
    gated.gate.set()
    assert (await collect(second))[2] == b"made of two"


# --- limits and hostile input ----------------------------------------------------------------


async def test_a_full_house_says_so_and_stays_alive(house):
    gated = house.gated()
    calls = [generate(house, order(b"x", job_id=f"j{number}")) for number in range(2)]
    for call in calls:
        await anext(aiter(call))
    refused = await refusal(generate(house, order(b"x", job_id="j9")))
    assert refused == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", "")
    await house.stub.Describe(backend_pb2.DescribeRequest(), timeout=PATIENCE_S)
    gated.gate.set()
    for call in calls:
        assert (await collect(call))[2] == b"made of x"


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "MESSAGE_INVALID"),
        ([backend_pb2.GenerateRequest()], "MESSAGE_INVALID"),
        (chunks(b"x"), "MESSAGE_INVALID"),
        (order(b"x", job_id=""), "MESSAGE_INVALID"),
        (order(b"x", job_id="../x"), "MESSAGE_INVALID"),
        (order(b"x", job_id="j1\n"), "MESSAGE_INVALID"),
        (order(b"x", job_id="j" * 65), "MESSAGE_INVALID"),
        (order(b"x", style="studio_pink"), "MESSAGE_INVALID"),
        (order(b"x", size_bytes=0), "MESSAGE_INVALID"),
        (order(b"x", size_bytes=-1), "MESSAGE_INVALID"),
        (order(b"x", size_bytes=2), "MESSAGE_INVALID"),
        (order(b"xyz", size_bytes=2), "MESSAGE_INVALID"),
        ([header(b"x"), header(b"x")], "MESSAGE_INVALID"),
        ([header(b"x"), backend_pb2.GenerateRequest(chunk=b"")], "MESSAGE_INVALID"),
        (order(b"x", size_bytes=(32 << 20) + 1), "PAYLOAD_TOO_LARGE"),
        (order(b"x", image_type="gif"), "IMAGE_REJECTED"),
        (order(b"x" * 1000), "IMAGE_REJECTED"),
    ],
)
async def test_what_breaks_the_contract_is_refused(house, messages, reason):
    assert reason == (await refusal(generate(house, messages)))[1]
    assert len(house.studio.jobs) == 0


async def test_a_refusal_reaches_a_client_that_is_still_sending(house):
    image = bytes(8 << 20)
    assert (await refusal(generate(house, order(image, style="studio_pink"))))[1] == "MESSAGE_INVALID"


async def test_a_write_that_has_begun_is_through_before_the_call_ends():
    done: list[str] = []
    gate = asyncio.Event()

    class Context:
        async def write(self, _message) -> None:
            await gate.wait()
            done.append("write")

        async def abort_with_status(self, _status) -> None:
            done.append("end")

    answer = studio_server.Answer(Context())
    writing = asyncio.create_task(answer.write(backend_pb2.GenerateResponse()))
    await asyncio.wait({writing}, timeout=0)
    writing.cancel()
    ending = asyncio.create_task(answer.end(status_pb2.Status(code=code_pb2.CANCELLED)))
    await asyncio.wait({writing})
    gate.set()
    await ending
    assert writing.cancelled()
    assert done == ["write", "end"]


async def test_a_chunk_over_the_limit_is_refused(house):
    image = bytes(300 << 10)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await collect(generate(house, [header(image), *chunks(image, len(image))]))
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_picture_without_a_face_is_refused_with_its_detail(house, landscape):
    refused = await refusal(generate(house, order(landscape)))
    assert refused == (grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_REJECTED", "no_face")


async def test_a_picture_over_the_pixel_limit_is_refused(models, portrait):
    async with open_house(models, max_pixels=512 * 511) as house:
        refused = await refusal(generate(house, order(portrait)))
    assert refused == (grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_REJECTED", "too_many_pixels")


async def test_a_job_without_a_deadline_is_refused(house, portrait):
    refused = await refusal(generate(house, order(portrait), timeout=None))
    assert refused[1] == "DEADLINE_REQUIRED"


async def test_a_job_that_takes_too_long_is_ended(models):
    async with open_house(models, job_s=0.05) as house:
        house.gated()
        refused = await refusal(generate(house, order(b"x")))
        assert refused == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT", "")
        await house.stub.Forget(backend_pb2.ForgetRequest(job_id="j1"), timeout=PATIENCE_S)
        assert len(house.studio.jobs) == 0


async def test_an_upload_that_never_ends_is_ended(models, portrait):
    async with open_house(models, upload_s=0.05) as house:
        call = house.stub.Generate(timeout=PATIENCE_S)
        await call.write(header(portrait))
        assert (await refusal(call))[1] == "DEADLINE_TOO_SHORT"
        assert len(house.studio.jobs) == 0


async def test_a_fault_leaves_without_its_words_and_the_next_job_is_done(house):
    gated = house.gated(ValueError("CANARY-5502"))
    with structlog.testing.capture_logs() as events, pytest.raises(grpc.aio.AioRpcError) as refused:
        await collect(generate(house, order(b"x", job_id="CANARY-5502")))
    assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    assert events == [{"event": "job_failed", "fault": "ValueError", "log_level": "error"}]
    gated.fault = None
    gated.gate.set()
    assert (await collect(generate(house, order(b"x"))))[2] == b"made of x"


def test_every_refusal_of_the_studio_has_a_code_of_the_contract():
    assert len({kind.reason for kind in studio_server.CODES}) == len(studio_server.CODES)


async def test_plaintext_is_refused_on_an_address_that_others_reach(models):
    studio = Studio(models, Limits(benches=1))
    try:
        with pytest.raises(ValueError, match="loopback"):
            make_server(studio, "0.0.0.0:0", UnsafePlaintextOnLoopback())
    finally:
        studio.benches.close()


# --- certificates, and the process -----------------------------------------------------------


class Authority:
    """A certificate authority for one test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
        self.cert = self._sign(
            self.name, self.key.public_key(), x509.BasicConstraints(ca=True, path_length=0)
        )
        self.pem = self.cert.public_bytes(serialization.Encoding.PEM)
        (folder / "ca.pem").write_bytes(self.pem)

    def _sign(self, subject, public_key, *extensions) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(hours=1))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, name: str) -> tuple[bytes, bytes]:
        """Return (certificate, key) in PEM for a DNS name."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        cert = self._sign(x509.Name([]), key.public_key(), names)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return cert.public_bytes(serialization.Encoding.PEM), pem

    def files(self) -> MutualTls:
        """Return the server's files."""
        cert, key = self.issue("localhost")
        tls = MutualTls(self.folder / "cert.pem", self.folder / "key.pem", self.folder / "ca.pem")
        tls.cert.write_bytes(cert)
        tls.key.write_bytes(key)
        return tls

    def channel(self, address: str, client: tuple[bytes, bytes] | None) -> grpc.aio.Channel:
        cert, key = client or (None, None)
        credentials = grpc.ssl_channel_credentials(self.pem, key, cert)
        port = address.rpartition(":")[2]
        return grpc.aio.secure_channel(f"localhost:{port}", credentials)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    folder = tmp_path / "pki"
    folder.mkdir()
    return Authority(folder)


@pytest.fixture
async def locked_house(models, authority) -> AsyncIterator[House]:
    studio = Studio(models, Limits(benches=1, waiting=1))
    server, address = make_server(studio, "127.0.0.1:0", authority.files())
    await server.start()
    async with authority.channel(address, authority.issue("gateway")) as channel:
        yield House(studio, address, channel)
    await server.stop(0)
    studio.benches.close()


async def test_a_client_without_a_certificate_is_not_served(locked_house, authority, tmp_path):
    await locked_house.stub.Describe(backend_pb2.DescribeRequest(), timeout=PATIENCE_S)
    stranger_pki = tmp_path / "stranger"
    stranger_pki.mkdir()
    for client in (None, Authority(stranger_pki).issue("gateway")):
        async with authority.channel(locked_house.address, client) as channel:
            stub = backend_pb2_grpc.InferenceBackendServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Describe(backend_pb2.DescribeRequest(), timeout=PATIENCE_S)
            assert refused.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_a_client_can_stop_its_own_job_and_no_other(locked_house, authority):
    gated = locked_house.gated()
    first = generate(locked_house, order(b"x", job_id="j1"))
    await until_gated(first)
    second = generate(locked_house, order(b"x", job_id="j2"))
    await anext(aiter(second))
    async with authority.channel(locked_house.address, authority.issue("other-gateway")) as channel:
        stub = backend_pb2_grpc.InferenceBackendServiceStub(channel)
        await stub.Cancel(backend_pb2.CancelRequest(job_id="j1"), timeout=PATIENCE_S)
        await stub.Forget(backend_pb2.ForgetRequest(job_id="j1"), timeout=PATIENCE_S)
    await locked_house.stub.Cancel(backend_pb2.CancelRequest(job_id="j2"), timeout=PATIENCE_S)
    gated.gate.set()
    assert (await collect(first))[2] == b"made of x"
    assert (await refusal(second))[1] == "JOB_CANCELLED"


async def test_wrong_weights_refuse_the_start(tmp_path):
    settings = StudioSettings("127.0.0.1:0", UnsafePlaintextOnLoopback(), tmp_path)
    with pytest.raises(WeightsInvalid):
        await serve(settings, pytest.fail, asyncio.Event())


CANARY = b"CANARY-8841"
RUN = """
import sys
from pathlib import Path
from gateway.backends.studio.main import run
cert, key, ca, weights = map(Path, sys.argv[1:])
sys.exit(run(address="127.0.0.1:0", cert=cert, key=key, ca=ca, weights=weights))
"""


@contextlib.asynccontextmanager
async def running(tls: MutualTls, weights_dir: Path, work: Path) -> AsyncIterator[tuple[Any, str]]:
    """Yield the studio's process, at home in an empty folder, and its address."""
    work.mkdir()  # noqa: ASYNC240 - a test that waits for nothing else
    files = [str(path.resolve()) for path in (tls.cert, tls.key, tls.ca, weights_dir)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", RUN, *files),
        cwd=work,
        env={**os.environ, "HOME": str(work), "TMPDIR": str(work), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        said = (await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)).decode().split()
        assert said[0] == "listening"
        yield process, said[1]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ended(process) -> bytes:
    """End the process as an operator does; return its log."""
    process.send_signal(signal.SIGTERM)
    rest, said = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert (process.returncode, rest) == (0, b"")
    return said


async def test_the_process_serves_where_it_can_write_no_file_and_ends_on_sigterm(
    authority, weights_dir, portrait, tmp_path
):
    work = tmp_path / "work"
    async with running(authority.files(), weights_dir, work) as (process, address):
        # From here on the kernel refuses every byte that it would write to a file.
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, 0))
        async with authority.channel(address, authority.issue("gateway")) as channel:
            stub = backend_pb2_grpc.InferenceBackendServiceStub(channel)
            image = (await collect(stub.Generate(iter(order(portrait)), timeout=PATIENCE_S)))[2]
        await ended(process)
    assert Image.open(io.BytesIO(image)).size == (1024, 1280)
    assert not list(work.rglob("*"))


async def test_what_the_process_is_sent_is_in_no_log_and_in_no_result(
    authority, weights_dir, portrait, landscape, tmp_path
):
    marked = as_file(Image.open(io.BytesIO(portrait)), quality=95, comment=CANARY)
    job = CANARY.decode()
    async with running(authority.files(), weights_dir, tmp_path / "work") as (process, address):
        async with authority.channel(address, authority.issue("gateway")) as channel:
            stub = backend_pb2_grpc.InferenceBackendServiceStub(channel)
            image = (await collect(stub.Generate(iter(order(marked, job_id=job)), timeout=PATIENCE_S)))[2]
            for bad in (
                order(landscape + CANARY, job_id=job),
                order(marked, job_id=job, style=job),
                order(marked, job_id=f"{job}/.."),
                order(marked[:2000], job_id=job),
                order(CANARY, job_id=job, image_type=job),
                order(CANARY * 100, job_id=job),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await collect(stub.Generate(iter(bad), timeout=PATIENCE_S))
                assert job not in refused.value.debug_error_string()
            await stub.Forget(backend_pb2.ForgetRequest(job_id=job), timeout=PATIENCE_S)
        said = await ended(process)
    assert CANARY not in said + image


async def test_the_process_opens_no_connection_of_its_own(authority, weights_dir, portrait, tmp_path):
    async with running(authority.files(), weights_dir, tmp_path / "work") as (process, address):
        port = int(address.rpartition(":")[2])
        async with authority.channel(address, authority.issue("gateway")) as channel:
            stub = backend_pb2_grpc.InferenceBackendServiceStub(channel)
            await collect(stub.Generate(iter(order(portrait)), timeout=PATIENCE_S))
            ports = local_ports(process.pid)
        await ended(process)
    assert {port} == ports


def local_ports(pid: int) -> set[int]:
    """Return the local port of every IP socket that a process holds."""
    held = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed in the meantime
            held.add(str(fd.readlink()))
    ports = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for row in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            columns = row.split()
            if f"socket:[{columns[9]}]" in held:
                ports.add(int(columns[1].rpartition(":")[2], 16))
    return ports
