"""A job through the real gateway and a real server that somebody else wrote, and what that server saw."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from lethe.oip import open_inference_pb2 as pb
from lethe.v1 import backend_pb2, generation_pb2
from PIL import Image, ImageOps

from gateway import compose
from gateway.admin.folder import Layout
from gateway.errors import BackendProtocol, LetheError
from gateway.settings import OipBackend, load
from tests.gateway import (
    PORTRAIT,
    add_subject,
    consent,
    erase,
    free_port,
    header,
    make_folder,
    publish_notice,
    running,
)

HERE = Path(__file__).parent
SERVERS = Path(".cache/servers").resolve()
PATIENCE_S = 90.0
SUBJECT = "ann-4711-canary"
CONTRACT: dict[str, Any] = {
    "region": "DE",
    "operator": "Example Hosting GmbH",
    "input_retention_s": 0,
    "output_retention_s": 0,
    "trains_on_inputs": False,
    "face_features": "none",
    "source": "enhanced",
    "styles": ["studio_grey", "studio_blue"],
}
TENSORS: dict[str, dict[str, Any]] = {
    "triton": {
        "input": {"tensor": "IMAGE", "form": "encoded", "batched": True},
        "output": {"tensor": "RESULT", "form": "hwc", "batched": True},
    },
    "kserve": {
        "input": {"tensor": "IMAGE", "form": "hwc"},
        "output": {"tensor": "RESULT", "form": "encoded"},
    },
}
"""Between the two of them: an encoded picture and pixels, each once in and once out; batched and not."""


@dataclass(frozen=True)
class Server:
    """A server that runs, and the folder into which it writes what it sees."""

    name: str
    layout: Layout
    seen: Path

    def files(self, start: str) -> list[bytes]:
        return [path.read_bytes() for path in sorted(self.seen.glob(f"{start}-*"))]


@contextlib.contextmanager
def serving(name: str, layout: Layout, port: int, seen: Path) -> Iterator[None]:
    """Run the server until the block ends."""
    python = SERVERS / name / "bin/python"
    library = "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"
    found = subprocess.run((python, "-c", library), capture_output=True, text=True, check=True)
    ports = [str(port), *([str(free_port())] if name == "triton" else [])]
    files = (layout.cert("backend"), layout.key("backend"), layout.backend_ca)
    heard, told = os.pipe()
    with (seen.parent / f"{name}.log").open("wb") as log:
        server = subprocess.Popen(
            (python, HERE / f"serve_{name}.py", *ports, *files, seen, str(told)),
            # Triton's python backend binds the first libpython it finds; it has to be this interpreter's.
            env={**os.environ, "LD_LIBRARY_PATH": found.stdout.strip(), "TMPDIR": str(seen.parent)},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=(told,),
        )
    os.close(told)
    assert server.stdin is not None
    try:
        with os.fdopen(heard, "rb") as ready:
            assert ready.read() == b"ready", (seen.parent / f"{name}.log").read_text()[-2000:]
        yield
    finally:
        server.stdin.close()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@pytest.fixture(scope="module", params=sorted(TENSORS))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp(request.param)
    layout, seen = make_folder(folder / "gateway"), folder / "seen"
    seen.mkdir()
    tree = yaml.safe_load(layout.config.read_text())
    (before,) = tree["backends"]
    tree["backends"] = [
        {
            **before,
            "name": request.param,
            "kind": "oip",
            "model": "portrait",
            **TENSORS[request.param],
            "style_tensor": "STYLE",
            "contract": CONTRACT,
        }
    ]
    layout.config.write_text(yaml.safe_dump(tree))
    port = int(before["address"].rpartition(":")[2])
    with serving(request.param, layout, port, seen):
        yield Server(request.param, layout, seen)


def section(server: Server) -> OipBackend:
    (found,) = load(server.layout.config).backends
    assert isinstance(found, OipBackend)
    return found


@contextlib.asynccontextmanager
async def door(server: Server, **changes: Any) -> AsyncIterator[Any]:
    opened = compose.inference(section(server).model_copy(update=changes))
    try:
        yield opened
    finally:
        await opened.close()


async def test_a_job_goes_the_whole_way_and_the_server_sees_pixels_and_a_pseudonym(server: Server) -> None:
    async with (
        running(server.layout, is_backend_real=True) as gateway,
        gateway.client("app", PATIENCE_S) as app,
        gateway.client("officer") as officer,
    ):
        shown = await officer.call(officer.backends.ListBackends, backend_pb2.ListBackendsRequest())
        (backend,) = shown.backends
        assert (backend.reachable, backend.region, backend.supports_forget) == (True, "DE", False)
        await publish_notice(officer)
        await add_subject(app, SUBJECT)
        await consent(app, SUBJECT)
        job = (await app.create_job(header(SUBJECT), PORTRAIT.read_bytes())).job
        ended = [state async for state in app.watch(job.name)][-1]
        assert ended.state == generation_pb2.Job.STATE_SUCCEEDED, ended
        _, result = await app.download(job.name)
        (sent,) = await gateway.leaves("job.dispatched")
        assert (sent["land"], sent["ctr"], sent["sent"]) == ("DE", backend.contract_digest, ["original"])
        picture = await seen_picture(server)
        made = Image.open(io.BytesIO(result)).convert("RGB")
        assert made.size == picture.size
        # The model inverts; the result was coded once more on its way.
        middle = tuple(side // 2 for side in made.size)
        inverted = ImageOps.invert(picture).getpixel(middle)
        assert all(abs(one - other) <= 24 for one, other in zip(inverted, made.getpixel(middle), strict=True))
        everything = b"".join(path.read_bytes() for path in server.seen.iterdir())
        for name in (SUBJECT, "acme", job.name.removeprefix("jobs/"), "portraits", "Exif", "http://ns.adobe"):
            assert name.encode() not in everything, name
        erased = await erase(gateway, SUBJECT)
        assert erased.certificate
        (leaf,) = await gateway.leaves("subject.erased")
        assert leaf["nowed"] == 0


async def seen_picture(server: Server) -> Image.Image:
    """Return the picture that the server was handed, and check that it was handed nothing else."""
    if server.name == "triton":
        (image,), (style,) = server.files("IMAGE"), server.files("STYLE")
        assert style == b"studio_grey"
        opened = Image.open(io.BytesIO(image))
        assert not opened.info.keys() - {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
        return opened.convert("RGB")
    (raw,) = server.files("request")
    request = pb.ModelInferRequest.FromString(raw)
    assert len(bytes.fromhex(request.id)) == 16
    assert [one.name for one in request.inputs] == ["IMAGE", "STYLE"]
    pixels, style = request.raw_input_contents
    assert style[4:] == b"studio_grey"
    height, width, _ = request.inputs[0].shape
    # Nothing but what the protocol's fields hold: the request is no longer than its pixels and names.
    assert len(raw) - len(pixels) < 200
    return Image.frombytes("RGB", (width, height), pixels)


async def test_a_model_that_is_not_the_one_described_is_refused_by_its_metadata(server: Server) -> None:
    other = section(server).input.model_copy(update={"tensor": "PHOTO"})
    before = len(list(server.seen.iterdir()))
    async with door(server, input=other) as opened:
        with pytest.raises(BackendProtocol) as refused:
            await opened.describe()
        assert refused.value.detail == "mapping_inputs"
        with pytest.raises(BackendProtocol):
            await anext(opened.generate("j1", "studio_grey", PORTRAIT.read_bytes(), "jpeg"))
    async with door(server, model="nobody") as opened:
        with pytest.raises(LetheError):
            await opened.describe()
    assert len(list(server.seen.iterdir())) == before


async def test_a_picture_that_the_model_chokes_on_is_a_refusal_without_its_words(server: Server) -> None:
    if server.name != "triton":
        pytest.skip("pixels cannot be garbage")
    async with door(server) as opened:
        with pytest.raises(LetheError) as refused:
            _ = [part async for part in opened.generate("j1", "studio_grey", b"no picture", "jpeg")]
    assert refused.value.detail.startswith("status_")
    assert "PIL" not in str(refused.value)
