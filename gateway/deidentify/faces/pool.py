"""The gateway's side of what sees to faces: workers as those of the scrubber, handed the networks' files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

from gateway.deidentify.deidentified import Deidentified, Profile, Record
from gateway.deidentify.frames import BadFrame
from gateway.deidentify.limits import Limits
from gateway.deidentify.sandbox import Freight, Workers, number, scrubbed

COMMAND: Final = (sys.executable, "-I", "-m", "gateway.deidentify.faces.worker")

MAX_SIMILARITY: Final = 300
"""Up to here the recogniser's cosine, in thousandths, links nobody."""
_MOST_FACES: Final = 1000
_MOST_WORDS: Final = 1 << 20
_BINS: Final = {"place": (0, 8), "size": (0, 8), "yaw": (-6, 6), "pitch": (-6, 6), "roll": (-12, 12)}
_BITS: Final = ("is_smiling", "is_mouth_open", "are_eyes_closed")


class ImageDeidentifier(Workers):
    """Sees to the faces in pictures, in worker processes; see `Deidentifier`."""

    def __init__(
        self,
        limits: Limits,
        weights: Freight,
        *,
        max_similarity: int = MAX_SIMILARITY,
        workers: int = 1,
        recycle_after: int = 200,
        timeout_s: float = 10.0,
        command: Sequence[str] = COMMAND,
    ) -> None:
        """Describe the workers, as `Workers` does.

        Args:
            limits: Caps on the pictures.
            weights: The networks' files, which were checked, by name; see `needed`.
            max_similarity: Cosine in thousandths above which output and input count as linked.
            workers: How many pictures are looked at side by side.
            recycle_after: Pictures after which a worker is replaced.
            timeout_s: Seconds for one picture.
            command: How a worker is started.
        """
        super().__init__(
            limits,
            command=command,
            workers=workers,
            recycle_after=recycle_after,
            timeout_s=timeout_s,
            freight=weights,
        )
        self._max_similarity = max_similarity

    async def deidentify(
        self, data: bytes | bytearray, profile: Profile, *, max_faces: int = 1
    ) -> Deidentified:
        """Return the picture as the profile wants it; see `Deidentifier`.

        Raises:
            Rejected: The bytes may not be processed, or the faces cannot be seen to.
            ScrubberUnavailable: Not started, closed, or two workers died on this picture.
        """
        header = {"profile": profile, "max_faces": max_faces, "max_similarity": self._max_similarity}

        def read(said: dict[str, Any], body: bytes) -> Deidentified:
            return self._read(said, body, profile, max_faces)

        return await self.ask(header, data, read)

    def _read(self, said: dict[str, Any], body: bytes, profile: Profile, max_faces: int) -> Deidentified:
        """Return what a worker says, believing none of it that could not be true."""
        picture = scrubbed(said, body)
        hidden = said.get("hidden")
        if picture.mode != "canonical" or not isinstance(hidden, dict):
            raise BadFrame
        faces = number(hidden.get("faces"), 1, max_faces)
        masked = number(hidden.get("masked"), 0, _MOST_FACES)
        words = number(hidden.get("words"), 0, _MOST_WORDS)
        if profile == "bystanders":
            return Deidentified(picture, profile, faces, masked, words=words)
        similarity = number(hidden.get("similarity"), 0, self._max_similarity)
        record = _record(hidden.get("record"), faces) if profile == "landmarks" else None
        return Deidentified(picture, profile, faces, masked, similarity, record, words)


def _record(said: object, faces: int) -> Record:
    if not isinstance(said, dict) or not all(type(said.get(bit)) is bool for bit in _BITS):
        raise BadFrame
    bins: dict[str, Any] = {name: number(said.get(name), *bounds) for name, bounds in _BINS.items()}
    return Record(**bins, **{bit: said[bit] for bit in _BITS}, faces=faces)
