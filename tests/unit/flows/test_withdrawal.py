"""What a withdrawal stops: also at a backend that hears nothing and answers late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from gateway.deidentify import Mode, Scrubbed
from gateway.errors import PolicyDenied
from gateway.flows.generate import Generate
from gateway.ports.inference import Progress, Result
from gateway.ports.records import Job
from tests.fakes.inference import FakeInference
from tests.world import APP, World

BOUND_S = 1.0
"""A worker looks every poll (10 ms here, `jobs.poll_ms` in earnest), and hears of it at once then."""


class DeafInference(FakeInference):
    """Answers neither a cancellation nor a request to forget, and brings its result when it likes."""

    def __init__(self, *arguments: object, **changes: object) -> None:
        super().__init__(*arguments, **changes)  # type: ignore[arg-type]  # as the fake takes them
        self.begun = asyncio.Event()
        self.late = asyncio.Event()
        self.results = 0

    async def generate(
        self, job_pseudonym: str, style: str, image: bytes, image_type: str, **also: str
    ) -> AsyncGenerator[Progress | Result]:
        yield Progress(1, "queued")
        self.begun.set()
        await self.late.wait()
        self.results += 1
        yield self._result(image, style)

    async def cancel(self, job_pseudonym: str) -> None:
        self.faults.lose("cancel")
        await super().cancel(job_pseudonym)

    async def forget(self, job_pseudonym: str) -> None:
        self.faults.lose("forget")
        await super().forget(job_pseudonym)


@dataclass
class WatchedScrubber:
    """Notes what it was given to look at."""

    inner: object
    seen: list[bytes] = field(default_factory=list)

    async def scrub(self, data: bytes, mode: Mode = "canonical") -> Scrubbed:
        self.seen.append(data)
        return await self.inner.scrub(data, mode)  # type: ignore[attr-defined]  # the scrubber of the world


@pytest.fixture
async def w() -> World:
    made = World()
    made.backend = DeafInference(made.backend.facts)
    made.scrubber = WatchedScrubber(made.scrubber)  # type: ignore[assignment]  # the same door
    made.outside = replace(made.outside, backends={"studio": made.backend}, scrubber=made.scrubber)
    made.flows = made.process()
    await made.ready("ann")
    return made


async def test_a_deaf_backend_does_not_hold_up_a_withdrawal_and_its_result_is_never_read(w: World) -> None:
    """GDPR Art. 7(3)."""
    job = (await w.upload("ann")).job
    worker = asyncio.create_task(w.work())
    async with asyncio.timeout(5):
        await w.backend.begun.wait()
    begun = time.monotonic()
    done = await w.flows.consents.withdraw(APP, subject_id="ann", purpose="generate")
    async with asyncio.timeout(5):
        await worker
    assert time.monotonic() - begun < BOUND_S
    assert done.stopping == ()
    ended = w.job(job.job_id)
    assert (ended.state, ended.is_forget_owed) == ("cancelled", True)
    w.backend.late.set()
    await asyncio.sleep(0)
    assert w.backend.results == 0
    assert w.scrubber.seen == []
    assert (w.objects.held, w.live(), w.events("job.succeeded")) == ({}, set(), [])
    with pytest.raises(PolicyDenied):
        await w.released(job.job_id)


async def test_a_result_that_comes_with_the_withdrawal_is_dropped_unread(w: World) -> None:
    job = (await w.upload("ann")).job
    worker = asyncio.create_task(w.work())
    async with asyncio.timeout(5):
        await w.backend.begun.wait()
    w.backend.late.set()
    await w.flows.consents.withdraw(APP, subject_id="ann", purpose="generate")
    async with asyncio.timeout(5):
        await worker
    assert w.job(job.job_id).state == "cancelled"
    assert w.scrubber.seen == []
    assert (w.objects.held, w.live()) == ({}, set())


async def test_once_a_withdrawal_is_answered_no_worker_begins(w: World) -> None:
    """A worker that was permitted a moment before has said by then that it stopped, or has begun."""
    job = (await w.upload("ann")).job
    permitted, go = asyncio.Event(), asyncio.Event()
    talk = Generate._talk

    async def paused(self: Generate, given: Job, *rest: Any) -> Result:
        permitted.set()
        await go.wait()
        return await talk(self, given, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Generate, "_talk", paused)
        worker = asyncio.create_task(w.work())
        async with asyncio.timeout(5):
            await permitted.wait()
            done = await w.flows.consents.withdraw(APP, subject_id="ann", purpose="generate")
            go.set()
            await worker
    assert done.stopping == ()
    assert w.job(job.job_id).state == "cancelled"
    assert not w.backend.begun.is_set()
