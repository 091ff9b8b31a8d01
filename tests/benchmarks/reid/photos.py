"""The photos of a folder, and where the face is in each; a photo goes by its number, never by a name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from gateway.deidentify.faces.names import DETECTOR

Pixels = npt.NDArray[np.uint8]
"""Height, width, RGB."""

LONGEST_SIDE = 1600
SCALES = (320, 640, 1600)


@dataclass(frozen=True, eq=False)
class Face:
    """Where a face is, as YuNet tells it: a box, then eyes, tip of the nose, and corners of the mouth."""

    row: npt.NDArray[np.float32]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, width, height."""
        left, top, width, height = self.row[:4].tolist()
        return left, top, width, height

    @property
    def points(self) -> npt.NDArray[np.float32]:
        return self.row[4:14].reshape(5, 2)


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo with a face.

    Attributes:
        number: Its place in the folder, from 1, those without a face counted.
        person: Who is in it, as a number.
        pixels: Upright, its longest side at most 1600.
        face: The largest face.
    """

    number: int
    person: int
    pixels: Pixels
    face: Face


@dataclass(frozen=True)
class Unused:
    """A file that cannot be used, and why."""

    number: int
    reason: Literal["not_an_image", "no_face"]


Find = Callable[[Pixels], Face | None]


def finder(weights: Mapping[str, bytes]) -> Find:
    """Return what finds the largest face of a picture, at three scales, as one alone misses huge faces."""
    model = np.frombuffer(weights[DETECTOR], np.uint8)
    detector = cv2.FaceDetectorYN.create("onnx", model, np.empty(0, np.uint8), (320, 320), 0.6, 0.3, 500)

    def find(pixels: Pixels) -> Face | None:
        found: list[npt.NDArray[np.float32]] = []
        bgr, longest = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), max(pixels.shape[:2])
        for side in SCALES:
            scale = min(1.0, side / longest)
            size = (max(1, round(bgr.shape[1] * scale)), max(1, round(bgr.shape[0] * scale)))
            detector.setInputSize(size)
            _, rows = detector.detect(cv2.resize(bgr, size, interpolation=cv2.INTER_AREA))
            for row in () if rows is None else rows:
                row[:14:2] *= bgr.shape[1] / size[0]
                row[1:14:2] *= bgr.shape[0] / size[1]
                found.append(row)
            if scale == 1.0:
                break
        return Face(max(found, key=lambda row: row[2] * row[3])) if found else None

    return find


def photos(folder: Path, find: Find) -> Iterator[Photo | Unused]:
    """Yield the photos of `folder`, which holds a folder for each person; they may be many."""
    for number, (person, path) in enumerate(_files(folder), 1):
        pixels = _read(path)
        face = None if pixels is None else find(pixels)
        if pixels is None or face is None:
            yield Unused(number, "not_an_image" if pixels is None else "no_face")
        else:
            yield Photo(number, person, pixels, face)


def _files(folder: Path) -> Iterator[tuple[int, Path]]:
    for person, home in enumerate(sorted(path for path in folder.iterdir() if path.is_dir()), 1):
        for path in sorted(home.iterdir()):
            if path.is_file():
                yield person, path


def _read(path: Path) -> Pixels | None:
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    upright.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS, reducing_gap=3)
    return np.asarray(upright)
