from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit import tree
from audit.errors import ProofInvalid
from tests.unit.audit.logs import naive_root, reader

LARGEST = 300
HASHES = [hashlib.sha256(number.to_bytes(2, "big")).digest() for number in range(LARGEST)]
READ = reader(HASHES)
sizes = st.integers(1, LARGEST)


@st.composite
def inclusions(draw: Any) -> dict[str, Any]:
    size = draw(sizes)
    index = draw(st.integers(0, size - 1))
    return {
        "index": index,
        "size": size,
        "leaf_hash": HASHES[index],
        "proof": tree.inclusion_proof(index, size, READ),
        "root": naive_root(HASHES[:size]),
    }


@st.composite
def consistencies(draw: Any) -> dict[str, Any]:
    second = draw(sizes)
    first = draw(st.integers(1, second))
    return {
        "first": first,
        "second": second,
        "first_root": naive_root(HASHES[:first]),
        "second_root": naive_root(HASHES[:second]),
        "proof": tree.consistency_proof(first, second, READ),
    }


def alter(draw: Any, proof: list[bytes]) -> list[bytes]:
    """Return a proof that differs: a bit flipped, an element more, less, or moved."""
    kind = draw(st.sampled_from(["flip", "drop", "repeat", "insert", "swap"])) if proof else "insert"
    place = draw(st.integers(0, max(len(proof) - 1, 0)))
    altered = list(proof)
    if kind == "flip":
        bit = draw(st.integers(0, 255))
        altered[place] = (int.from_bytes(proof[place], "big") ^ (1 << bit)).to_bytes(32, "big")
    elif kind == "drop":
        del altered[place]
    elif kind == "repeat":
        altered.insert(place, proof[place])
    elif kind == "insert":
        altered.insert(place, draw(st.binary(min_size=32, max_size=32)))
    else:
        altered[place], altered[-1] = altered[-1], altered[place]
    return altered


@given(inclusions())
def test_every_leaf_of_every_size_is_proven(case: dict[str, Any]) -> None:
    tree.verify_inclusion(**case)
    assert len(case["proof"]) <= case["size"].bit_length()


@given(inclusions(), st.data())
def test_an_altered_inclusion_proof_fails(case: dict[str, Any], data: Any) -> None:
    altered = alter(data.draw, case["proof"])
    if altered != case["proof"]:
        with pytest.raises(ProofInvalid):
            tree.verify_inclusion(**{**case, "proof": altered})


@given(inclusions(), st.integers(0, LARGEST), st.binary(min_size=32, max_size=32))
def test_a_proof_holds_for_no_other_leaf_index_or_root(
    case: dict[str, Any], index: int, other: bytes
) -> None:
    changes = [{"leaf_hash": other}, {"root": other}]
    if index != case["index"]:
        changes.append({"index": index})
    for change in changes:
        with pytest.raises(ProofInvalid):
            tree.verify_inclusion(**{**case, **change})


@given(consistencies())
def test_every_size_extends_every_smaller_one(case: dict[str, Any]) -> None:
    tree.verify_consistency(**case)


@given(consistencies(), st.data())
def test_an_altered_consistency_proof_fails(case: dict[str, Any], data: Any) -> None:
    altered = alter(data.draw, case["proof"])
    if altered != case["proof"]:
        with pytest.raises(ProofInvalid):
            tree.verify_consistency(**{**case, "proof": altered})


@given(consistencies(), st.integers(0, LARGEST))
def test_a_history_that_was_rewritten_has_no_proof(case: dict[str, Any], place: int) -> None:
    """INVARIANT: no proof made from the new history leads to an old root that it does not contain."""
    forged = list(HASHES)
    forged[place % case["first"]] = bytes(32)
    with pytest.raises(ProofInvalid):
        tree.verify_consistency(
            **{
                **case,
                "second_root": naive_root(forged[: case["second"]]),
                "proof": tree.consistency_proof(case["first"], case["second"], reader(forged)),
            }
        )
