"""The scrubber's answer, and the door through which flows ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

Format = Literal["jpeg", "png", "webp"]
"""What is handed out."""
Source = Literal["jpeg", "png", "webp", "gif", "tiff", "heic", "avif"]
"""What is taken in."""
Mode = Literal["lossless", "canonical"]
"""Whether the coded pixels are those of the input, or coded afresh from the decoded picture."""


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """A picture that carries pixels, an orientation and nothing else.

    Attributes:
        data: The whole file.  In `lossless` its coded pixels are those of the input, bit for bit.
        format: The container: the input's, where that is one we hand out.
        width: Stored width in pixels, before the orientation is applied.
        height: Stored height in pixels, before the orientation is applied.
        orientation: EXIF orientation, 1 to 8; 1 where the input had none.
        dropped: Bytes dropped by kind of segment; kinds are codes of `[a-z0-9_]`,
            so the mapping may stand in an audit leaf.
        mode: How it was made.  `lossless` was asked for in vain where the container or the
            colours do not allow it: then it says `canonical`.
        profile: A walker's only: the colour profile that it found and did not keep.
    """

    data: bytes
    format: Format
    width: int
    height: int
    orientation: int
    dropped: Mapping[str, int]
    mode: Mode = "lossless"
    profile: bytes = field(default=b"", repr=False, compare=False)


class Scrubber(Protocol):
    """Whoever scrubs pictures.

    Nothing of a picture is kept when `scrub` returns or raises, and the same
    bytes may be asked for again.
    """

    async def scrub(self, data: bytes | bytearray, mode: Mode = "canonical") -> Scrubbed:
        """Return the picture without its metadata.

        Args:
            data: The whole file of a stranger.
            mode: `canonical` for what leaves the house; `lossless` keeps coded pixels where it can.

        Raises:
            Rejected: The bytes may not be processed.
            ScrubberUnavailable: Nobody can look at them now.
        """
