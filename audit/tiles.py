"""The tree as tiles and the entries as bundles (c2sp.org/tlog-tiles).

A tile of level L holds up to 256 hashes of complete subtrees of 256^L leaves; a
tile of fewer is partial, and only the last one of a level is.  No tile is empty.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from audit.errors import TileInvalid
from audit.tree import HASH_BYTES, NodeReader

HEIGHT = 8
WIDTH = 1 << HEIGHT
TILE_BYTES = WIDTH * HASH_BYTES
MAX_LEVEL = 63
MAX_ENTRY_BYTES = 65_535
MAX_BUNDLE_BYTES = WIDTH * (2 + MAX_ENTRY_BYTES)
CACHED_TILES = 256

ReadTile = Callable[[int, int], bytes]
"""(level, index) to the hashes of a tile as one string; empty where there is none."""

_sha256 = hashlib.sha256
# Seven groups write every index of a tree whose size has 63 bits.
_PATH = re.compile(r"tile/(entries|[0-9]{1,2})/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([0-9]{1,3}))?")


@dataclass(frozen=True, slots=True)
class Resource:
    """What a path names: a tile, or a bundle of entries where `level` is None."""

    level: int | None
    index: int
    width: int


def tile_path(level: int, index: int, width: int = WIDTH) -> str:
    """Return the path of a tile below the log's prefix, like `tile/0/x001/067.p/3`.

    Raises:
        TileInvalid: There is no such tile.
    """
    if not 0 <= level <= MAX_LEVEL:
        raise TileInvalid("tile_level", "a level is 0 to 63")
    return f"tile/{level}/{_place(index, width)}"


def entries_path(index: int, width: int = WIDTH) -> str:
    """Return the path of a bundle of entries below the log's prefix, like `tile/entries/x001/067.p/3`.

    Raises:
        TileInvalid: There is no such bundle.
    """
    return f"tile/entries/{_place(index, width)}"


def parse_path(path: str) -> Resource:
    """Return what `path` names; a path is written in one way only.

    Raises:
        TileInvalid: It names no tile and no bundle, or not in that way.
    """
    match = _PATH.fullmatch(path)
    if match is None:
        raise TileInvalid("tile_path", "neither a tile nor a bundle of entries")
    level = None if match[1] == "entries" else int(match[1])
    index = int(match[2].replace("x", "").replace("/", ""))
    partial = int(match[3]) if match[3] else WIDTH
    written = entries_path(index, partial) if level is None else tile_path(level, index, partial)
    if written != path:
        raise TileInvalid("tile_path", "the path is written in another way")
    return Resource(level, index, partial)


def width(level: int, index: int, size: int) -> int:
    """Return how many hashes the tile has in a tree of `size` leaves; 0 where there is no such tile.

    Rule:
        c2sp.org/tlog-tiles, Partial Tiles.
    """
    return max(0, min(WIDTH, (size >> HEIGHT * level) - WIDTH * index))


def bundle(lines: Sequence[bytes]) -> bytes:
    """Return the bundle of 1 to 256 entries: each after its length in two bytes, big-endian.

    Raises:
        TileInvalid: Another number of entries, or one of more than 65,535 bytes.
    """
    if not 0 < len(lines) <= WIDTH:
        raise TileInvalid("bundle_width", "a bundle has 1 to 256 entries")
    if max(map(len, lines)) > MAX_ENTRY_BYTES:
        raise TileInvalid("entry_too_large", "an entry has at most 65,535 bytes")
    return b"".join([part for line in lines for part in (len(line).to_bytes(2, "big"), line)])


def read_bundle(data: bytes, width: int) -> list[bytes]:
    """Return the `width` entries of a bundle.

    Raises:
        TileInvalid: It ends within an entry or before the last, or goes on after it.
    """
    lines: list[bytes] = []
    at = 0
    try:
        for _ in range(width):
            end = at + 2 + (data[at] << 8 | data[at + 1])
            lines.append(data[at + 2 : end])
            at = end
    except IndexError:
        at = len(data) + 1
    if at > len(data):
        raise TileInvalid("bundle_truncated", "the bundle ends before its last entry does")
    if at < len(data):
        raise TileInvalid("bundle_too_long", "the bundle goes on after its last entry")
    return lines


def grow(size: int, hashes: Sequence[bytes], edge: ReadTile) -> dict[tuple[int, int], bytes]:
    """Return every tile that appending leaf `hashes` to a tree of `size` leaves changes or makes.

    They are by (level, index), the whole new content each, in the order of level
    and index.

    Args:
        size: Leaves that the tree has.
        hashes: Of the leaves to append, in order.
        edge: Reads a partial tile as it stands; a tile that is full is not asked for.

    Raises:
        TileInvalid: A tile of the edge does not have the width of the size, or a hash has no 32 bytes.
    """
    if set(map(len, hashes)) - {HASH_BYTES}:
        raise TileInvalid("tile_hash_length")
    grown: dict[tuple[int, int], bytes] = {}
    level, rising = 0, list(hashes)
    while rising:
        index, present = divmod(size, WIDTH)
        content = edge(level, index) if present else b""
        if len(content) != present * HASH_BYTES:
            raise TileInvalid("tile_width", "a tile at the edge is not as wide as the size says")
        content += b"".join(rising)
        rising = []
        for at in range(0, len(content), TILE_BYTES):
            tile = grown[level, index] = content[at : at + TILE_BYTES]
            if len(tile) == TILE_BYTES:
                rising.append(tile_root(tile))
            index += 1
        size >>= HEIGHT
        level += 1
    return grown


def tile_root(tile: bytes) -> bytes:
    """Return the root of a full tile: its hash in the tile one level up."""
    while len(tile) > HASH_BYTES:
        tile = _parents(tile)
    return tile


def tile_of(level: int, index: int) -> tuple[int, int]:
    """Return (level, index) of the tile from which the node is computed."""
    upper, inner = divmod(level, HEIGHT)
    return upper, index // (WIDTH >> inner)


def reader(read_tile: ReadTile) -> NodeReader:
    """Return a reader of nodes, for roots and proofs, that computes them from tiles.

    It keeps the last 256 tiles it read, so it serves one size of the tree, or
    sizes whose tiles `read_tile` gives in full.  Nothing is verified: a proof
    from a false tile does not verify.

    Raises:
        TileInvalid: When it reads: there is no such tile, or it does not hold the node.
    """

    @lru_cache(CACHED_TILES)
    def levels(level: int, index: int) -> list[bytes]:
        return [_checked(read_tile(level, index))]

    def read(level: int, index: int) -> bytes:
        inner = level % HEIGHT
        known = levels(*tile_of(level, index))
        while len(known) <= inner:
            known.append(_parents(known[-1]))
        at = index % (WIDTH >> inner) * HASH_BYTES
        node = known[inner][at : at + HASH_BYTES]
        if not node:
            raise TileInvalid("tile_short", "the tile is missing, or does not reach that far")
        return node

    return read


def _place(index: int, width: int) -> str:
    if index < 0:
        raise TileInvalid("tile_index", "an index is not negative")
    if not 0 < width <= WIDTH:
        raise TileInvalid("tile_width", "a tile is 1 to 256 wide")
    digits = str(index)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    place = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
    return place if width == WIDTH else f"{place}.p/{width}"


def _checked(tile: bytes) -> bytes:
    if len(tile) % HASH_BYTES or len(tile) > TILE_BYTES:
        raise TileInvalid("tile_length", "a tile is up to 256 hashes of 32 bytes")
    return tile


def _parents(hashes: bytes) -> bytes:
    """Return the hashes one level up; what has no sibling yet has no parent."""
    step = 2 * HASH_BYTES
    return b"".join(
        [_sha256(b"\1" + hashes[at : at + step]).digest() for at in range(0, len(hashes) - step + 1, step)]
    )
