"""Which container a file's first bytes announce."""

from __future__ import annotations

import struct
from typing import Final

from gateway.deidentify.errors import Rejected
from gateway.deidentify.scrubbed import Source

_UNSUPPORTED: Final = (
    b"II+\0",
    b"MM\0+",
    b"\0\0\x01\0",
    b"8BPS",
    b"\xff\x0a",
    b"\0\0\0\x0cJXL ",
    b"\0\0\0\x0cjP  ",
    b"\xff\x4f\xff\x51",
    b"\x8aMNG\r\n\x1a\n",
    b"\x8bJNG\r\n\x1a\n",
    b"qoif",
)
_GIFS: Final = (b"GIF87a", b"GIF89a")
_TIFFS: Final = (b"II*\0", b"MM\0*")
_AVIF_BRANDS: Final = frozenset({b"avif", b"avis"})
_HEIC_BRANDS: Final = frozenset({
    b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"mif2", b"msf1",
})  # fmt: skip
_DIB_HEADERS: Final = frozenset({12, 16, 40, 52, 56, 64, 108, 124})


def sniff(data: bytes) -> Source:
    """Return the format that the magic announces; who reads it finds out whether that is true."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    if data.startswith(_GIFS):
        return "gif"
    if data.startswith(_TIFFS):
        return "tiff"
    brands = _brands(data)
    if brands & _AVIF_BRANDS:
        return "avif"
    if brands & _HEIC_BRANDS:
        return "heic"
    is_known = data.startswith(_UNSUPPORTED) or _is_bmp(data) or _is_netpbm(data)
    raise Rejected("unsupported_format" if is_known else "not_an_image")


def _brands(data: bytes) -> frozenset[bytes]:
    """Return major and compatible brands of an ISO base media file; none of anything else."""
    if data[4:8] != b"ftyp":
        return frozenset()
    (size,) = struct.unpack_from(">I", data)
    box = data[8 : min(size, 256)]
    # Between them stands the minor version.
    return frozenset(box[at : at + 4] for at in range(0, len(box), 4) if at != 4)


def _is_bmp(data: bytes) -> bool:
    return (
        data.startswith(b"BM") and len(data) >= 18 and struct.unpack_from("<I", data, 14)[0] in _DIB_HEADERS
    )


def _is_netpbm(data: bytes) -> bool:
    return data[:1] == b"P" and data[1:2] in b"1234567" and data[2:3] in b" \t\r\n" and len(data) > 2
