"""`lethe audit fsck`: a log on disk, and the exit code it earns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from audit import note
from audit.cosign import Cosigner
from gateway.admin import fsck
from tests.unit.audit.logs import ORIGIN, STRANGER, TRUST
from tests.unit.audit.published import publish

LINES = [b"entry %d" % number for number in range(600)]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for path, content in publish(LINES).items():
        place = tmp_path / "log" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    (tmp_path / "trust.txt").write_text(TRUST)
    (tmp_path / "other.txt").write_text(STRANGER.vkey() + "\n")
    (tmp_path / "empty.txt").touch()
    return tmp_path


def test_a_log_that_is_whole_is_valid(lethe, files) -> None:
    result = lethe("audit", "fsck", files / "log", "--trust", files / "trust.txt", "-o", "json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert (report["verdict"], report["origin"], report["entries"]) == ("valid", ORIGIN, 600)
    assert result.stderr == ""


def test_a_log_checked_without_trust_is_not_called_valid(lethe, files) -> None:
    result = lethe("audit", "fsck", files / "log", "-o", "json")
    assert result.exit_code == 5
    assert json.loads(result.stdout)["verdict"] == "untrusted"
    assert "error: TRUST_MISSING" in result.stderr


def test_the_first_fault_is_named_on_stderr_and_in_the_report(lethe, files) -> None:
    bundle = files / "log/tile/entries/001"
    bundle.write_bytes(bundle.read_bytes().replace(b"entry 300", b"entry 3OO"))
    (files / "log/tile/entries/002.p/88").unlink()
    result = lethe("audit", "fsck", files / "log", "--trust", files / "trust.txt", "-o", "json")
    assert result.exit_code == 4
    report = json.loads(result.stdout)
    assert (report["verdict"], report["path"], report["index"]) == ("invalid", "tile/entries/001", 300)
    assert "error: LOG_INVALID: entry_differs: tile/entries/001, entry 300" in result.stderr


@pytest.mark.parametrize("path", ["checkpoint", "tile/0/001", "tile/1/000.p/2", "tile/entries/002.p/88"])
def test_whatever_is_missing_is_named(lethe, files, path) -> None:
    (files / "log" / path).unlink()
    result = lethe("audit", "fsck", files / "log", "--trust", files / "trust.txt")
    assert result.exit_code == 4
    assert path in result.stderr


def test_the_keys_of_another_log_make_it_invalid(lethe, files) -> None:
    result = lethe("audit", "fsck", files / "log", "--trust", files / "other.txt")
    assert result.exit_code == 4
    assert "note_unknown_keys" in result.stderr


WITNESS = Cosigner("witness.test/w", bytes(range(32)), "ed25519")


def test_a_policy_asks_for_its_quorum(lethe, files) -> None:
    key = TRUST.splitlines()[-1]
    (files / "policy.txt").write_text(f"log {key}\nwitness w {WITNESS.vkey()}\nquorum w\n")
    command = ("audit", "fsck", files / "log", "--trust", files / "policy.txt")
    result = lethe(*command)
    assert result.exit_code == 4
    assert "error: LOG_INVALID: quorum_not_met: checkpoint" in result.stderr
    checkpoint = files / "log/checkpoint"
    text = checkpoint.read_text()
    checkpoint.write_text(note.add_signatures(text, [WITNESS.cosign(text, 1_800_000_000)]))
    assert lethe(*command).exit_code == 0


def test_a_key_signs_the_sizes_that_the_trust_file_gives_it(lethe, files) -> None:
    for limit, code, word in (
        ("from=600", 0, ""),
        ("until=599", 4, "key_retired"),
        ("from=601", 4, "key_not_begun"),
        ("revoked=600", 4, "key_revoked"),
    ):
        (files / "keys.txt").write_text("".join(f"{line} {limit}\n" for line in TRUST.splitlines()))
        result = lethe("audit", "fsck", files / "log", "--trust", files / "keys.txt")
        assert (result.exit_code, word in result.stderr) == (code, True)


def test_a_trust_file_in_the_log_itself_is_refused(lethe, files) -> None:
    (files / "log/keys.txt").write_text(TRUST)
    result = lethe("audit", "fsck", files / "log", "--trust", files / "log/keys.txt")
    assert result.exit_code == 2
    assert "error: TRUST_INVALID: trust_inside" in result.stderr


def test_a_folder_or_a_configuration_is_needed_and_not_both(lethe, files) -> None:
    assert lethe("audit", "fsck").exit_code == 2
    assert lethe("audit", "fsck", files / "log", "--config", files / "lethe.yaml").exit_code == 2
    result = lethe("audit", "fsck", "--config", files / "lethe.yaml")
    assert result.exit_code == 1
    assert "error: CONFIG_INVALID" in result.stderr


def test_what_was_pruned_is_no_fault_below_the_minimum_index(lethe, files) -> None:
    (files / "log/tile/entries/000").unlink()
    command = ("audit", "fsck", files / "log", "--trust", files / "trust.txt", "-o", "json")
    assert lethe(*command).exit_code == 4
    result = lethe(*command, "--min-index", "256")
    assert (result.exit_code, json.loads(result.stdout)["pruned"]) == (0, 256)


def test_entries_are_read_as_events_only_when_asked_for(lethe, files) -> None:
    result = lethe("audit", "fsck", files / "log", "--trust", files / "trust.txt", "--deep")
    assert result.exit_code == 4
    assert "leaf_json: tile/entries/000, entry 0" in result.stderr


def test_a_trust_file_without_a_key_or_no_folder_is_a_usage_error(lethe, files) -> None:
    result = lethe("audit", "fsck", files / "log", "--trust", files / "empty.txt")
    assert result.exit_code == 2
    assert "error: TRUST_INVALID" in result.stderr
    assert lethe("audit", "fsck", files / "nothing").exit_code == 2
    assert lethe("audit", "fsck", files / "log", "--min-index", "-1").exit_code == 2


def test_a_disk_that_refuses_is_a_failure_and_no_verdict(lethe, files, monkeypatch) -> None:
    def refuse(*_arguments: object, **_named: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.open", refuse)
    result = lethe("audit", "fsck", files / "log")
    assert result.exit_code == 1
    assert "error: FILE_UNREADABLE" in result.stderr
    assert result.stdout == ""


def test_progress_is_shown_where_a_person_looks(lethe, files, monkeypatch) -> None:
    shown: list[str] = []

    class Shown:
        def __enter__(self):
            return shown.append

        def __exit__(self, *_raised: object) -> None:
            pass

    monkeypatch.setattr(fsck, "progress", Shown)
    monkeypatch.setattr(fsck, "SHOWN_EVERY", 256)
    lethe("audit", "fsck", files / "log")
    assert shown == ["256 entries", "512 entries"]
