"""What a colour profile means, asked of littleCMS; only behind the walls."""

from __future__ import annotations

import functools
import io
from typing import Final

from PIL import Image, ImageCms

from gateway.deidentify.profiles import is_kept

_STEPS: Final = (0, 32, 64, 96, 128, 160, 192, 224, 255)
_UNSEEN: Final = 2
"""Levels of 255 by which a profile may differ from sRGB and still be it: rounding of its curves."""
_FLAGS: Final = ImageCms.Flags.BLACKPOINTCOMPENSATION
_MODES: Final = {"RGB ": ("RGB", "RGBA"), "CMYK": ("CMYK",), "GRAY": ("L",)}


def is_foreign(profile: bytes) -> bool:
    """Return whether pixels must be converted, because without their profile they would look different."""
    if not profile or is_kept(profile):
        return False
    opened = _opened(profile)
    if opened is None:
        # No program can use it either.
        return False
    return not (opened.profile.xcolor_space == "RGB " and _is_srgb(opened))


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Return `image` in sRGB; as it is, where its profile cannot be used on it."""
    opened = _opened(profile)
    if opened is None or image.mode not in _MODES.get(opened.profile.xcolor_space, ()):
        return image
    mode = image.mode if image.mode == "RGBA" else "RGB"
    try:
        made = ImageCms.profileToProfile(
            image, opened, _srgb(), ImageCms.Intent.RELATIVE_COLORIMETRIC, mode, image.mode == mode, _FLAGS
        )
    except ImageCms.PyCMSError:
        return image
    return image if made is None else made


def _opened(profile: bytes) -> ImageCms.ImageCmsProfile | None:
    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(profile))
    except OSError:
        return None


@functools.cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _is_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    """Return whether the profile maps a grid of colours onto themselves."""
    grid = bytes(level for r in _STEPS for g in _STEPS for b in _STEPS for level in (r, g, b))
    probe = Image.frombytes("RGB", (len(_STEPS) ** 2, len(_STEPS)), grid)
    try:
        made = ImageCms.profileToProfile(probe, profile, _srgb(), ImageCms.Intent.RELATIVE_COLORIMETRIC)
    except ImageCms.PyCMSError:
        return False
    return made is not None and all(
        abs(before - after) <= _UNSEEN for before, after in zip(grid, made.tobytes(), strict=True)
    )
