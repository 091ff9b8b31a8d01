"""PNG, chunk by chunk: what pixels need is kept, nothing else.

Kept: IHDR, PLTE and tRNS where the colour type uses them, sRGB, gAMA, IDAT,
IEND, each with its CRC verified.  Made anew: eXIf, with only the orientation,
and iCCP where the profile is a known one (`profiles.py`).  Dropped: everything
else, chromaticities (cHRM, which can be those of one single monitor) included.

The compressed stream is inflated once, to the size that the header promises:
bytes after its end are cut off, and a stream that holds more than the pixels
is refused, because it cannot be cut without coding it anew.

Rule:
    PNG (Third Edition, W3C), 5 and 11: chunk layout, IHDR, PLTE, IDAT, IEND, tRNS, gAMA, sRGB, eXIf.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

from gateway.deidentify.errors import Rejected
from gateway.deidentify.limits import Limits
from gateway.deidentify.orientation import minimal_exif, read_orientation
from gateway.deidentify.profiles import MAX_PROFILE, PNG_PROFILE_NAME, is_kept
from gateway.deidentify.scrubbed import Scrubbed
from gateway.deidentify.tally import Tally, refuse_size

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_DEPTHS: Final = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}
_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7: Final = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip
_PIECE: Final = 1 << 20
_NAMES: Final = {
    b"tEXt": "text", b"zTXt": "text", b"iTXt": "text", b"tIME": "time", b"pHYs": "phys", b"eXIf": "exif",
    b"zxIf": "exif", b"iCCP": "icc", b"cHRM": "chrm", b"bKGD": "bkgd", b"hIST": "hist", b"sPLT": "splt",
    b"sBIT": "sbit", b"caBX": "jumbf", b"PLTE": "plte", b"tRNS": "trns", b"sRGB": "srgb", b"gAMA": "gama",
}  # fmt: skip


def walk_png(data: bytes, limits: Limits) -> Scrubbed:
    """Return the PNG without its metadata; see the module for what that means."""
    return _Walk(data, limits).run()


def _chunk(name: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + name + payload + struct.pack(">I", zlib.crc32(name + payload))


class _Walk:
    """One pass over one file."""

    def __init__(self, data: bytes, limits: Limits) -> None:
        self._data = data
        self._limits = limits
        self._tally = Tally(limits)
        self._kept: dict[bytes, bytes] = {}
        self._width = self._height = self._depth = self._colour = self._interlace = 0
        self._stream: list[bytes] = []
        self._is_stream_over = False
        self._orientation: int | None = None
        self._exif: list[bytes] = []
        self._icc: list[bytes] = []

    def run(self) -> Scrubbed:
        """Walk to IEND and put the kept chunks together."""
        at = len(_SIGNATURE)
        while True:
            at = self._step(at)
            if b"IEND" in self._kept:
                return self._finish(at)

    def _step(self, at: int) -> int:
        """Take one chunk; return where the next one starts."""
        self._tally.segment()
        if at + 8 > len(self._data):
            raise Rejected("truncated")
        length, name = int.from_bytes(self._data[at : at + 4], "big"), self._data[at + 4 : at + 8]
        end = at + 12 + length
        if length > self._limits.max_chunk:
            raise Rejected("chunk_too_large")
        if not name.isalpha() or (not self._kept and name != b"IHDR"):
            raise Rejected("unsupported_format" if name == b"CgBI" else "not_an_image")
        if end > len(self._data):
            raise Rejected("truncated")
        self._take(name, self._data[at:end])
        return end

    def _take(self, name: bytes, chunk: bytes) -> None:
        if name in {b"acTL", b"fcTL", b"fdAT"}:
            raise Rejected("multi_frame")
        if self._stream and name != b"IDAT":
            self._is_stream_over = True
        if name == b"IDAT":
            self._take_data(chunk)
        elif name == b"eXIf" and self._orientation is None and _is_intact(chunk):
            self._orientation = read_orientation(chunk[8:-4])
            self._exif.append(chunk)
        elif name == b"iCCP" and not self._icc and not self._stream and _is_intact(chunk):
            self._icc.append(chunk)
        elif self._is_wanted(name, chunk):
            self._keep(name, chunk)
        elif name[0:1].isupper() and name != b"PLTE":
            # An unknown critical chunk: the pixels cannot be understood without it.
            raise Rejected("unsupported_format")
        else:
            self._tally.drop(_NAMES.get(name, "other"), chunk)

    def _take_data(self, chunk: bytes) -> None:
        # Decoders stop at the first chunk between two IDAT: to join them would
        # show a picture that nobody else sees.
        if self._is_stream_over or not _is_intact(chunk):
            raise Rejected("not_an_image")
        self._stream.append(chunk)

    def _keep(self, name: bytes, chunk: bytes) -> None:
        if name in self._kept or not _is_intact(chunk):
            raise Rejected("not_an_image")
        if name == b"IHDR":
            self._header(chunk[8:-4])
        else:
            self._check(name, len(chunk) - 12)
        self._kept[name] = chunk

    def _is_wanted(self, name: bytes, chunk: bytes) -> bool:
        """Tell whether decoders need the chunk for this colour type."""
        match name:
            case b"IHDR" | b"IEND":
                return True
            case b"PLTE":
                return self._colour == 3
            case b"tRNS":
                return self._colour in {0, 2, 3}
            case b"sRGB":
                return len(chunk) == 13 and chunk[8] <= 3 and self._is_extra(name, chunk)
            case b"gAMA":
                return len(chunk) == 16 and self._is_extra(name, chunk)
            case _:
                return False

    def _is_extra(self, name: bytes, chunk: bytes) -> bool:
        """Tell whether a chunk that only refines colours stands where it counts."""
        return name not in self._kept and not self._stream and _is_intact(chunk)

    def _header(self, payload: bytes) -> None:
        if len(payload) != 13:
            raise Rejected("not_an_image")
        self._width, self._height, self._depth, self._colour, packing, filters, self._interlace = (
            struct.unpack(">IIBBBBB", payload)
        )
        if self._depth not in _DEPTHS.get(self._colour, ()) or packing or filters or self._interlace > 1:
            raise Rejected("not_an_image")
        refuse_size(self._width, self._height, self._limits)

    def _check(self, name: bytes, length: int) -> None:
        """Refuse a chunk whose length does not fit the header, or that comes after the pixels."""
        match name:
            case b"PLTE":
                is_good = length % 3 == 0 and 3 <= length <= 3 << self._depth and not self._stream
            case b"tRNS" if self._colour == 3:
                palette = (len(self._kept.get(b"PLTE", b"")) - 12) // 3
                is_good = 0 < length <= palette and not self._stream
            case b"tRNS":
                is_good = length == (2 if self._colour == 0 else 6) and not self._stream
            case b"IEND":
                is_good = length == 0 and bool(self._stream)
            case _:
                is_good = True
        if not is_good:
            raise Rejected("not_an_image")

    def _finish(self, end: int) -> Scrubbed:
        if self._colour == 3 and b"PLTE" not in self._kept:
            raise Rejected("not_an_image")
        stream = self._inflate()
        self._tally.tail(self._data[end:])
        orientation = self._orientation or 1
        exif = _chunk(b"eXIf", minimal_exif(orientation)) if orientation != 1 else b""
        for place, old in enumerate(self._exif):
            self._tally.replace("exif", old, exif if place == 0 else b"")
        profile = _inflated_profile(self._icc[0][8:-4]) if self._icc else b""
        is_known = self._colour in {2, 3, 6} and is_kept(profile)
        icc = _chunk(b"iCCP", PNG_PROFILE_NAME + zlib.compress(profile, 9)) if is_known else b""
        for old in self._icc:
            self._tally.replace("icc", old, icc)
        head = [self._kept[name] for name in (b"sRGB", b"gAMA", b"PLTE", b"tRNS") if name in self._kept]
        return Scrubbed(
            data=b"".join((_SIGNATURE, self._kept[b"IHDR"], icc, *head, exif, *stream, self._kept[b"IEND"])),
            format="png",
            width=self._width,
            height=self._height,
            orientation=orientation,
            dropped=self._tally.dropped,
            profile=b"" if is_known else profile,
        )

    def _inflate(self) -> list[bytes]:
        """Return the IDAT chunks to the end of the stream, having seen that it holds all pixels."""
        inflater = zlib.decompressobj()
        due = self._raw_bytes()
        for place, chunk in enumerate(self._stream):
            due -= _inflated(inflater, chunk[8:-4], due)
            if inflater.eof:
                return self._cut(place, len(inflater.unused_data), due)
        raise Rejected("truncated")

    def _cut(self, place: int, excess: int, due: int) -> list[bytes]:
        if due:
            raise Rejected("truncated")
        kept = self._stream[: place + 1]
        if excess:
            payload = kept[-1][8:-4]
            self._tally.drop("idat_trailer", payload[-excess:])
            kept[-1] = _chunk(b"IDAT", payload[:-excess])
        for chunk in self._stream[place + 1 :]:
            self._tally.drop("idat_trailer", chunk)
        return kept

    def _raw_bytes(self) -> int:
        """Return how many bytes the filtered scanlines take."""
        bits = _CHANNELS[self._colour] * self._depth
        passes = _ADAM7 if self._interlace else ((0, 0, 1, 1),)
        total = 0
        for left, top, right, down in passes:
            columns = (self._width - left + right - 1) // right
            rows = (self._height - top + down - 1) // down
            if columns > 0 and rows > 0:
                total += rows * (1 + (columns * bits + 7) // 8)
        return total


def _inflated_profile(payload: bytes) -> bytes:
    """Return the colour profile in an iCCP chunk; nothing where it is broken."""
    name, _, rest = payload.partition(b"\0")
    if not name or rest[:1] != b"\0":
        return b""
    inflater = zlib.decompressobj()
    try:
        profile = inflater.decompress(rest[1:], MAX_PROFILE)
    except zlib.error:
        return b""
    if not inflater.eof:
        # A bomb, or cut off; in both cases no decoder would use it.
        return b""
    return profile


def _is_intact(chunk: bytes) -> bool:
    return struct.pack(">I", zlib.crc32(chunk[4:-4])) == chunk[-4:]


def _inflated(inflater: zlib._Decompress, payload: bytes, due: int) -> int:
    """Feed `payload`; return how many bytes came out, refusing more than `due`."""
    came = fresh = 0
    # A full piece may leave output behind although all input is consumed.
    while (payload or fresh == _PIECE) and not inflater.eof:
        try:
            fresh = len(inflater.decompress(payload, _PIECE))
        except zlib.error as error:
            raise Rejected("not_an_image") from error
        came += fresh
        if came > due:
            raise Rejected("residue_found")
        payload = inflater.unconsumed_tail
    return came
