"""What needs no gateway: verdicts become exit codes, and files are found where they lie."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import typer
from lethe.v1 import audit_pb2

from audit.note import Signer
from audit.replay import ReplayReport
from gateway.admin.replay import judge_completeness
from tests.unit.admin.small_log import DSR, ORIGIN, SmallLog, small_log


@pytest.fixture(scope="module")
def log() -> SmallLog:
    return small_log()


@pytest.fixture
def files(log: SmallLog, tmp_path: Path) -> Path:
    for name, content in log.export.items():
        path = tmp_path / "export" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "trust.txt").write_text(log.trust)
    (tmp_path / "other.txt").write_text(Signer(ORIGIN, bytes(32)).vkey() + "\n")
    (tmp_path / "c.tlog-proof").write_text(log.certificate)
    (tmp_path / "c.opening.json").write_bytes(log.opening)
    return tmp_path


# --- exports ----------------------------------------------------------------------------------


def test_an_export_that_was_fetched_is_valid(log, gateway, lethe, layout, files) -> None:
    parts = []
    for name, content in log.export.items():
        parts += [audit_pb2.ExportResponse(file=name), audit_pb2.ExportResponse(chunk=content)]
    gateway.script["AuditService/Export"] = parts
    out = files / "fetched"
    assert lethe("audit", "export", "--out", out, "--as", layout.profile("auditor")).exit_code == 0
    result = lethe("audit", "verify", out, "--trust", files / "trust.txt", "-o", "json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert (report["verdict"], report["origin"], report["size"]) == ("valid", ORIGIN, 2)
    assert report["counts"]["subject.erased"] == 1
    assert result.stderr == ""


def test_without_trust_nothing_is_called_valid(lethe, files) -> None:
    result = lethe("audit", "verify", files / "export", "-o", "json")
    assert result.exit_code == 5
    assert json.loads(result.stdout)["verdict"] == "untrusted"
    assert "error: TRUST_MISSING" in result.stderr


def test_trust_in_another_key_makes_it_invalid(lethe, files) -> None:
    assert lethe("audit", "verify", files / "export", "--trust", files / "other.txt").exit_code == 4


def test_a_changed_export_is_invalid_and_the_fault_is_named(lethe, files) -> None:
    with (files / "export/entries.jsonl").open("ab") as entries:
        entries.write(b"{}\n")
    result = lethe("audit", "verify", files / "export", "--trust", files / "trust.txt", "-o", "json")
    assert result.exit_code == 4
    assert json.loads(result.stdout)["verdict"] == "invalid"
    assert "error: PROOF_INVALID: file_changed" in result.stderr


def test_a_link_in_an_export_is_invalid(lethe, files) -> None:
    (files / "export/link").symlink_to(files / "trust.txt")
    result = lethe("audit", "verify", files / "export", "--trust", files / "trust.txt")
    assert result.exit_code == 4
    assert "folder_link" in result.stderr


def test_replay_names_each_rule_that_is_broken(lethe, files) -> None:
    """The small log certifies an erasure that nobody approved."""
    trusted = ("audit", "verify", files / "export", "--trust", files / "trust.txt", "--replay")
    result = lethe(*trusted, "-o", "json")
    assert result.exit_code == 4
    replay = json.loads(result.stdout)["replay"]
    assert (replay["verdict"], replay["violation_count"]) == ("violated", 1)
    assert replay["violations"][0]["rule"] == "not_approved"
    assert "violation: entry 1 (subject.erased) not_approved" in result.stderr
    assert "error: REPLAY_VIOLATED" in result.stderr
    assert "not_approved" in lethe(*trusted).stdout


def test_what_cannot_be_replayed_is_never_simply_good() -> None:
    report = ReplayReport((), full=1, coded=2, not_replayable=3, reasons={"codes_missing": 3}, promises={})
    with pytest.raises(typer.Exit) as ended:
        judge_completeness(report)
    assert ended.value.exit_code == 5
    judge_completeness(dataclasses.replace(report, not_replayable=0))


def test_an_invalid_export_is_not_replayed(lethe, files) -> None:
    with (files / "export/entries.jsonl").open("ab") as entries:
        entries.write(b"{}\n")
    result = lethe(
        "audit", "verify", files / "export", "--trust", files / "trust.txt", "--replay", "-o", "json"
    )
    assert result.exit_code == 4
    assert "replay" not in json.loads(result.stdout)


@pytest.mark.parametrize(
    "command", [("audit", "verify", "export"), ("certificate", "verify", "c.tlog-proof")], ids=" ".join
)
def test_a_trust_file_without_a_key_is_a_usage_error(lethe, files, command) -> None:
    *verb, name = command
    (files / "empty.txt").touch()
    result = lethe(*verb, files / name, "--trust", files / "empty.txt")
    assert result.exit_code == 2
    assert "error: TRUST_INVALID" in result.stderr
    assert lethe(*verb, files / name, "--trust", files / "none").exit_code == 2


# --- certificates -----------------------------------------------------------------------------


def test_a_certificate_is_verified_with_the_opening_beside_it(lethe, files) -> None:
    result = lethe(
        "certificate", "verify", files / "c.tlog-proof", "--trust", files / "trust.txt", "-o", "json"
    )
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert (report["verdict"], report["leaf"]["ty"]) == ("valid", "subject.erased")
    assert report["opening"]["dsr"] == f"dsrs/{DSR}"


def test_a_certificate_may_come_without_its_opening(lethe, files) -> None:
    (files / "c.opening.json").unlink()
    result = lethe(
        "certificate", "verify", files / "c.tlog-proof", "--trust", files / "trust.txt", "-o", "json"
    )
    assert result.exit_code == 0
    assert json.loads(result.stdout)["opening"] is None


def test_a_certificate_without_trust_is_not_called_valid(lethe, files) -> None:
    result = lethe("certificate", "verify", files / "c.tlog-proof")
    assert result.exit_code == 5
    assert "error: TRUST_MISSING" in result.stderr


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.opening.json", b'{"payload": "{}", "salt": "' + b"0" * 64 + b'"}'),
        ("c.tlog-proof", b"no proof"),
        ("c.tlog-proof", b"\xff\xfe"),
        ("c.tlog-proof", b""),
    ],
)
def test_a_forged_certificate_is_invalid(lethe, files, name, content) -> None:
    (files / name).write_bytes(content)
    for verb in ("verify", "show"):
        result = lethe("certificate", verb, files / "c.tlog-proof")
        assert result.exit_code == 4
        assert "error: PROOF_INVALID" in result.stderr


def test_a_table_writes_the_instants_of_a_certificate_as_people_do(lethe, files) -> None:
    result = lethe("certificate", "show", files / "c.tlog-proof")
    assert re.search(r"^leaf\.t +20\d\d-\d\d-\d\dT", result.stdout, re.MULTILINE)
    assert not re.search(r"\b1\d{12}\b", result.stdout)
    assert re.search(
        r'"t": 1\d{12}\b', lethe("certificate", "show", files / "c.tlog-proof", "-o", "json").stdout
    )


def test_showing_a_certificate_vouches_for_nothing(lethe, files) -> None:
    result = lethe("certificate", "show", files / "c.tlog-proof", "-o", "json")
    assert result.exit_code == 0
    assert "verdict" not in json.loads(result.stdout)
    assert "not verified" in result.stderr


# --- the configuration ------------------------------------------------------------------------


def test_the_configuration_is_shown_without_its_password(layout, lethe, monkeypatch) -> None:
    monkeypatch.setenv("LETHE__RECORDS__URL", "postgresql://lethe:hunter2@db:5432/lethe")
    result = lethe("config", "show", "--config", layout.config, "-o", "json")
    assert result.exit_code == 0
    assert "hunter2" not in result.output
    assert json.loads(result.stdout)["records"]["url"] == "postgresql://lethe:***@db:5432/lethe"


def test_a_configuration_with_an_unknown_key_or_a_missing_file_fails(layout, lethe, tmp_path: Path) -> None:
    text = layout.config.read_text()
    (tmp_path / "odd.yaml").write_text(text + "color: blue\n")
    (tmp_path / "far.yaml").write_text(text)
    for name, named in (("odd.yaml", "color"), ("far.yaml", "listen.cert")):
        result = lethe("config", "check", "--config", tmp_path / name)
        assert result.exit_code == 1
        assert "error: CONFIG_INVALID" in result.stderr
        assert named in result.stderr


def test_the_certificates_of_a_timestamping_authority_are_looked_for(layout, lethe, monkeypatch) -> None:
    monkeypatch.setenv("LETHE__AUDIT__TIMESTAMPS__URL", "https://tsa.test/")
    monkeypatch.setenv("LETHE__AUDIT__TIMESTAMPS__ROOTS", "roots.pem")
    result = lethe("config", "check", "--config", layout.config)
    assert result.exit_code == 1
    assert "audit.timestamps.roots" in result.stderr
    monkeypatch.setattr("gateway.settings.find_spec", lambda _name: None)
    result = lethe("config", "check", "--config", layout.config)
    assert "error: CONFIG_INVALID: audit.timestamps needs the extra `timestamp`" in result.stderr


def test_a_trust_file_that_lies_in_the_export_vouches_for_nothing(lethe, files) -> None:
    inside = files / "export" / "keys.txt"
    result = lethe("audit", "verify", files / "export", "--trust", inside)
    assert result.exit_code == 2
    assert "trust_inside" in result.stderr


def test_an_export_is_checked_against_the_one_before_it(lethe, files) -> None:
    trust, export = files / "trust.txt", files / "export"
    (files / "nothing").mkdir()
    verdicts = {
        name: lethe("audit", "verify", export, "--trust", trust, "--previous", files / name).exit_code
        for name in ("nothing", "export")
    }
    assert verdicts["nothing"] == 4
    assert verdicts["export"] == 0  # of the same checkpoint: nothing was to grow


# --- the proof of one event --------------------------------------------------------------------


@pytest.mark.parametrize("by", ["index", "event"])
def test_a_proof_is_made_of_an_export_and_verified_without_a_gateway(lethe, files, by) -> None:
    entry = json.loads((files / "export/entries.jsonl").read_text().splitlines()[1])
    named = {"index": ("--index", "1"), "event": ("--event", entry["id"])}[by]
    trusted = ("--trust", files / "trust.txt")
    made = lethe("audit", "prove", files / "export", *named, *trusted, "--out", files / "e.tlog-proof")
    assert made.exit_code == 0
    result = lethe("audit", "verify", files / "e.tlog-proof", *trusted, "-o", "json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert ("valid", ORIGIN, 1, 2, entry) == tuple(
        report[name] for name in ("verdict", "origin", "index", "size", "leaf")
    )


def test_a_proof_from_an_export_goes_to_stdout_too(lethe, files) -> None:
    asked = ("audit", "prove", files / "export", "--index", "1", "--trust", files / "trust.txt")
    assert lethe(*asked).stdout == (files / "c.tlog-proof").read_text()
    assert json.loads(lethe(*asked, "-o", "json").stdout)["tlog_proof"] == lethe(*asked).stdout


def test_a_proof_without_trust_is_as_good_as_its_export(lethe, files) -> None:
    made = lethe("audit", "prove", files / "export", "--index", "0", "--out", files / "e.tlog-proof")
    assert made.exit_code == 5
    assert "error: TRUST_MISSING" in made.stderr
    result = lethe("audit", "verify", files / "e.tlog-proof")
    assert result.exit_code == 5
    assert "error: TRUST_MISSING" in result.stderr


def test_nothing_is_proven_from_an_export_that_is_not_valid(lethe, files) -> None:
    with (files / "export/entries.jsonl").open("ab") as entries:
        entries.write(b"{}\n")
    asked = ("audit", "prove", files / "export", "--index", "0", "--trust", files / "trust.txt")
    result = lethe(*asked, "--out", files / "e.tlog-proof")
    assert result.exit_code == 4
    assert "error: PROOF_INVALID: file_changed" in result.stderr
    assert not (files / "e.tlog-proof").exists()


@pytest.mark.parametrize("named", [("--index", "2"), ("--event", "f" * 32), ("--event", "odd")])
def test_an_event_that_the_export_does_not_hold_is_not_found(lethe, files, named) -> None:
    result = lethe("audit", "prove", files / "export", *named, "--trust", files / "trust.txt")
    assert result.exit_code == 1
    assert "error: NOT_FOUND" in result.stderr


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("index 1", "index 0"),
        lambda text: text.replace(f"{ORIGIN}\n2\n", f"{ORIGIN}\n3\n"),
        lambda text: text[:-3],
        lambda text: text.upper(),
    ],
)
def test_a_proof_that_was_changed_is_invalid_and_the_fault_is_named(lethe, files, change) -> None:
    proof = files / "c.tlog-proof"
    proof.write_text(change(proof.read_text()))
    result = lethe("audit", "verify", proof, "--trust", files / "trust.txt")
    assert result.exit_code == 4
    assert "error: PROOF_INVALID" in result.stderr


def test_a_proof_of_another_log_is_invalid(lethe, files) -> None:
    assert lethe("audit", "verify", files / "c.tlog-proof", "--trust", files / "other.txt").exit_code == 4


def test_what_is_for_exports_is_not_for_the_proof_of_one_event(lethe, files) -> None:
    for option in (("--replay",), ("--previous", files / "export")):
        assert lethe("audit", "verify", files / "c.tlog-proof", *option).exit_code == 2
    assert lethe("audit", "prove", "--index", "0", "--trust", files / "trust.txt").exit_code == 2
