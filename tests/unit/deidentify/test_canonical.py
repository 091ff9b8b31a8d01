"""Fresh pixels: what a viewer sees stays, everything else goes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageCms, ImageOps, ImageStat

from gateway.deidentify import Limits, Rejected
from gateway.deidentify.profiles import is_kept
from gateway.deidentify.verify import verify
from gateway.deidentify.walker import scrub
from gateway.deidentify.worker import examine
from tests.unit.deidentify import plant

IMAGES = Path(__file__).parents[2] / "data" / "images"
LIMITS = Limits()
SIZE = (96, 64)
INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
with Image.open(IMAGES / "apple_gainmap_new.jpg") as _phone:
    P3 = _phone.info["icc_profile"]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# Display P3 with red and green changed over: a profile that everybody can read and nobody knows.
FOREIGN = P3.replace(b"rXYZ", b"tmpX").replace(b"gXYZ", b"rXYZ").replace(b"tmpX", b"gXYZ")


def exif(orientation: int) -> Image.Exif:
    """Return EXIF with a canary beside the orientation."""
    made = Image.Exif()
    made[0x0112] = orientation
    made[0x010F] = plant.canary("make").decode()
    return made


def opened(data: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(io.BytesIO(data))
        image.load()
    return image


def distance(one: Image.Image, other: Image.Image) -> float:
    """Return the mean difference of two pictures, in levels of 255."""
    assert one.size == other.size
    difference = ImageChops.difference(one.convert("RGB"), other.convert("RGB"))
    return max(ImageStat.Stat(difference).mean)


def corner() -> Image.Image:
    """Return a picture whose upper left quarter is red: turned wrongly it is far from itself."""
    made = plant.picture(size=SIZE)
    made.paste((255, 0, 0), (0, 0, SIZE[0] // 2, SIZE[1] // 2))
    return made


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_comes_out_upright(form: str, orientation: int) -> None:
    options = {"quality": 95} if form in {"JPEG", "WEBP", "AVIF"} else {}
    data = plant.encode(corner(), form, exif=exif(orientation), **options)
    upright = ImageOps.exif_transpose(opened(data))

    made = examine(data, LIMITS, "canonical")

    assert (made.mode, made.orientation, made.width, made.height) == ("canonical", 1, *upright.size)
    assert distance(upright, opened(made.data)) < 4
    assert b"Exif" not in made.data
    assert b"eXIf" not in made.data


def planted() -> Iterator[tuple[str, bytes]]:
    for orientation in (1, 6):
        yield "jpeg", plant.jpeg(orientation)
        yield "png", plant.png(orientation, mode="RGBA")
        yield "webp", plant.webp(orientation)
        yield "webp", plant.webp(orientation, mode="RGBA", lossless=True)
    yield "png", plant.encode(plant.picture("P"), "GIF", comment=plant.canary("comment"))
    yield (
        "png",
        plant.encode(plant.picture(), "TIFF", tiffinfo={0x010E: "CANARY", 0x02BC: b"CANARY"}, exif=exif(3)),
    )
    yield "jpeg", plant.encode(plant.picture(size=SIZE), "AVIF", exif=exif(1), xmp=plant.canary("xmp"))
    yield "png", plant.encode(plant.picture("RGBA", SIZE), "AVIF", exif=exif(1))


@pytest.mark.parametrize(("form", "data"), list(planted()))
def test_no_canary_survives_and_the_second_opinion_agrees(form: str, data: bytes) -> None:
    assert plant.CANARY in data
    made = examine(data, LIMITS, "canonical")
    assert form == made.format
    assert plant.CANARY not in made.data
    assert (verify(made.data).width, verify(made.data).height) == (made.width, made.height)
    assert set() == set(scrub(made.data, LIMITS).dropped)


def test_bytes_within_the_coded_pixels_go_too() -> None:
    # After the last block of a scan no walker can tell rubbish from pixels; a decoder ignores it.
    clean = plant.encode(plant.picture(), "JPEG")
    data = clean[:-2] + plant.CANARY + clean[-2:]
    assert plant.CANARY in examine(data, LIMITS, "lossless").data
    assert plant.CANARY not in examine(data, LIMITS, "canonical").data


def test_the_tables_that_name_a_camera_go() -> None:
    own = [[7 + n % 11 for n in range(64)], [5 + n % 13 for n in range(64)]]
    data = plant.encode(plant.picture(), "JPEG", qtables=own)
    assert opened(data).quantization == opened(examine(data, LIMITS, "lossless").data).quantization
    assert opened(data).quantization != opened(examine(data, LIMITS, "canonical").data).quantization


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("mode", ["lossless", "canonical"])
def test_a_known_profile_that_says_something_stays(form: str, mode: str) -> None:
    made = examine(plant.encode(plant.picture(), form, icc_profile=P3), LIMITS, mode)
    assert (made.mode, opened(made.data).info["icc_profile"]) == (mode, P3)
    assert examine(made.data, LIMITS, "lossless").data == made.data


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("profile", [SRGB, b"no profile", plant.canary("icc").ljust(128, b"\0")])
def test_a_profile_that_says_nothing_goes_and_pixels_stay(form: str, profile: bytes) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    data = plant.encode(plant.picture(), form, icc_profile=profile, **options)
    made = examine(data, LIMITS, "lossless")
    assert (made.mode, "icc_profile" in opened(made.data).info) == ("lossless", False)
    assert plant.pixels(data) == plant.pixels(made.data)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("mode", ["lossless", "canonical"])
def test_colours_of_an_unknown_profile_are_converted(form: str, mode: str) -> None:
    assert not is_kept(FOREIGN)
    data = plant.encode(plant.picture(), form, icc_profile=FOREIGN, quality=98)
    expected = ImageCms.profileToProfile(
        opened(data).convert("RGB"),
        io.BytesIO(FOREIGN),
        io.BytesIO(SRGB),
        INTENT,
    )

    made = examine(data, LIMITS, mode)

    assert (made.mode, "icc_profile" in opened(made.data).info) == ("canonical", False)
    assert distance(expected, opened(made.data)) < 5
    assert distance(opened(data), opened(made.data)) > 15


def test_a_profile_in_parts_is_put_together_and_one_that_lacks_a_part_is_none() -> None:
    data = plant.encode(plant.picture(), "JPEG")
    parts = [
        plant.segment(0xE2, b"ICC_PROFILE\0" + bytes([number, 2]) + piece)
        for number, piece in ((2, P3[300:]), (1, P3[:300]))
    ]
    whole = examine(data[:2] + b"".join(parts) + data[2:], LIMITS, "lossless")
    half = examine(data[:2] + parts[0] + data[2:], LIMITS, "lossless")
    assert opened(whole.data).info["icc_profile"] == P3
    assert "icc_profile" not in opened(half.data).info


def test_the_second_opinion_refuses_any_other_profile() -> None:
    for form in ("JPEG", "PNG", "WEBP"):
        with pytest.raises(Rejected, match="residue_found"):
            verify(plant.encode(plant.picture(), form, icc_profile=FOREIGN))
    good = examine(plant.encode(plant.picture(), "JPEG", icc_profile=P3), LIMITS, "lossless").data
    assert verify(good).width == 48
    with pytest.raises(Rejected, match="residue_found"):
        verify(good.replace(P3, P3[:-1] + b"\x01"))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_kind_of_pixel_comes_out_in_eight_bits(mode: str) -> None:
    image = (
        plant.picture("L").convert("I").point(lambda v: v * 257).convert("I;16")
        if mode == "I;16"
        else (plant.picture(mode))
    )
    made = opened(examine(plant.encode(image, "PNG"), LIMITS, "canonical").data)
    assert made.mode == {"1": "L", "I;16": "L", "P": "RGB"}.get(mode, mode)
    expected = plant.picture("L") if mode == "I;16" else image.convert(made.mode)
    assert distance(expected, made) <= 1


def test_what_shines_through_still_does() -> None:
    palette = plant.picture("P")
    planted = plant.encode(palette, "GIF", transparency=palette.getpixel((0, 0)))
    gif = opened(examine(planted, LIMITS, "canonical").data)
    assert gif.mode == "RGBA"
    assert set(gif.getchannel("A").tobytes()) == {0, 255}
    webp = examine(
        plant.encode(plant.picture("RGBA"), "WEBP", lossless=True, exact=True), LIMITS, "canonical"
    )
    assert opened(webp.data).mode == "RGBA"


def test_ink_becomes_light() -> None:
    data = plant.encode(plant.picture("CMYK"), "JPEG", quality=95)
    made = opened(examine(data, LIMITS, "canonical").data)
    assert made.mode == "RGB"
    assert distance(opened(data).convert("RGB"), made) < 4


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_that_are_no_light_are_refused(mode: str) -> None:
    with pytest.raises(Rejected, match="unsupported_format"):
        examine(plant.encode(Image.new(mode, (8, 8)), "TIFF"), LIMITS, "canonical")


def test_webp_and_avif_may_have_half_the_pixels() -> None:
    limits = Limits(max_pixels=48 * 32)
    assert examine(plant.jpeg(), limits, "canonical").width == 48
    for form in ("WEBP", "AVIF"):
        with pytest.raises(Rejected, match="too_many_pixels"):
            examine(plant.encode(plant.picture(), form), limits, "canonical")


def test_heic_loses_what_it_carries() -> None:
    heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    heif.register_heif_opener()
    turned = corner()
    turned.info["exif"] = exif(6).tobytes()
    turned.save(file, "HEIF", quality=90, xmp=plant.canary("xmp"))
    made = examine(file.getvalue(), LIMITS, "lossless")
    assert plant.CANARY in file.getvalue()
    assert plant.CANARY not in made.data
    assert (made.format, made.mode, made.width, made.height) == ("jpeg", "canonical", SIZE[1], SIZE[0])
    assert distance(opened(file.getvalue()), opened(made.data)) < 4
