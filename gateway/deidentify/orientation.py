"""The one EXIF tag that pixels need: read it defensively, write it minimally.

Rule:
    TIFF 6.0, section 2: header, image file directory, twelve-byte entries.
    CIPA DC-008 (Exif 2.32), 4.6.4: Orientation, tag 0x0112, SHORT, one value of 1 to 8.
"""

from __future__ import annotations

import struct

_TAG = 0x0112
_SHORT, _LONG = 3, 4
_PREFIX = b"Exif\0"


def read_orientation(payload: bytes) -> int | None:
    """Return the orientation in an EXIF payload, with or without its `Exif` prefix, if a valid one is there.

    Only the first directory is read, and of it only the orientation; offsets
    that point outside make the answer `None`, never an exception.
    """
    tiff = payload[6:] if payload.startswith(_PREFIX) else payload
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return None
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    if start + 2 > len(tiff):
        return None
    (count,) = struct.unpack_from(order + "H", tiff, start)
    for at in range(start + 2, min(start + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind, values = struct.unpack_from(order + "HHI", tiff, at)
        if tag == _TAG and kind in {_SHORT, _LONG} and values == 1:
            (value,) = struct.unpack_from(order + ("H" if kind == _SHORT else "I"), tiff, at + 8)
            return int(value) if 1 <= value <= 8 else None
    return None


def minimal_exif(orientation: int) -> bytes:
    """Return a TIFF structure of 26 bytes whose single entry is the orientation."""
    header = struct.pack(">2sHI", b"MM", 42, 8)
    entry = struct.pack(">HHIHH", _TAG, _SHORT, 1, orientation, 0)
    return header + struct.pack(">H", 1) + entry + struct.pack(">I", 0)
