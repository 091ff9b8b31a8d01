"""The Merkle tree of RFC 6962 and RFC 9162: roots, inclusion and consistency proofs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

from audit.errors import ProofInvalid

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

NodeReader = Callable[[int, int], bytes]
"""(level, index) to the hash of a complete subtree of 2^level leaves; level 0 is the leaf hashes."""


def hash_leaf(line: bytes) -> bytes:
    """Return the leaf hash SHA-256(00 || line)."""
    return hashlib.sha256(b"\0" + line).digest()


def hash_node(left: bytes, right: bytes) -> bytes:
    """Return the hash SHA-256(01 || left || right) of an inner node."""
    return hashlib.sha256(b"\1" + left + right).digest()


def root_of(size: int, read: NodeReader) -> bytes:
    """Return the root over the first `size` leaves, with one read per bit that is set in `size`."""
    return _root(0, size, read) if size else EMPTY_ROOT


def root_of_leaves(hashes: Iterable[bytes]) -> bytes:
    """Return the root over all of `hashes`, holding no more than the right edge in memory."""
    edge: list[bytes] = []
    for size, hashed in enumerate(hashes):
        node, full = hashed, size
        while full & 1:
            node = hash_node(edge.pop(), node)
            full >>= 1
        edge.append(node)
    return fold(edge)


def fold(peaks: Sequence[bytes]) -> bytes:
    """Return the root over complete subtrees, the largest first."""
    if not peaks:
        return EMPTY_ROOT
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = hash_node(peak, root)
    return root


def inclusion_proof(index: int, size: int, read: NodeReader) -> list[bytes]:
    """Return the audit path of leaf `index` in the tree of `size` leaves, from the leaf's sibling up.

    Raises:
        ProofInvalid: There is no such leaf.

    Rule:
        RFC 9162 section 2.1.3.1.
    """
    if not 0 <= index < size:
        raise ProofInvalid("proof_index")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_root(middle, end, read))
            end = middle
        else:
            path.append(_root(start, middle, read))
            start = middle
    return path[::-1]


def consistency_proof(first: int, second: int, read: NodeReader) -> list[bytes]:
    """Return the proof that the tree of `second` leaves extends the tree of `first` leaves.

    Raises:
        ProofInvalid: Not 0 < first <= second.

    Rule:
        RFC 9162 section 2.1.4.1.
    """
    if not 0 < first <= second:
        raise ProofInvalid("proof_sizes")
    path: list[bytes] = []
    start, end = 0, second
    while first != end:
        middle = start + _split(end - start)
        if first <= middle:
            path.append(_root(middle, end, read))
            end = middle
        else:
            path.append(_root(start, middle, read))
            start = middle
    # The old tree's own root is known to the verifier unless it lies inside the new one.
    if start:
        path.append(_root(start, end, read))
    return path[::-1]


def verify_inclusion(*, index: int, size: int, leaf_hash: bytes, proof: Sequence[bytes], root: bytes) -> None:
    """Return if `proof` leads from the leaf at `index` to `root` in a tree of `size` leaves.

    Raises:
        ProofInvalid: It does not.

    Rule:
        RFC 9162 section 2.1.3.2.
    """
    if not 0 <= index < size:
        raise ProofInvalid("proof_index", "the tree has no leaf of that index")
    _refuse_lengths(leaf_hash, root, *proof)
    node, last, hashed = index, size - 1, leaf_hash
    for sibling in proof:
        if last == 0:
            raise ProofInvalid("proof_too_long", "the proof is longer than the tree is tall")
        if node & 1 or node == last:
            hashed = hash_node(sibling, hashed)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            hashed = hash_node(hashed, sibling)
        node, last = node >> 1, last >> 1
    if last or hashed != root:
        raise ProofInvalid("proof_root", "the inclusion proof does not lead to the root")


def verify_consistency(
    *, first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]
) -> None:
    """Return if `proof` shows that the second tree extends the first.

    The empty tree is a beginning of every tree; its proof is empty.

    Raises:
        ProofInvalid: It does not.

    Rule:
        RFC 9162 section 2.1.4.2.
    """
    if not 0 <= first <= second:
        raise ProofInvalid("proof_sizes", "a log does not shrink")
    _refuse_lengths(first_root, second_root, *proof)
    if first in {0, second}:
        known = EMPTY_ROOT if first == 0 and second else second_root
        if proof or first_root != known or (second == 0 and second_root != EMPTY_ROOT):
            raise ProofInvalid("proof_root", "the roots differ or the proof is not empty")
        return
    # A first tree that is complete stands for itself at the head of the proof.
    path = [first_root, *proof] if first & (first - 1) == 0 else list(proof)
    if not path:
        raise ProofInvalid("proof_too_short", "the proof is empty")
    node, last = first - 1, second - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise ProofInvalid("proof_too_long", "the proof is longer than the tree is tall")
        if node & 1 or node == last:
            old, new = hash_node(sibling, old), hash_node(sibling, new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new = hash_node(new, sibling)
        node, last = node >> 1, last >> 1
    if last or old != first_root or new != second_root:
        raise ProofInvalid("proof_root", "the consistency proof does not lead to both roots")


def _refuse_lengths(*hashes: bytes) -> None:
    if any(len(hashed) != HASH_BYTES for hashed in hashes):
        raise ProofInvalid("proof_hash_length")


def _split(count: int) -> int:
    """Return the largest power of two below `count`, which is at least 2."""
    return 1 << ((count - 1).bit_length() - 1)


def _root(start: int, end: int, read: NodeReader) -> bytes:
    """Return the root over leaves [start, end), where `start` is a multiple of the next power of two."""
    peaks: list[bytes] = []
    while start < end:
        level = (end - start).bit_length() - 1
        peaks.append(read(level, start >> level))
        start += 1 << level
    return fold(peaks)
