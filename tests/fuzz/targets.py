"""What is fuzzed: each target takes any bytes and raises nothing, whatever they are.

A target lets `Rejected` pass and fails on everything else, so that a crash, a
file that is cleaned and not clean, and a canary that got through all look alike
to a fuzzer.  Nothing here needs the fuzzer; what it found is played back by
`tests/unit/deidentify/test_found_by_fuzzing.py`.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.deidentify import Limits, Mode, Rejected
from gateway.deidentify.head_gif import head_gif
from gateway.deidentify.head_heif import head_heif
from gateway.deidentify.head_tiff import head_tiff
from gateway.deidentify.orientation import read_orientation
from gateway.deidentify.polyglot import refuse_active, refuse_tail, tail_kind
from gateway.deidentify.scrubbed import Scrubbed
from gateway.deidentify.tally import Tally
from gateway.deidentify.verify import Seen, verify
from gateway.deidentify.walker import announced, scrub
from gateway.deidentify.worker import examine
from tests.unit.deidentify import plant

LIMITS: Final = Limits(max_bytes=1 << 20, max_pixels=1 << 18)
SMALL: Final = Limits(max_bytes=1 << 20, max_pixels=1 << 16)
"""For what is decoded: a fuzzer wants many pictures a second."""
JPEG, PNG, RIFF = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF"


def jpeg(data: bytes) -> None:
    """Walk it as a JPEG."""
    _walked(JPEG + data[len(JPEG) :])


def png(data: bytes) -> None:
    """Walk it as a PNG, as it is and with checksums that fit: no mutation makes one that does."""
    data = PNG + data[len(PNG) :]
    _walked(data)
    _walked(mended(data))


def webp(data: bytes) -> None:
    """Walk it as a WebP, as it is and with a length that fits."""
    _walked(RIFF + data[4:8].ljust(4, b"\0") + b"WEBP" + data[12:])
    _walked(RIFF + struct.pack("<I", max(4, len(data) - 8)) + b"WEBP" + data[12:])


def gif(data: bytes) -> None:
    """Read its headers as those of a GIF."""
    _headed(head_gif, b"GIF89a" + data[6:])


def tiff(data: bytes) -> None:
    """Read its directories as those of a TIFF."""
    _headed(head_tiff, (b"II*\0" if data[:1] == b"I" else b"MM\0*") + data[4:])


def heif(data: bytes) -> None:
    """Read its boxes as those of a HEIC or AVIF."""
    _headed(head_heif, data)


def second(data: bytes) -> None:
    """Ask the second opinion; what it lets pass has nothing that the first would take out."""
    for one in (data, mended(data)):
        with contextlib.suppress(Rejected):
            verify(one)
            with contextlib.suppress(Rejected):
                assert one == scrub(one, LIMITS).data


def strange(data: bytes) -> None:
    """Ask what else it may be."""
    with contextlib.suppress(Rejected):
        assert announced(data, LIMITS)
    for refuse in (refuse_active, refuse_tail):
        with contextlib.suppress(Rejected):
            refuse(data)
    assert tail_kind(data)
    assert read_orientation(data) in {None, *range(1, 9)}


def planted(data: bytes) -> None:
    """Build a good file with canaries in segments that `data` chooses; none of them may come through."""
    drawn = _Drawn(data)
    make = (_planted_jpeg, _planted_png, _planted_webp)[drawn.below(3)]
    clean = _walked(make(drawn))
    assert clean is None or plant.CANARY not in clean.data


def whole(data: bytes) -> None:
    """Clean it as a worker does, decoders and encoders included."""
    modes: tuple[Mode, ...] = ("canonical", "lossless")
    for mode in modes:
        with contextlib.suppress(Rejected):
            made = examine(data, SMALL, mode)
            assert verify(made.data).format == made.format
            # Coded pixels that are kept may spell anything.
            assert made.mode == "lossless" or plant.CANARY not in made.data


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to fuzz.

    Attributes:
        run: Raises nothing, whatever it is given.
        formats: Whose files are its seeds, by what they announce; none for all.
    """

    run: Callable[[bytes], None]
    formats: frozenset[str] = field(default=frozenset())


TARGETS: Final[Mapping[str, Target]] = {
    "jpeg": Target(jpeg, frozenset({"jpeg"})),
    "png": Target(png, frozenset({"png"})),
    "webp": Target(webp, frozenset({"webp"})),
    "gif": Target(gif, frozenset({"gif"})),
    "tiff": Target(tiff, frozenset({"tiff"})),
    "heif": Target(heif, frozenset({"heic", "avif"})),
    "second": Target(second, frozenset({"jpeg", "png", "webp"})),
    "strange": Target(strange),
    "planted": Target(planted),
    "whole": Target(whole),
}


def mended(data: bytes) -> bytes:
    """Return a PNG whose chunks, as far as they can be told apart, have the checksums that fit them."""
    made, at = bytearray(data), len(PNG)
    while at + 12 <= len(made):
        end = at + 12 + int.from_bytes(made[at : at + 4], "big")
        if end > len(made):
            break
        made[end - 4 : end] = struct.pack(">I", zlib.crc32(made[at + 4 : end - 4]))
        at = end
    return bytes(made)


def _walked(data: bytes) -> Scrubbed | None:
    """Return what a walker makes of `data`, once the second opinion agrees and another walk drops nothing."""
    try:
        clean = scrub(data, LIMITS)
    except Rejected:
        return None
    assert Seen(clean.format, clean.width, clean.height, clean.orientation) == verify(clean.data)
    again = scrub(clean.data, LIMITS)
    assert (clean.data, {}) == (again.data, dict(again.dropped))
    return clean


def _headed(head: Callable[[bytes, Limits], Tally], data: bytes) -> None:
    with contextlib.suppress(Rejected):
        assert all(count > 0 for count in head(data, LIMITS).dropped.values())


class _Drawn:
    """Choices read from bytes; zeros once they are used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        piece = self._data[self._at : self._at + count]
        self._at += count
        return piece.ljust(count, b"\0")

    def below(self, limit: int) -> int:
        return self.take(1)[0] % limit

    def payload(self, heads: tuple[bytes, ...]) -> bytes:
        """Return one of the known beginnings, a few bytes, and the canary."""
        head, count = heads[self.below(len(heads))], self.below(24)
        return head + self.take(count) + plant.canary("fuzz") + self.take(self.below(8))


_JPEG_HEADS: Final = (
    b"", b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0", b"JFXX\0", b"Exif\0\0MM\0*\0\0\0\x08",
    b"Adobe\0\x64\0\0\0\0\x01", b"ICC_PROFILE\0\x01\x01", b"MPF\0", b"http://ns.adobe.com/xap/1.0/\0",
    b"Photoshop 3.0\0", b"JP",
)  # fmt: skip
_PNG_NAMES: Final = (
    b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"zxIf", b"iCCP", b"cHRM", b"sPLT", b"hIST", b"prVt", b"caBX",
    b"sRGB", b"gAMA", b"bKGD", b"tIME",
)  # fmt: skip
_WEBP_NAMES: Final = (b"EXIF", b"XMP ", b"ICCP", b"C2PA", b"prvt", b"\0\0\0\0")
_TIFF_HEADS: Final = (b"", b"Exif\0\0II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08\0\x01", b"x\0\0")


def _planted_jpeg(drawn: _Drawn) -> bytes:
    modes = ("L", "RGB", "CMYK")
    clean = _JPEGS[modes[drawn.below(3)], drawn.below(2)]
    pieces, at = [clean[:2]], 2
    while clean[at + 1] != 0xDA:
        pieces.extend(_jpeg_extras(drawn))
        end = at + 2 + int.from_bytes(clean[at + 2 : at + 4], "big")
        pieces.append(clean[at:end])
        at = end
    pieces.extend(_jpeg_extras(drawn))
    pieces.append(clean[at:-2])
    pieces.extend(_jpeg_extras(drawn))
    return b"".join((*pieces, b"\xff\xd9", *(drawn.payload(_JPEG_HEADS) for _ in range(drawn.below(2)))))


def _jpeg_extras(drawn: _Drawn) -> list[bytes]:
    codes = (*range(0xE0, 0xF0), 0xFE)
    return [
        b"\xff" * drawn.below(3) + plant.segment(codes[drawn.below(len(codes))], drawn.payload(_JPEG_HEADS))
        for _ in range(drawn.below(3))
    ]


def _planted_png(drawn: _Drawn) -> bytes:
    modes = ("1", "L", "LA", "P", "RGB", "RGBA")
    parts: list[tuple[bytes, bytes]] = []
    for place, (name, payload) in enumerate(_PNGS[modes[drawn.below(len(modes))]]):
        if place:
            parts += [
                (_PNG_NAMES[drawn.below(len(_PNG_NAMES))], drawn.payload(_TIFF_HEADS))
                for _ in range(drawn.below(3))
            ]
        parts.append((name, payload + (drawn.payload((b"",)) if name == b"IDAT" and drawn.below(2) else b"")))
    return plant.joined(parts) + (drawn.payload((b"",)) if drawn.below(2) else b"")


def _planted_webp(drawn: _Drawn) -> bytes:
    modes = ("RGB", "RGBA")
    mode, is_lossless = modes[drawn.below(2)], drawn.below(2)
    bitstream = _WEBPS[mode, is_lossless]
    chunks = [plant.extended(drawn.take(1)[0] & ~2, (48, 32))] if drawn.below(4) else []
    for part in (*bitstream, b""):
        if chunks:
            chunks += [
                plant.riff_chunk(_WEBP_NAMES[drawn.below(len(_WEBP_NAMES))], drawn.payload(_TIFF_HEADS))
                for _ in range(drawn.below(3))
            ]
        chunks.append(part)
    return plant.riff(*chunks) + (drawn.payload((b"",)) if drawn.below(2) else b"")


_JPEGS: Final = {
    (mode, kind): plant.encode(plant.picture(mode), "JPEG", progressive=bool(kind))
    for mode in ("L", "RGB", "CMYK")
    for kind in (0, 1)
}
_PNGS: Final = {
    mode: plant.chunks(plant.encode(plant.picture(mode), "PNG"))
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA")
}
_WEBPS: Final = {
    (mode, kind): [
        part
        for name, part in plant.webp_parts(
            plant.encode(plant.picture(mode), "WEBP", lossless=bool(kind))
        ).items()
        if name in {b"ALPH", b"VP8 ", b"VP8L"}
    ]
    for mode in ("RGB", "RGBA")
    for kind in (0, 1)
}
