"""Faces of a portrait of two megapixels: each profile on one core, and what it costs the gateway's loop.

In process, so that a worker's start and the wire do not count; then eight
pictures at once through the workers, while the loop is watched for stalls.
"""

from __future__ import annotations

import asyncio
import io
import time

import cv2
import numpy as np
from PIL import Image

from gateway.deidentify import Limits
from gateway.deidentify.deidentified import Profile
from gateway.deidentify.faces.detector import Detector
from gateway.deidentify.faces.hide import Models, hide
from gateway.deidentify.faces.pool import MAX_SIMILARITY, ImageDeidentifier
from tests.benchmarks.measure import Side, Table, table, take_turns
from tests.unit.deidentify.portraits import files, portrait

SIZE = (1280, 1600)
ROUNDS, QUICK_ROUNDS = 9, 2
PICTURES = 8
TICK_S = 0.002
DETECTOR = "the detector alone, 640 pixels"


async def run(*, quick: bool) -> list[Table]:
    """Return how long faces take, and by how much the loop is late while eight pictures are seen to."""
    size, rounds = ((320, 400) if quick else SIZE), QUICK_ROUNDS if quick else ROUNDS
    cv2.setNumThreads(1)
    models = Models(files())
    photo = np.asarray(Image.fromarray(portrait("obama")).resize(size, Image.Resampling.LANCZOS))
    sides: dict[str, Side] = {DETECTOR: _detector(models.detector, photo)}
    sides |= {profile: _hiding(photo, profile, models) for profile in ("bystanders", "landmarks", "redact")}
    seen = await take_turns(sides, rounds)
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "JPEG", quality=90)
    stalls = await _stalls(file.getvalue(), 2 if quick else PICTURES)
    notes = [f"{size[0]} x {size[1]} pixels, one face, one core, CPU time; the machine was shared"]
    return [
        table("faces in a portrait", "ms", DETECTOR, seen, notes),
        table("the loop while pictures are seen to, late by", "ms", "idle", stalls),
    ]


def _detector(look: Detector, photo: np.ndarray) -> Side:
    small = cv2.resize(photo, (512, 640), interpolation=cv2.INTER_AREA)

    async def side() -> float:
        begun = time.process_time()
        look._upright(np.asarray(small, np.uint8), 1.0)
        return (time.process_time() - begun) * 1e3

    return side


def _hiding(photo: np.ndarray, profile: Profile, models: Models) -> Side:
    async def side() -> float:
        changed = photo.copy()
        begun = time.process_time()
        hide(changed, profile, models, max_faces=5, max_similarity=MAX_SIMILARITY)
        return (time.process_time() - begun) * 1e3

    return side


async def _stalls(data: bytes, pictures: int) -> dict[str, list[float]]:
    """Return by how much the loop was late: while nothing happens, and while pictures are seen to."""
    deidentifier = ImageDeidentifier(Limits(), files(), timeout_s=120)
    await deidentifier.start()
    try:
        idle = await _lateness(asyncio.sleep(1))
        asked = (deidentifier.deidentify(data, "bystanders") for _ in range(pictures))
        busy = await _lateness(asyncio.gather(*asked))
    finally:
        await deidentifier.close()
    count = min(len(idle), len(busy))
    return {"idle": sorted(idle)[-count:], "pictures": sorted(busy)[-count:]}


async def _lateness(work: asyncio.Future[object] | object) -> list[float]:
    task = asyncio.ensure_future(work)  # type: ignore[arg-type]  # whatever can be awaited
    late = []
    while not task.done():
        begun = time.perf_counter()
        await asyncio.sleep(TICK_S)
        late.append((time.perf_counter() - begun - TICK_S) * 1e3)
    await task
    return late
