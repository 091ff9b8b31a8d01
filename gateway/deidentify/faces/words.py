"""Writing in a picture (badges, signs, number plates), found and covered; it is never read.

The network says for each point how likely it lies in writing.  What it is sure
of becomes turned boxes, each grown as the network was trained to shrink them.

Rule:
    Liao et al.: Real-time scene text detection with differentiable binarization (2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from gateway.deidentify.faces.face import Bytes8, Floats, Head
from gateway.deidentify.faces.names import WORDS

Box = npt.NDArray[np.int32]
"""Four corners, x and y in pixels."""

_SIDE: Final = 960
"""Longest side at which a picture is looked at; letters of five pixels are found there."""
_STEP: Final = 32
_POINT, _WHOLE = 0.3, 0.5
"""How likely a point, and a box on the whole, must be."""
_LEAST: Final = 3
_GROWTH: Final = 1.6


class Words:
    """The network, loaded.  One thread at a time may use an instance."""

    def __init__(self, weights: Mapping[str, bytes]) -> None:
        """Build it from its file's bytes, which were checked."""
        self._net = cv2.dnn.readNetFromONNX(np.frombuffer(weights[WORDS], np.uint8))

    def boxes(self, photo: Bytes8) -> list[Box]:
        """Return where writing is, in the picture's pixels."""
        height, width = photo.shape[:2]
        if min(height, width) < _STEP // 4:
            return []
        scale = min(1.0, _SIDE / max(height, width))
        columns, rows = (max(_STEP, round(side * scale / _STEP) * _STEP) for side in (width, height))
        small = cv2.resize(photo, (columns, rows), interpolation=cv2.INTER_AREA)
        self._net.setInput(cv2.dnn.blobFromImage(small, 1 / 127.5, mean=(127.5,) * 3, swapRB=True))
        likely: Floats = self._net.forward()[0, 0]
        contours, _ = cv2.findContours(
            (likely > _POINT).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
        )
        found = []
        for contour in contours:
            middle, (long, short), turn = cv2.minAreaRect(contour)
            if min(long, short) >= _LEAST and _sure(likely, contour):
                growth = _GROWTH * long * short / (long + short)
                corners = cv2.boxPoints((middle, (long + growth, short + growth), turn))
                found.append(np.round(corners * (width / columns, height / rows)).astype(np.int32))
        return found


def _sure(likely: Floats, contour: Any) -> bool:
    x, y, w, h = cv2.boundingRect(contour)
    inside = np.zeros((h, w), np.uint8)
    cv2.fillPoly(inside, [contour - (x, y)], 1)
    return cv2.mean(likely[y : y + h, x : x + w], inside)[0] > _WHOLE


def cover(photo: Bytes8, boxes: Sequence[Box], colour: tuple[int, int, int], spare: Head) -> None:
    """Fill boxes, in place; what lies in the head `spare` is left alone."""
    for box in boxes:
        low, high = np.maximum(box.min(0), 0), np.maximum(box.max(0) + 1, 0)
        area = (slice(low[1], high[1]), slice(low[0], high[0]))
        part = photo[area]
        if part.size:
            inside = np.zeros(part.shape[:2], np.uint8)
            cv2.fillPoly(inside, [box - low], 1)
            rows, columns = (
                slice(cut.start, cut.start + side) for cut, side in zip(area, part.shape, strict=False)
            )
            part[(inside == 1) & (spare.distance((rows, columns)) > 1)] = colour
