"""Which jobs are in the house, and the benches at which they are worked on.

Nothing is kept: a job is known from its header to its last byte, and only in
memory.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import cv2

from gateway.backends.studio.picture import Headshot, Report, Studio
from gateway.errors import RateLimited

Owner = tuple[str, ...]
"""The names that a client's certificate proves; empty where there is none."""


@dataclass(slots=True, eq=False)
class Job:
    """A job in the house: how it is told to stop, and how one learns that it is gone."""

    stopped: threading.Event = field(default_factory=threading.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    talk: asyncio.Task[None] | None = None
    work: asyncio.Future[Headshot] | None = None

    def stop(self) -> None:
        """End the talk now and the work at its next stage."""
        self.stopped.set()
        if self.talk is not None:
            self.talk.cancel()


class Jobs:
    """The jobs in the house, by the client they belong to and its pseudonym for them.

    A client can neither stop nor displace the job of another: it cannot name it.
    """

    def __init__(self, limit: int) -> None:
        """Take at most `limit` jobs at a time, those at work and those that wait."""
        self._limit = limit
        self._here: dict[tuple[Owner, str], Job] = {}
        self._count = 0

    def __len__(self) -> int:
        """Return how many jobs are in the house, with those that are just being stopped."""
        return self._count

    async def enter(self, owner: Owner, job_id: str) -> Job:
        """Return a new job; an earlier one of the same name is forgotten first.

        A client that lost its connection may start again at once, before the
        loss was noticed here.

        Raises:
            RateLimited: The house is full.
        """
        await self.forget(owner, job_id)
        if self._count >= self._limit:
            raise RateLimited("the backend is busy")
        job = Job()
        self._here[owner, job_id] = job
        self._count += 1
        return job

    def leave(self, owner: Owner, job_id: str, job: Job) -> None:
        """Let a job go: now, or as soon as the thread that works on it notices."""
        job.stopped.set()

        def go(_: object = None) -> None:
            if self._here.get((owner, job_id)) is job:
                del self._here[owner, job_id]
            self._count -= 1
            job.work = job.talk = None
            job.gone.set()

        if job.work is None or job.work.done():
            go()
        else:
            job.work.add_done_callback(go)

    def cancel(self, owner: Owner, job_id: str) -> None:
        """Tell a job to stop; one that is not here is no error."""
        job = self._here.get((owner, job_id))
        if job is not None:
            job.stop()

    async def forget(self, owner: Owner, job_id: str) -> None:
        """Return once nothing of the job is left; it is stopped if it runs."""
        while (job := self._here.get((owner, job_id))) is not None:
            job.stop()
            await job.gone.wait()


class Benches:
    """One studio and one thread for each job that is worked on at the same time."""

    def __init__(self, weights: Mapping[str, bytes], count: int) -> None:
        """Build `count` studios from the models' bytes."""
        # The benches share the cores between them; OpenCV must not split a job again.
        cv2.setNumThreads(1)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="studio")
        self._free: asyncio.Queue[Studio] = asyncio.Queue()
        for _ in range(count):
            self._free.put_nowait(Studio(weights))

    async def headshot(
        self, job: Job, image: bytes, image_type: str, style: str, *, report: Report, max_pixels: int
    ) -> Headshot:
        """Return the headshot, made in a thread as soon as a bench is free.

        `report` is called in the loop's thread.  Cancelling the wait does not
        free the bench: the thread does, at its next stage.

        Raises:
            PictureRejected: The picture cannot be used.
            Stopped: The job was told to stop.
        """
        studio = await self._free.get()
        loop = asyncio.get_running_loop()

        def tell(percent: int, stage: str) -> None:
            loop.call_soon_threadsafe(report, percent, stage)

        order: Callable[[], Headshot] = functools.partial(
            studio.headshot,
            image,
            image_type,
            style,
            report=tell,
            is_stopped=job.stopped.is_set,
            max_pixels=max_pixels,
        )
        job.work = loop.run_in_executor(self._threads, order)

        def finished(work: asyncio.Future[Headshot]) -> None:
            # Looked at here, so that a stop nobody waits for any more is not reported as lost.
            _ = work.cancelled() or work.exception()
            self._free.put_nowait(studio)

        job.work.add_done_callback(finished)
        return await asyncio.shield(job.work)

    def close(self) -> None:
        """Wait for the threads; jobs that still run must have been told to stop."""
        self._threads.shutdown(wait=True, cancel_futures=True)
