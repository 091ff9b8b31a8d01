"""What a face does, in bins: how the head is held, and three bits of expression.

Landmarks and blendshapes are computed for this alone.  Either would name a
person among others, so that neither is returned.

Rule:
    MediaPipe, face_blendshapes_graph.cc: which points the blendshapes are computed from, and their order.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter

from gateway.deidentify.faces.crop import back, cropped, upright
from gateway.deidentify.faces.face import Bytes8, Face, Floats
from gateway.deidentify.faces.mesh import STEP, Bearing, Mesh
from gateway.deidentify.faces.names import LANDMARKER

_POINTS: Final = "face_landmarks_detector.tflite"
_SHAPES: Final = "face_blendshapes.tflite"
_GEOMETRY: Final = "geometry_pipeline_metadata_landmarks.binarypb"

_SIDE: Final = 256
_ROOM: Final = 1.5
_EYE_CORNERS: Final = (33, 263)
_SHAPE_POINTS: Final = (
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67,
    70, 78, 80, 81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146, 148,
    149, 150, 152, 153, 154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181, 185, 191,
    195, 197, 234, 246, 249, 251, 263, 267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293, 295, 296, 297,
    300, 308, 310, 311, 312, 314, 317, 318, 321, 323, 324, 332, 334, 336, 338, 356, 361, 362, 365, 373, 374,
    375, 377, 378, 379, 380, 381, 382, 384, 385, 386, 387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415,
    454, 466, 468, 469, 470, 471, 472, 473, 474, 475, 476, 477,
)  # fmt: skip
_BLINKS, _JAW, _SMILES = [9, 10], 25, [44, 45]
_CLOSED, _OPEN, _SMILING = 0.5, 0.25, 0.4


class Landmarks:
    """The two networks and their mesh, loaded.  One thread at a time may use an instance."""

    def __init__(self, weights: Mapping[str, bytes]) -> None:
        """Build them from their bundle's bytes, which were checked."""
        with zipfile.ZipFile(io.BytesIO(weights[LANDMARKER])) as bundle:
            self.mesh = Mesh(bundle.read(_GEOMETRY))
            self._points = _Network(bundle.read(_POINTS))
            self._shapes = _Network(bundle.read(_SHAPES))

    def bearing(self, photo: Bytes8, face: Face) -> Bearing:
        """Return how a face is held and what it does.

        The points are found twice: where the detector says that the face is, and where they say it is.
        """
        points = self.points(photo, face)
        yaw, pitch, roll = self.mesh.angles(points)
        shapes = self._shapes.run(points[None, _SHAPE_POINTS, :2]).reshape(-1)
        return Bearing(
            _step(yaw, 6),
            _step(pitch, 6),
            _step(roll, 12),
            is_smiling=bool(shapes[_SMILES].mean() > _SMILING),
            is_mouth_open=bool(shapes[_JAW] > _OPEN),
            are_eyes_closed=bool(shapes[_BLINKS].min() > _CLOSED),
        )

    def points(self, photo: Bytes8, face: Face) -> Floats:
        """Return a face's landmarks: float32, shape (478, 3), pixels of the photo.  Not to be kept."""
        points = self._look(photo, (face.x, face.y), max(face.w, face.h), face.turn)
        low, high = points[:, :2].min(0), points[:, :2].max(0)
        x, y = (low + high) / 2
        across, down = points[_EYE_CORNERS[1], :2] - points[_EYE_CORNERS[0], :2]
        return self._look(photo, (x, y), float((high - low).max()), math.degrees(math.atan2(down, across)))

    def _look(self, photo: Bytes8, middle: tuple[float, float], size: float, turn: float) -> Floats:
        matrix = upright(middle, size * _ROOM, turn, _SIDE)
        view = cropped(photo, matrix, _SIDE).astype(np.float32) / np.float32(255)
        points = self._points.run(view[None]).reshape(-1, 3)
        there = back(matrix)
        flat = points[:, :2] @ there[:, :2].T + there[:, 2]
        depth = points[:, 2] * math.hypot(there[0, 0], there[0, 1])
        return np.column_stack((flat, depth)).astype(np.float32)


class _Network:
    """A network of LiteRT with one input; its first output counts."""

    def __init__(self, model: bytes) -> None:
        self._network = Interpreter(model_content=model, num_threads=1)
        self._network.allocate_tensors()
        self._input = self._network.get_input_details()[0]["index"]
        self._output = self._network.get_output_details()[0]["index"]

    def run(self, tensor: npt.NDArray[Any]) -> Floats:
        self._network.set_tensor(self._input, tensor.astype(np.float32))
        self._network.invoke()
        return np.asarray(self._network.get_tensor(self._output), np.float32)


def _step(degrees: float, most: int) -> int:
    return max(-most, min(most, round(degrees / STEP)))
