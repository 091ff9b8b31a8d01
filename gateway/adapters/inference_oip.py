"""The door to a model behind the Open Inference Protocol v2 over gRPC: Triton, KServe, MLServer.

The protocol knows models and tensors, and neither jobs nor pictures nor promises.  So the
operator declares which tensor is the picture and what the contract is; the server's metadata
is held against that at every look, and what it answers against what was asked.  A job is one
call: it is cancelled by closing the call, and there is no call to forget.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import re
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import grpc
from lethe.oip import open_inference_pb2 as pb
from lethe.oip import open_inference_pb2_grpc

from audit import canonical
from gateway.adapters.backend_channel import MAX_SIDE, VERSION, Door, by_status, demand, options
from gateway.contract import under_contract
from gateway.errors import BackendProtocol, BackendUnavailable, ImageRejected, JobCancelled, LetheError
from gateway.ports.inference import BackendFacts, Contract, Progress, Result

MAX_RESULT_BYTES: Final = 64 << 20
MAX_TENSORS: Final = 64
MAX_DIMENSIONS: Final = 8
SLACK_BYTES: Final = 64 << 10
"""What a message holds beside its picture: names, shapes, a prompt."""
DEVICE: Final = "not_said"
"""The protocol does not tell what a model is computed on."""

Form = Literal["encoded", "hwc", "chw"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/ -]{0,127}")
_TYPE = re.compile(r"[A-Z0-9_]{1,32}")
_MAGIC: Final = {b"\xff\xd8\xff": "jpeg", b"\x89PNG\r\n\x1a\n": "png"}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor that holds one picture: encoded (BYTES), or its pixels (UINT8, RGB) in rows or in planes."""

    name: str
    form: Form = "encoded"
    is_batched: bool = False

    @property
    def datatype(self) -> str:
        """The type of its elements."""
        return "BYTES" if self.form == "encoded" else "UINT8"

    def shape(self, width: int, height: int) -> tuple[int, ...]:
        """Return its dimensions for a picture of that size; -1 stands for any."""
        one = {"encoded": (1,), "hwc": (height, width, 3), "chw": (3, height, width)}[self.form]
        return (1, *one) if self.is_batched else one

    def size(self, shape: Sequence[int]) -> tuple[int, int]:
        """Return (width, height) of a picture with that shape.

        Raises:
            BackendProtocol: No picture of this form has it.
        """
        demand(len(shape) == len(self.shape(1, 1)), "bad_shape")
        one = tuple(shape[1:] if self.is_batched else shape)
        height, width = {"encoded": (1, 1), "hwc": one[:2], "chw": one[1:]}[self.form]
        demand(0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE, "bad_dimensions")
        demand(tuple(shape) == self.shape(width, height), "bad_shape")
        return width, height


@dataclass(frozen=True, slots=True)
class ModelMapping:
    """Which model is asked, in which tensors; no version where the server chooses."""

    model: str
    input: Tensor
    output: Tensor
    version: str = ""
    prompt: str = ""
    style: str = ""


@dataclass(eq=False, slots=True)
class _Running:
    """A job that is not over: its call, once there is one."""

    call: grpc.aio.UnaryUnaryCall[pb.ModelInferRequest, pb.ModelInferResponse] | None = None
    is_stopped: bool = False

    def stop(self) -> None:
        self.is_stopped = True
        if self.call is not None:
            self.call.cancel()

    def need_standing(self) -> None:
        if self.is_stopped:
            raise JobCancelled


@dataclass(frozen=True, slots=True)
class _Look:
    """What the server says of itself and of the model."""

    server: pb.ServerMetadataResponse = field(repr=False)
    model: pb.ModelMetadataResponse = field(repr=False)

    @property
    def digest(self) -> str:
        """One digest over all of it: another model under the same name does not go unseen."""
        tensors = [
            [[one.name, one.datatype, list(one.shape)] for one in sorted(many, key=lambda one: one.name)]
            for many in (self.model.inputs, self.model.outputs)
        ]
        said = [
            self.server.name,
            self.server.version,
            self.model.name,
            sorted(self.model.versions),
            self.model.platform,
            tensors,
        ]
        return hashlib.sha256(canonical.encode(said)).hexdigest()


class OipInference:
    """One model; an `Inference`.

    The connection is made when first needed and made again when it was lost.
    """

    def __init__(
        self,
        *,
        name: str,
        address: str,
        server_name: str | None,
        ca: bytes,
        cert: bytes | None,
        key: bytes | None,
        timeout_s: float,
        contract: Contract,
        mapping: ModelMapping,
        max_result_bytes: int = MAX_RESULT_BYTES,
    ) -> None:
        """Prepare the connection; nothing is sent yet.

        Args:
            name: What the configuration calls the backend.
            address: Host and port.
            server_name: The name its certificate must carry, where that is not the host's.
            ca: The CA that its certificate must chain to, PEM.
            cert: Our chain, PEM, where it asks for one.
            key: Our key, PEM.
            timeout_s: How long a job may take.
            contract: What the operator has in writing of it.
            mapping: The model and its tensors.
            max_result_bytes: The largest result that is taken, encoded or as pixels.
        """
        self._name = name
        self._contract = contract
        self._mapping = mapping
        self._max_result_bytes = max_result_bytes
        self._max_sent = (
            contract.max_image_bytes if mapping.input.form == "encoded" else 3 * contract.max_pixels
        )
        self._seen = ""
        self.running: dict[str, _Running] = {}
        limits = options(
            server_name,
            max_receive=max_result_bytes + SLACK_BYTES,
            max_send=self._max_sent + SLACK_BYTES,
        )
        credentials = grpc.ssl_channel_credentials(ca, key, cert)
        self._door = Door(address, credentials, limits, timeout_s)
        self._stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(self._door.channel)

    async def describe(self) -> BackendFacts:
        """Return what the contract says, once the server's metadata agree with the mapping.

        Raises:
            BackendUnavailable: The server cannot be reached, or the model is not ready.
            BackendProtocol: The model is another than the one described (detail `mapping_*`).
        """
        look = await self._look()
        self._seen = look.digest
        return under_contract(
            self._contract,
            name=self._name,
            version=look.server.version,
            device=DEVICE,
            model_digest=look.digest,
        )

    async def generate(
        self,
        job_pseudonym: str,
        style: str,
        image: bytes,
        image_type: str,  # noqa: ARG002 - the server sees for itself, or gets pixels
        *,
        prompt: str = "",
        subject_pseudonym: str = "",  # noqa: ARG002 - the protocol has no place for one, and settings refuse it
    ) -> AsyncGenerator[Progress | Result]:
        """Yield that the picture is sent, then the result.

        However this ends, the call has ended too.  A job that is begun again under the
        same pseudonym ends the one before.
        """
        self._door.need_open()
        self._stop(job_pseudonym)
        job = self.running[job_pseudonym] = _Running()
        refusal: LetheError | None = None
        try:
            request = await asyncio.to_thread(self._order, job_pseudonym, style, image, prompt)
            look = await self._look_again()
            job.need_standing()
            self._door.need_open()
            job.call = self._stub.ModelInfer(request, timeout=self._door.timeout_s)
            yield Progress(1, "sent")
            response = await job.call
            result = await asyncio.to_thread(self._result, job_pseudonym, response, look)
        except grpc.aio.AioRpcError as error:
            refusal = by_status(error)
        except asyncio.CancelledError:
            if job.is_stopped:
                refusal = JobCancelled()
            elif self._door.is_ours_to_translate():
                refusal = BackendUnavailable(detail="closed")
            else:
                raise
        finally:
            if job.call is not None:
                job.call.cancel()
            if self.running.get(job_pseudonym) is job:
                del self.running[job_pseudonym]
        # Raised out here, so that no chain leads to the backend's words.
        if refusal is not None:
            raise refusal
        yield result

    async def cancel(self, job_pseudonym: str) -> None:
        """Close the job's call, if there is one; what the server then does its contract says."""
        self._door.need_open()
        self._stop(job_pseudonym)

    async def forget(self, job_pseudonym: str) -> None:
        """Close the job's call; return where by contract nothing is left then.

        Raises:
            BackendUnavailable: Something is kept for a while, and there is no call to make it go
                (detail `cannot_forget`).
        """
        self._door.need_open()
        self._stop(job_pseudonym)
        if self._contract.input_retention_s or self._contract.output_retention_s:
            raise BackendUnavailable(detail="cannot_forget")

    async def close(self) -> None:
        """Let the connection go; what still runs ends as unavailable."""
        await self._door.close()

    def _stop(self, job_pseudonym: str) -> None:
        job = self.running.pop(job_pseudonym, None)
        if job is not None:
            job.stop()

    # --- what the server says of itself ---

    async def _look(self) -> _Look:
        """Return the server's and the model's metadata, which agree with the mapping."""
        which = {"name": self._mapping.model, "version": self._mapping.version}
        ready = await self._door.ask(self._stub.ModelReady, pb.ModelReadyRequest(**which))
        if not ready.ready:
            raise BackendUnavailable(detail="model_not_ready")
        server = await self._door.ask(self._stub.ServerMetadata, pb.ServerMetadataRequest())
        model = await self._door.ask(self._stub.ModelMetadata, pb.ModelMetadataRequest(**which))
        demand(_NAME.fullmatch(server.name), "bad_name")
        demand(VERSION.fullmatch(server.version), "bad_version")
        self._need_mapping(model)
        return _Look(server, model)

    async def _look_again(self) -> _Look:
        """Return what the server says now; it must be what it said when it was last described.

        Policy permitted this job for the model that was described.
        """
        look = await self._look()
        if self._seen and look.digest != self._seen:
            raise BackendUnavailable(detail="metadata_changed")
        return look

    def _need_mapping(self, model: pb.ModelMetadataResponse) -> None:
        mapping = self._mapping
        demand(model.name == mapping.model, "mapping_model")
        demand(len(model.versions) <= MAX_TENSORS, "bad_metadata")
        demand(all(_NAME.fullmatch(version) for version in model.versions if version), "bad_metadata")
        demand(not mapping.version or mapping.version in model.versions, "mapping_version")
        demand(not model.platform or _NAME.fullmatch(model.platform), "bad_metadata")
        inputs, outputs = _by_name(model.inputs), _by_name(model.outputs)
        texts = [name for name in (mapping.prompt, mapping.style) if name]
        # A tensor that nobody fills would have every job refused.
        demand(inputs.keys() == {mapping.input.name, *texts}, "mapping_inputs")
        demand(_is_like(inputs[mapping.input.name], mapping.input, is_any_size=True), "mapping_input")
        text = Tensor("", "encoded", mapping.input.is_batched)
        demand(all(_is_like(inputs[name], text) for name in texts), "mapping_text")
        demand(mapping.output.name in outputs, "mapping_outputs")
        demand(_is_like(outputs[mapping.output.name], mapping.output), "mapping_output")

    # --- the order ---

    def _order(self, job_pseudonym: str, style: str, image: bytes, prompt: str) -> pb.ModelInferRequest:
        """Return the call of a job: its pseudonym, and tensors; nothing else is told.

        Raises:
            ImageRejected: The picture is larger than the contract says.
        """
        mapping, tensor = self._mapping, self._mapping.input
        request = pb.ModelInferRequest(
            model_name=mapping.model,
            model_version=mapping.version,
            id=job_pseudonym,
            outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name=mapping.output.name)],
        )
        width, height, content = (1, 1, _prefixed(image)) if tensor.form == "encoded" else self._pixels(image)
        if len(content) > self._max_sent + 4:
            raise ImageRejected(detail="too_large")
        request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape(width, height))
        request.raw_input_contents.append(content)
        one = Tensor("", "encoded", tensor.is_batched).shape(1, 1)
        for name, text in ((mapping.prompt, prompt), (mapping.style, style)):
            if name:
                request.inputs.add(name=name, datatype="BYTES", shape=one)
                request.raw_input_contents.append(_prefixed(text.encode()))
        return request

    def _pixels(self, image: bytes) -> tuple[int, int, bytes]:
        """Return width, height and pixels of one of our own pictures, as the tensor wants them."""
        from PIL import Image

        with Image.open(io.BytesIO(image), formats=("JPEG", "PNG", "WEBP")) as opened:
            width, height = opened.size
            if width * height > self._contract.max_pixels:
                raise ImageRejected(detail="too_many_pixels")
            picture = opened.convert("RGB")
        if self._mapping.input.form == "hwc":
            return width, height, picture.tobytes()
        return width, height, b"".join(plane.tobytes() for plane in picture.split())

    # --- the answer ---

    def _result(self, job_pseudonym: str, response: pb.ModelInferResponse | None, look: _Look) -> Result:
        """Return the picture that was answered.

        Raises:
            BackendProtocol: It is not an answer to what was asked; the detail says how.
        """
        mapping, tensor = self._mapping, self._mapping.output
        # grpc gives None where the bytes are no message.
        if response is None:
            raise BackendProtocol(detail="message_garbled")
        demand(response.model_name == mapping.model, "other_model")
        demand(response.id in {"", job_pseudonym}, "other_job")
        served = (mapping.version,) if mapping.version else look.model.versions
        demand(response.model_version in {"", *served}, "other_version")
        demand(len(response.outputs) == 1, "bad_outputs")
        output = response.outputs[0]
        demand(output.name == tensor.name, "bad_outputs")
        demand(output.datatype == tensor.datatype, "bad_datatype")
        demand(0 < len(output.shape) <= MAX_DIMENSIONS, "bad_shape")
        width, height = tensor.size(output.shape)
        if tensor.form == "encoded":
            image = self._encoded(response)
            image_type = _type_of(image)
        else:
            image, image_type = self._coded(response, width, height), "png"
        return Result(image, image_type, self._name, DEVICE, look.digest)

    def _encoded(self, response: pb.ModelInferResponse) -> bytes:
        if response.raw_output_contents:
            demand(len(response.raw_output_contents) == 1, "bad_outputs")
            content = response.raw_output_contents[0]
            demand(len(content) >= 4, "bad_length")
            demand(int.from_bytes(content[:4], "little") == len(content) - 4, "bad_length")
            image = content[4:]
        else:
            many = response.outputs[0].contents.bytes_contents
            demand(len(many) == 1, "bad_length")
            image = many[0]
        demand(image, "no_result")
        demand(len(image) <= self._max_result_bytes, "result_too_large")
        return image

    def _coded(self, response: pb.ModelInferResponse, width: int, height: int) -> bytes:
        """Return the pixels as a picture; the scrubber, which is next, codes it anew."""
        from PIL import Image

        size = 3 * width * height
        demand(size <= self._max_result_bytes, "result_too_large")
        if response.raw_output_contents:
            demand(len(response.raw_output_contents) == 1, "bad_outputs")
            pixels = response.raw_output_contents[0]
        else:
            values = response.outputs[0].contents.uint_contents
            demand(len(values) == size, "bad_length")
            demand(max(values) < 256, "bad_value")
            pixels = bytes(values)
        demand(len(pixels) == size, "bad_length")
        if self._mapping.output.form == "hwc":
            picture = Image.frombytes("RGB", (width, height), pixels)
        else:
            plane = width * height
            planes = [pixels[start : start + plane] for start in range(0, size, plane)]
            picture = Image.merge("RGB", [Image.frombytes("L", (width, height), one) for one in planes])
        file = io.BytesIO()
        picture.save(file, "PNG", compress_level=1)
        return file.getvalue()


def _by_name(
    tensors: Iterable[pb.ModelMetadataResponse.TensorMetadata],
) -> dict[str, pb.ModelMetadataResponse.TensorMetadata]:
    many = list(tensors)
    demand(len(many) <= MAX_TENSORS, "bad_metadata")
    for one in many:
        demand(_NAME.fullmatch(one.name) and _TYPE.fullmatch(one.datatype), "bad_metadata")
        demand(len(one.shape) <= MAX_DIMENSIONS, "bad_metadata")
    found = {one.name: one for one in many}
    demand(len(found) == len(many), "bad_metadata")
    return found


def _is_like(
    said: pb.ModelMetadataResponse.TensorMetadata, tensor: Tensor, *, is_any_size: bool = False
) -> bool:
    """Tell whether what the server says of a tensor fits a picture: of some size, or of any."""
    wanted = tensor.shape(-1, -1)
    if said.datatype != tensor.datatype or len(said.shape) != len(wanted):
        return False
    pairs = list(zip(said.shape, wanted, strict=True))
    return all(have in {-1, want} or (want == -1 and not is_any_size) for have, want in pairs)


def _prefixed(content: bytes) -> bytes:
    """Return an element of BYTES as it goes over the wire: its length, then itself."""
    return len(content).to_bytes(4, "little") + content


def _type_of(image: bytes) -> str:
    """Return what a picture's first bytes say it is; the scrubber finds out whether that is true.

    Raises:
        BackendProtocol: None that is taken: a page of a proxy, another format.
    """
    for magic, image_type in _MAGIC.items():
        if image.startswith(magic):
            return image_type
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "webp"
    raise BackendProtocol(detail="bad_image_type")
