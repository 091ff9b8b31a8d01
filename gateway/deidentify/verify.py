"""The second opinion: is there nothing but pixels, orientation and a known profile in a file we wrote?

Shares no code with the walkers.  It does not look for metadata; it reads the
narrow grammar of our own output and refuses whatever is not in it.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Final, NoReturn

from gateway.deidentify.errors import Rejected
from gateway.deidentify.profiles import MAX_PROFILE, PNG_PROFILE_NAME, is_kept
from gateway.deidentify.scrubbed import Format

_TIFF: Final = (
    rb"MM\x00\x2a\x00\x00\x00\x08\x00\x01"
    rb"\x01\x12\x00\x03\x00\x00\x00\x01\x00([\x02-\x08])\x00{6}"
)
_JPEG_HEAD: Final = re.compile(
    rb"\xff\xd8"
    rb"(?:\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00)?"
    rb"(?:\xff\xe1\x00\x22Exif\x00\x00" + _TIFF + rb")?"
    rb"(?:\xff\xe2(?P<length>..)ICC_PROFILE\x00\x01\x01)?",
    re.DOTALL,
)
_JPEG_ADOBE: Final = re.compile(rb"(?:\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00[\x00-\x02])?")
_JPEG_FRAME: Final = re.compile(rb"\xff[\xc0-\xc2]..\x08(..)(..)[\x01\x03\x04]", re.DOTALL)
_JPEG_CODED_END: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_PNG_ORDER: Final = re.compile(
    rb"IHDR (?:iCCP )?(?:sRGB )?(?:gAMA )?(?:PLTE )?(?:tRNS )?(?:eXIf )?(?:IDAT )+IEND "
)
_PNG_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PNG_WHOLE: Final = ((0, 0, 1, 1),)
_PNG_ADAM7: Final = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip
_PIECE: Final = 1 << 20
_PNG_FIXED: Final = {b"IHDR": 13, b"sRGB": 1, b"gAMA": 4, b"eXIf": 26, b"IEND": 0}
_WEBP_ORDER: Final = re.compile(rb"(?:VP8 |VP8L)|VP8X(?:ICCP)?(?:ALPHVP8 |VP8L|VP8 )(?:EXIF)?")


@dataclass(frozen=True, slots=True)
class Seen:
    """What a file says about itself when it is read a second time."""

    format: Format
    width: int
    height: int
    orientation: int


def verify(data: bytes) -> Seen:
    """Return what is in `data`, or refuse it.

    Raises:
        Rejected: `residue_found`, whenever anything is not exactly as we write it.
    """
    reader = next((read for magic, read in _READERS if data.startswith(magic)), None)
    if reader is None:
        _residue()
    try:
        seen = reader(data)
    except (ArithmeticError, LookupError, ValueError):
        # A checker that stumbles has not checked: closed is the safe side.
        _residue()
    _demand(min(seen.width, seen.height) > 0)
    return seen


def _residue() -> NoReturn:
    raise Rejected("residue_found")


def _demand(is_good: bool) -> None:
    if not is_good:
        _residue()


def _orientation(tiff: bytes) -> int:
    found = re.fullmatch(_TIFF, tiff)
    if found is None:
        _residue()
    return found[1][0]


def _jpeg(data: bytes) -> Seen:
    head = _JPEG_HEAD.match(data)
    if head is None:
        _residue()
    orientation = head[1][0] if head[1] else 1
    at, size, is_coded = head.end(), (0, 0), False
    if head["length"]:
        # The length counts itself and the sixteen bytes between it and the profile.
        profile = data[at : at + int.from_bytes(head["length"], "big") - 16]
        _demand(is_kept(profile))
        at += len(profile)
    adobe = _JPEG_ADOBE.match(data, at)
    at = adobe.end() if adobe else at
    while data[at : at + 2] != b"\xff\xd9":
        stop = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        _demand(at + 4 <= stop <= len(data) - 2)
        segment = data[at:stop]
        if frame := _JPEG_FRAME.match(segment):
            _demand(size == (0, 0) and len(segment) == 10 + 3 * segment[9])
            size = (int.from_bytes(frame[2], "big"), int.from_bytes(frame[1], "big"))
        elif segment.startswith(b"\xff\xda"):
            following = _JPEG_CODED_END.search(data, stop)
            if following is None or len(segment) != 8 + 2 * segment[4]:
                _residue()
            # Coded data ends in a byte of its own, not in fill.
            _demand(following.start() == stop or data[following.start() - 1] != 0xFF)
            stop, is_coded = following.start(), True
        else:
            _jpeg_table(segment)
        at = stop
    _demand(at + 2 == len(data) and size != (0, 0) and is_coded)
    return Seen("jpeg", *size, orientation)


def _jpeg_table(segment: bytes) -> None:
    """Demand that quantisation, Huffman and restart tables fill their segment exactly."""
    rest = segment[4:]
    if segment.startswith(b"\xff\xdd"):
        _demand(len(rest) == 2)
        return
    _demand(segment.startswith((b"\xff\xc4", b"\xff\xdb")))
    while rest:
        taken = 17 + sum(rest[1:17]) if segment[1] == 0xC4 else 65 + 64 * (rest[0] >> 4)
        _demand(taken <= len(rest) and rest[0] <= 0x13)
        rest = rest[taken:]


def _png(data: bytes) -> Seen:
    _demand(data[12:16] == b"IHDR")
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    depth, colour, _, _, interlace = data[24:29]
    at, order, orientation, palette = 8, b"", 1, 0
    inflater, due = zlib.decompressobj(), _png_bytes(width, height, depth, colour, interlace)
    while at < len(data):
        name, size = data[at + 4 : at + 8], int.from_bytes(data[at : at + 4], "big")
        stop = at + 12 + size
        _demand(stop <= len(data) and size == _PNG_FIXED.get(name, size))
        _demand(zlib.crc32(data[at + 4 : stop - 4]) == int.from_bytes(data[stop - 4 : stop], "big"))
        payload = data[at + 8 : stop - 4]
        if name == b"PLTE":
            palette = size // 3
            _demand(size == 3 * palette and 0 < palette <= 1 << depth)
        elif name == b"tRNS":
            _demand(0 < size <= palette if colour == 3 else size == {0: 2, 2: 6}[colour])
        elif name == b"eXIf":
            orientation = _orientation(payload)
        elif name == b"iCCP":
            _png_profile(payload)
        elif name == b"IDAT":
            due -= _png_pixels(inflater, payload, due)
        # Long rows of IDAT are noted once.
        order += name + b" " if not (name == b"IDAT" and order.endswith(b"IDAT ")) else b""
        _demand(len(order) <= 50)
        at = stop
    _demand(_PNG_ORDER.fullmatch(order) is not None and (palette > 0) == (colour == 3))
    _demand(inflater.eof and not due)
    return Seen("png", width, height, orientation)


def _png_bytes(width: int, height: int, depth: int, colour: int, interlace: int) -> int:
    """Return how many bytes the rows of pixels take, each with the byte that names its filter."""
    bits = depth * _PNG_CHANNELS[colour]
    grids = (_PNG_WHOLE, _PNG_ADAM7)[interlace]
    rows = ((len(range(y, height, down)), len(range(x, width, right))) for x, y, right, down in grids)
    return sum(count * (1 + (length * bits + 7) // 8) for count, length in rows if length)


def _png_pixels(inflater: zlib._Decompress, payload: bytes, due: int) -> int:
    """Return how many bytes come out of `payload`, no more than are due and none behind the stream's end."""
    _demand(not inflater.eof)
    came, piece = 0, b""
    try:
        # What fills a piece may have left more behind although all input is consumed.
        while not inflater.eof and (payload or len(piece) == _PIECE):
            piece = inflater.decompress(payload, _PIECE)
            payload = inflater.unconsumed_tail
            came += len(piece)
            _demand(came <= due)
    except zlib.error:
        _residue()
    _demand(not inflater.unused_data)
    return came


def _png_profile(payload: bytes) -> None:
    _demand(payload.startswith(PNG_PROFILE_NAME))
    inflater = zlib.decompressobj()
    try:
        profile = inflater.decompress(payload[len(PNG_PROFILE_NAME) :], MAX_PROFILE)
    except zlib.error:
        _residue()
    _demand(inflater.eof and not inflater.unused_data and is_kept(profile))


def _webp(data: bytes) -> Seen:
    _demand(int.from_bytes(data[4:8], "little") == len(data) - 8 and data[8:12] == b"WEBP")
    at, chunks = 12, dict[bytes, bytes]()
    while at < len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        stop = at + 8 + size
        at = stop + (size & 1)
        _demand(name not in chunks and at <= len(data) and not any(data[stop:at]))
        chunks[name] = data[stop - size : stop]
    _demand(_WEBP_ORDER.fullmatch(b"".join(chunks)) is not None)
    size_of = _webp_lossless if b"VP8L" in chunks else _webp_lossy
    seen = Seen("webp", *size_of(chunks), _orientation(chunks[b"EXIF"]) if b"EXIF" in chunks else 1)
    if b"VP8X" in chunks:
        _webp_header(chunks, seen)
    return seen


def _webp_header(chunks: dict[bytes, bytes], seen: Seen) -> None:
    header = chunks[b"VP8X"]
    sides = (seen.width - 1).to_bytes(3, "little") + (seen.height - 1).to_bytes(3, "little")
    _demand(len(header) == 10 and not header[0] & ~0x38 and not any(header[1:4]) and header[4:] == sides)
    _demand(bool(header[0] & 8) == (b"EXIF" in chunks))
    _demand(b"ALPH" not in chunks or bool(header[0] & 16))
    _demand(bool(header[0] & 32) == (b"ICCP" in chunks))
    _demand(b"ICCP" not in chunks or is_kept(chunks[b"ICCP"]))


def _webp_lossy(chunks: dict[bytes, bytes]) -> tuple[int, int]:
    start = chunks[b"VP8 "][:10]
    return int.from_bytes(start[6:8], "little") & 0x3FFF, int.from_bytes(start[8:10], "little") & 0x3FFF


def _webp_lossless(chunks: dict[bytes, bytes]) -> tuple[int, int]:
    bits = int.from_bytes(chunks[b"VP8L"][1:5], "little")
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1


_READERS: Final = ((b"\xff\xd8", _jpeg), (b"\x89PNG\r\n\x1a\n", _png), (b"RIFF", _webp))
