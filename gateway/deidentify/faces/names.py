"""The files of the networks, by their names in the manifest; who hands them over imports no network."""

from __future__ import annotations

from typing import Final

DETECTOR: Final = "face_detection_yunet_2023mar_int8bq.onnx"
LANDMARKER: Final = "face_landmarker.task"
RECOGNISER: Final = "face_recognition_sface_2021dec_int8bq.onnx"
WORDS: Final = "PP-OCRv6_det_small.onnx"
WEIGHTS: Final = (DETECTOR, LANDMARKER, RECOGNISER)


def needed(*, mask_text: bool) -> tuple[str, ...]:
    """Return which files a worker is handed: with that of the finder of writing, it covers writing."""
    return (*WEIGHTS, WORDS) if mask_text else WEIGHTS
