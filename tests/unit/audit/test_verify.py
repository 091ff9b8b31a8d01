from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from audit import checkpoint, export, leaf, verify
from audit.errors import ExportInvalid, TrustInvalid
from audit.note import Signer
from audit.verify import read_folder, verify_export
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
SMALL_LINES = lines(["subject.upserted", "decision.made", "subject.erased"])
SMALL = exported(SMALL_LINES)
FULL = exported()


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
        for place in range(len(content)):
            for bit in (1, 0x20, 0x80):
                flipped = bytearray(content)
                flipped[place] ^= bit
                report = verify_export({**SMALL, path: bytes(flipped)}, TRUST)
                assert (report.verdict, bool(report.fault)) == ("invalid", True), (path, place)


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
    reading_head = head(entries) if note is None else note
    content = b"".join(line + b"\n" for line in entries)
    return resigned({**SMALL, "entries.jsonl": content, "checkpoint": reading_head.encode()})


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
    assert fault(resigned(truncated)) == "entries_truncated"


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
    ("path", "content"),
    [
        ("payloads.jsonl", b"{}\n"),
        ("proofs/right-edge", b"lethe.dev/compact-range/v1\nrange 0 3\n"),
        ("consistency", b'{"from":1,"hashes":[],"state":"starts_at_zero","to":3}\n'),
        ("events.csv", SMALL["events.csv"].replace(b"subject.erased", b"subject.upserted")),
        ("policy.txt", f"log {STRANGER.vkey()}\nquorum none\n".encode()),
        ("policy.txt", b"quorum none\n"),
    ],
)
def test_what_is_derived_is_derived_again(path: str, content: bytes) -> None:
    assert fault(resigned({**SMALL, path: content})) == "derived_differs"


def test_keys_that_do_not_name_the_signer_are_refused() -> None:
    assert fault(resigned({**SMALL, "keys.txt": STRANGER.vkey().encode() + b"\n"})) == "keys_differ"
    assert fault(resigned({**SMALL, "keys.txt": b"\xff\n"})) == "file_not_text"


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "lethe.dev/audit-export/v2"},
        {"origin": "log.example/other"},
        {"origin": 7},
        {"from": 1},
        {"to": 4},
        {"size": 4},
        {"root": "00" * 32},
        {"counts": {}},
        {"files": []},
        {"files": {}},
        {"files": {"checkpoint": 7}},
        {"more": 1},
        {"size": True},
        {"size": 1 << 60},
    ],
)
def test_a_signed_manifest_that_says_something_else_is_refused(changes: dict[str, Any]) -> None:
    value = {**json.loads(SMALL["manifest.json"]), **changes}
    manifest = json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    signature = SIGNER.sign(export.statement(ORIGIN, manifest)).encode()
    assert (
        verify_export({**SMALL, "manifest.json": manifest, "manifest.sig": signature}, TRUST).verdict
        == "invalid"
    )


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
    assert fault({**SMALL, "manifest.json": manifest, "manifest.sig": signature}) == "derived_differs"


def test_a_signature_over_another_text_is_refused() -> None:
    assert fault({**SMALL, "manifest.sig": SMALL["checkpoint"]}) == "manifest_signature"


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

    (tmp_path / "export/events.csv").write_bytes(b"")
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
