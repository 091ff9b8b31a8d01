"""Shows, watches, cancels and deletes jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

from gateway.bell import Bell
from gateway.caller import Caller
from gateway.errors import NotFound, StateConflict
from gateway.holds import refuse_held
from gateway.ledger import Ledger, Receipt
from gateway.objects import ask_to_stop, destroy_object, end_queued, reap
from gateway.paging import Page, page
from gateway.people import People
from gateway.ports.clock import Clock
from gateway.ports.objects import ObjectStore
from gateway.ports.records import Job, Records, StoredObject, Transaction
from policy.terms import KeyClass

ENDED = frozenset({"succeeded", "failed", "cancelled", "expired"})


@dataclass(frozen=True, slots=True)
class Jobs:
    """Everything about jobs but making and working on them."""

    records: Records
    people: People
    ledger: Ledger
    objects: ObjectStore
    clock: Clock
    poll_s: float
    bell: Bell = field(default_factory=Bell)

    async def get(self, caller: Caller, job_id: str) -> Job:
        """Return the job.

        Raises:
            NotFound: There is none in the caller's tenant.
        """
        return await self.records.transact(lambda tx: _own(tx, caller, job_id))

    async def list(self, caller: Caller, subject_id: str, size: int, token: str) -> Page[Job]:
        """Return a page of the tenant's jobs, newest last, of one subject where `subject_id` is given."""
        equal = {"tenant": caller.tenant}
        if subject_id:
            equal["handle"] = await self.people.handle(caller.tenant, subject_id)
        rows = await self.records.transact(
            lambda tx: tx.find(Job, equal=equal, order_by=("created_at", "job_id"))
        )
        return page(rows, size, _key, ("jobs", *equal.values()), token)

    async def watch(self, caller: Caller, job_id: str) -> AsyncIterator[Job]:
        """Yield the job whenever it changed, the first time at once, until it has ended."""
        seen: Job | None = None
        with self.bell.listen(job_id) as ear:
            while True:
                job = await self.get(caller, job_id)
                visible = replace(job, lease_until=None, lease_owner="")
                if visible != seen:
                    seen = visible
                    yield job
                if job.state in ENDED:
                    return
                await ear.wait(self.poll_s)

    async def cancel(self, caller: Caller, job_id: str) -> tuple[Job, Receipt | None]:
        """Stop the job: at once where it waits, within a poll where it runs; ended jobs stay as they are."""

        def commit(tx: Transaction) -> tuple[Job, Receipt | None]:
            job = _own(tx, caller, job_id)
            if job.state == "running":
                receipt = ask_to_stop(tx, self.ledger, job, self.clock, "caller", caller)
                return _own(tx, caller, job_id), receipt
            if job.state != "queued":
                return job, None
            return end_queued(tx, self.ledger, job, self.clock, "cancelled", caller)

        job, receipt = await self.records.transact(commit)
        self.bell.ring(job_id)
        if job.state == "cancelled":
            await reap(self.records, self.objects, job.input_object)
        return job, receipt

    async def delete(self, caller: Caller, job_id: str) -> Receipt:
        """Destroy the job's objects and its record.

        Raises:
            StateConflict: The job still runs; cancel it first.
            HoldActive: A legal hold keeps its objects.
        """

        def commit(tx: Transaction) -> tuple[Receipt, list[str]]:
            job = _own(tx, caller, job_id)
            if job.state not in ENDED:
                raise StateConflict("the job has not ended", detail=job.state)
            if job.is_forget_owed:
                # Its row is what we know the backend's copy by.
                raise StateConflict("the backend has not confirmed that it forgot", detail="forget_owed")
            objects = tx.find(StoredObject, equal={"tenant": caller.tenant, "job_id": job_id})
            if any(stored.state != "destroyed" for stored in objects):
                refuse_held(tx, caller.tenant, job.handle, self.clock.now(), KeyClass.CONTENT)
            for stored in objects:
                destroy_object(tx, self.ledger, stored, "deleted", caller)
            tx.remove(job)
            receipt = self.ledger.record(tx, caller.tenant, "job.deleted", caller, job=job_id)
            return receipt, [stored.object_id for stored in objects]

        receipt, doomed = await self.records.transact(commit)
        for object_id in doomed:
            await reap(self.records, self.objects, object_id)
        return receipt


def _own(tx: Transaction, caller: Caller, job_id: str) -> Job:
    job = tx.get(Job, job_id)
    if job is None or job.tenant != caller.tenant:
        raise NotFound
    return job


def _key(job: Job) -> str:
    return f"{job.created_at.isoformat(timespec='microseconds')} {job.job_id}"
