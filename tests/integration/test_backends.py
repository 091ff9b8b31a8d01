"""Jobs through a gateway that stands, to backends behind HTTP; what each saw, byte for byte."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from lethe.v1 import backend_pb2, generation_pb2
from PIL import Image

from gateway.adapters.inference_comfyui import BLANK
from gateway.client import Client
from gateway.ports.records import Job
from tests.fakes.comfyui_server import WORKFLOW, FakeComfy
from tests.fakes.http_server import CANARY, PAGE
from tests.fakes.images_server import KEY, MODEL, FakeImages
from tests.fakes.inference import paint
from tests.gateway import (
    PORTRAIT,
    Gateway,
    add_subject,
    consent,
    finished,
    header,
    make_folder,
    publish_notice,
    running,
)
from tests.integration.test_bad_input import archive, huge, is_readable, until

PROMPT = "Portrait of Wanjiru Kamau, jane@example.com, soft light"
CONTRACT = {
    "region": "DE",
    "operator": "Painters GmbH",
    "input_retention_s": 0,
    "output_retention_s": 0,
    "trains_on_inputs": False,
    "face_features": "none",
    "supports_cancel": True,
    "takes_prompts": True,
}
STYLES = {"studio_grey": "Grey backdrop."}


@dataclass
class There:
    """A gateway, and the servers that it forwards to."""

    gateway: Gateway
    app: Client
    images: FakeImages
    comfy: FakeComfy

    async def run(self, backend: str, prompt: str = "") -> generation_pb2.Job:
        """Return a job as it ended."""
        asked = generation_pb2.GenerationParameters(style="studio_grey", prompt=prompt)
        order = header("ann-4711", parameters=asked, backend_hint=f"backends/{backend}")
        made = await self.app.create_job(order, PORTRAIT.read_bytes())
        return await finished(self.app, made.job.name)

    async def settled(self) -> list[Job]:
        """Return the jobs once no backend owes that it forgot one."""

        async def is_settled() -> bool:
            return not any(job.is_forget_owed for job in await self.gateway.rows(Job))

        await until(is_settled)
        return await self.gateway.rows(Job)


@asynccontextmanager
async def there(folder: Path) -> AsyncIterator[There]:
    images, comfy = FakeImages(), FakeComfy()
    layout = make_folder(folder / "g")
    (layout.root / "k").write_text(KEY)
    (layout.root / "k").chmod(0o600)
    (layout.root / "workflow.json").write_text(json.dumps(WORKFLOW))
    tree = yaml.safe_load(layout.config.read_text())
    both: dict[str, Any] = {"styles": STYLES, "timeout_s": 30.0}
    tree["backends"] = [
        {
            "name": "far",
            "kind": "openai_images",
            "url": f"{await images.start()}/v1",
            "credential": "k",
            "model": MODEL,
            "contract": CONTRACT,
            **both,
        },
        {
            "name": "near",
            "kind": "comfyui",
            "url": await comfy.start(),
            "workflow": "workflow.json",
            "image": "1.image",
            "output": "3",
            "prompt": "2.text",
            "seed": "2.seed",
            "prefix": "3.filename_prefix",
            "poll_s": 0.02,
            "contract": {**CONTRACT, "region": "local", "supports_forget": True},
            **both,
        },
    ]
    layout.config.write_text(yaml.safe_dump(tree))
    try:
        async with (
            running(layout, is_backend_real=True, are_faces_real=True) as gateway,
            gateway.client("officer") as officer,
            gateway.client("app") as app,
        ):
            await publish_notice(officer, "generate", "retain_output")
            await add_subject(app, "ann-4711")
            await consent(app, "ann-4711")
            yield There(gateway, app, images, comfy)
    finally:
        for server in (images, comfy):
            server.release()
            await server.stop()


async def test_each_backend_sees_a_clean_picture_and_nobody(tmp_path: Path) -> None:
    async with there(tmp_path) as made:
        listed = await made.app.call(made.app.backends.ListBackends, backend_pb2.ListBackendsRequest())
        shown = [(one.name, one.kind, one.operator, one.contracted) for one in listed.backends]
        for backend in ("far", "near"):
            job = await made.run(backend, PROMPT)
            assert job.state == generation_pb2.Job.STATE_SUCCEEDED, job.failure
            _, result = await made.app.download(job.name)
            assert Image.open(io.BytesIO(result)).size == (64, 80)
            assert CANARY.encode() not in result
            assert b"workflow" not in result
        jobs = await made.settled()
        files, history = dict(made.comfy.files), dict(made.comfy.history)
        leaves = await made.gateway.leaves("job.dispatched")
    assert shown == [
        ("backends/far", "openai_images", "Painters GmbH", True),
        ("backends/near", "comfyui", "Painters GmbH", True),
    ]
    form = next(asked for asked in made.images.asked if asked.method == "POST").form()
    upload = next(asked for asked in made.comfy.asked if asked.path == "/upload/image").form()
    order = next(asked for asked in made.comfy.asked if asked.path == "/prompt").json()["prompt"]
    words = "Grey backdrop.\nPortrait of [person], [email], soft light"
    assert set(form) == {"model", "prompt", "n", "image"}
    assert (form["prompt"][2].decode(), order["2"]["inputs"]["text"]) == (words, words)
    for _, kind, picture in (form["image"], upload["image"]):
        assert Image.open(io.BytesIO(picture)).get_format_mimetype() == kind
        assert picture != PORTRAIT.read_bytes()
        assert not Image.open(io.BytesIO(picture)).getexif()
    ids = [part for job in jobs for part in (job.job_id, job.input_object, job.handle)]
    for server in (made.images, made.comfy):
        for said in (*ids, "ann-4711", "Wanjiru", "jane@", "Eileen", "acme", "subject", "python"):
            assert said.encode() not in server.wire, said
    assert (made.images.runs, made.comfy.runs, len(leaves)) == (1, 1, 2)
    assert (set(files.values()), history) == ({BLANK}, {})


LIES = (
    ("near", PAGE, "bad_image_type"),
    ("far", huge(), "too_many_pixels"),
    ("near", archive(), "polyglot"),
    ("far", paint(b"x", "y")[:700], "truncated"),
)


async def test_what_is_wrong_has_a_reason_and_no_rest_and_runs_once(tmp_path: Path) -> None:
    async with there(tmp_path) as made:
        for backend, lie, detail in LIES:
            (made.images if backend == "far" else made.comfy).result = lie
            assert (await made.run(backend)).failure.detail == detail
        made.images.result, made.images.fault = None, "html"
        assert (await made.run("far")).failure.detail == "content_type"
        made.images.fault, made.images.metadata = "", CANARY.encode()
        job = await made.run("far")
        _, result = await made.app.download(job.name)
        await made.settled()
        failed = [(leaf["rc"], leaf["det"]) for leaf in await made.gateway.leaves("job.failed")]
        data = made.gateway.layout.root / "data"
        rest = b"".join(path.read_bytes() for path in data.rglob("*") if path.is_file())
        assert not any(is_readable(told, data) for told in (PORTRAIT.read_bytes(), archive()))
    details = [*(detail for _, _, detail in LIES), "content_type"]
    assert failed == [("BACKEND_PROTOCOL", detail) for detail in details]
    # Each job ran once, but for the one that was answered with a page.
    assert (made.images.runs, made.comfy.runs) == (3, 2)
    assert CANARY.encode() not in result + rest
