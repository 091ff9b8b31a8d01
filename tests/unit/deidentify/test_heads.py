"""What is refused before any decoder sees it: GIF, TIFF, HEIC and AVIF by their headers."""

from __future__ import annotations

import random
import struct

import pytest

from gateway.deidentify import Limits, Rejected
from gateway.deidentify.head_gif import head_gif
from gateway.deidentify.head_heif import head_heif
from gateway.deidentify.head_tiff import head_tiff
from tests.unit.deidentify import plant

LIMITS = Limits()
GIF = plant.encode(plant.picture("P"), "GIF", comment=b"a comment")
TIFF = plant.encode(plant.picture(), "TIFF")
AVIF = plant.encode(plant.picture(), "AVIF")


def box(name: bytes, payload: bytes) -> bytes:
    return struct.pack(">I4s", len(payload) + 8, name) + payload


def heif(width: int = 8, height: int = 8, *, items: int = 1, more: bytes = b"") -> bytes:
    """Return the boxes that a header is judged by; no decoder would find a picture in them."""
    extent = box(b"ispe", struct.pack(">III", 0, width, height))
    meta = bytes(4) + box(b"iinf", struct.pack(">IH", 0, items)) + box(b"iprp", box(b"ipco", extent))
    brands = box(b"ftyp", b"heic\0\0\0\0mif1heic")
    return brands + box(b"meta", meta) + box(b"mdat", bytes(20)) + more


def tiff(tags: dict[int, int], *pages: dict[int, int]) -> bytes:
    """Return a little-endian TIFF of directories with one LONG for each tag."""
    made, at = b"II*\0\x08\0\0\0", 8
    for place, page in enumerate((tags, *pages)):
        at += 6 + 12 * len(page)
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(page.items()))
        following = at if place < len(pages) else 0
        made += struct.pack("<H", len(page)) + entries + struct.pack("<I", following)
    return made


PAGE = {0x100: 8, 0x101: 8, 0x102: 8, 0x103: 1, 0x106: 2, 0x115: 3}


def animation() -> bytes:
    frames = [plant.picture("P"), plant.picture("P").rotate(90)]
    return plant.encode(frames[0], "GIF", save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (animation(), "multi_frame"),
        (GIF[:6] + struct.pack("<HH", 60_000, 60_000) + GIF[10:], "too_many_pixels"),
        (GIF[:6] + struct.pack("<HH", 40, 30) + GIF[10:], "not_an_image"),
        (GIF[:6] + struct.pack("<HH", 0, 30) + GIF[10:], "not_an_image"),
        (GIF[:40], "truncated"),
        (GIF[:-1], "truncated"),
        (GIF[:13], "truncated"),
        (b"GIF89a\x08\0\x08\0\0\0\0;", "truncated"),
        (b"GIF89a\x08\0\x08\0\0\0\0\x99", "not_an_image"),
        (GIF + b"%PDF-1.7", "polyglot"),
        (GIF[:-1] + b"!\xfe\x09<script> \0;", "polyglot"),
    ],
)
def test_a_gif_is_refused(data: bytes, detail: str) -> None:
    with pytest.raises(Rejected) as refused:
        head_gif(data, LIMITS)
    assert detail == refused.value.detail


def test_what_a_gif_carries_is_counted() -> None:
    told = head_gif(GIF + b"more", LIMITS).dropped
    assert {"comment", "trailer"} == set(told)


def test_a_gif_of_endless_extensions_is_refused() -> None:
    with pytest.raises(Rejected, match="chunk_too_large"):
        head_gif(GIF[:-1] + b"!\xfe\x01x\0" * 101 + b";", Limits(max_segments=100))


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (tiff(PAGE, PAGE), "multi_frame"),
        (tiff(PAGE, *[{**PAGE, 0xFE: 1}] * 20), "multi_frame"),
        (tiff({**PAGE, 0x100: 30_000}), "too_many_pixels"),
        (tiff({**PAGE, 0x100: 19_000, 0x101: 19_000}), "too_many_pixels"),
        (tiff({**PAGE, 0x101: 0}), "not_an_image"),
        (tiff({}), "not_an_image"),
        (tiff({**PAGE, 0x103: 6}), "unsupported_format"),
        (tiff({**PAGE, 0x103: 34712}), "unsupported_format"),
        (tiff({**PAGE, 0x106: 32803}), "unsupported_format"),
        (tiff({**PAGE, 0x115: 40_000}), "unsupported_format"),
        (tiff({**PAGE, 0xC612: 1}), "unsupported_format"),
        (b"II*\0\0\0\0\0", "truncated"),
        (b"II*\0\xff\xff\xff\xff", "truncated"),
        (b"MM\0*\0\0", "truncated"),
        (tiff(PAGE)[:40], "truncated"),
        (tiff(PAGE)[:-4] + b"\x08\0\0\0", "not_an_image"),
    ],
)
def test_a_tiff_is_refused(data: bytes, detail: str) -> None:
    with pytest.raises(Rejected) as refused:
        head_tiff(data, LIMITS)
    assert detail == refused.value.detail


def test_a_tiff_with_a_smaller_copy_of_itself_is_one_picture() -> None:
    assert head_tiff(tiff(PAGE, {**PAGE, 0xFE: 1}), LIMITS).dropped == {}


def test_a_tiff_of_endless_strips_is_refused() -> None:
    many = tiff(PAGE).replace(struct.pack("<HHII", 0x115, 4, 1, 3), struct.pack("<HHII", 0x111, 4, 30_000, 8))
    with pytest.raises(Rejected, match="chunk_too_large"):
        head_tiff(many, LIMITS)


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (heif(30_000, 10), "too_many_pixels"),
        (heif(10_000, 10_000), "too_many_pixels"),
        (heif(0, 10), "not_an_image"),
        (heif(items=5000), "chunk_too_large"),
        (heif(more=box(b"moov", bytes(8))), "multi_frame"),
        (heif()[:-1], "truncated"),
        (heif()[:60], "truncated"),
        (heif()[:24], "truncated"),
        (heif(more=b"PK\x03\x04" + bytes(40)), "polyglot"),
        (heif(more=box(b"uuid", b"<html >")), "polyglot"),
        (heif(more=heif()[24:]), "not_an_image"),
        (heif().replace(b"ispe", b"pixi"), "not_an_image"),
        (heif().replace(b"\0\0\0\x14ispe", b"\0\0\0\x10ispe"), "not_an_image"),
    ],
)
def test_a_heif_is_refused(data: bytes, detail: str) -> None:
    with pytest.raises(Rejected) as refused:
        head_heif(data, LIMITS)
    assert detail == refused.value.detail


def test_the_video_of_a_motion_photo_and_what_follows_are_counted() -> None:
    told = head_heif(heif(more=box(b"mpvd", bytes(50)) + box(b"uuid", bytes(8)) + b"tail"), LIMITS).dropped
    assert told == {"trailer": 4, "trailer_video": 58, "uuid": 16}


def test_a_real_avif_passes() -> None:
    assert head_heif(AVIF, LIMITS).dropped == {}


@pytest.mark.parametrize(("data", "read"), [(GIF, head_gif), (TIFF, head_tiff), (AVIF, head_heif)])
def test_broken_heads_raise_nothing_but_refusals(data: bytes, read) -> None:
    dice = random.Random(20261130)
    for _ in range(1500):
        broken = bytearray(data[: dice.randrange(8, len(data))] if dice.random() < 0.3 else data)
        for _ in range(dice.randrange(1, 6)):
            broken[dice.randrange(min(len(broken), 400))] = dice.randrange(256)
        try:
            read(bytes(broken), LIMITS)
        except Rejected:
            continue
