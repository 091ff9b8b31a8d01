from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from audit import export, leaf, proof, tree
from audit.errors import ProofInvalid
from audit.note import Signer
from audit.ranges import reader
from audit.single import place_of, prove, verify_proof
from tests.unit.audit.logs import ORIGIN, SIGNER, STRANGER, TRUST, exported, head, lines
from tests.unit.audit.logs import reader as whole

LINES = lines()
HASHES = [tree.hash_leaf(line) for line in LINES]
SOME = [(place, LINES[place]) for place in (3, 8, 11)]


def expected(index: int) -> str:
    hashes = tree.inclusion_proof(index, len(LINES), whole(HASHES))
    return proof.write(index=index, hashes=hashes, checkpoint=head(LINES), extra=LINES[index])


@pytest.mark.parametrize(("start", "end"), [(0, len(LINES)), (0, 5), (5, 36), (7, 21), (12, 13), (31, 36)])
def test_an_export_of_a_range_proves_each_of_its_events_as_the_log_would(start: int, end: int) -> None:
    files = exported(LINES, start=start, end=end)
    assert [expected(index) for index in range(start, end)] == [
        prove(files, index) for index in range(start, end)
    ]
    assert [None] * (start + len(LINES) - end) == [
        prove(files, index) for index in range(len(LINES)) if not start <= index < end
    ]


@pytest.mark.parametrize("size", range(1, 18))
def test_every_range_of_every_small_log_gives_the_proofs_of_the_whole(size: int) -> None:
    """Each boundary falls inside some subtree once."""
    read = whole(HASHES[:size])
    for start in range(size):
        for end in range(start + 1, size + 1):
            left = [read(level, index) for level, index in _cover(0, start)]
            right = [read(level, index) for level, index in _cover(end, size)]
            part = reader(start, left, HASHES[start:end], size, right)
            for index in range(start, end):
                assert tree.inclusion_proof(index, size, read) == tree.inclusion_proof(index, size, part)


def _cover(start: int, end: int) -> list[tuple[int, int]]:
    """Return the compact range by the words of docs/reference/export.md."""
    found = []
    while start < end:
        level = max(n for n in range(8) if start % (1 << n) == 0 and start + (1 << n) <= end)
        found.append((level, start >> level))
        start += 1 << level
    return found


def test_edges_prove_nothing_that_lies_inside_them() -> None:
    read = whole(HASHES[:16])
    part = reader(8, [read(3, 0)], HASHES[8:12], 16, [read(2, 3)])
    for place in ((0, 7), (1, 0), (0, 12), (5, 0)):
        with pytest.raises(ProofInvalid):
            part(*place)


@pytest.mark.parametrize("kind", ["events", "hashes"])
def test_an_export_of_a_selection_proves_what_it_opens(kind: export.Kind) -> None:
    files = exported(LINES, start=2, end=20, kind=kind, entries=SOME)
    assert [expected(3), expected(8), expected(11)] == [prove(files, place) for place, _ in SOME]
    assert prove(files, 4) is None
    assert place_of(files, leaf.decode(LINES[8])["id"]) == 8
    assert place_of(files, leaf.decode(LINES[4])["id"]) is None


def test_a_proof_is_worth_what_its_checkpoint_is() -> None:
    report = verify_proof(expected(8), TRUST)
    assert ("valid", ORIGIN, 8, len(LINES), leaf.decode(LINES[8])) == (
        report.verdict,
        report.origin,
        report.index,
        report.size,
        report.leaf,
    )
    assert verify_proof(expected(8), None).verdict == "untrusted"
    assert verify_proof(expected(8), STRANGER.vkey()).verdict == "invalid"
    assert (
        verify_proof(expected(8), Signer("log.example/other", bytes(range(32))).vkey()).verdict == "invalid"
    )


def test_a_proof_that_carries_no_event_shows_nothing() -> None:
    text = expected(8)
    bare = proof.parse(text)
    hashes = bare.hashes
    without = proof.write(index=8, hashes=hashes, checkpoint=bare.checkpoint, extra=None)
    assert verify_proof(without, TRUST).fault.startswith("proof_leaf_missing")
    other = proof.write(index=8, hashes=hashes, checkpoint=bare.checkpoint, extra=LINES[9])
    assert verify_proof(other, TRUST).fault.startswith("proof_root")


def test_the_verifier_alone_takes_a_proof(tmp_path: Path) -> None:
    (tmp_path / "trust.txt").write_text(f"{SIGNER.vkey()}\n")
    for name, text in (("good", expected(8)), ("bad", expected(8).replace("index 8", "index 9"))):
        (tmp_path / f"{name}.tlog-proof").write_text(text)
    ended = {
        name: subprocess.run(
            [sys.executable, "-m", "audit.verify", tmp_path / f"{name}.tlog-proof", *trust],
            capture_output=True,
            text=True,
            check=False,
        )
        for name, trust in {"good": ("--trust", tmp_path / "trust.txt"), "bad": ()}.items()
    }
    assert (ended["good"].returncode, ended["bad"].returncode) == (0, 4)
    assert json.loads(ended["good"].stdout)["index"] == 8
