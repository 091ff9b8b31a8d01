"""A controller that keeps nothing: pictures are in memory only, and whatever ends them is in the log."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from lethe.v1 import generation_pb2 as pb

from gateway.errors import (
    InputLost,
    JobCancelled,
    LetheError,
    ObjectExpired,
    PolicyDenied,
    RateLimited,
    StateConflict,
    ZeroRetention,
)
from gateway.flows.retention import HoldDraft
from gateway.flows.upload import Accepted
from gateway.ports.records import Job, StoredObject
from gateway.rpc import generation
from gateway.transient import Transients
from tests.sample import IS_WHOLE, sampled
from tests.unit.flows.test_replay import replayed
from tests.world import APP, LEASE, OFFICER, OTHER_TENANT, PORTRAIT, World, chunks, order

ID = "6d4f1c1e-4f8e-4a57-8e5c-0d6f3f6c1a01"


@pytest.fixture
async def w() -> World:
    made = World()
    made.keep_nothing()
    await made.ready("ann", "bob")
    return made


async def upload(w: World, subject: str = "ann", request_id: str = "") -> Accepted:
    made = order(subject, request_id=request_id)
    return await w.flows.upload.run(APP, made, chunks(PORTRAIT), is_attended=True)


async def result(w: World, job_id: str) -> bytes:
    released = await w.flows.release.run(APP, job_id, is_attended=True)
    return b"".join([chunk async for chunk in released.chunks])


async def held_up(w: World) -> tuple[str, asyncio.Task[None]]:
    """Return a job that waits at the backend, and the worker that waits for it."""
    w.backend.hold()
    job = (await upload(w)).job
    worker = asyncio.create_task(w.work())
    async with asyncio.timeout(5):
        await w.backend.held.wait()
    return job.job_id, worker


def nothing_is_left(w: World) -> None:
    """No row of a picture, none in memory; the store was never given one."""
    assert w.count(StoredObject) == 0
    assert w.flows.transients._pictures == {}
    assert w.objects.held == {}
    assert [call for call in w.trip.calls if call.startswith("objects.put")] == []
    w.check()


def ends(w: World) -> list[tuple[str, str]]:
    """Return what ended each picture, and its category."""
    return [(leaf["cat"], leaf["why"]) for leaf in w.events("object.destroyed")]


async def test_a_picture_goes_through_memory_and_the_log_says_so(w: World) -> None:
    """GDPR Art. 5(1)(c), (e)."""
    job = (await upload(w)).job
    await w.work()
    assert (await result(w, job.job_id)).startswith(b"\xff\xd8\xff")
    await w.flows.release.end(APP, job.job_id)
    nothing_is_left(w)
    assert [leaf["cat"] for leaf in w.events("object.transient")] == ["original", "output"]
    assert w.events("object.sealed") == []
    assert ends(w) == [("original", "job_done"), ("output", "job_done")]
    report = await replayed(w)
    assert (report.verdict, report.promises["destroyed_in_time"].kept) == ("kept", 2)
    assert w.job(job.job_id).state == "succeeded"


async def test_a_job_that_would_have_to_be_waited_for_is_refused_and_that_is_logged(w: World) -> None:
    with pytest.raises(ZeroRetention):
        await w.upload("ann")
    assert [leaf["rc"] for leaf in w.events("upload.refused")] == ["ZERO_RETENTION"]
    nothing_is_left(w)


async def test_a_result_goes_to_the_call_that_waits_and_to_no_other(w: World) -> None:
    job = (await upload(w)).job
    await w.work()
    with pytest.raises(ObjectExpired):
        await w.released(job.job_id)
    assert await result(w, job.job_id)
    await w.flows.release.end(APP, job.job_id)
    with pytest.raises(ObjectExpired):
        await result(w, job.job_id)


async def test_a_restart_ends_a_running_job_as_lost_and_nobody_sends_it_again(w: World) -> None:
    job_id, worker = await held_up(w)
    other = w.process()
    await w.work(other)
    assert w.job(job_id).state == "running"  # its lease stands
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)
    w.backend.release()
    w.clock.advance(LEASE + timedelta(seconds=1))
    await w.work(other)
    job = w.job(job_id)
    assert (job.state, job.reason) == ("failed", "INPUT_LOST")
    assert [leaf["rc"] for leaf in w.events("job.failed")] == ["INPUT_LOST"]
    assert len(w.events("job.dispatched")) == 1
    assert ends(w) == [("original", "lost")]
    await w.flows.generate.tend()  # were the first process there yet, it would let go
    nothing_is_left(w)
    assert (await replayed(w)).verdict == "kept"


async def test_a_restart_ends_a_job_that_waited_too(w: World) -> None:
    job_id = (await upload(w)).job.job_id
    w.clock.advance(LEASE + timedelta(seconds=1))
    await w.work(w.process())
    assert w.job(job_id).reason == "INPUT_LOST"
    assert w.backend.running == {}
    assert [call for call in w.backend.seen if call.method == "generate"] == []


async def test_a_job_that_waits_is_kept_for_its_own_process(w: World) -> None:
    job_id = (await upload(w)).job.job_id
    for _ in range(4):
        w.clock.advance(LEASE * 0.7)
        await w.flows.generate.tend()
        await w.work(w.process())
    assert w.job(job_id).state == "queued"
    await w.work()
    assert w.job(job_id).state == "succeeded"


async def test_a_backend_that_fails_is_not_tried_again_in_silence(w: World) -> None:
    w.backend.faults.lose("generate")
    job_id = (await upload(w)).job.job_id
    await w.work()
    assert (w.job(job_id).state, w.job(job_id).reason) == ("failed", "BACKEND_UNAVAILABLE")
    nothing_is_left(w)


async def test_a_restriction_ends_a_job_since_nothing_can_rest(w: World) -> None:
    """GDPR Art. 18(2)."""
    job_id = (await upload(w)).job.job_id
    await w.flows.subjects.restrict(APP, "ann", restricted=True)
    await w.work()
    assert w.job(job_id).state == "cancelled"
    nothing_is_left(w)


async def test_a_cancelled_job_leaves_nothing_in_memory(w: World) -> None:
    job_id = (await upload(w)).job.job_id
    await w.flows.jobs.cancel(APP, job_id)
    await w.flows.generate.tend()
    nothing_is_left(w)


async def test_an_erasure_reaches_what_waits_in_memory_and_a_result_that_waits(w: World) -> None:
    """GDPR Art. 17(1)."""
    await upload(w)
    await w.work()
    await upload(w)
    await w.request("ann")

    async def tending() -> None:
        while w.flows.transients._pictures:
            await w.flows.generate.tend()
            await asyncio.sleep(0.01)

    async with asyncio.timeout(5):
        await asyncio.gather(w.carry_out(), tending())
    nothing_is_left(w)
    assert sorted(ends(w)) == [("original", "erasure"), ("original", "job_done"), ("output", "erasure")]
    assert len(w.events("subject.erased")) == 1


async def test_an_erasure_does_not_wait_for_ever_for_a_process_that_is_gone(w: World) -> None:
    await upload(w)
    w.flows = w.process()
    object.__setattr__(w.flows.erasure, "forget_wait", timedelta(seconds=0.05))
    await w.erase("ann")
    assert len(w.events("subject.erased")) == 1
    await w.settle()


async def test_what_nobody_took_ends_at_its_term_though_the_records_are_away(w: World) -> None:
    await upload(w)
    w.clock.advance(timedelta(hours=1, seconds=1))
    w.trip.lose(0, "before")
    with pytest.raises(LetheError):
        await w.flows.upload.run(APP, order("ann"), chunks(PORTRAIT), is_attended=True)
    await w.flows.generate.tend()
    assert w.flows.transients._pictures == {}
    await w.flows.sweep.run()
    await w.work()
    nothing_is_left(w)
    assert (await replayed(w)).violations == ()


async def test_a_hold_cannot_keep_what_is_in_memory_only(w: World) -> None:
    """GDPR Art. 18(1)(c): there is nothing that could be kept."""
    job = (await upload(w)).job
    await w.flows.retention.place(OFFICER, HoldDraft("ann", "GDPR Art. 17(3)(e)"))
    await w.work()
    await result(w, job.job_id)
    await w.flows.release.end(APP, job.job_id)
    nothing_is_left(w)
    assert w.events("object.held") == []


async def test_what_is_in_memory_is_shown_as_held(w: World) -> None:
    """GDPR Art. 15(1)."""
    await upload(w)
    shown = await w.flows.subjects.stored_data(APP, "ann")
    assert {(held.kind, held.rule) for held in shown.items if held.name.startswith("objects/")} == {
        ("original", "GDPR Art. 5(1)(e)")
    }


async def test_the_schedule_of_that_controller_says_so(w: World) -> None:
    """GDPR Art. 13(2)(a), 30(1)(f)."""
    for caller, length in ((OFFICER, "PT0S"), (replace(OFFICER, tenant=OTHER_TENANT), "PT24H")):
        told = {
            line.kind: line.at_most
            for line in w.flows.retention.schedule(caller)
            if line.pack == "deployment"
        }
        assert told["original"] == length


async def test_a_loss_at_any_call_leaves_nothing_but_leaves() -> None:
    smooth = World()
    smooth.keep_nothing()
    await smooth.ready("ann")
    smooth.trip.calls.clear()
    await through(smooth)
    for at, point in sampled(list(enumerate(smooth.trip.calls)), 3):
        # A call that is lost, and one whose reply is, in turn; each of both where all are asked for.
        for when in ("before", "after") if IS_WHOLE else (("before", "after")[at % 2],):
            w = World()
            w.keep_nothing()
            await w.ready("ann")
            w.trip.lose(at, when)
            with contextlib.suppress(LetheError):
                await through(w)
            w.trip.act = None
            for _ in range(3):
                w.clock.advance(timedelta(minutes=45))
                await w.work()
                await w.flows.generate.tend()
                await w.flows.generate.settle()
                await w.flows.sweep.run()
            assert w.count(StoredObject) == 0, point
            nothing_is_left(w)
            assert (await replayed(w)).violations == (), (point, when)


async def through(w: World) -> None:
    job = (await upload(w)).job
    await w.work()
    await w.flows.generate.tend()
    await result(w, job.job_id)
    await w.flows.release.end(APP, job.job_id)


async def test_more_pictures_than_memory_may_hold_are_turned_away(w: World) -> None:
    object.__setattr__(w.flows.transients, "max_bytes", len(PORTRAIT) // 2)
    with pytest.raises(RateLimited):
        await upload(w)
    nothing_is_left(w)
    assert w.count(Job) == 0


async def test_what_is_let_go_is_overwritten() -> None:
    """As far as Python can: these buffers are ours."""
    w = World()
    w.keep_nothing()
    await w.ready("ann")
    await upload(w)
    ((_, picture),) = w.flows.transients._pictures.items()
    assert any(picture.data)
    w.flows.transients.clear()
    assert picture.data == bytes(len(picture.data))


async def test_what_arrived_is_overwritten_once_it_is_scrubbed(
    w: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytearray] = []
    see_to = w.faces.deidentify

    async def watch(data: bytearray, *how: Any, **more: Any) -> object:
        seen.append(data)
        return await see_to(data, *how, **more)

    monkeypatch.setattr(w.faces, "deidentify", watch)
    await upload(w)
    (arrived,) = seen
    assert len(arrived) == len(PORTRAIT)
    assert not any(arrived)


def test_a_picture_of_another_process_is_not_here() -> None:
    assert Transients(1).open("0" * 32) is None


# --- the call itself


def service(w: World) -> generation.GenerationService:
    return generation.GenerationService(w.flows.upload, w.flows.jobs, w.flows.release, w.flows.consents)


class Quiet:
    """A call without metadata."""

    @staticmethod
    def invocation_metadata() -> tuple[tuple[str, str], ...]:
        return ()


async def requests(request_id: str = "") -> AsyncIterator[pb.GenerateRequest]:
    header = pb.JobHeader(
        subject="subjects/ann",
        purpose=1,
        notice="notices/portraits",
        parameters=pb.GenerationParameters(style="studio_grey"),
        request_id=request_id,
    )
    yield pb.GenerateRequest(header=header)
    async for chunk in chunks(PORTRAIT):
        yield pb.GenerateRequest(chunk=chunk)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "caller", lambda: APP)


@pytest.mark.usefixtures("called")
async def test_a_call_gets_its_result_and_leaves_nothing(w: World) -> None:
    made = asyncio.create_task(_answers(w))
    while not made.done():
        await w.work()
        await asyncio.sleep(0.01)
    assert b"".join(answer.chunk for answer in made.result()).startswith(b"\xff\xd8\xff")
    assert made.result()[-1].HasField("receipt")
    nothing_is_left(w)


@pytest.mark.usefixtures("called")
@pytest.mark.parametrize("request_id", ["", ID])
async def test_a_call_that_ends_early_ends_its_job_whether_or_not_it_could_come_back(
    w: World, request_id: str
) -> None:
    answers = service(w).Generate(requests(request_id), Quiet())
    await anext(answers)
    await answers.aclose()
    await w.work()
    await w.flows.generate.tend()
    nothing_is_left(w)
    assert [job.state for job in w.records.all(Job)] == ["cancelled"]


@pytest.mark.usefixtures("called")
async def test_a_call_whose_input_is_lost_says_so(w: World) -> None:
    answers = service(w).Generate(requests(), Quiet())
    await anext(answers)
    w.clock.advance(LEASE + timedelta(seconds=1))
    await w.work(w.process())
    with pytest.raises(InputLost):
        async for _ in answers:
            pass


@pytest.mark.usefixtures("called")
async def test_a_denied_result_is_not_given_out_and_ends(w: World) -> None:
    """GDPR Art. 7(3)."""
    answers = service(w).Generate(requests(), Quiet())
    await anext(answers)
    await w.work()
    await w.flows.consents.withdraw(APP, subject_id="ann", purpose="generate")
    with pytest.raises((PolicyDenied, JobCancelled, StateConflict)):
        async for _ in answers:
            pass
    nothing_is_left(w)


async def _answers(w: World) -> list[pb.GenerateResponse]:
    return [answer async for answer in service(w).Generate(requests(), Quiet())]
