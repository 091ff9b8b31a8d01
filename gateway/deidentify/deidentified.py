"""What became of the faces in a picture, and the door through which flows ask for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from gateway.deidentify.scrubbed import Scrubbed

Profile = Literal["bystanders", "landmarks", "redact"]
"""What is done about faces: every head but the subject's is masked; the subject's head too, with a
canonical mesh drawn in its place; or every head is masked and nothing drawn."""


@dataclass(frozen=True, slots=True)
class Record:
    """The abstract landmark record of a picture: bins, and nothing that tells one person from another.

    Attributes:
        place: Where the middle of the head lies, as one of nine parts of the picture, 0 to 8, row by row.
        size: Height of the head as a share of the picture's, in eighths, 0 to 8.
        yaw: Turn of the head to its left in steps of 15 degrees, -6 to 6.
        pitch: Its lift in steps of 15 degrees, -6 to 6.
        roll: Its tilt to its left in steps of 15 degrees, -12 to 12.
        is_smiling: Whether the mouth smiles.
        is_mouth_open: Whether the mouth is open.
        are_eyes_closed: Whether both eyes are closed.
        faces: How many faces the picture shows.
    """

    place: int
    size: int
    yaw: int
    pitch: int
    roll: int
    is_smiling: bool
    is_mouth_open: bool
    are_eyes_closed: bool
    faces: int


@dataclass(frozen=True, slots=True)
class Deidentified:
    """A picture whose faces were seen to; its metadata are gone as with `Scrubbed`, its pixels are fresh.

    Attributes:
        picture: The picture, canonical.
        profile: What was done.
        faces: How many faces were found.
        masked: How many heads were masked.
        similarity: How like the independent recogniser holds the output to be to the input: cosine in
            thousandths, at most 1000; 0 where it finds nothing to compare. None with `bystanders`,
            which keeps the subject's face.
        record: The abstract record; with `landmarks` only.
        words: How many pieces of writing were covered; where that is asked for.
    """

    picture: Scrubbed
    profile: Profile
    faces: int
    masked: int
    similarity: int | None = None
    record: Record | None = None
    words: int = 0


class Deidentifier(Protocol):
    """Whoever sees to the faces in pictures.

    Nothing of a picture is kept when `deidentify` returns or raises, raw landmarks
    and templates least of all; the same bytes may be asked for again.
    """

    async def deidentify(
        self, data: bytes | bytearray, profile: Profile, *, max_faces: int = 1
    ) -> Deidentified:
        """Return the picture as the profile wants it.

        Args:
            data: The whole file of a stranger.
            profile: What is to be done.
            max_faces: How many faces the picture may show before it is refused; with `bystanders`
                all but the subject's are masked.

        Raises:
            Rejected: The bytes may not be processed; `no_face`, `too_many_faces`; or `verifier_linked`:
                a face of the input is still found in the output, or the recogniser links the two.
            ScrubberUnavailable: Nobody can look at them now.
        """
