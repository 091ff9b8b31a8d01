"""Plant the metadata of a telephone camera into a JPEG, so that its removal can be shown.

Writes its own small TIFF: what removes metadata should not be tried against
what its own author's library happens to write.

Rule:
    TIFF 6.0, section 2.  CIPA DC-008 (Exif 2.32), 4.6.3, 4.6.5 and 4.6.6.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

_BYTE, _ASCII, _SHORT, _LONG, _RATIONAL = 1, 2, 3, 4, 5
_HEADER_BYTES: Final = 8
_MAX_SEGMENT: Final = 0xFFFF


@dataclass(frozen=True, slots=True)
class _Entry:
    tag: int
    kind: int
    count: int
    value: bytes


def plant_metadata(
    jpeg: bytes, *, gps: tuple[float, float], serial: str, thumbnail: bytes, orientation: int = 1
) -> bytes:
    """Return `jpeg` with an EXIF segment that tells where, with what, and shows a second picture.

    The segment is put first; one that is there already stays behind it.

    Args:
        jpeg: A JPEG file.
        gps: Latitude and longitude in degrees, north and east positive.
        serial: The camera's serial number, ASCII.
        thumbnail: A JPEG file for the second directory.
        orientation: EXIF orientation, 1 to 8.

    Raises:
        ValueError: `jpeg` is none, or the metadata does not fit into one segment.
    """
    if not jpeg.startswith(b"\xff\xd8\xff"):
        raise ValueError("not a JPEG")
    payload = b"Exif\0\0" + _tiff(gps, serial, thumbnail, orientation)
    if len(payload) + 2 > _MAX_SEGMENT:
        raise ValueError("the thumbnail does not fit into one segment")
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + jpeg[2:]


def _tiff(gps: tuple[float, float], serial: str, thumbnail: bytes, orientation: int) -> bytes:
    """Return header, main directory, EXIF, GPS and thumbnail directories, thumbnail."""
    device = [_ascii(0xA431, serial)]
    place = _place(*gps)
    # Sizes do not depend on offsets, so a first layout tells all offsets.
    device_at = _HEADER_BYTES + _size(_main(orientation, 0, 0))
    place_at = device_at + _size(device)
    second_at = place_at + _size(place)
    thumbnail_at = second_at + _size(_second(0, 0))
    return b"".join(
        (
            struct.pack(">2sHI", b"MM", 42, _HEADER_BYTES),
            _directory(_main(orientation, device_at, place_at), _HEADER_BYTES, second_at),
            _directory(device, device_at, 0),
            _directory(place, place_at, 0),
            _directory(_second(thumbnail_at, len(thumbnail)), second_at, 0),
            thumbnail,
        )
    )


def _main(orientation: int, device_at: int, place_at: int) -> list[_Entry]:
    return [_short(0x0112, orientation), _long(0x8769, device_at), _long(0x8825, place_at)]


def _second(thumbnail_at: int, thumbnail_bytes: int) -> list[_Entry]:
    jpeg_compression = 6
    return [_short(0x0103, jpeg_compression), _long(0x0201, thumbnail_at), _long(0x0202, thumbnail_bytes)]


def _place(latitude: float, longitude: float) -> list[_Entry]:
    return [
        _Entry(0, _BYTE, 4, b"\x02\x03\0\0"),
        _ascii(1, "N" if latitude >= 0 else "S"),
        _Entry(2, _RATIONAL, 3, _sexagesimal(abs(latitude))),
        _ascii(3, "E" if longitude >= 0 else "W"),
        _Entry(4, _RATIONAL, 3, _sexagesimal(abs(longitude))),
    ]


def _sexagesimal(degrees: float) -> bytes:
    """Return degrees, minutes and hundredths of seconds as three rationals."""
    hundredths = round(degrees * 360_000)
    minutes, hundredths = divmod(hundredths, 6_000)
    return struct.pack(">6I", minutes // 60, 1, minutes % 60, 1, hundredths, 100)


def _ascii(tag: int, text: str) -> _Entry:
    value = text.encode("ascii") + b"\0"
    return _Entry(tag, _ASCII, len(value), value)


def _short(tag: int, value: int) -> _Entry:
    return _Entry(tag, _SHORT, 1, struct.pack(">H", value))


def _long(tag: int, value: int) -> _Entry:
    return _Entry(tag, _LONG, 1, struct.pack(">I", value))


def _size(entries: list[_Entry]) -> int:
    return len(_directory(entries, 0, 0))


def _directory(entries: list[_Entry], at: int, next_at: int) -> bytes:
    """Return a directory that stands at `at`, followed by the values that do not fit into it."""
    values_at = at + 2 + 12 * len(entries) + 4
    rows, values = b"", b""
    for entry in entries:
        inline = entry.value.ljust(4, b"\0")
        if len(entry.value) > 4:
            inline = struct.pack(">I", values_at + len(values))
            values += entry.value + b"\0" * (len(entry.value) & 1)
        rows += struct.pack(">HHI", entry.tag, entry.kind, entry.count) + inline
    return struct.pack(">H", len(entries)) + rows + struct.pack(">I", next_at) + values
