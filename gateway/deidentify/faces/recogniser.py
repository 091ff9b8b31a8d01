"""The independent recogniser: does it hold two pictures for the same person's?

It judges what the other networks hid, and is given more than an attacker has:
where eyes, nose and mouth were in the original.

Rule:
    Zhong et al.: SFace, sigmoid-constrained hypersphere loss for robust face recognition (2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import cv2
import numpy as np

from gateway.deidentify.faces.crop import Matrix, cropped
from gateway.deidentify.faces.face import Bytes8, Face, Floats
from gateway.deidentify.faces.names import RECOGNISER

_SIDE: Final = 112
_PLACES: Final = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)
"""Where the network wants eyes, nose and mouth."""


class Recogniser:
    """The network, loaded.  One thread at a time may use an instance."""

    def __init__(self, weights: Mapping[str, bytes]) -> None:
        """Build it from its file's bytes, which were checked."""
        model, none = np.frombuffer(weights[RECOGNISER], np.uint8), np.empty(0, np.uint8)
        self._net = cv2.FaceRecognizerSF.create("onnx", model, none)

    def template(self, photo: Bytes8, face: Face) -> Floats:
        """Return what tells the face from others: float32, shape (128,), unit length.  Not to be kept."""
        view = cropped(photo, _alignment(face), _SIDE)
        answer = self._net.feature(cv2.cvtColor(view, cv2.COLOR_RGB2BGR)).reshape(-1)
        return np.asarray(answer / max(float(np.linalg.norm(answer)), 1e-9), np.float32)


def alike(one: Floats, other: Floats) -> int:
    """Return how like two templates are: their cosine in thousandths, 0 where they point apart."""
    return max(0, min(1000, round(float(one @ other) * 1000)))


def _alignment(face: Face) -> Matrix:
    """Return the similarity that brings a face's marks nearest to where the network wants them (Umeyama)."""
    marks = np.array(face.marks)
    middle, wanted = marks.mean(0), _PLACES.mean(0)
    own, there = marks - middle, _PLACES - wanted
    left, spread, right = np.linalg.svd(there.T @ own)
    mirror = np.array([1.0, np.sign(np.linalg.det(left @ right))])
    linear = (left * mirror @ right) * float((spread * mirror).sum() / max(float((own**2).sum()), 1e-9))
    return np.column_stack((linear, wanted - linear @ middle))
