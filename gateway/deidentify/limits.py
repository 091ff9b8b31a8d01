"""The caps on a stranger's picture."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps that are checked on headers, before any pixel is decoded.

    Attributes:
        max_bytes: Size of the whole file.
        max_pixels: Width times height.
        max_side: Width, and height, in pixels.
        max_scans: Scans of a progressive JPEG; each costs a pass over the picture.
        max_chunk: Bytes of one PNG or WebP chunk (a JPEG segment ends at 64 KiB by its format).
        max_segments: Segments or chunks in one file.
    """

    max_bytes: int = 32 << 20
    max_pixels: int = 50_000_000
    max_side: int = 20_000
    max_scans: int = 100
    max_chunk: int = 32 << 20
    max_segments: int = 20_000

    def __post_init__(self) -> None:
        """Refuse a cap that caps nothing or lets nothing through."""
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive")
