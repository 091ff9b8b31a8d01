"""Whoever sees to faces, in memory: keeps the contract and can be told to break it.

The real ones take a second of a processor to start, which most tests have no use for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType

from gateway.deidentify import Limits, Rejected, ScrubberUnavailable
from gateway.deidentify.deidentified import Deidentified, Profile, Record
from gateway.deidentify.walker import scrub

RECORD = Record(
    place=4,
    size=5,
    yaw=-1,
    pitch=0,
    roll=2,
    is_smiling=True,
    is_mouth_open=False,
    are_eyes_closed=False,
    faces=1,
)


@dataclass(frozen=True)
class Asked:
    """One picture that was asked for: all that it was told."""

    data: bytes
    profile: Profile
    max_faces: int


class FakeDeidentifier:
    """The walker in process, for every profile; what it says of faces is what it is told.

    `faces` is how many each picture shows, `similarity` what is measured, `rejects` the detail with
    which pictures are rejected, `links` those bytes that stay linked whatever is masked; `is_down`
    makes it unavailable.  It starts and closes like the pool whose place it takes.
    """

    confinement = MappingProxyType({"rlimits": True, "landlock": True, "seccomp": True})

    def __init__(self) -> None:
        self.faces = 1
        self.similarity = 87
        self.rejects = ""
        self.links: set[bytes] = set()
        self.is_down = False
        self.asked: list[Asked] = []

    async def start(self) -> None:
        """Be there."""

    async def close(self) -> None:
        """Be gone."""

    async def deidentify(
        self, data: bytes | bytearray, profile: Profile, *, max_faces: int = 1
    ) -> Deidentified:
        if self.is_down:
            raise ScrubberUnavailable
        self.asked.append(Asked(bytes(data), profile, max_faces))
        picture = replace(scrub(bytes(data), Limits()), mode="canonical")
        self._refuse(bytes(data), profile, max_faces)
        if profile == "bystanders":
            return Deidentified(picture, profile, self.faces, self.faces - 1)
        record = replace(RECORD, faces=self.faces) if profile == "landmarks" else None
        return Deidentified(picture, profile, self.faces, self.faces, self.similarity, record)

    def _refuse(self, data: bytes, profile: Profile, max_faces: int) -> None:
        if self.rejects:
            raise Rejected(self.rejects)
        if not self.faces:
            raise Rejected("no_face")
        if self.faces > max_faces:
            raise Rejected("too_many_faces")
        if profile != "bystanders" and data in self.links:
            raise Rejected("verifier_linked")
