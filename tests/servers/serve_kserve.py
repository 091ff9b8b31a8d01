"""KServe's servicer on loopback with one model; run by the interpreter that `install` made, and no other.

    serve_kserve.py PORT CERT KEY CA SEEN READY

`kserve.ModelServer` listens on every address of the machine, so the servicer stands in a server of its own.
The model takes pixels and a style and gives an encoded picture.  Each request, as it came over the wire, is
written into the folder SEEN.  Once it serves it says `ready` on the descriptor READY; it ends when its
standard input does.
"""

import asyncio
import io
import os
import sys
from pathlib import Path

import grpc
import numpy as np
from kserve import InferOutput, InferRequest, InferResponse, Model
from kserve.model_repository import ModelRepository
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc
from kserve.protocol.grpc.servicer import InferenceServicer
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from PIL import Image, ImageOps

PORT, CERT, KEY, CA, SEEN, READY = sys.argv[1:]
MAX_MESSAGE = 64 << 20


class Portrait(Model):
    """Inverts the picture."""

    def __init__(self) -> None:
        super().__init__("portrait")
        self.ready = True

    async def get_input_types(self):
        return [
            {"name": "IMAGE", "datatype": "UINT8", "shape": [-1, -1, 3]},
            {"name": "STYLE", "datatype": "BYTES", "shape": [1]},
        ]

    async def get_output_types(self):
        return [{"name": "RESULT", "datatype": "BYTES", "shape": [1]}]

    async def predict(self, payload: InferRequest, headers=None, response_headers=None):
        pixels = payload.get_input_by_name("IMAGE").as_numpy()
        file = io.BytesIO()
        ImageOps.invert(Image.fromarray(pixels)).save(file, "PNG")
        result = InferOutput("RESULT", [1], "BYTES")
        result.set_data_from_numpy(np.array([file.getvalue()], dtype=np.object_))
        return InferResponse(payload.id, "portrait", [result])


def note(name: str, content: bytes) -> None:
    """Write down something that was seen."""
    (Path(SEEN) / name).write_bytes(content)


class Watched(InferenceServicer):
    """Writes down what it is asked."""

    count = 0

    async def ModelInfer(self, request, context):  # noqa: N802 - the wire names it
        self.count += 1
        await asyncio.to_thread(note, f"request-{self.count}", request.SerializeToString())
        return await super().ModelInfer(request, context)


async def main(credentials: grpc.ServerCredentials) -> None:
    """Serve until the standard input ends."""
    models = ModelRepository()
    models.update(Portrait())
    server = grpc.aio.server(
        options=[(f"grpc.max_{way}_message_length", MAX_MESSAGE) for way in ("send", "receive")]
    )
    grpc_predict_v2_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
        Watched(DataPlane(models), ModelRepositoryExtension(models)), server
    )
    server.add_secure_port(f"127.0.0.1:{PORT}", credentials)
    await server.start()
    os.write(int(READY), b"ready")
    os.close(int(READY))
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(0)


pair = (Path(KEY).read_bytes(), Path(CERT).read_bytes())
asyncio.run(main(grpc.ssl_server_credentials([pair], Path(CA).read_bytes(), require_client_auth=True)))
