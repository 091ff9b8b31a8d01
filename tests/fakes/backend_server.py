"""The fake backend on a socket of its own, for gateways that run as processes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
import yaml
from lethe.backend.v1 import backend_pb2 as pb
from lethe.backend.v1 import backend_pb2_grpc

from gateway.admin.folder import Layout
from gateway.ports.inference import Progress
from tests.fakes.inference import FakeInference

CHUNK = 256 << 10


@dataclass
class Server(backend_pb2_grpc.InferenceBackendServiceServicer):
    """Speaks `lethe.backend.v1` for the fake."""

    fake: FakeInference

    async def Describe(self, _request, _context):  # noqa: N802 - the wire names it
        facts = await self.fake.describe()
        return pb.DescribeResponse(
            name=facts.name,
            version=facts.version,
            device=facts.device,
            model_digest=facts.model_digest,
            styles=facts.styles,
            region=facts.region,
            face_features=pb.DescribeResponse.FACE_FEATURES_TEMPLATE,
            supports_cancel=True,
            supports_forget=True,
            max_pixels=50_000_000,
            max_image_bytes=32 << 20,
        )

    async def Generate(self, requests, _context):  # noqa: N802 - likewise
        header = (await anext(requests)).header
        image = b"".join([request.chunk async for request in requests])
        async for answer in self.fake.generate(header.job_id, header.style, image, header.image_type):
            if isinstance(answer, Progress):
                yield pb.GenerateResponse(progress=pb.Progress(percent=answer.percent, stage=answer.stage))
                continue
            result = pb.ResultHeader(
                image_type=answer.image_type,
                size_bytes=len(answer.image),
                width=64,
                height=80,
                backend=answer.backend,
                device=answer.device,
                model_digest=answer.model_digest,
            )
            yield pb.GenerateResponse(result=result)
            for start in range(0, len(answer.image), CHUNK):
                yield pb.GenerateResponse(chunk=answer.image[start : start + CHUNK])

    async def Cancel(self, request, _context):  # noqa: N802 - likewise
        await self.fake.cancel(request.job_id)
        return pb.CancelResponse()

    async def Forget(self, request, _context):  # noqa: N802 - likewise
        await self.fake.forget(request.job_id)
        return pb.ForgetResponse()


@contextlib.asynccontextmanager
async def serving_backend(layout: Layout) -> AsyncIterator[FakeInference]:
    """Run a fake backend where the folder's gateway looks for it, until the block ends."""
    fake, server = FakeInference(), grpc.aio.server()
    backend_pb2_grpc.add_InferenceBackendServiceServicer_to_server(Server(fake), server)
    pair = layout.key("backend").read_bytes(), layout.cert("backend").read_bytes()
    credentials = grpc.ssl_server_credentials(
        [pair], layout.backend_ca.read_bytes(), require_client_auth=True
    )
    address = yaml.safe_load(layout.config.read_text())["backends"][0]["address"]
    server.add_secure_port(address, credentials)
    await server.start()
    try:
        yield fake
    finally:
        await server.stop(0)
