from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from gateway.backends.studio import picture
from gateway.backends.studio.picture import Box, NoFace, PictureRejected, Stopped
from tests.sample import examples
from tests.unit.backends.pictures import as_file


def pixels(image: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB"), np.int16)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).mean())


def test_the_headshot_is_a_jpeg_of_the_declared_size(made):
    shot = made("studio_grey")
    with Image.open(io.BytesIO(shot.image)) as file:
        assert (file.format, file.size) == ("JPEG", (1024, 1280))
    assert (shot.width, shot.height) == (1024, 1280)


def test_the_headshot_shows_one_face_where_a_headshot_has_it(studio, made):
    faces = studio.faces(picture.decode(made("studio_grey").image, "jpeg"))
    assert len(faces) == 1
    box = faces[0].box
    assert abs(box.x + box.w / 2 - 512) < 50
    assert 0.32 < (box.y + box.h / 2) / 1280 < 0.46
    assert 0.30 < box.h / 1280 < 0.42


def test_the_same_photo_and_style_give_the_same_bytes(studio, portrait, made):
    assert made("studio_grey") == studio.headshot(portrait, "jpeg", "studio_grey")


def test_another_studio_gives_the_same_bytes(models, portrait, made):
    assert made("studio_grey") == picture.Studio(models).headshot(portrait, "jpeg", "studio_grey")


def test_styles_differ_in_the_backdrop_and_leave_the_face(made):
    grey, blue, warm = (pixels(made(f"studio_{name}").image) for name in ("grey", "blue", "warm"))
    face = np.s_[300:700, 350:680]
    corner = np.s_[:200, :150]
    for one, other in ((grey, blue), (grey, warm), (blue, warm)):
        assert difference(one[corner], other[corner]) > 10
        assert difference(one[face], other[face]) < 2


def test_the_old_background_is_gone(made):
    corner = pixels(made("studio_grey").image)[:150, :100]
    assert corner.std(axis=(0, 1)).max() < 12


def test_a_mirrored_photo_gives_a_mirrored_headshot(studio, portrait, made):
    mirrored = as_file(ImageOps.mirror(Image.open(io.BytesIO(portrait))), quality=95, subsampling=0)
    shot = pixels(studio.headshot(mirrored, "jpeg", "studio_grey").image)
    straight = pixels(made("studio_grey").image)
    assert difference(shot[:, ::-1], straight) < 8
    assert difference(shot, straight) > 15


def test_another_photo_gives_another_headshot(studio, portrait, made):
    darker = as_file(Image.open(io.BytesIO(portrait)).point(lambda value: value // 2))
    shot = pixels(studio.headshot(darker, "jpeg", "studio_grey").image)
    assert difference(shot, pixels(made("studio_grey").image)) > 2


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_the_exif_orientation_is_honoured(portrait, orientation):
    upright = Image.open(io.BytesIO(portrait))
    turned = {
        3: Image.Transpose.ROTATE_180,
        6: Image.Transpose.ROTATE_90,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = as_file(upright.transpose(turned), "PNG", exif=exif)
    assert np.array_equal(pixels(portrait)[..., ::-1], picture.decode(stored, "png"))


@pytest.mark.parametrize("image_type", ["png", "webp"])
def test_other_types_are_taken(studio, portrait, image_type):
    stored = as_file(Image.open(io.BytesIO(portrait)), picture.FORMATS[image_type])
    assert studio.headshot(stored, image_type, "studio_warm").image.startswith(b"\xff\xd8")


def test_hidden_pixels_under_transparency_do_not_come_to_light():
    hidden = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    assert (picture.decode(as_file(hidden, "PNG"), "png") == 128).all()


def test_nothing_of_the_metadata_reaches_the_headshot(studio, portrait):
    exif = Image.Exif()
    exif[0x010E] = exif[0x013B] = "CANARY-7391"
    marked = as_file(
        Image.open(io.BytesIO(portrait)), exif=exif, comment=b"CANARY-7391", xmp=b"<x>CANARY-7391</x>"
    )
    assert b"CANARY-7391" in marked
    shot = studio.headshot(marked, "jpeg", "studio_grey").image
    assert b"CANARY" not in shot
    with Image.open(io.BytesIO(shot)) as file:
        assert {"jfif", "jfif_version", "jfif_unit", "jfif_density"} >= set(file.info)


def test_a_picture_without_a_face_is_refused(studio, landscape):
    with pytest.raises(NoFace) as refused:
        studio.headshot(landscape, "jpeg", "studio_grey")
    assert refused.value.detail == "no_face"


def test_a_face_outside_every_person_is_refused():
    with pytest.raises(NoFace):
        picture.one_person(np.zeros((1280, 1024), np.float32), Box(400, 400, 200, 250))


def test_only_the_person_with_the_face_is_cut_out():
    alpha = np.zeros((1280, 1024), np.float32)
    alpha[300:900, 300:700] = 1
    alpha[300:900, 900:1000] = 1
    cut = picture.one_person(alpha, Box(400, 400, 200, 250))
    assert cut[600, 500] == pytest.approx(1)
    assert cut[600, 950] == 0


def test_the_size_is_judged_before_a_pixel_is_decoded(portrait):
    with pytest.raises(PictureRejected, match="too_many_pixels"):
        picture.decode(portrait[:5000], "jpeg", max_pixels=512 * 511)


def test_a_header_that_claims_a_huge_picture_is_refused(portrait):
    start = portrait.index(b"\xff\xc0")
    lie = portrait[: start + 5] + b"\xff\xff\xff\xff" + portrait[start + 9 :]
    with pytest.raises(PictureRejected, match="too_many_pixels"):
        picture.decode(lie, "jpeg")


@pytest.mark.parametrize("garbage", [b"", b"GIF89a", b"\xff\xd8\xff", bytes(5000), b"<svg/>" * 100])
def test_garbage_is_refused(garbage):
    with pytest.raises(PictureRejected, match=r"not_an_image|truncated"):
        picture.decode(garbage, "jpeg")


def test_a_truncated_picture_is_refused(portrait):
    with pytest.raises(PictureRejected, match="truncated"):
        picture.decode(portrait[: len(portrait) // 2], "jpeg")


def test_a_broken_exif_is_refused(portrait):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "maker"
    marked = bytearray(as_file(Image.open(io.BytesIO(portrait)), exif=exif))
    # Call the text a list of numbers: it can be read, and not be written again.
    at = marked.index(b"\x01\x0f\x00\x02")
    marked[at + 3] = 4
    with pytest.raises(PictureRejected, match="truncated"):
        picture.decode(bytes(marked), "jpeg")


def test_a_picture_of_another_type_than_declared_is_refused(portrait):
    with pytest.raises(PictureRejected, match="not_an_image"):
        picture.decode(portrait, "png")


def test_an_animation_is_refused():
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    moving = as_file(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    with pytest.raises(PictureRejected, match="multi_frame"):
        picture.decode(moving, "webp")


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=examples(150), deadline=None)
@given(data=st.data())
def test_a_mutated_file_is_decoded_or_refused_and_nothing_else(data):
    image_type = data.draw(st.sampled_from(sorted(picture.FORMATS)))
    exif = Image.Exif()
    exif[0x0112] = 6
    content = bytearray(
        as_file(Image.radial_gradient("L").resize((40, 30)), picture.FORMATS[image_type], exif=exif)
    )
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    try:
        decoded = picture.decode(bytes(content[: cut or None]), image_type, max_pixels=1_000_000)
    except PictureRejected:
        return
    assert decoded.dtype == np.uint8
    assert decoded.shape[2] == 3


@given(
    width=st.integers(60, 8000),
    height=st.integers(60, 8000),
    x=st.floats(0, 0.9),
    y=st.floats(0, 0.9),
    size=st.floats(0.05, 0.9),
)
def test_the_frame_lies_in_the_photo_and_is_four_to_five(width, height, x, y, size):
    face = Box(x * width, y * height, size * min(width, height), size * min(width, height))
    frame = picture.frame(width, height, face)
    assert frame.w / frame.h == pytest.approx(0.8)
    assert -1e-6 <= frame.x <= width - frame.w + 1e-6
    assert -1e-6 <= frame.y <= height - frame.h + 1e-6


def test_progress_rises_and_names_each_stage(studio, portrait):
    heard = []
    studio.headshot(
        portrait, "jpeg", "studio_grey", report=lambda percent, stage: heard.append((percent, stage))
    )
    assert heard == sorted(heard, key=lambda step: step[0])
    assert [stage for _, stage in heard] == [
        "decode",
        "find_face",
        "crop",
        "segment",
        "tone",
        "backdrop",
        "encode",
    ]


def test_a_stop_takes_hold_before_the_next_stage(studio, portrait):
    heard = []
    with pytest.raises(Stopped):
        studio.headshot(
            portrait,
            "jpeg",
            "studio_grey",
            report=lambda _percent, stage: heard.append(stage),
            is_stopped=lambda: "segment" in heard,
        )
    assert heard[-1] == "segment"


def test_the_tone_has_no_target_for_skin():
    """A dark face stays darker than a pale one under the same light."""
    alpha = np.ones((1280, 1024), np.float32)
    rows = np.linspace(0, 255, 1280, dtype=np.uint8)[:, None, None]
    scene = np.broadcast_to(rows, (1280, 1024, 3)).copy()
    means = []
    for skin in (70, 190):
        shot = scene.copy()
        shot[400:800, 300:700] = skin
        means.append(
            float(cv2.cvtColor(picture.tone(shot, alpha), cv2.COLOR_BGR2GRAY)[450:750, 350:650].mean())
        )
    assert abs(means[0] - 70) < 15
    assert abs(means[1] - 190) < 15
