"""Legal holds: what they keep, what they refuse, and what happens once they are over."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gateway.errors import (
    HoldActive,
    MessageInvalid,
    NotFound,
    ObjectExpired,
    StateConflict,
    SubjectBlocked,
    SubjectUnknown,
)
from gateway.flows.dsr import DsrDraft
from gateway.flows.retention import HoldDraft
from gateway.ports.records import Consent, Hold, StoredObject
from tests.unit.flows.test_replay import replayed
from tests.world import APP, OFFICER, OTHER_TENANT, World

RULE = "GDPR Art. 17(3)(e)"
OTHER = replace(OFFICER, tenant=OTHER_TENANT)


@pytest.fixture
async def w() -> World:
    world = World()
    await world.ready("ann", "bob")
    return world


async def hold(w: World, subject: str = "ann", **changes: Any) -> Hold:
    placed, receipt = await w.flows.retention.place(OFFICER, HoldDraft(subject, RULE, **changes))
    assert receipt is not None
    return placed


def states(w: World) -> dict[str, str]:
    return {stored.object_id: stored.state for stored in w.records.all(StoredObject)}


async def pass_terms(w: World) -> None:
    """Let every term pass, and the sweeper come on time."""
    for end in sorted({stored.expires_at for stored in w.records.all(StoredObject)}):
        w.clock.advance(end - w.clock.now() + timedelta(minutes=1))
        await w.flows.sweep.run()


async def test_what_is_held_outlives_its_term_unused_and_goes_when_the_hold_is_released(w: World) -> None:
    job = await w.portrait("ann")
    other = await w.portrait("bob")
    placed = await hold(w)
    await pass_terms(w)
    assert states(w) == {job.result_object: "held"}
    assert job.result_object in w.objects.held
    assert other.result_object not in w.objects.held
    with pytest.raises((NotFound, ObjectExpired, StateConflict)):
        await w.released(job.job_id)
    (said,) = w.events("object.held")
    assert (said["obj"], said["hld"], said["why"]) == (job.result_object, placed.hold_id, "expired")
    await w.flows.sweep.run()
    assert len(w.events("object.held")) == 1
    await w.flows.retention.release(OFFICER, placed.hold_id)
    await w.flows.sweep.run()
    assert states(w) == {}
    assert w.objects.held == {}
    assert (await replayed(w)).violations == ()


async def test_an_original_is_kept_when_its_job_is_done(w: World) -> None:
    await hold(w)
    job = await w.portrait("ann")
    assert states(w) == {job.input_object: "held", job.result_object: "live"}
    assert set(w.objects.held) == set(states(w))


async def test_a_hold_ends_by_itself(w: World) -> None:
    await w.portrait("ann")
    await hold(w, until=w.clock.now() + timedelta(days=90))
    await pass_terms(w)
    assert set(states(w).values()) == {"held"}
    w.clock.advance(timedelta(days=61))
    await w.flows.sweep.run()
    assert states(w) == {}
    assert w.records.all(Hold) == []
    assert [leaf["why"] for leaf in w.events("hold.released")] == ["ended"]
    assert (await replayed(w)).violations == ()


async def test_two_holds_keep_until_both_are_over(w: World) -> None:
    await w.portrait("ann")
    first, second = await hold(w), await hold(w)
    await pass_terms(w)
    await w.flows.retention.release(OFFICER, first.hold_id)
    await w.flows.sweep.run()
    assert set(states(w).values()) == {"held"}
    await w.flows.retention.release(OFFICER, second.hold_id)
    await w.flows.sweep.run()
    assert states(w) == {}


async def test_nobody_deletes_what_is_held(w: World) -> None:
    job = await w.portrait("ann")
    placed = await hold(w)
    with pytest.raises(HoldActive) as refused:
        await w.flows.subjects.delete_object(APP, job.result_object)
    assert refused.value.metadata == {"hold": f"holds/{placed.hold_id}", "rule": RULE}
    with pytest.raises(HoldActive):
        await w.flows.jobs.delete(APP, job.job_id)
    assert states(w) == {job.result_object: "live"}
    assert await w.released(job.job_id)


async def test_a_hold_on_evidence_lets_pictures_go(w: World) -> None:
    job = await w.portrait("ann")
    await hold(w, classes=("evidence",))
    await w.flows.subjects.delete_object(APP, job.result_object)
    assert states(w) == {}


async def test_a_withdrawal_stops_use_and_the_hold_keeps_the_picture(w: World) -> None:
    waiting = await w.upload("ann")
    await hold(w)
    await w.flows.consents.withdraw(APP, subject_id="ann", purpose="generate")
    assert w.job(waiting.job.job_id).state == "cancelled"
    assert states(w) == {waiting.job.input_object: "held"}
    assert waiting.job.input_object in w.objects.held


async def test_proof_of_consent_is_kept_beyond_its_term(w: World) -> None:
    await hold(w)
    await w.flows.consents.withdraw(APP, subject_id="ann", purpose="generate")
    await w.flows.consents.withdraw(APP, subject_id="bob", purpose="generate")
    w.clock.advance(timedelta(days=365 * 8))
    await w.flows.sweep.run()
    handle = await w.handle("ann")
    assert {consent.handle for consent in w.records.all(Consent)} == {handle}


async def test_an_erasure_is_previewed_with_the_hold_and_refused(w: World) -> None:
    await w.portrait("ann")
    placed = await hold(w)
    opened, _ = await w.flows.dsrs.create(OFFICER, DsrDraft("ann", "erasure"))
    preview = await w.flows.dsrs.preview(OFFICER, opened.dsr_id)
    kept = {kept.cls.value for kept in preview.plan.keep if kept.rule == RULE}
    assert kept == {"content", "profile", "evidence", "dsr"}
    assert f"holds/{placed.hold_id}" in {held.name for held in preview.held}
    with pytest.raises(HoldActive):
        await w.approve(opened.dsr_id)
    await w.flows.retention.release(OFFICER, placed.hold_id)
    await w.approve(opened.dsr_id)
    await w.carry_out()
    assert w.dsr(opened.dsr_id).state == "fulfilled"


async def test_a_hold_placed_while_an_erasure_runs_stops_it_before_anything_is_destroyed(w: World) -> None:
    job = await w.portrait("ann")
    request = await w.request("ann")
    placed = await hold(w)
    with pytest.raises(HoldActive):
        await w.flows.erasure.run_one()
    assert w.dsr(request.dsr_id).state == "running"
    assert states(w) == {job.result_object: "live"}
    await w.flows.retention.release(OFFICER, placed.hold_id)
    w.clock.advance(timedelta(hours=1))
    await w.carry_out()
    assert w.dsr(request.dsr_id).state == "fulfilled"
    assert states(w) == {}
    with pytest.raises(SubjectBlocked):
        await hold(w)


async def test_an_ended_hold_does_not_stop_an_erasure_and_goes_with_it(w: World) -> None:
    await w.portrait("ann")
    await hold(w, until=w.clock.now() + timedelta(days=90))
    await pass_terms(w)
    w.clock.advance(timedelta(days=61))
    await w.erase("ann")
    assert w.records.all(Hold) == []
    await w.settle()
    assert (await replayed(w)).violations == ()


async def test_a_repeated_call_places_one_hold(w: World) -> None:
    draft = HoldDraft("ann", RULE, request_id="11111111-1111-4111-8111-111111111111")
    first, _ = await w.flows.retention.place(OFFICER, draft)
    again, receipt = await w.flows.retention.place(OFFICER, draft)
    assert (again, receipt) == (first, None)
    assert len(w.events("hold.placed")) == 1


@pytest.mark.parametrize("rule", ["", "because Ann Example said so", "litigation"])
async def test_a_rule_is_a_citation(w: World, rule: str) -> None:
    with pytest.raises(MessageInvalid):
        await w.flows.retention.place(OFFICER, HoldDraft("ann", rule))


async def test_a_hold_does_not_end_before_it_begins(w: World) -> None:
    with pytest.raises(MessageInvalid):
        await w.flows.retention.place(OFFICER, HoldDraft("ann", RULE, until=w.clock.now()))


async def test_holds_are_of_one_tenant(w: World) -> None:
    placed = await hold(w)
    with pytest.raises(SubjectUnknown):
        await w.flows.retention.place(OFFICER, HoldDraft("nobody", RULE))
    with pytest.raises(NotFound):
        await w.flows.retention.release(OTHER, placed.hold_id)
    assert (await w.flows.retention.holds(OTHER, 0, "")).items == ()
    assert (await w.flows.retention.holds(OFFICER, 0, "")).items == (placed,)


async def test_what_is_due_is_listed_in_order_and_by_pages(w: World) -> None:
    jobs = [await w.portrait("ann") for _ in range(5)]
    placed = await hold(w)
    assert (await w.flows.retention.due(OFFICER, None, 0, "")).items == ()
    before = w.clock.now() + timedelta(days=60)
    seen: list[str] = []
    token = ""
    while True:
        page = await w.flows.retention.due(OFFICER, before, 2, token)
        seen += [due.stored.object_id for due in page.items]
        assert all(due.hold_id == placed.hold_id for due in page.items)
        token = page.next_token
        if not token:
            break
    assert sorted(seen) == sorted(job.result_object for job in jobs)
    assert (await w.flows.retention.due(OTHER, before, 0, "")).items == ()


async def test_the_schedule_names_every_rule(w: World) -> None:
    lines = w.flows.retention.schedule(OFFICER)
    assert {"gdpr", "ccpa", "pipeda", "house", "deployment"} <= {line.pack for line in lines}
    assert all(line.citations and (line.at_most or line.at_least) for line in lines)
