"""Hiding faces, and looking whether anything of them is left."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from gateway.deidentify.deidentified import Profile, Record
from gateway.deidentify.errors import Rejected
from gateway.deidentify.faces.detector import Detector
from gateway.deidentify.faces.face import DOWN, TIGHT, UP, Bytes8, Face, Floats, Head, head_of, subject_of
from gateway.deidentify.faces.landmarks import Landmarks
from gateway.deidentify.faces.mesh import Bearing
from gateway.deidentify.faces.names import WORDS
from gateway.deidentify.faces.recogniser import Recogniser, alike
from gateway.deidentify.faces.words import Words, cover

GREY: Final = (128, 128, 128)
"""Over bystanders: a picture is made from the rest."""
GREEN: Final = (0, 128, 0)
"""Over everybody: to the recogniser a plain grey is a little like many faces, this green is like none."""

_SWEEPS: Final = 4


@dataclass(frozen=True, slots=True)
class Hidden:
    """What was done to a picture; as in `Deidentified`."""

    faces: int
    masked: int
    similarity: int | None = None
    record: Record | None = None
    words: int = 0


class Models:
    """Every network, loaded."""

    def __init__(self, weights: Mapping[str, bytes]) -> None:
        """Build them from their files' bytes, which were checked."""
        self.detector = Detector(weights)
        self.landmarks = Landmarks(weights)
        self.recogniser = Recogniser(weights)
        self.words = Words(weights) if WORDS in weights else None


def hide(photo: Bytes8, profile: Profile, models: Models, *, max_faces: int, max_similarity: int) -> Hidden:
    """Hide faces in a picture, in place, as the profile wants it, and return what was done.

    Args:
        photo: The picture.
        profile: What is to be done.
        models: The networks.
        max_faces: How many faces the picture may show.
        max_similarity: Up to which cosine, in thousandths, the recogniser does not link two pictures.

    Raises:
        Rejected: `no_face`, `too_many_faces`, `verifier_linked`; the picture is spoilt then.
    """
    found = models.detector.faces(photo)
    if not found:
        raise Rejected("no_face")
    if len(found) > max_faces:
        raise Rejected("too_many_faces")
    subject = subject_of(found, photo.shape)
    writing = models.words.boxes(photo) if models.words is not None else []
    if profile == "bystanders":
        cover(photo, writing, GREY, head_of(subject))
        return replace(_bystanders(photo, found, subject, models.detector), words=len(writing))
    before = [models.recogniser.template(photo, face) for face in found]
    heads = [head_of(face) for face in found]
    record = None
    if profile == "landmarks":
        bearing = models.landmarks.bearing(photo, subject)
        record = _record(photo.shape, head_of(subject), bearing, len(found))
        cover(photo, writing, GREEN, head_of(subject))
        _clear(photo, heads, models.detector)
        now = _draw(photo, heads, head_of(subject), bearing, models)
    else:
        cover(photo, writing, GREEN, head_of(subject))
        _clear(photo, heads, models.detector)
        now = []
    similarity = likeness(photo, (*found, *now), before, models.recogniser)
    if similarity > max_similarity:
        raise Rejected("verifier_linked")
    return Hidden(len(found), len(heads), similarity, record, len(writing))


def likeness(photo: Bytes8, faces: Sequence[Face], before: Sequence[Floats], look: Recogniser) -> int:
    """Return how like the recogniser holds a picture to be to the faces that were in it; thousandths.

    Args:
        photo: The picture, as it would be handed out.
        faces: Where it is looked at: where the original showed faces, and whatever is taken for one now.
        before: The templates of the original's faces.
        look: The recogniser.
    """
    after = [look.template(photo, face) for face in faces]
    return max(alike(one, other) for one in before for other in after)


def _clear(photo: Bytes8, heads: list[Head], look: Detector) -> None:
    """Fill heads, and whatever the detector still takes for a face, until it finds none; `heads` grows.

    Raises:
        Rejected: `verifier_linked`: it does not end.
    """
    more = list(heads)
    for _ in range(_SWEEPS):
        for head in more:
            fill(photo, head, GREEN)
        more = [head_of(face) for face in look.left(photo, heads)]
        if not more:
            return
        heads += more
    raise Rejected("verifier_linked")


def _draw(photo: Bytes8, heads: list[Head], own: Head, bearing: Bearing, models: Models) -> list[Face]:
    """Draw the mesh where the subject's head was, in a picture without a face; `heads` may grow.

    What is drawn follows from the bins alone and holds nothing of a face, so that it may well be taken for
    one: then it is judged by whom it resembles.  Whatever is taken for a face beside it is filled.

    Returns:
        What the detector takes for faces in what was drawn.

    Raises:
        Rejected: `verifier_linked`: it does not end.
    """
    for _ in range(_SWEEPS):
        models.landmarks.mesh.draw(photo, own, bearing)
        found = models.detector.near(photo, own)
        beside = [head_of(face) for face in found if not _lies_in(face, own)]
        if not beside:
            return found
        for head in beside:
            fill(photo, head, GREEN)
        heads += beside
    raise Rejected("verifier_linked")


def _bystanders(photo: Bytes8, found: Sequence[Face], subject: Face, look: Detector) -> Hidden:
    """Fill every head but the subject's.

    Of that no pixel changes, unless another face can be hidden no other way; of its face, none ever.

    Raises:
        Rejected: `verifier_linked`: a bystander cannot be hidden without touching the subject's face;
            `no_face`: the subject is not found any more.
    """
    own = head_of(subject)._replace(x=subject.x, y=subject.y)
    left = [face for face in found if face is not subject]
    heads: list[Head] = []
    masked = 0
    for sweep in range(_SWEEPS):
        if not left:
            break
        for face in left:
            fill(photo, head_of(face), GREY, own if sweep == 0 else own._replace(size=own.size * TIGHT))
            heads.append(head_of(face))
        masked += len(left)
        now = look.left(photo, (own, *heads))
        left = [face for face in now if not subject.holds(face.x, face.y)]
        if len(left) == len(now):
            raise Rejected("no_face")
    if left:
        raise Rejected("verifier_linked")
    return Hidden(len(found), masked)


def fill(photo: Bytes8, head: Head, colour: tuple[int, int, int], spare: Head | None = None) -> None:
    """Fill a head, in place; what lies in the head `spare` is left alone."""
    for area in head.strips(photo.shape):
        inside = head.distance(area) <= 1
        if spare is not None:
            inside &= spare.distance(area) > 1
        photo[area][inside] = colour


def _lies_in(face: Face, head: Head) -> bool:
    return bool(math.hypot(face.x - head.x, face.y - head.y) < 0.75 * head.size)


def _record(shape: Sequence[int], head: Head, bearing: Bearing, faces: int) -> Record:
    height, width = shape[:2]
    row, column = (min(2, max(0, int(3 * at / length))) for at, length in ((head.y, height), (head.x, width)))
    size = min(8, round(8 * head.size * (UP + DOWN) / height))
    return Record(3 * row + column, size, *bearing, faces=faces)
