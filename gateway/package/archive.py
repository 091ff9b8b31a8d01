"""Writes a ZIP file piece by piece: nothing of it is ever on a disk, and never all of it in memory."""

from __future__ import annotations

import io
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from gateway.errors import PayloadTooLarge

PIECE_BYTES = 256 << 10
_UNIX, _READABLE = 3, 0o644 << 16
_OLDEST = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: a name that says nothing of anyone, and its content."""

    name: str
    chunks: AsyncIterable[bytes]


class _Sink(io.RawIOBase):
    """Where the archive is written to; it cannot be sought, so nothing is written twice."""

    def __init__(self) -> None:
        self.held = bytearray()
        self.total = 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]  # zipfile gives bytes
        self.held += data
        self.total += len(data)
        return len(data)

    def drain(self) -> bytes:
        drained, self.held = bytes(self.held), bytearray()
        return drained


async def pack(entries: AsyncIterable[Entry], at: datetime, most: int) -> AsyncIterator[bytes]:
    """Yield the bytes of a ZIP file with the entries; the same entries and instant give the same bytes.

    Raises:
        PayloadTooLarge: The file would be longer than `most` bytes.
    """
    sink = _Sink()
    with ZipFile(sink, "w") as archive:
        async for entry in entries:
            info = ZipInfo(entry.name, max(at.astimezone(UTC).timetuple()[:6], _OLDEST))
            info.compress_type, info.create_system, info.external_attr = ZIP_DEFLATED, _UNIX, _READABLE
            with archive.open(info, "w") as file:
                async for chunk in entry.chunks:
                    file.write(chunk)
                    if sink.total > most:
                        raise PayloadTooLarge(limit=str(most))
                    if len(sink.held) >= PIECE_BYTES:
                        yield sink.drain()
    yield sink.drain()


async def whole(content: bytes) -> AsyncIterator[bytes]:
    """Yield a content that is at hand, in pieces that are compressed in a moment."""
    for start in range(0, len(content), PIECE_BYTES):
        yield content[start : start + PIECE_BYTES]
