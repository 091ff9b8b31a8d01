"""WebP, chunk by chunk: what pixels need is kept, nothing else.

Kept: the bitstream (`VP8 ` or `VP8L`) and, beside `VP8 `, its alpha plane.
Made anew: the RIFF header, `VP8X` where an alpha plane or an orientation needs
it, an EXIF chunk with only the orientation, and a colour profile where it is a
known one (`profiles.py`).  Everything else is dropped.

Known limit: bytes after the last coded block, inside the bitstream chunk, stay.
Only a re-encoding removes them.

Rule:
    RFC 9649, 2: the WebP container.  RFC 6386, 9.1: the VP8 frame header.
"""

from __future__ import annotations

import struct
from typing import Final

from gateway.deidentify.errors import Rejected
from gateway.deidentify.limits import Limits
from gateway.deidentify.orientation import minimal_exif, read_orientation
from gateway.deidentify.profiles import MAX_PROFILE, is_kept
from gateway.deidentify.scrubbed import Scrubbed
from gateway.deidentify.tally import Tally, refuse_size

_ICC, _ALPHA, _EXIF, _ANIMATION = 0x20, 0x10, 0x08, 0x02
_NAMES: Final = {b"EXIF": "exif", b"XMP ": "xmp", b"ICCP": "icc", b"ALPH": "alpha", b"C2PA": "jumbf"}


def walk_webp(data: bytes, limits: Limits) -> Scrubbed:
    """Return the WebP without its metadata; see the module for what that means."""
    return _Walk(data, limits).run()


def _chunk(name: bytes, payload: bytes) -> bytes:
    return name + struct.pack("<I", len(payload)) + payload + b"\0" * (len(payload) & 1)


class _Walk:
    """One pass over one file."""

    def __init__(self, data: bytes, limits: Limits) -> None:
        self._data = data
        self._limits = limits
        self._tally = Tally(limits)
        self._flags: int | None = None
        self._canvas: tuple[int, int] | None = None
        self._header = b""
        self._alpha = b""
        self._pixels = b""
        self._exif: list[bytes] = []
        self._icc: list[bytes] = []
        self._orientation: int | None = None
        self._size = (0, 0)
        self._has_alpha_bit = False
        self._profile = b""

    def run(self) -> Scrubbed:
        """Walk the RIFF and put the kept chunks together."""
        (size,) = struct.unpack_from("<I", self._data, 4)
        end = 8 + size
        if size < 12:
            raise Rejected("not_an_image")
        if end > len(self._data):
            raise Rejected("chunk_too_large" if size > self._limits.max_bytes else "truncated")
        at = 12
        while at < end:
            at = self._step(at, end)
        return self._finish(self._data[end:])

    def _step(self, at: int, end: int) -> int:
        """Take one chunk; return where the next one starts."""
        self._tally.segment()
        if at + 8 > end:
            raise Rejected("truncated")
        name, size = self._data[at : at + 4], int.from_bytes(self._data[at + 4 : at + 8], "little")
        if size > self._limits.max_chunk:
            raise Rejected("chunk_too_large")
        stop = at + 8 + size
        if stop > end:
            raise Rejected("truncated")
        is_first = at == 12
        if is_first and name not in {b"VP8X", b"VP8 ", b"VP8L"}:
            raise Rejected("not_an_image")
        following = min(end, stop + (size & 1))
        self._take(name, self._data[at + 8 : stop], self._data[at:following], is_first=is_first)
        return following

    def _take(self, name: bytes, payload: bytes, chunk: bytes, *, is_first: bool) -> None:
        if name in {b"ANIM", b"ANMF"}:
            raise Rejected("multi_frame")
        if name == b"VP8X":
            if not is_first:
                raise Rejected("not_an_image")
            self._extended(payload, chunk)
        elif name in {b"VP8 ", b"VP8L"}:
            self._bitstream(name, payload)
        elif name == b"ALPH" and self._flags is not None and not self._alpha and not self._pixels:
            self._alpha = payload
        elif name == b"EXIF" and (self._flags or 0) & _EXIF and self._orientation is None:
            self._orientation = read_orientation(payload)
            self._exif.append(chunk)
        elif name == b"ICCP" and (self._flags or 0) & _ICC and not self._icc and not self._pixels:
            if len(payload) > MAX_PROFILE:
                raise Rejected("chunk_too_large")
            self._icc.append(chunk)
            self._profile = payload
        else:
            self._tally.drop(_NAMES.get(name, "other"), chunk)

    def _extended(self, payload: bytes, chunk: bytes) -> None:
        if len(payload) < 10:
            raise Rejected("not_an_image")
        flags = payload[0]
        if flags & _ANIMATION:
            raise Rejected("multi_frame")
        width = 1 + int.from_bytes(payload[4:7], "little")
        height = 1 + int.from_bytes(payload[7:10], "little")
        refuse_size(width, height, self._limits)
        self._flags, self._canvas, self._header = flags, (width, height), chunk

    def _bitstream(self, name: bytes, payload: bytes) -> None:
        if self._pixels:
            raise Rejected("not_an_image")
        if name == b"VP8L":
            self._size, self._has_alpha_bit = _lossless_size(payload)
        else:
            self._size = _lossy_size(payload)
        refuse_size(*self._size, self._limits)
        if self._canvas not in {None, self._size}:
            raise Rejected("not_an_image")
        if self._alpha and name == b"VP8L":
            self._tally.drop("alpha", self._alpha)
            self._alpha = b""
        self._pixels = _chunk(name, payload)

    def _finish(self, tail: bytes) -> Scrubbed:
        if not self._pixels:
            raise Rejected("truncated")
        self._tally.tail(tail)
        orientation = self._orientation or 1
        exif = _chunk(b"EXIF", minimal_exif(orientation)) if orientation != 1 else b""
        is_known = is_kept(self._profile)
        icc = _chunk(b"ICCP", self._profile) if is_known else b""
        for old in self._icc:
            self._tally.replace("icc", old, icc)
        header = self._extended_header(is_turned=orientation != 1, has_profile=is_known)
        self._tally.replace("vp8x", self._header, header)
        for place, old in enumerate(self._exif):
            self._tally.replace("exif", old, exif if place == 0 else b"")
        alpha = _chunk(b"ALPH", self._alpha) if self._alpha else b""
        body = b"".join((b"WEBP", header, icc, alpha, self._pixels, exif))
        return Scrubbed(
            data=b"RIFF" + struct.pack("<I", len(body)) + body,
            format="webp",
            width=self._size[0],
            height=self._size[1],
            orientation=orientation,
            dropped=self._tally.dropped,
            profile=b"" if is_known else self._profile,
        )

    def _extended_header(self, *, is_turned: bool, has_profile: bool) -> bytes:
        """Return a `VP8X` chunk where one is needed."""
        if not self._alpha and not is_turned and not has_profile:
            return b""
        has_alpha = bool(self._alpha) or self._has_alpha_bit
        flags = (_ALPHA if has_alpha else 0) | (_EXIF if is_turned else 0) | (_ICC if has_profile else 0)
        sides = b"".join((side - 1).to_bytes(3, "little") for side in self._size)
        return _chunk(b"VP8X", bytes([flags, 0, 0, 0]) + sides)


def _lossy_size(payload: bytes) -> tuple[int, int]:
    if len(payload) < 10 or payload[0] & 1 or payload[3:6] != b"\x9d\x01\x2a":
        raise Rejected("not_an_image")
    width, height = struct.unpack_from("<HH", payload, 6)
    return width & 0x3FFF, height & 0x3FFF


def _lossless_size(payload: bytes) -> tuple[tuple[int, int], bool]:
    if len(payload) < 5 or payload[0] != 0x2F:
        raise Rejected("not_an_image")
    (bits,) = struct.unpack_from("<I", payload, 1)
    if bits >> 29:
        raise Rejected("not_an_image")
    return (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)), bool(bits >> 28 & 1)
