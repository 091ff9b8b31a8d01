"""The worker that sees to faces: behind its walls, and not believed."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gateway.deidentify import Limits, Rejected, ScrubberUnavailable
from gateway.deidentify.deidentified import Profile
from gateway.deidentify.faces.pool import COMMAND, ImageDeidentifier
from gateway.deidentify.faces.worker import pixels
from gateway.deidentify.frames import BadFrame
from tests.unit.deidentify import plant
from tests.unit.deidentify.portraits import PEOPLE, closeup, files, group, jpeg, models, portrait
from tests.unit.deidentify.test_sandbox import HELLO, fake

BLUE = Image.new("RGBA", (64, 48), (9, 99, 200, 255))
SMALL = jpeg(closeup("collins", 300))
HIDDEN = {"faces": 1, "masked": 1, "similarity": 20, "record": None, "words": 0}
RECORD = {
    "place": 4, "size": 3, "yaw": 0, "pitch": -1, "roll": 12, "faces": 1,
    "is_smiling": True, "is_mouth_open": False, "are_eyes_closed": False,
}  # fmt: skip
TRUTH = {"format": "jpeg", "width": 48, "height": 32, "orientation": 1, "dropped": {}, "mode": "canonical"}


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[ImageDeidentifier]:
    options = {"timeout_s": 60.0} | options
    deidentifier = ImageDeidentifier(Limits(), files(), **options)
    await deidentifier.start()
    try:
        yield deidentifier
    finally:
        await deidentifier.close()


def shown(data: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


async def test_every_profile_behind_every_wall_and_no_canary_comes_through() -> None:
    planted = plant.jpeg(6, photo=Image.fromarray(np.rot90(portrait("collins"))))
    assert plant.CANARY in planted
    async with running() as deidentifier:
        worker = deidentifier._posts[0].worker
        assert deidentifier.confinement["rlimits"]
        for profile in ("bystanders", "landmarks", "redact"):
            told = await deidentifier.deidentify(planted, profile)
            assert (told.profile, told.faces) == (profile, 1)
            assert plant.CANARY not in told.picture.data
            # Upright, as the orientation said: the head is above the middle.
            assert (told.picture.width, told.picture.height, told.picture.orientation) == (512, 512, 1)
            faces = models().detector.faces(shown(told.picture.data))
            assert [face.y < 200 for face in faces] == [True] * (profile == "bystanders")
            assert (told.similarity is None) == (profile == "bystanders")
            assert (told.record is None) == (profile != "landmarks")
        assert told.picture.dropped
        with pytest.raises(Rejected, match="too_many_faces"):
            await deidentifier.deidentify(jpeg(group(300)), "bystanders", max_faces=2)
        with pytest.raises(Rejected, match="no_face"):
            await deidentifier.deidentify(plant.encode(BLUE, "PNG"), "redact")
        with pytest.raises(Rejected, match="not_an_image"):
            await deidentifier.deidentify(b"no picture", "redact")
        # None of it cost a worker; one that is killed over a picture does.
        assert worker is deidentifier._posts[0].worker
        assert worker is not None
        os.kill(worker._process.pid, signal.SIGSTOP)
        answer = asyncio.create_task(deidentifier.deidentify(SMALL, "redact"))
        await asyncio.sleep(0)
        os.kill(worker._process.pid, signal.SIGKILL)
        assert (await answer).masked >= 1


async def test_the_same_picture_gives_the_same_answer() -> None:
    async with running() as deidentifier:
        first, second = [await deidentifier.deidentify(SMALL, "landmarks") for _ in range(2)]
    assert first == second


async def test_a_worker_that_takes_too_long_is_ended() -> None:
    async with running(command=fake(HELLO + "receive(); time.sleep(60)"), timeout_s=0.2) as deidentifier:
        with pytest.raises(Rejected, match="decode_timeout"):
            await deidentifier.deidentify(SMALL, "redact")


async def test_without_its_networks_no_worker_starts() -> None:
    deidentifier = ImageDeidentifier(Limits(), {})
    with pytest.raises(ScrubberUnavailable):
        await deidentifier.start()


def test_the_worker_is_started_isolated_and_with_no_word_of_a_caller() -> None:
    assert (sys.executable, "-I", "-m", "gateway.deidentify.faces.worker") == COMMAND


def test_nothing_of_the_gateways_side_loads_a_network() -> None:
    heavy = "{'cv2', 'numpy', 'ai_edge_litert'}"
    code = f"import sys, gateway.deidentify.faces.pool; sys.exit(bool({heavy} & {{*sys.modules}}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("profile", "lie"),
    [
        ("redact", {"faces": 0}),
        ("redact", {"faces": 3}),
        ("redact", {"faces": True}),
        ("redact", {"masked": -1}),
        ("redact", {"words": -1}),
        ("redact", {"similarity": None}),
        ("redact", {"similarity": 301}),
        ("redact", {"similarity": 20.5}),
        ("landmarks", {"record": None}),
        ("landmarks", {"record": [0]}),
        ("landmarks", {"record": RECORD | {"yaw": 7}}),
        ("landmarks", {"record": RECORD | {"yaw": 0.5}}),
        ("landmarks", {"record": RECORD | {"place": "4"}}),
        ("landmarks", {"record": RECORD | {"is_smiling": 1}}),
        ("landmarks", {"record": {**RECORD, "roll": None}}),
    ],
)
def test_an_impossible_answer_is_not_believed(profile: Profile, lie: dict[str, object]) -> None:
    deidentifier = ImageDeidentifier(Limits(), {})
    told = HIDDEN | {"record": RECORD if profile == "landmarks" else None}
    believed = deidentifier._read({**TRUTH, "hidden": told}, b"x", profile, 2)
    assert (believed.faces, believed.similarity) == (1, 20)
    with pytest.raises(BadFrame):
        deidentifier._read({**TRUTH, "hidden": told | lie}, b"x", profile, 2)
    for odd in ({**TRUTH}, {**TRUTH, "hidden": [1]}, {**TRUTH, "hidden": told, "mode": "lossless"}):
        with pytest.raises(BadFrame):
            deidentifier._read(odd, b"x", profile, 2)


def test_a_record_takes_over_nothing_but_its_bins() -> None:
    """A worker that was taken over cannot pass landmarks along."""
    deidentifier = ImageDeidentifier(Limits(), {})
    told = HIDDEN | {"record": RECORD | {"points": [0.1, 0.2], "faces": 999}}
    record = deidentifier._read({**TRUTH, "hidden": told}, b"x", "landmarks", 2).record
    assert record is not None
    assert (record.faces, record.roll) == (1, 12)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_pixels_are_those_of_the_picture_on_grey(mode: str) -> None:
    image = Image.open(PEOPLE["obama"]).convert(mode)
    if mode in {"LA", "RGBA"}:
        image.putalpha(Image.new("L", image.size, 0))
    wanted = (
        np.full((800, 640, 3), 128) if mode in {"LA", "RGBA"} else np.asarray(image.convert("RGB")).copy()
    )
    assert np.array_equal(wanted, pixels(image))
