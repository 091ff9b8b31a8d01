"""Hiding faces, and looking whether anything of them is left."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.deidentify.deidentified import Profile, Record
from gateway.deidentify.errors import Rejected
from gateway.deidentify.faces.detector import Detector
from gateway.deidentify.faces.face import DOWN, TIGHT, UP, Bytes8, Face, Floats, Head, head_of, subject_of
from gateway.deidentify.faces.landmarks import Landmarks
from gateway.deidentify.faces.mesh import Bearing
from gateway.deidentify.faces.recogniser import Recogniser, alike

_FLAT: Final = 128
_SWEEPS: Final = 4


@dataclass(frozen=True, slots=True)
class Hidden:
    """What was done to a picture; as in `Deidentified`."""

    faces: int
    masked: int
    similarity: int | None = None
    record: Record | None = None


class Models:
    """Every network, loaded."""

    def __init__(self, weights: Mapping[str, bytes]) -> None:
        """Build them from their files' bytes, which were checked."""
        self.detector = Detector(weights)
        self.landmarks = Landmarks(weights)
        self.recogniser = Recogniser(weights)


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
    if profile == "bystanders":
        return _bystanders(photo, found, subject, models.detector)
    before = [models.recogniser.template(photo, face) for face in found]
    bearing = models.landmarks.bearing(photo, subject) if profile == "landmarks" else None
    heads = [head_of(face) for face in found]
    heads += _clear(photo, heads, models.detector)
    if bearing is not None:
        models.landmarks.mesh.draw(photo, head_of(subject), bearing)
    similarity = judge(photo, found, before, heads, models)
    if similarity > max_similarity:
        raise Rejected("verifier_linked")
    record = None if bearing is None else _record(photo.shape, head_of(subject), bearing, len(found))
    return Hidden(len(found), len(heads), similarity, record)


def judge(
    photo: Bytes8, faces: Sequence[Face], before: Sequence[Floats], heads: Sequence[Head], models: Models
) -> int:
    """Return how like the recogniser holds a picture to be to the faces that were in it; thousandths.

    It looks where each face was, and at whatever the detector takes for a face
    there now: a drawn mesh is judged by whom it resembles, not by being one.

    Args:
        photo: The picture, as it would be handed out.
        faces: The faces that the original showed.
        before: Their templates.
        heads: The heads that were hidden.
        models: The networks.

    Raises:
        Rejected: `verifier_linked`: a face is found beside what was hidden.
    """
    now = models.detector.left(photo, heads)
    if not all(any(_lies_in(face, head) for head in heads) for face in now):
        raise Rejected("verifier_linked")
    after = [models.recogniser.template(photo, face) for face in (*faces, *now)]
    return max(alike(one, other) for one in before for other in after)


def _clear(photo: Bytes8, heads: Sequence[Head], look: Detector) -> list[Head]:
    """Fill heads until the detector finds no face; return those that it found on the way.

    Raises:
        Rejected: `verifier_linked`: it does not end.
    """
    more: list[Head] = []
    for head in heads:
        fill(photo, head)
    for _ in range(_SWEEPS):
        left = [head_of(face) for face in look.left(photo, (*heads, *more))]
        if not left:
            return more
        for head in left:
            fill(photo, head)
        more += left
    raise Rejected("verifier_linked")


def _bystanders(photo: Bytes8, found: Sequence[Face], subject: Face, look: Detector) -> Hidden:
    """Fill every head but the subject's.

    Of that no pixel changes, unless another face can be hidden no other way; of its face, none ever.

    Raises:
        Rejected: `verifier_linked`: a bystander cannot be hidden without touching the subject's face;
            `no_face`: the subject is not found any more.
    """
    own = head_of(subject)
    left = [face for face in found if face is not subject]
    heads: list[Head] = []
    masked = 0
    for sweep in range(_SWEEPS):
        if not left:
            break
        for face in left:
            fill(photo, head_of(face), spare=own if sweep == 0 else own._replace(size=own.size * TIGHT))
            heads.append(head_of(face))
        masked += len(left)
        now = look.left(photo, (own, *heads))
        left = [face for face in now if not subject.holds(face.x, face.y)]
        if len(left) == len(now):
            raise Rejected("no_face")
    if left:
        raise Rejected("verifier_linked")
    return Hidden(len(found), masked)


def fill(photo: Bytes8, head: Head, spare: Head | None = None) -> None:
    """Fill a head with grey, in place; what lies in the head `spare` is left alone."""
    area = head.area(photo.shape)
    inside = head.distance(area) <= 1
    if spare is not None:
        inside &= spare.distance(area) > 1
    photo[area][inside] = _FLAT


def _lies_in(face: Face, head: Head) -> bool:
    return bool(math.hypot(face.x - head.x, face.y - head.y) < TIGHT * head.size)


def _record(shape: Sequence[int], head: Head, bearing: Bearing, faces: int) -> Record:
    height, width = shape[:2]
    row, column = (min(2, max(0, int(3 * at / length))) for at, length in ((head.y, height), (head.x, width)))
    size = min(8, round(8 * head.size * (UP + DOWN) / height))
    return Record(3 * row + column, size, *bearing, faces=faces)
