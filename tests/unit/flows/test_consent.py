"""Consent: recorded, superseded, withdrawn, given again; and what a withdrawal takes with it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from gateway.errors import (
    IdempotencyConflict,
    MessageInvalid,
    NotFound,
    NoticeUnknown,
    PolicyDenied,
    StoreUnavailable,
    SubjectBlocked,
)
from gateway.ports.records import Consent, Signal
from tests.world import APP, OFFICER, STRANGER, World

ID = "6d4f1c1e-4f8e-4a57-8e5c-0d6f3f6c1a01"


@pytest.fixture
async def w() -> World:
    made = World()
    await made.publish("generate")
    await made.know("ann")
    return made


async def is_allowed(w: World, subject: str = "ann") -> bool:
    return (await w.flows.consents.check(APP, subject, "generate")).allowed


async def test_consent_permits_and_its_withdrawal_ends_that_at_once(w: World) -> None:
    """GDPR Art. 7(3)."""
    assert not await is_allowed(w)
    consent = await w.consent("ann")
    assert await is_allowed(w)
    await w.flows.consents.withdraw(APP, consent.consent_id)
    assert not await is_allowed(w)
    w.check()


async def test_a_superseded_consent_does_not_come_back_to_life_when_the_newer_one_is_withdrawn(
    w: World,
) -> None:
    await w.consent("ann")
    w.clock.advance(timedelta(hours=1))
    newer = await w.consent("ann")
    await w.flows.consents.withdraw(APP, newer.consent_id)
    assert not await is_allowed(w)
    assert all(row.withdrawn_at is not None for row in w.records.all(Consent))


async def test_a_superseded_consent_does_not_come_back_to_life_when_the_newer_one_expires(w: World) -> None:
    await w.consent("ann")
    w.clock.advance(timedelta(hours=1))
    await w.consent("ann", expires_at=w.clock.now() + timedelta(hours=1))
    assert await is_allowed(w)
    w.clock.advance(timedelta(hours=2))
    assert not await is_allowed(w)


async def test_after_a_withdrawal_a_new_consent_works(w: World) -> None:
    first = await w.consent("ann")
    await w.flows.consents.withdraw(APP, first.consent_id)
    w.clock.advance(timedelta(seconds=1))
    await w.consent("ann")
    assert await is_allowed(w)
    assert (await w.portrait("ann")).state == "succeeded"


async def test_a_withdrawal_destroys_what_was_kept(w: World) -> None:
    """GDPR Art. 17(1)(b)."""
    await w.consent("ann")
    await w.portrait("ann")
    assert len(w.objects.held) == 1
    await w.flows.consents.withdraw(APP, subject_id="ann", purpose="generate")
    assert w.objects.held == {}
    assert w.live() == set()
    assert [leaf["why"] for leaf in w.events("object.destroyed")][-1] == "withdrawn"
    w.check()


async def test_a_withdrawal_leaves_the_keepings_of_others_alone(w: World) -> None:
    await w.consent("ann")
    await w.know("bob")
    await w.consent("bob")
    await w.portrait("ann")
    bob = await w.portrait("bob")
    await w.flows.consents.withdraw(APP, subject_id="ann", purpose="generate")
    assert set(w.objects.held) == {bob.result_object}


async def test_a_withdrawal_ends_a_job_that_waits(w: World) -> None:
    await w.consent("ann")
    job_id = (await w.upload("ann")).job.job_id
    await w.flows.consents.withdraw(APP, subject_id="ann", purpose="generate")
    assert w.job(job_id).state == "cancelled"
    await w.work()
    assert w.events("job.dispatched") == []
    w.check()


async def test_a_withdrawal_is_repeated_without_effect(w: World) -> None:
    consent = await w.consent("ann")
    for _ in range(2):
        done = await w.flows.consents.withdraw(APP, consent.consent_id)
        assert done.consents[0].withdrawn_at is not None
    assert done.is_repeated
    assert done.receipt is None
    assert len(w.events("consent.withdrawn")) == 1


async def test_a_request_id_makes_one_consent(w: World) -> None:
    first = await w.consent("ann", request_id=ID)
    assert await w.consent("ann", request_id=ID) == first
    with pytest.raises(IdempotencyConflict):
        await w.consent("ann", form="implied", request_id=ID)
    assert w.count(Consent) == 1


async def test_evidence_rests_sealed_and_opens_again(w: World) -> None:
    """GDPR Art. 7(1)."""
    consent = await w.consent("ann", evidence={"act": "checkbox", "channel": "kiosk-at-the-fair"})
    assert b"kiosk" not in consent.sealed_evidence
    assert (await w.flows.consents.evidence(consent))["channel"] == "kiosk-at-the-fair"


async def test_evidence_of_another_consent_does_not_open(w: World) -> None:
    one, other = await w.consent("ann"), await w.consent("ann")
    with pytest.raises(Exception, match="box"):
        await w.flows.consents.evidence(replace(one, sealed_evidence=other.sealed_evidence))


@pytest.mark.parametrize(
    "changes",
    [
        {"notice_id": "unpublished"},
        {"notice_version": 2},
        {"notice_language": "de"},
        {"notice_sha256": "00" * 32},
        {"purpose": "marketing"},
    ],
)
async def test_only_to_a_text_that_was_published_can_one_consent(
    w: World, changes: dict[str, object]
) -> None:
    """GDPR Art. 4(11), 7(2)."""
    with pytest.raises(NoticeUnknown):
        await w.consent("ann", **changes)
    assert w.count(Consent) == 0


async def test_times_that_cannot_be_are_refused(w: World) -> None:
    now = w.clock.now()
    for changes in ({"given_at": now + timedelta(seconds=1)}, {"expires_at": now}):
        with pytest.raises(MessageInvalid):
            await w.consent("ann", **changes)


async def test_another_tenant_finds_no_consent(w: World) -> None:
    consent = await w.consent("ann")
    with pytest.raises(NotFound):
        await w.flows.consents.get(STRANGER, consent.consent_id)
    with pytest.raises(NotFound):
        await w.flows.consents.withdraw(STRANGER, consent.consent_id)


async def test_a_signal_replaces_the_last_one_and_is_logged_as_codes(w: World) -> None:
    """11 CCR 7025(b)."""
    await w.flows.consents.signal(APP, "ann", gpc=True, limit_spi=True)
    await w.flows.consents.signal(APP, "ann", gpc=True, limit_spi=False)
    (signal,) = w.records.all(Signal)
    assert (signal.gpc, signal.limit_spi) == (True, False)
    assert [leaf["sig"] for leaf in w.events("signal.recorded")] == [["gpc", "limit_spi"], ["gpc"]]


async def test_a_signal_that_an_erasure_overtakes_leaves_no_row(w: World) -> None:
    await w.consent("ann")
    people = w.flows.consents.people
    known = await people.known("acme", "ann")
    await w.erase("ann")
    object.__setattr__(w.flows.consents, "people", Overtaken(known))
    with pytest.raises(SubjectBlocked):
        await w.flows.consents.signal(APP, "ann", gpc=True, limit_spi=False)
    assert w.count(Signal) == 0


class Overtaken:
    """Answers as before the erasure."""

    def __init__(self, subject: object) -> None:
        self.subject = subject

    async def known(self, _tenant: str, _subject_id: str) -> object:
        return self.subject


async def test_without_consent_the_answer_names_the_rule(w: World) -> None:
    with pytest.raises(PolicyDenied) as refused:
        await w.upload("ann")
    assert refused.value.metadata["citations"]


# --- states, proof, renewal ------------------------------------------------------------------


def states(w: World) -> list[str]:
    return [row.state for row in sorted(w.records.all(Consent), key=lambda row: row.given_at)]


async def test_a_consent_given_while_another_stands_reaffirms_it(w: World) -> None:
    await w.consent("ann")
    w.clock.advance(timedelta(hours=1))
    await w.consent("ann")
    assert states(w) == ["superseded", "reaffirmed"]


async def test_a_consent_given_after_a_withdrawal_or_a_term_is_a_new_one(w: World) -> None:
    first = await w.consent("ann")
    await w.flows.consents.withdraw(APP, first.consent_id)
    w.clock.advance(timedelta(hours=1))
    await w.consent("ann", expires_at=w.clock.now() + timedelta(hours=1))
    w.clock.advance(timedelta(hours=2))
    await w.consent("ann")
    assert states(w) == ["withdrawn", "superseded", "given"]


async def test_the_answer_after_a_withdrawal_says_what_the_newer_consent_lacks(w: World) -> None:
    """A withdrawal that was overtaken by a weaker consent is no longer the reason."""
    first = await w.consent("ann")
    await w.flows.consents.withdraw(APP, first.consent_id)
    w.clock.advance(timedelta(seconds=1))
    await w.agree_to_terms("ann")
    decision = await w.flows.consents.check(APP, "ann", "generate")
    assert decision.reason_code == "DENY_NO_EXPLICIT_CONSENT"


async def test_a_record_that_proves_too_little_is_refused_with_field_and_rule(w: World) -> None:
    """GDPR Art. 7(1), 9(2)(a)."""
    with pytest.raises(PolicyDenied) as refused:
        await w.consent("ann", form="express", flags=())
    assert refused.value.code == "DENY_NO_EXPLICIT_CONSENT"
    fields = dict(refused.value.violations)
    assert fields.keys() == {"consent.form", "consent.separate"}
    assert all("GDPR Art. 9(2)(a)" in cited for cited in fields.values())
    assert (w.count(Consent), w.events("consent.recorded")) == (0, [])


async def test_an_invalid_consent_was_never_given_and_what_rests_on_it_ends(w: World) -> None:
    consent = await w.consent("ann")
    job = await w.portrait("ann")
    done = await w.flows.consents.invalidate(OFFICER, consent.consent_id)
    assert [one.state for one in done.consents] == ["invalidated"]
    assert not await is_allowed(w)
    assert w.live() == set()
    with pytest.raises(PolicyDenied):
        await w.released(job.job_id)
    assert (await w.flows.consents.invalidate(OFFICER, consent.consent_id)).is_repeated
    assert len(w.events("consent.invalidated")) == 1
    w.check()


async def test_an_old_consent_found_invalid_does_not_stop_what_rests_on_a_newer_one(w: World) -> None:
    old = await w.consent("ann")
    w.clock.advance(timedelta(hours=1))
    await w.consent("ann")
    job = await w.portrait("ann")
    await w.flows.consents.invalidate(OFFICER, old.consent_id)
    assert await w.released(job.job_id)


async def test_a_result_that_another_consent_keeps_survives_and_goes_with_that_one(w: World) -> None:
    """GDPR Art. 17(1)(b): unless there is another ground."""
    await w.publish("generate", "retain_output")
    await w.consent("ann", notice_version=2)
    keeping = await w.consent("ann", purpose="retain_output", notice_version=2)
    job = await w.portrait("ann")
    await w.flows.consents.withdraw(APP, subject_id="ann", purpose="generate")
    (kept,) = w.events("object.kept")
    assert (kept["obj"], kept["con"], kept["pur"]) == (job.result_object, keeping.consent_id, "retain_output")
    assert await w.released(job.job_id)
    await w.flows.consents.withdraw(APP, subject_id="ann", purpose="retain_output")
    with pytest.raises(PolicyDenied):
        await w.released(job.job_id)
    assert w.objects.held == {}
    w.check()


async def renewed(w: World) -> set[str]:
    page = await w.flows.consents.list(OFFICER, "", 0, "", due_for_renewal=True)
    return {consent.consent_id for consent in page.items}


async def test_a_notice_that_states_something_else_marks_the_consents_under_it(w: World) -> None:
    """GDPR Art. 13(3)."""
    await w.know("bob")
    one, other = await w.consent("ann"), await w.consent("bob")
    await w.flows.consents.withdraw(APP, other.consent_id)
    await w.publish("generate", "train")
    assert await renewed(w) == set()
    for _ in range(2):
        await w.flows.sweep.run()
    assert await renewed(w) == {one.consent_id}
    (event,) = w.events("consent.renewal")
    assert (event["con"], event["ntc"]) == (one.consent_id, w.events("notice.published")[-1]["ntc"])
    assert await is_allowed(w)
    w.clock.advance(timedelta(hours=1))
    await w.consent("ann", notice_version=2)
    assert await renewed(w) == set()
    w.check()


async def test_a_notice_in_other_words_alone_marks_nobody(w: World) -> None:
    await w.consent("ann")
    await w.publish("generate")
    await w.flows.sweep.run()
    assert await renewed(w) == set()


async def test_a_consent_to_a_text_that_was_replaced_meanwhile_is_marked_at_once(w: World) -> None:
    await w.publish("generate", "train")
    await w.flows.sweep.run()
    late = await w.consent("ann", notice_version=1)
    assert late.renew_at is not None
    assert len(w.events("consent.renewal")) == 1


async def test_marking_goes_on_where_it_was_cut(w: World) -> None:
    await w.consent("ann")
    await w.publish("generate", "train")
    w.records.fail_next("lost", after=1)
    with pytest.raises(StoreUnavailable):
        await w.flows.sweep._mark_renewals()
    await w.flows.sweep.run()
    assert len(await renewed(w)) == 1


async def test_gpc_stands_until_it_is_recalled_and_leaves_the_other_signal_alone(w: World) -> None:
    """11 CCR 7025: a later call without it undoes nothing."""
    await w.flows.consents.signal(APP, "ann", gpc=False, limit_spi=True)
    for _ in range(2):
        await w.flows.consents.heed_gpc(APP, "ann")
    (signal,) = w.records.all(Signal)
    assert (signal.gpc, signal.limit_spi) == (True, True)
    assert [leaf["sig"] for leaf in w.events("signal.recorded")] == [["limit_spi"], ["gpc", "limit_spi"]]


async def test_a_withdrawal_names_the_jobs_that_do_not_say_that_they_stopped(w: World) -> None:
    await w.consent("ann")
    job = (await w.upload("ann")).job
    dead = replace(
        w.job(job.job_id),
        state="running",
        lease_owner="dead",
        lease_until=w.clock.now() + timedelta(seconds=30),
    )
    await w.records.transact(lambda tx: tx.put(dead))
    quick = replace(w.flows.consents, patience=timedelta(0))
    done = await quick.withdraw(APP, subject_id="ann", purpose="generate")
    assert done.stopping == (job.job_id,)
    w.clock.advance(timedelta(minutes=1))
    await w.work()
    assert (w.job(job.job_id).state, w.events("job.dispatched")) == ("cancelled", [])
