from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from audit import tree
from audit.errors import ProofInvalid
from tests.unit.audit.logs import naive_root, reader

VECTORS = json.loads(Path(__file__).parents[2].joinpath("vectors/rfc6962.json").read_text())
HASHES = [tree.hash_leaf(bytes.fromhex(text)) for text in VECTORS["leaves"]]
ROOTS = [bytes.fromhex(text) for text in VECTORS["roots"]]
MANY = [hashlib.sha256(bytes([number])).digest() for number in range(70)]


def unhexed(texts: list[str]) -> list[bytes]:
    return [bytes.fromhex(text) for text in texts]


def test_roots_are_those_of_the_reference_vectors() -> None:
    for size, expected in enumerate(ROOTS, start=1):
        assert expected == tree.root_of(size, reader(HASHES)) == tree.root_of_leaves(HASHES[:size])


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    expected = bytes.fromhex(VECTORS["empty_root"])
    assert expected == tree.root_of(0, reader([])) == tree.root_of_leaves([])


@pytest.mark.parametrize("case", VECTORS["inclusion"])
def test_inclusion_proofs_are_those_of_the_reference_vectors(case: dict) -> None:
    proof = unhexed(case["proof"])
    assert proof == tree.inclusion_proof(case["index"], case["size"], reader(HASHES))
    tree.verify_inclusion(
        index=case["index"],
        size=case["size"],
        leaf_hash=HASHES[case["index"]],
        proof=proof,
        root=ROOTS[case["size"] - 1],
    )


@pytest.mark.parametrize("case", VECTORS["consistency"])
def test_consistency_proofs_are_those_of_the_reference_vectors(case: dict) -> None:
    proof = unhexed(case["proof"])
    assert proof == tree.consistency_proof(case["first"], case["second"], reader(HASHES))
    tree.verify_consistency(
        first=case["first"],
        second=case["second"],
        first_root=ROOTS[case["first"] - 1],
        second_root=ROOTS[case["second"] - 1],
        proof=proof,
    )


def test_every_proof_of_every_small_tree_verifies_against_the_naive_root() -> None:
    read = reader(MANY)
    for size in range(1, len(MANY) + 1):
        root = naive_root(MANY[:size])
        assert root == tree.root_of(size, read) == tree.root_of_leaves(MANY[:size])
        for index in range(size):
            proof = tree.inclusion_proof(index, size, read)
            tree.verify_inclusion(index=index, size=size, leaf_hash=MANY[index], proof=proof, root=root)
        for first in range(1, size + 1):
            tree.verify_consistency(
                first=first,
                second=size,
                first_root=naive_root(MANY[:first]),
                second_root=root,
                proof=tree.consistency_proof(first, size, read),
            )


def test_a_proof_needs_no_more_reads_than_twice_the_height_of_a_huge_tree() -> None:
    reads = 0

    def read(level: int, index: int) -> bytes:
        nonlocal reads
        reads += 1
        return hashlib.sha256(f"{level} {index}".encode()).digest()

    size = (1 << 40) - 12345
    tree.inclusion_proof(size // 3, size, read)
    tree.consistency_proof(size // 5, size, read)
    tree.root_of(size, read)
    assert reads <= 5 * 40


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (-1, 3), (3, 3)])
def test_a_leaf_outside_the_tree_has_no_proof(index: int, size: int) -> None:
    with pytest.raises(ProofInvalid):
        tree.inclusion_proof(index, size, reader(MANY))
    with pytest.raises(ProofInvalid):
        tree.verify_inclusion(index=index, size=size, leaf_hash=MANY[0], proof=[], root=MANY[0])


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 5), (6, 5), (-1, 5)])
def test_no_consistency_proof_is_made_for_sizes_that_have_none(first: int, second: int) -> None:
    with pytest.raises(ProofInvalid):
        tree.consistency_proof(first, second, reader(MANY))


def test_the_empty_tree_is_a_beginning_of_every_tree_with_an_empty_proof() -> None:
    tree.verify_consistency(
        first=0, second=0, first_root=tree.EMPTY_ROOT, second_root=tree.EMPTY_ROOT, proof=[]
    )
    tree.verify_consistency(first=0, second=8, first_root=tree.EMPTY_ROOT, second_root=ROOTS[7], proof=[])


@pytest.mark.parametrize(
    ("first", "second", "first_root", "second_root", "proof"),
    [
        (0, 8, ROOTS[0], ROOTS[7], []),
        (0, 8, tree.EMPTY_ROOT, ROOTS[7], [ROOTS[0]]),
        (0, 0, tree.EMPTY_ROOT, ROOTS[0], []),
        (0, 0, ROOTS[0], ROOTS[0], []),
        (1, 1, ROOTS[0], ROOTS[1], []),
        (1, 1, ROOTS[0], ROOTS[0], [ROOTS[0]]),
        (2, 1, ROOTS[1], ROOTS[0], []),
        (1, 2, ROOTS[0], ROOTS[1], []),
        (3, 5, ROOTS[2], ROOTS[4], []),
        (1, 2, b"", ROOTS[1], [HASHES[1]]),
        (1, 2, ROOTS[0], ROOTS[1], [b"short"]),
        (-1, 2, ROOTS[0], ROOTS[1], []),
    ],
)
def test_what_is_no_growth_is_refused(
    first: int, second: int, first_root: bytes, second_root: bytes, proof: list[bytes]
) -> None:
    with pytest.raises(ProofInvalid):
        tree.verify_consistency(
            first=first, second=second, first_root=first_root, second_root=second_root, proof=proof
        )
