"""Open portraits, and pictures made of them: arrays of height, width, RGB."""

from __future__ import annotations

import functools
import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from gateway import weights
from gateway.deidentify.faces.face import Bytes8, Face
from gateway.deidentify.faces.hide import Models
from gateway.deidentify.faces.names import WEIGHTS
from gateway.weights import fetch

ROOT = Path(__file__).resolve().parents[3]
PEOPLE = {
    "biden": ROOT / "tests/data/faces/biden.jpg",
    "obama": ROOT / "tests/data/faces/obama.jpg",
    "collins": ROOT / "gateway/admin/data/eileen-collins.jpg",
}


@functools.cache
def files() -> dict[str, bytes]:
    """Return the networks' files; fetched where `make weights` has not run."""
    folder = weights.directory()
    fetch.fetch(folder)
    return weights.read(folder, weights.named(*WEIGHTS))


@functools.cache
def models() -> Models:
    """Return the networks; they compute the same whoever asks."""
    cv2.setNumThreads(1)
    return Models(files())


def portrait(name: str) -> Bytes8:
    return np.array(Image.open(PEOPLE[name]).convert("RGB"))


def scaled(photo: Bytes8, height: int) -> Bytes8:
    width = round(photo.shape[1] * height / photo.shape[0])
    return np.array(Image.fromarray(photo).resize((width, height), Image.Resampling.LANCZOS))


@functools.cache
def _face(name: str) -> Face:
    return models().detector.faces(portrait(name))[0]


def closeup(name: str, height: int, side: float = 1.0) -> Bytes8:
    """Return a portrait cut to the head, `side` widths of the face to each side of its middle."""
    face, photo = _face(name), portrait(name)
    rows = slice(max(0, round(face.y - 1.1 * face.h)), round(face.y + 1.2 * face.h))
    columns = slice(max(0, round(face.x - side * face.w)), round(face.x + side * face.w))
    return scaled(photo[rows, columns], height)


def group(height: int = 480, side: float = 1.0) -> Bytes8:
    """Return three people side by side; the smaller `side`, the closer they stand."""
    return np.hstack([closeup(name, height, side) for name in ("biden", "obama", "collins")])


def pasted(photo: Bytes8, part: Bytes8, x: int, y: int) -> Bytes8:
    whole = photo.copy()
    whole[y : y + part.shape[0], x : x + part.shape[1]] = part
    return whole


def box(face: Face) -> tuple[slice, slice]:
    """Return the rows and columns of a face."""
    rows = slice(max(0, int(face.y - face.h / 2)), int(face.y + face.h / 2))
    return rows, slice(max(0, int(face.x - face.w / 2)), int(face.x + face.w / 2))


def jpeg(photo: Bytes8, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "JPEG", **options)
    return file.getvalue()
