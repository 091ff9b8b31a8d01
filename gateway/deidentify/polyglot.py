"""Files that are a picture and something else at once.

What the walkers drop cannot harm, for it is not in the output.  A file that
another program would *also* open is refused all the same: nobody's camera
writes one, so somebody built it.  The line is drawn here:

- Dropped in silence (and counted): padding after the picture, a second JPEG
  (multi-picture, gain map, depth map), a video (motion photo), a vendor's
  trailer, any other bytes without the traits below.
- Refused as `polyglot`: a ZIP end record that leads to a central directory
  (JAR, APK and office files included), a PDF header in the first 1024 bytes, a
  tar or ISO 9660 volume laid over the picture, HTML or a script in what would
  be dropped, and an archive, document, program or RIFF file that begins right
  after the picture or after its padding.

Traits are looked for where a reader of the other type would look; compressed
pixels are not searched for short words, because in megabytes of noise any
short word turns up.

Rule:
    PKWARE APPNOTE 6.3.10, 4.3.16: end of central directory record.
    ISO 32000-1, annex H, note 13: a PDF header within the first 1024 bytes.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from gateway.deidentify.errors import Rejected

_ACTIVE: Final = re.compile(
    rb"<script[\s>/]|<html[\s>]|<!doctype\s+html|<\?php\s|<svg[\s>]|<iframe[\s>]", re.IGNORECASE
)
_ARCHIVES: Final = re.compile(rb"Rar!\x1a\x07|7z\xbc\xaf\x27\x1c")
_PADDING: Final = b"\0\xff \t\r\n"
_FOREIGN: Final = (
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"%PDF-",
    b"%!PS",
    b"\x7fELF",
    b"RIFF",
    b"\xca\xfe\xba\xbe",
    b"\xfe\xed\xfa\xce",
    b"\xfe\xed\xfa\xcf",
    b"\xcf\xfa\xed\xfe",
    b"\xce\xfa\xed\xfe",
    b"\xd0\xcf\x11\xe0",
    b"\0asm",
    b"\x1f\x8b\x08",
    b"BZh",
    b"\xfd7zXZ\0",
    b"#!",
    b"<?xml",
)
_END_RECORD: Final = struct.Struct("<4s4H2IH")
_LONGEST_COMMENT: Final = 0xFFFF


def refuse_layered(data: bytes) -> None:
    """Refuse a file that another program would open as a document, volume or archive."""
    if b"%PDF-" in data[:1024] or data[257:262] == b"ustar" or _is_volume(data) or _is_zip(data):
        raise Rejected("polyglot")


def refuse_active(dropped: bytes) -> None:
    """Refuse dropped bytes that hold markup a browser or an interpreter would run."""
    if _ACTIVE.search(dropped) or _ARCHIVES.search(dropped):
        raise Rejected("polyglot")


def refuse_tail(tail: bytes) -> None:
    """Refuse bytes after the end of the picture that begin another type of file."""
    for start in (tail, tail.lstrip(_PADDING)):
        if start.startswith(_FOREIGN) or _is_program(start):
            raise Rejected("polyglot")


def tail_kind(tail: bytes) -> str:
    """Return the code under which bytes after the end of a picture are counted."""
    rest = tail.lstrip(b"\0")
    if not rest.strip(_PADDING):
        return "padding"
    if rest.startswith(b"\xff\xd8\xff"):
        return "trailer_image"
    return "trailer_video" if rest.find(b"ftyp", 0, 64) >= 0 else "trailer"


def _is_volume(data: bytes) -> bool:
    return any(data[sector * 2048 + 1 : sector * 2048 + 6] == b"CD001" for sector in (16, 17, 18))


def _is_program(start: bytes) -> bool:
    if not start.startswith(b"MZ") or len(start) < 0x40:
        return False
    (header,) = struct.unpack_from("<I", start, 0x3C)
    return start[header : header + 4] == b"PE\0\0"


def _is_zip(data: bytes) -> bool:
    at = len(data)
    lowest = max(0, len(data) - _LONGEST_COMMENT - _END_RECORD.size)
    while (at := data.rfind(b"PK\x05\x06", lowest, at)) >= 0:
        if _leads_to_directory(data, at):
            return True
    return False


def _leads_to_directory(data: bytes, at: int) -> bool:
    """Tell whether the end record at `at` is one, as readers that allow bytes before the archive see it."""
    if at + _END_RECORD.size > len(data):
        return False
    _, disk, first_disk, here, entries, size, offset, comment = _END_RECORD.unpack_from(data, at)
    if disk or first_disk or here != entries or at + _END_RECORD.size + comment > len(data):
        return False
    if entries == 0:
        return size == 0 and offset in {0, at}
    if size == 0xFFFFFFFF or offset == 0xFFFFFFFF:
        return data[at - 20 : at - 16] == b"PK\x06\x07"
    return any(data[start : start + 4] == b"PK\x01\x02" for start in (at - size, offset) if 0 <= start <= at)
