"""The canonical face: everybody's mesh and nobody's, held and moved as the bins say.

What is drawn follows from the bins and from nothing else: no vertex, colour or
measure of the person gets into it.

Rule:
    MediaPipe, face_geometry.proto: `GeometryPipelineMetadata.canonical_mesh` is field 1, in it
    `vertex_buffer` is field 3 (x y z u v, centimetres, z towards the viewer) and `index_buffer` field 4.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from gateway.deidentify.faces.face import Bytes8, Floats, Head

STEP: Final = 15
"""Degrees from one bin of an angle to the next."""

_FACE_CM: Final = 17.6
_UPPER_LIDS: Final = (246, 161, 160, 159, 158, 157, 173, 466, 388, 387, 386, 385, 384, 398)
_LOWER_LIDS: Final = (7, 163, 144, 145, 153, 154, 155, 249, 390, 373, 374, 380, 381, 382)
_CORNERS, _LOWER_LIP, _LIPS = (61, 291), 14, (13, 14)
_FILLS: Final = ((0, 150, 40), (0, 165, 50), (0, 180, 60), (0, 195, 70))
_EDGE: Final = (0, 70, 20)


class Bearing(NamedTuple):
    """How a head is held and what its face does; the angles in steps of 15 degrees, as in a `Record`."""

    yaw: int
    pitch: int
    roll: int
    is_smiling: bool
    is_mouth_open: bool
    are_eyes_closed: bool


class Mesh:
    """The canonical mesh: its vertices (float32, shape (468, 3)) and triangles (int, shape (n, 3))."""

    def __init__(self, geometry: bytes) -> None:
        """Read it from the geometry of the landmarker's bundle."""
        mesh = next(_fields(geometry, 1))
        buffer = np.frombuffer(b"".join(_fields(mesh, 3)), "<f4").reshape(-1, 5)
        self.vertices: Floats = buffer[:, :3].astype(np.float32)
        self.triangles = np.array([_varint(value, 0)[0] for value in _fields(mesh, 4)]).reshape(-1, 3)

    def angles(self, points: Floats) -> tuple[float, float, float]:
        """Return (yaw, pitch, roll) of a face in degrees.

        Args:
            points: Its landmarks: shape (at least 468, 3), y down, z away from the viewer.
        """
        seen = points[: len(self.vertices)] * np.array([1, -1, -1])
        own = self.vertices - self.vertices.mean(0)
        left, _, right = np.linalg.svd((seen - seen.mean(0)).T.astype(float) @ own.astype(float))
        # A mirror image is no rotation.
        mirror = np.diag([1, 1, np.sign(np.linalg.det(left @ right))])
        turned = left @ mirror @ right
        yaw = math.asin(max(-1.0, min(1.0, -turned[2, 0])))
        pitch = -math.atan2(turned[2, 1], turned[2, 2])
        roll = -math.atan2(turned[1, 0], turned[0, 0])
        return math.degrees(yaw), math.degrees(pitch), math.degrees(roll)

    def draw(self, photo: Bytes8, head: Head, bearing: Bearing) -> None:
        """Draw the mesh into the picture where the head was, and not beyond its rim."""
        area = head.area(photo.shape)
        part = np.ascontiguousarray(photo[area])
        scale = head.size / _FACE_CM
        held = self._moved(bearing) @ _rotation(bearing).T
        place = np.array([head.x - area[1].start, head.y - area[0].start])
        flat = held[:, :2] * np.array([scale, -scale]) + place
        corners = np.rint(flat * 8).astype(np.int32)
        for number in self._seen(held):
            triangle = corners[self.triangles[number]]
            cv2.fillConvexPoly(part, triangle, _FILLS[number % len(_FILLS)], shift=3)
            cv2.polylines(part, [triangle], True, _EDGE, 1, shift=3)
        for strip in head.strips(photo.shape):
            first = strip[0].start - area[0].start
            drawn = part[first : first + strip[0].stop - strip[0].start]
            np.copyto(photo[strip], drawn, where=(head.distance(strip) <= 1)[..., None])

    def _seen(self, held: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Return the numbers of the triangles that face the viewer, the farthest first."""
        one, other, third = (held[self.triangles[:, corner]] for corner in range(3))
        normal = np.cross(other - one, third - one)[:, 2]
        depth = held[self.triangles, 2].mean(1)
        order = np.argsort(depth)
        return np.asarray(order[normal[order] > 0], np.int64)

    def _moved(self, bearing: Bearing) -> npt.NDArray[np.float64]:
        """Return the vertices with mouth and lids as the three bits say."""
        moved = self.vertices.astype(float)
        mouth = moved[list(_LIPS)].mean(0)
        if bearing.is_smiling:
            for corner in _CORNERS:
                outwards = math.copysign(0.5, moved[corner, 0])
                moved += _near(moved, moved[corner], 1.5)[:, None] * np.array([outwards, 0.8, 0])
        if bearing.is_mouth_open:
            below = np.where(moved[:, 1] < mouth[1] - 0.02, 1.0, 0.0)
            below[_LOWER_LIP] = 1.0
            moved[:, 1] -= 1.6 * below * _near(moved, moved[_LOWER_LIP], 4.0)
        if bearing.are_eyes_closed:
            moved[list(_UPPER_LIDS)] = moved[list(_LOWER_LIDS)]
        return moved


def _near(
    points: npt.NDArray[np.float64], middle: npt.NDArray[np.float64], reach: float
) -> npt.NDArray[np.float64]:
    """Return how near each point is: 1 there, falling off with `reach` centimetres."""
    return np.asarray(np.exp(-((np.linalg.norm(points - middle, axis=1) / reach) ** 2)), np.float64)


def _rotation(bearing: Bearing) -> npt.NDArray[np.float64]:
    yaw, pitch, roll = (math.radians(STEP * angle) for angle in bearing[:3])
    about_x = np.array(
        [[1, 0, 0], [0, math.cos(pitch), math.sin(pitch)], [0, -math.sin(pitch), math.cos(pitch)]]
    )
    about_y = np.array([[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]])
    about_z = np.array([[math.cos(roll), math.sin(roll), 0], [-math.sin(roll), math.cos(roll), 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x, np.float64)


def _fields(message: bytes, wanted: int) -> Iterator[bytes]:
    """Yield each value of a field of a protobuf message, as its bytes; groups are not used there."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 2:
            length, at = _varint(message, at)
            end = at + length
        else:
            end = at + 4 if kind == 5 else at + 8 if kind == 1 else _varint(message, at)[1]
        if tag >> 3 == wanted:
            yield message[at:end]
        at = end


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins at `at`, and where it ends."""
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not data[at - 1] & 0x80:
            return value, at
