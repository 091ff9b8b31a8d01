"""The scrubber's answer, and the door through which flows ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

Format = Literal["jpeg", "png", "webp"]


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """A picture that carries pixels, an orientation and nothing else.

    Attributes:
        data: The whole file; its pixels are those of the input, bit for bit.
        format: The container, the same as the input's.
        width: Stored width in pixels, before the orientation is applied.
        height: Stored height in pixels, before the orientation is applied.
        orientation: EXIF orientation, 1 to 8; 1 where the input had none.
        dropped: Bytes dropped by kind of segment; kinds are codes of `[a-z0-9_]`,
            so the mapping may stand in an audit leaf.
    """

    data: bytes
    format: Format
    width: int
    height: int
    orientation: int
    dropped: Mapping[str, int]


class Scrubber(Protocol):
    """Whoever scrubs pictures.

    Nothing of a picture is kept when `scrub` returns or raises, and the same
    bytes may be asked for again.
    """

    async def scrub(self, data: bytes | bytearray) -> Scrubbed:
        """Return the picture without its metadata.

        Raises:
            Rejected: The bytes may not be processed.
            ScrubberUnavailable: Nobody can look at them now.
        """
