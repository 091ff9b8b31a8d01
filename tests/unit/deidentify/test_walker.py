from __future__ import annotations

import io
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from PIL import Image

from gateway.deidentify import Limits, Rejected, Scrubbed
from gateway.deidentify.decode import trial_decode
from gateway.deidentify.verify import verify
from gateway.deidentify.walker import scrub
from tests.unit.deidentify import plant

LIMITS = Limits()

PLANTED: dict[str, Callable[[int], bytes]] = {
    "jpeg": plant.jpeg,
    "jpeg_progressive": lambda turn: plant.jpeg(turn, progressive=True),
    "jpeg_restart": lambda turn: plant.jpeg(turn, restart_marker_blocks=1),
    "jpeg_gray": lambda turn: plant.jpeg(turn, mode="L"),
    "jpeg_cmyk": lambda turn: plant.jpeg(turn, mode="CMYK"),
    "jpeg_rgb": lambda turn: plant.jpeg(turn, keep_rgb=True),
    "png": plant.png,
    "png_alpha": lambda turn: plant.png(turn, mode="RGBA"),
    "png_palette": lambda turn: plant.png(turn, mode="P"),
    "png_sixteen": lambda turn: plant.png(turn, mode="LA"),
    "webp": plant.webp,
    "webp_alpha": lambda turn: plant.webp(turn, mode="RGBA"),
    "webp_lossless": lambda turn: plant.webp(turn, lossless=True),
    "webp_lossless_alpha": lambda turn: plant.webp(turn, mode="RGBA", lossless=True),
}


def refusal(data: bytes, limits: Limits = LIMITS) -> str:
    with pytest.raises(Rejected) as refused:
        scrub(data, limits)
    return refused.value.detail


def exif_orientation(data: bytes) -> int:
    with Image.open(io.BytesIO(data)) as image:
        return int(image.getexif().get(0x0112, 1))


@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_no_canary_survives_and_every_pixel_does(kind: str, orientation: int) -> None:
    planted = PLANTED[kind](orientation)
    assert planted.count(plant.CANARY) >= 5

    clean = scrub(planted, LIMITS)

    assert plant.CANARY not in clean.data
    assert plant.pixels(clean.data) == plant.pixels(planted)
    assert (orientation, orientation) == (clean.orientation, exif_orientation(clean.data))
    assert (clean.format, clean.width, clean.height) == (kind.split("_", maxsplit=1)[0], 48, 32)
    trial_decode(clean, LIMITS)
    seen = verify(clean.data)
    assert (clean.format, 48, 32, orientation) == (seen.format, seen.width, seen.height, seen.orientation)


@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.parametrize("orientation", [1, 6])
def test_scrubbing_twice_changes_and_drops_nothing(kind: str, orientation: int) -> None:
    once = scrub(PLANTED[kind](orientation), LIMITS)
    assert replace(once, dropped={}) == scrub(once.data, LIMITS)


def test_what_was_dropped_is_told_in_codes_and_bytes() -> None:
    dropped = scrub(plant.jpeg(6), LIMITS).dropped
    assert {*plant.jpeg_segments(), "exif", "trailer_image"} == dropped.keys()
    assert len(plant.jpeg_segments()["comment"]) == dropped["comment"]
    assert all(re.fullmatch(r"[a-z0-9_]+", kind) and count > 0 for kind, count in dropped.items())
    assert {*plant.png_chunks(), "idat_trailer", "trailer"} == scrub(plant.png(), LIMITS).dropped.keys()
    assert {*plant.webp_chunks(), "vp8x", "trailer"} == scrub(plant.webp(), LIMITS).dropped.keys()


def test_a_picture_without_metadata_comes_back_as_it_was() -> None:
    for clean in (
        plant.encode(plant.picture(), "PNG"),
        plant.encode(plant.picture(), "WEBP"),
        plant.encode(plant.picture("RGBA"), "WEBP"),
    ):
        assert Scrubbed(clean, scrub(clean, LIMITS).format, 48, 32, 1, {}) == scrub(clean, LIMITS)


def test_the_density_and_thumbnail_of_jfif_go() -> None:
    jpeg = plant.encode(plant.picture(), "JPEG", dpi=(300, 300))
    thumbnail = plant.segment(0xE0, b"JFIF\0\x01\x02\x01\x01\x2c\x01\x2c\x02\x02" + plant.CANARY * 2)
    clean = scrub(jpeg[:2] + thumbnail + jpeg[20:], LIMITS)
    assert clean.data[:22] == b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0\xff\xdb"


def test_an_adobe_segment_keeps_only_its_transform() -> None:
    jpeg = plant.encode(plant.picture(), "JPEG", keep_rgb=True)
    at = jpeg.index(b"Adobe") - 4
    told = jpeg[:at] + plant.segment(0xEE, b"Adobe\0\x65SERI\0" + plant.CANARY) + jpeg[at + 16 :]
    clean = scrub(told, LIMITS)
    assert b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0" in clean.data
    assert plant.pixels(jpeg)[2] == plant.pixels(clean.data)[2]


def test_fill_bytes_and_bytes_between_segments_are_dropped() -> None:
    jpeg = plant.encode(plant.picture(), "JPEG")
    filled = jpeg.replace(b"\xff\xdb", b"\xff\xff\xff\xdb").replace(b"\xff\xc4", plant.CANARY + b"\xff\xc4")
    clean = scrub(filled[:-2] + b"\xff\xff\xff\xd9", LIMITS)
    assert plant.CANARY not in clean.data
    assert scrub(jpeg, LIMITS).data == clean.data


def test_tables_after_the_last_scan_are_dropped() -> None:
    jpeg = plant.encode(plant.picture(), "JPEG")
    table = plant.segment(0xDB, b"\0" + plant.CANARY * 10 + b"0000")
    clean = scrub(jpeg[:-2] + table + b"\xff\xd9", LIMITS)
    assert plant.CANARY not in clean.data
    assert len(table) == clean.dropped["tables"]


@pytest.mark.parametrize("code", [0xDB, 0xC4, 0xDD])
def test_a_table_with_bytes_beside_it_is_refused(code: int) -> None:
    jpeg = plant.encode(plant.picture(), "JPEG")
    table = plant.segment(code, b"\0" * 65 + plant.CANARY)
    assert refusal(jpeg[:2] + table + jpeg[2:]) == "not_an_image"


def test_orientation_comes_from_the_first_segment_that_has_one() -> None:
    jpeg = plant.encode(plant.picture(), "JPEG")
    broken = plant.segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff")
    third = plant.segment(0xE1, b"Exif\0\0" + plant.tiff(3))
    sixth = plant.segment(0xE1, b"Exif\0\0" + plant.tiff(6))
    assert scrub(jpeg[:2] + broken + third + sixth + jpeg[2:], LIMITS).orientation == 3


@pytest.mark.parametrize(
    ("head", "detail"),
    [
        (b"", "not_an_image"),
        (b"\xff\xd8", "not_an_image"),
        (b"hello, I am a portrait", "not_an_image"),
        # Pictures that are taken, but only a decoder can clean.
        (b"GIF89a" + bytes(40), "unsupported_format"),
        (b"II*\0" + bytes(40), "unsupported_format"),
        (b"MM\0*" + bytes(40), "unsupported_format"),
        (b"BM" + bytes(12) + b"\x28\0\0\0" + bytes(40), "unsupported_format"),
        (b"BM is not always a bitmap", "not_an_image"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "unsupported_format"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "unsupported_format"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "not_an_image"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "unsupported_format"),
        (b"\xff\x0a" + bytes(20), "unsupported_format"),
        (b"P6\n4 4\n255\n" + bytes(48), "unsupported_format"),
        (b"RIFF\x10\0\0\0WAVEfmt " + bytes(8), "not_an_image"),
        (b"RIFF\x04\0\0\0WEBP", "not_an_image"),
        (b"%PDF-1.7\n", "not_an_image"),
    ],
)
def test_other_files_are_refused_by_their_first_bytes(head: bytes, detail: str) -> None:
    assert detail == refusal(head)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_file_cut_anywhere_is_never_accepted(form: str) -> None:
    whole = plant.encode(plant.picture(size=(24, 24)), form)
    details = {refusal(whole[:length]) for length in range(len(whole))}
    assert details <= {"truncated", "not_an_image", "chunk_too_large"}
    assert refusal(whole[:-2]) == "truncated"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_caps_are_read_from_headers(form: str) -> None:
    whole = plant.encode(plant.picture(), form)
    assert refusal(whole, replace(LIMITS, max_bytes=len(whole) - 1)) == "too_large"
    assert refusal(whole, replace(LIMITS, max_pixels=48 * 32 - 1)) == "too_many_pixels"
    assert refusal(whole, replace(LIMITS, max_side=47)) == "too_many_pixels"
    assert scrub(whole, Limits(max_bytes=len(whole), max_pixels=48 * 32, max_side=48)).width == 48


@pytest.mark.parametrize("name", Limits.__slots__)
def test_a_cap_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Limits(**{name: 0})


def test_a_png_bomb_is_refused_by_its_header() -> None:
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    assert refusal(plant.joined([(b"IHDR", header), (b"IDAT", b""), (b"IEND", b"")])) == "too_many_pixels"


def test_a_stream_that_holds_more_than_the_pixels_is_refused() -> None:
    header = struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0)
    for excess, detail in ((1, "residue_found"), (50 << 20, "residue_found"), (-1, "truncated")):
        stream = zlib.compress(bytes(20 + excess))
        parts = [(b"IHDR", header), (b"IDAT", stream), (b"IEND", b"")]
        assert detail == refusal(plant.joined(parts))


def test_a_stream_longer_than_a_piece_is_measured_exactly() -> None:
    for mode, size in (("RGB", (1200, 900)), ("L", (2048, 2049)), ("1", (5000, 13))):
        clean = plant.encode(plant.picture(mode, size), "PNG")
        assert clean == scrub(clean, LIMITS).data


def test_too_many_scans_are_refused() -> None:
    jpeg = plant.encode(plant.picture(), "JPEG", progressive=True)
    start = jpeg.rindex(b"\xff\xda")
    scan = jpeg[start:-2]
    assert scrub(jpeg[:-2] + scan * 80 + b"\xff\xd9", LIMITS).width == 48
    assert refusal(jpeg[:-2] + scan * 101 + b"\xff\xd9") == "too_many_scans"


def test_large_and_many_chunks_are_refused() -> None:
    png = plant.encode(plant.picture(), "PNG")
    planted = png[:33] + plant.chunk(b"prVt", bytes(5000)) + png[33:]
    assert refusal(planted, replace(LIMITS, max_chunk=4999)) == "chunk_too_large"
    assert refusal(png[:33] + b"\xff\xff\xff\xf0tEXt" + png[33:]) == "chunk_too_large"
    many = png[:33] + plant.chunk(b"prVt", b"") * 50 + png[33:]
    assert refusal(many, replace(LIMITS, max_segments=40)) == "chunk_too_large"
    webp = plant.riff(*plant.webp_parts(plant.encode(plant.picture(), "WEBP")).values())
    assert refusal(webp, replace(LIMITS, max_chunk=20)) == "chunk_too_large"
    jpeg = plant.encode(plant.picture(), "JPEG")
    assert (
        refusal(jpeg[:2] + plant.segment(0xFE, b"") * 50 + jpeg[2:], replace(LIMITS, max_segments=40))
        == "chunk_too_large"
    )


def test_animations_are_refused() -> None:
    frames = [plant.picture(), plant.picture().rotate(180)]
    for form in ("PNG", "WEBP"):
        animation = plant.encode(frames[0], form, save_all=True, append_images=frames[1:])
        assert refusal(animation) == "multi_frame"


@pytest.mark.parametrize("code", [0xC3, 0xC5, 0xC9, 0xCA, 0xCC, 0xDE, 0xF7, 0xC8])
def test_other_coding_processes_are_refused(code: int) -> None:
    jpeg = bytearray(plant.encode(plant.picture(), "JPEG"))
    jpeg[jpeg.index(b"\xff\xc0") + 1] = code
    assert refusal(bytes(jpeg)) == "unsupported_format"


@pytest.mark.parametrize(
    ("offset", "value", "detail"),
    [
        (4, 12, "unsupported_format"),
        (9, 2, "not_an_image"),
        (5, 255, "too_many_pixels"),
        (7, 255, "too_many_pixels"),
    ],
)
def test_a_strange_frame_header_is_refused(offset: int, value: int, detail: str) -> None:
    jpeg = bytearray(plant.encode(plant.picture(), "JPEG"))
    jpeg[jpeg.index(b"\xff\xc0") + offset] = value
    assert detail == refusal(bytes(jpeg))


def test_a_height_that_only_dnl_would_tell_is_unsupported() -> None:
    jpeg = bytearray(plant.encode(plant.picture(), "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 2] = b"\0\0"
    assert refusal(bytes(jpeg)) == "unsupported_format"


@pytest.mark.parametrize(
    "broken",
    [
        lambda jpeg: jpeg[:2] + b"\xff\x30" + jpeg[2:],
        lambda jpeg: jpeg[:2] + b"\xff\xd8" + jpeg[2:],
        lambda jpeg: jpeg[:2] + b"\xff\xfe\0\x01" + jpeg[2:],
        lambda jpeg: jpeg[:2] + jpeg[jpeg.index(b"\xff\xda") :],
        lambda jpeg: jpeg.replace(b"\xff\xc0", jpeg[jpeg.index(b"\xff\xc0") :][:19] + b"\xff\xc0"),
    ],
)
def test_a_jpeg_against_its_own_grammar_is_no_image(broken: Callable[[bytes], bytes]) -> None:
    assert refusal(broken(plant.encode(plant.picture(), "JPEG"))) == "not_an_image"


def _png_parts(mode: str = "RGB") -> list[tuple[bytes, bytes]]:
    return plant.chunks(plant.encode(plant.picture(mode), "PNG"))


def test_a_png_against_its_own_grammar_is_refused() -> None:
    header, *rest = _png_parts()
    palette = _png_parts("P")
    half = len(rest[0][1]) // 2
    split = [(b"IDAT", rest[0][1][:half]), (b"tEXt", b"a\0b"), (b"IDAT", rest[0][1][half:])]
    assert refusal(plant.joined([header, *split, (b"IEND", b"")])) == "not_an_image"
    assert refusal(plant.joined([header, header, *rest])) == "not_an_image"
    assert refusal(plant.joined(rest)) == "not_an_image"
    assert refusal(plant.joined([header, *rest[:-1], (b"IEND", b"x")])) == "not_an_image"
    assert refusal(plant.joined([header, (b"IEND", b"")])) == "not_an_image"
    assert refusal(plant.joined([part for part in palette if part[0] != b"PLTE"])) == "not_an_image"
    assert refusal(plant.joined([palette[0], (b"PLTE", b"12345"), *palette[2:]])) == "not_an_image"
    assert refusal(plant.joined([header, (b"tRNS", b"12"), *rest])) == "not_an_image"
    assert refusal(plant.joined([header, (b"QUUX", b""), *rest])) == "unsupported_format"
    assert refusal(plant.joined([(b"CgBI", b"\0" * 4), header, *rest])) == "unsupported_format"
    wrong = bytearray(plant.joined([header, *rest]))
    wrong[-20] ^= 1
    assert refusal(bytes(wrong)) == "not_an_image"


def test_colour_hints_are_kept_only_where_they_count() -> None:
    header, *rest = _png_parts()
    hints = [(b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 45455))]
    whole = plant.joined([header, *hints, *rest])
    assert whole == scrub(whole, LIMITS).data
    strange = plant.joined([header, (b"sRGB", b"\x09"), (b"gAMA", b"123"), *rest])
    assert plant.joined([header, *rest]) == scrub(strange, LIMITS).data


def test_a_suggested_palette_is_not_needed_by_true_colour() -> None:
    header, *rest = _png_parts()
    clean = scrub(plant.joined([header, (b"PLTE", plant.CANARY), *rest]), LIMITS)
    assert clean.dropped == {"plte": 18}


def test_transparency_is_part_of_the_pixels() -> None:
    for mode, transparency in (("RGB", (1, 2, 3)), ("L", 7), ("P", b"\0\x80\xff")):
        png = plant.encode(plant.picture(mode), "PNG", transparency=transparency)
        assert plant.pixels(png) == plant.pixels(scrub(png, LIMITS).data)


def test_a_webp_against_its_own_grammar_is_refused() -> None:
    parts = plant.webp_parts(plant.encode(plant.picture(), "WEBP"))
    pixels = parts[b"VP8 "]
    assert refusal(plant.riff(pixels, pixels)) == "not_an_image"
    assert refusal(plant.riff(plant.riff_chunk(b"XMP ", b"xx"), pixels)) == "not_an_image"
    assert refusal(plant.riff(plant.extended(0, (47, 32)), pixels)) == "not_an_image"
    assert refusal(plant.riff(pixels, plant.extended(0, (48, 32)))) == "not_an_image"
    assert refusal(plant.riff(plant.riff_chunk(b"VP8X", b"short"), pixels)) == "not_an_image"
    assert refusal(plant.riff(plant.extended(2, (48, 32)), pixels)) == "multi_frame"
    assert refusal(plant.riff(plant.extended(0, (48, 32)))) == "truncated"
    assert refusal(plant.riff(plant.extended(0, (1 << 24, 1 << 24)), pixels)) == "too_many_pixels"
    assert refusal(plant.riff(plant.riff_chunk(b"VP8L", b"\x2f\0\0\0\xff"))) == "not_an_image"
    assert refusal(plant.riff(plant.riff_chunk(b"VP8 ", b"\x01" * 12))) == "not_an_image"


# What else a picture may be.


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("portrait.txt", "also an archive")
    return file.getvalue()


CLEAN = {form: plant.encode(plant.picture(), form.upper()) for form in ("jpeg", "png", "webp")}


@pytest.mark.parametrize("form", CLEAN)
@pytest.mark.parametrize(
    "tail",
    [
        _zip(),
        _zip() + b"\0" * 300,
        b"PK\x05\x06" + bytes(18),
        b"%PDF-1.7\n1 0 obj",
        b"\0\0\0\x7fELF\x02\x01\x01",
        b"MZ" + bytes(58) + b"\x40\0\0\0PE\0\0",
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"Rar!\x1a\x07\x01\0",
        b"filler 7z\xbc\xaf\x27\x1c",
        b"#!/bin/sh\nrm",
        b"<?php system($_GET[0]); ?>",
        b"filler <script>alert(1)</script>",
        b"<!DOCTYPE  html><title>x",
        b"\n<HTML >",
        b"\x1f\x8b\x08\0",
    ],
)
def test_a_picture_that_is_also_something_else_is_a_polyglot(form: str, tail: bytes) -> None:
    assert refusal(CLEAN[form] + tail) == "polyglot"


def test_an_archive_inside_a_comment_is_a_polyglot() -> None:
    jpeg = CLEAN["jpeg"]
    archive = _zip()
    # A comment that is the archive's start, and an end record after the picture.
    directory = archive.index(b"PK\x01\x02")
    body = jpeg[:2] + plant.segment(0xFE, archive[:directory]) + jpeg[2:] + archive[directory:]
    assert refusal(body) == "polyglot"


def test_a_document_header_near_the_start_is_a_polyglot() -> None:
    jpeg = CLEAN["jpeg"]
    assert refusal(jpeg[:2] + plant.segment(0xFE, b"\n%PDF-1.4\n") + jpeg[2:]) == "polyglot"


def test_a_script_in_metadata_is_a_polyglot() -> None:
    jpeg, png = CLEAN["jpeg"], CLEAN["png"]
    assert refusal(jpeg[:2] + plant.segment(0xFE, b"<?php phpinfo(); ?>") + jpeg[2:]) == "polyglot"
    assert refusal(png[:33] + plant.chunk(b"tEXt", b"a\0<script src=x>") + png[33:]) == "polyglot"


def test_a_volume_laid_over_a_picture_is_a_polyglot() -> None:
    jpeg = CLEAN["jpeg"]
    filler = b"".join(plant.segment(0xFE, bytes(20_000)) for _ in range(3))
    disk = bytearray(jpeg[:2] + filler + jpeg[2:])
    disk[0x8001:0x8006] = b"CD001"
    assert refusal(bytes(disk)) == "polyglot"
    name = tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT)
    tape = jpeg[:2] + plant.segment(0xFE, name[6:]) + jpeg[2:]
    assert refusal(tape) == "polyglot"


@pytest.mark.parametrize("form", CLEAN)
@pytest.mark.parametrize(
    ("tail", "kind"),
    [
        (b"\0" * 4096, "padding"),
        (b"\xff\xff\n", "padding"),
        (CLEAN["jpeg"], "trailer_image"),
        (plant.video(), "trailer_video"),
        (b"SEFH" + plant.CANARY, "trailer"),
        (b"PK\x05\x06 but no archive at all", "trailer"),
    ],
)
def test_what_telephones_append_is_dropped(form: str, tail: bytes, kind: str) -> None:
    if tail.startswith(b"PK"):
        # Straight after the picture this would count as the start of an archive.
        tail = b"note: " + tail
    clean = scrub(CLEAN[form] + tail, LIMITS)
    assert len(tail) == clean.dropped[kind]
    assert scrub(CLEAN[form], LIMITS).data == clean.data
