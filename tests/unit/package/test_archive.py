"""A ZIP file that is written piece by piece."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone

import pytest

from gateway.errors import PayloadTooLarge
from gateway.package.archive import PIECE_BYTES, Entry, pack, whole

AT = datetime(2026, 11, 30, 14, 12, 5, tzinfo=UTC)
LARGE, MOST = 12 << 20, 1 << 30


async def noise(size: int) -> AsyncIterator[bytes]:
    """Yield what cannot be compressed, a mebibyte at a time, as pictures come from the safe."""
    chance = random.Random(size)
    for start in range(0, size, 1 << 20):
        yield chance.randbytes(min(1 << 20, size - start))


async def entries(*sizes: int) -> AsyncIterator[Entry]:
    yield Entry("index.html", whole(b"<p>" * 100_000))
    for number, size in enumerate(sizes):
        yield Entry(f"images/{number:03}-output.jpg", noise(size))


async def packed(*sizes: int, at: datetime = AT, most: int = MOST) -> list[bytes]:
    return [piece async for piece in pack(entries(*sizes), at, most)]


async def test_what_is_written_in_pieces_reads_as_a_whole() -> None:
    pieces = await packed(LARGE, 0, 7)
    archive = zipfile.ZipFile(io.BytesIO(b"".join(pieces)))
    assert archive.testzip() is None
    assert [one.file_size for one in archive.infolist()] == [300_000, LARGE, 0, 7]
    assert archive.read("images/000-output.jpg") == b"".join([chunk async for chunk in noise(LARGE)])
    assert {one.date_time for one in archive.infolist()} == {
        (2026, 11, 30, 14, 12, 4)
    }  # ZIP counts in steps of two
    assert not any(one.is_dir() or one.extra or one.comment for one in archive.infolist())


async def test_no_piece_is_large_however_large_the_file() -> None:
    assert max(map(len, await packed(LARGE))) < (1 << 20) + 2 * PIECE_BYTES


async def test_the_same_content_at_the_same_moment_gives_the_same_bytes() -> None:
    elsewhere = AT.astimezone(timezone(timedelta(hours=9)))
    assert b"".join(await packed(100_000)) == b"".join(await packed(100_000, at=elsewhere))


async def test_a_file_that_grows_too_large_is_given_up_on_the_way() -> None:
    with pytest.raises(PayloadTooLarge):
        await packed(LARGE, most=LARGE // 2)
