"""A server of the Open Inference Protocol in this process: paints real pictures, and can be told to lie."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import grpc
from lethe.oip import open_inference_pb2 as pb
from PIL import Image

from gateway.adapters.inference_oip import ModelMapping, Tensor
from gateway.ports.inference import Contract
from tests.fakes.inference import paint

MODEL = "portrait"
MAX_MESSAGE = 64 << 20
CONTRACT = Contract(
    region="DE",
    operator="Example Hosting GmbH",
    input_retention_s=0,
    output_retention_s=0,
    trains_on_inputs=False,
    template_extracted=False,
    supports_cancel=True,
    supports_forget=False,
    source="composite_generated",
    styles=("studio_blue", "studio_grey"),
    takes_prompts=True,
    max_image_bytes=1 << 20,
    max_pixels=1_000_000,
)
MAPPING = ModelMapping(MODEL, Tensor("IMAGE"), Tensor("RESULT"), prompt="PROMPT", style="STYLE")


def metadata(mapping: ModelMapping = MAPPING) -> pb.ModelMetadataResponse:
    """Return what a server says of a model that fits the mapping."""
    said = pb.ModelMetadataResponse(name=mapping.model, versions=["1"], platform="python")
    said.inputs.add(
        name=mapping.input.name, datatype=mapping.input.datatype, shape=mapping.input.shape(-1, -1)
    )
    text = Tensor("", "encoded", mapping.input.is_batched).shape(1, 1)
    for name in filter(None, (mapping.prompt, mapping.style)):
        said.inputs.add(name=name, datatype="BYTES", shape=text)
    said.outputs.add(
        name=mapping.output.name, datatype=mapping.output.datatype, shape=mapping.output.shape(-1, -1)
    )
    return said


def prefixed(content: bytes) -> bytes:
    """Return an element of BYTES as it goes over the wire."""
    return len(content).to_bytes(4, "little") + content


def answered(request: pb.ModelInferRequest, mapping: ModelMapping = MAPPING) -> pb.ModelInferResponse:
    """Return a true answer: a picture after what was sent."""
    sent = dict(zip((one.name for one in request.inputs), request.raw_input_contents, strict=True))
    picture = paint(sent[mapping.input.name], sent.get(mapping.style, b"").decode())
    response = pb.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
    tensor, content, size = mapping.output, prefixed(picture), (1, 1)
    if tensor.form != "encoded":
        opened = Image.open(io.BytesIO(picture))
        size = opened.size
        planes = opened.split()
        content = opened.tobytes() if tensor.form == "hwc" else b"".join(plane.tobytes() for plane in planes)
    response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape(*size))
    response.raw_output_contents.append(content)
    return response


@dataclass
class FakeOip:
    """One model.  `answer` makes the answer, a cleared `go` keeps calls open, `seen` is all it was asked."""

    mapping: ModelMapping = MAPPING
    said: pb.ModelMetadataResponse = field(default_factory=metadata)
    server: pb.ServerMetadataResponse = field(
        default_factory=lambda: pb.ServerMetadataResponse(name="fake", version="2.0")
    )
    is_ready: bool = True
    refuses: grpc.StatusCode | None = None
    answer: Callable[[pb.ModelInferRequest], pb.ModelInferResponse | bytes] | None = None
    seen: list[pb.ModelInferRequest] = field(default_factory=list)
    running: int = 0
    began: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.go.set()

    async def ModelReady(self, _request, _context):  # noqa: N802 - the wire names it
        return pb.ModelReadyResponse(ready=self.is_ready)

    async def ServerMetadata(self, _request, _context):  # noqa: N802 - likewise
        return self.server

    async def ModelMetadata(self, request, context):  # noqa: N802 - likewise
        if request.name != self.mapping.model:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        return self.said

    async def ModelInfer(self, request, context):  # noqa: N802 - likewise
        self.seen.append(request)
        self.running += 1
        self.began.set()
        try:
            await self.go.wait()
            if self.refuses is not None:
                await context.abort(self.refuses, "CANARY-7714 <html>")
            return (self.answer or (lambda asked: answered(asked, self.mapping)))(request)
        finally:
            self.running -= 1
            self.ended.set()


def _plain(message: pb.ModelInferResponse | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


@contextlib.asynccontextmanager
async def serving_oip(
    fake: FakeOip, credentials: grpc.ServerCredentials, address: str = "127.0.0.1:0"
) -> AsyncIterator[str]:
    """Serve the fake until the block ends and yield where."""
    unlimited = [(f"grpc.max_{way}_message_length", MAX_MESSAGE) for way in ("receive", "send")]
    server = grpc.aio.server(options=unlimited)
    handlers = {
        "ModelReady": (fake.ModelReady, pb.ModelReadyRequest),
        "ServerMetadata": (fake.ServerMetadata, pb.ServerMetadataRequest),
        "ModelMetadata": (fake.ModelMetadata, pb.ModelMetadataRequest),
        "ModelInfer": (fake.ModelInfer, pb.ModelInferRequest),
    }
    # By hand, because a liar may answer with bytes that are no message.
    methods = {
        name: grpc.unary_unary_rpc_method_handler(
            method, request_deserializer=kind.FromString, response_serializer=_plain
        )
        for name, (method, kind) in handlers.items()
    }
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods),)
    )
    port = server.add_secure_port(address, credentials)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)
