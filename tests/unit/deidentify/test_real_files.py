"""Files that cameras and programs wrote, and what an independent reader finds in them afterwards."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from gateway.deidentify import Limits, Rejected
from gateway.deidentify.walker import scrub
from gateway.deidentify.worker import examine
from tests.needs import needs
from tests.unit.deidentify import plant

IMAGES = Path(__file__).parents[2] / "data" / "images"
REFUSED = {
    "truncated_jpeg.jpg": "truncated",
    "truncated_end_chunk.png": "truncated",
    "xcsn0g01.png": "not_an_image",
    "oss-fuzz-36829.jpeg": "too_many_pixels",
    "decompression_bomb.gif": "too_many_pixels",
}
RECODED = {
    "hopper.gif": "png",
    "hopper.tif": "png",
    "sample_still_photo.heic": "jpeg",
    "xmp_tags_orientation.avif": "jpeg",
}
ACCEPTED = sorted(
    path.name for path in IMAGES.iterdir() if path.suffix != ".md" and path.name not in {*REFUSED, *RECODED}
)

# All that exiftool may know about a clean file: the file system, the coding of
# pixels, and the orientation.
HARMLESS = {
    "IFD0:Orientation",
    "JFIF:JFIFVersion",
    "JFIF:ResolutionUnit",
    "JFIF:XResolution",
    "JFIF:YResolution",
    "Adobe:DCTEncodeVersion",
    "Adobe:APP14Flags0",
    "Adobe:APP14Flags1",
    "Adobe:ColorTransform",
}
HARMLESS_FILE = {
    "BitsPerSample", "ColorComponents", "EncodingProcess", "ExifByteOrder", "FileType", "FileTypeExtension",
    "ImageHeight", "ImageWidth", "MIMEType", "YCbCrSubSampling",
}  # fmt: skip
HARMLESS_PIXELS = {
    "BitDepth", "ColorType", "Compression", "Filter", "Gamma", "ImageHeight", "ImageWidth", "Interlace",
    "Palette", "SRGBRendering", "Transparency", "AlphaCompression", "AlphaFiltering", "AlphaPreprocessing",
    "AlphaIsUsed", "ProfileName", "HorizontalScale", "VerticalScale", "VP8Version", "WebP_Flags",
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_pixels_of_real_files_survive(name: str) -> None:
    data = (IMAGES / name).read_bytes()
    assert plant.pixels(data) == plant.pixels(examine(data, Limits(), "lossless").data)


@pytest.mark.parametrize("name", RECODED)
def test_what_no_walker_can_clean_is_coded_anew(name: str) -> None:
    made = examine((IMAGES / name).read_bytes(), Limits(), "lossless")
    assert (RECODED[name], "canonical", 1) == (made.format, made.mode, made.orientation)


@pytest.mark.parametrize("name", REFUSED)
def test_broken_files_are_refused(name: str) -> None:
    with pytest.raises(Rejected) as refused:
        examine((IMAGES / name).read_bytes(), Limits(), "lossless")
    assert REFUSED[name] == refused.value.detail


def test_every_picture_has_a_source_and_a_licence() -> None:
    licences = (IMAGES / "LICENSES.md").read_text()
    assert not [name for name in (*ACCEPTED, *RECODED, *REFUSED) if f"`{name}`" not in licences]


def test_exiftool_finds_nothing_but_orientation(tmp_path: Path) -> None:
    exiftool = needs("exiftool", "libimage-exiftool-perl")
    planted = {
        "planted.jpg": plant.jpeg(6),
        "planted.png": plant.png(6),
        "planted.webp": plant.webp(6, mode="RGBA"),
        **{name: (IMAGES / name).read_bytes() for name in ACCEPTED},
    }
    for name, data in planted.items():
        (tmp_path / name).write_bytes(scrub(data, Limits()).data)

    told = subprocess.run(
        [exiftool, "-a", "-u", "-G1", "-s", "-json", tmp_path], check=True, capture_output=True
    ).stdout

    found = [_telling(file) for file in json.loads(told)]
    assert len(planted) == len(found)
    assert not [tags for tags in found if tags]


# A kept profile is known byte for byte; verify() holds its hash against the list.
KNOWN_PROFILE = {"ICC-header", "ICC_Profile"}


def _telling(file: dict[str, object]) -> dict[str, object]:
    tags = {}
    for tag, value in file.items():
        group, _, name = tag.rpartition(":")
        known = HARMLESS_FILE if group == "File" else HARMLESS_PIXELS
        is_coding = group in {"File", "PNG", "RIFF"} and name in known
        is_about_the_file = (
            group in {"", "System", "Composite", *KNOWN_PROFILE} or tag == "ExifTool:ExifToolVersion"
        )
        if not (is_coding or is_about_the_file or tag in HARMLESS):
            tags[tag] = value
    return tags
