from __future__ import annotations

import pytest

from audit import ranges, tree
from audit.errors import ProofInvalid
from tests.unit.audit.logs import naive_root, reader

LEAVES = [tree.hash_leaf(bytes([place])) for place in range(40)]


def test_a_range_is_covered_by_the_largest_subtrees_that_fit() -> None:
    assert ranges.cover(0, 0) == []
    assert ranges.cover(0, 7) == [(2, 0), (1, 2), (0, 6)]
    assert ranges.cover(7, 21) == [(0, 7), (3, 1), (2, 4), (0, 20)]
    for start in range(len(LEAVES)):
        for end in range(start, len(LEAVES)):
            covered = [
                place
                for level, index in ranges.cover(start, end)
                for place in range(index << level, (index + 1) << level)
            ]
            assert list(range(start, end)) == covered
            assert len(ranges.cover(start, end)) <= 2 * end.bit_length()


def test_two_edges_and_the_leaves_between_them_give_the_root_of_every_tree() -> None:
    read = reader(LEAVES)
    for size in range(len(LEAVES) + 1):
        for start in range(0, size + 1, 3):
            for end in range(start, size + 1, 2):
                left, right = ranges.edge(0, start, read), ranges.edge(end, size, read)
                assert naive_root(LEAVES[:size]) == ranges.root(start, left, LEAVES[start:end], size, right)


def test_edges_of_other_bounds_are_refused() -> None:
    read = reader(LEAVES)
    left, right = ranges.edge(0, 5, read), ranges.edge(9, 40, read)
    for given in (
        (5, left[:-1], LEAVES[5:9], 40, right),
        (4, left, LEAVES[4:9], 40, right),
        (5, left, LEAVES[5:9], 40, right[1:]),
        (5, left, LEAVES[5:9], 40, (*right, right[0])),
        (5, left, LEAVES[5:9], 8, ()),
        (-1, (), LEAVES, 40, ()),
    ):
        with pytest.raises(ProofInvalid, match="edge_length"):
            ranges.root(*given)


def test_a_compact_range_is_read_as_it_was_written_and_in_no_other_form() -> None:
    hashes = ranges.edge(0, 7, reader(LEAVES))
    text = ranges.write(0, 7, hashes)
    assert hashes == ranges.parse(text, 0, 7)
    assert ranges.parse(ranges.write(3, 3, ()), 3, 3) == ()
    for data, code in (
        (b"", "edge_header"),
        (text[:-1], "edge_header"),
        (text.replace(b"v1", b"v2"), "edge_header"),
        (text.replace(b"range 0 7", b"range 0 8"), "edge_bounds"),
        (text.replace(b"range 0 7", b"range 00 7"), "edge_bounds"),
        (text + b"\n", "edge_hash"),
        (text.replace(b"=\n", b"\n", 1), "edge_hash"),
        (text + b"AAAA\n", "edge_hash"),
        (text.rpartition(b"\n")[0].rpartition(b"\n")[0] + b"\n", "edge_length"),
        (b"\xff" + text, "edge_header"),
    ):
        with pytest.raises(ProofInvalid, match=code):
            ranges.parse(data, 0, 7)


def test_leaf_hashes_and_indices_have_one_form() -> None:
    assert ranges.parse_leaves(ranges.write_leaves(LEAVES), len(LEAVES)) == LEAVES
    assert ranges.parse_leaves(b"", 0) == []
    text = ranges.write_leaves(LEAVES[:2])
    for data, code in (
        (text[:-1], "leaf_hashes_malformed"),
        (text.upper(), "leaf_hashes_malformed"),
        (text + b"\n", "leaf_hashes_malformed"),
        (text[65:], "leaf_hashes_count"),
    ):
        with pytest.raises(ProofInvalid, match=code):
            ranges.parse_leaves(data, 2)
    assert ranges.parse_indices(ranges.write_indices([0, 7, 10])) == [0, 7, 10]
    for data in (b"1", b"01\n", b"-1\n", b"1\n\n", b" 1\n", b"1" * 20 + b"\n", "\u0661\n".encode()):
        with pytest.raises(ProofInvalid, match="indices_malformed"):
            ranges.parse_indices(data)
