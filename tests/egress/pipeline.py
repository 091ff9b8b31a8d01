"""A gateway, the real studio, and portraits on their way: `python -m tests.egress.pipeline SECONDS`."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from lethe.v1 import generation_pb2 as pb

from gateway import weights
from gateway.admin.folder import Layout
from gateway.client import Client
from gateway.deidentify import Limits
from gateway.deidentify.deidentified import Profile
from gateway.deidentify.faces.names import needed
from gateway.deidentify.faces.pool import ImageDeidentifier
from gateway.settings import MODEL, load
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

SUBJECT = "crew-4711"


@contextlib.asynccontextmanager
async def with_studio(layout: Layout) -> AsyncIterator[Gateway]:
    """Run `lethe backend serve` and a gateway that knows it; a subject has consented."""
    command = [
        sys.executable,
        "-m",
        "gateway.main",
        "backend",
        "serve",
        "--weights",
        str(weights.directory()),
    ]
    command += ["--address", load(layout.config).backends[0].address, "--ca", str(layout.backend_ca)]
    command += ["--cert", str(layout.cert("backend")), "--key", str(layout.key("backend"))]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            assert await process.stdout.readline()
        async with running(layout, is_backend_real=True) as gateway:
            async with gateway.client("officer") as officer, gateway.client("app") as app:
                await publish_notice(officer)
                await add_subject(app, SUBJECT)
                await consent(app, SUBJECT)
            yield gateway
    finally:
        process.terminate()
        await process.wait()


async def headshot(app: Client) -> tuple[str, bytes]:
    """Return a job's name and its result, as a client gets it."""
    said = pb.GenerationParameters(style="studio_grey", prompt="Eileen Collins, e.collins@example.com, blue")
    job = (await app.create_job(header(SUBJECT, parameters=said), PORTRAIT.read_bytes())).job.name
    assert (await finished(app, job)).state == pb.Job.STATE_SUCCEEDED
    return job, (await app.download(job))[1]


@contextlib.asynccontextmanager
async def with_everything_looked_for() -> AsyncIterator[ImageDeidentifier]:
    """Run what finds faces and writing."""
    files = weights.read(weights.directory(), weights.named(*needed(mask_text=True)))
    deidentifier = ImageDeidentifier(Limits(), files, timeout_s=60)
    await deidentifier.start()
    try:
        yield deidentifier
    finally:
        await deidentifier.close()


async def main(seconds: float) -> None:
    """Make portraits for so long, one at least, and look on for what is late until then."""
    from tests.c2pa import state

    until = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        layout = make_folder(Path(folder) / "dev", prompts={"ner": all(map(find_spec, MODEL))})
        async with (
            with_studio(layout) as gateway,
            gateway.client("app", 60) as app,
            with_everything_looked_for() as faces,
        ):
            made = 0
            while not made or time.monotonic() < until:
                _, result = await headshot(app)
                assert state(result, layout.marking_ca.read_bytes()) == "Trusted"
                for profile in get_args(Profile):
                    assert (await faces.deidentify(PORTRAIT.read_bytes(), profile)).faces == 1
                made += 1
    print(f"portraits {made}")


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1])))
