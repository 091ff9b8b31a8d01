"""The count of what was dropped."""

from __future__ import annotations

from collections import Counter

from gateway.deidentify.errors import Rejected
from gateway.deidentify.limits import Limits
from gateway.deidentify.polyglot import refuse_active, refuse_tail, tail_kind


class Tally:
    """Counts dropped bytes by kind, and segments against their cap.

    Every dropped piece passes through here, so this is where it is searched
    for active content.
    """

    def __init__(self, limits: Limits) -> None:
        """Start at nothing."""
        self._limits = limits
        self._segments = 0
        self._bytes: Counter[str] = Counter()

    @property
    def dropped(self) -> dict[str, int]:
        """Bytes dropped so far, by kind, in order of the kinds' names."""
        return dict(sorted(self._bytes.items()))

    def segment(self) -> None:
        """Count one segment or chunk of the input."""
        self._segments += 1
        if self._segments > self._limits.max_segments:
            raise Rejected("chunk_too_large")

    def drop(self, kind: str, piece: bytes) -> None:
        """Count `piece` as dropped."""
        if piece:
            refuse_active(piece)
            self._bytes[kind] += len(piece)

    def replace(self, kind: str, old: bytes, new: bytes) -> None:
        """Count `old` as dropped unless what is written in its place is the same."""
        if old != new:
            self.drop(kind, old)

    def tail(self, tail: bytes) -> None:
        """Count the bytes after the end of the picture."""
        refuse_tail(tail)
        self.drop(tail_kind(tail), tail)


def refuse_size(width: int, height: int, limits: Limits) -> None:
    """Refuse a picture whose header promises nothing, or more than the caps."""
    if width < 1 or height < 1:
        raise Rejected("not_an_image")
    if max(width, height) > limits.max_side or width * height > limits.max_pixels:
        raise Rejected("too_many_pixels")
