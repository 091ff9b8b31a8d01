"""TIFF, directory by directory, before any decoder: one page within the caps, or a refusal.

A second directory may hold a smaller copy of the first picture; it is not
decoded.  Raw pictures of cameras, which are TIFF as well, are refused: their
pixels need a developer.

Rule:
    TIFF 6.0, section 2: header and directories; section 8: the tags that are read here.
    DNG 1.7, chapter 4: DNGVersion.
"""

from __future__ import annotations

import struct
from typing import Final

from gateway.deidentify.errors import Rejected
from gateway.deidentify.limits import Limits
from gateway.deidentify.tally import Tally, refuse_size

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 0xFE, 0x100, 0x101, 0x102, 0x103, 0x106
_STRIPS, _SAMPLES, _TILES, _DNG_VERSION = 0x111, 0x115, 0x144, 0xC612
_REDUCED: Final = 1
_COMPRESSIONS: Final = frozenset({1, 2, 3, 4, 5, 7, 8, 32773, 32946})
"""None, fax, LZW, JPEG, Deflate, PackBits; what is left out is rare or not decoded here."""
_COLOURS: Final = frozenset({0, 1, 2, 3, 5, 6})
"""Grey, RGB, palette, CMYK, YCbCr."""
_MAX_PAGES: Final = 16
_SIZES: Final = {1: 1, 3: 2, 4: 4}
_LETTERS: Final = {1: "B", 3: "H", 4: "I"}


def head_tiff(data: bytes, limits: Limits) -> Tally:
    """Return an empty tally: a TIFF has no order in which anything could stand beside its picture.

    Raises:
        Rejected: `multi_frame` for a second page; anything that breaks the grammar or a cap.
    """
    order = "<" if data.startswith(b"II") else ">"
    tally = Tally(limits)
    at, pages = _number(data, order + "I", 4), set[int]()
    while at:
        if at in pages:
            raise Rejected("not_an_image")
        if len(pages) == _MAX_PAGES:
            raise Rejected("multi_frame")
        tags, following = _directory(data, order, at, tally)
        if not pages:
            _refuse_page(tags, limits)
        elif not tags.get(_SUBFILE, 0) & _REDUCED:
            raise Rejected("multi_frame")
        pages.add(at)
        at = following
    if not pages:
        raise Rejected("truncated")
    return tally


def _number(data: bytes, form: str, at: int) -> int:
    if at + struct.calcsize(form) > len(data):
        raise Rejected("truncated")
    return int(struct.unpack_from(form, data, at)[0])


def _directory(data: bytes, order: str, at: int, tally: Tally) -> tuple[dict[int, int], int]:
    """Return the first value, or the number of values, of each tag; and where the next directory is."""
    count = _number(data, order + "H", at)
    end = at + 2 + 12 * count
    following = _number(data, order + "I", end)
    tags: dict[int, int] = {}
    for entry in range(at + 2, end, 12):
        tally.segment()
        tag, kind, values = struct.unpack_from(order + "HHI", data, entry)
        if tag in {_STRIPS, _TILES}:
            tags[tag] = values
        elif kind in _SIZES and values:
            # Up to four bytes stand in the entry itself.
            is_inside = _SIZES[kind] * values <= 4
            where = entry + 8 if is_inside else _number(data, order + "I", entry + 8)
            tags[tag] = _number(data, order + _LETTERS[kind], where)
    return tags, following


def _refuse_page(tags: dict[int, int], limits: Limits) -> None:
    refuse_size(tags.get(_WIDTH, 0), tags.get(_HEIGHT, 0), limits)
    is_known = (
        tags.get(_COMPRESSION, 1) in _COMPRESSIONS
        and tags.get(_PHOTOMETRIC, 0) in _COLOURS
        and tags.get(_BITS, 1) in {1, 2, 4, 8, 16}
        and tags.get(_SAMPLES, 1) <= 5
        and _DNG_VERSION not in tags
    )
    if not is_known:
        raise Rejected("unsupported_format")
    if max(tags.get(_STRIPS, 0), tags.get(_TILES, 0)) > limits.max_segments:
        raise Rejected("chunk_too_large")
