"""What fuzzing starts from: planted files of our own, the test images, shared folders where they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway.deidentify import Limits, Rejected
from gateway.deidentify.sniff import sniff
from gateway.deidentify.verify import verify
from gateway.deidentify.walker import scrub
from tests.fuzz.targets import TARGETS
from tests.unit.deidentify import plant

DATA: Final = Path(__file__).parents[1] / "data" / "images"
SHARED: Final = Path(__file__).parents[3] / "shared" / "data"
MAX_BYTES: Final = 32 << 10
"""A mutation of a longer file hits its pixels and no header."""


def lay(name: str, folder: Path) -> int:
    """Write the seeds of target `name` into `folder`; return how many lie there."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = TARGETS[name].formats
    for data in files():
        if wanted and _format(data) not in wanted:
            continue
        for seed in (data, _cleaned(data)) if name == "second" else (data,):
            (folder / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    return sum(1 for _ in folder.iterdir())


def files(*, has_shared: bool = True) -> Iterator[bytes]:
    """Yield every seed, of whatever format."""
    yield from _planted()
    for root in (DATA, SHARED / "hostile", SHARED / "metadata") if has_shared else (DATA,):
        # Where a folder is not there, there is nothing in it.
        for file in sorted(root.rglob("*")):
            if file.is_file() and file.stat().st_size <= MAX_BYTES:
                yield file.read_bytes()


def _planted() -> Iterator[bytes]:
    for mode in ("L", "RGB", "CMYK"):
        yield plant.jpeg(6, mode=mode)
        yield plant.jpeg(1, mode=mode, progressive=True)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        yield plant.png(6, mode=mode, with_profile=mode != "L")
    for mode in ("RGB", "RGBA"):
        yield plant.webp(6, mode=mode)
        yield plant.webp(3, mode=mode, lossless=True)
    yield plant.encode(plant.picture("P"), "GIF", comment=plant.canary("comment"))
    yield plant.encode(plant.picture(), "TIFF", compression="tiff_lzw", description="CANARY")
    yield plant.encode(plant.picture(), "AVIF", exif=b"Exif\0\0" + plant.tiff(6))


def _format(data: bytes) -> str:
    try:
        return sniff(data)
    except Rejected:
        return ""


def _cleaned(data: bytes) -> bytes:
    try:
        clean = scrub(data, Limits()).data
        verify(clean)
    except Rejected:
        return data
    return clean
