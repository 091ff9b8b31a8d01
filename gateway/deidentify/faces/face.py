"""A face as the detector sees it, and the head around it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Bytes8 = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

SIDE, UP, DOWN = 0.70, 1.05, 0.80
"""How far a head reaches from the middle of its face, in heights of the face: to each side, to the crown and
below the chin.  Hair, ears and neck alone name a person, so that they belong to it."""
TIGHT = 0.85
"""What of these reaches holds the face itself, with the corners of its box."""
STEPS = 8
_STRIP = 128
_NEARLY = 0.8
"""From which share of the largest face's area on a face counts as just as large."""


class Face(NamedTuple):
    """Where a face is.

    Attributes:
        x: Its middle, pixels from the left.
        y: Its middle, pixels from above.
        w: Its width in pixels, along the eyes.
        h: Its height in pixels, along the nose.
        marks: Its right eye, left eye, nose, right and left corner of the mouth: ((x, y), ...).
        score: How sure the detector is, 0 to 1.
    """

    x: float
    y: float
    w: float
    h: float
    marks: tuple[tuple[float, float], ...]
    score: float

    @property
    def turn(self) -> float:
        """By how much it is tilted to the right of the picture, in degrees."""
        marks = np.array(self.marks)
        down_x, down_y = marks[3:].mean(0) - marks[:2].mean(0)
        return math.degrees(math.atan2(-down_x, down_y))

    def holds(self, x: float, y: float) -> bool:
        """Return whether the point lies on the face."""
        return math.hypot((x - self.x) / self.w, (y - self.y) / self.h) < 0.6


class Head(NamedTuple):
    """An ellipse over a whole head: where it lies, its size, and by how much it is tilted.

    All are in steps, so that neither the ellipse nor what is drawn in it measures the face.
    """

    x: float
    y: float
    size: float
    turn: float

    def area(self, shape: Sequence[int]) -> tuple[slice, slice]:
        """Return the rows and columns of a picture of `shape` that the head may touch."""
        reach = self.size * max(SIDE, UP, DOWN)
        return _span(self.y, reach, shape[0]), _span(self.x, reach, shape[1])

    def strips(self, shape: Sequence[int]) -> Iterator[tuple[slice, slice]]:
        """Yield that area in strips, so that what is computed for each of its pixels takes little memory."""
        rows, columns = self.area(shape)
        for top in range(rows.start, rows.stop, _STRIP):
            yield slice(top, min(top + _STRIP, rows.stop)), columns

    def distance(self, area: tuple[slice, slice]) -> Floats:
        """Return how far each pixel of an area is away: float32, 0 in the middle, 1 on the rim."""
        rows, columns = (np.asarray(line + 0.5, np.float32) for line in np.ogrid[area])
        angle = math.radians(self.turn)
        right, down = np.float32(math.cos(angle)), np.float32(math.sin(angle))
        x, y = columns - np.float32(self.x), rows - np.float32(self.y)
        across = (x * right + y * down) / np.float32(SIDE * self.size)
        along = y * right - x * down
        along /= np.where(along < 0, np.float32(UP * self.size), np.float32(DOWN * self.size))
        return np.asarray(np.hypot(across, along), np.float32)


def head_of(face: Face) -> Head:
    """Return the head around a face.

    Its size is rounded up to an eighth of an octave, tilt to 15 degrees, place to an eighth of the size.
    """
    height = max(face.h, 1.25 * face.w)
    size = 2 ** (math.ceil(math.log2(height) * STEPS) / STEPS)
    step = size / STEPS
    x, y = (round(at / step) * step for at in (face.x, face.y))
    return Head(x, y, size, round(face.turn / 15) * 15.0)


def subject_of(faces: Sequence[Face], shape: Sequence[int]) -> Face:
    """Return the face the picture is of: the largest; of those nearly as large the most central one."""
    largest = max(face.w * face.h for face in faces)
    height, width = shape[:2]

    def rank(face: Face) -> tuple[float, float, float]:
        return (math.hypot(face.x - width / 2, face.y - height / 2), face.x, face.y)

    return min((face for face in faces if face.w * face.h >= _NEARLY * largest), key=rank)


def _span(middle: float, reach: float, end: int) -> slice:
    first = min(max(0, math.floor(middle - reach)), end)
    return slice(first, max(first, min(end, math.ceil(middle + reach) + 1)))
