"""Finds faces: YuNet, at several scales and in four rotations.

The network misses faces that are very large or very small in its input, and
most of those that lie on their side; what no look finds cannot be hidden.

Rule:
    Wu, Peng, Yu: YuNet, a tiny millisecond-level face detector (2023).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import cv2
import numpy as np

from gateway.deidentify.faces.face import Bytes8, Face, Head
from gateway.deidentify.faces.names import DETECTOR

_SIDES: Final = (320, 640, 1024, 2048)
"""Longest sides at which a picture is looked at upright."""
_TURNED_SIDE, _FRAMED_SIDE = 640, 192
_NEAR_SIDES: Final = (160, 320)
_TILE, _OVERLAP = 1104, 160
_SCORE, _TURNED_SCORE, _SUPPRESSION, _MOST = 0.6, 0.8, 0.3, 1000
_COVERED: Final = 0.6
_LEAST: Final = 160
"""Sides that the network is given at least: of smaller ones it may answer what lay in memory before."""
_MARGIN: Final = 0.25
"""Border around a picture, as a share of its longest side, in which a face that fills it finds room."""


class Detector:
    """The network, loaded.  One thread at a time may use an instance."""

    def __init__(self, weights: Mapping[str, bytes]) -> None:
        """Build it from its file's bytes, which were checked."""
        model, none = np.frombuffer(weights[DETECTOR], np.uint8), np.empty(0, np.uint8)
        self._net = cv2.FaceDetectorYN.create("onnx", model, none, (320, 320), _SCORE, _SUPPRESSION, _MOST)

    def faces(self, photo: Bytes8) -> list[Face]:
        """Return the faces of a picture, the surest first."""
        # What would hardly shrink the picture shows nothing that the next smaller look does not.
        sides = [side for side in _SIDES if side == _SIDES[0] or side * 0.8 <= max(photo.shape[:2])]
        looks = _looks(photo, (*sides, _TURNED_SIDE, _FRAMED_SIDE))
        found = [face for side in sides for face in self._tiles(*looks[side])]
        found += self._turned(*looks[_TURNED_SIDE], (1, 2, 3))
        return _distinct([*found, *self._framed(*looks[_FRAMED_SIDE])])

    def left(self, photo: Bytes8, heads: Sequence[Head]) -> list[Face]:
        """Return the faces that are still found in a picture in which `heads` were hidden.

        The network gives the same answers where nothing has changed; so it looks
        at the whole in small, and closely at what surrounds the heads.
        """
        looks = _looks(photo, (_SIDES[0], _FRAMED_SIDE))
        found = [*self._upright(*looks[_SIDES[0]]), *self._framed(*looks[_FRAMED_SIDE])]
        return _distinct([*found, *(face for head in heads for face in self.near(photo, head))])

    def near(self, photo: Bytes8, head: Head) -> list[Face]:
        """Return the faces that are found where a head was hidden, and around, as the head was turned."""
        part, x, y = _around(photo, head)
        quarter = round(head.turn / 90) % 4
        looks = _looks(part, _NEAR_SIDES)
        found = [face for look in looks.values() for face in self._turned(*look, (quarter,))]
        return [_moved(face, x, y) for face in _distinct(found)]

    def _tiles(self, small: Bytes8, scale: float) -> Iterator[Face]:
        for y in _starts(small.shape[0]):
            for x in _starts(small.shape[1]):
                tile = small[y : y + _TILE, x : x + _TILE]
                yield from (_moved(face, x / scale, y / scale) for face in self._upright(tile, scale))

    def _framed(self, small: Bytes8, scale: float) -> list[Face]:
        """Look for a face that fills the picture, or is cut by its edges: with room around it."""
        room = round(_MARGIN * max(small.shape[:2]))
        height, width = small.shape[:2]
        framed = np.full((height + 2 * room, width + 2 * room, 3), 128, np.uint8)
        framed[room : room + height, room : room + width] = small
        return [_moved(face, -room / scale, -room / scale) for face in self._upright(framed, scale)]

    def _turned(self, small: Bytes8, scale: float, quarters: Sequence[int]) -> Iterator[Face]:
        height, width = small.shape[:2]
        for quarter in quarters:
            for face in self._upright(np.ascontiguousarray(np.rot90(small, quarter)), 1.0):
                if face.score >= (_TURNED_SCORE if quarter else _SCORE):
                    yield _scaled(_turned_back(face, quarter, width, height), scale)

    def _upright(self, small: Bytes8, scale: float) -> list[Face]:
        bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
        below, right = (max(0, _LEAST - side) for side in bgr.shape[:2])
        if below or right:
            bgr = cv2.copyMakeBorder(bgr, 0, below, 0, right, cv2.BORDER_CONSTANT, value=(128, 128, 128))
        size = (bgr.shape[1], bgr.shape[0])
        self._net.setInputSize(size)
        rows: Any = self._net.detect(bgr)[1]
        far = 2.0 * max(size)
        sane = [row for row in ([] if rows is None else rows.tolist()) if all(abs(v) <= far for v in row)]
        return [_scaled(_face(row), scale) for row in sane]


def _face(row: Sequence[float]) -> Face:
    x, y, w, h = row[:4]
    marks = tuple((float(row[i]), float(row[i + 1])) for i in range(4, 14, 2))
    return Face(
        float(x + w / 2), float(y + h / 2), max(float(w), 1.0), max(float(h), 1.0), marks, float(row[14])
    )


def _looks(photo: Bytes8, sides: Sequence[int]) -> dict[int, tuple[Bytes8, float]]:
    """Return the picture with each of `sides` as its longest, by side, and the factor that took.

    Each is made from the next larger one; none is larger than the picture.
    """
    height, width = photo.shape[:2]
    longest = max(height, width)
    looks: dict[int, tuple[Bytes8, float]] = {}
    for side in sorted(sides, reverse=True):
        scale = min(1.0, side / longest)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = photo if scale == 1.0 else cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
        photo = np.asarray(small, np.uint8)
        looks[side] = photo, scale
    return looks


def _around(photo: Bytes8, head: Head) -> tuple[Bytes8, int, int]:
    """Return what lies around a head, and where that begins."""
    reach = 1.75 * head.size
    x, y = max(0, math.floor(head.x - reach)), max(0, math.floor(head.y - reach))
    return photo[y : math.ceil(head.y + reach), x : math.ceil(head.x + reach)], x, y


def _starts(length: int) -> list[int]:
    """Return where tiles begin that cover `length` with some overlap."""
    if length <= _TILE:
        return [0]
    count = math.ceil((length - _OVERLAP) / (_TILE - _OVERLAP))
    return [round(number * (length - _TILE) / (count - 1)) for number in range(count)]


def _scaled(face: Face, scale: float) -> Face:
    marks = tuple((x / scale, y / scale) for x, y in face.marks)
    return Face(face.x / scale, face.y / scale, face.w / scale, face.h / scale, marks, face.score)


def _moved(face: Face, x: float, y: float) -> Face:
    return face._replace(
        x=face.x + x, y=face.y + y, marks=tuple((mark_x + x, mark_y + y) for mark_x, mark_y in face.marks)
    )


def _turned_back(face: Face, quarter: int, width: int, height: int) -> Face:
    """Return where a face lies in a picture of this size that was turned by `quarter` for the look."""

    def back(x: float, y: float) -> tuple[float, float]:
        return ((x, y), (width - y, x), (width - x, height - y), (y, height - x))[quarter]

    x, y = back(face.x, face.y)
    return face._replace(x=x, y=y, marks=tuple(back(*mark) for mark in face.marks))


def _distinct(faces: Sequence[Face]) -> list[Face]:
    """Return each face once: of two that overlap, or of which one covers the other, the surer one."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda one: (-one.score, one[:4])):
        if not any(_is_same(face, other) for other in kept):
            kept.append(face)
    return kept


def _is_same(one: Face, other: Face) -> bool:
    width = min(one.x + one.w / 2, other.x + other.w / 2) - max(one.x - one.w / 2, other.x - other.w / 2)
    height = min(one.y + one.h / 2, other.y + other.h / 2) - max(one.y - one.h / 2, other.y - other.h / 2)
    if width <= 0 or height <= 0:
        return False
    smaller, larger = sorted((one.w * one.h, other.w * other.h))
    common = width * height
    return common > _COVERED * smaller or common > _SUPPRESSION * (smaller + larger - common)
