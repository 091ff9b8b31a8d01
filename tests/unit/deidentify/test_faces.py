from __future__ import annotations

import itertools
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np
import pytest

from gateway.deidentify.deidentified import Profile
from gateway.deidentify.errors import Rejected
from gateway.deidentify.faces.crop import cropped, upright
from gateway.deidentify.faces.detector import _starts
from gateway.deidentify.faces.face import Bytes8, Face, head_of, subject_of
from gateway.deidentify.faces.hide import GREEN, GREY, Hidden, fill, hide, likeness
from gateway.deidentify.faces.mesh import Bearing
from gateway.deidentify.faces.pool import MAX_SIMILARITY
from tests.unit.deidentify.portraits import box, closeup, group, models, pasted, portrait, scaled

PEOPLE = ("biden", "obama", "collins")


def hidden(photo: Bytes8, profile: Profile, max_faces: int = 5) -> tuple[Bytes8, Hidden]:
    changed = photo.copy()
    return changed, hide(changed, profile, models(), max_faces=max_faces, max_similarity=MAX_SIMILARITY)


def found(photo: Bytes8) -> list[Face]:
    return models().detector.faces(photo)


def refusal(photo: Bytes8, profile: Profile, max_faces: int = 1) -> str:
    with pytest.raises(Rejected) as refused:
        hidden(photo, profile, max_faces)
    return refused.value.detail


# --- bystanders ------------------------------------------------------------------------------------------


def test_a_portrait_without_bystanders_keeps_every_pixel() -> None:
    photo = portrait("obama")
    changed, told = hidden(photo, "bystanders")
    assert np.array_equal(photo, changed)
    assert Hidden(faces=1, masked=0) == told


@pytest.mark.parametrize("side", [1.0, 0.75])
def test_of_a_group_only_the_subject_is_found_and_its_head_has_every_pixel(side: float) -> None:
    photo = group(side=side)
    faces = found(photo)
    assert len(faces) == 3
    subject = subject_of(faces, photo.shape)
    changed, told = hidden(photo, "bystanders")
    head = head_of(subject)._replace(x=subject.x, y=subject.y)
    inside = head.distance((slice(0, photo.shape[0]), slice(0, photo.shape[1]))) <= 1
    assert np.array_equal(photo[inside], changed[inside])
    assert told.masked >= 2
    [left] = found(changed)
    assert subject.holds(left.x, left.y)


@pytest.mark.parametrize(("part", "x", "y"), [(220, 434, 165), (400, 250, 50)])
def test_a_bystander_before_the_subject_is_hidden_as_far_as_the_subjects_face_allows(
    part: int, x: int, y: int
) -> None:
    photo = pasted(scaled(portrait("obama"), 800), closeup("collins", part, 0.62), x, y)
    subject = subject_of(found(photo), photo.shape)
    try:
        changed, _ = hidden(photo, "bystanders")
    except Rejected:
        # Neither touched nor shown: a picture where both cannot be had is refused.
        return
    assert np.array_equal(photo[box(subject)], changed[box(subject)])
    assert all(subject.holds(left.x, left.y) for left in found(changed))


@pytest.mark.parametrize("quarter", [0, 1, 2, 3])
def test_a_small_bystander_is_hidden_however_it_lies(quarter: int) -> None:
    small = np.rot90(closeup("collins", 160), quarter)
    photo = pasted(scaled(portrait("obama"), 800), small, 40, 580)
    changed, told = hidden(photo, "bystanders")
    assert (told.faces, told.masked) == (2, 1)
    [left] = found(changed)
    assert left.y < 400


def test_a_face_of_a_few_pixels_in_a_large_picture_is_hidden() -> None:
    photo = pasted(scaled(portrait("obama"), 2100), closeup("biden", 44), 100, 1700)
    assert photo.shape[0] > 2000
    changed, told = hidden(photo, "bystanders")
    assert told.masked >= 1
    assert (changed[1714:1728, 109:120] == GREY).all()


# --- landmarks and redact --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PEOPLE)
@pytest.mark.parametrize("profile", ["landmarks", "redact"])
def test_nobody_is_found_or_recognised_in_what_is_made_for_others(name: str, profile: Profile) -> None:
    photo = portrait(name)
    changed, told = hidden(photo, profile)
    assert told.faces == 1
    assert told.similarity is not None
    assert told.similarity <= 150
    [face] = found(photo)
    before = [models().recogniser.template(photo, face)]
    assert told.similarity <= max(0, likeness(changed, (face, *found(changed)), before, models().recogniser))
    # Of the face itself no pixel is left as it was.
    assert (changed[box(face)] != photo[box(face)]).any(-1).mean() > 0.99


def test_redact_leaves_one_colour_and_no_record() -> None:
    photo = portrait("collins")
    changed, told = hidden(photo, "redact")
    [face] = found(photo)
    assert (changed[box(face)] == GREEN).all()
    assert told.record is None


def test_every_head_of_a_group_is_hidden() -> None:
    changed, told = hidden(group(), "redact")
    assert (told.faces, found(changed)) == (3, [])


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_a_portrait_that_lies_on_its_side_is_no_exception(quarter: int) -> None:
    photo = np.ascontiguousarray(np.rot90(portrait("collins"), quarter))
    changed, told = hidden(photo, "landmarks")
    assert told.record is not None
    assert abs(abs(told.record.roll) - (12 if quarter == 2 else 6)) <= 1
    assert not models().detector.left(hidden(photo, "redact")[0], ())
    assert changed.shape == photo.shape


def test_a_face_that_fills_the_picture_is_found() -> None:
    photo = cv2.resize(portrait("obama")[box(found(portrait("obama"))[0])], None, fx=7, fy=7)
    assert photo.shape[0] > 1500
    changed, told = hidden(np.asarray(photo, np.uint8), "redact")
    assert told.faces == 1
    assert (changed == GREEN).all(-1).mean() > 0.9


# --- the record ------------------------------------------------------------------------------------------


def test_the_record_holds_bins_and_nothing_else() -> None:
    record = hidden(portrait("collins"), "landmarks")[1].record
    assert record is not None
    assert record.is_smiling
    assert not record.is_mouth_open
    assert not record.are_eyes_closed
    assert (record.place, record.faces) == (1, 1)
    for value in asdict(record).values():
        assert type(value) in {int, bool}


def test_the_drawing_follows_from_the_bins_alone() -> None:
    bearing = Bearing(1, -1, 2, is_smiling=True, is_mouth_open=False, are_eyes_closed=True)
    drawn = []
    for name in ("biden", "obama"):
        photo = cv2.resize(portrait(name), (640, 640))
        face = Face(320, 320, 120, 160, ((290, 290), (350, 290), (320, 320), (300, 360), (340, 360)), 1.0)
        fill(photo, head_of(face), GREEN)
        models().landmarks.mesh.draw(photo, head_of(face), bearing)
        drawn.append(photo[box(face)])
    assert np.array_equal(drawn[0], drawn[1])


def test_each_bit_changes_the_drawing() -> None:
    face = Face(320, 320, 240, 320, ((260, 260), (380, 260), (320, 320), (280, 400), (360, 400)), 1.0)
    seen = set()
    for bits in range(8):
        photo = np.zeros((640, 640, 3), np.uint8)
        bearing = Bearing(0, 0, 0, bool(bits & 1), bool(bits & 2), bool(bits & 4))
        models().landmarks.mesh.draw(photo, head_of(face), bearing)
        seen.add(photo.tobytes())
    assert len(seen) == 8


def test_turning_a_head_turns_the_bins() -> None:
    """The angles of the mesh itself, held in each way, are those it is held in."""
    mesh = models().landmarks.mesh
    from gateway.deidentify.faces.mesh import _rotation

    for angles in [(0, 0, 0), (2, 0, 0), (-2, 1, 0), (0, -1, 3), (1, 1, -5), (0, 0, 11)]:
        bearing = Bearing(*angles, False, False, False)
        seen = mesh.vertices @ _rotation(bearing).T * np.array([1, -1, -1])
        assert [round(angle / 15) for angle in mesh.angles(seen)] == list(angles)


# --- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["bystanders", "landmarks", "redact"])
def test_no_face_and_too_many_are_refused(profile: Profile) -> None:
    rows, columns = np.mgrid[0:300, 0:400]
    landscape = np.stack([rows % 256, columns % 256, (rows + columns) % 256], -1).astype(np.uint8)
    assert refusal(landscape, profile) == "no_face"
    assert refusal(group(), profile, max_faces=2) == "too_many_faces"


@pytest.mark.parametrize("name", PEOPLE)
def test_the_verifier_catches_a_low_poly_drawing_of_the_persons_own_mesh(name: str) -> None:
    """The negative control: own vertices and own colours look abstract, and tell who it is."""
    photo = portrait(name)
    [face] = found(photo)
    before = [models().recogniser.template(photo, face)]
    points = models().landmarks.points(photo, face)[:, :2]
    drawn = photo.copy()
    fill(drawn, head_of(face), GREEN)
    for triangle in models().landmarks.mesh.triangles:
        x, y = points[triangle].mean(0)
        colour = photo[round(float(y)), round(float(x))]
        cv2.fillConvexPoly(drawn, np.rint(points[triangle]).astype(np.int32), colour.tolist())
    assert likeness(drawn, [face], before, models().recogniser) > MAX_SIMILARITY


def test_the_recogniser_knows_people_from_each_other() -> None:
    look = models().recogniser
    templates = {name: look.template(portrait(name), found(portrait(name))[0]) for name in PEOPLE}
    again = scaled(portrait("obama"), 300)
    assert likeness(again, found(again), [templates["obama"]], look) > 800
    assert likeness(again, found(again), [templates["biden"], templates["collins"]], look) < MAX_SIMILARITY


def test_what_stays_linked_is_refused() -> None:
    photo = portrait("obama")
    with pytest.raises(Rejected) as refused:
        hide(photo, "redact", models(), max_faces=1, max_similarity=-1)
    assert refused.value.detail == "verifier_linked"


# --- geometry --------------------------------------------------------------------------------------------


def face(x: float, y: float, w: float, h: float) -> Face:
    marks = (
        (x - w / 4, y - h / 6),
        (x + w / 4, y - h / 6),
        (x, y),
        (x - w / 5, y + h / 4),
        (x + w / 5, y + h / 4),
    )
    return Face(x, y, w, h, marks, 0.9)


def test_the_subject_is_the_largest_and_of_equals_the_most_central() -> None:
    shape = (400, 1000, 3)
    left, middle, right = face(100, 200, 90, 100), face(480, 200, 85, 100), face(850, 200, 95, 100)
    assert subject_of([left, middle, right], shape) == middle
    assert subject_of([left, middle, face(850, 200, 150, 160)], shape).x == 850


def test_a_head_reaches_beyond_its_face_and_is_measured_in_steps() -> None:
    head = head_of(face(200, 200, 75, 100))
    area = (slice(0, 400), slice(0, 400))
    inside = head.distance(area) <= 1
    rows, columns = np.nonzero(inside)
    assert rows.min() < 200 - 100
    assert rows.max() > 200 + 75
    assert columns.min() < 200 - 65
    assert head_of(face(200, 200, 75, 101)).size == head_of(face(200, 200, 76, 103)).size
    assert set(map(tuple, np.argwhere(inside))) <= {
        (y, x)
        for y in range(*head.area((400, 400))[0].indices(400))
        for x in range(*head.area((400, 400))[1].indices(400))
    }


def test_a_spared_head_is_left_alone() -> None:
    photo = np.zeros((400, 400, 3), np.uint8)
    own, other = head_of(face(150, 200, 75, 100)), head_of(face(230, 200, 75, 100))
    fill(photo, other, GREY, own)
    area = (slice(0, 400), slice(0, 400))
    assert not photo[own.distance(area) <= 1].any()
    assert (photo[(other.distance(area) <= 1) & (own.distance(area) > 1)] == GREY).all()


def test_a_head_outside_the_picture_changes_nothing_and_raises_nothing() -> None:
    photo = np.zeros((100, 100, 3), np.uint8)
    fill(photo, head_of(face(-500, -500, 75, 100)), GREY)
    assert not photo.any()
    assert cropped(photo, upright((-5000, -5000), 100, 30, 64), 64).shape == (64, 64, 3)


def test_tiles_cover_everything_and_overlap() -> None:
    for length in (1, 1104, 1105, 2048):
        starts = _starts(length)
        assert starts[0] == 0
        assert max(starts) + 1104 >= length
        assert all(later - earlier <= 944 for earlier, later in itertools.pairwise(starts))


class ForgetfulNet:
    """A network that answers what lay in memory before, and notes what it was given."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []

    def setInputSize(self, size: tuple[int, int]) -> None:  # noqa: N802 - OpenCV's name
        self.sizes.append(size)

    def detect(self, bgr: Bytes8) -> tuple[int, Any]:
        assert (bgr.shape[1], bgr.shape[0]) == self.sizes[-1]
        rows = np.full((3, 15), 20.0, np.float32)
        rows[0, 4], rows[1, 14] = 3e23, np.nan
        return 1, rows


def test_what_the_network_makes_up_of_small_pictures_is_no_face(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a picture of 32 by 48 it found faces with marks at 3e23, now and then; it is given larger ones."""
    net, detector = ForgetfulNet(), models().detector
    monkeypatch.setattr(detector, "_net", net)
    (face,) = detector._upright(np.zeros((48, 32, 3), np.uint8), 1.0)
    assert face.w == 20
    assert net.sizes == [(160, 160)]
