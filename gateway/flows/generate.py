"""Works on queued jobs: dispatch, result, scrub, seal, and the end of the original."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

from gateway import deidentify
from gateway.errors import (
    BackendProtocol,
    BackendRetentionTooLong,
    BackendUnavailable,
    InputLost,
    JobCancelled,
    KeyServiceUnavailable,
    LetheError,
    ScrubberUnavailable,
    StoreUnavailable,
)
from gateway.judge import Case, Judge
from gateway.ledger import Ledger
from gateway.objects import backend_id, destroy_object, reap
from gateway.people import People
from gateway.ports.clock import Clock
from gateway.ports.inference import BackendFacts, Inference, Progress, Result
from gateway.ports.objects import ObjectStore
from gateway.ports.records import Job, Records, StoredObject, Subject, Transaction
from gateway.vault.safe import Draft, Safe

_TRANSIENT = (BackendUnavailable, KeyServiceUnavailable, StoreUnavailable, ScrubberUnavailable)


@dataclass(frozen=True, slots=True)
class GenerateLimits:
    """How long a lease lasts, how often a job is tried, how long an output is kept."""

    lease: timedelta
    attempts: int
    output_ttl: timedelta
    poll_s: float
    max_backend_retention_s: int


@dataclass(frozen=True, slots=True)
class Generate:
    """One worker.  Any number may run, in any number of processes: leases keep them apart."""

    records: Records
    people: People
    judge: Judge
    ledger: Ledger
    safe: Safe
    objects: ObjectStore
    scrubber: deidentify.Scrubber
    backends: Mapping[str, Inference]
    known: Callable[[], Mapping[str, BackendFacts]]
    clock: Clock
    limits: GenerateLimits
    random: Callable[[int], bytes] = os.urandom

    async def run_one(self) -> bool:
        """Work on one job to its end and return whether there was one."""
        owner = self.random(8).hex()
        job = await self.records.transact(lambda tx: self._claim(tx, owner))
        if job is None:
            return False
        await self._work(job)
        return True

    def _claim(self, tx: Transaction, owner: str) -> Job | None:
        """Lease the oldest job that waits or whose worker died, and log its dispatch."""
        now = self.clock.now()
        waiting = tx.find(
            Job, equal={"state": "queued"}, order_by=("created_at", "job_id"), limit=20
        ) + tx.find(
            Job, equal={"state": "running"}, below={"lease_until": now}, order_by=("created_at",), limit=1
        )
        ready = [job for job in waiting if job.lease_until is None or job.lease_until <= now]
        if not ready:
            return None
        job = replace(
            ready[0],
            state="running",
            stage="dispatched",
            attempt=ready[0].attempt + 1,
            lease_owner=owner,
            lease_until=now + self.limits.lease,
            updated_at=now,
        )
        tx.put(job)
        self.ledger.record(
            tx, job.tenant, "job.dispatched", None, job=job.job_id, bak=backend_id(job.backend)
        )
        return job

    async def _work(self, job: Job) -> None:
        backend = self.backends.get(job.backend)
        try:
            if backend is None:
                raise BackendUnavailable
            result = await self._infer(job, backend)
            await self._finish(job, result)
        except asyncio.CancelledError:
            # We are shutting down: the lease runs out and another worker goes on.
            raise
        except JobCancelled as cancelled:
            await self._end(job, "cancelled", cancelled)
        except _TRANSIENT as trouble:
            if job.attempt >= self.limits.attempts:
                await self._end(job, "failed", trouble)
            else:
                await self._put_back(job)
        except LetheError as refusal:
            await self._end(job, "failed", refusal)

    async def _infer(self, job: Job, backend: Inference) -> Result:
        """Return the backend's result; a cancellation or a withdrawal stops it within a poll."""
        image = await self._open_input(job)
        watch = asyncio.create_task(self._watch(job))
        talk = asyncio.create_task(self._talk(job, backend, image))
        try:
            await asyncio.wait({watch, talk}, return_when=asyncio.FIRST_COMPLETED)
            if talk.done():
                return talk.result()
            with contextlib.suppress(LetheError):
                await backend.cancel(job.backend_job)
            watch.result()
            raise JobCancelled
        finally:
            for task in (watch, talk):
                task.cancel()
            await asyncio.gather(watch, talk, return_exceptions=True)
            # The backend keeps nothing of a job that is over or will be sent again; an
            # erasure waits for the job's end, so this comes first.
            with contextlib.suppress(LetheError):
                await backend.forget(job.backend_job)

    async def _open_input(self, job: Job) -> tuple[bytes, str]:
        def permitted(tx: Transaction) -> StoredObject:
            standing = self._standing(tx, job)
            stored = tx.get(StoredObject, standing.input_object)
            if stored is None or stored.state != "live":
                raise InputLost
            return stored

        stored = await self.records.transact(permitted)
        await self._still_permitted(job)
        return await self.safe.open(stored), stored.image_type

    async def _still_permitted(self, job: Job) -> None:
        """Ask again before anything is forwarded: consent may have gone, the backend may be another."""
        subject = await self.records.transact(lambda tx: tx.get(Subject, job.tenant, job.handle))
        if subject is None or subject.state != "active":
            raise JobCancelled(detail="subject_blocked")
        facts = self.known().get(job.backend)
        if facts is None:
            raise BackendUnavailable
        if facts.retention_s > self.limits.max_backend_retention_s:
            raise BackendRetentionTooLong
        case = Case(
            await self.people.open_profile(subject),
            job.purpose,
            self.clock.now(),
            template_extracted=facts.template_extracted,
        )
        decision = await self.records.transact(lambda tx: self.judge.decide(tx, job.tenant, job.handle, case))
        if not decision.allowed:
            raise JobCancelled(detail="consent_withdrawn")

    async def _talk(self, job: Job, backend: Inference, image: tuple[bytes, str]) -> Result:
        # Closed at once when this is cancelled: an open call would keep the picture at the backend.
        async with contextlib.aclosing(backend.generate(job.backend_job, job.style, *image)) as messages:
            async for message in messages:
                if isinstance(message, Result):
                    return message
                await self.records.transact(partial(self._note_progress, job=job, progress=message))
        raise BackendProtocol("the backend ended without a result")

    def _note_progress(self, tx: Transaction, job: Job, progress: Progress) -> None:
        standing = self._standing(tx, job)
        now = self.clock.now()
        tx.put(
            replace(
                standing,
                percent=max(standing.percent, min(progress.percent, 99)),
                stage=progress.stage,
                lease_until=now + self.limits.lease,
                updated_at=now,
            )
        )

    async def _watch(self, job: Job) -> None:
        """Return, by raising, as soon as the job must stop; renew the lease meanwhile."""
        while True:
            await asyncio.sleep(self.limits.poll_s)
            await self.records.transact(lambda tx: self._renew(tx, job))

    def _renew(self, tx: Transaction, job: Job) -> None:
        standing = self._standing(tx, job)
        subject = tx.get(Subject, job.tenant, job.handle)
        if subject is None or subject.state != "active":
            raise JobCancelled(detail="subject_blocked")
        now = self.clock.now()
        if standing.lease_until is None or standing.lease_until - now < self.limits.lease / 2:
            tx.put(replace(standing, lease_until=now + self.limits.lease))

    def _standing(self, tx: Transaction, job: Job) -> Job:
        """Return the job as it stands, if it is still ours to work on.

        Raises:
            JobCancelled: It was cancelled, ended, taken over or erased.
        """
        standing = tx.get(Job, job.job_id)
        if standing is None or standing.lease_owner != job.lease_owner or standing.state != "running":
            raise JobCancelled(detail="lease_lost")
        if standing.is_cancel_requested:
            raise JobCancelled(detail=standing.detail or "caller")
        return standing

    async def _finish(self, job: Job, result: Result) -> None:
        """Scrub and seal the result; in one commit keep it and destroy the original's key."""
        clean = await self._scrub_output(result)
        now = self.clock.now()
        stored = await self.safe.seal(
            Draft(
                tenant=job.tenant,
                handle=job.handle,
                job_id=job.job_id,
                kind="output",
                purpose=job.purpose,
                image_type=clean.format,
                width=clean.width,
                height=clean.height,
                image=clean.data,
                expires_at=now + self.limits.output_ttl,
            )
        )

        def commit(tx: Transaction) -> None:
            standing = self._standing(tx, job)
            subject = tx.get(Subject, job.tenant, job.handle)
            if subject is None or subject.state != "active":
                raise JobCancelled(detail="subject_blocked")
            tx.add(stored)
            tx.put(
                replace(
                    standing,
                    state="succeeded",
                    stage="done",
                    percent=100,
                    result_object=stored.object_id,
                    lease_owner="",
                    lease_until=None,
                    updated_at=now,
                    expires_at=stored.expires_at,
                )
            )
            self.ledger.record(
                tx,
                job.tenant,
                "image.scrubbed",
                None,
                obj=stored.object_id,
                kind="metadata",
                meas=dict(clean.dropped),
            )
            self.ledger.record(
                tx,
                job.tenant,
                "object.sealed",
                None,
                obj=stored.object_id,
                cat="output",
                exp=int(stored.expires_at.timestamp() * 1000),
                pur=job.purpose,
            )
            self.ledger.record(
                tx,
                job.tenant,
                "job.succeeded",
                None,
                job=job.job_id,
                bak=backend_id(job.backend),
                obj=stored.object_id,
                dig=result.model_digest or None,
            )
            self._destroy_input(tx, standing, "job_done")

        try:
            await self.records.transact(commit)
        except LetheError:
            if await self._is_lost(stored):
                await self.safe.discard(stored)
            raise
        await self._reap_input(job)

    async def _is_lost(self, stored: StoredObject) -> bool:
        """Tell whether the object's record is surely not kept; in doubt the sweeper decides later."""
        try:
            return await self.records.transact(lambda tx: tx.get(StoredObject, stored.object_id)) is None
        except LetheError:
            return False

    async def _scrub_output(self, result: Result) -> deidentify.Scrubbed:
        """Strip the backend's output too: servers write prompts and workflows into metadata."""
        try:
            return await self.scrubber.scrub(result.image)
        except deidentify.Rejected as rejected:
            raise BackendProtocol("the backend's picture is refused", detail=rejected.detail) from rejected
        except deidentify.ScrubberUnavailable as error:
            raise ScrubberUnavailable from error

    async def _end(self, job: Job, state: str, refusal: LetheError) -> None:
        """Record the end of a job that gave no result, and destroy its original."""

        def commit(tx: Transaction) -> None:
            standing = tx.get(Job, job.job_id)
            if standing is None or standing.lease_owner != job.lease_owner or standing.state != "running":
                return
            tx.put(
                replace(
                    standing,
                    state=state,
                    stage="done",
                    reason=refusal.code,
                    detail=refusal.detail,
                    lease_owner="",
                    lease_until=None,
                    updated_at=self.clock.now(),
                )
            )
            if state == "cancelled":
                self.ledger.record(tx, job.tenant, "job.cancelled", None, job=job.job_id, why=_why(refusal))
            else:
                self.ledger.record(
                    tx,
                    job.tenant,
                    "job.failed",
                    None,
                    job=job.job_id,
                    rc=refusal.code,
                    bak=backend_id(job.backend),
                    det=refusal.detail or None,
                )
            self._destroy_input(tx, standing, "cancelled" if state == "cancelled" else "job_done")

        await self.records.transact(commit)
        await self._reap_input(job)

    async def _put_back(self, job: Job) -> None:
        """Let the job be tried again after a pause that doubles with each attempt."""

        def commit(tx: Transaction) -> None:
            standing = tx.get(Job, job.job_id)
            if (
                standing is not None
                and standing.lease_owner == job.lease_owner
                and standing.state == "running"
            ):
                pause = timedelta(seconds=min(30.0, 0.25 * 2**job.attempt))
                tx.put(
                    replace(standing, state="queued", stage="retrying", lease_until=self.clock.now() + pause)
                )

        # With the records down nothing can be put back; the lease then runs out by itself.
        with contextlib.suppress(StoreUnavailable):
            await self.records.transact(commit)

    def _destroy_input(self, tx: Transaction, job: Job, why: str) -> None:
        stored = tx.get(StoredObject, job.input_object)
        if stored is not None:
            destroy_object(tx, self.ledger, stored, why)

    async def _reap_input(self, job: Job) -> None:
        """Key first, then bytes: the key died in the commit; a failure here is the sweeper's."""
        await reap(self.records, self.objects, job.input_object)


def _why(refusal: LetheError) -> str:
    return {"consent_withdrawn": "withdrawn", "subject_blocked": "erasure"}.get(refusal.detail, "cancelled")
