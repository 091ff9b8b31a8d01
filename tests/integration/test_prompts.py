"""A prompt through a gateway that stands: over the wire, past the worker, to a backend, into the log."""

from __future__ import annotations

from lethe.v1 import generation_pb2

from gateway.ports.records import StoredObject
from tests.fakes.inference import FakeInference
from tests.gateway import (
    PORTRAIT,
    add_subject,
    consent,
    finished,
    header,
    make_folder,
    publish_notice,
    running,
)

PROMPT = "Portrait of Wanjiru Kamau, ja\u200bne@example.com, Rembrandt lighting, 85mm f/1.4"


async def test_the_backend_gets_a_prompt_that_names_nobody(tmp_path) -> None:
    layout = make_folder(tmp_path / "g", prompts={"entities": {"phone": "refuse"}})
    backend = FakeInference(takes_prompts=True)
    async with (
        running(layout, backend=backend) as gateway,
        gateway.client("officer") as officer,
        gateway.client("app") as app,
    ):
        await publish_notice(officer, "generate", "retain_output")
        await add_subject(app, "ann")
        await consent(app, "ann")
        asked = generation_pb2.GenerationParameters(style="studio_grey", prompt=PROMPT)
        made = await app.create_job(header("ann", parameters=asked), PORTRAIT.read_bytes())
        assert (await finished(app, made.job.name)).state == generation_pb2.Job.STATE_SUCCEEDED
        (sent,) = [call.prompt for call in backend.seen if call.method == "generate"]
        (leaf,) = await gateway.leaves("prompt.scrubbed")
        rows = await gateway.rows(StoredObject)
    assert sent == "Portrait of [person], [email], Rembrandt lighting, 85mm f/1.4"
    assert leaf["ents"] == {"email": 1, "hidden_text": 1, "person": 1}
    assert b"Wanjiru" not in backend.everything_seen()
    assert all(b"Rembrandt" not in row.sealed_prompt for row in rows)
