"""The door to whoever marks results as artificial, and finds the mark again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

Source = Literal["generated", "composite_generated", "composite_synthetic", "enhanced"]
"""What a backend does to a picture: makes all of it by a trained model, puts what such a one made into
it, puts into it what is drawn or rendered without one, or corrects it without adding anything."""


@dataclass(frozen=True, slots=True)
class Marked:
    """A marked picture, and the SHA-256 (hex) of the certificate that signed for it."""

    image: bytes = field(repr=False)
    certificate: str


class MarkingFailed(Exception):
    """The picture could not be marked, or the mark is not found again; there is nothing to give out."""


class Marker(Protocol):
    """Puts a signed manifest into a picture that carries no metadata.

    It changes no pixel, says nothing of any person, and speaks to nobody.
    """

    async def mark(self, image: bytes, image_type: str, source: Source) -> Marked:
        """Return the picture with the mark, which has been found in it again.

        Raises:
            MarkingFailed: It carries none.
        """

    async def is_marked(self, image: bytes, image_type: str) -> bool:
        """Return whether the picture carries a mark of ours that is whole and believed today."""
