"""OpenAI's own client and our adapter, before the same server of ours: it is the API that both speak."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.adapters.inference_http import HttpDoor
from gateway.adapters.inference_images import ImagesInference
from gateway.ports.inference import Result
from tests.fakes.http_bench import credential, declared
from tests.fakes.images_server import KEY, MODEL, FakeImages
from tests.fakes.inference import paint
from tests.interop.foreign import HERE, Tools

PROMPT = "Grey backdrop."


async def test_the_official_client_is_answered_and_sends_what_the_adapter_sends(tools: Tools, tmp_path: Path):
    server = FakeImages()
    url = f"{await server.start()}/v1"
    picture = tmp_path / "image.jpg"
    picture.write_bytes(paint(b"somebody", "sitting"))
    arguments = (HERE / "py/images.py", url, KEY, MODEL, picture, PROMPT)
    pipe = asyncio.subprocess.PIPE
    client = await asyncio.create_subprocess_exec(tools.python, *arguments, stdout=pipe, stderr=pipe)
    theirs, complaints = await client.communicate()
    assert client.returncode == 0, complaints.decode()
    door = HttpDoor(url, timeout_s=10.0, credential=credential(tmp_path, KEY, "Bearer"))
    adapter = ImagesInference(door, declared(), model=MODEL, styles={"studio_grey": PROMPT})
    await adapter.describe()
    made = [one async for one in adapter.generate("j1", "studio_grey", picture.read_bytes(), "jpeg")]
    await adapter.close()
    await server.stop()
    assert isinstance(made[-1], Result)
    assert theirs == made[-1].image
    of_theirs, of_ours = server.asked[:2], server.asked[2:]
    assert [(a.method, a.target) for a in of_theirs] == [(a.method, a.target) for a in of_ours]
    assert of_theirs[1].form() == of_ours[1].form()
    assert of_theirs[1].headers["authorization"] == of_ours[1].headers["authorization"]
