from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.deidentify import Limits, Rejected
from gateway.deidentify.verify import Seen, verify
from gateway.deidentify.walker import scrub
from tests.unit.deidentify import plant

CLEAN = {form: scrub(getattr(plant, form)(6), Limits()).data for form in ("jpeg", "png", "webp")}


def refuses(data: bytes) -> bool:
    try:
        verify(data)
    except Rejected as refused:
        return refused.detail == "residue_found"
    return False


@pytest.mark.parametrize("form", CLEAN)
def test_a_scrubbed_picture_passes(form: str) -> None:
    assert Seen(form, 48, 32, 6) == verify(CLEAN[form])  # type: ignore[arg-type] # the keys are formats


@pytest.mark.parametrize("form", CLEAN)
def test_an_unscrubbed_picture_does_not(form: str) -> None:
    assert refuses(getattr(plant, form)(6))


@pytest.mark.parametrize("kind", [*plant.jpeg_segments(), "exif", "jfif"])
def test_any_one_segment_in_a_jpeg_is_found(kind: str) -> None:
    extra = {
        **plant.jpeg_segments(),
        "exif": plant.segment(0xE1, b"Exif\0\0" + plant.tiff(6)),
        "jfif": plant.segment(0xE0, b"JFIF\0\x01\x02\x01\x01\x2c\x01\x2c\0\0"),
    }[kind]
    jpeg = CLEAN["jpeg"]
    tables = jpeg.index(b"\xff\xdb")
    for at in (2, tables, jpeg.index(b"\xff\xda"), len(jpeg) - 2, len(jpeg)):
        assert refuses(jpeg[:at] + extra + jpeg[at:])


@pytest.mark.parametrize("kind", plant.png_chunks())
def test_any_one_chunk_in_a_png_is_found(kind: str) -> None:
    png = CLEAN["png"]
    for at in (33, png.index(b"IDAT") - 4, len(png) - 12, len(png)):
        assert refuses(png[:at] + plant.png_chunks()[kind] + png[at:])


@pytest.mark.parametrize("kind", plant.webp_chunks())
def test_any_one_chunk_in_a_webp_is_found(kind: str) -> None:
    parts = [*plant.webp_parts(CLEAN["webp"]).values()]
    for place in range(len(parts) + 1):
        assert refuses(plant.riff(*parts[:place], plant.webp_chunks()[kind], *parts[place:]))


@pytest.mark.parametrize("form", CLEAN)
def test_a_single_byte_more_is_found(form: str) -> None:
    assert refuses(CLEAN[form] + b"\0")
    assert refuses(CLEAN[form][:-1])


def test_bytes_beside_a_table_or_in_padding_are_found() -> None:
    jpeg, webp = CLEAN["jpeg"], CLEAN["webp"]
    at = jpeg.index(b"\xff\xdb")
    for code in (0xDB, 0xC4, 0xDD):
        assert refuses(jpeg[:at] + plant.segment(code, bytes(65) + b"x") + jpeg[at:])
    parts = plant.webp_parts(webp)
    odd = plant.riff_chunk(b"VP8 ", parts[b"VP8 "][8:] + b"x")
    if len(parts[b"VP8 "]) % 2 == 0:
        assert refuses(plant.riff(parts[b"VP8X"], odd[:-1] + b"y", parts[b"EXIF"]))


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"RIFF", b"RIFF\x04\0\0\0WEBP", b"GIF89a"]
)
def test_what_is_no_picture_of_ours_is_refused(data: bytes) -> None:
    assert refuses(data)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(CLEAN)), st.data())
def test_mutations_are_passed_or_refused_and_nothing_else(form: str, data: st.DataObject) -> None:
    mutated = bytearray(CLEAN[form])
    for _ in range(data.draw(st.integers(1, 4))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    del mutated[data.draw(st.integers(0, len(mutated))) :]
    try:
        verify(bytes(mutated))
    except Rejected as refused:
        detail = refused.detail
    else:
        detail = "residue_found"
    assert detail == "residue_found"
