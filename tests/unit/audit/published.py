"""Small logs as they are published: every resource by its path."""

from __future__ import annotations

from collections.abc import Sequence

from audit import checkpoint, tiles, tree
from audit.note import Signer
from tests.unit.audit.logs import ORIGIN, SIGNER


def publish(lines: Sequence[bytes], signer: Signer = SIGNER) -> dict[str, bytes]:
    """Return checkpoint, tiles and bundles of a log of these entries."""
    hashes = list(map(tree.hash_leaf, lines))
    grown = tiles.grow(0, hashes, lambda _level, _index: b"")
    log = {tiles.tile_path(*at, len(tile) // 32): tile for at, tile in grown.items()}
    for start in range(0, len(lines), tiles.WIDTH):
        piece = lines[start : start + tiles.WIDTH]
        log[tiles.entries_path(start // tiles.WIDTH, len(piece))] = tiles.bundle(piece)
    return log | signed(len(lines), tree.root_of_leaves(hashes), signer)


def signed(size: int, root: bytes, signer: Signer = SIGNER) -> dict[str, bytes]:
    """Return a checkpoint alone."""
    return {"checkpoint": checkpoint.sign(ORIGIN, size, root, signer).encode()}
