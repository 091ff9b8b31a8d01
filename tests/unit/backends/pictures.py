from __future__ import annotations

import io

from PIL import Image


def as_file(picture: Image.Image, format_: str = "JPEG", **options: object) -> bytes:
    """Return a picture as the bytes of a file."""
    file = io.BytesIO()
    picture.save(file, format_, **options)
    return file.getvalue()


def landscape() -> bytes:
    """Return a picture without a face: a sky over a field."""
    picture = Image.linear_gradient("L").resize((640, 480))
    return as_file(Image.merge("RGB", (picture.point(lambda v: v // 2), picture, picture.rotate(180))))
