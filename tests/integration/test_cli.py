"""`lethe` as a person types it: a process of its own each time, against a gateway that runs."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from lethe.v1 import subject_pb2

from gateway.admin.folder import Layout
from tests.command import terminal
from tests.fakes.inference import FakeInference
from tests.gateway import NOTICE_TEXT, PORTRAIT, Gateway, running
from tests.integration.conftest import SUBJECT, weights_folder

NOTICE = f"""
name: notices/portraits
language: en
title: Your portrait
text: {NOTICE_TEXT}
purposes: [generate]
retention_term: 24 hours
recipients: [studio]
withdrawal_method: one tap in the app
"""
CONSENT = (
    "--purpose generate --form explicit --separate --act checkbox --channel web "
    "--notice portraits --notice-version 1 --notice-language en"
)


@dataclass(frozen=True)
class Said:
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        assert self.code == 0, self.err
        return json.loads(self.out)


async def lethe(line: str, *rest: str | Path, stdin: str = "", **env: str) -> Said:
    """Run `lethe` with the words of a line, then with `rest` as it stands."""
    run = partial(terminal().run, stdin=stdin, env={**os.environ, "NO_COLOR": "1", **env})
    done = await asyncio.to_thread(run, *line.split(), *rest)
    assert "Traceback" not in done.stderr
    return Said(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Shell:
    """A person at a terminal in a folder, who may call as any of the profiles."""

    layout: Layout
    folder: Path

    async def as_(self, who: str, line: str, *rest: str | Path, stdin: str = "") -> Said:
        return await lethe(line, *rest, stdin=stdin, LETHE_CLIENT=str(self.layout.profile(who)))


@pytest.fixture
def records_url() -> str:
    """SQLite only: which database keeps the records does not reach the command line."""
    return ""


@pytest.fixture
async def shell(gateway: Gateway, tmp_path: Path) -> Shell:
    """A shell beside a gateway whose subject has consented, all of it typed."""
    me = Shell(gateway.layout, tmp_path)
    (tmp_path / "id.txt").write_text(f"{SUBJECT}\n")
    published = await me.as_("officer", "notice publish -o json --file -", stdin=NOTICE)
    assert published.json["notice"]["version"] == 1
    person = f"subject: {SUBJECT}\nresidence: DE\nbirth_year: 1980\n"
    assert (await me.as_("app", "subject upsert --file -", stdin=person)).code == 0
    recorded = await me.as_("app", f"consent record -o json {CONSENT} --subject-file", tmp_path / "id.txt")
    assert recorded.json["consent"]["name"].startswith("consents/")
    return me


async def test_an_officer_answers_for_access_and_for_erasure(gateway, shell) -> None:
    """From the letters on the desk to the package, the certificate, and an auditor who finds nothing wrong.

    Rule:
        GDPR Art. 12(3), 15, 17
    """
    id_file, headshot = shell.folder / "id.txt", shell.folder / "headshot.jpg"

    # A picture is made, written whole and for its owner only.
    words = "generate --notice portraits --style studio_grey -o json --subject-file"
    made = await shell.as_("app", words, id_file, "--out", headshot, PORTRAIT)
    assert made.json["job"]["state"] == "STATE_SUCCEEDED"
    assert headshot.read_bytes().startswith(b"\xff\xd8\xff")
    assert stat.S_IMODE(headshot.stat().st_mode) == 0o600

    # Access: opened as of the day it arrived, verified, looked at, approved by a second person, handed over.
    arrived = f"--received-at {(datetime.now(UTC) - timedelta(days=3)).isoformat(timespec='seconds')}"
    access = await _opened(shell, f"access {arrived}")
    assert access["due_date"] > datetime.now(UTC).date().isoformat()
    package = shell.folder / "package.zip"
    early = await shell.as_("officer", "dsr package", access["name"], "--out", package)
    assert (early.code, package.exists()) == (1, False)
    assert "STATE_CONFLICT" in early.err
    assert (await shell.as_("officer", "dsr verify --method account_session", access["name"])).code == 0
    await _approved(shell, APPROVE, access["name"])
    assert (await shell.as_("officer", "dsr package", access["name"], "--out", package)).code == 0
    with zipfile.ZipFile(package) as opened:
        assert {"index.html", "data.json", "images/001-output.jpg"} <= {*opened.namelist()}

    # Erasure: acknowledged, looked at; something arrives, so it is looked at again.
    erasure = await _opened(shell, f"erasure {arrived}")
    dsr, letter = erasure["name"], shell.folder / "letter.txt"
    assert (await shell.as_("officer", "dsr letter --language de", dsr, "--out", letter)).code == 0
    assert erasure["due_date"] in letter.read_text()
    assert SUBJECT not in letter.read_text()
    stale = await _previewed(shell, dsr)
    assert (await shell.as_("app", f"consent record {CONSENT} --subject-file", id_file)).code == 0
    refused = await shell.as_("second-officer", f"{APPROVE} --etag", stale, dsr)
    assert (refused.code, refused.out) == (1, "")
    assert "error: PREVIEW_STALE (changed)" in refused.err
    assert "added: consents/" in refused.err
    etag = await _previewed(shell, dsr)
    alone = await shell.as_("officer", f"{APPROVE} --etag", etag, dsr)
    assert (alone.code, alone.out) == (3, "")
    assert "SECOND_PERSON_REQUIRED" in alone.err
    due = await shell.as_("officer", "dsr list --due")
    assert [line.split()[0] for line in due.out.splitlines()] == ["NAME", dsr]
    await _approved(shell, f"{APPROVE} --etag {etag}", dsr)

    # The certificate is checked without the gateway.
    proof = shell.folder / "erasure.tlog-proof"
    for _ in range(50):
        fetched = await shell.as_("officer", "dsr certificate --force", dsr, "--out", proof)
        if fetched.code == 0:
            break
        assert "not_sequenced" in fetched.err
    assert fetched.code == 0
    valid = await lethe("certificate verify -o json", proof, "--trust", shell.layout.trust)
    assert (valid.json["verdict"], valid.err) == ("valid", "")
    assert valid.json["opening"]["dsr"] == dsr
    opening = proof.with_suffix(".opening.json")
    opening.write_bytes(opening.read_bytes().replace(b"gdpr", b"ccpa"))
    assert (await lethe("certificate verify", proof, "--trust", shell.layout.trust)).code == 4

    # Whoever was erased is refused from now on.
    again = await shell.as_("app", f"consent record {CONSENT} --subject-file", id_file)
    assert (again.code, again.out) == (3, "")
    assert "SUBJECT_BLOCKED" in again.err
    assert SUBJECT not in again.err

    # An auditor decides everything again, and finds every promise kept.
    export = shell.folder / "export"
    assert (await shell.as_("auditor", "audit export --out", export)).code == 0
    audited = await lethe("audit verify -o json --replay", export, "--trust", shell.layout.trust)
    replay = audited.json["replay"]
    assert (audited.json["verdict"], replay["violation_count"], replay["not_replayable"]) == ("valid", 0, 0)
    assert replay["promises"]["answered_in_time"]["kept"] == 2
    assert (export / "report.html").is_file()


APPROVE = "dsr approve --reason subject_asked --apply --wait -o json"


async def _opened(shell: Shell, what: str) -> dict[str, Any]:
    """Open a request of the subject, whose id comes on stdin."""
    line = f"dsr open --regime gdpr -o json --subject-file - --kind {what}"
    return (await shell.as_("officer", line, stdin=SUBJECT)).json["dsr"]


async def _previewed(shell: Shell, dsr: str) -> str:
    return (await shell.as_("officer", "dsr preview -o json", dsr)).json["preview_etag"]


async def _approved(shell: Shell, line: str, dsr: str) -> None:
    assert (await shell.as_("second-officer", line, dsr)).json["dsr"]["state"] == "STATE_FULFILLED"


async def test_a_hold_is_placed_stops_a_deletion_and_is_released(shell) -> None:
    id_file = shell.folder / "id.txt"
    made = await shell.as_(
        "app",
        "generate --notice portraits --style studio_grey -o json --subject-file",
        id_file,
        "--out",
        shell.folder / "headshot.jpg",
        PORTRAIT,
    )
    assert made.code == 0, made.err
    rule = ("--rule", "GDPR Art. 17(3)(e)", "--subject-file", id_file)
    placed = (await shell.as_("officer", "hold place --class content -o json", *rule)).json["hold"]
    assert placed["subject"] == f"subjects/{SUBJECT}"
    due = (await shell.as_("officer", "retention due -o json --before 2099-01-01T00:00:00Z")).json["items"]
    assert [item["hold"] for item in due] == [placed["name"]]
    kept = await shell.as_("officer", "subject delete-object --reason test --apply", due[0]["object"])
    assert kept.code == 3
    assert "HOLD_ACTIVE" in kept.err
    assert (await shell.as_("app", "hold list")).code == 3
    held = (await shell.as_("officer", "hold list -o json")).json["holds"]
    assert [hold["name"] for hold in held] == [placed["name"]]
    rehearsed = await shell.as_("officer", "hold release --reason closed -o json", placed["name"])
    assert rehearsed.json["rehearsal"] is True
    released = await shell.as_("officer", "hold release --reason closed --apply", placed["name"])
    assert released.code == 0, released.err
    gone = await shell.as_("officer", "subject delete-object --reason test --apply", due[0]["object"])
    assert gone.code == 0, gone.err


async def test_a_sweep_is_rehearsed_then_done_and_debts_are_listed(shell) -> None:
    rehearsed = await shell.as_("officer", "retention sweep --reason complaint -o json")
    assert (rehearsed.code, "receipt" in rehearsed.json) == (0, False)
    swept = await shell.as_("officer", "retention sweep --reason complaint --apply -o json")
    assert (swept.code, "receipt" in swept.json) == (0, True)
    denied = await shell.as_("auditor", "retention sweep --reason complaint --apply")
    assert (denied.code, "ROLE_REQUIRED" in denied.err) == (3, True)
    assert (await shell.as_("auditor", "retention debts -o json")).json.get("debts", []) == []


async def test_the_retention_schedule_is_published(shell) -> None:
    rules = (await shell.as_("auditor", "retention schedule -o json")).json["rules"]
    assert {"GDPR", "CCPA", "PIPEDA", "HOUSE", "DEPLOYMENT"} <= {rule["regime"] for rule in rules}
    page = await shell.as_("auditor", "retention schedule --publish markdown")
    assert "## GDPR" in page.out
    assert page.out.count("\n## ") == len({rule["regime"] for rule in rules})
    page = await shell.as_("auditor", "retention schedule --publish html")
    assert page.out.startswith("<!doctype html>")
    assert page.out.count("<tr>") == len(rules) + page.out.count("<table>")


async def test_an_export_is_valid_changed_or_not_trusted(shell) -> None:
    export, trust = shell.folder / "export", shell.folder / "trust.txt"
    trust.write_text((await shell.as_("auditor", "audit head --keys")).out)
    assert trust.read_text() == shell.layout.trust.read_text()

    denied = await shell.as_("app", "audit export --out", export)
    assert (denied.code, export.exists()) == (3, False)
    assert "ROLE_REQUIRED" in denied.err
    assert (await shell.as_("auditor", "audit export --out", export)).code == 0

    valid = await lethe("audit verify -o json", export, "--trust", trust)
    assert (valid.json["verdict"], valid.err) == ("valid", "")
    untrusted = await lethe("audit verify", export)
    assert untrusted.code == 5
    assert "TRUST_MISSING" in untrusted.err

    entries = export / "entries.jsonl"
    content = bytearray(entries.read_bytes())
    content[len(content) // 2] ^= 1
    entries.write_bytes(content)
    changed = await lethe("audit verify", export, "--trust", trust)
    assert changed.code == 4
    assert "PROOF_INVALID" in changed.err
    assert "entries.jsonl" in changed.err


async def test_refusals_and_mistakes_have_exit_codes_of_their_own(shell) -> None:
    id_file, out = shell.folder / "id.txt", shell.folder / "out.jpg"
    make = "generate --notice portraits --style studio_grey"

    # 3: policy says no, and nothing is written.
    assert (await shell.as_("app", "consent withdraw --purpose generate --subject-file", id_file)).code == 0
    denied = await shell.as_("app", f"{make} --subject-file", id_file, "--out", out, PORTRAIT)
    assert (denied.code, denied.out, out.exists()) == (3, "", False)
    assert "DENY_CONSENT_WITHDRAWN" in denied.err
    check = await shell.as_("app", "consent check --purpose generate -o json --subject-file", id_file)
    assert (check.code, json.loads(check.out)["decision"]["allowed"]) == (3, False)

    # 1: it failed.
    missing = await shell.as_("officer", f"dsr show dsrs/{'0' * 32}")
    assert (missing.code, missing.out) == (1, "")
    assert "NOT_FOUND" in missing.err

    # 2: it was not said right; a person's id does not belong on argv and is not repeated.
    named = await shell.as_("app", f"{make} --subject {SUBJECT}", "--out", out, PORTRAIT)
    assert named.code == 2
    assert SUBJECT not in named.err
    assert (await lethe("audit head", LETHE_CLIENT="")).code == 2
    assert (await shell.as_("auditor", "audit verify /nowhere/at/all")).code == 2


async def test_a_receipt_is_verified_offline_and_withdraws_by_itself(gateway, shell) -> None:
    id_file, receipt, trust = shell.folder / "id.txt", shell.folder / "r.jsonld", shell.folder / "trust.txt"
    listed = await shell.as_("officer", "consent list -o json --subject-file", id_file)
    name = listed.json["consents"][0]["name"]
    trust.write_text((await shell.as_("auditor", "audit head --keys")).out)

    for _ in range(20):  # its event gets its place in the log in a moment
        if (await shell.as_("app", "consent receipt", name, "--out", receipt)).code == 0:
            break
    assert (await lethe("consent verify", receipt, "--trust", trust)).code == 0
    receipt.write_text(receipt.read_text().replace("Your portrait", "Your passport"))
    assert (await lethe("consent verify", receipt, "--trust", trust)).code == 4

    # A browser's signal comes with a call, and the answer says that it is honoured.
    async with gateway.client("app") as app:
        person = subject_pb2.Subject(name=f"subjects/{SUBJECT}", residence="DE", birth_year=1980)
        request = subject_pb2.UpsertSubjectRequest(subject=person)
        call = app.subjects.UpsertSubject(request, metadata=(("sec-gpc", "1"),), timeout=20)
        await call
        assert ("lethe-gpc-status", "honored") in list(await call.trailing_metadata())
    assert [leaf["sig"] for leaf in await gateway.leaves() if leaf["ty"] == "signal.recorded"] == [["gpc"]]

    withdrawn = await shell.as_("app", "consent withdraw -o json --receipt", receipt)
    assert withdrawn.json["consents"][0]["state"] == "STATE_WITHDRAWN"


async def test_init_and_migrate_make_what_serve_runs_on(tmp_path) -> None:
    dev = tmp_path / "dev"
    made = await lethe("init -o json --address 127.0.0.1:18443", dev)
    assert made.json["trust"] == str(dev / "trust.txt")
    assert "NOT FOR PRODUCTION" in made.err
    again = await lethe("init", dev)
    assert again.code == 2
    assert "FOLDER_NOT_EMPTY" in again.err
    readable = [p for p in dev.rglob("*") if p.is_file() and p.stat().st_mode & 0o077 and p.suffix == ".key"]
    assert readable == []

    layout = Layout(dev)
    early = await lethe("serve --config", layout.config)
    assert early.code == 1
    assert "CONFIG_INVALID" in early.err
    for _ in range(2):
        assert (await lethe("migrate --config", layout.config)).code == 0
    assert (await lethe("config check --config", layout.config)).code == 0
    config = layout.config.read_text().replace("127.0.0.1:18443", "127.0.0.1:0")
    layout.config.write_text(config)
    async with running(layout, backend=FakeInference()) as gateway:
        assert await gateway.leaves() == []


async def test_the_demo_holds_and_leaves_what_it_promises(tmp_path) -> None:
    weights = weights_folder()
    keep = tmp_path / "kept"
    told = await lethe("demo --keep", keep, LETHE_WEIGHTS_DIR=str(weights))
    assert told.code == 0, told.out + told.err
    assert {"export", "trust.txt", "certificate.tlog-proof", "headshot.jpg"} <= {
        path.name for path in keep.glob("*")
    }
    trust = keep / "trust.txt"
    assert (await lethe("audit verify", keep / "export", "--trust", trust)).code == 0
    assert (await lethe("certificate verify", keep / "certificate.tlog-proof", "--trust", trust)).code == 0
