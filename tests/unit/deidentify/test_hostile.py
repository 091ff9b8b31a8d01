"""Files that were built to do harm: refused by name, within bounds, and the next picture is served.

That no file is left needs no case here: none can be opened (test_lockdown).
"""

from __future__ import annotations

import functools
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.deidentify import Limits, Rejected
from gateway.deidentify.sandbox import ImageScrubber
from tests.needs import missing
from tests.unit.deidentify import plant
from tests.unit.deidentify.test_heads import PAGE, animation, heif, tiff

HALF_A_GIGABYTE = 512 << 10
SECONDS = 10.0
HOSTILE = Path(__file__).parents[4] / "shared" / "data" / "hostile"


@functools.cache
def flat_png(side: int) -> bytes:
    """Return a picture of one colour: a few bytes for each thousand lines."""
    deflater = zlib.compressobj(9)
    return png_of(side, b"".join(deflater.compress(bytes(side + 1)) for _ in range(side)) + deflater.flush())


def png_with(name: bytes, payload: bytes, times: int = 1) -> bytes:
    parts = plant.chunks(plant.encode(plant.picture(), "PNG"))
    return plant.joined([parts[0], *[(name, payload)] * times, *parts[1:]])


def png_of(side: int, stream: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return plant.joined([(b"IHDR", header), (b"IDAT", stream), (b"IEND", b"")])


def scans(count: int) -> bytes:
    """Return a progressive JPEG whose last scan comes again and again."""
    jpeg = plant.encode(plant.picture("RGB", (256, 256)), "JPEG", progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + jpeg[last:-2] * count + jpeg[-2:]


def of_side(side: int) -> bytes:
    """Return a JPEG that lies about its size."""
    jpeg = bytearray(plant.encode(plant.picture(), "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", side, side)
    return bytes(jpeg)


@functools.cache
def bomb() -> bytes:
    """Return what becomes 200 MiB of nothing."""
    return zlib.compress(bytes(200 << 20), 9)


def webp_that_says(side: int) -> bytes:
    """Return a lossless WebP that lies about its size."""
    parts = plant.webp_parts(plant.encode(plant.picture(), "WEBP", lossless=True))
    stream = bytearray(parts[b"VP8L"][8:])
    stream[1:5] = struct.pack("<I", (side - 1) | (side - 1) << 14)
    return plant.riff(plant.riff_chunk(b"VP8L", bytes(stream)))


def frames(form: str, **options: object) -> bytes:
    pictures = [plant.picture(), plant.picture().rotate(90)]
    return plant.encode(pictures[0], form, save_all=True, append_images=pictures[1:], **options)


def in_strips(compression: int, strip: bytes, side: int) -> bytes:
    """Return a grey TIFF with one strip."""
    tags = {0x100: side, 0x101: side, 0x102: 8, 0x103: compression, 0x106: 1, 0x115: 1, 0x116: side}
    at = len(tiff({**tags, 0x111: 0, 0x117: 0}))
    return tiff({**tags, 0x111: at, 0x117: len(strip)}) + strip


JPEG = plant.encode(plant.picture("RGB", (256, 256)), "JPEG")
AVIF = plant.encode(plant.picture(), "AVIF")
REFUSED: dict[str, tuple[str, Callable[[], bytes]]] = {
    "a PNG that says 30,000": ("too_many_pixels", lambda: png_of(30_000, b"")),
    "a PNG of 13,000 by 13,000": ("too_many_pixels", lambda: flat_png(13_000)),
    "a thousand scans": ("too_many_scans", lambda: scans(1000)),
    "a JPEG that says 65,535": ("too_many_pixels", lambda: of_side(65_535)),
    "a JPEG cut off": ("truncated", lambda: JPEG[: len(JPEG) // 2]),
    "a PNG cut off": ("truncated", lambda: plant.encode(plant.picture(), "PNG")[:-30]),
    "a PNG of endless chunks": ("chunk_too_large", lambda: png_with(b"teXt", b"", 20_001)),
    "a PNG chunk beyond the cap": ("chunk_too_large", lambda: b"\x89PNG\r\n\x1a\n\x7f\xff\xff\xffIHDR"),
    "more pixels than the header says": ("residue_found", lambda: png_of(8, bomb())),
    "a GIF screen of 60,000": ("too_many_pixels", lambda: b"GIF89a\x60\xea\x60\xea" + bytes(9)),
    "an animated GIF": ("multi_frame", animation),
    "a TIFF of two pages": ("multi_frame", lambda: tiff(PAGE, PAGE)),
    "a TIFF of 30,000": ("too_many_pixels", lambda: tiff({**PAGE, 0x100: 30_000})),
    "a TIFF without its pixels": ("truncated", lambda: tiff({**PAGE, 0x111: 8, 0x117: 9})),
    "a HEIC of 30,000": ("too_many_pixels", lambda: heif(30_000, 30_000)),
    "a HEIC without its pixels": ("not_an_image", heif),
    "an AVIF cut off": ("truncated", lambda: AVIF[:-40]),
    "a WebP cut off": ("truncated", lambda: plant.encode(plant.picture(), "WEBP")[:-30]),
    "a GIF cut off": ("truncated", lambda: plant.encode(plant.picture("P"), "GIF")[:-30]),
    "a WebP of 16,383": ("too_many_pixels", lambda: webp_that_says(16_383)),
    "a WebP that says 4,000 and holds 48": ("not_an_image", lambda: webp_that_says(4_000)),
    "an animated WebP": ("multi_frame", lambda: frames("WEBP")),
    "an animated PNG": ("multi_frame", lambda: frames("PNG")),
    "an AVIF sequence": ("multi_frame", lambda: frames("AVIF")),
    "a TIFF whose directories go round": (
        "not_an_image",
        lambda: tiff(PAGE)[:-4] + struct.pack("<I", 8),
    ),
    "a profile of 100 parts": (
        "chunk_too_large",
        lambda: (
            JPEG[:2]
            + b"".join(
                plant.segment(0xE2, b"ICC_PROFILE\0" + bytes([part, 100]) + bytes(65_000))
                for part in range(1, 101)
            )
            + JPEG[2:]
        ),
    ),
    "arithmetic coding": ("unsupported_format", lambda: JPEG.replace(b"\xff\xc0", b"\xff\xc9", 1)),
    "a height that comes later": (
        "unsupported_format",
        lambda: JPEG.replace(b"\xff\xc0\0\x11\x08\x01\0", b"\xff\xc0\0\x11\x08\0\0", 1),
    ),
    "a zip behind a JPEG": ("polyglot", lambda: JPEG + b"PK\x05\x06" + bytes(18)),
    "a program behind a JPEG": ("polyglot", lambda: JPEG + b"\x7fELF" + bytes(60)),
    "a script in a comment": ("polyglot", lambda: JPEG[:2] + plant.segment(0xFE, b"<script>") + JPEG[2:]),
    "a PDF that is a JPEG": ("polyglot", lambda: JPEG[:2] + plant.segment(0xFE, b"%PDF-1.7") + JPEG[2:]),
    "an SVG": ("not_an_image", lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    "nothing": ("not_an_image", lambda: b""),
    "more bytes than the cap": ("too_large", lambda: JPEG + bytes(32 << 20)),
}
HARMLESS = {
    "a text bomb": lambda: png_with(b"zTXt", b"x\0\0" + bomb()),
    "a TIFF strip of 200 MB": lambda: in_strips(8, bomb(), 64),
    "a profile bomb": lambda: png_with(b"iCCP", b"x\0\0" + bomb()),
    "fifty megapixels, turned": lambda: plant.encode(
        plant.picture("RGB", (8160, 6120)), "JPEG", exif=b"Exif\0\0" + plant.tiff(6)
    ),
    "a JPEG that says 7,000 and holds 256": lambda: of_side(7000),
    "the deepest PNG that is taken": lambda: flat_png(7071),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scrubber() -> Iterator[ImageScrubber]:
    made = ImageScrubber(Limits(), timeout_s=SECONDS)
    await made.start()
    yield made
    await made.close()


def peak_kib(scrubber: ImageScrubber) -> int:
    """Return the most memory that the worker has ever held."""
    (post,) = scrubber._posts
    assert post.worker is not None
    told = Path(f"/proc/{post.worker._process.pid}/status").read_text()
    return int(told.split("VmHWM:")[1].split()[0])


def kinds_of_files(scrubber: ImageScrubber) -> set[str]:
    """Return what the worker has open: where there is no file, none can be left."""
    (post,) = scrubber._posts
    assert post.worker is not None
    opened = Path(f"/proc/{post.worker._process.pid}/fd").iterdir()
    return {str(one.readlink()).split(":")[0] for one in opened}


async def is_served_after(scrubber: ImageScrubber, begun: float) -> bool:
    spent = time.monotonic() - begun
    assert (await scrubber.scrub(plant.jpeg())).width == 48
    assert peak_kib(scrubber) < HALF_A_GIGABYTE
    assert kinds_of_files(scrubber) == {"socket", "/dev/null"}
    return spent < SECONDS


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("mode", ["lossless", "canonical"])
@pytest.mark.parametrize("name", REFUSED)
async def test_it_is_refused_by_name(scrubber: ImageScrubber, name: str, mode: str) -> None:
    detail, make = REFUSED[name]
    data = make()
    begun = time.monotonic()
    with pytest.raises(Rejected) as refused:
        await scrubber.scrub(data, mode)
    assert await is_served_after(scrubber, begun)
    assert detail == refused.value.detail


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", HARMLESS)
async def test_it_is_cleaned_within_the_bounds(scrubber: ImageScrubber, name: str) -> None:
    data = HARMLESS[name]()
    begun = time.monotonic()
    made = await scrubber.scrub(data)
    assert await is_served_after(scrubber, begun)
    assert len(made.data) < 8 << 20


@pytest.mark.asyncio(loop_scope="module")
async def test_a_folder_of_crashes_of_others_kills_no_worker(scrubber: ImageScrubber) -> None:
    if not HOSTILE.is_dir():
        missing("the folder of hostile files", f"lay it at {HOSTILE}")
    (post,) = scrubber._posts
    await scrubber.scrub(plant.jpeg())
    assert post.worker is not None
    first, refused = post.worker._process.pid, 0
    files = [file for file in sorted(HOSTILE.rglob("*")) if file.is_file() and "suite" not in str(file)]
    for file in files:
        try:
            await scrubber.scrub(file.read_bytes())
        except Rejected:
            refused += 1
    assert refused > 40
    assert post.worker is not None
    assert peak_kib(scrubber) < HALF_A_GIGABYTE
    # It is replaced after two hundred pictures; that is no death.
    assert first == post.worker._process.pid or post.worker.pictures < len(files)
