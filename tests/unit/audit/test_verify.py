from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from audit import checkpoint, export, leaf, note, ranges, verify
from audit.cosign import Cosigner
from audit.derive import derive
from audit.errors import ExportInvalid, TrustInvalid
from audit.note import Signer
from audit.payloads import Payload
from audit.verify import read_folder, verify_export
from tests.sample import sampled
from tests.unit.audit import sealed
from tests.unit.audit.logs import (
    ORIGIN,
    PACK_DIGEST,
    SIGNER,
    START_MS,
    STRANGER,
    TRUST,
    event,
    exported,
    head,
    lines,
    resigned,
    root,
)

ROOT = Path(__file__).resolve().parents[3]
LINES = lines()
SMALL_LINES = lines(["subject.upserted", "decision.made", "subject.erased"])
SMALL = exported(SMALL_LINES)
FULL = exported(derive=derive)
SOME = [(place, LINES[place]) for place in (3, 8, 11)]
PART = exported(LINES, start=5, end=21, previous=13, derive=derive)
EVENTS = exported(LINES, start=2, end=20, kind="events", entries=SOME, previous=3, derive=derive)
HASHES = exported(LINES, start=2, end=20, kind="hashes", entries=SOME, derive=derive)
OPEN = exported(sealed.LOG, found=sealed.OPENED, terms=sealed.DISCLOSING)
BEYOND = exported(
    sealed.LOG,
    checkpoint=head(sealed.LOG[:2]),
    end=2,
    found=sealed.OPENED[:3],
    erasures={2: sealed.LOG[2]},
    later=head(sealed.LOG),
    terms=sealed.DISCLOSING,
)
ALL = {"range": PART, "events": EVENTS, "hashes": HASHES, "open": OPEN, "beyond": BEYOND}


def fault(files: dict[str, bytes], trust: str | None = TRUST) -> str:
    """Return the code of the first fault."""
    report = verify_export(files, trust)
    assert report.verdict == "invalid"
    return report.fault.partition(":")[0]


def laid(folder: Path, files: dict[str, bytes]) -> Path:
    for path, content in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return folder


def test_an_export_is_valid_under_the_logs_key() -> None:
    report = verify_export(FULL, TRUST)
    assert ("valid", "", ORIGIN, len(lines()), root(lines()).hex()) == (
        report.verdict,
        report.fault,
        report.origin,
        report.size,
        report.root,
    )
    assert sum(report.counts.values()) == report.size


def test_an_empty_log_is_valid() -> None:
    assert verify_export(exported([]), TRUST).verdict == "valid"


def test_a_policy_is_trust_too_and_so_is_one_key_among_several() -> None:
    other = Signer("log.example/other", bytes([7]) * 32).vkey()
    assert verify_export(SMALL, f"log {other}\nlog {SIGNER.vkey()}\nquorum none\n").verdict == "valid"


def test_without_trust_an_export_is_never_called_valid() -> None:
    report = verify_export(SMALL, None)
    assert (report.verdict, report.fault) == ("untrusted", "")


def test_without_trust_a_forged_export_is_at_best_consistent_and_with_trust_it_is_invalid() -> None:
    forged = exported(SMALL_LINES[:2], STRANGER)
    assert verify_export(forged, None).verdict == "untrusted"
    assert fault(forged) == "note_unknown_keys"


def test_a_forgery_that_lists_the_true_key_beside_its_own_is_invalid() -> None:
    forged = exported(SMALL_LINES[:2], STRANGER)
    forged["keys.txt"] += SIGNER.vkey().encode() + b"\n"
    assert fault(resigned(forged, STRANGER)) == "note_unknown_keys"


def test_unusable_trust_is_an_error_and_not_a_verdict() -> None:
    with pytest.raises(TrustInvalid):
        verify_export(SMALL, "")


def test_one_flipped_byte_anywhere_in_any_file_makes_it_invalid() -> None:
    for path, content in SMALL.items():
        for place in sampled(range(0, len(content), 7 if path == "VERIFY.md" else 1)):
            for bit in (1, 0x20, 0x80):
                flipped = bytearray(content)
                flipped[place] ^= bit
                report = verify_export({**SMALL, path: bytes(flipped)}, TRUST)
                assert (report.verdict, bool(report.fault)) == ("invalid", True), (path, place)


@pytest.mark.parametrize("name", sorted(ALL))
def test_each_kind_is_valid_as_it_is_and_not_with_a_byte_flipped_in_any_of_its_files(name: str) -> None:
    files = ALL[name]
    assert verify_export(files, TRUST).fault == ""
    assert verify_export(files, TRUST).verdict == "valid"
    assert verify_export(files, None).verdict == "untrusted"
    for path, content in files.items():
        for place in {0, len(content) // 3, len(content) - 1} if content else ():
            flipped = bytearray(content)
            flipped[place] ^= 1
            assert verify_export({**files, path: bytes(flipped)}, TRUST).verdict == "invalid", (path, place)


def test_a_byte_more_or_less_in_any_file_makes_it_invalid() -> None:
    for path, content in SMALL.items():
        assert verify_export({**SMALL, path: content + b"\n"}, TRUST).verdict == "invalid", path
        assert verify_export({**SMALL, path: b"\n" + content}, TRUST).verdict == "invalid", path
        if content:
            assert verify_export({**SMALL, path: content[:-1]}, TRUST).verdict == "invalid", path


def test_a_missing_file_and_a_surplus_one_are_named() -> None:
    for path in SMALL:
        assert fault({name: content for name, content in SMALL.items() if name != path}) == "file_missing"
    assert fault({**SMALL, "extra.txt": b""}) == "file_unlisted"
    assert "entries.jsonl" in verify_export({**SMALL, "entries.jsonl": b""}, TRUST).fault
    assert "\x1b" not in verify_export({**SMALL, "\x1b[2J": b""}, TRUST).fault


def test_an_empty_folder_is_invalid_with_and_without_trust() -> None:
    assert fault({}) == "file_missing"
    assert fault({}, None) == "file_missing"


# From here on the forger holds the log's own key and re-signs the manifest: only the tree, the
# schema and the derivations stand against them.


def rewritten(entries: list[bytes], note: str | None = None) -> dict[str, bytes]:
    """Return an export whose files fit together although its entries are not in order."""
    content = b"".join(line + b"\n" for line in entries)
    if note is not None:
        return resigned({**SMALL, "entries.jsonl": content, "checkpoint": note.encode()})
    size = len(entries)
    stated = {"root": root(entries).hex(), "size": size, "to": size}
    files = {
        **SMALL,
        "entries.jsonl": content,
        "checkpoint": head(entries).encode(),
        "proofs/right-edge": f"{ranges.FORMAT}\nrange {size} {size}\n".encode(),
    }
    return resigned(files, **stated)


def test_entries_that_are_changed_left_out_or_moved_do_not_fit_the_checkpoint() -> None:
    note = SMALL["checkpoint"].decode()
    assert fault(rewritten(SMALL_LINES[:-1], note)) == "entries_size"
    assert fault(rewritten(SMALL_LINES[::-1], note)) == "entries_root"
    assert fault(rewritten([leaf.encode(event("job.deleted")), *SMALL_LINES[1:]], note)) == "entries_root"


def test_a_checkpoint_by_another_key_of_the_same_name_is_refused() -> None:
    assert fault(rewritten(SMALL_LINES, head(SMALL_LINES, STRANGER))) == "note_unknown_keys"


def test_a_checkpoint_of_another_trusted_log_is_refused() -> None:
    other = Signer("log.example/other", bytes([7]) * 32)
    note = checkpoint.sign(other.name, len(SMALL_LINES), root(SMALL_LINES), other)
    forged = rewritten(SMALL_LINES, note)
    assert fault(forged, f"{SIGNER.vkey()}\n{other.vkey()}\n") == "export_origin"


def test_entries_outside_the_schema_are_refused() -> None:
    for line in (b"{}", b"", b'{"name":"Eileen Collins"}', SMALL_LINES[0].replace(b":", b": ", 1)):
        assert fault(rewritten([line, *SMALL_LINES[1:]])).startswith("leaf_")
    truncated = {**SMALL, "entries.jsonl": SMALL["entries.jsonl"][:-1]}
    assert fault(resigned(truncated)) == "file_truncated"


def test_an_event_id_that_comes_twice_is_refused() -> None:
    twice = leaf.encode({**event("job.deleted"), "id": json.loads(SMALL_LINES[0])["id"]})
    assert fault(rewritten([SMALL_LINES[0], twice])) == "event_id_twice"


@pytest.mark.parametrize(("lag_ms", "expected"), [(0, True), (5_000, True), (5_001, False), (10**9, False)])
def test_a_leaf_may_lag_by_the_declared_skew_and_no_more(lag_ms: int, *, expected: bool) -> None:
    times = [START_MS, START_MS + 60_000, START_MS + 60_000 - lag_ms, START_MS + 60_000]
    entries = [
        leaf.encode(event("subject.upserted", at_ms=at_ms, start=10 * place))
        for place, at_ms in enumerate(times)
    ]
    report = verify_export(exported(entries), TRUST)
    assert expected == (report.verdict == "valid")
    assert expected or report.fault.startswith("event_time: entry 2 ")


def test_a_rule_book_that_differs_is_refused_even_when_listed() -> None:
    assert fault(resigned({**SMALL, f"policy/{PACK_DIGEST}.yaml": b"pack: other\n"})) == "pack_differs"
    gone = {path: content for path, content in SMALL.items() if not path.startswith("policy/")}
    assert fault(resigned(gone)) == "file_missing"


def test_a_listed_file_that_is_none_of_the_format_is_refused() -> None:
    assert fault(resigned({**SMALL, "policy/other.yaml": b""})) == "file_unknown"
    assert fault(resigned({**SMALL, "notes.txt": b"trust me"})) == "file_unknown"


@pytest.mark.parametrize(
    "path", ["events.csv", "ocsf.jsonl", "article30.csv", "article30.json", "events.parquet"]
)
def test_what_is_derived_is_derived_again(path: str) -> None:
    assert (
        fault(resigned({**FULL, path: FULL[path].replace(b"upserted", b"erased..") + b" "}))
        == "derived_differs"
    )
    assert fault(resigned({**FULL, path: PART[path]})) == "derived_differs"
    assert fault(resigned({**FULL, path: b""})) == "derived_differs"


def test_the_page_is_derived_again_and_signed_by_the_log() -> None:
    page = FULL["report.html"]
    assert (
        fault(resigned({**FULL, "report.html": page.replace(b"subject", b"Subject", 1)})) == "derived_differs"
    )
    forged = exported(signer=STRANGER, derive=derive)["report.html"]
    assert fault(resigned({**FULL, "report.html": forged})) == "note_unknown_keys"
    assert fault(resigned({**FULL, "report.html": b"\xff"})) == "report_not_text"


def test_a_table_by_another_release_of_pyarrow_is_taken_if_it_says_the_same() -> None:
    import io

    from pyarrow import parquet

    table = parquet.read_table(io.BytesIO(FULL["events.parquet"]))
    sink = io.BytesIO()
    parquet.write_table(table, sink, compression="none")
    assert sink.getvalue() != FULL["events.parquet"]
    assert verify_export(resigned({**FULL, "events.parquet": sink.getvalue()}), TRUST).verdict == "valid"
    sink = io.BytesIO()
    parquet.write_table(table.slice(1), sink)
    assert fault(resigned({**FULL, "events.parquet": sink.getvalue()})) == "derived_differs"


def test_a_table_is_reported_as_not_looked_into_where_pyarrow_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("audit.derive.importlib.util.find_spec", lambda _name: None)
    report = verify_export(FULL, TRUST)
    assert (report.verdict, report.unchecked) == ("valid", ("events.parquet",))


def test_derived_files_may_be_left_out_for_they_prove_nothing() -> None:
    assert verify_export(SMALL, TRUST).verdict == "valid"


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        (f"log {STRANGER.vkey()}\nquorum none\n", "policy_unmet"),
        ("quorum none\n", "policy_unmet"),
        ("", "policy_unmet"),
        (f"log {SIGNER.vkey()}\nwitness w {Cosigner('w', bytes(32)).vkey()}\nquorum w\n", "policy_unmet"),
    ],
)
def test_the_exports_own_policy_must_be_met(policy: str, code: str) -> None:
    assert fault(resigned({**SMALL, "policy.txt": policy.encode()})) == code


def test_keys_that_do_not_name_the_signer_are_refused() -> None:
    assert fault(resigned({**SMALL, "keys.txt": STRANGER.vkey().encode() + b"\n"})) == "keys_differ"
    assert fault(resigned({**SMALL, "keys.txt": b"\xff\n"})) == "file_not_text"


@pytest.mark.parametrize(
    ("stated", "code"),
    [
        ({"format": "lethe.dev/audit-export/v1"}, "manifest_format"),
        ({"format": None}, "manifest_format"),
        ({"origin": "log.example/other"}, "manifest_key_name"),
        ({"origin": 7}, "manifest_malformed"),
        ({"from": 1}, "entries_size"),
        ({"to": 4}, "range_bounds"),
        ({"to": 2}, "entries_size"),
        ({"from": 4}, "range_bounds"),
        ({"size": 4}, "manifest_size"),
        ({"size": 2}, "manifest_size"),
        ({"root": "00" * 32}, "manifest_root"),
        ({"kind": "events"}, "file_missing"),
        ({"kind": "hashes"}, "file_missing"),
        ({"kind": "all"}, "manifest_malformed"),
        ({"complete": False}, "manifest_complete"),
        ({"complete": 1}, "manifest_malformed"),
        ({"filter": {"types": ["job.created"]}}, "manifest_filter"),
        ({"filter": {"no": 1}}, "manifest_filter"),
        ({"entries": 4}, "manifest_entries"),
        ({"counts": {}}, "manifest_counts"),
        ({"payloads": {"audit": {"opened": 1}}}, "manifest_payloads"),
        ({"disclosed": ["audit"]}, "terms_expiry"),
        ({"disclosed": "audit"}, "manifest_malformed"),
        ({"recipient": "Jane Doe"}, "manifest_malformed"),
        ({"generator": " "}, "terms_generator"),
        ({"controller": {"name": 7}}, "facts_controller"),
        ({"controller": {"nickname": "x"}}, "facts_controller"),
        ({"backends": {"x": "y"}}, "facts_backends"),
        ({"expires_ms": True}, "manifest_malformed"),
        ({"files": []}, "manifest_malformed"),
        ({"files": {}}, "file_unlisted"),
        ({"files": {"checkpoint": 7}}, "manifest_malformed"),
        ({"more": 1}, "manifest_malformed"),
        ({"counts": None}, "manifest_malformed"),
        ({"size": True}, "manifest_malformed"),
        ({"size": 1 << 60}, "manifest_malformed"),
    ],
)
def test_a_signed_manifest_that_says_something_else_is_refused(stated: dict[str, Any], code: str) -> None:
    assert fault(resigned(SMALL, **stated)) == code


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"{", b"[" * 100_000, b'{"a":1,"a":1}', b'{"files":1e9}']
)
def test_a_hostile_manifest_is_refused(content: bytes) -> None:
    signature = SIGNER.sign(export.statement(ORIGIN, content)).encode()
    assert (
        verify_export({**SMALL, "manifest.json": content, "manifest.sig": signature}, TRUST).verdict
        == "invalid"
    )


def test_a_reformatted_manifest_is_refused_though_it_says_the_same() -> None:
    manifest = json.dumps(json.loads(SMALL["manifest.json"]), indent=1).encode()
    signature = SIGNER.sign(export.statement(ORIGIN, manifest)).encode()
    assert fault({**SMALL, "manifest.json": manifest, "manifest.sig": signature}) == "manifest_not_canonical"


def test_the_manifest_has_one_signature_and_no_line_that_nobody_checks() -> None:
    other = Signer("log.example/other", bytes([7]) * 32)
    line = other.sign(note.parse(SMALL["manifest.sig"].decode())[0]).rpartition("\n\n")[2]
    more = note.add_signatures(SMALL["manifest.sig"].decode(), [line])
    assert fault({**SMALL, "manifest.sig": more.encode()}) == "manifest_signatures"


def test_a_signature_over_another_text_is_refused() -> None:
    assert fault({**SMALL, "manifest.sig": SMALL["checkpoint"]}) == "manifest_signature"


# Ranges, selections, payloads, what was before: forgers who hold the key, each found out by name.


def without(files: dict[str, bytes], *paths: str) -> dict[str, bytes]:
    return {path: content for path, content in files.items() if path not in paths}


def test_a_report_says_what_the_export_is() -> None:
    report = verify_export(EVENTS, TRUST)
    assert (
        report.start,
        report.end,
        report.kind,
        report.complete,
        report.continues,
    ) == (2, 20, "events", False, 3)
    report = verify_export(OPEN, TRUST)
    assert report.payloads == {"audit": {"opened": 1, "erased": 2}, "profile": {"opened": 1}}
    assert (report.recipient, report.purpose, report.expires_ms) == ("auditor", "audit", sealed.EXPIRES_MS)


@pytest.mark.parametrize("by", [-1, 1])
def test_a_range_that_is_moved_by_one_is_refused(by: int) -> None:
    moved = {"from": 5 + by, "to": 21 + by}
    assert fault(resigned(PART, **moved)) == "edge_bounds"
    edges = {
        "proofs/left-edge": PART["proofs/left-edge"].replace(b"range 0 5", f"range 0 {5 + by}".encode()),
        "proofs/right-edge": PART["proofs/right-edge"].replace(b"range 21", f"range {21 + by}".encode()),
    }
    assert fault(resigned({**PART, **edges}, **moved)) in {"edge_length", "entries_root"}


def test_an_edge_with_its_hashes_in_another_order_is_refused() -> None:
    for path in ("proofs/left-edge", "proofs/right-edge"):
        header, bounds, *hashes = PART[path].splitlines(keepends=True)
        assert len(hashes) > 1
        swapped = b"".join([header, bounds, *hashes[::-1]])
        assert fault(resigned({**PART, path: swapped})) == "entries_root"


def test_an_entry_that_is_left_out_of_a_range_or_changed_in_it_is_refused() -> None:
    entries = PART["entries.jsonl"].splitlines(keepends=True)
    short = resigned({**PART, "entries.jsonl": b"".join(entries[:-1])})
    assert fault(short) == "entries_size"
    assert fault(resigned(short, to=20)) == "edge_bounds"
    swapped = b"".join([entries[1], entries[0], *entries[2:]])
    assert fault(resigned({**PART, "entries.jsonl": swapped})) == "entries_root"


@pytest.mark.parametrize("files", [EVENTS, HASHES])
@pytest.mark.parametrize("by", [-1, 1])
def test_an_index_that_is_one_off_is_refused(files: dict[str, bytes], by: int) -> None:
    moved = resigned({**files, "proofs/indices": f"3\n{8 + by}\n11\n".encode()})
    assert fault(moved) == ("file_missing" if files is EVENTS else "leaf_hash_differs")


@pytest.mark.parametrize(
    ("indices", "code"),
    [
        (b"3\n11\n8\n", "entries_order"),
        (b"3\n3\n11\n", "entries_order"),
        (b"1\n8\n11\n", "entries_outside"),
        (b"3\n8\n20\n", "entries_outside"),
        (b"3\n8\n", "entries_size"),
        (b"3\n8\n11", "indices_malformed"),
    ],
)
def test_indices_of_no_selection_are_refused(indices: bytes, code: str) -> None:
    assert fault(resigned({**HASHES, "proofs/indices": indices})) == code


def test_a_proof_that_is_changed_in_order_or_place_or_checkpoint_is_refused() -> None:
    path = "proofs/8.tlog-proof"
    text = EVENTS[path].decode()
    top, _, signed = text.partition("\n\n")
    header, extra, index, *hashes = top.split("\n")

    def forged(*parts: str) -> str:
        return fault(resigned({**EVENTS, path: "\n".join([*parts, "", signed]).encode()}))

    assert forged(header, extra, index, hashes[1], hashes[0], *hashes[2:]) == "proof_root"
    assert forged(header, extra, index, *hashes[:-1]) == "proof_root"
    assert forged(header, extra, "index 9", *hashes) == "proof_index"
    assert forged(header, extra, "index 7", *hashes) == "proof_index"
    assert forged(header, index, *hashes) == "proof_leaf"
    assert fault(resigned({**EVENTS, path: EVENTS["proofs/3.tlog-proof"]})) == "proof_index"
    elsewhere = text.replace(EVENTS["checkpoint"].decode(), head(LINES[:20]))
    assert fault(resigned({**EVENTS, path: elsewhere.encode()})) == "proof_checkpoint"


def test_another_leaf_than_the_one_that_is_proven_is_refused() -> None:
    other = leaf.encode(event("job.deleted", at_ms=START_MS + 8000))
    lines_now = [SOME[0][1], other, SOME[2][1]]
    content = b"".join(line + b"\n" for line in lines_now)
    assert fault(resigned({**EVENTS, "entries.jsonl": content})) == "proof_leaf"
    assert fault(resigned({**HASHES, "entries.jsonl": content})) == "leaf_hash_differs"


def test_a_leaf_hash_that_is_changed_or_missing_is_refused() -> None:
    hashes = HASHES["proofs/leaf-hashes"].splitlines(keepends=True)
    swapped = b"".join([hashes[-1], *hashes[1:-1], hashes[0]])
    assert fault(resigned({**HASHES, "proofs/leaf-hashes": swapped})) == "entries_root"
    assert fault(resigned({**HASHES, "proofs/leaf-hashes": b"".join(hashes[1:])})) == "leaf_hashes_count"


def test_an_entry_that_the_filter_does_not_admit_is_refused() -> None:
    kept = exported(
        LINES, kind="hashes", entries=SOME[:1], asked=export.Filter((json.loads(SOME[0][1])["ty"],))
    )
    assert verify_export(kept, TRUST).verdict == "valid"
    assert fault(resigned(kept, filter={"types": ["job.created"]})) == "entries_filter"
    assert fault(resigned(EVENTS, filter={"until_ms": START_MS + 8000})) == "entries_filter"
    assert fault(resigned(EVENTS, filter={"from_ms": START_MS + 8000})) == "entries_filter"


def test_a_proof_that_is_of_no_entry_is_no_file_of_the_export() -> None:
    surplus = exported(LINES, kind="events", entries=[*SOME, (12, LINES[12])])["proofs/12.tlog-proof"]
    assert fault(resigned({**EVENTS, "proofs/12.tlog-proof": surplus})) == "file_unknown"
    assert fault(resigned({**PART, "proofs/indices": b""})) == "file_unknown"


@pytest.mark.parametrize("name", ["proofs/later-checkpoint", "proofs/later-consistency"])
def test_a_later_checkpoint_without_need_is_refused(name: str) -> None:
    assert fault(resigned({**OPEN, name: BEYOND[name]})) == "file_unknown"


def payload_lines(files: dict[str, bytes], *given: bytes | dict[str, Any] | Payload) -> str:
    """Return the fault of an export with other payload lines."""

    def line(item: bytes | dict[str, Any] | Payload) -> bytes:
        if isinstance(item, dict):
            return json.dumps(item, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        return item.line() if isinstance(item, Payload) else item

    content = b"".join(line(item) + b"\n" for item in given)
    return fault(resigned({**files, "payloads.jsonl": content}))


FIRST, SECOND, THIRD, FOURTH = sealed.OPENED


def test_a_payload_line_may_not_be_missing_or_doubled_or_out_of_place() -> None:
    assert payload_lines(OPEN) == "payload_missing"
    assert payload_lines(OPEN, SECOND, THIRD, FOURTH) == "payload_missing"
    assert payload_lines(OPEN, FIRST, THIRD, FOURTH) == "payload_missing"
    assert payload_lines(OPEN, FIRST, SECOND, THIRD) == "payload_missing"
    assert payload_lines(OPEN, SECOND, FIRST, THIRD, FOURTH) == "payload_missing"
    assert payload_lines(OPEN, FIRST, FIRST, SECOND, THIRD, FOURTH) == "payload_surplus"
    assert payload_lines(OPEN, *sealed.OPENED, Payload(9, 0, "withheld")) == "payload_surplus"
    cut = {**OPEN, "payloads.jsonl": OPEN["payloads.jsonl"][:-1]}
    assert fault(resigned(cut)) == "file_truncated"


def test_an_opening_that_is_not_what_the_seal_fixes_is_refused() -> None:
    rest = (SECOND, THIRD, FOURTH)
    other = Payload(0, 0, "opened", sealed.SALTS[0], b'{"a":"e"}')
    assert payload_lines(OPEN, other, *rest) == "opening_differs"
    assert (
        payload_lines(OPEN, Payload(0, 0, "opened", bytes(31) + b"\1", sealed.TEXTS[0]), *rest)
        == "opening_differs"
    )
    assert (
        payload_lines(OPEN, {"i": 0, "s": 0, "state": "opened", "salt": "", "payload": "{}"}, *rest)
        == "opening_salt_length"
    )


def test_a_payload_that_was_fixed_without_being_a_canonical_object_is_refused() -> None:
    for place, text in enumerate((b"[]", b'{"b": 1}', b'{"b":1.5}', b"no")):
        made = event("signal.recorded", start=place)
        commitment = sealed.seal.commit_payload(text, bytes(32)).hex()
        line = leaf.encode({**made, "seals": [["0" * 32, "audit", commitment]]})
        files = exported([line])
        opened = Payload(0, 0, "opened", bytes(32), text)
        terms = {"disclosed": ["audit"], "expires_ms": 1}
        forged = resigned({**files, "payloads.jsonl": opened.line() + b"\n"}, **terms)
        assert fault(forged) == "payload_not_canonical"


def test_an_open_payload_of_a_class_that_is_not_disclosed_is_refused() -> None:
    assert fault(resigned(OPEN, disclosed=["audit"])) == "payload_undisclosed"


def test_erased_points_at_a_leaf_that_erases_and_comes_after() -> None:
    def erased(by: int, which: int = 1) -> str:
        changed = list(sealed.OPENED)
        changed[which] = Payload(changed[which].index, changed[which].slot, "erased", by=by)
        return payload_lines(OPEN, *changed)

    assert erased(5) == "payload_erased_type"
    assert erased(0) == "payload_erased_before"
    assert erased(2, which=3) == "payload_erased_before"
    # One off: a leaf that is there, and one that is not.
    assert erased(3) == "payload_erased_type"
    assert erased(1) == "payload_erased_type"
    assert erased(6) == "payload_proof"
    assert erased(4) == "payload_erased_too_many"
    assert erased(4, which=0) == "payload_erased_class"
    assert erased(2, which=2) == "payload_erased_too_many"


def test_withheld_is_the_exporters_word_and_the_count_says_so() -> None:
    withheld = [Payload(item.index, item.slot, "withheld") for item in sealed.OPENED]
    report = verify_export(exported(sealed.LOG, found=withheld), TRUST)
    assert report.payloads == {"profile": {"withheld": 1}, "audit": {"withheld": 3}}
    assert payload_lines(OPEN, *withheld) == "manifest_payloads"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b'{"i":0,"s":0,"state":"open"}',
        b'{"i":0,"s":0,"state":["withheld"]}',
        b'{"i":0, "s":0,"state":"withheld"}',
        b'{"i":true,"s":0,"state":"withheld"}',
        b'{"i":-1,"s":0,"state":"withheld"}',
        b'{"i":0,"s":0,"state":"erased"}',
        b'{"by":"2","i":0,"s":0,"state":"erased"}',
        b'{"by":2,"i":0,"proof":7,"s":0,"state":"erased"}',
        b'{"i":0,"proof":"proofs/2.tlog-proof","s":0,"state":"withheld"}',
        b'{"i":0,"payload":"{}","s":0,"salt":"00","state":"opened"}',
        b'{"i":0,"payload":7,"s":0,"salt":"","state":"opened"}',
        b'{"i":0,"payload":"\\ud800","s":0,"salt":"","state":"opened"}',
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_a_hostile_payload_line_is_refused(line: bytes) -> None:
    assert payload_lines(OPEN, line) == "payload_malformed"


def test_a_leaf_that_erased_beyond_the_range_is_proven_under_a_later_checkpoint() -> None:
    assert fault(resigned(without(BEYOND, "proofs/2.tlog-proof"))) == "file_missing"
    assert fault(resigned(without(BEYOND, "proofs/later-checkpoint"))) == "file_missing"
    assert fault(resigned(without(BEYOND, "proofs/later-consistency"))) == "file_missing"
    unnamed = [Payload(0, 0, "withheld"), SECOND, Payload(1, 0, "withheld")]
    assert payload_lines(BEYOND, *unnamed) == "payload_proof"
    forked = [*sealed.LOG[:1], *sealed.LOG[2:], sealed.LOG[1]]
    fork = {**BEYOND, "proofs/later-checkpoint": head(forked).encode()}
    assert fault(resigned(fork)) == "proof_root"
    same = {**BEYOND, "proofs/later-checkpoint": BEYOND["checkpoint"]}
    assert fault(resigned(same)) == "later_size"
    unsigned = {**BEYOND, "proofs/later-checkpoint": head(sealed.LOG, STRANGER).encode()}
    assert fault(resigned(unsigned)) == "note_unknown_keys"
    begun = {**BEYOND, "proofs/later-consistency": growth(sealed.LOG, 1)}
    assert fault(resigned(begun)) == "later_consistency"


def growth(log: list[bytes], before: int) -> bytes:
    return exported(log, previous=before)["consistency"]


def test_a_consistency_proof_of_a_log_that_shrank_or_forked_is_refused() -> None:
    value = json.loads(PART["consistency"])

    def forged(**changes: Any) -> str:
        content = json.dumps({**value, **changes}, sort_keys=True, separators=(",", ":")).encode() + b"\n"
        return fault(resigned({**PART, "consistency": content}))

    assert forged(**{"from": len(LINES) + 1}) == "proof_sizes"
    assert forged(**{"from": 12}).startswith("proof_")
    assert forged(**{"from": 14}).startswith("proof_")
    assert forged(**{"from": 0}).startswith("proof_")
    assert forged(to=len(LINES) - 1) == "consistency_size"
    assert forged(root="00" * 32) == "proof_root"
    assert forged(hashes=value["hashes"][::-1]) == "proof_root"
    assert forged(hashes=value["hashes"][:-1]).startswith("proof_")
    assert forged(hashes=["AA=="]) == "proof_hash_length"
    assert forged(hashes=[7]) == "consistency_malformed"
    assert forged(more=1) == "consistency_malformed"
    assert fault(resigned({**PART, "consistency": PART["consistency"][:-1]})) == "consistency_malformed"


def against(files: dict[str, bytes], previous: dict[str, bytes]) -> str:
    return verify_export(files, TRUST, previous).fault.partition(":")[0]


def test_an_export_goes_on_from_the_one_before() -> None:
    assert against(PART, exported(LINES[:13])) == ""
    # Without a proof that begins there, where the hashes of the range span it, and at the same size.
    for size in range(5, 22):
        assert against(PART, exported(LINES[:size])) == ""
        assert against(HASHES, exported(LINES[:size])) == ("" if size <= 20 else "previous_gap")
    assert against(PART, FULL) == ""
    assert against(PART, exported(LINES[:4])) == "previous_gap"
    assert against(PART, exported(LINES[:22])) == "previous_gap"
    assert against(EVENTS, exported(LINES[:8])) == "previous_gap"


def test_an_export_of_another_log_or_of_a_fork_does_not_go_on() -> None:
    other = Signer("log.example/other", bytes([7]) * 32)
    both = f"{TRUST}{other.vkey()}\n"
    report = verify_export(PART, both, exported(LINES[:13], other))
    assert report.fault.startswith("previous_origin")
    for size in (5, 13, 20, len(LINES)):
        fork = [leaf.encode(event("job.deleted")), *LINES[1:size]]
        assert against(PART, exported(fork)) == "previous_root"
    longer = [*LINES, sealed.sealing("job.deleted", 99)]
    assert against(PART, exported(longer)) == "previous_size"
    assert against(PART, exported(LINES[:13], STRANGER)) == "note_unknown_keys"
    assert against(PART, {}) == "file_missing"


def test_time_that_goes_back_and_ids_that_come_twice_are_found_in_a_selection_too() -> None:
    late = [sealed.sealing("job.deleted", place) for place in (9, 0, 1)]
    files = exported(late, kind="events", entries=[(0, late[0]), (2, late[2])])
    assert fault(files).startswith("event_time")
    twice = [late[0], leaf.encode({**json.loads(late[0]), "t": START_MS + 9001})]
    assert fault(exported(twice, kind="hashes", entries=list(enumerate(twice)))) == "event_id_twice"


# Keys and witnesses.


def test_a_key_signs_a_manifest_only_for_sizes_at_which_it_is_believed() -> None:
    vkey = SIGNER.vkey()
    assert verify_export(SMALL, f"{vkey} until=3\n").verdict == "valid"
    assert fault(SMALL, f"{vkey} until=2\n") == "key_retired"
    assert fault(SMALL, f"{vkey} revoked=3\n") == "key_revoked"


def test_an_old_checkpoint_may_be_exported_under_the_key_of_today() -> None:
    new = Signer(ORIGIN, bytes([5]) * 32)
    keys = f"{SIGNER.vkey()} until=10\n{new.vkey()} from=10\n"
    policy = f"log {SIGNER.vkey()}\nlog {new.vkey()}\nquorum none\n"
    files = exported(SMALL_LINES, new, checkpoint=head(SMALL_LINES), keys=keys, policy=policy, derive=derive)
    assert verify_export(files, keys).fault == ""
    revoked = f"{SIGNER.vkey()}\n{new.vkey()} from=10 revoked=0\n"
    assert fault(files, revoked) == "key_revoked"
    stolen = f"{SIGNER.vkey()} until=10\n{new.vkey()} from=10 revoked=20\n"
    assert fault(files, stolen) == "key_not_begun"


def test_a_quorum_of_witnesses_is_asked_for_by_trust_and_every_signature_counts() -> None:
    witnesses = [Cosigner(name, bytes([place]) * 32) for place, name in enumerate(("w.one", "w.two"), 1)]
    signed = note.add_signatures(head(SMALL_LINES), [each.cosign(head(SMALL_LINES), 1) for each in witnesses])
    named = "".join(f"witness {each.name[2:]} {each.vkey()}\n" for each in witnesses)
    policy = f"log {SIGNER.vkey()}\n{named}group both all one two\nquorum both\n"
    files = exported(SMALL_LINES, checkpoint=signed, policy=policy)
    assert verify_export(files, policy).verdict == "valid"
    assert verify_export(files, TRUST).verdict == "valid"
    assert verify_export(files, None).verdict == "untrusted"
    bare = resigned({**files, "checkpoint": head(SMALL_LINES).encode()})
    assert fault(bare, policy).startswith("quorum")
    assert fault(bare) == "policy_unmet"
    assert fault(SMALL, policy).startswith("quorum")


# The folder and the command.


def test_a_folder_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_folder(laid(tmp_path, SMALL)) == SMALL


def test_a_link_is_refused_wherever_it_leads(tmp_path: Path) -> None:
    laid(tmp_path / "export", SMALL)
    (tmp_path / "outside").write_bytes(b"secret")
    for name, target in (
        ("a", tmp_path / "outside"),
        ("b", tmp_path),
        ("c", Path("checkpoint")),
        ("d", Path("gone")),
    ):
        link = tmp_path / "export" / name
        link.symlink_to(target)
        with pytest.raises(ExportInvalid, match="folder_link"):
            read_folder(tmp_path / "export")
        link.unlink()


def test_a_pipe_is_refused_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ExportInvalid, match="folder_special_file"):
        read_folder(tmp_path)


def test_folders_beyond_the_caps_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    laid(tmp_path, SMALL)
    monkeypatch.setattr("audit.folder.MAX_TOTAL_BYTES", 1000)
    with pytest.raises(ExportInvalid, match="folder_too_large"):
        read_folder(tmp_path)
    monkeypatch.setattr("audit.folder.MAX_TOTAL_BYTES", 1 << 20)
    monkeypatch.setattr("audit.folder.MAX_FILES", 3)
    with pytest.raises(ExportInvalid, match="folder_too_many_files"):
        read_folder(tmp_path)
    (tmp_path / "deep/deep/deep/deep/deep").mkdir(parents=True)
    monkeypatch.setattr("audit.folder.MAX_FILES", 1000)
    with pytest.raises(ExportInvalid, match="folder_too_deep"):
        read_folder(tmp_path)


def test_the_command_says_valid_invalid_untrusted_and_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(laid(tmp_path / "export", SMALL))
    trust = tmp_path / "trust.txt"
    trust.write_text(TRUST)
    assert verify.main([folder, "--trust", str(trust)]) == 0
    out, err = capsys.readouterr()
    assert (json.loads(out)["verdict"], err) == ("valid", "")

    assert verify.main([folder]) == 5
    out, err = capsys.readouterr()
    assert (json.loads(out)["verdict"], err.partition(":")[0]) == ("untrusted", "no_trust")

    (tmp_path / "export/entries.jsonl").write_bytes(b"")
    assert verify.main([folder, "--trust", str(trust)]) == 4
    out, err = capsys.readouterr()
    assert (json.loads(out)["verdict"], err.partition(":")[0]) == ("invalid", "file_changed")

    (tmp_path / "export/link").symlink_to("checkpoint")
    assert verify.main([folder, "--trust", str(trust)]) == 4
    assert capsys.readouterr().err.startswith("folder_link")

    trust.write_text("")
    assert verify.main([folder, "--trust", str(trust)]) == 2
    trust.write_bytes(b"\xff")
    assert verify.main([folder, "--trust", str(trust)]) == 2
    assert verify.main([folder, "--trust", str(tmp_path / "none")]) == 2
    assert verify.main([str(tmp_path / "none"), "--trust", str(trust)]) == 2
    with pytest.raises(SystemExit) as ended:
        verify.main([])
    assert ended.value.code == 2


def test_a_trust_file_inside_the_export_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = laid(tmp_path / "export", SMALL)
    link = tmp_path / "trust.txt"
    link.symlink_to(folder / "keys.txt")
    for trust in (folder / "keys.txt", folder / "policy" / ".." / "keys.txt", link):
        assert verify.main([str(folder), "--trust", str(trust)]) == 2
        assert capsys.readouterr().err.startswith("trust_inside")
    older = laid(tmp_path / "older", SMALL)
    assert verify.main([str(folder), "--trust", str(older / "keys.txt"), "--previous", str(older)]) == 2
    huge = tmp_path / "huge.txt"
    huge.write_bytes(b"#" * (2 << 20))
    assert verify.main([str(folder), "--trust", str(huge)]) == 2


def test_the_command_takes_the_previous_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "trust.txt").write_text(TRUST)
    folder = str(laid(tmp_path / "new", PART))
    command = [folder, "--trust", str(tmp_path / "trust.txt"), "--previous"]
    assert verify.main([*command, str(laid(tmp_path / "old", exported(LINES[:13])))]) == 0
    assert json.loads(capsys.readouterr().out)["continues"] == 13
    assert verify.main([*command, str(laid(tmp_path / "gap", exported(LINES[:2])))]) == 4
    assert capsys.readouterr().err.startswith("previous_gap")


def test_the_verifier_runs_alone_with_nothing_but_cryptography(tmp_path: Path) -> None:
    folder = laid(tmp_path / "export", SMALL)
    (tmp_path / "trust.txt").write_text(TRUST)
    program = (
        "import runpy, sys\n"
        "sys.argv[0] = 'verify'\n"
        "try:\n"
        "    runpy.run_module('audit.verify', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as ended:\n"
        "    code = ended.code\n"
        "theirs = {name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)\n"
        "print(code, *sorted(n for n in theirs if not n.startswith('_')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(folder), "--trust", str(tmp_path / "trust.txt")],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    code, *modules = done.stdout.splitlines()[-1].split()
    assert code == "0"
    assert {"audit", "cryptography"} <= set(modules)
    assert not {"pydantic", "gateway", "policy", "grpc", "lethe", "yaml"} & set(modules)
