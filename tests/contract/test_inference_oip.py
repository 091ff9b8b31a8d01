"""What only a model behind the Open Inference Protocol must be asked: its tensors, its metadata, its lies."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any

import grpc
import pytest
from lethe.oip import open_inference_pb2 as pb
from PIL import Image

from gateway.adapters.inference_oip import ModelMapping, OipInference, Tensor
from gateway.errors import BackendProtocol, BackendUnavailable, ImageRejected, JobCancelled, LetheError
from gateway.ports.inference import Result
from tests.contract.pki import HOSTS, Pki
from tests.fakes.oip import CONTRACT, MAPPING, MODEL, FakeOip, answered, metadata, prefixed, serving_oip

PATIENCE_S = 10.0
NAME = "triton-1"
CANARY = "CANARY-7714"


@pytest.fixture(scope="module")
def pki() -> Pki:
    return Pki.create()


@dataclass
class There:
    """A fake that is served, and the door to it."""

    fake: FakeOip
    door: OipInference
    address: str


def door_to(pki: Pki, address: str, **changes: Any) -> OipInference:
    chain, key = pki.gateway
    given = {
        "name": NAME,
        "address": address,
        "server_name": HOSTS[0],
        "ca": pki.ca,
        "cert": chain,
        "key": key,
        "timeout_s": PATIENCE_S,
        "contract": CONTRACT,
        "mapping": MAPPING,
    }
    return OipInference(**{**given, **changes})


@contextlib.asynccontextmanager
async def visit(pki: Pki, fake: FakeOip | None = None, **changes: Any) -> AsyncIterator[There]:
    fake = fake or FakeOip()
    async with serving_oip(fake, pki.server_credentials()) as address:
        door = door_to(pki, address, **changes)
        try:
            yield There(fake, door, address)
        finally:
            await door.close()


def png(size: tuple[int, int] = (5, 3)) -> bytes:
    file = io.BytesIO()
    Image.frombytes("RGB", size, bytes(range(3 * size[0] * size[1]))).save(file, "PNG")
    return file.getvalue()


async def run(door: OipInference, image: bytes = b"x", **changes: Any) -> Result:
    given = {"prompt": "a blue wall", **changes}
    messages = [message async for message in door.generate("j1", "studio_grey", image, "png", **given)]
    assert isinstance(messages[-1], Result)
    return messages[-1]


async def refusal(work: Any) -> tuple[type[LetheError], str]:
    with pytest.raises(LetheError) as refused:
        await work
    fault: BaseException | None = refused.value
    while fault is not None:
        assert CANARY not in f"{fault!r} {fault}"
        fault = fault.__cause__ or fault.__context__
    return type(refused.value), refused.value.detail


# --- what is sent --------------------------------------------------------------------------------


async def test_a_model_sees_a_picture_a_style_a_prompt_and_a_pseudonym_and_nothing_else(pki):
    async with visit(pki) as there:
        await run(there.door, b"picture", subject_pseudonym="ab" * 16)
    (seen,) = there.fake.seen
    assert {descriptor.name for descriptor, _ in seen.ListFields()} == {
        "model_name",
        "id",
        "inputs",
        "outputs",
        "raw_input_contents",
    }
    assert (seen.model_name, seen.id) == (MODEL, "j1")
    assert [one.name for one in seen.outputs] == ["RESULT"]
    assert [(one.name, one.datatype, list(one.shape)) for one in seen.inputs] == [
        ("IMAGE", "BYTES", [1]),
        ("PROMPT", "BYTES", [1]),
        ("STYLE", "BYTES", [1]),
    ]
    texts = (b"picture", b"a blue wall", b"studio_grey")
    assert list(map(prefixed, texts)) == list(seen.raw_input_contents)


@pytest.mark.parametrize("form", ["hwc", "chw"])
@pytest.mark.parametrize("is_batched", [False, True])
async def test_pixels_go_and_come_back_as_the_mapping_says(pki, form, is_batched):
    mapping = ModelMapping(MODEL, Tensor("IN", form, is_batched), Tensor("OUT", form, is_batched))

    def echo(request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        response = pb.ModelInferResponse(model_name=MODEL, id=request.id)
        response.outputs.add(name="OUT", datatype="UINT8", shape=request.inputs[0].shape)
        response.raw_output_contents.append(request.raw_input_contents[0])
        return response

    fake = FakeOip(mapping, metadata(mapping), answer=echo)
    async with visit(pki, fake, mapping=mapping) as there:
        result = await run(there.door, png())
    (seen,) = fake.seen
    pixels = bytes(range(45))
    if form == "chw":
        pixels = pixels[0::3] + pixels[1::3] + pixels[2::3]
    assert list(seen.raw_input_contents) == [pixels]
    assert list(seen.inputs[0].shape) == [
        *([1] if is_batched else []),
        *((3, 5, 3) if form == "hwc" else (3, 3, 5)),
    ]
    back = Image.open(io.BytesIO(result.image))
    assert (result.image_type, back.format, back.size, back.tobytes()) == (
        "png",
        "PNG",
        (5, 3),
        bytes(range(45)),
    )


async def test_elements_may_come_typed_instead_of_raw(pki):
    """MLServer does so."""
    mapping = replace(MAPPING, output=Tensor("RESULT", "hwc"))

    def typed(request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        response = pb.ModelInferResponse(model_name=MODEL, id=request.id)
        output = response.outputs.add(name="RESULT", datatype="UINT8", shape=[1, 2, 3])
        output.contents.uint_contents.extend(range(6))
        return response

    async with visit(pki, FakeOip(mapping, metadata(mapping), answer=typed), mapping=mapping) as there:
        result = await run(there.door)
    assert Image.open(io.BytesIO(result.image)).tobytes() == bytes(range(6))

    def text(request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        response = answered(request)
        response.outputs[0].contents.bytes_contents.append(response.raw_output_contents.pop()[4:])
        return response

    async with visit(pki, FakeOip(answer=text)) as there:
        assert (await run(there.door)).image_type == "jpeg"


@pytest.mark.parametrize(
    ("contract", "form", "image", "detail"),
    [
        (replace(CONTRACT, max_image_bytes=9), "encoded", b"0123456789", "too_large"),
        (replace(CONTRACT, max_pixels=14), "hwc", png(), "too_many_pixels"),
    ],
)
async def test_a_picture_larger_than_the_contract_says_is_not_sent(pki, contract, form, image, detail):
    mapping = replace(MAPPING, input=Tensor("IMAGE", form))
    fake = FakeOip(mapping, metadata(mapping))
    async with visit(pki, fake, mapping=mapping, contract=contract) as there:
        assert await refusal(run(there.door, image)) == (ImageRejected, detail)
    assert fake.seen == []


async def test_a_picture_of_twelve_megapixels_fits_both_ways(pki):
    """Four megabytes is what gRPC takes where nobody says otherwise."""
    mapping = ModelMapping(MODEL, Tensor("IN", "hwc"), Tensor("OUT", "encoded"))
    big = io.BytesIO()
    Image.new("RGB", (4000, 3000)).save(big, "PNG", compress_level=1)
    answer = prefixed(b"\xff\xd8\xff" + bytes(20 << 20))

    def heavy(request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        response = pb.ModelInferResponse(model_name=MODEL, id=request.id)
        response.outputs.add(name="OUT", datatype="BYTES", shape=[1])
        response.raw_output_contents.append(answer)
        return response

    fake = FakeOip(mapping, metadata(mapping), answer=heavy)
    async with visit(pki, fake, mapping=mapping, contract=replace(CONTRACT, max_pixels=12_000_000)) as there:
        result = await run(there.door, big.getvalue())
    assert len(fake.seen[0].raw_input_contents[0]) == 36_000_000
    assert len(result.image) == len(answer) - 4


# --- what a server says of itself ----------------------------------------------------------------


async def test_the_facts_are_those_of_the_contract_and_a_digest_of_the_metadata(pki):
    async with visit(pki) as there:
        facts = await there.door.describe()
        result = await run(there.door)
    assert (facts.name, facts.version, facts.region, facts.operator) == (NAME, "2.0", "DE", CONTRACT.operator)
    assert (facts.styles, facts.takes_prompts, facts.is_contracted) == (CONTRACT.styles, True, True)
    assert (facts.model_digest, facts.device) == (result.model_digest, result.device)


def said(change: Callable[[pb.ModelMetadataResponse], object]) -> pb.ModelMetadataResponse:
    """Return metadata with one thing changed."""
    changed = metadata()
    change(changed)
    return changed


UNLIKE = {
    "mapping_model": [lambda m: setattr(m, "name", "another")],
    "mapping_inputs": [
        lambda m: m.inputs.pop(),
        lambda m: m.inputs.add(name="SEED", datatype="INT64", shape=[1]),
        lambda m: setattr(m.inputs[0], "name", "image"),
    ],
    "mapping_input": [
        lambda m: setattr(m.inputs[0], "datatype", "UINT8"),
        lambda m: m.inputs[0].shape.append(1),
        lambda m: m.inputs[0].shape.__setitem__(0, 4),
    ],
    "mapping_text": [lambda m: setattr(m.inputs[1], "datatype", "FP32")],
    "mapping_outputs": [lambda m: m.outputs.pop(), lambda m: setattr(m.outputs[0], "name", "OTHER")],
    "mapping_output": [
        lambda m: setattr(m.outputs[0], "datatype", "FP32"),
        lambda m: m.outputs[0].shape.append(3),
    ],
    "bad_metadata": [
        lambda m: setattr(m, "platform", "<b>x</b>"),
        lambda m: m.versions.append("\x1b[31m"),
        lambda m: setattr(m.inputs[0], "name", CANARY + "\n"),
        lambda m: m.outputs.extend(list(m.outputs)),
        lambda m: m.inputs.extend([m.inputs[0]] * 65),
        lambda m: m.inputs[0].shape.extend([1] * 9),
    ],
}


@pytest.mark.parametrize(
    ("detail", "change"), [(detail, change) for detail, changes in UNLIKE.items() for change in changes]
)
async def test_a_model_that_is_not_the_one_described_is_refused_before_anything_is_sent(pki, detail, change):
    async with visit(pki, FakeOip(said=said(change))) as there:
        assert await refusal(there.door.describe()) == (BackendProtocol, detail)
        assert await refusal(run(there.door)) == (BackendProtocol, detail)
    assert there.fake.seen == []


async def test_a_model_of_one_size_only_takes_no_portraits_but_may_give_them(pki):
    mapping = ModelMapping(MODEL, Tensor("IN", "hwc"), Tensor("OUT", "hwc"))
    fixed = metadata(mapping)
    fixed.outputs[0].shape[:] = [512, 512, 3]
    async with visit(pki, FakeOip(mapping, fixed), mapping=mapping) as there:
        await there.door.describe()
        fixed.inputs[0].shape[:] = [512, 512, 3]
        assert await refusal(there.door.describe()) == (BackendProtocol, "mapping_input")


async def test_a_version_is_asked_for_and_must_be_served(pki):
    async with visit(pki, mapping=replace(MAPPING, version="1")) as there:
        await run(there.door)
        assert there.fake.seen[0].model_version == "1"
    async with visit(pki, mapping=replace(MAPPING, version="7")) as there:
        assert await refusal(there.door.describe()) == (BackendProtocol, "mapping_version")


async def test_a_model_that_is_not_there_or_not_ready_gets_no_picture(pki):
    async with visit(pki, FakeOip(is_ready=False)) as there:
        assert await refusal(run(there.door)) == (BackendUnavailable, "model_not_ready")
        assert there.fake.seen == []
    async with visit(pki, mapping=replace(MAPPING, model="another")) as there:
        assert await refusal(run(there.door)) == (BackendProtocol, "status_not_found")
        assert there.fake.seen == []


async def test_a_model_that_has_changed_since_it_was_described_gets_no_picture_until_it_is_again(pki):
    async with visit(pki) as there:
        before = await there.door.describe()
        there.fake.said = said(lambda m: m.versions.append("2"))
        assert await refusal(run(there.door)) == (BackendUnavailable, "metadata_changed")
        assert there.fake.seen == []
        after = await there.door.describe()
        assert before.model_digest != after.model_digest == (await run(there.door)).model_digest


# --- what it answers -----------------------------------------------------------------------------


def lie(change: Callable[[pb.ModelInferResponse], object]) -> Callable[[pb.ModelInferRequest], Any]:
    """Return an answer that is true but for one thing."""

    def answer(request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        response = answered(request)
        change(response)
        return response

    return answer


def instead(content: bytes) -> Callable[[pb.ModelInferResponse], object]:
    return lambda response: response.raw_output_contents.__setitem__(0, content)


LIES = {
    "other_model": [lambda r: setattr(r, "model_name", "another")],
    "other_version": [lambda r: setattr(r, "model_version", "9")],
    "other_job": [lambda r: setattr(r, "id", "j2")],
    "bad_outputs": [
        lambda r: r.outputs.pop(),
        lambda r: r.outputs.extend(list(r.outputs)),
        lambda r: setattr(r.outputs[0], "name", "EMBEDDING"),
        lambda r: r.raw_output_contents.append(b"x"),
    ],
    "bad_datatype": [lambda r: setattr(r.outputs[0], "datatype", "FP32")],
    "bad_shape": [
        lambda r: r.outputs[0].shape.append(1),
        lambda r: r.outputs[0].shape.pop(),
        lambda r: r.outputs[0].shape.__setitem__(0, 2),
        lambda r: r.outputs[0].shape.extend([1] * 9),
    ],
    "bad_length": [
        instead(b""),
        instead(b"\x01\x00"),
        instead(prefixed(b"\xff\xd8\xff" + bytes(9))[:-1]),
        instead(prefixed(b"\xff\xd8\xff") + b"x"),
        lambda r: r.raw_output_contents.pop(),
    ],
    "no_result": [instead(prefixed(b""))],
    "result_too_large": [instead(prefixed(b"\xff\xd8\xff" + bytes(100_000)))],
    "message_too_large": [instead(prefixed(bytes(300_000)))],
    "bad_image_type": [
        instead(prefixed(b"<!DOCTYPE html><html>CANARY-7714</html>")),
        instead(prefixed(b"GIF89a")),
        instead(prefixed(b"%PDF-1.7")),
    ],
}


@pytest.mark.parametrize(
    ("detail", "change"), [(detail, change) for detail, changes in LIES.items() for change in changes]
)
async def test_an_answer_to_something_else_has_its_reason_and_no_picture(pki, detail, change):
    async with visit(pki, FakeOip(answer=lie(change)), max_result_bytes=100_000) as there:
        assert await refusal(run(there.door)) == (BackendProtocol, detail)


PIXEL_LIES = {
    "bad_length": [instead(bytes(64 * 80 * 3 - 1)), instead(bytes(64 * 80 * 3 + 1))],
    "bad_dimensions": [
        lambda r: r.outputs[0].shape.__setitem__(0, 0),
        lambda r: r.outputs[0].shape.__setitem__(1, -64),
    ],
    "bad_shape": [lambda r: r.outputs[0].shape.__setitem__(2, 4)],
    # A bomb: a handful of bytes that says it is four gigapixels.
    "result_too_large": [lambda r: r.outputs[0].shape.__setitem__(slice(None), [65535, 65535, 3])],
    "bad_value": [
        lambda r: (
            r.raw_output_contents.pop(),
            r.outputs[0].contents.uint_contents.extend([256] * 64 * 80 * 3),
        )
    ],
}


@pytest.mark.parametrize(
    ("detail", "change"), [(detail, change) for detail, changes in PIXEL_LIES.items() for change in changes]
)
async def test_pixels_that_are_not_what_their_shape_says_are_no_picture(pki, detail, change):
    mapping = replace(MAPPING, output=Tensor("RESULT", "hwc"))

    def answer(request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        response = answered(request, mapping)
        change(response)
        return response

    fake = FakeOip(mapping, metadata(mapping), answer=answer)
    async with visit(pki, fake, mapping=mapping) as there:
        assert await refusal(run(there.door)) == (BackendProtocol, detail)


async def test_bytes_that_are_no_message_are_no_answer(pki):
    async with visit(pki, FakeOip(answer=lambda _request: b"\xff\xff\xff")) as there:
        assert await refusal(run(there.door)) == (BackendProtocol, "message_garbled")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.UNAVAILABLE, (BackendUnavailable, "unreachable")),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, (BackendUnavailable, "busy")),
        (grpc.StatusCode.DEADLINE_EXCEEDED, (BackendUnavailable, "deadline")),
        (grpc.StatusCode.CANCELLED, (BackendUnavailable, "cut_off")),
        (grpc.StatusCode.INVALID_ARGUMENT, (BackendProtocol, "status_invalid_argument")),
        (grpc.StatusCode.UNKNOWN, (BackendProtocol, "status_unknown")),
        (grpc.StatusCode.UNAUTHENTICATED, (BackendProtocol, "status_unauthenticated")),
    ],
)
async def test_a_refusal_has_a_reason_of_ours_and_none_of_its_words(pki, code, expected):
    async with visit(pki, FakeOip(refuses=code)) as there:
        assert expected == await refusal(run(there.door))


# --- how it ends ---------------------------------------------------------------------------------


async def held(there: There) -> asyncio.Task[Result]:
    """Return a job that the server is busy with."""
    there.fake.go.clear()
    job = asyncio.create_task(run(there.door))
    await asyncio.wait_for(there.fake.began.wait(), PATIENCE_S)
    return job


@pytest.mark.parametrize("how", ["cancel", "forget"])
async def test_to_cancel_or_forget_a_job_closes_its_call_at_the_server(pki, how):
    async with visit(pki) as there:
        job = await held(there)
        await getattr(there.door, how)("j1")
        assert await refusal(job) == (JobCancelled, "")
        await asyncio.wait_for(there.fake.ended.wait(), PATIENCE_S)
        assert (there.fake.running, there.door.running) == (0, {})


@pytest.mark.parametrize("term", ["input_retention_s", "output_retention_s"])
async def test_what_is_kept_by_contract_cannot_be_forgotten_on_demand(pki, term):
    async with visit(pki, contract=replace(CONTRACT, **{term: 60})) as there:
        job = await held(there)
        assert await refusal(there.door.forget("j1")) == (BackendUnavailable, "cannot_forget")
        assert await refusal(job) == (JobCancelled, "")


async def test_a_task_that_is_cancelled_closes_the_call_and_stays_cancelled(pki):
    async with visit(pki) as there:
        job = await held(there)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        await asyncio.wait_for(there.fake.ended.wait(), PATIENCE_S)


async def test_a_server_that_takes_too_long_is_unavailable_and_its_call_has_ended(pki):
    async with visit(pki, timeout_s=0.5) as there:
        assert await refusal(await held(there)) == (BackendUnavailable, "deadline")
        await asyncio.wait_for(there.fake.ended.wait(), PATIENCE_S)


async def test_closing_the_door_ends_a_running_job_as_unavailable(pki):
    async with visit(pki) as there:
        job = await held(there)
        await there.door.close()
        assert await refusal(job) == (BackendUnavailable, "closed")


async def test_a_server_that_cannot_prove_who_it_is_gets_nothing(pki):
    async with visit(pki) as there:
        for changes in ({"ca": Pki.create().ca}, {"server_name": "other.test"}, {"cert": None, "key": None}):
            door = door_to(pki, there.address, **changes)
            assert await refusal(run(door)) == (BackendUnavailable, "unreachable")
            await door.close()
    assert there.fake.seen == []
