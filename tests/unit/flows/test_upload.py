"""What an upload refuses, what it leaves behind, and what it says twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from gateway.errors import (
    BackendRetentionTooLong,
    BackendUnavailable,
    IdempotencyConflict,
    ImageRejected,
    LetheError,
    MessageInvalid,
    NoticeUnknown,
    PayloadTooLarge,
    PolicyDenied,
    PromptRejected,
    RateLimited,
    ScrubberUnavailable,
    SubjectBlocked,
    SubjectUnknown,
)
from gateway.ports.records import Job, StoredObject
from tests.fakes.inference import paint
from tests.world import APP, PORTRAIT, SECRET, STRANGER, World, chunks, order

ID = "6d4f1c1e-4f8e-4a57-8e5c-0d6f3f6c1a01"


@pytest.fixture
async def w() -> World:
    made = World()
    await made.ready("ann")
    return made


def leaves_nothing(w: World) -> None:
    assert w.objects.held == {}
    assert w.count(StoredObject) == w.count(Job) == 0
    w.check()


async def refused(
    w: World, refusal: type[LetheError], image: bytes = PORTRAIT, **changes: object
) -> LetheError:
    with pytest.raises(refusal) as caught:
        await w.flows.upload.run(APP, order(**{"subject": "ann", **changes}), chunks(image))
    leaves_nothing(w)
    return caught.value


async def test_a_job_is_queued_with_its_four_leaves(w: World) -> None:
    """GDPR Art. 5(2), 7(1): each step can be demonstrated."""
    before = {leaf["id"] for ty in ("decision.made", "image.scrubbed") for leaf in w.events(ty)}
    accepted = await w.upload("ann")
    assert accepted.job.state == "queued"
    assert accepted.receipt is not None
    for ty in ("decision.made", "image.scrubbed", "object.sealed", "job.created"):
        assert len([leaf for leaf in w.events(ty) if leaf["id"] not in before]) == 1, ty
    w.check()


async def test_what_is_stored_opens_to_a_picture_without_metadata(w: World) -> None:
    await w.upload("ann")
    (stored,) = w.records.all(StoredObject)
    assert SECRET in PORTRAIT
    opened = await w.flows.upload.safe.open(stored)
    assert SECRET not in opened
    assert opened.startswith(b"\xff\xd8\xff")
    ((ciphertext, _),) = w.objects.held.values()
    assert opened[100:130] not in ciphertext


async def test_a_stranger_is_unknown(w: World) -> None:
    await refused(w, SubjectUnknown, subject="bob")


async def test_a_subject_of_one_tenant_is_unknown_to_another(w: World) -> None:
    with pytest.raises(SubjectUnknown):
        await w.flows.upload.run(STRANGER, order("ann"), chunks(PORTRAIT))


async def test_without_consent_nothing_is_taken_and_the_refusal_is_logged(w: World) -> None:
    """GDPR Art. 6(1), 9(1)."""
    await w.know("bob")
    refusal = await refused(w, PolicyDenied, subject="bob")
    assert refusal.code.startswith("DENY_")
    assert [leaf["rc"] for leaf in w.events("upload.refused")] == [refusal.code]
    assert [leaf["dec"] for leaf in w.events("decision.made")] == ["deny"]


async def test_a_restricted_subject_is_refused(w: World) -> None:
    """GDPR Art. 18(2)."""
    await w.flows.subjects.restrict(APP, "ann", restricted=True)
    refusal = await refused(w, PolicyDenied)
    assert refusal.code == "DENY_RESTRICTED"


async def test_an_erased_subject_is_refused_for_good(w: World) -> None:
    await w.erase("ann")
    await refused(w, SubjectBlocked)
    with pytest.raises(SubjectBlocked):
        await w.know("ann")


async def test_an_unknown_notice_is_refused(w: World) -> None:
    await refused(w, NoticeUnknown, notice_id="another")


async def test_free_text_is_refused(w: World) -> None:
    await refused(w, PromptRejected, prompt="me on a horse")


async def test_too_many_bytes_are_refused(w: World) -> None:
    await refused(w, PayloadTooLarge, image=bytes((32 << 20) + 1))


async def test_what_is_no_picture_is_refused(w: World) -> None:
    await refused(w, ImageRejected, image=b"not a picture")


async def test_without_a_scrubber_nothing_is_taken(w: World) -> None:
    w.faces.is_down = True
    await refused(w, ScrubberUnavailable)


async def test_without_a_backend_nothing_is_taken(w: World) -> None:
    w.flows.backends.known.clear()
    await refused(w, BackendUnavailable)
    await refused(w, BackendUnavailable, backend_hint="backends/nobody")


async def test_a_backend_that_keeps_what_it_is_sent_gets_nothing(w: World) -> None:
    """GDPR Art. 5(1)(e), 28(3)(g)."""
    w.flows.backends.known["studio"] = replace(w.backend.facts, retention_s=1)
    await refused(w, BackendRetentionTooLong)


async def test_a_style_that_nobody_offers_is_refused(w: World) -> None:
    await refused(w, MessageInvalid, style="oil_on_canvas")


async def test_a_repeated_request_id_is_answered_with_the_same_job(w: World) -> None:
    first = await w.upload("ann", ID)
    again = await w.upload("ann", ID)
    assert again.job == first.job
    assert again.receipt is None
    assert w.count(Job) == len(w.objects.held) == 1


async def test_a_request_id_with_another_picture_is_a_conflict(w: World) -> None:
    await w.upload("ann", ID)
    with pytest.raises(IdempotencyConflict):
        await w.upload("ann", ID, paint(b"another", "studio_grey"))
    assert w.count(Job) == 1


async def test_two_uploads_with_one_request_id_at_once_make_one_job(w: World) -> None:
    one, other = await asyncio.gather(w.upload("ann", ID), w.upload("ann", ID))
    assert one.job.job_id == other.job.job_id
    assert w.count(Job) == len(w.objects.held) == 1
    w.check()


async def test_more_uploads_than_the_limit_are_turned_away(w: World) -> None:
    w.flows.upload._gate[0] = w.flows.upload.limits.max_in_flight
    await refused(w, RateLimited)


async def test_a_withdrawal_between_admission_and_commit_wins(w: World) -> None:
    """GDPR Art. 7(3): in force at once."""

    async def slow() -> AsyncIterator[bytes]:
        yield PORTRAIT
        await w.flows.consents.withdraw(APP, subject_id="ann", purpose="generate")

    with pytest.raises(PolicyDenied):
        await w.flows.upload.run(APP, order("ann"), slow())
    leaves_nothing(w)


def _cancel(task: asyncio.Task[object]) -> None:
    task.cancel()


async def test_a_caller_who_is_gone_leaves_nothing_wherever_it_went() -> None:
    smooth = World()
    await smooth.ready("ann")
    smooth.trip.calls.clear()
    await smooth.upload("ann")
    for at, point in enumerate(smooth.trip.calls):
        w = World()
        await w.ready("ann")
        running = asyncio.create_task(w.upload("ann"))
        w.trip.do(at, "before", lambda _point, task=running: _cancel(task))
        await asyncio.wait({running})
        assert running.cancelled(), point
        leaves_nothing(w)
        if at:  # from the second call on the subject is known
            assert [leaf["rc"] for leaf in w.events("upload.refused")] == ["DEADLINE_TOO_SHORT"], point
