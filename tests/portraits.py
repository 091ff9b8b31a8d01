"""The open portraits, and more photos of the same people made of them."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageEnhance, ImageOps

HERE = Path(__file__).parent
PORTRAITS = (
    HERE / "data" / "faces" / "biden.jpg",
    HERE.parent / "gateway" / "admin" / "data" / "eileen-collins.jpg",
    HERE / "data" / "images" / "hopper_orientation_6.jpg",
    HERE / "data" / "faces" / "obama.jpg",
)
"""A person each; where from: LICENSES.md beside them, `gateway/admin/data/README.md`."""

Change = Callable[[Image.Image], Image.Image]


def _cropped(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.crop((width // 16, 0, width - width // 24, height - height // 10))


def _coarse(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=35)
    return Image.open(file)


def _tilted(image: Image.Image) -> Image.Image:
    return image.rotate(5, Image.Resampling.BICUBIC, fillcolor=(96, 96, 96))


CHANGES: Sequence[Change] = (
    lambda image: image,
    lambda image: ImageEnhance.Brightness(_tilted(image)).enhance(1.2),
    lambda image: ImageOps.mirror(_cropped(image)),
    lambda image: ImageEnhance.Brightness(_coarse(image)).enhance(0.7),
    lambda image: _tilted(ImageOps.mirror(_coarse(image))),
    _cropped,
)
"""The picture as it is, then: tilted and brighter, cut and mirrored, coarse and darker, and so on."""


def portrait(path: Path) -> Image.Image:
    """Return a portrait, upright."""
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def write_people(folder: Path, each: int, longest_side: int) -> None:
    """Write `each` photos of every person, in a folder of their own."""
    for number, path in enumerate(PORTRAITS):
        home = folder / f"person-{number}"
        home.mkdir(parents=True)
        original = portrait(path)
        original.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
        for take, change in enumerate(CHANGES[:each]):
            change(original).save(home / f"{take}.jpg", quality=92)
