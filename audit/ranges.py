"""Compact ranges: a few subtrees that stand for all the leaves which an export does not hold, O(log n).

The compact range of [start, end) is the roots of the complete subtrees that
cover it, each as large as fits, from left to right.  With the one of [0, start),
the leaves of [start, end) and the one of [end, size) anybody computes the root
over `size` leaves, and so sees that no leaf between start and end is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from audit import b64
from audit.errors import ProofInvalid
from audit.tree import HASH_BYTES, NodeReader, fold, hash_node

FORMAT = "lethe.dev/compact-range/v1"
_HEX = re.compile(rb"[0-9a-f]{64}")
_INDEX = re.compile(rb"0|[1-9][0-9]{0,18}")


class Growing:
    """A tree that grows at its right edge, by leaves and by whole subtrees.

    INVARIANT: one peak for each bit that is set in `size`, the largest first.
    """

    __slots__ = ("_peaks", "size")

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        """Begin with the compact range of [0, size)."""
        if size < 0 or len(peaks) != size.bit_count():
            raise ProofInvalid("edge_length", "a compact range has one hash for each of its subtrees")
        self.size = size
        self._peaks = list(peaks)

    def push(self, node: bytes, level: int = 0) -> None:
        """Add a subtree of 2^level leaves, which begins at a multiple of its own size."""
        self.size += 1 << level
        while not self.size >> level & 1:
            node = hash_node(self._peaks.pop(), node)
            level += 1
        self._peaks.append(node)

    def root(self) -> bytes:
        """Return the root over all leaves so far."""
        return fold(self._peaks)


def cover(start: int, end: int) -> list[tuple[int, int]]:
    """Return (level, index) of the subtrees in the compact range of [start, end), from left to right."""
    nodes: list[tuple[int, int]] = []
    while start < end:
        level = (end - start).bit_length() - 1
        if start:
            # A subtree begins at a multiple of its own size.
            level = min(level, (start & -start).bit_length() - 1)
        nodes.append((level, start >> level))
        start += 1 << level
    return nodes


def edge(start: int, end: int, read: NodeReader) -> tuple[bytes, ...]:
    """Return the compact range of [start, end)."""
    return tuple(read(level, index) for level, index in cover(start, end))


def root(
    start: int, left: Sequence[bytes], leaves: Iterable[bytes], size: int, right: Sequence[bytes]
) -> bytes:
    """Return the root over `size` leaves, of which those from `start` are known by their hashes.

    Args:
        left: The compact range of [0, start).
        leaves: Leaf hashes.
        right: The compact range of what follows them up to `size`.

    Raises:
        ProofInvalid: A compact range has not the hashes that its bounds ask for.
    """
    growing = Growing(start, left)
    for hashed in leaves:
        growing.push(hashed)
    nodes = cover(growing.size, size)
    if growing.size > size or len(nodes) != len(right):
        raise ProofInvalid("edge_length", "a compact range has one hash for each of its subtrees")
    for (level, _), hashed in zip(nodes, right, strict=True):
        growing.push(hashed, level)
    return growing.root()


def reader(
    start: int, left: Sequence[bytes], leaves: Sequence[bytes], size: int, right: Sequence[bytes]
) -> NodeReader:
    """Return what reads the nodes of a tree of `size` leaves, of which those from `start` are known.

    It reads what an inclusion proof of one of them is made of, and nothing inside the edges.

    Args:
        left: The compact range of [0, start).
        leaves: Leaf hashes.
        right: The compact range of what follows them up to `size`.

    Raises:
        ProofInvalid: When it reads: the node lies inside an edge, or outside the tree.
    """
    known = dict(zip(cover(0, start), left, strict=True))
    known |= zip(cover(start + len(leaves), size), right, strict=True)

    def read(level: int, index: int) -> bytes:
        node = known.get((level, index))
        if node is not None:
            return node
        if level:
            return hash_node(read(level - 1, 2 * index), read(level - 1, 2 * index + 1))
        if not start <= index < start + len(leaves):
            raise ProofInvalid("edge_inside", "the edges are known as a whole only")
        return leaves[index - start]

    return read


def write(start: int, end: int, hashes: Sequence[bytes]) -> bytes:
    """Return a compact range as text: a header, the bounds, then a hash a line in base64."""
    lines = [FORMAT, f"range {start} {end}", *map(b64.encode, hashes)]
    return "".join(f"{line}\n" for line in lines).encode()


def parse(data: bytes, start: int, end: int) -> tuple[bytes, ...]:
    """Return the hashes of the compact range of [start, end).

    Raises:
        ProofInvalid: Malformed, or of other bounds.
    """
    lines = data.decode(errors="replace").split("\n")
    if lines[0] != FORMAT or len(lines) < 3 or lines.pop():
        raise ProofInvalid("edge_header", f"not a compact range of the form {FORMAT}")
    if lines[1] != f"range {start} {end}":
        raise ProofInvalid("edge_bounds", "a compact range is not of the bounds that the manifest gives")
    hashes = [b64.decode(line) for line in lines[2:]]
    found = tuple(hashed for hashed in hashes if hashed is not None and len(hashed) == HASH_BYTES)
    if len(found) != len(hashes):
        raise ProofInvalid("edge_hash", "a hash of a compact range is not 32 bytes in base64")
    if len(found) != len(cover(start, end)):
        raise ProofInvalid("edge_length", "a compact range has one hash for each of its subtrees")
    return found


def write_leaves(hashes: Iterable[bytes]) -> bytes:
    """Return leaf hashes as text, one a line in hex, as `sha256sum` prints them."""
    return "".join(f"{hashed.hex()}\n" for hashed in hashes).encode()


def parse_leaves(data: bytes, count: int) -> list[bytes]:
    """Return `count` leaf hashes.

    Raises:
        ProofInvalid: Malformed, or not as many.
    """
    lines = data.split(b"\n")
    if lines.pop() or not all(map(_HEX.fullmatch, lines)):
        raise ProofInvalid("leaf_hashes_malformed", "leaf hashes are 64 hex digits a line")
    if len(lines) != count:
        raise ProofInvalid("leaf_hashes_count", "there are not as many leaf hashes as leaves in the range")
    return [bytes.fromhex(line.decode()) for line in lines]


def write_indices(indices: Iterable[int]) -> bytes:
    """Return places of leaves as text, one decimal number a line."""
    return "".join(f"{index}\n" for index in indices).encode()


def parse_indices(data: bytes) -> list[int]:
    """Return places of leaves.

    Raises:
        ProofInvalid: Malformed.
    """
    lines = data.split(b"\n")
    if lines.pop() or not all(map(_INDEX.fullmatch, lines)):
        raise ProofInvalid("indices_malformed", "indices are decimal numbers, one a line")
    return list(map(int, lines))
