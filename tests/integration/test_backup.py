"""The drill: a backup, an erasure and a withdrawal after it, everything lost, restored, started."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml
from lethe.v1 import consent_pb2, generation_pb2, subject_pb2

from audit.verify import verify_export
from gateway.adapters.sql.records import sqlite_path
from gateway.admin.folder import TENANT, Layout
from gateway.client import Refused
from gateway.ports.records import (
    SUBJECT_TABLES,
    Consent,
    Restore,
    StoredObject,
    SubjectKey,
)
from gateway.settings import ConfigInvalid, load
from tests import invariants
from tests.faults.story import exported
from tests.gateway import (
    PORTRAIT,
    Gateway,
    add_subject,
    consent,
    erase,
    finished,
    header,
    lethe,
    lines,
    make_folder,
    publish_notice,
    running,
)

ANN, BOB, CARL = "ann-4711-of-lisbon", "bob-4712-of-porto", "carl-4713-of-faro"


@dataclass
class Drill:
    """A folder with a gateway, the keys of its backups, and what was seen before the loss."""

    layout: Layout
    handles: dict[str, str] = field(default_factory=dict)
    result: bytes = b""
    job: str = ""
    withdrawn: str = ""
    ann_objects: list[str] = field(default_factory=list)
    before: dict[str, bytes] = field(default_factory=dict)

    @property
    def published(self) -> Path:
        return self.layout.root / "published"

    @property
    def file(self) -> Path:
        return self.layout.root / "lethe.backup"

    @property
    def identity(self) -> Path:
        return self.layout.root / "identity.pem"

    @property
    def recipient(self) -> Path:
        return self.layout.root / "recipient.pem"

    def back_up(self, out: Path | None = None) -> subprocess.CompletedProcess[str]:
        where = ("--config", self.layout.config, "--recipient", self.recipient, "-o", "json")
        return lethe("backup", out or self.file, *where)

    def restore(
        self, backup: Path | None = None, identity: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        by = ("--identity", identity or self.identity, "--config", self.layout.config, "-o", "json")
        return lethe("restore", backup or self.file, *by)

    async def lose(self) -> None:
        """Lose the database and the objects."""
        shutil.rmtree(self.layout.objects)
        url = load(self.layout.config).records.url
        if url.startswith("sqlite"):
            for path in list(sqlite_path(url).parent.glob(f"{sqlite_path(url).name}*")):
                path.unlink()
            return
        connection = await asyncpg.connect(url)
        await connection.execute("DROP SCHEMA public CASCADE")
        await connection.execute("CREATE SCHEMA public")
        await connection.close()


@pytest.fixture
def drill(layout: Layout) -> Drill:
    return prepared(layout)


def prepared(layout: Layout) -> Drill:
    made = Drill(layout)
    tree = yaml.safe_load(layout.config.read_text())
    tree["audit"]["published"] = str(made.published)
    layout.config.write_text(yaml.safe_dump(tree))
    done = lethe("backup", "keygen", "--identity", made.identity, "--recipient", made.recipient)
    assert done.returncode == 0, done.stderr
    return made


async def live(drill: Drill, gateway: Gateway) -> dict[str, Any]:
    """Portraits of ann and bob; a backup; ann is erased, bob withdraws, carl comes."""
    async with gateway.client("app") as app, gateway.client("officer") as officer:
        await publish_notice(officer, "generate", "train")
        for subject in (ANN, BOB):
            await add_subject(app, subject)
            await consent(app, subject)
            job = (await app.create_job(header(subject), PORTRAIT.read_bytes())).job.name
            assert (await finished(app, job)).state == generation_pb2.Job.STATE_SUCCEEDED
            drill.job = job
        drill.withdrawn = await consent(app, BOB, "train")
        _, drill.result = await app.download(drill.job)
        people = gateway.outside.keys
        for subject in (ANN, BOB):
            drill.handles[subject] = (await people.mac(TENANT, "handle", subject.encode())).hex()
        ann = await gateway.rows(StoredObject, handle=drill.handles[ANN], state="live")
        drill.ann_objects = [stored.object_id for stored in ann]
        assert drill.ann_objects
    async with gateway.client("auditor") as auditor:
        drill.before = await exported(auditor)
    made = await asyncio.to_thread(drill.back_up)
    assert made.returncode == 0, made.stderr
    await erase(gateway, ANN)
    async with gateway.client("app") as app:
        await app.call(app.consents.WithdrawConsent, consent_pb2.WithdrawConsentRequest(name=drill.withdrawn))
        await add_subject(app, CARL)
        await consent(app, CARL)
        job = (await app.create_job(header(CARL), PORTRAIT.read_bytes())).job.name
        await finished(app, job)
    manifest: dict[str, Any] = json.loads(made.stdout)
    return manifest


async def test_what_was_erased_or_withdrawn_since_a_backup_stays_so_after_its_restore(drill: Drill) -> None:
    async with running(drill.layout) as gateway:
        manifest = await live(drill, gateway)
    assert manifest["objects"] == 2
    assert manifest["objects_gone"] == 0
    await drill.lose()

    restored = drill.restore()
    assert restored.returncode == 0, restored.stderr
    assert json.loads(restored.stdout) == manifest
    again = drill.restore()
    assert again.returncode == 1
    assert "records_not_empty" in again.stderr

    async with running(drill.layout) as gateway:
        assert await gateway.rows(Restore) == []
        for kind in SUBJECT_TABLES:
            assert await gateway.rows(kind, handle=drill.handles[ANN]) == [], kind.__name__
        assert not {path.name for path in gateway.object_files()} & set(drill.ann_objects)
        epochs = set(map(str, await gateway.outside.keys.epochs()))
        assert {key.epoch for key in await gateway.rows(SubjectKey)} <= epochs
        consents = {row.consent_id: row for row in await gateway.rows(Consent, handle=drill.handles[BOB])}
        assert {row.purpose: row.withdrawn_at is not None for row in consents.values()} == {
            "generate": False,
            "train": True,
        }
        async with gateway.client("app") as app:
            with pytest.raises(Refused, match="was erased"):
                await app.call(app.subjects.GetSubject, subject_pb2.GetSubjectRequest(name=f"subjects/{ANN}"))
            found = await app.call(
                app.subjects.GetSubject, subject_pb2.GetSubjectRequest(name=f"subjects/{BOB}")
            )
            assert found.subject.residence == "DE"
            assert (await app.download(drill.job))[1] == drill.result
        async with gateway.client("auditor") as auditor:
            after = await exported(auditor)
        invariants_of_objects(await gateway.outside.records.transact(invariants.everything))
    trust = drill.layout.trust.read_text()
    report = verify_export(after, trust, drill.before)
    assert report.verdict == "valid", report.fault
    events = lines(after["entries.jsonl"].decode())
    told = [event for event in events if event["ty"] in {"backup.created", "backup.restored"}]
    assert [event["ty"] for event in told] == ["backup.created", "backup.restored"]
    assert told[0]["bkp"] == told[1]["bkp"] == manifest["backup"]
    assert told[0]["dig"] == manifest["sha256"]
    assert (told[1]["nsub"], told[1]["ncon"], told[1]["ndsr"], told[1]["nres"]) == (1, 2, 0, 0)
    folder = drill.layout.root / "after"
    for name, content in after.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    replayed = lethe("audit", "verify", folder, "--trust", drill.layout.trust, "--replay", "-o", "json")
    assert "violation" not in replayed.stderr.lower(), replayed.stderr + replayed.stdout


def invariants_of_objects(rows: invariants.Rows) -> None:
    log = invariants.events(rows)
    gone = {event["obj"] for event in log["object.destroyed"]}
    live = {row.object_id for row in rows[StoredObject] if row.state == "live"}
    assert live == {event["obj"] for event in log["object.sealed"]} - gone
    assert len(gone) == len(log["object.destroyed"])


async def test_without_the_tail_of_the_log_nothing_is_restored_nor_served(tmp_path: Path) -> None:
    drill = prepared(make_folder(tmp_path / "dev"))
    async with running(drill.layout) as gateway, gateway.client("officer") as officer:
        await publish_notice(officer)
        made = await asyncio.to_thread(drill.back_up)
        assert made.returncode == 0, made.stderr
        await publish_notice(officer, "train")
    await drill.lose()
    elsewhere = drill.layout.root / "elsewhere"
    drill.published.rename(elsewhere)
    refused = drill.restore()
    assert refused.returncode == 1
    assert "log_tail_missing" in refused.stderr
    assert not list(drill.layout.objects.glob("??"))

    elsewhere.rename(drill.published)
    assert drill.restore().returncode == 0
    drill.published.rename(elsewhere)
    with pytest.raises(ConfigInvalid, match="log_tail_missing"):
        async with running(drill.layout):
            pass
    shutil.rmtree(drill.published)
    elsewhere.rename(drill.published)
    async with running(drill.layout) as gateway:
        assert [event["size"] for event in await gateway.leaves("backup.restored")] == [1]
