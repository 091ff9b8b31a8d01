"""How jobs are worked on: leases, cancellation, retries, and the end of the original."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta

import pytest

from gateway.errors import BackendUnavailable, StateConflict, SubjectBlocked
from gateway.ports.inference import Result
from gateway.ports.records import StoredObject
from tests.world import APP, LEASE, PORTRAIT, SECRET, World


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


async def test_a_result_is_kept_and_the_original_destroyed_in_the_same_commit(w: World) -> None:
    """GDPR Art. 5(1)(c), (e)."""
    job = await w.portrait("ann")
    (kept,) = w.records.all(StoredObject)
    assert (job.state, kept.object_id, kept.kind) == ("succeeded", job.result_object, "output")
    assert set(w.objects.held) == {kept.object_id}
    w.check()


async def test_the_backend_sees_a_scrubbed_picture_under_a_pseudonym(w: World) -> None:
    job = await w.portrait("ann")
    seen = w.backend.everything_seen()
    assert SECRET in PORTRAIT
    for needle in (SECRET, b"ann", job.job_id.encode(), job.handle.encode(), b"acme"):
        assert needle not in seen


async def test_the_result_is_scrubbed_too(w: World) -> None:
    w.backend.metadata = b"prompt: the workflow of our server"
    job = await w.portrait("ann")
    assert b"workflow" not in await w.released(job.job_id)
    scrubbed = [leaf for leaf in w.events("image.scrubbed") if leaf["obj"] == job.result_object]
    assert sum(scrubbed[0]["meas"].values()) > 0


async def test_the_backend_is_told_to_forget(w: World) -> None:
    """GDPR Art. 28(3)(g)."""
    job = await w.portrait("ann")
    assert [call.job_pseudonym for call in w.backend.seen if call.method == "forget"] == [job.backend_job]


async def test_a_lease_that_ran_out_goes_to_another_worker_and_the_first_one_keeps_off(w: World) -> None:
    job_id, worker = await held_up(w)
    w.clock.advance(LEASE + timedelta(seconds=1))
    w.backend.release()
    other = w.process()
    await asyncio.gather(worker, w.work(other))
    assert w.job(job_id).state == "succeeded"
    assert len(w.events("job.succeeded")) == 1
    await w.settle()


async def test_a_result_after_a_cancellation_is_thrown_away(w: World) -> None:
    job_id, worker = await held_up(w)
    await w.flows.jobs.cancel(APP, job_id)
    w.backend.release()
    await worker
    assert w.job(job_id).state == "cancelled"
    assert w.objects.held == {}
    assert w.events("job.succeeded") == []
    with pytest.raises(StateConflict):
        await w.released(job_id)
    await w.settle()


async def test_a_withdrawal_stops_a_job_that_runs(w: World) -> None:
    """GDPR Art. 7(3)."""
    job_id, worker = await held_up(w)
    await w.flows.consents.withdraw(APP, subject_id="ann", purpose="generate")
    async with asyncio.timeout(5):
        await worker
    assert w.job(job_id).state == "cancelled"
    assert [leaf["why"] for leaf in w.events("job.cancelled")] == ["withdrawn"]
    assert w.objects.held == {}
    await w.settle()


async def test_an_erasure_waits_for_the_worker_and_then_nothing_is_left(w: World) -> None:
    job_id, worker = await held_up(w)
    await w.request("ann")
    async with asyncio.timeout(5):
        await asyncio.gather(worker, w.carry_out())
    assert job_id not in {row.job_id for row in w.records.all(StoredObject)}
    assert w.backend.running == {}
    assert [leaf["why"] for leaf in w.events("job.cancelled")] == ["erasure"]
    await w.settle()
    with pytest.raises(SubjectBlocked):
        await w.upload("ann")


async def test_a_job_is_tried_again_and_fails_when_its_attempts_are_used_up(w: World) -> None:
    w.backend.faults.lose("generate", 99)
    job_id = (await w.upload("ann")).job.job_id
    for _ in range(5):
        await w.work()
        w.clock.advance(timedelta(seconds=60))
    job = w.job(job_id)
    assert (job.state, job.reason, job.attempt) == ("failed", "BACKEND_UNAVAILABLE", 3)
    assert w.objects.held == {}
    await w.settle()


async def test_a_job_whose_first_attempt_failed_is_done_by_the_second(w: World) -> None:
    w.backend.faults.lose("generate")
    job_id = (await w.upload("ann")).job.job_id
    await w.work()
    assert (w.job(job_id).state, w.job(job_id).stage) == ("queued", "retrying")
    w.clock.advance(timedelta(seconds=60))
    await w.work()
    assert (w.job(job_id).state, w.job(job_id).attempt) == ("succeeded", 2)


@pytest.mark.parametrize(("asked", "rested"), [("0", 0.5), ("45", 45.0), ("86400", 300.0)])
async def test_a_busy_backend_says_for_how_long_a_job_rests_within_bounds(
    w: World, monkeypatch: pytest.MonkeyPatch, asked: str, rested: float
) -> None:
    async def busy(*_arguments: object, **_more: object) -> AsyncGenerator[Result]:
        raise BackendUnavailable(detail="busy", retry_after_s=asked)
        yield

    monkeypatch.setattr(w.backend, "generate", busy)
    job_id = (await w.upload("ann")).job.job_id
    await w.work()
    job = w.job(job_id)
    assert (job.state, job.lease_until) == ("queued", w.clock.now() + timedelta(seconds=rested))
    await w.settle()


@pytest.mark.parametrize(("fault", "reason"), [("rejects", "IMAGE_REJECTED"), ("breaks", "BACKEND_PROTOCOL")])
async def test_what_will_not_get_better_is_not_tried_again(w: World, fault: str, reason: str) -> None:
    setattr(w.backend, fault, "no_face")
    job = await w.portrait("ann")
    assert (job.state, job.reason, job.attempt) == ("failed", reason, 1)
    assert w.objects.held == {}
    w.check()


async def test_a_result_that_is_no_picture_is_refused(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fakes.inference.paint", lambda *_arguments: b"<html>")
    job = await w.portrait("ann")
    assert (job.state, job.reason) == ("failed", "BACKEND_PROTOCOL")
    w.check()


async def test_two_workers_do_each_job_once(w: World) -> None:
    for subject in ("ann", "bob", "ann", "bob"):
        await w.upload(subject)
    await asyncio.gather(w.work(), w.work(w.process()), w.work(w.process()))
    assert len(w.events("job.succeeded")) == len(w.events("job.dispatched")) == 4
    w.check()


async def test_a_job_whose_term_ended_in_the_queue_is_ended(w: World) -> None:
    """GDPR Art. 5(1)(e)."""
    job_id = (await w.upload("ann")).job.job_id
    w.clock.advance(timedelta(hours=25))
    await w.flows.sweep.run()
    assert w.job(job_id).state == "cancelled"
    assert w.objects.held == {}
    w.check()
