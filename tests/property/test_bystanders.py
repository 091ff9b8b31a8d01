"""Bystanders in groups put together from the open portraits: all are masked, the subject's face is as it was.

`LETHE_GROUPS` says how many groups are tried; the seeds are fixed.
"""

from __future__ import annotations

import math
import os
import random
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from gateway.deidentify.faces.hide import GREY, Models, hide
from tests.needs import face_models
from tests.portraits import PORTRAITS, portrait

GROUPS = int(os.environ.get("LETHE_GROUPS", "3"))
COLUMNS, ROWS, CELL = 5, 4, 320
"""The subject takes the cells around the middle; each bystander one of the others."""
HEIGHTS, TURNED_HEIGHTS = (36, 120), (120, 160)
"""Heights of faces in pixels; who lies or stands on the head is looked for in a smaller picture."""

Pixels = npt.NDArray[np.uint8]


class Bust(NamedTuple):
    """A portrait: the picture, the middle of its face, and the face's height in pixels."""

    image: Image.Image
    x: float
    y: float
    height: float


class Head(NamedTuple):
    """Where a face was put, and how high it is there."""

    x: float
    y: float
    height: float

    def core(self, photo: Pixels) -> Pixels:
        """Return the part of the picture that is face without doubt, however it is turned."""
        reach = self.height * 0.3
        rows = slice(math.ceil(self.y - reach), math.floor(self.y + reach))
        return photo[rows, math.ceil(self.x - reach) : math.floor(self.x + reach)]


@pytest.fixture(scope="module")
def models() -> Models:
    return Models(face_models())


@pytest.fixture(scope="module")
def busts(models: Models) -> list[Bust]:
    made = []
    for path in PORTRAITS:
        image = portrait(path)
        face = max(models.detector.faces(np.array(image)), key=lambda one: one.h)
        made.append(Bust(image, face.x, face.y, face.h))
    return made


def group(seed: int, busts: list[Bust]) -> tuple[Pixels, Head, list[Head]]:
    """Return a picture of 2 to 12 people, the subject, and the bystanders."""
    draw = random.Random(seed)
    size = (COLUMNS * CELL, ROWS * CELL)
    picture = Image.effect_noise(size, 24).convert("RGB")
    subject = _put(picture, draw.choice(busts), CELL * 2.5, CELL * 2.0, 250, draw.uniform(-20, 20))
    cells = [(x, y) for x in range(COLUMNS) for y in range(ROWS) if not (1 <= x <= 3 and 1 <= y <= 2)]
    bystanders = []
    for x, y in draw.sample(cells, draw.randint(1, 11)):
        quarters = draw.choice([0, 0, 0, 1, 2, 3])
        turn = 90 * quarters + draw.uniform(-8, 8)
        height = draw.uniform(*(TURNED_HEIGHTS if quarters else HEIGHTS))
        middle = [CELL * (at + 0.5) + draw.uniform(-30, 30) for at in (x, y)]
        bystanders.append(_put(picture, draw.choice(busts), *middle, height, turn))
    return np.array(picture), subject, bystanders


def _put(picture: Image.Image, bust: Bust, x: float, y: float, height: float, turn: float) -> Head:
    """Paste an ellipse around the head of `bust` so that its face is `height` pixels high, turned."""
    scale = height / bust.height
    reach = 1.0 * bust.height
    around = (bust.x - reach, bust.y - reach, bust.x + reach, bust.y + reach)
    side = round(2 * reach * scale)
    head = bust.image.transform((side, side), Image.Transform.EXTENT, around, Image.Resampling.BICUBIC)
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).ellipse((0, 0, side - 1, side - 1), fill=255)
    corner = (round(x - side / 2), round(y - side / 2))
    picture.paste(head.rotate(turn, Image.Resampling.BICUBIC), corner, mask)
    return Head(corner[0] + side / 2, corner[1] + side / 2, height)


@pytest.mark.parametrize("seed", range(GROUPS))
def test_every_bystander_is_masked_and_the_subjects_face_is_unchanged(seed: int, busts, models) -> None:
    photo, subject, bystanders = group(seed, busts)
    before = photo.copy()
    hidden = hide(photo, "bystanders", models, max_faces=100, max_similarity=300)
    print(f"group {seed}: {1 + len(bystanders)} heads, {hidden.faces} found, {hidden.masked} masked")
    assert np.array_equal(subject.core(before), subject.core(photo))
    assert not [head for head in bystanders if not (head.core(photo) == GREY).all()]
    left = models.detector.faces(photo)
    assert len(left) == 1
    assert left[0].holds(subject.x, subject.y)
