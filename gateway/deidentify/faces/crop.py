"""Parts of a picture, turned and scaled as a network wants them."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from gateway.deidentify.faces.face import Bytes8

Matrix = npt.NDArray[np.float64]
"""Where a pixel of the picture goes: shape (2, 3), a similarity."""


def upright(middle: tuple[float, float], size: float, turn: float, side: int) -> Matrix:
    """Return what brings a square of `size` around `middle`, tilted by `turn` degrees, upright to `side`."""
    scale = side / max(size, 1.0)
    matrix: Matrix = np.asarray(cv2.getRotationMatrix2D((0.0, 0.0), turn, scale), np.float64)
    matrix[:, 2] = side / 2 - matrix[:, :2] @ np.array(middle)
    return matrix


def cropped(photo: Bytes8, matrix: Matrix, side: int) -> Bytes8:
    """Return the square of `side` that `matrix` makes of a picture; averaged where it shrinks much."""
    corners = np.array([(0, 0), (side, 0), (0, side), (side, side)], np.float64)
    seen = corners @ back(matrix)[:, :2].T + back(matrix)[:, 2]
    first = np.maximum(np.floor(seen.min(0)) - 1, 0).astype(int)
    last = np.maximum(np.ceil(seen.max(0)) + 1, first + 1).astype(int)
    part = photo[first[1] : last[1], first[0] : last[0]]
    if not part.size:
        return np.zeros((side, side, 3), np.uint8)
    there = matrix.copy()
    there[:, 2] += matrix[:, :2] @ first
    shrink = 2 * math.hypot(matrix[0, 0], matrix[0, 1])
    if shrink < 1:
        size = [max(1, round(length * shrink)) for length in part.shape[1::-1]]
        # What rounding makes of the factor, exactly.
        there[:, :2] /= np.array(size) / np.array(part.shape[1::-1])
        part = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(cv2.warpAffine(part, there, (side, side), flags=cv2.INTER_LINEAR), np.uint8)


def back(matrix: Matrix) -> Matrix:
    """Return the way back."""
    return np.asarray(cv2.invertAffineTransform(matrix), np.float64)
