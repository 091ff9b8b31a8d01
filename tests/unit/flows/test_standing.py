"""What was permitted once must still stand whenever something leaves or goes on."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gateway import contract
from gateway.errors import (
    AuditUnavailable,
    BackendRetentionTooLong,
    BackendUnavailable,
    MessageInvalid,
    NoticeUnknown,
    ObjectExpired,
    PolicyDenied,
    ResidencyNoTarget,
    StateConflict,
)
from gateway.flows.dsr import DsrDraft
from gateway.ports.inference import Safeguards
from gateway.ports.records import (
    Certificate,
    Consent,
    Job,
    Leaf,
    LogHead,
    StoredObject,
    Subject,
    SubjectKey,
)
from tests.fakes.inference import FakeInference
from tests.world import APP, OFFICER, PORTRAIT, World, chunks, order


@pytest.fixture
async def w() -> World:
    made = World()
    await made.ready("ann", "bob")
    return made


async def held_up(w: World) -> tuple[str, asyncio.Task[None]]:
    """Return a job that waits at the backend, and the worker that waits for it."""
    w.backend.hold()
    job = (await w.upload("ann")).job
    worker = asyncio.create_task(w.work())
    async with asyncio.timeout(5):
        await w.backend.held.wait()
    return job.job_id, worker


def declare(w: World, **changes: Any) -> None:
    """Let the backend declare something else of itself from now on."""
    w.backend.facts = replace(w.backend.facts, **changes)
    w.flows.backends.known["studio"] = w.backend.facts


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"trains_on_inputs": True}, "trains_on_inputs"),
        ({"supports_forget": False}, "cannot_forget"),
        ({"retention_s": 1}, ""),
    ],
)
async def test_a_backend_that_would_keep_or_use_a_portrait_gets_none(w, changes, detail):
    """GDPR Art. 28(3)(a), (g): only on instructions, deleted at the end."""
    declare(w, **changes)
    with pytest.raises(BackendRetentionTooLong) as refused:
        await w.upload("ann")
    assert detail == refused.value.detail
    assert w.count(Job) == w.count(StoredObject) == 0


async def test_a_backend_that_became_unfit_after_the_upload_gets_nothing(w):
    job = (await w.upload("ann")).job
    declare(w, trains_on_inputs=True)
    await w.work()
    assert w.job(job.job_id).reason == "BACKEND_RETENTION_TOO_LONG"
    assert not [call for call in w.backend.seen if call.method == "generate"]


@pytest.mark.parametrize("purpose", ["train", "analytics", "retain_original", "retain_output", "transfer"])
async def test_a_consent_to_anything_else_is_none_to_having_a_picture_made(w, purpose):
    """GDPR Art. 5(1)(b), 6(1)(a): one purpose each."""
    await w.publish("generate", purpose)
    await w.consent("bob", purpose, notice_version=2)
    with pytest.raises(MessageInvalid):
        await w.flows.upload.run(APP, order("bob", purpose=purpose), chunks(PORTRAIT))
    assert w.count(Job) == 0


async def test_a_notice_that_no_longer_names_the_purpose_does_not_do(w):
    await w.publish("retain_output")
    with pytest.raises(NoticeUnknown) as refused:
        await w.upload("ann")
    assert refused.value.detail == "purpose_not_named"


async def test_nothing_outlives_the_consent_that_it_rests_on(w):
    await w.consent("ann", expires_at=w.clock.now() + timedelta(hours=1))
    job = await w.portrait("ann")
    (kept,) = w.records.all(StoredObject)
    assert kept.expires_at == w.clock.now() + timedelta(hours=1)
    w.clock.advance(timedelta(hours=1, seconds=1))
    with pytest.raises(PolicyDenied) as refused:
        await w.released(job.job_id)
    assert refused.value.code == "DENY_CONSENT_EXPIRED"
    await w.flows.sweep.run()
    assert not w.live()


async def test_a_result_is_not_given_out_once_a_weaker_consent_took_the_place(w):
    job = await w.portrait("ann")
    await w.agree_to_terms("ann")
    with pytest.raises(PolicyDenied):
        await w.released(job.job_id)


async def test_a_slow_reader_is_stopped_by_a_withdrawal(w):
    job = await w.portrait("ann")
    released = await w.flows.release.run(APP, job.job_id)
    reading = aiter(released.chunks)
    await w.flows.consents.withdraw(APP, subject_id="ann", purpose="generate")
    w.clock.advance(timedelta(seconds=2))
    with pytest.raises((PolicyDenied, ObjectExpired)):
        await anext(reading)


async def test_a_restriction_parks_a_running_job_and_keeps_the_original(w):
    """GDPR Art. 18(2): with the exception of storage."""
    job_id, worker = await held_up(w)
    await w.flows.subjects.restrict(OFFICER, "ann", restricted=True)
    async with asyncio.timeout(5):
        await worker
    parked = w.job(job_id)
    assert (parked.state, parked.stage, parked.attempt) == ("queued", "restricted", 0)
    assert parked.input_object in w.live()
    assert not w.backend.running
    w.backend.release()
    await w.flows.subjects.restrict(OFFICER, "ann", restricted=False)
    w.clock.advance(timedelta(minutes=1))
    await w.work()
    assert w.job(job_id).state == "succeeded"
    w.check()


async def test_a_parked_job_holds_up_nobody_else(w):
    await w.flows.subjects.restrict(OFFICER, "ann", restricted=False)
    for _ in range(25):
        await w.upload("ann")
    await w.flows.subjects.restrict(OFFICER, "ann", restricted=True)
    other = (await w.upload("bob")).job
    await w.work()
    assert w.job(other.job_id).state == "succeeded"


async def test_what_a_backend_did_not_confirm_to_have_forgotten_stays_owed(w):
    w.backend.faults.lose("forget", 1)
    job = await w.portrait("ann")
    assert job.is_forget_owed
    with pytest.raises(StateConflict) as refused:
        await w.flows.jobs.delete(APP, job.job_id)
    assert refused.value.detail == "forget_owed"
    assert await w.flows.generate.settle() == 1
    assert not w.job(job.job_id).is_forget_owed


async def test_jobs_that_are_never_confirmed_do_not_hide_others(w, monkeypatch):
    monkeypatch.setattr("gateway.flows.generate.BATCH", 2)
    w.backend.faults.lose("forget", 5)
    jobs = sorted([await w.portrait("ann") for _ in range(5)], key=lambda job: job.job_id)
    forget, never = w.backend.forget, {job.backend_job for job in jobs[:4]}

    async def deaf(job_pseudonym: str) -> None:
        if job_pseudonym in never:
            raise BackendUnavailable
        await forget(job_pseudonym)

    monkeypatch.setattr(w.backend, "forget", deaf)
    assert [await w.flows.generate.settle() for _ in range(3)] == [0, 0, 1]
    assert not w.job(jobs[4].job_id).is_forget_owed
    never.clear()
    assert sum([await w.flows.generate.settle() for _ in range(3)]) == 4


async def test_an_erasure_counts_a_backend_that_never_confirmed(w):
    w.backend.faults.lose("forget", 100)
    await w.portrait("ann")
    object.__setattr__(w.flows.erasure, "forget_wait", timedelta(milliseconds=30))
    await w.erase("ann")
    assert [leaf["nowed"] for leaf in w.events("subject.erased")] == [1]
    (certificate,) = w.records.all(Certificate)
    assert b'\\"backends_unconfirmed\\":1' in certificate.opening


async def test_a_profile_that_does_not_open_keeps_nobody_from_being_erased(w):
    """GDPR Art. 17: the right does not depend on our disks."""
    await w.portrait("ann")
    handle = await w.handle("ann")
    row = next(row for row in w.records.all(Subject) if row.handle == handle)
    broken = replace(row, sealed_profile=bytes(len(row.sealed_profile)))
    await w.records.transact(lambda tx: tx.put(broken))
    await w.flows.consents.withdraw(APP, subject_id="ann", purpose="generate")
    assert (await w.erase("ann")).state == "fulfilled"


async def test_a_lost_key_of_another_subject_keeps_nobody_from_being_erased(w):
    lost: list[int] = []
    object.__setattr__(w.flows.erasure.custody, "on_lost", lost.append)
    handle = await w.handle("bob")
    for key in [key for key in w.records.all(SubjectKey) if key.handle == handle]:
        broken = replace(key, wrapped=bytes(len(key.wrapped)))
        await w.records.transact(lambda tx, row=broken: tx.put(row))
    assert (await w.erase("ann")).state == "fulfilled"
    assert sum(lost) == 3  # bob's profile, evidence and audit


async def test_a_repeated_request_is_answered_after_its_own_erasure(w):
    draft = DsrDraft("ann", "erasure", request_id="5f0c9a51-2f0e-4a51-9d6d-111111111111")
    opened, _ = await w.flows.dsrs.create(OFFICER, draft)
    await w.approve(opened.dsr_id)
    await w.carry_out()
    again, receipt = await w.flows.dsrs.create(OFFICER, draft)
    assert (again.dsr_id, again.state, receipt) == (opened.dsr_id, "fulfilled", None)


async def test_proof_of_a_withdrawn_consent_is_kept_for_its_term_and_then_ends_with_a_leaf(w):
    """GDPR Art. 17(3)(e), 5(1)(e)."""
    await w.flows.consents.withdraw(APP, subject_id="ann", purpose="generate")
    (withdrawn,) = [row for row in w.records.all(Consent) if row.withdrawn_at]
    assert withdrawn.keep_until is not None
    w.clock.advance(withdrawn.keep_until - w.clock.now() + timedelta(days=1))
    await w.flows.sweep.run()
    assert withdrawn.consent_id not in {row.consent_id for row in w.records.all(Consent)}
    assert [leaf["con"] for leaf in w.events("record.expired")] == [withdrawn.consent_id]


@pytest.mark.parametrize("change", ["size", "root", "note", "leaf"])
async def test_history_changed_in_the_database_is_not_signed(w, change):
    await w.log()
    head = next(row for row in w.records.all(LogHead) if row.log == "lethe.test/0a")
    other = next(row for row in w.records.all(LogHead) if row.log != "lethe.test/0a")
    await w.know("carol")
    if change == "leaf":
        waiting = next(row for row in w.records.all(Leaf) if row.seq is None)
        bad: Any = replace(waiting, line=waiting.line.replace(b'"v":1', b'"v":2'))
    else:
        changes: dict[str, Any] = {"size": head.size - 1, "root": bytes(32), "note": other.note}
        bad = replace(head, **{change: changes[change]})
    await w.records.transact(lambda tx: tx.put(bad))
    with pytest.raises(AuditUnavailable) as refused:
        await w.flows.sequence.run()
    details = {"leaf": "leaf_changed", "size": "log_rolled_back"}
    assert refused.value.detail == details.get(change, "log_changed")


async def test_a_denial_at_dispatch_is_logged_with_its_reason(w):
    job = (await w.upload("ann")).job
    await w.agree_to_terms("ann")
    await w.work()
    ended = w.job(job.job_id)
    assert (ended.state, ended.detail) == ("cancelled", "deny_no_explicit_consent")
    assert w.events("job.cancelled")[-1]["why"] == "denied"
    decided = w.events("decision.made")[-1]
    assert (decided["dec"], decided["rc"], decided["job"]) == ("deny", "DENY_NO_EXPLICIT_CONSENT", job.job_id)
    w.check()


async def test_a_job_whose_workers_died_too_often_ends(w):
    job = (await w.upload("ann")).job
    tired = replace(
        w.job(job.job_id), state="running", attempt=3, lease_owner="dead", lease_until=w.clock.now()
    )
    await w.records.transact(lambda tx: tx.put(tired))
    await w.work()
    ended = w.job(job.job_id)
    assert (ended.state, ended.detail) == ("failed", "attempts_exhausted")
    assert not w.live()
    w.check()


async def test_a_consent_that_comes_late_does_not_take_the_place_of_a_younger_one(w):
    yesterday = w.clock.now() - timedelta(days=1)
    late = await w.consent("ann", given_at=yesterday)
    assert late.superseded_by
    job = await w.portrait("ann")
    assert job.state == "succeeded"


# --- where a backend runs, what it takes, and what is said of that ------------------------------


async def test_a_picture_of_somebody_in_the_union_goes_to_no_place_without_a_ground(w):
    """GDPR Art. 44: no transfer without a ground; the log says where each picture went."""
    declare(w, region="US")
    with pytest.raises(ResidencyNoTarget) as refused:
        await w.upload("ann")
    assert refused.value.detail == "deny_no_transfer_mechanism"
    assert refused.value.metadata["deciding_pack"] == "gdpr"
    assert [leaf["det"] for leaf in w.events("upload.refused")] == ["deny_no_transfer_mechanism"]
    declare(w, region="US", safeguards=Safeguards(mechanism="SCC"), is_contracted=True)
    job = await w.portrait("ann")
    assert job.state == "succeeded"
    (sent,) = w.events("job.dispatched")
    assert (sent["land"], sent["sent"]) == ("US", ["original"])
    assert sent["ctr"] == contract.digest(w.backend.facts)


async def test_a_backend_that_has_moved_after_the_upload_gets_nothing_and_no_other_does(w):
    other = FakeInference(replace(w.backend.facts, name="other"))
    w.outside = replace(w.outside, backends={"studio": w.backend, "other": other})
    w.flows = w.process()
    w.flows.backends.known["other"] = other.facts
    job = (await w.upload("ann")).job
    declare(w, region="IN")
    await w.work()
    assert (w.job(job.job_id).reason, w.job(job.job_id).state) == ("RESIDENCY_NO_TARGET", "failed")
    assert w.events("job.dispatched") == []
    assert not [call for seen in (w.backend, other) for call in seen.seen if call.method == "generate"]


async def test_of_several_backends_the_first_that_the_law_permits_is_taken(w):
    near = FakeInference(replace(w.backend.facts, name="near", region="FR"))
    w.outside = replace(w.outside, backends={"studio": w.backend, "near": near})
    w.flows = w.process()
    w.flows.backends.known["near"] = near.facts
    declare(w, region="US")
    assert (await w.upload("ann")).job.backend == "near"


@pytest.mark.parametrize(
    ("bound", "detail"), [({"max_image_bytes": 10}, "too_large"), ({"max_pixels": 10}, "too_many_pixels")]
)
async def test_a_picture_that_is_larger_than_the_backend_takes_is_not_sent(w, bound, detail):
    declare(w, **bound)
    job = (await w.upload("ann")).job
    await w.work()
    assert (w.job(job.job_id).reason, w.job(job.job_id).detail) == ("IMAGE_REJECTED", detail)
    assert w.events("job.dispatched") == []


async def test_who_cannot_be_told_to_forget_owes_until_the_term_of_its_contract_is_over(w):
    """GDPR Art. 28(3)(g): by contract deleted; nobody confirms it, so the term is waited for."""
    limits = replace(w.flows.generate.limits, max_backend_retention_s=60)
    upload = replace(w.flows.upload, limits=replace(w.flows.upload.limits, max_backend_retention_s=60))
    w.flows = replace(w.flows, generate=replace(w.flows.generate, limits=limits), upload=upload)
    declare(w, supports_forget=False, is_contracted=True, retention_s=60)
    w.backend.faults.lose("forget", times=10)
    job = await w.portrait("ann")
    assert w.job(job.job_id).is_forget_owed
    assert await w.flows.generate.settle() == 0
    w.clock.advance(timedelta(seconds=60))
    assert await w.flows.generate.settle() == 1
    assert not w.job(job.job_id).is_forget_owed
