"""Writing in pictures: what is found and covered, and what is left alone."""

from __future__ import annotations

import functools
import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from gateway import weights
from gateway.deidentify import Limits
from gateway.deidentify.faces.face import Bytes8, Head, head_of
from gateway.deidentify.faces.hide import Models, hide
from gateway.deidentify.faces.names import WEIGHTS, WORDS, needed
from gateway.deidentify.faces.pool import ImageDeidentifier
from gateway.deidentify.faces.words import cover
from tests.unit.deidentify import portraits

SAID = ("Maria Gonzalez", "ID 88231-47")


@functools.cache
def files() -> dict[str, bytes]:
    portraits.files()
    return weights.read(weights.directory(), weights.named(*needed(mask_text=True)))


@functools.cache
def models() -> Models:
    return Models(files())


def badge(letters: int, turn: float, colours: tuple[str, str] = ("black", "white")) -> Image.Image:
    font = ImageFont.load_default(letters)
    made = Image.new("RGBA", (letters * 10, letters * 4), colours[1])
    for line, text in enumerate(SAID):
        ImageDraw.Draw(made).text((letters, letters * (0.5 + 1.5 * line)), text, font=font, fill=colours[0])
    return made.rotate(turn, expand=True, resample=Image.Resampling.BICUBIC)


def wearing(letters: int = 24, turn: float = 12, at: tuple[int, int] = (40, 620)) -> tuple[Bytes8, Bytes8]:
    """Return a portrait with a badge, and where its letters are."""
    plain = Image.fromarray(portraits.scaled(portraits.portrait("obama"), 960))
    made, where = badge(letters, turn), Image.new("RGBA", plain.size)
    plain.paste(made, at, made)
    where.paste(badge(letters, turn, ("white", "black")), at)
    return np.array(plain), np.array(where.convert("L"))


@pytest.mark.parametrize(("letters", "turn"), [(9, 0), (16, -20), (24, 12), (40, 5)])
def test_a_badge_is_covered_whole(letters: int, turn: float) -> None:
    photo, letters_at = wearing(letters, turn)
    boxes = models().words.boxes(photo)
    cover(photo, boxes, (1, 2, 3), Head(0, 0, 1, 0))
    assert len(boxes) >= len(SAID)
    assert np.mean(np.all(photo[letters_at > 128] == (1, 2, 3), axis=1)) > 0.97
    assert np.mean(np.all(photo == (1, 2, 3), axis=2)) < 0.3


def test_a_portrait_without_writing_is_left_as_it_is() -> None:
    photo = portraits.scaled(portraits.portrait("biden"), 960)
    assert len(models().words.boxes(photo)) <= 1


def test_nothing_is_found_in_pictures_too_small_to_hold_any() -> None:
    for shape in ((1, 1, 3), (1, 500, 3), (33, 7, 3)):
        assert models().words.boxes(np.zeros(shape, np.uint8)) == []


def test_writing_goes_and_the_head_it_lies_beside_does_not() -> None:
    photo, _ = wearing()
    (face,) = models().detector.faces(photo)
    at_the_ear = (round(face.x + 0.45 * face.w), round(face.y - 0.2 * face.h))
    photo, letters_at = wearing(20, 0, at_the_ear)
    (face,) = models().detector.faces(photo)
    own = head_of(face)
    head = np.zeros(photo.shape[:2], bool)
    area = own.area(photo.shape)
    head[area] = own.distance(area) <= 1

    after = photo.copy()
    hidden = hide(after, "bystanders", models(), max_faces=3, max_similarity=300)

    assert hidden.words >= 1
    assert np.array_equal(photo[head], after[head])
    beyond = (letters_at > 128) & ~head
    assert beyond.any()
    assert np.mean(np.all(after[beyond] == 128, axis=1)) > 0.95


def test_who_reads_the_files_says_whether_writing_is_to_be_covered() -> None:
    """Whoever named them without asking would leave the setting without effect."""
    gateway = portraits.ROOT / "gateway"
    naming = [file for file in gateway.rglob("*.py") if "*WEIGHTS" in file.read_text()]
    assert naming == [gateway / "deidentify/faces/names.py"]


def test_without_its_network_writing_stays() -> None:
    photo, _ = wearing()
    after = photo.copy()
    assert hide(after, "bystanders", portraits.models(), max_faces=3, max_similarity=300).words == 0
    assert np.array_equal(photo, after)
    assert WORDS not in WEIGHTS


async def test_writing_is_covered_behind_the_walls() -> None:
    photo, letters_at = wearing()
    pool = ImageDeidentifier(Limits(), files(), timeout_s=60)
    await pool.start()
    try:
        seen = await pool.deidentify(portraits.jpeg(photo, quality=95), "redact", max_faces=3)
    finally:
        await pool.close()
    after = np.array(Image.open(io.BytesIO(seen.picture.data)).convert("RGB")).astype(int)
    assert seen.words >= len(SAID)
    assert np.mean(np.abs(after[letters_at > 128] - (0, 128, 0)).max(axis=1) < 24) > 0.95
