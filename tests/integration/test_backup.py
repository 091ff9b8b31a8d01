"""The drill: a backup, an erasure and a withdrawal after it, everything lost, restored, started."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from lethe.v1 import consent_pb2, generation_pb2, subject_pb2

from audit.verify import verify_export
from gateway import compose
from gateway.admin.folder import TENANT, Layout
from gateway.client import Refused
from gateway.errors import AuditUnavailable, StateConflict
from gateway.ports.records import (
    SUBJECT_TABLES,
    Consent,
    Restore,
    StoredObject,
    SubjectKey,
)
from gateway.settings import ConfigInvalid
from gateway.vault.backup import make_identity
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
    lethe_here,
    lines,
    publish_notice,
    running,
)
from tests.integration.conftest import matrix
from tests.places import Place

ANN, BOB, CARL = "ann-4711-of-lisbon", "bob-4712-of-porto", "carl-4713-of-faro"


@dataclass
class Drill:
    """A folder with a gateway, the keys of its backups, and what was seen before the loss."""

    place: Place
    handles: dict[str, str] = field(default_factory=dict)
    result: bytes = b""
    job: str = ""
    withdrawn: str = ""
    ann_objects: list[str] = field(default_factory=list)
    before: dict[str, bytes] = field(default_factory=dict)

    @property
    def layout(self) -> Layout:
        return self.place.layout

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

    async def back_up(self) -> dict[str, Any]:
        """Make the backup and return its manifest."""
        told = compose.back_up(self.place.settings, self.file, self.recipient.read_bytes(), str)
        return dict(await told)

    async def restore(self) -> dict[str, Any]:
        """Read the backup into empty stores, as `lethe restore` does, and return its manifest."""
        settings = self.place.settings
        compose.make_folders(settings)
        return dict(await compose.restore(settings, self.file, self.identity.read_bytes(), str))


@pytest.fixture
def drill(place: Place) -> Drill:
    made = Drill(place)
    place.configure("audit", published=str(made.published))
    for path, key in zip((made.identity, made.recipient), make_identity(), strict=True):
        path.touch(mode=0o600)
        path.write_bytes(key)
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
    manifest = await drill.back_up()
    await erase(gateway, ANN)
    async with gateway.client("app") as app:
        await app.call(app.consents.WithdrawConsent, consent_pb2.WithdrawConsentRequest(name=drill.withdrawn))
        await add_subject(app, CARL)
        await consent(app, CARL)
        job = (await app.create_job(header(CARL), PORTRAIT.read_bytes())).job.name
        await finished(app, job)
    return manifest


@matrix
async def test_what_was_erased_or_withdrawn_since_a_backup_stays_so_after_its_restore(drill: Drill) -> None:
    async with running(drill.layout) as gateway:
        manifest = await live(drill, gateway)
    assert manifest["objects"] == 2
    assert manifest["objects_gone"] == 0
    await drill.place.lose()

    assert await drill.restore() == manifest
    with pytest.raises(StateConflict) as again:
        await drill.restore()
    assert again.value.detail == "records_not_empty"

    async with running(drill.layout) as gateway:
        assert await gateway.rows(Restore) == []
        for kind in SUBJECT_TABLES:
            assert await gateway.rows(kind, handle=drill.handles[ANN]) == [], kind.__name__
        assert not drill.place.stored() & set(drill.ann_objects)
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
    given = ("--trust", drill.layout.trust, "--replay", "-o", "json")
    replayed = await asyncio.to_thread(lethe_here, "audit", "verify", folder, *given)
    assert "violation" not in replayed.stderr.lower(), replayed.stderr + replayed.stdout


def invariants_of_objects(rows: invariants.Rows) -> None:
    log = invariants.events(rows)
    gone = {event["obj"] for event in log["object.destroyed"]}
    live = {row.object_id for row in rows[StoredObject] if row.state == "live"}
    assert live == {event["obj"] for event in log["object.sealed"]} - gone
    assert len(gone) == len(log["object.destroyed"])


@pytest.mark.parametrize("place", ["files"], indirect=True)
async def test_the_commands_back_up_and_restore(drill: Drill) -> None:
    """The same by `lethe backup` and `lethe restore`, each in a process of its own."""
    config = ("--config", drill.layout.config, "-o", "json")
    async with running(drill.layout) as gateway, gateway.client("officer") as officer:
        await publish_notice(officer)
        made = await asyncio.to_thread(lethe, "backup", drill.file, "--recipient", drill.recipient, *config)
    assert made.returncode == 0, made.stderr
    await drill.place.lose()
    restored = lethe("restore", drill.file, "--identity", drill.identity, *config)
    assert restored.returncode == 0, restored.stderr
    assert json.loads(restored.stdout) == json.loads(made.stdout)


@pytest.mark.parametrize("place", ["files"], indirect=True)
async def test_without_the_tail_of_the_log_nothing_is_restored_nor_served(drill: Drill) -> None:
    async with running(drill.layout) as gateway, gateway.client("officer") as officer:
        await publish_notice(officer)
        await drill.back_up()
        await publish_notice(officer, "train")
    await drill.place.lose()
    elsewhere = drill.layout.root / "elsewhere"
    drill.published.rename(elsewhere)
    with pytest.raises(AuditUnavailable) as refused:
        await drill.restore()
    assert refused.value.detail == "log_tail_missing"
    assert not drill.place.stored()

    elsewhere.rename(drill.published)
    await drill.restore()
    drill.published.rename(elsewhere)
    with pytest.raises(ConfigInvalid, match="log_tail_missing"):
        async with running(drill.layout):
            pass
    shutil.rmtree(drill.published)
    elsewhere.rename(drill.published)
    async with running(drill.layout) as gateway:
        # When the backup was made, the first event may have waited for its place still.
        assert [event["size"] for event in await gateway.leaves("backup.restored")] in ([0], [1])
