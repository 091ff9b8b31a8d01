"""A real Triton on loopback with one model; run by the interpreter that `install` made, and by no other.

    serve_triton.py GRPC_PORT HTTP_PORT CERT KEY CA SEEN READY

The model takes an encoded picture and a style and gives pixels.  Each tensor that it is handed is written
into the folder SEEN.  Once it serves it says `ready` on the descriptor READY; it ends when its standard
input does.
"""

import io
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

GRPC, HTTP, CERT, KEY, CA, SEEN, READY = sys.argv[1:]


@batch
def infer(**tensors):
    """Invert the picture."""
    folder = Path(SEEN)
    for name, value in tensors.items():
        number = len(list(folder.glob(f"{name}-*")))
        (folder / f"{name}-{number}").write_bytes(value[0][0])
    picture = Image.open(io.BytesIO(tensors["IMAGE"][0][0])).convert("RGB")
    return {"RESULT": 255 - np.asarray(picture, dtype=np.uint8)[None]}


config = TritonConfig(
    grpc_address="127.0.0.1",
    grpc_port=int(GRPC),
    grpc_use_ssl=True,
    grpc_use_ssl_mutual=True,
    grpc_server_cert=CERT,
    grpc_server_key=KEY,
    grpc_root_cert=CA,
    http_address="127.0.0.1",
    http_port=int(HTTP),
    allow_metrics=False,
)
with Triton(config=config) as triton:
    triton.bind(
        model_name="portrait",
        infer_func=infer,
        inputs=[Tensor(name="IMAGE", dtype=bytes, shape=(1,)), Tensor(name="STYLE", dtype=bytes, shape=(1,))],
        outputs=[Tensor(name="RESULT", dtype=np.uint8, shape=(-1, -1, 3))],
        config=ModelConfig(max_batch_size=1),
    )
    triton.run()
    os.write(int(READY), b"ready")
    os.close(int(READY))
    sys.stdin.read()
