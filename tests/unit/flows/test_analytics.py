"""The abstract record of a picture: who may have it, what it says, and what is left of it."""

from __future__ import annotations

import contextlib
from datetime import timedelta

import pytest

from audit.replay import Tally
from gateway.errors import (
    ImageRejected,
    LetheError,
    NotFound,
    ObjectExpired,
    PolicyDenied,
    ScrubberUnavailable,
    SubjectBlocked,
)
from gateway.flows.analytics import Recorded
from gateway.flows.retention import HoldDraft
from gateway.ports.records import Leaf, SealedPayload, StoredObject
from tests.doors import When
from tests.fakes.faces import RECORD
from tests.unit.flows.test_replay import replayed, tick
from tests.unit.flows.test_training import made, ready
from tests.world import APP, OFFICER, PORTRAIT, STRANGER, World, chunks, order


@pytest.fixture
async def w() -> World:
    made = World()
    await made.publish("generate", "analytics")
    for subject in ("ann", "bob"):
        await made.know(subject)
        await made.consent(subject)
    await made.consent("ann", "analytics")
    return made


async def picture(w: World, subject: str = "ann") -> str:
    return (await w.portrait(subject)).result_object


async def record(w: World, object_id: str) -> Recorded:
    return await w.flows.analytics.record(APP, object_id)


async def refused(w: World, refusal: type[LetheError], object_id: str) -> LetheError:
    with pytest.raises(refusal) as caught:
        await record(w, object_id)
    assert not w.events("landmarks.released")
    return caught.value


async def test_a_record_is_made_by_the_profile_landmarks_and_logged_with_what_was_measured(w: World) -> None:
    found = await picture(w)
    w.faces.asked.clear()
    got = await record(w, found)
    assert (got.record, got.similarity) == (RECORD, 87)
    assert [asked.profile for asked in w.faces.asked] == ["landmarks"]
    (leaf,) = w.events("landmarks.released")
    assert (leaf["obj"], leaf["pur"], leaf["nface"], leaf["sim"]) == (found, "analytics", 1, 87)
    assert got.receipt.event_id == leaf["id"]
    (decision,) = [leaf for leaf in w.events("decision.made") if "obj" in leaf]
    assert (decision["dec"], decision["pur"], decision["cat"]) == ("allow", "analytics", "landmarks")
    assert "job" not in decision
    w.check()


async def test_what_a_record_says_is_kept_nowhere(w: World) -> None:
    found = await picture(w)
    before, held = w.rows, dict(w.objects.held)
    await record(w, found)
    assert {kind for kind, rows in w.rows.items() if rows != before[kind]} == {Leaf, SealedPayload}
    assert w.objects.held == held
    bins = {"place", "size", "yaw", "pitch", "roll", "is_smiling", "is_mouth_open", "are_eyes_closed"}
    (leaf,) = w.events("landmarks.released")
    assert not bins & leaf.keys()


async def test_without_a_consent_of_its_own_there_is_none_and_the_refusal_is_logged(w: World) -> None:
    """GDPR Art. 6(1)(a), 9(2)(a): a consent to having a picture made is none to this."""
    found = await picture(w, "bob")
    refusal = await refused(w, PolicyDenied, found)
    assert refusal.code == "DENY_PURPOSE_NOT_CONSENTED"
    assert [(leaf["obj"], leaf["rc"]) for leaf in w.events("landmarks.refused")] == [(found, refusal.code)]
    assert [leaf["dec"] for leaf in w.events("decision.made") if "obj" in leaf] == ["deny"]


async def test_each_call_is_decided_for_itself(w: World) -> None:
    """GDPR Art. 7(3)."""
    found = await picture(w)
    await record(w, found)
    await w.flows.consents.withdraw(APP, subject_id="ann", purpose="analytics")
    with pytest.raises(PolicyDenied):
        await record(w, found)
    await tick(w)
    await w.consent("ann", "analytics")
    await record(w, found)
    assert len(w.events("landmarks.released")) == 2


async def test_a_withdrawal_while_it_is_made_stops_it(w: World) -> None:
    found = await picture(w)
    inner = w.faces.deidentify

    async def slow(*asked: object, **also: object) -> object:
        await w.flows.consents.withdraw(APP, subject_id="ann", purpose="analytics")
        return await inner(*asked, **also)  # type: ignore[arg-type] # passed on

    w.faces.deidentify = slow  # type: ignore[method-assign, assignment] # what the test is about
    await refused(w, PolicyDenied, found)


async def test_a_restriction_stops_it(w: World) -> None:
    """GDPR Art. 18(2)."""
    found = await picture(w)
    await w.flows.subjects.restrict(OFFICER, "ann", restricted=True)
    assert (await refused(w, PolicyDenied, found)).code == "DENY_RESTRICTED"


async def test_anothers_picture_and_what_is_none_are_not_there(w: World) -> None:
    found = await picture(w)
    with pytest.raises(NotFound):
        await w.flows.analytics.record(STRANGER, found)
    for name in ("0" * 32, (await w.portrait("ann")).job_id):
        await refused(w, NotFound, name)
    assert not w.events("landmarks.refused")


async def test_a_picture_of_another_person_asks_for_that_persons_release(w: World) -> None:
    accepted = await w.upload("ann")
    job = w.job(accepted.job.job_id)
    await w.records.transact(lambda tx: tx.remove(job))
    await refused(w, PolicyDenied, job.input_object)


async def test_what_is_destroyed_expired_or_held_is_not_looked_at(w: World) -> None:
    gone, held, late = [await picture(w) for _ in range(3)]
    await w.flows.subjects.delete_object(APP, gone)
    with pytest.raises(LetheError):
        await record(w, gone)
    await w.flows.retention.place(OFFICER, HoldDraft("ann", "GDPR Art. 17(3)(e)"))
    w.clock.advance(timedelta(days=31))
    await w.flows.sweep.run()
    await refused(w, ObjectExpired, held)
    await refused(w, ObjectExpired, late)


async def test_after_an_erasure_there_is_no_record(w: World) -> None:
    """GDPR Art. 17(1)."""
    found = await picture(w)
    await w.request("ann")
    await w.flows.erasure.run_one()
    with pytest.raises((NotFound, ObjectExpired, SubjectBlocked)):
        await record(w, found)
    assert not w.events("landmarks.released")


async def test_what_cannot_be_abstracted_is_refused_by_name(w: World) -> None:
    found = await picture(w)
    w.faces.rejects = "verifier_linked"
    assert (await refused(w, ImageRejected, found)).detail == "verifier_linked"
    assert [leaf["det"] for leaf in w.events("landmarks.refused")] == ["verifier_linked"]
    w.faces.is_down = True
    await refused(w, ScrubberUnavailable, found)


async def test_a_copy_in_a_training_set_has_none() -> None:
    w = await ready("ann")
    await made(w)
    (copy,) = [row for row in w.records.all(StoredObject) if row.purpose == "train"]
    await refused(w, NotFound, copy.object_id)


async def test_where_nothing_is_kept_there_is_no_picture_to_ask_about(w: World) -> None:
    w.keep_nothing()
    accepted = await w.flows.upload.run(APP, order("ann"), chunks(PORTRAIT), is_attended=True)
    await refused(w, NotFound, accepted.job.input_object)


async def test_the_log_of_records_breaks_no_rule(w: World) -> None:
    await tick(w)
    found = await picture(w)
    await tick(w)
    await record(w, found)
    await tick(w)
    await w.flows.consents.withdraw(APP, subject_id="ann", purpose="analytics")
    await tick(w)
    with pytest.raises(PolicyDenied):
        await record(w, found)
    report = await replayed(w)
    assert report.violations == ()
    assert report.promises["recorded_with_permission"] == Tally(kept=1)
    assert report.not_replayable == 0


@pytest.mark.parametrize("when", ["before", "after"])
async def test_no_record_goes_out_without_its_leaf_whatever_call_fails(w: World, when: When) -> None:
    found = await picture(w)
    w.trip.calls.clear()
    await record(w, found)
    for at in range(len(w.trip.calls)):
        before = len(w.events("landmarks.released"))
        w.trip.lose(at, when)
        with contextlib.suppress(LetheError):
            await record(w, found)
            before += 1
        # A reply that was lost may leave a leaf without an answer, and never the other way round.
        assert len(w.events("landmarks.released")) >= before
        w.check()
