"""Erasure: each step may be repeated, taken over, or raced, and others lose nothing."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta

import pytest

from audit.verify import verify_certificate
from gateway.errors import LeaseLost, LetheError, StateConflict, SubjectBlocked, SubjectUnknown
from gateway.flows.dsr import DsrDraft
from gateway.people import Profile
from gateway.ports.keys import Epoch
from gateway.ports.records import Certificate, ClosedEpoch, Consent, Dsr, Job, Subject, SubjectKey
from tests import invariants
from tests.sample import sampled
from tests.world import APP, LEASE, OFFICER, World


@pytest.fixture
async def w() -> World:
    """Ann and Bob consented, and each has a portrait."""
    made = World()
    await made.ready("ann", "bob")
    await made.portrait("ann")
    await made.portrait("bob")
    return made


async def bob_lost_nothing(w: World) -> None:
    """His portrait, his profile and his evidence open in a process that has nothing in memory."""
    flows = w.process()
    bob = await w.handle("bob")
    (job,) = [row for row in w.records.all(Job) if row.handle == bob]
    assert len([chunk async for chunk in (await flows.release.run(APP, job.job_id)).chunks]) == 1
    assert (await flows.subjects.get(APP, "bob")).profile.birth_year == 1980
    (consent,) = [row for row in w.records.all(Consent) if row.handle == bob]
    assert await flows.consents.evidence(consent)


async def is_erased(w: World, dsr_id: str) -> None:
    assert w.dsr(dsr_id).state == "fulfilled"
    invariants.check_gone(w.rows, await w.handle("ann"))
    await bob_lost_nothing(w)
    await w.settle()


async def test_nothing_carries_the_subject_any_more_and_others_lose_nothing(w: World) -> None:
    """GDPR Art. 17(1)."""
    await is_erased(w, (await w.erase("ann")).dsr_id)


async def test_old_epoch_keys_are_destroyed_and_survivors_are_under_new_ones(w: World) -> None:
    before = {row.epoch for row in w.records.all(SubjectKey)}
    await w.erase("ann")
    assert {row.epoch for row in w.records.all(ClosedEpoch)} == before
    assert {str(epoch) for epoch in w.keys.live}.isdisjoint(before)
    assert {row.epoch for row in w.records.all(SubjectKey)} <= {str(epoch) for epoch in w.keys.live}


async def test_proof_of_consent_stays_without_the_handle_and_opens_until_its_term(w: World) -> None:
    """GDPR Art. 7(1), 17(3)(b), (e)."""
    await w.erase("ann")
    (kept,) = [row for row in w.records.all(Consent) if row.handle is None]
    assert kept.keep_until is not None
    assert (await w.process().consents.evidence(kept))["act"] == "checkbox"
    w.clock.advance(kept.keep_until - w.clock.now())
    await w.flows.sweep.run()
    assert kept.consent_id not in {row.consent_id for row in w.records.all(Consent)}
    assert kept.key_id not in {row.key_id for row in w.records.all(SubjectKey)}


async def test_the_certificate_says_what_the_leaf_says_and_names_nobody(w: World) -> None:
    """GDPR Art. 5(2)."""
    handle = await w.handle("ann")
    dsr = await w.erase("ann")
    (certificate,) = w.records.all(Certificate)
    (leaf,) = w.events("subject.erased")
    statement = json.loads(json.loads(certificate.opening)["payload"])
    assert statement["certificate"] == f"certificates/{dsr.certificate_id}"
    assert statement["dsr"] == f"dsrs/{dsr.dsr_id}"
    assert statement["erased_classes"] == leaf["cls"] == ["audit", "content", "profile"]
    assert statement["kept_classes"] == leaf["kept"]
    assert [kept["cls"] for kept in leaf["kept"]] == ["evidence", "dsr"]
    assert (statement["unreadable_here_ms"], statement["unreadable_in_backups_ms"]) == (
        leaf["t1"],
        leaf["t2"],
    )
    assert (leaf["nobj"], leaf["ncon"], leaf["njob"]) == (1, 1, 1)
    for needle in (b"ann", handle.encode()):
        assert needle not in certificate.opening
    await w.log()
    proof = await w.flows.audit.inclusion(OFFICER, certificate.event_id)
    trust = "\n".join(await w.flows.audit.keys(OFFICER))
    assert verify_certificate(proof.tlog_proof, certificate.opening, trust).verdict == "valid"


async def test_where_copies_of_keys_are_beyond_us_no_date_for_backups_is_given() -> None:
    w = World()
    w.keys._copies = True
    await w.ready("ann")
    await w.erase("ann")
    (leaf,) = w.events("subject.erased")
    assert "t2" not in leaf


@pytest.mark.parametrize("step", ["_bar", "_destroy", "_remove_bytes", "_reach_backups", "_certify"])
async def test_each_step_may_be_taken_twice(w: World, step: str) -> None:
    opened = await w.request("ann")
    erasure = w.flows.erasure
    claimed = await w.records.transact(lambda tx: erasure._claim(tx, "me"))
    assert claimed is not None
    dsr: Dsr = claimed
    for number, name in enumerate(("_bar", "_destroy", "_remove_bytes", "_reach_backups", "_certify"), 1):
        await getattr(erasure, name)(dsr)
        if name == step:
            await getattr(erasure, name)(dsr)
        if name != "_certify":
            dsr = await w.records.transact(lambda tx, n=number, d=dsr: erasure._tick(tx, d, n))
    await is_erased(w, opened.dsr_id)
    (leaf,) = w.events("subject.erased")
    assert leaf["nobj"] in ({1} if step != "_destroy" else {0, 1})


@pytest.mark.parametrize("batch", [0, 1, 2])
async def test_many_pictures_are_destroyed_some_at_a_time_and_each_once(
    monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    """One commit of all would hold others up; a process that dies between two leaves the rest to the next."""
    monkeypatch.setattr("gateway.flows.erasure.AT_ONCE", 2)
    smooth, w = [await _with_five_portraits() for _ in range(2)]
    opened, _ = await w.request("ann"), await smooth.request("ann")
    smooth.trip.calls.clear()
    await smooth.carry_out()
    some = "records.transact/Erasure._end_pictures"
    at = [number for number, call in enumerate(smooth.trip.calls) if call == some]
    assert len(at) == 3

    class Dies(Exception):
        """The process dies in the middle of the pictures."""

    def die(_point: str) -> None:
        raise Dies

    w.trip.do(at[batch], "after", die)
    with pytest.raises(Dies):
        await w.carry_out()
    w.clock.advance(LEASE + timedelta(seconds=1))
    await w.carry_out(w.process())
    destroyed = [leaf["obj"] for leaf in w.events("object.destroyed") if leaf["why"] == "erasure"]
    assert len(destroyed) == len(set(destroyed)) == 5
    (leaf,) = w.events("subject.erased")
    assert leaf["nobj"] == 5
    await is_erased(w, opened.dsr_id)


async def _with_five_portraits() -> World:
    made = World()
    await made.ready("ann", "bob")
    await made.portrait("bob")
    for _ in range(5):
        await made.portrait("ann")
    return made


async def test_a_worker_that_lost_its_lease_does_not_undo_what_another_did(w: World) -> None:
    """A stale worker must not overwrite what was destroyed, or the bytes and the backups are forgotten."""
    opened = await w.request("ann")
    stale = await w.records.transact(lambda tx: w.flows.erasure._claim(tx, "slow"))
    assert stale is not None
    await w.flows.erasure._bar(stale)
    w.clock.advance(LEASE + timedelta(seconds=1))
    fresh = await w.records.transact(lambda tx: w.flows.erasure._claim(tx, "fast"))
    assert fresh is not None
    await w.flows.erasure._destroy(fresh)
    with pytest.raises(LeaseLost):
        await w.flows.erasure._destroy(stale)
    assert len(w.dsr(opened.dsr_id).counts["objects"]) == 1
    w.clock.advance(LEASE + timedelta(seconds=1))
    await w.carry_out()
    (leaf,) = w.events("subject.erased")
    assert leaf["nobj"] == 1
    await is_erased(w, opened.dsr_id)


@pytest.mark.parametrize("at", range(0, 40, 3))
async def test_a_worker_that_is_overtaken_anywhere_gives_up_or_finishes_and_the_erasure_stands(
    w: World, at: int
) -> None:
    opened = await w.request("ann")
    w.trip.do(at, "before", lambda _point: w.clock.advance(LEASE + timedelta(seconds=1)))
    both = await asyncio.gather(w.carry_out(), w.carry_out(w.process()), return_exceptions=True)
    assert all(fault is None or isinstance(fault, LetheError) for fault in both), both
    w.check()
    w.clock.advance(LEASE + timedelta(seconds=1))
    await w.carry_out()
    assert len(w.events("subject.erased")) == 1
    await is_erased(w, opened.dsr_id)


async def test_two_requests_of_one_subject_are_both_fulfilled(w: World) -> None:
    """GDPR Art. 12(3): each request is answered."""
    first, second = await w.request("ann"), await w.request("ann")
    await w.carry_out()
    for opened in (first, second):
        await is_erased(w, opened.dsr_id)
    assert [leaf["nobj"] for leaf in w.events("subject.erased")] == [1, 0]
    assert len({certificate.dsr_id for certificate in w.records.all(Certificate)}) == 2


async def test_a_request_that_was_open_when_another_was_carried_out_can_still_be_approved(w: World) -> None:
    waiting, _ = await w.flows.dsrs.create(OFFICER, DsrDraft("ann", "erasure"))
    await w.erase("ann")
    await w.approve(waiting.dsr_id)
    await w.carry_out()
    await is_erased(w, waiting.dsr_id)


async def test_two_subjects_of_one_epoch_can_be_erased_one_while_the_other_is_half_done(w: World) -> None:
    """The roll to which the first moved its survivors is itself rolled and destroyed meanwhile."""
    await w.know("carl")
    await w.consent("carl")
    await w.portrait("carl")
    ann = await w.request("ann")
    destroyed = []

    class Dies(Exception):
        """The process dies as soon as the first old epoch key is destroyed."""

    def die(point: str) -> None:
        raise Dies(destroyed.append(point))

    smooth = await _calls_of_an_erasure()
    w.trip.do(smooth.index("keys.destroy_epoch"), "after", die)
    with pytest.raises(Dies):
        await w.carry_out()
    assert destroyed == ["keys.destroy_epoch"]
    carl = await w.request("carl")
    await w.carry_out(w.process())
    assert w.dsr(carl.dsr_id).state == "fulfilled"
    w.clock.advance(LEASE + timedelta(seconds=1))
    await w.carry_out(w.process())
    await is_erased(w, ann.dsr_id)


async def _calls_of_an_erasure() -> list[str]:
    smooth = World()
    await smooth.ready("ann", "bob", "carl")
    for subject in ("ann", "bob", "carl"):
        await smooth.portrait(subject)
    await smooth.request("ann")
    smooth.trip.calls.clear()
    await smooth.carry_out()
    return list(smooth.trip.calls)


async def test_survivors_never_move_to_an_epoch_that_is_being_rolled(w: World) -> None:
    """Else its key would be destroyed under them."""
    custody = w.flows.erasure.custody
    bob = await w.handle("bob")
    key = next(row for row in w.records.all(SubjectKey) if row.handle == bob and row.cls == "content")
    old = Epoch.parse(key.epoch)
    first = Epoch(old.tenant, old.cls, old.month, old.roll + 1)
    await w.keys.create_epoch(first)
    await w.records.transact(lambda tx: custody._close(tx, first))
    await custody.roll(old)
    await custody.roll(first)
    await bob_lost_nothing(w)


async def test_survivors_whose_new_epoch_is_rolled_in_the_middle_move_on_to_the_next(w: World) -> None:
    """Between wrapping and keeping, another erasure closes the epoch: nobody may be lost with the old one."""
    custody = w.flows.erasure.custody
    bob = await w.handle("bob")
    key = next(row for row in w.records.all(SubjectKey) if row.handle == bob and row.cls == "content")
    old = Epoch.parse(key.epoch)
    first = replace(old, roll=old.roll + 1)

    def close(_point: str) -> None:
        # Another process, between two transactions of this one: it found nobody there yet.
        w.records._tables[ClosedEpoch][str(first),] = ClosedEpoch(str(first), w.clock.now())
        del w.keys.live[first]
        w.keys.destroyed.add(first)

    w.trip.calls.clear()
    smooth = await _calls_of_a_roll(old)
    w.trip.do(smooth.index("records.transact/Custody._replace"), "before", close)
    assert await custody.roll(old) == 2  # ann's and bob's
    await bob_lost_nothing(w)
    assert {row.epoch for row in w.records.all(SubjectKey)}.isdisjoint({str(old), str(first)})


async def _calls_of_a_roll(epoch: Epoch) -> list[str]:
    smooth = World()
    await smooth.ready("ann", "bob")
    await smooth.portrait("ann")
    await smooth.portrait("bob")
    smooth.trip.calls.clear()
    await smooth.flows.erasure.custody.roll(epoch)
    return list(smooth.trip.calls)


async def test_an_upload_that_an_erasure_overtakes_leaves_nothing(w: World) -> None:
    smooth = World()
    await smooth.ready("ann", "bob")
    smooth.trip.calls.clear()
    await smooth.upload("ann")
    for at, point in sampled(list(enumerate(smooth.trip.calls)), 3):
        made = World()
        await made.ready("ann", "bob")
        erasing: list[asyncio.Task[object]] = []
        made.trip.do(
            at, "before", lambda _p, m=made, e=erasing: e.append(asyncio.create_task(m.erase("ann")))
        )
        with_fault = (await asyncio.gather(made.upload("ann"), return_exceptions=True))[0]
        await asyncio.gather(*erasing)
        assert len(erasing) == 1, point
        assert not isinstance(with_fault, Exception) or isinstance(with_fault, LetheError), (
            point,
            with_fault,
        )
        await made.settle()
        invariants.check_gone(made.rows, await made.handle("ann"))
        assert made.objects.held == {}, point


async def test_a_subject_that_comes_back_while_it_is_erased_leaves_no_row(w: World) -> None:
    smooth = World()
    await smooth.ready("ann", "bob")
    smooth.trip.calls.clear()
    await smooth.know("ann")
    for at in range(len(smooth.trip.calls)):
        made = World()
        await made.ready("ann", "bob")
        erasing: list[asyncio.Task[object]] = []
        made.trip.do(
            at, "before", lambda _p, m=made, e=erasing: e.append(asyncio.create_task(m.erase("ann")))
        )
        await asyncio.gather(made.know("ann"), return_exceptions=True)
        await asyncio.gather(*erasing)
        await made.settle()
        invariants.check_gone(made.rows, await made.handle("ann"))


class Overtaken:
    """People as they are, but an erasure is carried out as soon as they have answered."""

    def __init__(self, w: World) -> None:
        self.w, self.people = w, w.flows.subjects.people

    def __getattr__(self, name: str) -> object:
        return getattr(self.people, name)

    async def seal_profile(self, tenant: str, handle: str, profile: Profile) -> tuple[str, bytes]:
        sealed = await self.people.seal_profile(tenant, handle, profile)
        await self.w.erase("ann")
        return sealed

    async def known(self, tenant: str, subject_id: str) -> Subject:
        found = await self.people.known(tenant, subject_id)
        await self.w.erase("ann")
        return found


async def test_a_profile_that_an_erasure_overtakes_is_not_kept(w: World) -> None:
    """Its key died with the erasure; a row would bring the handle back."""
    subjects = replace(w.flows.subjects, people=Overtaken(w))
    with pytest.raises(SubjectBlocked):
        await subjects.upsert(APP, Profile("ann", residence="FR", birth_year=1980))
    invariants.check_gone(w.rows, await w.handle("ann"))


async def test_a_request_that_an_erasure_overtakes_is_not_kept(w: World) -> None:
    dsrs = replace(w.flows.dsrs, people=Overtaken(w))
    with pytest.raises(SubjectUnknown):
        await dsrs.create(OFFICER, DsrDraft("ann", "erasure"))
    invariants.check_gone(w.rows, await w.handle("ann"))


async def test_what_was_approved_cannot_be_cancelled_once_done(w: World) -> None:
    dsr = await w.erase("ann")
    with pytest.raises(StateConflict):
        await w.flows.dsrs.cancel(OFFICER, dsr.dsr_id)
    with pytest.raises(SubjectUnknown):
        await w.flows.dsrs.create(OFFICER, DsrDraft("ann", "erasure"))
