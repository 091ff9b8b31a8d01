"""Every call through a door fails twice: lost, and done but with its reply lost.  Then: what is left?

Each verb is run once to learn how many calls it makes; then each call in turn
fails, the invariants are checked, the verb is repeated as its caller would, time
passes, and the outcome must be the one of an undisturbed run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from gateway.errors import LetheError
from gateway.flows.dsr import DsrDraft
from gateway.people import Profile
from gateway.ports.records import Consent, Dsr, Job, Notice, StoredObject, Subject
from tests import invariants
from tests.doors import When
from tests.sample import sampled
from tests.world import APP, OFFICER, World

Act = Callable[[World], Awaitable[object]]
UPLOAD, RECORD, REQUEST = (f"6d4f1c1e-4f8e-4a57-8e5c-0d6f3f6c1a0{number}" for number in range(3))


async def _nothing(_w: World) -> None: ...


@dataclass(frozen=True)
class Verb:
    """What is done, on which ground, and what holds in the end (after the background work, `settle`)."""

    act: Act
    outcome: Act
    ground: Act = _nothing


def _only_job(w: World) -> Job:
    (job,) = w.records.all(Job)
    return job


async def _upload(w: World) -> None:
    await w.upload("ann", UPLOAD)


async def _is_done(w: World) -> None:
    assert _only_job(w).state == "succeeded"
    assert len(w.events("job.created")) == 1
    assert len(await w.released(_only_job(w).job_id)) > 100


async def _is_released_once_or_more(w: World) -> None:
    assert w.events("result.released")


async def _is_cancelled(w: World) -> None:
    assert _only_job(w).state == "cancelled"
    assert w.objects.held == {}


async def _withdraw(w: World) -> None:
    await w.flows.consents.withdraw(APP, subject_id="ann", purpose="generate")


async def _is_withdrawn(w: World) -> None:
    ann = await w.handle("ann")
    assert all(c.withdrawn_at is not None for c in w.records.all(Consent) if c.handle == ann)
    assert len(w.events("consent.withdrawn")) == 1
    assert w.objects.held == {}


async def _is_erased(w: World) -> None:
    assert {dsr.state for dsr in w.records.all(Dsr)} == {"fulfilled"}
    invariants.check_gone(w.rows, await w.handle("ann"))
    assert await w.keys.is_fenced(await w.handle("ann"))
    bob = next(job for job in w.records.all(Job))
    assert len(await w.released(bob.job_id)) > 100
    assert w.records.scours >= 1


async def _two_portraits(w: World) -> None:
    await w.portrait("ann")
    await w.portrait("bob")


async def _approved(w: World) -> None:
    await _two_portraits(w)
    await w.request("ann")


async def _old_portrait(w: World) -> None:
    await w.portrait("ann")
    w.clock.advance(timedelta(days=31))


async def _nothing_stored(w: World) -> None:
    assert w.objects.held == {}
    assert w.count(StoredObject) == 0


async def _open(w: World) -> None:
    await w.flows.dsrs.create(OFFICER, DsrDraft("ann", "erasure", request_id=REQUEST))


async def _approve(w: World) -> None:
    (dsr,) = w.records.all(Dsr)
    await w.approve(dsr.dsr_id)


async def _one_request(w: World) -> None:
    assert w.count(Dsr) == 1


async def _record(w: World) -> None:
    await w.consent("ann", request_id=RECORD)


async def _two_consents(w: World) -> None:
    assert len([c for c in w.records.all(Consent) if not c.superseded_by]) == 2  # ann's newest and bob's
    assert w.count(Consent) == 3


async def _delete_job(w: World) -> None:
    for job in w.records.all(Job):
        await w.flows.jobs.delete(APP, job.job_id)


async def _delete_object(w: World) -> None:
    for row in w.records.all(StoredObject):
        if row.state == "live":
            await w.flows.subjects.delete_object(APP, row.object_id)


async def _no_jobs(w: World) -> None:
    assert w.count(Job) == 0
    await _nothing_stored(w)


async def _cancel(w: World) -> None:
    await w.flows.jobs.cancel(APP, _only_job(w).job_id)


async def _release(w: World) -> None:
    await w.released(_only_job(w).job_id)


async def _know(w: World) -> None:
    await w.know("carl")


async def _three_subjects(w: World) -> None:
    assert w.count(Subject) == 3


async def _publish(w: World) -> None:
    await w.publish("generate")


async def _sequence(w: World) -> None:
    await w.log()


async def _published(w: World) -> None:
    # Without a request_id a lost reply makes one version more: that is what the id is for.
    assert w.count(Notice) in {2, 3}


async def _opened(w: World) -> None:
    await w.open("ann", "access")


async def _verify(w: World) -> None:
    (dsr,) = w.records.all(Dsr)
    await w.flows.dsrs.verify(OFFICER, dsr.dsr_id, "account_session")


async def _extend(w: World) -> None:
    (dsr,) = w.records.all(Dsr)
    await w.flows.dsrs.extend(OFFICER, dsr.dsr_id, "NUMBER")


async def _preview(w: World) -> None:
    (dsr,) = w.records.all(Dsr)
    await w.flows.dsrs.preview(OFFICER, dsr.dsr_id)


async def _is_extended(w: World) -> None:
    assert len(w.events("dsr.extended")) == 1
    assert all(dsr.due_on == dsr.extended_due_on for dsr in w.records.all(Dsr))


async def _is_answered(w: World) -> None:
    assert {dsr.state for dsr in w.records.all(Dsr)} == {"fulfilled"}
    assert len(w.events("dsr.fulfilled")) == w.count(Dsr)
    assert len(w.packages) == sum(dsr.kind == "access" for dsr in w.records.all(Dsr))


def _requested(kind: str, more: dict[str, Any]) -> Act:
    async def ground(w: World) -> None:
        await w.portrait("ann")
        opened = await w.open("ann", kind, **more)
        await w.approve(opened.dsr_id)

    return ground


FULFILLED: dict[str, dict[str, Any]] = {
    "access": {},
    "correction": {"correction": Profile("ann", residence="FR", birth_year=1980)},
    "restriction": {},
    "withdrawal": {},
    "objection": {},
}
"""Kinds whose carrying out takes each of the ways that there are, and what they need."""

VERBS = {
    "upload": Verb(_upload, _is_done),
    "generate": Verb(World.work, _is_done, _upload),
    "release": Verb(_release, _is_released_once_or_more, lambda w: w.portrait("ann")),
    "cancel": Verb(_cancel, _is_cancelled, _upload),
    "delete_job": Verb(_delete_job, _no_jobs, lambda w: w.portrait("ann")),
    "delete_object": Verb(_delete_object, _nothing_stored, lambda w: w.portrait("ann")),
    "withdraw_waiting": Verb(_withdraw, _is_withdrawn, _upload),
    "withdraw_kept": Verb(_withdraw, _is_withdrawn, lambda w: w.portrait("ann")),
    "record_consent": Verb(_record, _two_consents),
    "upsert": Verb(_know, _three_subjects),
    "publish": Verb(_publish, _published),
    "create_dsr": Verb(_open, _one_request),
    "approve_dsr": Verb(_approve, _one_request, _open),
    "erase": Verb(World.carry_out, _is_erased, _approved),
    "verify_dsr": Verb(_verify, _one_request, _opened),
    "extend_dsr": Verb(_extend, _is_extended, _opened),
    "preview_dsr": Verb(_preview, _one_request, _opened),
    **{
        f"fulfil_{kind}": Verb(World.carry_out, _is_answered, _requested(kind, more))
        for kind, more in FULFILLED.items()
    },
    "sweep": Verb(lambda w: w.flows.sweep.run(), _nothing_stored, _old_portrait),
    "sequence": Verb(_sequence, _nothing, lambda w: w.portrait("ann")),
}


async def _world(verb: Verb) -> World:
    w = World()
    await w.ready("ann", "bob")
    await verb.ground(w)
    w.trip.calls.clear()
    return w


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", VERBS)
async def test_whatever_call_is_lost_nothing_is_left_half_done_and_a_repetition_works(
    name: str, when: When
) -> None:
    verb = VERBS[name]
    smooth = await _world(verb)
    await verb.act(smooth)
    calls = list(smooth.trip.calls)
    assert calls
    await smooth.settle()
    await verb.outcome(smooth)
    for at, point in sampled(list(enumerate(calls)), 3):
        w = await _world(verb)
        w.trip.lose(at, when)
        try:
            with contextlib.suppress(LetheError):
                await verb.act(w)
            w.check()
            with contextlib.suppress(LetheError):  # `not found` where the lost reply had done it
                await verb.act(w)
            await w.settle()
            await verb.outcome(w)
        except Exception as fault:
            raise AssertionError(f"{at}: {point} lost {when} it was made") from fault


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_failed_upload_leaves_no_readable_byte(when: When) -> None:
    smooth = await _world(VERBS["upload"])
    await _upload(smooth)
    for at in range(len(smooth.trip.calls)):
        w = await _world(VERBS["upload"])
        w.trip.lose(at, when)
        try:
            await _upload(w)
        except LetheError:
            # Refused: no row, unless the very commit's reply was lost, and then the whole of it stands.
            assert {row.job_id for row in w.records.all(StoredObject)} == {
                j.job_id for j in w.records.all(Job)
            }
        w.check()
