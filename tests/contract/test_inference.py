"""The same questions to every backend, then what only a stranger behind gRPC must be asked."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from lethe.backend.v1 import backend_pb2

from gateway import weights
from gateway.adapters import backend_channel, inference_grpc
from gateway.adapters.inference_grpc import GrpcInference
from gateway.adapters.inference_oip import OipInference
from gateway.backends.studio.picture import MODELS
from gateway.backends.studio.server import Limits, Studio, make_server
from gateway.errors import BackendProtocol, BackendUnavailable, ImageRejected, JobCancelled, LetheError
from gateway.ports.inference import BackendFacts, Inference, Progress, Result
from gateway.weights import fetch
from tests.contract.backend_kit import BackendContract, Bench
from tests.contract.pki import HOSTS, Pki
from tests.fakes.inference import FakeInference, paint
from tests.fakes.oip import CONTRACT, MAPPING, FakeOip, serving_oip
from tests.fakes.studio import GatedStudio
from tests.unit.backends.pictures import landscape

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 10.0
CHUNK = 256 << 10
CANARY = "CANARY-7714"
DIGEST = "ab" * 32
NAME = "backend-1"
STYLES = ("studio_grey", "studio_blue")
PICTURE = paint(b"somebody", "sitting")


# --- certificates --------------------------------------------------------------------------------


def door_to(pki: Pki, address: str, **changes: Any) -> GrpcInference:
    chain, key = pki.gateway
    given = {
        "name": NAME,
        "address": address,
        "server_name": HOSTS[0],
        "ca": pki.ca,
        "cert": chain,
        "key": key,
        "timeout_s": PATIENCE_S,
    }
    return GrpcInference(**{**given, **changes})


@pytest.fixture(scope="module")
def pki() -> Pki:
    return Pki.create()


# --- every backend -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models() -> dict[str, bytes]:
    folder = weights.directory()
    fetch.fetch(folder)
    return weights.read(folder, weights.named(*MODELS))


@pytest.fixture(scope="module")
def portrait() -> bytes:
    return (ROOT / "gateway" / "admin" / "data" / "eileen-collins.jpg").read_bytes()


@dataclass
class FakeBench(Bench):
    """The fake itself."""

    def hold(self) -> None:
        self.inference.hold()

    def release(self) -> None:
        self.inference.release()

    def working(self) -> int:
        return len(self.inference.running)

    def runs(self) -> int:
        return sum(call.method == "generate" for call in self.inference.seen)


class TestFake(BackendContract):
    """The fake keeps the contract that it stands for."""

    @pytest.fixture
    async def bench(self) -> Bench:
        return FakeBench(FakeInference(name=NAME), NAME, STYLES, PICTURE)


@dataclass
class StudioBench(Bench):
    """The real studio behind the real door."""

    studio: Studio | None = None
    gated: GatedStudio | None = None
    entered: int = 0

    def hold(self) -> None:
        self.studio.benches._free.get_nowait()
        self.gated = GatedStudio()
        self.studio.benches._free.put_nowait(self.gated)

    def release(self) -> None:
        self.gated.gate.set()

    def working(self) -> int:
        return len(self.studio.jobs)

    def runs(self) -> int:
        return self.entered


@pytest.fixture
async def studio(models, pki, portrait, tmp_path, monkeypatch) -> AsyncIterator[StudioBench]:
    studio = Studio(models, Limits(benches=1, waiting=1))
    server, address = make_server(studio, "127.0.0.1:0", pki.files(tmp_path))
    await server.start()
    inference = door_to(pki, address, timeout_s=60.0)
    cannot = {"prompt": "what it makes of wishes its own tests ask"}
    bench = StudioBench(inference, NAME, STYLES, portrait, cannot=cannot, studio=studio)
    enter = studio.jobs.enter

    async def counted(*which: str) -> Any:
        bench.entered += 1
        return await enter(*which)

    monkeypatch.setattr(studio.jobs, "enter", counted)
    try:
        yield bench
    finally:
        await inference.close()
        await server.stop(0)
        studio.benches.close()


class TestStudio(BackendContract):
    """The studio keeps the contract, over the wire."""

    @pytest.fixture
    async def bench(self, studio: StudioBench) -> StudioBench:
        return studio


@dataclass
class OipBench(Bench):
    """A model behind the Open Inference Protocol."""

    fake: FakeOip | None = None

    def hold(self) -> None:
        self.fake.go.clear()

    def release(self) -> None:
        self.fake.go.set()

    def working(self) -> int:
        return self.fake.running

    def runs(self) -> int:
        return len(self.fake.seen)

    def seen(self) -> bytes:
        return b"".join(asked.SerializeToString() for asked in self.fake.seen)


class TestOip(BackendContract):
    """So does a model behind the Open Inference Protocol."""

    @pytest.fixture
    async def bench(self, pki: Pki) -> AsyncIterator[OipBench]:
        fake = FakeOip()
        async with serving_oip(fake, pki.server_credentials()) as address:
            chain, key = pki.gateway
            inference = OipInference(
                name=NAME,
                address=address,
                server_name=HOSTS[0],
                ca=pki.ca,
                cert=chain,
                key=key,
                timeout_s=PATIENCE_S,
                contract=CONTRACT,
                mapping=MAPPING,
            )
            try:
                yield OipBench(inference, NAME, STYLES, PICTURE, fake=fake)
            finally:
                fake.go.set()
                await inference.close()


async def collect(
    inference: Inference, image: bytes, *, job: str = "j1", style: str = "studio_grey", kind: str = "jpeg"
) -> tuple[list[Progress], Result | None]:
    """Return (progress, result) of a job."""
    progress: list[Progress] = []
    result: Result | None = None
    async for message in inference.generate(job, style, image, kind):
        assert result is None, "something follows the result"
        if isinstance(message, Result):
            result = message
        else:
            progress.append(message)
    return progress, result


async def rest(jobs: AsyncIterator[Progress | Result]) -> list[Progress | Result]:
    return [message async for message in jobs]


async def test_a_picture_without_a_face_is_rejected_by_the_studio_and_leaves_nothing(studio):
    with pytest.raises(ImageRejected) as rejected:
        await collect(studio.inference, landscape())
    assert (rejected.value.detail, studio.working()) == ("no_face", 0)


async def test_a_picture_without_a_face_is_rejected_by_the_fake_where_it_is_told_to():
    fake = FakeInference()
    fake.rejects = "no_face"
    with pytest.raises(ImageRejected) as rejected:
        await collect(fake, b"x")
    assert (rejected.value.detail, fake.running) == ("no_face", {})


# --- the fake itself -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["describe", "generate", "cancel", "forget"])
async def test_the_fake_can_be_unreachable_and_then_learns_nothing(method):
    fake = FakeInference()
    fake.faults.lose(method)
    asks = {"describe": (), "generate": (b"x",), "cancel": ("j1",), "forget": ("j1",)}
    ask = collect(fake, *asks[method]) if method == "generate" else getattr(fake, method)(*asks[method])
    with pytest.raises(BackendUnavailable):
        await ask
    assert fake.seen == []


async def test_the_fake_records_everything_it_was_given():
    fake = FakeInference()
    await collect(fake, b"picture", job="pseudonym")
    await fake.forget("pseudonym")
    assert [(call.method, call.job_pseudonym, call.style) for call in fake.seen] == [
        ("generate", "pseudonym", "studio_grey"),
        ("forget", "pseudonym", ""),
    ]
    assert b"picture" in fake.everything_seen()


async def test_the_fake_can_put_metadata_into_its_result():
    fake = FakeInference()
    fake.metadata = CANARY.encode()
    dirty = (await collect(fake, b"x"))[1].image
    fake.metadata = b""
    clean = (await collect(fake, b"x"))[1].image
    assert (dirty.count(CANARY.encode()), clean.count(CANARY.encode())) == (2, 0)


async def test_the_fake_can_break_its_contract_and_even_the_ports():
    fake = FakeInference()
    fake.breaks = "two_results"
    with pytest.raises(BackendProtocol) as broken:
        await collect(fake, b"x")
    assert broken.value.detail == "two_results"
    fake.breaks, fake.ends_without_result = "", True
    assert (await collect(fake, b"x"))[1] is None


# --- a stranger behind gRPC ----------------------------------------------------------------------

FACTS = backend_pb2.DescribeResponse(
    name="stranger",
    version="1.0",
    device="NVIDIA H100 80GB HBM3 (cuda:0)",
    model_digest=DIGEST,
    models=[backend_pb2.Model(name="model.safetensors", sha256=DIGEST)],
    styles=["oil", "ink"],
    region="DE",
    retention_seconds=30,
    trains_on_inputs=True,
    face_features=backend_pb2.DescribeResponse.FACE_FEATURES_NONE,
    picture_source=backend_pb2.DescribeResponse.PICTURE_SOURCE_COMPOSITE_SYNTHETIC,
    supports_cancel=False,
    supports_forget=True,
)
Status = status_pb2.Status
Answer = backend_pb2.GenerateResponse | bytes


@dataclass
class Stranger:
    """A backend that says what it is told to say, well-formed or not."""

    facts: bytes = field(default_factory=FACTS.SerializeToString)
    script: list[Answer] = field(default_factory=list)
    status: Status | None = None
    bare: tuple[grpc.StatusCode, str] | None = None
    trailers: tuple[tuple[str, bytes], ...] = ()
    is_silent: bool = False
    is_endless: bool = False
    reads_first: bool = True
    orders: list[list[backend_pb2.GenerateRequest]] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    deadlines_s: list[float] = field(default_factory=list)
    began: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def unary(self, _request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        await self._end(context)
        return self.facts

    async def generate(self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> None:
        try:
            if self.reads_first:
                parse = backend_pb2.GenerateRequest.FromString
                self.orders.append([parse(request) async for request in requests])
            for message in self.script:
                await context.write(_bytes(message))
            while self.is_endless:
                await context.write(_bytes(self.script[-1]))
            await self._end(context)
        finally:
            self.ended.set()

    async def _end(self, context: grpc.aio.ServicerContext) -> None:
        self.deadlines_s.append(context.time_remaining())
        self.metadata.append(dict(context.invocation_metadata()))
        self.began.set()
        if self.is_silent:
            await asyncio.Event().wait()
        if self.trailers:
            context.set_trailing_metadata(self.trailers)
        if self.bare:
            await context.abort(*self.bare)
        if self.status is not None:
            await context.abort_with_status(rpc_status.to_status(self.status))

    def handler(self) -> grpc.GenericRpcHandler:
        unary = grpc.unary_unary_rpc_method_handler(self.unary)
        methods = dict.fromkeys(("Describe", "Cancel", "Forget"), unary)
        methods["Generate"] = grpc.stream_stream_rpc_method_handler(self.generate)
        return grpc.method_handlers_generic_handler("lethe.backend.v1.InferenceBackendService", methods)


def _bytes(message: Any) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


@dataclass
class Visit:
    """A stranger, where it is, and the door to it."""

    stranger: Stranger
    address: str
    server: grpc.aio.Server
    door: GrpcInference


@contextlib.asynccontextmanager
async def visit(pki: Pki, stranger: Stranger, **changes: Any) -> AsyncIterator[Visit]:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((stranger.handler(),))
    address = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', pki.server_credentials())}"
    await server.start()
    door = door_to(pki, address, **changes)
    try:
        yield Visit(stranger, address, server, door)
    finally:
        await door.close()
        await server.stop(0)


def progress(percent: int = 1, stage: str = "paint") -> backend_pb2.GenerateResponse:
    return backend_pb2.GenerateResponse(progress=backend_pb2.Progress(percent=percent, stage=stage))


def header(**changes: Any) -> backend_pb2.GenerateResponse:
    fields = {
        "image_type": "jpeg",
        "size_bytes": 3,
        "width": 1,
        "height": 1,
        "backend": "stranger",
        "device": "cuda:0",
        "model_digest": DIGEST,
        **changes,
    }
    return backend_pb2.GenerateResponse(result=backend_pb2.ResultHeader(**fields))


def chunk(content: bytes = b"abc") -> backend_pb2.GenerateResponse:
    return backend_pb2.GenerateResponse(chunk=content)


def changed(**changes: Any) -> backend_pb2.DescribeResponse:
    facts = backend_pb2.DescribeResponse.FromString(FACTS.SerializeToString())
    for name, value in changes.items():
        if isinstance(value, list):
            facts.ClearField(name)
            getattr(facts, name).extend(value)
        else:
            setattr(facts, name, value)
    return facts


def with_reason(code: grpc.StatusCode, reason: str, detail: str = "", domain: str = "lethe.dev") -> Status:
    info = error_details_pb2.ErrorInfo(
        reason=reason, domain=domain, metadata={"detail": detail} if detail else {}
    )
    packed = any_pb2.Any()
    packed.Pack(info)
    return Status(code=code.value[0], message=CANARY, details=[packed])


async def refusal(door: GrpcInference) -> tuple[type[LetheError], str]:
    """Return (class, detail) of a job that must fail, and demand that it quotes nobody."""
    with pytest.raises(LetheError) as refused:
        await collect(door, b"x")
    quotes_nobody(refused.value)
    return type(refused.value), refused.value.detail


def quotes_nobody(refused: LetheError) -> None:
    assert (refused.__cause__, refused.__context__) == (None, None)
    assert CANARY not in "".join(traceback.format_exception(refused))
    assert CANARY not in repr(vars(refused))


GOOD = [progress(0, "queued"), progress(0), progress(100), header(), chunk(b"a"), chunk(b"bc")]


async def test_a_stranger_that_keeps_the_contract_is_served_well(pki):
    async with visit(pki, Stranger(script=GOOD)) as there:
        told, result = await collect(there.door, b"x")
    assert told == [Progress(0, "queued"), Progress(0, "paint"), Progress(100, "paint")]
    assert result == Result(b"abc", "jpeg", NAME, "cuda:0", DIGEST)


async def test_a_backend_is_told_pseudonym_style_type_and_picture_and_nothing_else(pki):
    image = bytes(range(256)) * 2500
    async with visit(pki, Stranger(script=GOOD)) as there:
        await collect(there.door, image, job="p-1", style="oil", kind="webp")
    (sent,) = there.stranger.orders
    expected = backend_pb2.JobHeader(job_id="p-1", style="oil", image_type="webp", size_bytes=len(image))
    assert expected == sent[0].header
    sizes = [len(message.chunk) for message in sent[1:]]
    assert [CHUNK, CHUNK, len(image) - 2 * CHUNK] == sizes
    assert image == b"".join(message.chunk for message in sent[1:])
    assert {"user-agent"} == set(there.stranger.metadata[0])


async def test_a_scrubbed_prompt_and_a_pseudonym_of_the_subject_go_along_where_they_are_given(pki):
    async with visit(pki, Stranger(script=GOOD)) as there:
        given = {"prompt": "[person] in blue", "subject_pseudonym": "a" * 32}
        _ = [one async for one in there.door.generate("p-1", "oil", b"x", "webp", **given)]
    header = there.stranger.orders[0][0].header
    assert (header.prompt, header.subject_id) == ("[person] in blue", "a" * 32)


async def test_no_call_carries_a_trace_or_anything_else_of_ours(pki):
    """Not even where a span is open and the caller's own metadata had one."""
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider().get_tracer("t")
    async with visit(pki, Stranger(script=GOOD)) as there:
        with tracer.start_as_current_span("upload", attributes={"subject": CANARY}):
            await there.door.describe()
            await collect(there.door, b"x")
            await there.door.cancel("j1")
            await there.door.forget("j1")
    assert [{"user-agent"}] * 4 == [set(metadata) for metadata in there.stranger.metadata]
    assert len({metadata["user-agent"] for metadata in there.stranger.metadata}) == 1
    assert CANARY not in repr(there.stranger.metadata)


async def test_every_call_has_a_deadline_and_a_job_has_that_of_the_configuration(pki):
    async with visit(pki, Stranger(script=GOOD), timeout_s=90.0) as there:
        await there.door.describe()
        await there.door.cancel("j1")
        await there.door.forget("j1")
        await collect(there.door, b"x")
    # The wire rounds a deadline up.
    assert all(0 < left <= backend_channel.CALL_S + 1 for left in there.stranger.deadlines_s[:3])
    assert 60 < there.stranger.deadlines_s[3] <= 91


async def test_what_a_backend_declares_is_carried_over(pki):
    async with visit(pki, Stranger()) as there:
        facts = await there.door.describe()
    assert facts == BackendFacts(
        name=NAME,
        version="1.0",
        device="NVIDIA H100 80GB HBM3 (cuda:0)",
        model_digest=DIGEST,
        styles=("oil", "ink"),
        region="DE",
        retention_s=30,
        trains_on_inputs=True,
        template_extracted=False,
        supports_cancel=False,
        supports_forget=True,
        source="composite_synthetic",
        takes_prompts=False,
    )


@pytest.mark.parametrize(
    ("declared", "extracted"),
    [
        (backend_pb2.DescribeResponse.FACE_FEATURES_UNSPECIFIED, True),
        (backend_pb2.DescribeResponse.FACE_FEATURES_NONE, False),
        (backend_pb2.DescribeResponse.FACE_FEATURES_DETECTION, True),
        (backend_pb2.DescribeResponse.FACE_FEATURES_TEMPLATE, True),
        (99, True),
    ],
)
async def test_a_template_counts_as_extracted_unless_no_faces_are_looked_for(pki, declared, extracted):
    """law.md 2.3: true unless the backend declares `face_features: none`."""
    async with visit(pki, Stranger(facts=changed(face_features=declared).SerializeToString())) as there:
        assert (await there.door.describe()).template_extracted is extracted


@pytest.mark.parametrize(
    ("facts", "detail"),
    [
        (changed(name=""), "bad_name"),
        (changed(name="<b>x</b>"), "bad_name"),
        (changed(version="1\n2"), "bad_version"),
        (changed(device="cpu\x1b[31m"), "bad_device"),
        (changed(device="x" * 64), "bad_device"),
        (changed(model_digest=DIGEST.upper()), "bad_digest"),
        (changed(model_digest=""), "bad_digest"),
        (changed(models=[backend_pb2.Model(name="../x", sha256=DIGEST)]), "bad_models"),
        (changed(models=[backend_pb2.Model(name="x", sha256="no")]), "bad_models"),
        (changed(models=[backend_pb2.Model(name="x", sha256=DIGEST)] * 65), "bad_models"),
        (changed(styles=[]), "bad_styles"),
        (changed(styles=["Oil Paint"]), "bad_styles"),
        (changed(styles=[f"s{number}" for number in range(65)]), "bad_styles"),
        (changed(region="Germany"), "bad_region"),
        (changed(retention_seconds=-1), "bad_retention"),
        (changed(max_pixels=-1), "bad_limits"),
        (changed(max_image_bytes=-1), "bad_limits"),
        (b"\xff\xff\xff", "message_garbled"),
        (changed(name="x" * 300_000), "message_too_large"),
    ],
)
async def test_a_declaration_outside_the_contract_is_refused(pki, facts, detail):
    async with visit(pki, Stranger(facts=_bytes(facts))) as there:
        with pytest.raises(BackendProtocol) as refused:
            await there.door.describe()
    assert detail == refused.value.detail


BAD_STAGES = ("", "Paint", "a b", "paint\n", "p" * 33, CANARY, "<script>", "p\u00e9", "../x", "\x1b[2J")
BREAKS = {
    "no_result": [[], [progress()]],
    "less_than_announced": [[header()], [header(), chunk(b"ab")]],
    "more_than_announced": [[header(), chunk(b"abcd")], [header(), chunk(), chunk(b"d")]],
    "two_results": [[header(), header()], [*GOOD, header()]],
    "chunk_before_result": [[chunk()], [progress(), chunk(), header()]],
    "progress_after_result": [[header(), progress(), chunk()]],
    "bad_chunk": [[header(), chunk(b""), chunk()], [header(size_bytes=CHUNK + 1), chunk(bytes(CHUNK + 1))]],
    "message_too_large": [[header(size_bytes=1 << 20), chunk(bytes(1 << 20))]],
    "message_empty": [[backend_pb2.GenerateResponse()], [b""]],
    "message_garbled": [[b"\xff\xff\xff"], [b"\x12\x7f" + CANARY.encode()]],
    "bad_image_type": [[header(image_type=kind)] for kind in ("", "gif", "image/jpeg", "JPEG", "jpeg\0")],
    "bad_size": [[header(size_bytes=0)], [header(size_bytes=-1)]],
    "result_too_large": [[header(size_bytes=1 << 62)]],
    "bad_dimensions": [[header(width=0)], [header(height=-1)], [header(width=1 << 30)]],
    "bad_name": [[header(backend=CANARY + " ")]],
    "bad_device": [[header(device="\u202e" + CANARY)]],
    "bad_digest": [[header(model_digest="")], [header(model_digest=CANARY)]],
    "bad_percent": [[progress(-1)], [progress(101)], [progress(1 << 30)], [progress(50), progress(49)]],
    "bad_stage": [[progress(stage=stage)] for stage in BAD_STAGES],
}


@pytest.mark.parametrize(
    ("detail", "script"),
    [
        pytest.param(detail, script, id=f"{detail}-{number}")
        for detail, scripts in BREAKS.items()
        for number, script in enumerate(scripts)
    ],
)
async def test_an_answer_outside_the_contract_is_refused_and_gives_no_picture(pki, detail, script):
    async with visit(pki, Stranger(script=script)) as there:
        assert await refusal(there.door) == (BackendProtocol, detail)


async def test_a_broken_answer_ends_the_call_at_once(pki):
    async with visit(pki, Stranger(script=[chunk()], is_silent=True)) as there:
        assert await refusal(there.door) == (BackendProtocol, "chunk_before_result")
        await asyncio.wait_for(there.stranger.ended.wait(), PATIENCE_S)


@pytest.mark.parametrize("message", [progress(), chunk(b"a")])
async def test_a_flood_of_messages_is_cut_off(pki, monkeypatch, message):
    monkeypatch.setattr(inference_grpc, "MAX_MESSAGES", 50)
    script = [header(size_bytes=1 << 20), message] if message.chunk else [message]
    async with visit(pki, Stranger(script=script, is_endless=True)) as there:
        assert await refusal(there.door) == (BackendProtocol, "too_many_messages")
        await asyncio.wait_for(there.stranger.ended.wait(), PATIENCE_S)


async def test_a_result_may_be_as_large_as_the_limit_and_no_larger(pki):
    image = bytes(CHUNK) + b"end"
    script = [header(size_bytes=len(image)), chunk(image[:CHUNK]), chunk(image[CHUNK:])]
    async with visit(pki, Stranger(script=script), max_result_bytes=len(image)) as there:
        assert image == (await collect(there.door, b"x"))[1].image
    async with visit(pki, Stranger(script=script), max_result_bytes=len(image) - 1) as there:
        assert await refusal(there.door) == (BackendProtocol, "result_too_large")


Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "reason", "detail", "expected"),
    [
        *(
            (Code.INVALID_ARGUMENT, "IMAGE_REJECTED", detail, (ImageRejected, detail))
            for detail in sorted(inference_grpc.IMAGE_DETAILS)
        ),
        (Code.INVALID_ARGUMENT, "IMAGE_REJECTED", "", (BackendProtocol, "bad_detail")),
        (Code.INVALID_ARGUMENT, "IMAGE_REJECTED", CANARY, (BackendProtocol, "bad_detail")),
        (Code.RESOURCE_EXHAUSTED, "PAYLOAD_TOO_LARGE", "", (ImageRejected, "too_large")),
        (Code.RESOURCE_EXHAUSTED, "RATE_LIMITED", "", (BackendUnavailable, "busy")),
        (Code.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT", "", (BackendUnavailable, "deadline")),
        (Code.CANCELLED, "JOB_CANCELLED", CANARY, (JobCancelled, "")),
        (Code.INVALID_ARGUMENT, "MESSAGE_INVALID", CANARY, (BackendProtocol, "message_refused")),
        (Code.INVALID_ARGUMENT, "DEADLINE_REQUIRED", "", (BackendProtocol, "deadline_refused")),
        (Code.INVALID_ARGUMENT, CANARY, "", (BackendProtocol, "unknown_reason")),
        (Code.UNAVAILABLE, "", "", (BackendProtocol, "unknown_reason")),
    ],
)
async def test_a_reason_of_the_contract_is_translated_and_any_other_breaks_it(
    pki, code, reason, detail, expected
):
    async with visit(pki, Stranger(script=[progress()], status=with_reason(code, reason, detail))) as there:
        assert expected == await refusal(there.door)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (Code.UNAVAILABLE, (BackendUnavailable, "unreachable")),
        (Code.RESOURCE_EXHAUSTED, (BackendUnavailable, "busy")),
        (Code.DEADLINE_EXCEEDED, (BackendUnavailable, "deadline")),
        (Code.CANCELLED, (BackendUnavailable, "cut_off")),
        (Code.INTERNAL, (BackendProtocol, "status_internal")),
        (Code.UNKNOWN, (BackendProtocol, "status_unknown")),
        (Code.UNIMPLEMENTED, (BackendProtocol, "status_unimplemented")),
        (Code.UNAUTHENTICATED, (BackendProtocol, "status_unauthenticated")),
        (Code.INVALID_ARGUMENT, (BackendProtocol, "status_invalid_argument")),
    ],
)
async def test_a_bare_status_is_translated_by_its_code_and_never_quoted(pki, code, expected):
    async with visit(pki, Stranger(bare=(code, CANARY))) as there:
        assert expected == await refusal(there.door)


async def test_a_reason_of_another_domain_says_nothing_to_us(pki):
    status = with_reason(Code.UNAVAILABLE, "IMAGE_REJECTED", "no_face", domain="proxy.example")
    async with visit(pki, Stranger(status=status)) as there:
        assert await refusal(there.door) == (BackendUnavailable, "unreachable")


@pytest.mark.parametrize("details", [b"\xff\xff\xff", Status(code=5, message="other").SerializeToString()])
async def test_details_that_are_garbage_or_contradict_the_status_break_the_contract(pki, details):
    stranger = Stranger(bare=(Code.UNAVAILABLE, "x"), trailers=(("grpc-status-details-bin", details),))
    async with visit(pki, stranger) as there:
        assert await refusal(there.door) == (BackendProtocol, "status_garbled")


async def test_a_failure_after_all_the_bytes_gives_no_picture(pki):
    async with visit(pki, Stranger(script=GOOD, bare=(Code.UNAVAILABLE, ""))) as there:
        assert await refusal(there.door) == (BackendUnavailable, "unreachable")


@pytest.mark.parametrize("method", ["cancel", "forget", "describe"])
async def test_calls_that_provide_for_no_refusal_fail_as_protocol_or_as_unavailable(pki, method):
    arguments = () if method == "describe" else ("j1",)
    cases = {
        (BackendProtocol, "unexpected_reason"): with_reason(
            Code.INVALID_ARGUMENT, "IMAGE_REJECTED", "no_face"
        ),
        (BackendUnavailable, "busy"): with_reason(Code.RESOURCE_EXHAUSTED, "RATE_LIMITED"),
    }
    for expected, status in cases.items():
        async with visit(pki, Stranger(status=status)) as there:
            with pytest.raises(LetheError) as refused:
                await getattr(there.door, method)(*arguments)
        quotes_nobody(refused.value)
        assert expected == (type(refused.value), refused.value.detail)


async def test_a_silent_backend_is_unavailable_at_the_deadline_and_its_call_has_ended(pki):
    async with visit(pki, Stranger(script=[progress()], is_silent=True), timeout_s=0.5) as there:
        assert await refusal(there.door) == (BackendUnavailable, "deadline")
        await asyncio.wait_for(there.stranger.ended.wait(), PATIENCE_S)
        with pytest.raises(BackendUnavailable):
            await there.door.describe()


async def test_a_task_that_is_cancelled_ends_the_call_and_stays_cancelled(pki):
    async with visit(pki, Stranger(is_silent=True)) as there:
        task = asyncio.create_task(collect(there.door, b"x"))
        await asyncio.wait_for(there.stranger.began.wait(), PATIENCE_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(there.stranger.ended.wait(), PATIENCE_S)


async def test_closing_the_door_ends_a_running_job_as_unavailable(pki):
    async with visit(pki, Stranger(is_silent=True)) as there:
        task = asyncio.create_task(refusal(there.door))
        await asyncio.wait_for(there.stranger.began.wait(), PATIENCE_S)
        await there.door.close()
        assert await asyncio.wait_for(task, PATIENCE_S) == (BackendUnavailable, "closed")


async def test_a_backend_that_dies_during_a_job_is_unavailable(pki):
    async with visit(pki, Stranger(script=[progress()], is_silent=True)) as there:
        task = asyncio.create_task(refusal(there.door))
        await asyncio.wait_for(there.stranger.began.wait(), PATIENCE_S)
        await there.server.stop(0)
        assert (await asyncio.wait_for(task, PATIENCE_S))[0] is BackendUnavailable


async def test_a_backend_that_dies_during_the_upload_is_unavailable(pki):
    async with visit(pki, Stranger(is_silent=True, reads_first=False)) as there:
        task = asyncio.create_task(there.door.generate("j1", "oil", bytes(32 << 20), "png").__anext__())
        await asyncio.wait_for(there.stranger.began.wait(), PATIENCE_S)
        await there.server.stop(0)
        with pytest.raises(BackendUnavailable):
            await asyncio.wait_for(task, PATIENCE_S)


async def test_a_refusal_during_the_upload_is_at_worst_a_backend_that_was_cut_off(pki):
    """grpc.aio may lose the refusal of a stream that ends while it writes; a retry then asks again."""
    rejected = with_reason(Code.INVALID_ARGUMENT, "IMAGE_REJECTED", "no_face")
    async with visit(pki, Stranger(status=rejected, reads_first=False)) as there:
        with pytest.raises(LetheError) as refused:
            await collect(there.door, bytes(16 << 20))
    ends = {(ImageRejected, "no_face"), (BackendUnavailable, "cut_off")}
    assert (type(refused.value), refused.value.detail) in ends


async def test_a_backend_that_is_not_there_is_unreachable(pki):
    async with visit(pki, Stranger()) as there:
        await there.server.stop(0)
        assert await refusal(there.door) == (BackendUnavailable, "unreachable")


async def test_a_backend_that_cannot_prove_who_it_is_gets_no_picture(pki):
    stranger = Stranger(script=GOOD)
    async with visit(pki, stranger) as there:
        for changes in ({"ca": Pki.create().ca}, {"server_name": "other.test"}, {"server_name": None}):
            door = door_to(pki, there.address, **changes)
            assert await refusal(door) == (BackendUnavailable, "unreachable")
            await door.close()
    assert stranger.orders == []


async def test_a_gateway_of_another_authority_is_not_served(pki):
    other = replace(pki, gateway=Pki.create().gateway)
    async with visit(pki, Stranger(script=GOOD)) as there:
        door = door_to(other, there.address)
        assert await refusal(door) == (BackendUnavailable, "unreachable")
        await door.close()


async def test_no_proxy_of_the_environment_is_asked(pki, monkeypatch):
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "no_grpc_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with visit(pki, Stranger(script=GOOD)) as there:
        assert (await collect(there.door, b"x"))[1] is not None
