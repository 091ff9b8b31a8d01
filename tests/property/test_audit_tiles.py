from __future__ import annotations

import hashlib
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit import tiles, tree
from audit.errors import TileInvalid

LARGEST = 66_500
HASHES = [hashlib.sha256(number.to_bytes(3, "big")).digest() for number in range(LARGEST)]
AROUND = (0, 1, 255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_537)
near = st.one_of(st.sampled_from(AROUND), st.integers(0, 1200), st.integers(65_300, LARGEST))


@cache
def naive_root(size: int) -> bytes:
    return tree.root_of_leaves(HASHES[:size])


def written(named: tiles.Resource) -> str:
    if named.level is None:
        return tiles.entries_path(named.index, named.width)
    return tiles.tile_path(named.level, named.index, named.width)


@settings(deadline=None, max_examples=30)
@given(st.sets(near, min_size=1, max_size=6))
def test_tiles_grown_in_any_steps_give_the_root_and_the_proofs_of_the_tree(sizes: set[int]) -> None:
    kept: dict[tuple[int, int], bytes] = {}

    def read_tile(level: int, index: int) -> bytes:
        return kept[level, index]

    for first, second in pairwise([0, *sorted(sizes - {0})]):
        new = tiles.grow(first, HASHES[first:second], read_tile)
        # What is full never changes again.
        assert not any(len(kept.get(at, b"")) == tiles.TILE_BYTES for at in new)
        kept.update(new)
        assert all(len(tile) == 32 * tiles.width(*at, second) for at, tile in kept.items())
        read = tiles.reader(read_tile)
        root = tree.root_of(second, read)
        assert naive_root(second) == root
        if first:
            tree.verify_consistency(
                first=first,
                second=second,
                first_root=naive_root(first),
                second_root=root,
                proof=tree.consistency_proof(first, second, read),
            )


@given(
    st.builds(
        tiles.Resource,
        st.one_of(st.none(), st.integers(0, 63)),
        st.integers(0, (1 << 55) - 1),
        st.integers(1, 256),
    )
)
def test_a_path_is_read_as_it_was_written(named: tiles.Resource) -> None:
    assert named == tiles.parse_path(written(named))


@given(st.text(alphabet="tile/0123456789xp.entries", max_size=40))
def test_a_path_that_is_taken_is_written_in_that_way(path: str) -> None:
    try:
        named = tiles.parse_path(path)
    except TileInvalid:
        return
    assert path == written(named)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=256))
def test_a_bundle_is_read_as_it_was_written(lines: list[bytes]) -> None:
    data = tiles.bundle(lines)
    assert lines == tiles.read_bundle(data, len(lines))
    with pytest.raises(TileInvalid):
        tiles.read_bundle(data, len(lines) + 1)
    with pytest.raises(TileInvalid):
        tiles.read_bundle(data, len(lines) - 1)


@given(st.binary(max_size=600), st.integers(1, 256))
def test_bytes_that_are_taken_as_a_bundle_are_that_bundle(data: bytes, width: int) -> None:
    try:
        lines = tiles.read_bundle(data, width)
    except TileInvalid:
        return
    assert data == tiles.bundle(lines)
