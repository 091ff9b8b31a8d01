"""GIF, block by block, before any decoder: one picture within the caps, or a refusal.

Rule:
    GIF89a specification, 18 to 27: screen descriptor, image descriptor, extensions, trailer.
"""

from __future__ import annotations

import struct
from typing import Final

from gateway.deidentify.errors import Rejected
from gateway.deidentify.limits import Limits
from gateway.deidentify.tally import Tally, refuse_size

_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B
_NAMES: Final = {0xFE: "comment", 0xFF: "application", 0x01: "text"}
_GRAPHIC_CONTROL: Final = 0xF9


def head_gif(data: bytes, limits: Limits) -> Tally:
    """Return what beside one picture is in the file.

    Raises:
        Rejected: `multi_frame` for an animation; anything that breaks the grammar or a cap.
    """
    tally = Tally(limits)
    width, height, flags = struct.unpack_from("<HHB", _piece(data, 6, 7))
    refuse_size(width, height, limits)
    at, frames = 13 + _table(flags), 0
    while (code := _piece(data, at, 1)[0]) != _TRAILER:
        tally.segment()
        if code == _IMAGE:
            frames += 1
            if frames > 1:
                raise Rejected("multi_frame")
            _refuse_extent(_piece(data, at + 1, 9), width, height, limits)
            at = _blocks(data, at + 11 + _table(data[at + 9]))
        elif code == _EXTENSION:
            label, start = _piece(data, at + 1, 1)[0], at
            at = _blocks(data, at + 2)
            if label != _GRAPHIC_CONTROL:
                tally.drop(_NAMES.get(label, "other"), data[start:at])
        else:
            raise Rejected("not_an_image")
    if not frames:
        raise Rejected("truncated")
    tally.tail(data[at + 1 :])
    return tally


def _piece(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise Rejected("truncated")
    return data[at : at + size]


def _table(flags: int) -> int:
    """Return the bytes of the colour table that `flags` announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _refuse_extent(descriptor: bytes, width: int, height: int, limits: Limits) -> None:
    """Refuse a picture that reaches beyond its screen: decoders would enlarge the screen."""
    left, top, columns, rows = struct.unpack_from("<HHHH", descriptor)
    refuse_size(columns, rows, limits)
    if left + columns > width or top + rows > height:
        raise Rejected("not_an_image")


def _blocks(data: bytes, at: int) -> int:
    """Return where a row of sub-blocks ends."""
    while size := _piece(data, at, 1)[0]:
        at += size + 1
    return at + 1
