"""JPEG, segment by segment: what pixels need is kept, nothing else.

Kept as they are, after their inner lengths were checked: DQT, DHT, DRI, the
frame header, scan headers and the entropy-coded data with its restart markers.
Made anew: JFIF (without density and thumbnail; its presence decides how
colours are read), Adobe APP14 (only its colour transform), EXIF (only the
orientation).  A colour profile is kept where it is a known one (`profiles.py`).
Everything else is dropped.

Where libjpeg is lenient (fill bytes, bytes between segments) this walker finds
the same markers that it does, so both see the same picture.

Known limit: bytes after the last coded block of a scan, before the next
marker, are part of the entropy-coded data and stay.  Only a re-encoding
removes them.

Rule:
    ITU-T T.81, annex B: markers, segments, tables.
    ITU-T T.871, 10.1: the JFIF APP0 segment.
    ITU-T T.872, 6.5.3: the Adobe APP14 segment.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from gateway.deidentify.errors import Rejected
from gateway.deidentify.limits import Limits
from gateway.deidentify.orientation import minimal_exif, read_orientation
from gateway.deidentify.profiles import MAX_PROFILE, is_kept
from gateway.deidentify.scrubbed import Scrubbed
from gateway.deidentify.tally import Tally, refuse_size

_SOI, _EOI, _SOS, _DQT, _DNL, _DRI, _DHT, _COM = 0xD8, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD, 0xC4, 0xFE
_APP0, _APP1, _APP14, _APP15 = 0xE0, 0xE1, 0xEE, 0xEF
_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2})
"""Baseline, extended and progressive with Huffman coding; the other frame headers are refused."""
_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD8)})
"""TEM and restart markers carry no length."""

_NEXT: Final = re.compile(rb"\xff([\x01-\xfe])")
_AFTER_SCAN: Final = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
_JFIF: Final = b"\xff\xe0\x00\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0"

_NAMES: Final = (
    (0xE0, b"JFIF\0", "jfif"),
    (0xE0, b"JFXX\0", "jfxx"),
    (0xE1, b"Exif\0", "exif"),
    (0xE1, b"http://ns.adobe.com/xap/1.0/\0", "xmp"),
    (0xE1, b"http://ns.adobe.com/xmp/extension/\0", "xmp_extended"),
    (0xE2, b"ICC_PROFILE\0", "icc"),
    (0xE2, b"MPF\0", "mpf"),
    (0xEB, b"JP", "jumbf"),
    (0xED, b"Photoshop 3.0\0", "iptc"),
    (0xEE, b"Adobe", "adobe"),
    (_COM, b"", "comment"),
)


def walk_jpeg(data: bytes, limits: Limits) -> Scrubbed:
    """Return the JPEG without its metadata; see the module for what that means."""
    return _Walk(data, limits).run()


class _Walk:
    """One pass over one file."""

    def __init__(self, data: bytes, limits: Limits) -> None:
        self._data = data
        self._limits = limits
        self._tally = Tally(limits)
        self._pixels: list[bytes] = []
        self._tables: list[bytes] = []
        self._scans = 0
        self._components = 0
        self._width = self._height = 0
        self._jfif: list[bytes] = []
        self._exif: list[bytes] = []
        self._adobe: list[bytes] = []
        self._icc: list[bytes] = []
        self._orientation: int | None = None

    def run(self) -> Scrubbed:
        """Walk to the end of the image and put the kept pieces together."""
        at = 2
        while True:
            code, start, body = self._marker(at)
            self._tally.segment()
            if code == _EOI:
                return self._finish(body)
            at = self._step(code, start, body)

    def _marker(self, at: int) -> tuple[int, int, int]:
        """Return the next marker's code, where it starts, and where its segment's length stands."""
        found = _NEXT.search(self._data, at)
        if found is None:
            raise Rejected("truncated")
        self._tally.drop("junk", self._data[at : found.start()].rstrip(b"\xff"))
        return found[1][0], found.start(), found.end()

    def _step(self, code: int, start: int, body: int) -> int:
        """Take one segment; return where the next one is looked for."""
        if code in _ALONE:
            self._tally.drop("junk", self._data[start:body])
            return body
        _refuse_code(code)
        end = self._end(body)
        segment = self._data[start:end]
        if code == _SOS:
            return self._scan(segment, end)
        if code in _FRAMES:
            self._frame(segment)
        elif code in _CHECKS:
            _CHECKS[code](segment[4:])
            self._tables.append(segment)
        else:
            self._application(code, segment)
        return end

    def _end(self, body: int) -> int:
        if body + 2 > len(self._data):
            raise Rejected("truncated")
        (length,) = struct.unpack_from(">H", self._data, body)
        if length < 2:
            raise Rejected("not_an_image")
        if body + length > len(self._data):
            raise Rejected("truncated")
        return body + int(length)

    def _frame(self, segment: bytes) -> None:
        payload = segment[4:]
        if self._components or len(payload) < 6 or len(payload) != 6 + 3 * payload[5]:
            raise Rejected("not_an_image")
        precision, self._height, self._width, self._components = struct.unpack_from(">BHHB", payload)
        # Twelve-bit samples, a height that only DNL would tell, and two
        # components are legal, and no decoder here reads them.
        if precision != 8 or self._height == 0 or self._components not in {1, 3, 4}:
            raise Rejected("unsupported_format")
        refuse_size(self._width, self._height, self._limits)
        self._pixels.extend((*self._tables, segment))
        self._tables.clear()

    def _scan(self, segment: bytes, end: int) -> int:
        payload = segment[4:]
        if not self._components or not payload or len(payload) != 4 + 2 * payload[0]:
            raise Rejected("not_an_image")
        self._scans += 1
        if self._scans > self._limits.max_scans:
            raise Rejected("too_many_scans")
        found = _AFTER_SCAN.search(self._data, end)
        if found is None:
            raise Rejected("truncated")
        # Coded data never ends in a bare FF: what stands there is fill.
        coded = self._data[end : found.start()].rstrip(b"\xff")
        self._pixels.extend((*self._tables, segment, coded))
        self._tables.clear()
        return found.start()

    def _application(self, code: int, segment: bytes) -> None:
        """Read from an application segment what is made anew; drop the rest."""
        payload = segment[4:]
        kind = _kind(code, payload)
        # The thresholds are libjpeg's: a shorter segment does not count for it either.
        if kind == "jfif" and len(payload) >= 14 and not self._scans:
            self._jfif.append(segment)
        elif kind == "adobe" and len(payload) >= 12 and not self._scans:
            self._adobe.append(segment)
        elif kind == "icc" and not self._scans:
            self._icc.append(segment)
        elif kind == "exif" and self._orientation is None and not self._scans:
            self._orientation = read_orientation(payload)
            self._exif.append(segment)
        else:
            self._tally.drop(kind, segment)

    def _finish(self, end: int) -> Scrubbed:
        if not self._scans:
            raise Rejected("truncated")
        # Tables after the last scan serve no pixel.
        for segment in self._tables:
            self._tally.drop("tables", segment)
        self._tally.tail(self._data[end:])
        orientation = self._orientation or 1
        profile = _joined_profile(self._icc)
        is_known = self._components == 3 and is_kept(profile)
        head = b"".join(
            (
                self._renew("jfif", self._jfif, _JFIF if self._jfif else b""),
                self._renew("exif", self._exif, _exif_segment(orientation)),
                self._renew("icc", self._icc, _icc_segment(profile) if is_known else b""),
                self._renew("adobe", self._adobe, self._adobe_segment()),
            )
        )
        return Scrubbed(
            data=b"".join((b"\xff\xd8", head, *self._pixels, b"\xff\xd9")),
            format="jpeg",
            width=self._width,
            height=self._height,
            orientation=orientation,
            dropped=self._tally.dropped,
            profile=b"" if is_known else profile,
        )

    def _renew(self, kind: str, olds: list[bytes], new: bytes) -> bytes:
        for place, old in enumerate(olds):
            self._tally.replace(kind, old, new if place == 0 else b"")
        return new

    def _adobe_segment(self) -> bytes:
        """Return an APP14 with the colour transform of the last one, as libjpeg understands it."""
        if not self._adobe:
            return b""
        transform = self._adobe[-1][15]
        if transform > 2:
            transform = 2 if self._components == 4 else 1
        return b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0" + bytes([transform])


def _refuse_code(code: int) -> None:
    """Refuse markers that start another coding process, or that no JPEG may contain."""
    if code == _SOI or code < 0xC0:
        raise Rejected("not_an_image")
    known = code in _FRAMES or code in {_DHT, _SOS, _DQT, _DNL, _DRI, _COM} or _APP0 <= code <= _APP15
    if not known:
        raise Rejected("unsupported_format")


def _kind(code: int, payload: bytes) -> str:
    for candidate, prefix, name in _NAMES:
        if code == candidate and payload.startswith(prefix):
            return name
    return "dnl" if code == _DNL else f"app{code - _APP0}"


def _exif_segment(orientation: int) -> bytes:
    if orientation == 1:
        return b""
    payload = b"Exif\0\0" + minimal_exif(orientation)
    return b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload


def _joined_profile(segments: list[bytes]) -> bytes:
    """Return the colour profile whose parts are `segments`; nothing where they do not fit together."""
    # FF E2, length, ICC_PROFILE\0, number, count.
    parts = {segment[16]: segment[18:] for segment in segments if len(segment) > 18}
    counts = {segment[17] for segment in segments if len(segment) > 18}
    if len(parts) != len(segments) or counts != {len(parts)} or set(parts) != set(range(1, len(parts) + 1)):
        return b""
    profile = b"".join(parts[number] for number in sorted(parts))
    if len(profile) > MAX_PROFILE:
        raise Rejected("chunk_too_large")
    return profile


def _icc_segment(profile: bytes) -> bytes:
    payload = b"ICC_PROFILE\0\x01\x01" + profile
    return b"\xff\xe2" + struct.pack(">H", len(payload) + 2) + payload


def _check_quantisation(payload: bytes) -> None:
    """Refuse a DQT segment with bytes that belong to no table."""
    at = 0
    while at < len(payload):
        wide, number = payload[at] >> 4, payload[at] & 15
        at += 65 + 64 * wide
        if wide > 1 or number > 3 or at > len(payload):
            raise Rejected("not_an_image")


def _check_huffman(payload: bytes) -> None:
    """Refuse a DHT segment with bytes that belong to no table."""
    at = 0
    while at < len(payload):
        symbols = sum(payload[at + 1 : at + 17])
        kind, number = payload[at] >> 4, payload[at] & 15
        at += 17 + symbols
        if kind > 1 or number > 3 or symbols > 256 or at > len(payload):
            raise Rejected("not_an_image")


def _check_restart(payload: bytes) -> None:
    if len(payload) != 2:
        raise Rejected("not_an_image")


_CHECKS: Final = {_DQT: _check_quantisation, _DHT: _check_huffman, _DRI: _check_restart}
