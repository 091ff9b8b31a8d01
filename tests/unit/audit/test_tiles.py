from __future__ import annotations

import hashlib
from functools import partial

import pytest

from audit import tiles, tree
from audit.errors import TileInvalid
from audit.tiles import Resource

HASHES = [hashlib.sha256(number.to_bytes(3, "big")).digest() for number in range(70_000)]
BOUNDARIES = (1, 2, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 70_000)


def grown(size: int, step: int = 4096) -> dict[tuple[int, int], bytes]:
    """Return every tile of a tree, appended to in steps."""
    kept: dict[tuple[int, int], bytes] = {}
    for start in range(0, size, step):
        piece = HASHES[start : min(start + step, size)]
        kept |= tiles.grow(start, piece, partial(edge_of, kept))
    return kept


def edge_of(kept: dict[tuple[int, int], bytes], level: int, index: int) -> bytes:
    return kept[level, index]


@pytest.fixture(scope="module")
def largest() -> dict[tuple[int, int], bytes]:
    return grown(70_000)


def written(named: Resource) -> str:
    if named.level is None:
        return tiles.entries_path(named.index, named.width)
    return tiles.tile_path(named.level, named.index, named.width)


@pytest.mark.parametrize("size", BOUNDARIES)
def test_the_tiles_of_a_tree_have_the_widths_and_the_root_of_it(size: int) -> None:
    kept = grown(size)
    for (level, index), tile in kept.items():
        assert tiles.width(level, index, size) * 32 == len(tile) > 0
    for level in range(4):
        assert sum(len(tile) for (at, _), tile in kept.items() if at == level) // 32 == size >> 8 * level
    read = tiles.reader(lambda level, index: kept[level, index])
    assert tree.root_of_leaves(HASHES[:size]) == tree.root_of(size, read)


def test_a_tree_of_70000_leaves_has_the_tiles_of_the_specification(
    largest: dict[tuple[int, int], bytes],
) -> None:
    """c2sp.org/tlog-tiles, Partial Tiles: the worked example."""
    counted = {level: sum(at == level for at, _ in largest) for level in range(4)}
    assert counted == {0: 274, 1: 2, 2: 1, 3: 0}
    assert [tiles.width(level, at, 70_000) for level, at in ((0, 273), (1, 1), (2, 0))] == [112, 17, 1]


def test_a_hash_one_level_up_is_the_root_of_256_below(largest: dict[tuple[int, int], bytes]) -> None:
    assert tree.root_of_leaves(HASHES[:256]) == largest[1, 0][:32]
    assert tree.root_of_leaves(HASHES[256 * 272 : 256 * 273]) == largest[1, 1][-32:]
    assert tree.root_of_leaves(HASHES[:65_536]) == largest[2, 0] == tiles.tile_root(largest[1, 0])


@pytest.mark.parametrize("step", [1, 7, 255, 256, 257, 1000])
def test_how_many_are_appended_at_once_makes_no_difference(step: int) -> None:
    assert grown(1500) == grown(1500, step)


def test_growing_names_only_what_it_changed() -> None:
    kept = grown(254)
    assert {(0, 0)} == tiles.grow(254, HASHES[254:255], lambda *at: kept[at]).keys()
    kept = grown(255)
    assert {(0, 0), (1, 0)} == tiles.grow(255, HASHES[255:256], lambda *at: kept[at]).keys()
    assert {(0, 0), (0, 1), (1, 0)} == tiles.grow(255, HASHES[255:257], lambda *at: kept[at]).keys()


def test_growing_across_a_boundary_rewrites_the_full_tile_and_starts_the_next() -> None:
    kept = grown(65_535)
    new = tiles.grow(65_535, HASHES[65_535:65_537], lambda *at: kept[at])
    assert list(new) == [(0, 255), (0, 256), (1, 0), (2, 0)]
    assert [len(tile) for tile in new.values()] == [8192, 32, 8192, 32]


def test_a_tile_that_is_full_is_not_asked_for() -> None:
    asked: list[tuple[int, int]] = []
    kept = grown(65_536)

    def edge(level: int, index: int) -> bytes:
        asked.append((level, index))
        return kept[level, index]

    # 65,536 leaves end a tile at levels 0 and 1; what follows begins new ones.
    kept |= tiles.grow(65_536, HASHES[65_536:65_792], edge)
    assert asked == []
    tiles.grow(65_792, HASHES[65_792:66_048], edge)
    assert asked == [(1, 1)]


def test_appending_nothing_changes_nothing() -> None:
    assert tiles.grow(300, [], lambda _level, _index: b"") == {}


@pytest.mark.parametrize("edge", [b"", HASHES[0], HASHES[0] * 3, HASHES[0] + HASHES[1][:31]])
def test_an_edge_that_is_not_as_wide_as_the_size_says_is_refused(edge: bytes) -> None:
    with pytest.raises(TileInvalid, match="tile_width"):
        tiles.grow(2, [HASHES[2]], lambda _level, _index: edge)


@pytest.mark.parametrize("hashes", [[b""], [HASHES[0], HASHES[1][:31]], [HASHES[0] + b"x", HASHES[1][:31]]])
def test_a_hash_of_another_length_is_refused(hashes: list[bytes]) -> None:
    with pytest.raises(TileInvalid, match="tile_hash_length"):
        tiles.grow(0, hashes, lambda _level, _index: b"")


@pytest.mark.parametrize(
    ("level", "index", "size", "expected"),
    [
        (0, 0, 0, 0),
        (0, 0, 255, 255),
        (0, 0, 256, 256),
        (0, 1, 256, 0),
        (1, 0, 255, 0),
        (1, 0, 256, 1),
        (2, 0, 65_535, 0),
        (2, 0, 65_536, 1),
        (1, 1, 65_536, 0),
        (7, 0, (1 << 63) - 1, 127),
        (8, 0, (1 << 63) - 1, 0),
    ],
)
def test_the_width_of_a_tile_follows_from_the_size(level: int, index: int, size: int, expected: int) -> None:
    assert expected == tiles.width(level, index, size)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("tile/0/000", Resource(0, 0, 256)),
        ("tile/63/999", Resource(63, 999, 256)),
        ("tile/1/x001/000", Resource(1, 1000, 256)),
        ("tile/0/x001/x234/067", Resource(0, 1_234_067, 256)),
        ("tile/0/x001/067.p/3", Resource(0, 1067, 3)),
        ("tile/entries/x001/x234/067.p/255", Resource(None, 1_234_067, 255)),
        ("tile/entries/000", Resource(None, 0, 256)),
    ],
)
def test_a_path_is_written_and_read_as_the_specification_has_it(path: str, expected: Resource) -> None:
    assert path == written(expected)
    assert expected == tiles.parse_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "checkpoint",
        "/tile/0/000",
        "tile/0/000/",
        "tile/0/000\n",
        "tile/00/000",
        "tile/01/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/0/x000",
        "tile/0/x000/001",
        "tile/0/x000/x001/067",
        "tile/0/001/067",
        "tile/0/x1/067",
        "tile/0/000.p/0",
        "tile/0/000.p/00",
        "tile/0/000.p/07",
        "tile/0/000.p/256",
        "tile/0/000.p/999",
        "tile/0/000.p/",
        "tile/0/000.p",
        "tile/0/000.P/3",
        "tile/0/\u0660\u0660\u0660",
        "tile/data/000",
        "tile/entries/../000",
        "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
    ],
)
def test_a_path_in_any_other_form_is_refused(path: str) -> None:
    with pytest.raises(TileInvalid):
        tiles.parse_path(path)


@pytest.mark.parametrize(
    ("level", "index", "width", "code"),
    [
        (-1, 0, 256, "tile_level"),
        (64, 0, 256, "tile_level"),
        (0, -1, 256, "tile_index"),
        (0, 0, 0, "tile_width"),
        (0, 0, 257, "tile_width"),
    ],
)
def test_no_path_is_made_for_what_is_no_tile(level: int, index: int, width: int, code: str) -> None:
    with pytest.raises(TileInvalid, match=code):
        tiles.tile_path(level, index, width)


def test_a_bundle_is_entries_after_their_lengths() -> None:
    assert tiles.bundle([b"hi", b"", b"x" * 256]) == b"\x00\x02hi\x00\x00\x01\x00" + b"x" * 256
    assert tiles.read_bundle(b"\x00\x02hi\x00\x00\x01\x00" + b"x" * 256, 3) == [b"hi", b"", b"x" * 256]


def test_the_largest_entry_fits_and_one_byte_more_does_not() -> None:
    assert tiles.read_bundle(tiles.bundle([b"e" * 65_535]), 1) == [b"e" * 65_535]
    with pytest.raises(TileInvalid, match="entry_too_large"):
        tiles.bundle([b"e" * 65_536])


@pytest.mark.parametrize("count", [0, 257])
def test_a_bundle_has_1_to_256_entries(count: int) -> None:
    with pytest.raises(TileInvalid, match="bundle_width"):
        tiles.bundle([b"x"] * count)


def test_a_bundle_cut_anywhere_is_refused() -> None:
    whole = tiles.bundle([b"abc", b"", b"defg"])
    for end in range(len(whole)):
        with pytest.raises(TileInvalid, match="bundle_truncated"):
            tiles.read_bundle(whole[:end], 3)


@pytest.mark.parametrize("more", [b"\x00", b"\x00\x00", b"\x00\x01x"])
def test_a_bundle_that_goes_on_is_refused(more: bytes) -> None:
    with pytest.raises(TileInvalid, match="bundle_too_long"):
        tiles.read_bundle(tiles.bundle([b"abc"]) + more, 1)


def test_proofs_read_from_tiles_are_those_of_the_tree(largest: dict[tuple[int, int], bytes]) -> None:
    read = tiles.reader(lambda level, index: largest[level, index])
    root = tree.root_of_leaves(HASHES)
    for index in (0, 1, 255, 256, 65_535, 65_536, 69_887, 69_888, 69_999):
        tree.verify_inclusion(
            index=index,
            size=70_000,
            leaf_hash=HASHES[index],
            proof=tree.inclusion_proof(index, 70_000, read),
            root=root,
        )
    for first in BOUNDARIES:
        tree.verify_consistency(
            first=first,
            second=70_000,
            first_root=tree.root_of_leaves(HASHES[:first]),
            second_root=root,
            proof=tree.consistency_proof(first, 70_000, read),
        )


def test_a_reader_reads_a_tile_once(largest: dict[tuple[int, int], bytes]) -> None:
    asked: list[tuple[int, int]] = []

    def read_tile(level: int, index: int) -> bytes:
        asked.append((level, index))
        return largest[level, index]

    read = tiles.reader(read_tile)
    for index in range(256):
        tree.inclusion_proof(index, 70_000, read)
    assert len(asked) == len(set(asked)) <= 6


@pytest.mark.parametrize(
    ("tile", "code"),
    [
        (b"", "tile_short"),
        (HASHES[0], "tile_short"),
        (HASHES[0] * 3, "tile_short"),
        (HASHES[0] * 2 + b"x", "tile_length"),
        (HASHES[0] * 257, "tile_length"),
    ],
)
def test_a_reader_refuses_a_tile_that_does_not_hold_the_node(tile: bytes, code: str) -> None:
    with pytest.raises(TileInvalid, match=code):
        tiles.reader(lambda _level, _index: tile)(2, 0)
