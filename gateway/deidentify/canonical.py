"""Fresh pixels: a picture is decoded, turned upright, brought to sRGB, and coded anew.

Nothing of the old file survives but what a viewer sees: no bytes between coded
blocks, no quantisation tables that name a camera, no thumbnail that shows what
was cropped.  A palette, sixteen bits and CMYK become eight bits of grey or RGB.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from PIL import AvifImagePlugin, Image

from gateway.deidentify.colour import is_foreign, to_srgb
from gateway.deidentify.decode import decoding
from gateway.deidentify.errors import Rejected
from gateway.deidentify.limits import Limits
from gateway.deidentify.profiles import is_kept
from gateway.deidentify.scrubbed import Format, Source
from gateway.deidentify.tally import refuse_size

_HAS_HEIF: Final = importlib.util.find_spec("pillow_heif") is not None
"""Whether the extra `heic` is installed."""
if _HAS_HEIF:
    import pillow_heif

    # One picture has one core; and of the pictures in a file only one is wanted.
    pillow_heif.options.DECODE_THREADS = 1
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)

AvifImagePlugin.DEFAULT_MAX_THREADS = 1

_NAMES: Final[Mapping[Source, str]] = MappingProxyType(
    {
        "jpeg": "JPEG",
        "png": "PNG",
        "webp": "WEBP",
        "gif": "GIF",
        "tiff": "TIFF",
        "avif": "AVIF",
        "heic": "HEIF",
    }
)
_MODES: Final = {
    "1": "L", "L": "L", "LA": "LA", "RGB": "RGB", "RGBA": "RGBA", "RGBX": "RGB", "CMYK": "RGB",
    "YCbCr": "RGB", "P": "RGB", "PA": "RGBA", "La": "LA", "RGBa": "RGBA",
}  # fmt: skip
_WIDE: Final = frozenset({"I;16", "I;16B", "I;16L"})
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION: Final = 0x0112
_QUALITY: Final = 92
_OPTIONS: Final[Mapping[Format, dict[str, Any]]] = MappingProxyType(
    {
        "jpeg": {"quality": _QUALITY},
        "png": {"compress_level": 3},
        "webp": {"quality": _QUALITY, "method": 2},
    }
)


def is_readable(source: Source) -> bool:
    """Return whether a decoder for it is installed."""
    return source != "heic" or _HAS_HEIF


def recode(
    data: bytes,
    source: Source,
    profile: bytes,
    orientation: int,
    limits: Limits,
    change: Callable[[Image.Image], Image.Image] | None = None,
) -> bytes:
    """Return the picture in `data`, upright and coded anew.

    Args:
        data: The file; of JPEG, PNG and WebP what a walker has left of it.
        source: Its container.
        profile: A colour profile that the walker took out.
        orientation: How the walker says it is turned.
        limits: The caps.
        change: What is done to the upright picture before it is coded.

    Raises:
        Rejected: It cannot be decoded, or only by more memory than there is.
    """
    with decoding(limits):
        plain, profile, turn = _opened(data, source, profile, orientation, limits)
        fresh = plain if turn is None else plain.transpose(turn)
        # Two pictures of fifty megapixels are all that the memory holds.
        del plain
        if change is not None:
            fresh = change(fresh)
        return _coded(fresh, _target(source, fresh), profile, is_lossless=source == "webp" and _is_vp8l(data))


def _opened(
    data: bytes, source: Source, profile: bytes, orientation: int, limits: Limits
) -> tuple[Image.Image, bytes, Image.Transpose | None]:
    """Return the picture in grey or RGB, the profile its file carries, and how it must be turned."""
    with Image.open(io.BytesIO(data), formats=[_NAMES[source]]) as image:
        refuse_size(*image.size, limits)
        if source == "avif":
            if getattr(image, "n_frames", 1) != 1:
                raise Rejected("multi_frame")
            orientation = image.getexif().get(_ORIENTATION, 1)
        profile = profile or image.info.get("icc_profile") or b""
        image.load()
        # The pixels alone: encoders look into a picture that was opened for what they might write beside
        # them, and for the file it came from, which asks the system questions that nobody answers here.
        bare = Image.Image()._new(image.im)  # noqa: SLF001 - no public call shares pixels without their file
    bare.info = {"transparency": image.info["transparency"]} if "transparency" in image.info else {}
    del image
    return _plain(bare, profile), profile, _TURNS.get(orientation)


def _plain(image: Image.Image, profile: bytes) -> Image.Image:
    """Return grey or RGB of eight bits, with alpha where the picture has some."""
    if image.mode in _WIDE:
        # Pillow has no narrowing conversion from sixteen bits.
        image = image.convert("I").point(lambda level: level * (1 / 256)).convert("L")
    elif image.mode not in _MODES:
        raise Rejected("unsupported_format")
    elif image.has_transparency_data and image.mode not in {"LA", "RGBA"}:
        image = image.convert("RGBA")
    elif image.mode not in {"L", "LA", "RGB", "RGBA", "CMYK"}:
        image = image.convert(_MODES[image.mode])
    if is_foreign(profile):
        image = to_srgb(image, profile)
    return image.convert("RGB") if image.mode == "CMYK" else image


def _is_vp8l(data: bytes) -> bool:
    """Return whether the pixels of a WebP, as a walker wrote it, are coded without loss."""
    at = 12
    while (name := data[at : at + 4]) not in {b"VP8 ", b"VP8L", b""}:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + size + (size & 1)
    return name == b"VP8L"


def _target(source: Source, image: Image.Image) -> Format:
    """Return the container for it: the same where we hand it out, else the one that loses less."""
    if source in {"jpeg", "png", "webp"}:
        return source
    if source in {"gif", "tiff"} or image.mode in {"LA", "RGBA"}:
        return "png"
    return "jpeg"


def _coded(image: Image.Image, form: Format, profile: bytes, *, is_lossless: bool) -> bytes:
    options = dict(_OPTIONS[form])
    if is_lossless:
        options = {"lossless": True, "quality": 0, "method": 0}
    if is_kept(profile) and image.mode in {"RGB", "RGBA"}:
        options["icc_profile"] = profile
    # What a conversion took along; an encoder might write it.
    image.info = {}
    file = io.BytesIO()
    image.save(file, form.upper(), **options)
    return file.getvalue()
