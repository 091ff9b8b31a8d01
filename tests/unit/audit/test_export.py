from __future__ import annotations

import csv
import hashlib
import io
import json
from typing import Any

import pytest

from audit import checkpoint, export, note, proof, ranges, tree
from audit.cosign import Cosigner
from audit.derive import derive
from audit.errors import AuditError, CheckpointInconsistent, ExportInvalid, KeyRefused, ProofInvalid
from audit.note import Signer
from audit.payloads import Payload
from audit.views.rows import Controller
from tests.unit.audit import sealed
from tests.unit.audit.logs import (
    EXAMPLES,
    ORIGIN,
    PACK,
    PACK_DIGEST,
    SIGNER,
    STRANGER,
    TERMS,
    exported,
    head,
    lines,
    root,
)

LINES = lines()
HASHES = [tree.hash_leaf(line) for line in LINES]
FILES = exported(LINES, derive=derive)
SOME = [(place, LINES[place]) for place in (3, 8, 11)]
ALWAYS = {
    "manifest.json",
    "manifest.sig",
    "checkpoint",
    "entries.jsonl",
    "payloads.jsonl",
    "consistency",
    "keys.txt",
    "policy.txt",
    "VERIFY.md",
}
MADE = {"article30.csv", "article30.json", "events.csv", "events.parquet", "ocsf.jsonl", "report.html"}
EDGES = {"proofs/left-edge", "proofs/right-edge"}
PACK_PATH = f"policy/{PACK_DIGEST}.yaml"


def stated(files: dict[str, bytes]) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(files["manifest.json"])
    return value


def test_the_files_are_those_of_the_contract() -> None:
    assert {*ALWAYS, *MADE, *EDGES, PACK_PATH} == FILES.keys()


def test_the_same_arguments_give_the_same_bytes_whatever_packs_are_loaded_by_then() -> None:
    packs = {PACK_DIGEST: PACK, hashlib.sha256(b"new").hexdigest(): b"new"}
    assert exported(LINES, packs=packs, derive=derive) == FILES


def test_the_manifest_lists_every_other_file_with_its_hash() -> None:
    manifest = stated(FILES)
    assert {
        path: hashlib.sha256(content).hexdigest()
        for path, content in FILES.items()
        if path not in {"manifest.json", "manifest.sig"}
    } == manifest["files"]
    assert dict.fromkeys(EXAMPLES, 1) == manifest["counts"]
    assert (0, len(LINES), len(LINES), len(LINES), root(LINES).hex(), ORIGIN) == tuple(
        manifest[name] for name in ("from", "to", "size", "entries", "root", "origin")
    )
    assert tuple(manifest[name] for name in ("kind", "complete", "filter")) == ("range", True, {})


def test_the_manifest_says_for_whom_and_why_and_until_when() -> None:
    facts = export.Facts(Controller(name="Example AG"), {"ab" * 16: "Studio"})
    terms = export.Terms("authority", "inspection", "lethe/9.9", ("audit",), 7)
    manifest = stated(exported(LINES, terms=terms, facts=facts))
    assert {
        "recipient": "authority",
        "purpose": "inspection",
        "generator": "lethe/9.9",
        "disclosed": ["audit"],
        "expires_ms": 7,
        "controller": {"name": "Example AG"},
        "backends": {"ab" * 16: "Studio"},
    }.items() <= manifest.items()
    assert "expires_ms" not in stated(FILES)


def test_the_manifest_is_signed_once_with_the_logs_key() -> None:
    body, signed = note.open_note(FILES["manifest.sig"].decode(), [SIGNER.verifier])
    digest = hashlib.sha256(FILES["manifest.json"]).hexdigest()
    assert (f"lethe.dev/audit-export/v2\n{ORIGIN}\nsha256 {digest}\n", [SIGNER.verifier]) == (body, signed)


def test_a_line_of_the_entries_is_a_leaf_byte_for_byte() -> None:
    assert FILES["entries.jsonl"].splitlines() == LINES
    assert list(enumerate(LINES)) == export.exported(FILES)


@pytest.mark.parametrize(("start", "end"), [(0, 5), (5, 36), (7, 21), (12, 13), (9, 9), (0, 0), (36, 36)])
def test_a_range_carries_its_two_edges_and_nothing_for_each_event(start: int, end: int) -> None:
    files = exported(LINES, start=start, end=end, derive=derive)
    assert {*ALWAYS, *MADE, *EDGES} | ({PACK_PATH} & files.keys()) == files.keys()
    left = ranges.parse(files["proofs/left-edge"], 0, start)
    right = ranges.parse(files["proofs/right-edge"], end, len(LINES))
    assert root(LINES) == ranges.root(start, left, HASHES[start:end], len(LINES), right)
    assert list(enumerate(LINES))[start:end] == export.exported(files)


def test_events_are_proven_one_by_one_and_the_manifest_says_that_some_may_be_missing() -> None:
    files = exported(LINES, start=2, end=20, kind="events", entries=SOME, derive=derive)
    proofs = {f"proofs/{place}.tlog-proof" for place, _ in SOME}
    assert {*ALWAYS, *MADE, *proofs, "proofs/indices", PACK_PATH} - {"report.html"} == files.keys()
    assert not stated(files)["complete"]
    assert files["proofs/indices"] == b"3\n8\n11\n"
    assert files["entries.jsonl"].splitlines() == [line for _, line in SOME]
    for place, line in SOME:
        text = files[f"proofs/{place}.tlog-proof"].decode()
        found, _ = proof.verify(text, [SIGNER.verifier], None)
        assert (place, line, head(LINES)) == (found.index, found.extra, found.checkpoint)
    assert export.exported(files) == SOME


def test_hashes_show_every_leaf_and_open_some() -> None:
    files = exported(LINES, start=2, end=20, kind="hashes", entries=SOME, derive=derive)
    extra = {"proofs/indices", "proofs/leaf-hashes", PACK_PATH}
    assert {*ALWAYS, *MADE, *EDGES, *extra} == files.keys()
    assert stated(files)["complete"]
    assert [hashed.hex() for hashed in HASHES[2:20]] == files["proofs/leaf-hashes"].decode().split()


def test_a_filter_is_stated_and_kept_to() -> None:
    asked = export.Filter(types=("job.created", "job.failed"))
    chosen = [(place, line) for place, line in enumerate(LINES) if b'"job.created"' in line]
    files = exported(LINES, kind="hashes", entries=chosen, asked=asked)
    assert stated(files)["filter"] == {"types": ["job.created", "job.failed"]}
    with pytest.raises(ExportInvalid, match="entries_filter"):
        exported(LINES, kind="hashes", entries=SOME, asked=asked)
    event = json.loads(SOME[0][1])
    assert export.Filter(from_ms=event["t"], until_ms=event["t"] + 1).admits(event)
    assert not export.Filter(from_ms=event["t"] + 1).admits(event)
    assert not export.Filter(until_ms=event["t"]).admits(event)


@pytest.mark.parametrize(
    "value", [{"type": "x"}, {"types": ["no.such"]}, {"from_ms": -1}, {"until_ms": True}]
)
def test_what_is_no_filter_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(ExportInvalid, match="manifest_filter"):
        export.Filter.parse(value)


def test_what_the_previous_export_knew_is_linked_by_a_consistency_proof() -> None:
    value = json.loads(exported(LINES, previous=13)["consistency"])
    assert (13, len(LINES), root(LINES[:13]).hex()) == (value["from"], value["to"], value["root"])
    assert len(value["hashes"]) > 2
    assert json.loads(FILES["consistency"])["from"] == 0
    assert json.loads(exported(LINES, previous=len(LINES))["consistency"])["hashes"] == []
    with pytest.raises(ProofInvalid, match="proof_sizes"):
        exported(LINES, previous=len(LINES) + 1)


def test_payloads_have_a_line_for_each_seal() -> None:
    files = exported(sealed.LOG, found=sealed.OPENED, terms=sealed.DISCLOSING)
    assert list(map(json.loads, files["payloads.jsonl"].splitlines())) == [
        {"i": 0, "s": 0, "state": "opened", "salt": "00" * 32, "payload": '{"a":"é\\n"}'},
        {"i": 0, "s": 1, "state": "erased", "by": 2},
        {"i": 1, "s": 0, "state": "opened", "salt": "02" * 32, "payload": '{"c":[true]}'},
        {"i": 3, "s": 0, "state": "erased", "by": 4},
    ]
    assert stated(files)["payloads"] == {"profile": {"opened": 1}, "audit": {"opened": 1, "erased": 2}}


def test_what_erased_a_payload_outside_the_range_is_proven() -> None:
    files = exported(
        sealed.LOG,
        start=0,
        end=1,
        found=sealed.OPENED[:2],
        erasures={2: sealed.LOG[2]},
        terms=sealed.DISCLOSING,
    )
    line = json.loads(files["payloads.jsonl"].splitlines()[1])
    assert line["proof"] == "proofs/2.tlog-proof"
    found, _ = proof.verify(files["proofs/2.tlog-proof"].decode(), [SIGNER.verifier], None)
    assert (2, sealed.LOG[2]) == (found.index, found.extra)


def test_what_erased_a_payload_after_the_checkpoint_hangs_on_a_later_one() -> None:
    grown = head(sealed.LOG)
    files = exported(
        sealed.LOG,
        checkpoint=head(sealed.LOG[:2]),
        end=2,
        found=sealed.OPENED[:3],
        erasures={2: sealed.LOG[2], 4: sealed.LOG[4]},
        later=grown,
        terms=sealed.DISCLOSING,
    )
    assert files["proofs/later-checkpoint"].decode() == grown
    assert json.loads(files["proofs/later-consistency"])["from"] == 2
    assert "proofs/4.tlog-proof" not in files
    with pytest.raises(ExportInvalid, match="later_missing"):
        exported(
            sealed.LOG,
            checkpoint=head(sealed.LOG[:2]),
            end=2,
            found=sealed.OPENED[:3],
            erasures={2: sealed.LOG[2]},
            terms=sealed.DISCLOSING,
        )


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (sealed.OPENED[1:], "payload_missing"),
        (sealed.OPENED[:-1], "payload_missing"),
        ([*sealed.OPENED, Payload(5, 0, "withheld")], "payload_surplus"),
        ([sealed.OPENED[0], *sealed.OPENED], "payload_surplus"),
        ([sealed.OPENED[0], Payload(0, 1, "erased", by=5), *sealed.OPENED[2:]], "payload_erased_type"),
    ],
)
def test_payload_lines_that_do_not_fit_are_not_exported(found: list[Payload], code: str) -> None:
    with pytest.raises(ExportInvalid, match=code):
        exported(sealed.LOG, found=found, terms=sealed.DISCLOSING)


def test_a_payload_is_open_only_for_who_may_read_it_and_not_for_ever() -> None:
    with pytest.raises(ExportInvalid, match="payload_undisclosed"):
        exported(sealed.LOG, found=sealed.OPENED, terms=TERMS)
    with pytest.raises(ExportInvalid, match="terms_expiry"):
        export.Terms("auditor", "audit", "lethe/1", ("audit",))


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"recipient": "Jane Doe"}, "terms_code"),
        ({"purpose": ""}, "terms_code"),
        ({"generator": "a b"}, "terms_generator"),
        ({"disclosed": ("profile", "audit"), "expires_ms": 1}, "terms_disclosed"),
        ({"disclosed": ("none",), "expires_ms": 1}, "terms_disclosed"),
        ({"expires_ms": -1}, "terms_expiry"),
    ],
)
def test_terms_are_codes(fields: dict[str, Any], code: str) -> None:
    with pytest.raises(ExportInvalid, match=code):
        export.Terms(**{"recipient": "auditor", "purpose": "audit", "generator": "lethe/1", **fields})


def test_facts_are_bounded() -> None:
    with pytest.raises(ExportInvalid, match="facts_controller"):
        export.Facts(Controller(name="x" * 1001))
    with pytest.raises(ExportInvalid, match="facts_backends"):
        export.Facts(backends={"studio": "Studio"})


def test_the_table_has_one_row_for_each_event() -> None:
    rows = list(csv.DictReader(io.StringIO(FILES["events.csv"].decode())))
    assert [str(index) for index in range(len(LINES))] == [row["index"] for row in rows]
    assert [hashed.hex() for hashed in HASHES] == [row["leaf_hash"] for row in rows]


def test_a_log_of_no_leaves_can_be_exported() -> None:
    files = exported([], derive=derive)
    assert files["entries.jsonl"] == b""
    assert not [path for path in files if path.startswith("policy/")]


def test_a_rule_book_that_a_decision_names_must_be_there() -> None:
    with pytest.raises(ExportInvalid, match="pack_missing"):
        exported(LINES, packs={})
    with pytest.raises(ExportInvalid, match="pack_differs"):
        exported(LINES, packs={PACK_DIGEST: PACK + b"#"})


def test_entries_that_are_not_those_of_the_checkpoint_are_refused() -> None:
    for entries in (LINES[:-1], [*LINES, LINES[0]], [*LINES[1:], LINES[0]]):
        with pytest.raises(CheckpointInconsistent):
            exported(LINES, entries=list(enumerate(entries)))
    moved = [(4, LINES[3])]
    with pytest.raises(ProofInvalid, match="leaf_hash_differs"):
        exported(LINES, kind="hashes", entries=moved)
    with pytest.raises(ProofInvalid, match="proof_root"):
        exported(LINES, kind="events", entries=moved)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"start": 5, "end": 4, "entries": []}, "range_bounds"),
        ({"end": len(LINES) + 1, "entries": []}, "range_bounds"),
        ({"kind": "all"}, "manifest_kind"),
        ({"asked": export.Filter(from_ms=0)}, "manifest_filter"),
        ({"kind": "events", "entries": SOME[::-1]}, "entries_order"),
        ({"kind": "events", "entries": [SOME[0], SOME[0]]}, "entries_order"),
        ({"kind": "events", "entries": SOME, "start": 4}, "entries_outside"),
        ({"kind": "events", "entries": SOME, "end": 11}, "entries_outside"),
        ({"entries": list(enumerate(LINES, 1))}, "entries_outside"),
    ],
)
def test_a_selection_that_contradicts_itself_is_refused(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(ExportInvalid, match=code):
        exported(LINES, **changes)


def test_more_events_than_a_folder_takes_are_not_proven_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "MAX_PROOFS", 2)
    with pytest.raises(ExportInvalid, match="selection_too_large"):
        exported(LINES, kind="events", entries=SOME)


def test_an_export_is_of_the_signers_own_log_under_keys_and_policy_that_fit() -> None:
    other = Signer("log.example/other", bytes([7]) * 32)
    of_signer = {"keys": f"{SIGNER.vkey()}\n", "policy": export.trust_policy(SIGNER.verifier)}
    with pytest.raises(ExportInvalid, match="keys_differ"):
        exported(LINES, STRANGER, checkpoint=head(LINES), **of_signer)
    with pytest.raises(ExportInvalid, match="export_origin"):
        exported(LINES, origin="log.example/other")
    with pytest.raises(ExportInvalid, match="policy_unmet"):
        exported(LINES, policy=export.trust_policy(other.verifier))
    with pytest.raises(KeyRefused, match="key_retired"):
        exported(LINES, keys=f"{SIGNER.vkey()} until=3\n")


def test_a_checkpoint_that_the_policys_witnesses_have_not_seen_is_not_exported() -> None:
    witness = Cosigner("witness.example", bytes([9]) * 32)
    policy = f"log {SIGNER.vkey()}\nwitness w {witness.vkey()}\nquorum w\n"
    with pytest.raises(ExportInvalid, match=r"policy_unmet.*quorum"):
        exported(LINES, policy=policy)
    seen = note.add_signatures(head(LINES), [witness.cosign(head(LINES), 1)])
    assert exported(LINES, policy=policy, checkpoint=seen)["checkpoint"].decode() == seen


def test_a_derived_file_that_is_none_of_the_format_is_refused() -> None:
    with pytest.raises(ExportInvalid, match="file_unknown"):
        exported(LINES, derive=lambda _source, _sign: {"notes.txt": b""})


def test_a_manifest_statement_cannot_be_taken_for_a_checkpoint() -> None:
    with pytest.raises(AuditError):
        checkpoint.parse(export.statement(ORIGIN, b"{}"))
