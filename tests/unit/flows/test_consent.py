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
    SubjectBlocked,
)
from gateway.ports.records import Consent, Signal
from tests.world import APP, STRANGER, World

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
