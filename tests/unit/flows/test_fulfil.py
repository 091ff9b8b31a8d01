"""Requests carried out: each effect is there with its answer, once, whoever else runs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gateway.errors import LeaseLost, MessageInvalid, StoreUnavailable
from gateway.people import Guardian, Profile
from gateway.ports.records import Consent, Dsr, Signal, StoredObject, Subject
from policy.dsr import DIRECT, EFFECTS, Effect
from policy.terms import DsrKind
from tests.world import APP, LEASE, OFFICER, World

CORRECTED = Profile(
    "ann", residence="FR", location="FR", birth_year=1999, guardian=Guardian("card", "parent")
)


@pytest.fixture
async def w() -> World:
    """Ann and Bob consented, and each has a portrait."""
    made = World()
    await made.ready("ann", "bob")
    await made.portrait("ann")
    await made.portrait("bob")
    return made


async def answered(w: World, kind: str, **more: Any) -> Dsr:
    """Return a request of Ann's that was carried out."""
    if kind == "correction":
        more["correction"] = CORRECTED
    opened = await w.open("ann", kind, **more)
    if DsrKind(kind) not in DIRECT:
        await w.approve(opened.dsr_id)
    await w.carry_out()
    return w.dsr(opened.dsr_id)


async def subject(w: World, name: str = "ann") -> Subject:
    handle = await w.handle(name)
    return next(row for row in w.records.all(Subject) if row.handle == handle)


async def signal(w: World) -> Signal:
    handle = await w.handle("ann")
    return next(row for row in w.records.all(Signal) if row.handle == handle)


async def standing(w: World, name: str = "ann") -> set[str]:
    handle = await w.handle(name)
    return {c.purpose for c in w.records.all(Consent) if c.handle == handle and c.withdrawn_at is None}


async def test_a_purpose_that_was_refused_goes_on_and_the_others_end(w: World) -> None:
    """GDPR Art. 21(1)."""
    await w.publish("generate", "train", "analytics")
    for purpose in ("train", "analytics"):
        await w.consent("ann", purpose, notice_version=2)
    opened = await w.open("ann", "objection", purposes=("analytics", "train"))
    refuse = w.flows.dsrs.refuse_part
    with pytest.raises(MessageInvalid):
        await refuse(OFFICER, opened.dsr_id, "GDPR_21_1_COMPELLING", ["analytics", "train"])
    await refuse(OFFICER, opened.dsr_id, "GDPR_21_1_COMPELLING", ["analytics"])
    await w.approve(opened.dsr_id)
    await w.carry_out()
    assert w.dsr(opened.dsr_id).outcome == "complied_in_part"
    assert "analytics" in await standing(w)
    assert "train" not in await standing(w)
    erasure = await w.open("ann", "erasure")
    with pytest.raises(MessageInvalid) as refusal:
        await refuse(OFFICER, erasure.dsr_id, "GDPR_17_3_E_LEGAL_CLAIMS", ["content"])
    assert refusal.value.violations == (("parts", "parts.not_for_kind"),)


async def test_an_answer_closes_the_file_and_takes_it_off_the_due_list(w: World) -> None:
    done = await answered(w, "restriction")
    assert (done.state, done.outcome, done.due_key, done.answered_at) == (
        "fulfilled",
        "complied",
        None,
        w.clock.now(),
    )
    assert done.keep_until is not None
    (leaf,) = w.events("dsr.fulfilled")
    assert (leaf["dsr"], leaf["out"]) == (done.dsr_id, "complied")
    w.check()


async def test_a_restriction_leaves_storage_only(w: World) -> None:
    """GDPR Art. 18(2)."""
    await answered(w, "restriction")
    assert (await subject(w)).state == "restricted"
    assert (await subject(w, "bob")).state == "active"
    assert len(w.events("subject.restricted")) == 1


async def test_a_correction_rests_sealed_until_it_is_taken_over(w: World) -> None:
    """GDPR Art. 16."""
    opened = await w.open("ann", "correction", correction=CORRECTED)
    assert b"FR" not in w.dsr(opened.dsr_id).sealed_wish
    assert (await w.flows.subjects.get(APP, "ann")).profile.residence == "DE"
    await w.approve(opened.dsr_id)
    await w.carry_out()
    assert (await w.process().subjects.get(APP, "ann")).profile == CORRECTED
    done = w.dsr(opened.dsr_id)
    assert (done.sealed_wish, done.wish_key) == (b"", "")
    assert w.events("subject.upserted")[-1]["age"] == "adult"


async def test_a_correction_that_is_taken_back_leaves_no_trace_of_what_was_wished(w: World) -> None:
    opened = await w.open("ann", "correction", correction=CORRECTED)
    await w.flows.dsrs.cancel(OFFICER, opened.dsr_id)
    assert w.dsr(opened.dsr_id).sealed_wish == b""


async def test_a_withdrawal_needs_no_approval_and_destroys_what_rested_on_it(w: World) -> None:
    """GDPR Art. 7(3), 17(1)(b)."""
    done = await answered(w, "withdrawal")
    assert (done.state, done.approved_by) == ("fulfilled", "")
    assert await standing(w) == set()
    assert await standing(w, "bob") == {"generate"}
    handle = await w.handle("ann")
    assert [row for row in w.records.all(StoredObject) if row.handle == handle] == []
    w.check()


async def test_a_withdrawal_of_one_purpose_leaves_the_others(w: World) -> None:
    await w.consent("ann", "retain_output")
    await answered(w, "withdrawal", purposes=("retain_output",))
    assert await standing(w) == {"generate"}


async def test_an_objection_stops_what_lies_beside_the_service(w: World) -> None:
    """GDPR Art. 21(1)-(3)."""
    await w.publish("generate", "train")
    await w.consent("ann", "train", notice_version=2)
    await answered(w, "objection")
    assert await standing(w) == {"generate"}
    assert (await signal(w)).gpc


async def test_signals_do_not_undo_each_other(w: World) -> None:
    """Civ. Code 1798.120, 1798.121: two rights."""
    await answered(w, "opt_out", regime="ccpa")
    await answered(w, "limit_spi", regime="ccpa")
    said = await signal(w)
    assert (said.gpc, said.limit_spi) == (True, True)
    assert [event["sig"] for event in w.events("signal.recorded")] == [["gpc"], ["gpc", "limit_spi"]]


@pytest.mark.parametrize("kind", ["access", "portability"])
async def test_a_package_is_made_before_the_answer(w: World, kind: str) -> None:
    """GDPR Art. 15, 20."""
    done = await answered(w, kind)
    assert done.package_id == w.packages[done.dsr_id]
    assert done.outcome == "complied"


async def test_a_package_that_cannot_be_made_is_tried_again(w: World) -> None:
    await w.request("ann", "access")
    calls: list[str] = []

    async def fail(dsr: Dsr) -> str:
        calls.append(dsr.dsr_id)
        raise StoreUnavailable

    failing = replace(w.flows.fulfilment, make_package=fail)
    with pytest.raises(StoreUnavailable):
        await failing.run_one()
    assert not await failing.run_one()
    assert w.events("dsr.fulfilled") == []
    w.clock.advance(LEASE + timedelta(seconds=1))
    await w.carry_out()
    assert len(w.events("dsr.fulfilled")) == len(calls) == 1


@pytest.mark.parametrize("kind", ["access", "restriction"])
async def test_of_somebody_who_was_erased_meanwhile_nothing_is_held_and_that_is_the_answer(
    w: World, kind: str
) -> None:
    late = await w.request("ann", kind)
    await w.request("ann")
    while await w.flows.erasure.run_one():
        pass
    await w.carry_out()
    done = w.dsr(late.dsr_id)
    assert (done.state, done.outcome, done.package_id) == ("fulfilled", "nothing_held", "")
    assert w.packages == {}
    w.check()


async def test_erasures_and_other_requests_are_not_taken_by_the_wrong_worker(w: World) -> None:
    erasure = await w.request("ann")
    assert not await w.flows.fulfilment.run_one()
    assert w.dsr(erasure.dsr_id).state == "approved"
    restriction = await w.request("bob", "restriction")
    while await w.flows.erasure.run_one():
        pass
    assert w.dsr(restriction.dsr_id).state == "approved"


async def test_a_worker_that_lost_its_lease_changes_nothing(w: World) -> None:
    """Fenced: the answer of the one that took over stands, once."""
    opened = await w.request("ann", "access")
    begun, slow = asyncio.Event(), asyncio.Event()

    async def wait(dsr: Dsr) -> str:
        begun.set()
        await slow.wait()
        return await w.flows.packages.make(dsr)

    late = asyncio.create_task(replace(w.flows.fulfilment, make_package=wait).run_one())
    await begun.wait()
    assert w.dsr(opened.dsr_id).state == "running"
    w.clock.advance(LEASE + timedelta(seconds=1))
    await w.carry_out()
    slow.set()
    with pytest.raises(LeaseLost):
        await late
    assert len(w.events("dsr.fulfilled")) == 1
    w.check()


async def test_two_workers_answer_each_request_once(w: World) -> None:
    for name in ("ann", "bob"):
        await w.request(name, "restriction")
    await asyncio.gather(w.carry_out(), w.carry_out(w.process()))
    assert len(w.events("dsr.fulfilled")) == len(w.events("subject.restricted")) == 2


def test_every_kind_has_an_effect_and_only_withdrawals_and_the_like_need_no_approval() -> None:
    assert EFFECTS.keys() == set(DsrKind)
    assert all(EFFECTS.values())
    assert {kind for kind, effects in EFFECTS.items() if Effect.ERASE in effects} == {DsrKind.ERASURE}
    assert {"opt_out", "limit_spi", "withdrawal"} == DIRECT
