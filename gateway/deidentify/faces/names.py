"""The files of the networks, by their names in the manifest; who hands them over imports no network."""

from __future__ import annotations

from typing import Final

DETECTOR: Final = "face_detection_yunet_2023mar_int8bq.onnx"
LANDMARKER: Final = "face_landmarker.task"
RECOGNISER: Final = "face_recognition_sface_2021dec_int8bq.onnx"
WEIGHTS: Final = (DETECTOR, LANDMARKER, RECOGNISER)
