"""The right edge of a growing tree: all that appending needs, O(log n)."""

from __future__ import annotations

from dataclasses import dataclass

from audit.errors import ProofInvalid
from audit.tree import HASH_BYTES, fold, hash_node


@dataclass(frozen=True, slots=True)
class Frontier:
    """A tree of `size` leaves as the roots of its complete subtrees, the largest first.

    INVARIANT: there is one peak for each bit that is set in `size`.
    """

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 0 or len(self.peaks) != self.size.bit_count():
            raise ProofInvalid("frontier_peaks")
        if any(len(peak) != HASH_BYTES for peak in self.peaks):
            raise ProofInvalid("frontier_hash_length")

    def append(self, leaf_hash: bytes) -> tuple[Frontier, list[tuple[int, int, bytes]]]:
        """Return the frontier with one leaf more, and the subtrees that it completed.

        These are (level, index, hash), from the leaf itself at level 0 upwards;
        each is complete and never changes again.
        """
        level, index, node = 0, self.size, leaf_hash
        completed = [(level, index, node)]
        peaks = list(self.peaks)
        while index & 1:
            node = hash_node(peaks.pop(), node)
            level, index = level + 1, index >> 1
            completed.append((level, index, node))
        return Frontier(self.size + 1, (*peaks, node)), completed

    def root(self) -> bytes:
        """Return the root; that of the empty tree is SHA-256 of nothing."""
        return fold(self.peaks)
