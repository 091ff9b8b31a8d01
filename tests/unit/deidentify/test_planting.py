from __future__ import annotations

import io

import pytest
from PIL import ExifTags, Image

from gateway.admin.planting import plant_metadata
from tests.unit.deidentify import plant

PORTRAIT = plant.encode(plant.picture(), "JPEG")
THUMBNAIL = plant.encode(plant.picture(size=(16, 16)), "JPEG")


def test_what_is_planted_is_read_by_another_library() -> None:
    planted = plant_metadata(
        PORTRAIT, gps=(-33.85678, 151.2153), serial="SN-0815", thumbnail=THUMBNAIL, orientation=6
    )
    with Image.open(io.BytesIO(planted)) as image:
        exif = image.getexif()
        place, device, second = exif.get_ifd(0x8825), exif.get_ifd(0x8769), exif.get_ifd(ExifTags.IFD.IFD1)
    assert exif[0x0112] == 6
    assert device[0xA431] == "SN-0815"
    assert (place[1], place[3]) == ("S", "E")
    degrees, minutes, seconds = (float(part) for part in place[2])
    assert pytest.approx(degrees + minutes / 60 + seconds / 3600, abs=1e-5) == 33.85678
    assert (6, len(THUMBNAIL)) == (second[0x0103], second[0x0202])
    assert planted[12 + second[0x0201] :][: len(THUMBNAIL)] == THUMBNAIL


def test_pixels_are_left_alone() -> None:
    planted = plant_metadata(PORTRAIT, gps=(0, 0), serial="1", thumbnail=b"")
    assert plant.pixels(PORTRAIT) == plant.pixels(planted)


def test_minutes_and_seconds_never_reach_sixty() -> None:
    planted = plant_metadata(PORTRAIT, gps=(59.9999999, 0), serial="1", thumbnail=b"")
    with Image.open(io.BytesIO(planted)) as image:
        assert [float(part) for part in image.getexif().get_ifd(0x8825)[2]] == [60, 0, 0]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="fit"):
        plant_metadata(PORTRAIT, gps=(0, 0), serial="1", thumbnail=bytes(65_500))
    with pytest.raises(ValueError, match="not a JPEG"):
        plant_metadata(b"GIF89a", gps=(0, 0), serial="1", thumbnail=b"")
