"""What had ended since a backup ends again at the first start after its restore, cut wherever it may be."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from audit import leaf, replay
from gateway.adapters.log_folder import LogFolder
from gateway.adapters.survivors import FileSurvivors
from gateway.errors import AuditUnavailable, LetheError
from gateway.flows.dsr import DsrDraft
from gateway.flows.incident import IncidentDraft, Telling, Text
from gateway.flows.revoke import Revoke
from gateway.flows.tenant import TenantDraft
from gateway.flows.training import DatasetDraft
from gateway.people import Profile
from gateway.ports.keys import Epoch
from gateway.ports.records import (
    Consent,
    Debt,
    Job,
    Leaf,
    LogHead,
    LogKeys,
    Restore,
    SealedPayload,
    StoredObject,
    Subject,
    SubjectKey,
)
from tests import invariants
from tests.doors import When
from tests.unit.flows.test_replay import replayed
from tests.world import APP, LEASE, OFFICER, ORIGIN, PORTRAIT, TENANT, World, chunks, order

BACKUP, DIGEST = "b" * 32, "d" * 64
ANN, BOB, DAN, EVE = "ann", "bob", "dan", "eve"


@dataclass
class Past(World):
    """A world that falls back: `keep` is the backup, `fall_back` its restore."""

    root: Path = field(default_factory=Path)
    tables: dict[Any, dict[Any, Any]] = field(default_factory=dict)
    held: dict[str, Any] = field(default_factory=dict)
    size: int = 0
    survivors: bool = True

    def __post_init__(self) -> None:
        World.__init__(self)
        (self.root / "log").mkdir(exist_ok=True)
        kept = FileSurvivors(self.root / "survivors") if self.survivors else None
        self.outside = replace(self.outside, log_files=LogFolder(self.root / "log"), survivors=kept)
        self.flows = self.process()

    async def keep(self) -> None:
        await self.log()
        self.tables = {kind: dict(rows) for kind, rows in self.records._tables.items()}
        self.held = dict(self.objects.held)
        self.size = next(head.size for head in self.records.all(LogHead) if head.log == ORIGIN)
        made = {"bkp": BACKUP, "size": self.size, "root": "0" * 64, "nobj": 0, "ngone": 0, "dig": DIGEST}
        await self.records.transact(
            lambda tx: self.flows.ledger.record(tx, TENANT, "backup.created", None, **made)
        )

    async def fall_back(self, digest: str = DIGEST) -> None:
        await self.log()
        self.records._tables = {kind: dict(rows) for kind, rows in self.tables.items()}
        self.objects.held = dict(self.held)
        mark = Restore(BACKUP, digest, self.clock.now(), {ORIGIN: self.size}, {}, {})
        await self.records.transact(lambda tx: tx.add(mark))
        self.flows = self.process()  # no memory of before

    def told(self) -> dict[str, Any]:
        (event,) = [one for one in self.events("backup.restored") if one["bkp"] == BACKUP and one["size"]]
        return event


@pytest.fixture
def w(tmp_path: Path) -> Past:
    return Past(root=tmp_path)


async def story(w: Past) -> dict[str, str]:
    """Tell what was before the backup and what came after it; return who is who."""
    await w.ready(ANN, BOB, DAN, EVE)
    withdrawn = await w.consent(BOB, "retain_output")
    for subject in (ANN, BOB):
        await w.portrait(subject)
    bob = (await w.portrait(BOB)).job_id
    waiting = (await w.upload(DAN)).job.job_id
    request, _ = await w.flows.dsrs.create(OFFICER, DsrDraft(EVE, "erasure"))
    await w.keep()
    handles = {name: await w.handle(name) for name in (ANN, BOB, DAN, EVE)}
    await w.work()  # dan's job ends
    await w.erase(ANN)
    await w.flows.consents.withdraw(APP, withdrawn.consent_id)
    await w.flows.generate.settle()
    await w.flows.jobs.delete(APP, bob)
    await w.ready("carl")
    await w.portrait("carl")
    await w.upload("carl")
    await w.flows.dsrs.create(OFFICER, DsrDraft("carl", "erasure"))
    await w.flows.dsrs.cancel(OFFICER, request.dsr_id)
    return {**handles, "withdrawn": withdrawn.consent_id, "deleted": bob, "waiting": waiting} | {
        "cancelled": request.dsr_id
    }


def check(w: Past, known: dict[str, str]) -> None:
    rows = w.rows
    assert rows[Restore] == []
    log = invariants.events(rows)
    invariants._check_objects(rows, log)
    invariants._check_jobs(rows, log)
    invariants.check_gone(rows, known[ANN])
    for row in rows[Consent]:
        assert (row.withdrawn_at is not None) == (
            row.consent_id in {event["con"] for event in log["consent.withdrawn"]}
        )
    assert any(row.consent_id == known["withdrawn"] and row.withdrawn_at for row in rows[Consent])
    assert known["deleted"] not in {job.job_id for job in rows[Job]}
    assert w.job(known["waiting"]).state == "expired"  # its result is lost with its row
    assert w.dsr(known["cancelled"]).state == "cancelled"
    assert w.live() == set(w.objects.held)
    sealed = {
        (row.event_id, slot) for row in rows[Leaf] for slot in range(len(leaf.decode(row.line)["seals"]))
    }
    assert {(row.event_id, row.slot) for row in rows[SealedPayload]} == sealed
    told = w.told()
    assert (told["nsub"], told["ndsr"], told["nres"], told["size"]) == (1, 1, 0, w.size)


async def test_what_ended_since_ends_again_and_the_log_goes_on(w: Past) -> None:
    known = await story(w)
    await w.fall_back()
    assert await w.flows.suppress.run()
    await w.log()
    check(w, known)
    assert not await w.flows.suppress.run()
    assert (await w.flows.subjects.get(APP, BOB)).profile.residence == "DE"


@pytest.mark.parametrize("when", ["before", "after"])
async def test_cut_at_any_call_the_next_start_goes_on(tmp_path: Path, when: When) -> None:
    w = Past(root=tmp_path)
    known = await story(w)
    await w.fall_back()
    cuts = 0
    while True:
        flows = w.process()
        w.trip.lose(cuts, when)
        try:
            done = await flows.suppress.run()
        except LetheError:
            cuts += 3
            continue
        finally:
            w.trip.act = None
        break
    assert cuts > 20
    assert done or when == "after"
    await w.log()
    check(w, known)


async def test_what_left_a_training_set_since_leaves_it_again_and_what_nobody_knows_is_called_back(
    w: Past,
) -> None:
    await w.publish("generate", "retain_output", "train")
    await w.flows.tenants.update(OFFICER, TenantDraft({"is_training_on": True}))
    for subject in (ANN, BOB):
        await w.know(subject)
        await w.consent(subject)
        await w.portrait(subject)
        await w.consent(subject, "train")
    first, _ = await w.flows.training.create(OFFICER, DatasetDraft("first"))
    await w.flows.training.run_one()
    second, _ = await w.flows.training.create(OFFICER, DatasetDraft("second"))
    await w.keep()
    await w.flows.training.run_one()  # the second is filled, and the records of that will be lost
    third, _ = await w.flows.training.create(OFFICER, DatasetDraft("third"))
    await w.flows.training.run_one()
    await w.flows.consents.withdraw(APP, subject_id=ANN, purpose="train")
    gone = {event["itm"] for event in w.events("dataset.reduced")}
    await w.fall_back()
    await w.flows.suppress.run()
    shown = [await w.flows.training.get(OFFICER, one.dataset_id) for one in (first, second)]
    assert [(one.record.state, one.record.size) for one in shown] == [("stale", 1), ("stale", 0)]
    assert set(shown[0].removed) < gone
    added = w.events("dataset.added")
    assert set(shown[1].removed) == {e["itm"] for e in added if e["dst"] == second.dataset_id}
    assert [event["dst"] for event in w.events("dataset.expired")] == [third.dataset_id]
    await w.log()
    rows = [(row.seq or 0, leaf.decode(row.line)) for row in w.records.all(Leaf) if row.log == ORIGIN]
    report = replay.replay(sorted(rows, key=lambda row: row[0]), (), {}, lambda *_: {})
    assert not [broken for broken in report.violations if broken.type.startswith("dataset.")]


async def test_what_became_of_requests_since_stands_again(w: Past) -> None:
    """No clock is lost, no answer given twice, and what was corrected stays corrected."""
    await w.ready(ANN, BOB)
    extended = await w.open(ANN, "access")
    doubted = await w.open(BOB, "access")
    answered = await w.open(BOB, "restriction")
    corrected = await w.open(ANN, "correction", correction=Profile(ANN, residence="FR", birth_year=1980))
    await w.keep()
    await w.flows.dsrs.extend(OFFICER, extended.dsr_id, "NUMBER")
    await w.flows.dsrs.verify(OFFICER, doubted.dsr_id, "account_session", is_shown=False)
    for dsr in (answered, corrected):
        await w.approve(dsr.dsr_id)
    await w.carry_out()
    await w.fall_back()
    assert await w.flows.suppress.run()
    await w.carry_out()
    longer, asked = w.dsr(extended.dsr_id), w.dsr(doubted.dsr_id)
    assert (longer.due_on, longer.extension_reason) == (extended.extended_due_on, "NUMBER")
    assert (asked.state, asked.failures) == ("identity_pending", 1)
    assert {w.dsr(dsr.dsr_id).state for dsr in (answered, corrected)} == {"fulfilled"}
    assert (await w.flows.subjects.get(APP, ANN)).profile.residence == "FR"
    due = await w.flows.register.due(OFFICER, "", 50, "")
    assert [dsr.dsr_id for dsr in due.items] == [doubted.dsr_id, extended.dsr_id]
    assert len(w.events("dsr.fulfilled")) == 2


async def test_newer_facts_and_breaches_are_taken_from_the_log_as_far_as_it_says_and_else_an_alarm(
    w: Past,
) -> None:
    """No law that applied by then is forgotten, and no breach clock."""
    heard: list[tuple[str, ...]] = []
    update, record = w.flows.tenants.update, w.flows.incidents.record
    await update(OFFICER, TenantDraft({"establishments": ("DE",), "is_training_on": True}))
    first, _ = await record(OFFICER, IncidentDraft("access", w.clock.now(), text=Text("a lost laptop")))
    await w.keep()
    w.clock.advance(timedelta(seconds=1))
    await update(OFFICER, TenantDraft({"establishments": ("DE", "FR"), "contact": "dpo@lethe.test"}))
    w.clock.advance(timedelta(seconds=1))
    await update(OFFICER, TenantDraft({"targets": ("BR",), "is_training_on": False}))
    told = Telling(w.clock.now())
    later = {"authority": told, "incident_id": first.record.incident_id}
    amended, _ = await record(OFFICER, IncidentDraft("loss", first.record.aware_at, **later))
    w.clock.advance(timedelta(seconds=1))
    second, _ = await record(OFFICER, IncidentDraft("disclosure", w.clock.now(), text=Text("a letter")))
    await w.fall_back()
    flow = replace(w.flows.suppress, on_lost=lambda *what: heard.append(what))
    assert await flow.run()
    known = await w.flows.tenants.get(OFFICER)
    assert (known.version, known.facts.establishments, known.facts.targets) == (3, ("DE", "FR"), ("BR",))
    assert (known.facts.contact, known.facts.is_training_on) == ("privacy@lethe.test", False)
    rows = {one.record.incident_id: one for one in (await w.flows.incidents.list(OFFICER, 50, "")).items}
    again, new = rows[first.record.incident_id], rows[second.record.incident_id]
    assert (again.record.version, again.record.kind) == (2, "loss")
    assert Telling.of(again.record.authority).code == "told"
    assert (again.text.nature, new.text.nature) == ("a lost laptop", "")
    assert new.record.keep_until == second.record.keep_until
    for found, was in ((again, amended), (new, second)):
        assert found.record.due_at is not None
        assert was.record.due_at is not None
        assert timedelta() <= was.record.due_at - found.record.due_at < timedelta(milliseconds=1)
    assert (w.told()["nfact"], w.told()["ninc"]) == (2, 2)
    assert heard == [("facts", "incidents")]
    await update(OFFICER, TenantDraft({"contact": "dpo@lethe.test"}))
    fuller = IncidentDraft("disclosure", second.record.aware_at, incident_id=second.record.incident_id)
    assert (await record(OFFICER, fuller))[0].record.version == 2
    assert (await replayed(w)).violations == ()


async def test_a_clock_that_was_stopped_since_has_its_days_again(w: Past) -> None:
    await w.ready(ANN, BOB)
    asked = [await w.open(subject, "access", regime="uk_gdpr") for subject in (ANN, BOB)]
    await w.keep()
    for dsr in asked:
        await w.flows.dsrs.pause(OFFICER, dsr.dsr_id)
    w.clock.advance(timedelta(days=3))
    await w.flows.dsrs.resume(OFFICER, asked[0].dsr_id)
    before = [(w.dsr(dsr.dsr_id).due_on, w.dsr(dsr.dsr_id).clock) for dsr in asked]
    await w.fall_back()
    assert await w.flows.suppress.run()
    assert [(w.dsr(dsr.dsr_id).due_on, w.dsr(dsr.dsr_id).clock) for dsr in asked] == before


async def test_which_recipients_were_told_since_stands_again_though_the_facts_are_lost(w: Past) -> None:
    """GDPR Art. 19: nobody is told twice, and whoever was not told is still to be."""
    await w.ready(ANN)
    one = {"name": "Mailer Inc", "role": "processor", "country": "US", "channel": "their form"}
    await w.flows.tenants.update(OFFICER, TenantDraft({"recipients": {"mailer": one}}))
    request = await w.open(ANN, "restriction")
    await w.keep()
    await w.flows.tenants.update(OFFICER, TenantDraft({"recipients": {"mailer": one, "ads": one}}))
    await w.approve(request.dsr_id)
    w.clock.advance(timedelta(seconds=1))
    await w.flows.propagation.note(OFFICER, request.dsr_id, "mailer", "told")
    await w.flows.propagation.note(OFFICER, request.dsr_id, "ads", "excused", "impossible")
    before = w.dsr(request.dsr_id).recipients
    await w.fall_back()
    assert await w.flows.suppress.run()
    after = w.dsr(request.dsr_id).recipients
    # What the backup's facts lack has its id for a name.
    lost = before["ads"]["id"]
    assert after.keys() == {"mailer", lost}
    assert after["mailer"] == before["mailer"]
    assert (after[lost]["state"], after[lost]["ground"], after[lost]["name"]) == ("excused", "impossible", "")
    w.clock.advance(timedelta(seconds=1))
    noted, _ = await w.flows.propagation.note(OFFICER, request.dsr_id, "mailer", "acknowledged")
    assert noted.owed_key is None
    assert (await replayed(w)).violations == ()


async def test_without_its_published_files_or_with_others_the_log_does_not_go_on(w: Past) -> None:
    await story(w)
    await w.fall_back()
    bundle = max(
        (w.root / "log" / ORIGIN / "tile" / "entries").glob("*.p/*"),
        key=lambda path: (path.parent.name, int(path.name)),
    )
    content = bundle.read_bytes()
    bundle.write_bytes(content[:-1] + b"]")
    with pytest.raises(AuditUnavailable) as changed:
        await w.flows.suppress.run()
    bundle.unlink()
    with pytest.raises(AuditUnavailable) as missing:
        await w.flows.suppress.run()
    assert (changed.value.detail, missing.value.detail) == ("log_changed", "log_tail_missing")
    assert w.records.all(LogHead)[0].size in {0, w.size}


async def test_a_backup_that_the_log_does_not_know_is_not_served(w: Past) -> None:
    await story(w)
    await w.fall_back(digest="e" * 64)
    with pytest.raises(AuditUnavailable) as unknown:
        await w.flows.suppress.run()
    assert unknown.value.detail == "backup_unknown"


async def test_an_erasure_that_had_only_put_up_its_fence_is_carried_to_its_end(w: Past) -> None:
    await w.ready(ANN, BOB)
    await w.portrait(ANN)
    await w.keep()
    before = set(await w.keys.epochs())
    await w.keys.fence(await w.handle(ANN))
    await w.fall_back()
    await w.flows.suppress.run()
    invariants.check_gone(w.rows, await w.handle(ANN))
    assert Epoch(TENANT, "profile", "open", 0) in before - set(await w.keys.epochs())
    assert (await w.flows.subjects.get(APP, BOB)).profile.residence == "DE"


async def test_keys_of_destroyed_epochs_that_nobody_kept_go_with_what_they_open(tmp_path: Path) -> None:
    w = Past(root=tmp_path, survivors=False)
    await w.ready(ANN, BOB)
    for subject in (ANN, BOB):
        await w.portrait(subject)
    await w.keep()
    await w.erase(ANN)
    await w.fall_back()
    await w.flows.suppress.run()
    assert w.live() == set(w.objects.held) == set()
    standing = set(map(str, await w.keys.epochs()))
    assert {key.epoch for key in w.records.all(SubjectKey)} <= standing
    assert w.told()["nobj"] >= 1


async def test_a_restriction_or_an_objection_of_nobody_named_is_everybodys(w: Past) -> None:
    await w.ready(ANN, BOB)
    await w.keep()
    await w.flows.subjects.restrict(APP, BOB, restricted=True)
    await w.flows.consents.signal(APP, ANN, gpc=True, limit_spi=False)
    await w.fall_back()
    await w.flows.suppress.run()
    assert {subject.state for subject in w.records.all(Subject)} == {"restricted"}
    assert w.told()["nres"] == 2


async def test_erased_after_a_second_roll_survivors_are_found_under_the_last(w: Past) -> None:
    await w.ready(ANN, BOB, DAN)
    await w.keep()
    for subject in (ANN, DAN):
        await w.erase(subject)
    await w.fall_back()
    await w.flows.suppress.run()
    assert (await w.flows.subjects.get(APP, BOB)).profile.residence == "DE"
    kept = [path.name for path in (w.root / "survivors").iterdir()]
    assert kept
    assert all("%2F2.keys" in name for name in kept if "profile" in name)


async def test_who_was_erased_is_not_among_the_survivors(w: Past) -> None:
    await w.ready(ANN, BOB)
    ann = {key.key_id for key in w.records.all(SubjectKey) if key.handle == await w.handle(ANN)}
    erased = {key.key_id for key in w.records.all(SubjectKey) if key.key_id in ann and key.cls == "profile"}
    assert erased
    await w.erase(ANN)
    text = "".join(path.read_text() for path in (w.root / "survivors").iterdir())
    assert not [key_id for key_id in erased if key_id in text]


async def test_a_key_that_was_revoked_since_is_not_believed_again(w: Past) -> None:
    w.rekey(7)
    await w.ready(ANN)
    await w.log()
    w.rekey(8)
    await w.keep()
    old = [signer.verifier.key_id.hex() for signer in w.retiring[ORIGIN]]
    await Revoke(w.records, w.flows.ledger).run(old, 2, "KEY_STOLEN")
    known = [row for row in w.records.all(LogKeys) if row.log == ORIGIN]
    await w.fall_back()
    assert known != [row for row in w.records.all(LogKeys) if row.log == ORIGIN]
    assert await w.flows.suppress.run()
    await w.log()
    assert known == [row for row in w.records.all(LogKeys) if row.log == ORIGIN]


async def test_a_backend_is_asked_on_after_an_erasure_that_is_done_again(tmp_path: Path) -> None:
    """GDPR Art. 17(1), 28(3)(g)."""
    w = Past(root=tmp_path)
    await w.ready(ANN)
    w.backend.faults.lose("forget", 99)
    await w.portrait(ANN)
    await w.keep()
    object.__setattr__(w.flows.erasure, "forget_wait", timedelta(seconds=0.05))
    await w.erase(ANN)
    await w.fall_back()
    await w.flows.suppress.run()
    assert [debt.about for debt in w.records.all(Debt)] == [""]
    w.backend.faults.lost.clear()
    assert await w.flows.generate.settle() == 1
    assert [leaf["how"] for leaf in w.events("forget.ended")] == ["confirmed"]
    assert (await replayed(w)).violations == ()


@pytest.mark.parametrize("is_over", [False, True])
async def test_what_was_in_memory_when_a_backup_was_made_is_not_there_after_it(
    tmp_path: Path, is_over: bool
) -> None:
    w = Past(root=tmp_path)
    w.keep_nothing()
    await w.ready(ANN)
    taken = await w.flows.upload.run(APP, order(ANN), chunks(PORTRAIT), is_attended=True)
    await w.keep()
    if is_over:
        await w.work()
        await w.flows.release.end(APP, taken.job.job_id)
    await w.fall_back()
    await w.flows.suppress.run()
    w.clock.advance(LEASE + timedelta(seconds=1))
    await w.work()
    await w.flows.sweep.run()
    assert w.count(StoredObject) == 0
    ended = w.events("job.succeeded") if is_over else w.events("job.failed")
    assert [leaf["job"] for leaf in ended] == [taken.job.job_id]
    assert len([call for call in w.backend.seen if call.method == "generate"]) == int(is_over)
