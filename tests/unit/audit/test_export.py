from __future__ import annotations

import csv
import hashlib
import io
import json

import pytest

from audit import b64, export, tree
from audit.errors import AuditError, CheckpointInconsistent, ExportInvalid
from tests.unit.audit.logs import (
    EXAMPLES,
    ORIGIN,
    PACK,
    PACK_DIGEST,
    SIGNER,
    STRANGER,
    exported,
    head,
    lines,
    root,
)

LINES = lines()
FILES = exported(LINES)


def built(**changes: object) -> dict[str, bytes]:
    given = {
        "origin": ORIGIN,
        "checkpoint": head(LINES),
        "entries": LINES,
        "packs": {PACK_DIGEST: PACK},
        "signer": SIGNER,
    }
    return export.build(**{**given, **changes})  # type: ignore[arg-type] # wrong values are the point


def test_the_files_are_those_of_the_contract() -> None:
    assert {
        "manifest.json",
        "manifest.sig",
        "checkpoint",
        "entries.jsonl",
        "payloads.jsonl",
        "proofs/right-edge",
        "consistency",
        "keys.txt",
        "policy.txt",
        f"policy/{PACK_DIGEST}.yaml",
        "events.csv",
        "VERIFY.md",
    } == FILES.keys()


def test_the_same_range_and_checkpoint_give_the_same_bytes_whatever_packs_are_loaded_by_then() -> None:
    assert built(packs={PACK_DIGEST: PACK, hashlib.sha256(b"new").hexdigest(): b"new"}) == FILES


def test_the_manifest_lists_every_other_file_with_its_hash() -> None:
    manifest = json.loads(FILES["manifest.json"])
    assert {
        path: hashlib.sha256(content).hexdigest()
        for path, content in FILES.items()
        if path not in {"manifest.json", "manifest.sig"}
    } == manifest["files"]
    assert dict.fromkeys(EXAMPLES, 1) == manifest["counts"]
    assert (0, len(LINES), len(LINES), root(LINES).hex(), ORIGIN) == tuple(
        manifest[name] for name in ("from", "to", "size", "root", "origin")
    )


def test_a_line_of_the_entries_is_a_leaf_byte_for_byte() -> None:
    assert FILES["entries.jsonl"].splitlines() == LINES


def test_the_right_edge_folds_to_the_root() -> None:
    header, span, *peaks = FILES["proofs/right-edge"].decode().splitlines()
    assert ("lethe.dev/compact-range/v1", f"range 0 {len(LINES)}") == (header, span)
    assert root(LINES) == tree.fold([b64.decode(peak) or b"" for peak in peaks])


def test_the_table_has_one_row_for_each_event() -> None:
    rows = list(csv.DictReader(io.StringIO(FILES["events.csv"].decode())))
    assert [str(index) for index in range(len(LINES))] == [row["index"] for row in rows]
    assert [tree.hash_leaf(line).hex() for line in LINES] == [row["leaf_hash"] for row in rows]
    assert list(EXAMPLES) == [row["type"] for row in rows]
    assert rows[0]["time"] == "2026-09-21T14:13:20.000Z"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\tx", "'\tx"),
        ('a,"b"', '"a,""b"""'),
        ("a\nb", '"a\nb"'),
        ("\r=1", '"\'\r=1"'),
    ],
)
def test_a_cell_is_never_a_formula(text: str, expected: str) -> None:
    assert expected == export.cell(text)


def test_a_log_of_no_leaves_can_be_exported() -> None:
    files = built(checkpoint=head([]), entries=[])
    assert files["entries.jsonl"] == b""
    assert not [path for path in files if path.startswith("policy/")]


def test_a_rule_book_that_a_decision_names_must_be_there() -> None:
    with pytest.raises(ExportInvalid, match="pack_missing"):
        built(packs={})
    with pytest.raises(ExportInvalid, match="pack_differs"):
        built(packs={PACK_DIGEST: PACK + b"#"})


def test_entries_that_are_not_those_of_the_checkpoint_are_refused() -> None:
    for entries in (LINES[:-1], [*LINES, LINES[0]], [*LINES[1:], LINES[0]]):
        with pytest.raises(CheckpointInconsistent):
            built(entries=entries)


def test_an_export_is_of_the_signers_own_log() -> None:
    with pytest.raises(AuditError):
        built(signer=STRANGER)
    with pytest.raises(ExportInvalid, match="export_origin"):
        built(origin="log.example/other")


def test_a_manifest_statement_cannot_be_taken_for_a_checkpoint() -> None:
    from audit import checkpoint

    with pytest.raises(AuditError):
        checkpoint.parse(export.statement(ORIGIN, b"{}"))
