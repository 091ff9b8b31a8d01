"""HEIC and AVIF, box by box, before any decoder: still pictures within the caps, or a refusal.

Of the pictures in the file only the primary one is decoded; thumbnails, depth
and gain maps stay behind, and so does the video of a motion photo.

Rule:
    ISO/IEC 14496-12, 4.2 and 8.11: boxes, MetaBox, ItemInfoBox.
    ISO/IEC 23008-12, 6.5.3: ImageSpatialExtentsProperty.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from gateway.deidentify.errors import Rejected
from gateway.deidentify.limits import Limits
from gateway.deidentify.tally import Tally, refuse_size

_NAMES: Final = {b"mpvd": "trailer_video", b"uuid": "uuid", b"free": "padding", b"skip": "padding"}
_CARRIED: Final = frozenset({b"ftyp", b"meta", b"mdat", b"idat"})
_MAX_ITEMS: Final = 2048
"""Items of a file; the tiles of the largest phone picture are some two hundred."""
_MAX_PROPERTIES: Final = 4096


def head_heif(data: bytes, limits: Limits) -> Tally:
    """Return what beside items is in the file.

    Raises:
        Rejected: `multi_frame` for a sequence; anything that breaks the grammar or a cap.
    """
    tally = Tally(limits)
    has_meta = False
    for name, start, body, end in _top(data, tally):
        if name == b"moov":
            raise Rejected("multi_frame")
        if name == b"meta":
            if has_meta:
                raise Rejected("not_an_image")
            has_meta = True
            _meta(data, body + 4, end, limits)
        elif name not in _CARRIED:
            tally.drop(_NAMES.get(name, "other"), data[start:end])
    if not has_meta:
        raise Rejected("truncated")
    return tally


def _top(data: bytes, tally: Tally) -> Iterator[tuple[bytes, int, int, int]]:
    """Yield the boxes of the file; bytes after the last that are no box are its tail."""
    at = 0
    while at < len(data):
        tally.segment()
        box = _box(data, at, len(data))
        if box is None:
            is_cut = data[at + 4 : at + 8] in _CARRIED or at == 0
            if is_cut:
                raise Rejected("truncated")
            tally.tail(data[at:])
            return
        yield (box[0], at, box[1], box[2])
        at = box[2]


def _box(data: bytes, at: int, end: int) -> tuple[bytes, int, int] | None:
    """Return a box's name, where its content starts, and where it ends; None where none fits in."""
    if at + 8 > end:
        return None
    size, name = struct.unpack_from(">I4s", data, at)
    body = at + 8
    if size == 1:
        if at + 16 > end:
            return None
        (size,) = struct.unpack_from(">Q", data, body)
        body += 8
    elif size == 0:
        size = end - at
    stop = at + size
    return (name, body, stop) if name.isalnum() and body <= stop <= end else None


def _inner(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the boxes within a box, which they must fill."""
    for _ in range(_MAX_PROPERTIES):
        if at >= end:
            return
        box = _box(data, at, end)
        if box is None:
            raise Rejected("not_an_image")
        yield box
        at = box[2]
    raise Rejected("chunk_too_large")


def _meta(data: bytes, at: int, end: int, limits: Limits) -> None:
    extents = 0
    for name, body, stop in _inner(data, at, end):
        if name == b"iinf":
            _refuse_items(data[body:stop])
        elif name == b"iprp":
            extents += _properties(data, body, stop, limits)
    if not extents:
        raise Rejected("not_an_image")


def _refuse_items(payload: bytes) -> None:
    # Version and flags, then the count, whose width depends on the version.
    form = ">xxxxH" if payload[:1] == b"\0" else ">xxxxI"
    if len(payload) < struct.calcsize(form):
        raise Rejected("not_an_image")
    if struct.unpack_from(form, payload)[0] > _MAX_ITEMS:
        raise Rejected("chunk_too_large")


def _properties(data: bytes, at: int, end: int, limits: Limits) -> int:
    """Refuse extents beyond the caps; return how many there are."""
    found = 0
    for name, body, stop in _inner(data, at, end):
        if name != b"ipco":
            continue
        for inner, start, close in _inner(data, body, stop):
            if inner == b"ispe":
                if close - start < 12:
                    raise Rejected("not_an_image")
                width, height = struct.unpack_from(">II", data, start + 4)
                refuse_size(width, height, limits)
                found += 1
    return found
