"""The worker process that sees to faces: one picture at a time, behind walls as those of the scrubber.

Run as `python -I -m gateway.deidentify.faces.worker`; it talks over descriptor
0.  The networks' files come with its first frame, so that it needs no file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

import cv2
import numpy as np
from PIL import Image

from gateway.deidentify.errors import Rejected
from gateway.deidentify.faces.face import Bytes8, Face, head_of
from gateway.deidentify.faces.hide import Hidden, Models, hide
from gateway.deidentify.limits import Limits
from gateway.deidentify.lockdown import Memory
from gateway.deidentify.worker import examine, receive, serve, told, warm_up

MAX_FREIGHT: Final = 64 << 20
MEMORY: Final = Memory(space=2 << 30, own=704 << 20)
"""The networks take 220 MiB beside the two pictures that every worker holds: up to thirty megapixels it stays
below half a gigabyte, with fifty it needs all of this."""
MEMORY_FOR_WORDS: Final = Memory(space=3 << 30, own=1024 << 20)

_GROUND: Final = (128, 128, 128)
_STRIP: Final = 256


class _Task:
    """One picture on its way: what is to be done about its faces, and what was."""

    def __init__(self, header: Mapping[str, Any], models: Models) -> None:
        self._header = header
        self._models = models
        self.hidden = Hidden(0, 0)

    def change(self, image: Image.Image) -> Image.Image:
        photo = pixels(image)
        try:
            self.hidden = hide(photo, models=self._models, **self._header)
        except cv2.error as error:
            if error.code == cv2.Error.StsNoMem:
                raise MemoryError from error
            raise
        return Image.fromarray(photo)


def pixels(image: Image.Image) -> Bytes8:
    """Return a picture's pixels as RGB on grey ground; the picture is emptied on the way, memory is short."""
    width, height = image.size
    photo = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _STRIP):
        strip = image.crop((0, top, width, min(height, top + _STRIP)))
        if strip.has_transparency_data:
            ground = Image.new("RGBA", strip.size, (*_GROUND, 255))
            ground.alpha_composite(strip.convert("RGBA"))
            strip = ground
        photo[top : top + _STRIP] = np.asarray(strip.convert("RGB"))
    image.close()
    return photo


def main() -> None:
    """Serve until the other side closes."""
    cv2.setNumThreads(1)
    orders, freight = receive(MAX_FREIGHT)
    models = Models(_files(orders["freight"], freight))
    del freight
    limits = Limits(**orders["limits"])
    warm_up(limits, lambda image: Image.fromarray(pixels(image)))
    _warm_up(models)

    def answer(header: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        task = _Task(header, models)
        said, body = told(examine(data, limits, "canonical", task.change))
        return said | {"hidden": asdict(task.hidden)}, body

    serve(orders, answer, MEMORY if models.words is None else MEMORY_FOR_WORDS)


def _files(sizes: Mapping[str, int], freight: bytes) -> dict[str, bytes]:
    files, at = {}, 0
    for name, size in sizes.items():
        files[name] = freight[at : at + size]
        at += size
    return files


def _warm_up(models: Models) -> None:
    """Run every network once: they take their memory and look at the machine when they first work."""
    photo = np.zeros((320, 320, 3), np.uint8)
    marks = ((140.0, 140.0), (180.0, 140.0), (160.0, 160.0), (145.0, 185.0), (175.0, 185.0))
    face = Face(160.0, 160.0, 80.0, 100.0, marks, 1.0)
    with contextlib.suppress(Rejected):
        hide(photo.copy(), "redact", models, max_faces=1, max_similarity=0)
    models.recogniser.template(photo, face)
    bearing = models.landmarks.bearing(photo, face)
    models.landmarks.mesh.draw(photo, head_of(face), bearing)


if __name__ == "__main__":
    main()
