"""A group picture through a gateway that stands: who is in it for a backend, for the log, and for a count."""

from __future__ import annotations

import asyncio
import io
import json

import numpy as np
from lethe.v1 import analytics_pb2, common_pb2, generation_pb2
from PIL import Image

from tests.fakes.inference import FakeInference
from tests.gateway import (
    add_subject,
    consent,
    finished,
    header,
    lethe,
    make_folder,
    publish_notice,
    running,
)
from tests.unit.deidentify import plant
from tests.unit.deidentify.portraits import Bytes8, group, models


def shown(data: bytes) -> Bytes8:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


async def test_a_backend_is_shown_the_subject_and_nobody_else(tmp_path) -> None:
    layout, backend = make_folder(tmp_path / "g"), FakeInference()
    backend.hold()
    photo = plant.jpeg(1, photo=Image.fromarray(group()))
    assert plant.CANARY in photo
    assert len(models().detector.faces(group())) == 3
    async with (
        running(layout, backend=backend, are_faces_real=True) as gateway,
        gateway.client("officer") as officer,
        gateway.client("app", 60.0) as app,
    ):
        await publish_notice(officer, "generate", "analytics")
        await add_subject(app, "ann")
        for purpose in ("generate", "analytics"):
            await consent(app, "ann", purpose)
        made = await app.create_job(header("ann"), photo)
        await backend.held.wait()
        original = made.job.input_object
        record = await app.call(app.analytics.GetRecord, analytics_pb2.GetRecordRequest(object=original))
        told = await asyncio.to_thread(
            lethe, "subject", "record", original, "--as", layout.profile("app"), "-o", "json"
        )
        backend.release()
        assert (await finished(app, made.job.name)).state == generation_pb2.Job.STATE_SUCCEEDED
        scrubbed = await gateway.leaves("image.scrubbed")
        released = await gateway.leaves("landmarks.released")
        (created,) = await gateway.leaves("job.created")
    (sent,) = [call.image for call in backend.seen if call.method == "generate"]
    (left,) = models().detector.faces(shown(sent))
    assert left.score > 0.8
    assert plant.CANARY not in backend.everything_seen()
    (leaf,) = [leaf for leaf in scrubbed if leaf["obj"] == original.partition("/")[2]]
    assert (leaf["kind"], leaf["nface"], leaf["nhead"]) == (created["kind"], 3, 2) == ("bystanders", 3, 2)
    # What is stored shows the subject alone, so that this is all there is to count.
    assert (record.face_count, record.profile) == (1, common_pb2.FACE_PROFILE_LANDMARKS)
    assert [leaf["sim"] for leaf in released] == [record.similarity_thousandths] * 2
    assert (told.returncode, json.loads(told.stdout)["profile"]) == (0, "FACE_PROFILE_LANDMARKS")
