"""Others follow our proofs: of a leaf in the log, and of one checkpoint to a newer one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from audit import b64, proof
from audit.proof import TlogProof
from tests.interop.foreign import Refused, Tools, flip
from tests.interop.published import LAST, SIZES, Published

OF_A_LEAF = ("x/mod", "sigstore", "aics-tlog")
OF_GROWTH = ("x/mod", "aics-tlog")
INDEX = 65_535

PLACES = [(0, 1), (0, 2), (1, 2), (254, 255), (255, 256), (256, 257), (65_279, 65_280), (65_535, 65_536)]
PLACES += [(65_536, 65_537), (INDEX, LAST), (0, LAST), (LAST - 1, LAST), (33_333, 69_999)]

GROWTHS = [*pairwise(SIZES[1:]), (1, LAST), (256, LAST), (65_536, LAST), (LAST, LAST)]

Change = Callable[[TlogProof], TlogProof]


def _hash(at: int) -> Change:
    def change(found: TlogProof) -> TlogProof:
        hashes = list(found.hashes)
        hashes[at] = flip(hashes[at])
        return replace(found, hashes=tuple(hashes))

    return change


CHANGES: dict[str, Change] = {
    "first hash": _hash(0),
    "middle hash": _hash(8),
    "last hash": _hash(-1),
    "order": lambda found: replace(found, hashes=found.hashes[::-1]),
    "one hash fewer": lambda found: replace(found, hashes=found.hashes[:-1]),
    "one hash more": lambda found: replace(found, hashes=(*found.hashes, bytes(32))),
    "index + 1": lambda found: replace(found, index=found.index + 1),
    "index - 1": lambda found: replace(found, index=found.index - 1),
    "leaf": lambda found: replace(found, extra=flip(found.extra or b"")),
    "size": lambda found: replace(found, checkpoint=found.checkpoint.replace("70000", "70001")),
    "origin": lambda found: replace(found, checkpoint=found.checkpoint.replace("tenant-1", "tenant-2", 1)),
}


@pytest.mark.parametrize(("index", "size"), PLACES)
@pytest.mark.parametrize("verifier", OF_A_LEAF)
def test_a_leaf_is_in_the_log(
    tools: Tools, log: Published, tmp_path: Path, verifier: str, index: int, size: int
):
    path = log.write_proof(index, size, tmp_path / "a.tlog-proof")
    tools.ask(verifier, "record", log.keys, path)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("verifier", OF_A_LEAF)
def test_a_changed_proof_is_refused(tools: Tools, log: Published, tmp_path: Path, verifier: str, change: str):
    path = log.write_proof(INDEX, LAST, tmp_path / "a.tlog-proof")
    good = proof.parse(path.read_text("utf-8"))
    bad = CHANGES[change](good)
    assert bad != good
    path.write_text(
        proof.write(index=bad.index, hashes=bad.hashes, checkpoint=bad.checkpoint, extra=bad.extra), "utf-8"
    )
    with pytest.raises(Refused):
        tools.ask(verifier, "record", log.keys, path)


@pytest.mark.parametrize("verifier", OF_A_LEAF)
def test_a_proof_with_the_checkpoint_of_another_size_is_refused(
    tools: Tools, log: Published, tmp_path: Path, verifier: str
):
    """That checkpoint is true, and does not go with these hashes."""
    path = log.write_proof(INDEX, LAST, tmp_path / "a.tlog-proof")
    found = proof.parse(path.read_text("utf-8"))
    other = log.head(69_999).read_text("utf-8")
    path.write_text(
        proof.write(index=INDEX, hashes=found.hashes, checkpoint=other, extra=found.extra), "utf-8"
    )
    with pytest.raises(Refused):
        tools.ask(verifier, "record", log.keys, path)


@pytest.mark.parametrize(("first", "second"), GROWTHS)
@pytest.mark.parametrize("verifier", OF_GROWTH)
def test_a_checkpoint_extends_an_older_one(
    tools: Tools, log: Published, tmp_path: Path, verifier: str, first: int, second: int
):
    path = log.write_growth(first, second, tmp_path / "growth")
    tools.ask(verifier, "growth", log.keys, log.head(first), log.head(second), path)


@pytest.mark.parametrize("at", [0, 1, -1])
@pytest.mark.parametrize("verifier", OF_GROWTH)
def test_a_flipped_byte_of_a_proof_of_growth_is_refused(
    tools: Tools, log: Published, tmp_path: Path, verifier: str, at: int
):
    path = log.write_growth(65_537, LAST, tmp_path / "growth")
    lines = path.read_text("ascii").split()
    lines[at] = b64.encode(flip(b64.decode(lines[at]) or b""))
    path.write_text("\n".join(lines), "ascii")
    with pytest.raises(Refused):
        tools.ask(verifier, "growth", log.keys, log.head(65_537), log.head(LAST), path)


@pytest.mark.parametrize(("first", "second"), [(65_536, LAST), (65_537, 69_999), (LAST, 65_537)])
@pytest.mark.parametrize("verifier", OF_GROWTH)
def test_a_proof_of_growth_between_other_sizes_is_refused(
    tools: Tools, log: Published, tmp_path: Path, verifier: str, first: int, second: int
):
    path = log.write_growth(65_537, LAST, tmp_path / "growth")
    with pytest.raises(Refused):
        tools.ask(verifier, "growth", log.keys, log.head(first), log.head(second), path)
