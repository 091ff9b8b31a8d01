"""Gives a finished picture out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta

from gateway.caller import Caller
from gateway.errors import (
    MessageInvalid,
    NotFound,
    ObjectExpired,
    StateConflict,
    SubjectBlocked,
)
from gateway.judge import Case, Judge
from gateway.ledger import Ledger
from gateway.marking import Demand, Marks
from gateway.objects import destroy_object
from gateway.people import People
from gateway.ports.clock import Clock
from gateway.ports.records import Job, Records, StoredObject, Subject, Transaction
from gateway.transient import Transients
from gateway.vault.safe import Safe

CHUNK = 256 << 10
ASK_AGAIN = timedelta(seconds=1)
"""After so long a withdrawal or an erasure stops a release that is still running."""


@dataclass(frozen=True, slots=True)
class Released:
    """A result on its way out: what it is, and its bytes from `offset` on in chunks of 256 KiB."""

    stored: StoredObject
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Release:
    """Releases results; each release is in the log before the first byte leaves."""

    records: Records
    people: People
    judge: Judge
    ledger: Ledger
    safe: Safe
    clock: Clock
    transients: Transients
    marks: Marks

    async def run(
        self, caller: Caller, job_id: str, offset: int = 0, *, is_attended: bool = False
    ) -> Released:
        """Return the result of a job.

        One that is in memory only goes out to the call that waited for it (`is_attended`) and to no
        other; that call then says `end`.

        Raises:
            NotFound: No such job in the caller's tenant.
            StateConflict: The job has no result (detail: its state).
            ObjectExpired: The result's term is over, or it was never kept.
            SubjectBlocked: The subject is being erased.
            PolicyDenied: Consent has ended meanwhile, processing is restricted, or the result would have to
                carry a mark that it does not.
        """
        case = await self._case(caller, job_id)
        stored, _ = await self.records.transact(lambda tx: self._permit(tx, caller, job_id, case))
        if offset > stored.size_bytes:
            raise MessageInvalid("offset", violations=(("offset", "offset.beyond_end"),))
        is_transient = stored.state == "transient"
        if is_transient and not is_attended:
            raise ObjectExpired(detail="zero_retention")
        image = self.transients.open(stored.object_id) if is_transient else await self.safe.open(stored)
        if image is None:
            raise ObjectExpired(detail="zero_retention")
        is_marked = await self.marks.found(image, stored.image_type)
        await self.records.transact(lambda tx: self._log(tx, caller, job_id, case, is_marked))
        return Released(stored, self._chunks(caller, job_id, case, image[offset:]))

    async def end(self, caller: Caller, job_id: str) -> None:
        """Destroy a result that is in memory only: the call that waited for it is over."""

        def commit(tx: Transaction) -> str:
            job = tx.get(Job, job_id)
            if job is None or job.tenant != caller.tenant:
                return ""
            stored = tx.get(StoredObject, job.result_object)
            if stored is not None and stored.state == "transient":
                destroy_object(tx, self.ledger, stored, "job_done")
            return job.result_object

        self.transients.drop(await self.records.transact(commit))

    async def _case(self, caller: Caller, job_id: str) -> Case:
        """Return the question to policy: may this result be given out now?"""

        def read(tx: Transaction) -> tuple[Job, Subject]:
            job = tx.get(Job, job_id)
            if job is None or job.tenant != caller.tenant:
                raise NotFound
            subject = tx.get(Subject, caller.tenant, job.handle)
            if subject is None or subject.state == "blocked":
                raise SubjectBlocked
            return job, subject

        job, subject = await self.records.transact(read)
        profile = await self.people.open_profile(subject)
        now = self.clock.now()
        return Case(profile, job.purpose, now, is_uploader=job.is_uploader, kind="output")

    def _permit(
        self, tx: Transaction, caller: Caller, job_id: str, case: Case, is_marked: bool | None = None
    ) -> tuple[StoredObject, Demand]:
        job = tx.get(Job, job_id)
        if job is None or job.tenant != caller.tenant:
            raise NotFound
        now = self.clock.now()
        stored = tx.get(StoredObject, job.result_object)
        # What it was made for may have ended, and another consent keep it (`gateway.withdrawal`).
        asked = replace(case, purpose=stored.basis if stored is not None else case.purpose)
        verdict = self.judge.decide(tx, caller.tenant, job.handle, asked)
        if not verdict.allowed:
            raise self.judge.refusal(verdict)
        if job.state != "succeeded":
            raise StateConflict("the job has no result", detail=job.state)
        if stored is None or stored.state not in {"live", "transient"} or stored.expires_at <= now:
            raise ObjectExpired
        return stored, self.marks.need(verdict, is_marked=is_marked)

    def _log(self, tx: Transaction, caller: Caller, job_id: str, case: Case, is_marked: bool) -> None:
        """Log the release if it is still permitted: an erasure may have won the race."""
        stored, demand = self._permit(tx, caller, job_id, case, is_marked)
        self.ledger.record(
            tx,
            caller.tenant,
            "result.released",
            caller,
            job=job_id,
            obj=stored.object_id,
            mark=demand.layers or None,
            lack=demand.waived or None,
        )

    async def _chunks(self, caller: Caller, job_id: str, case: Case, image: bytes) -> AsyncIterator[bytes]:
        """Yield the bytes; a slow reader is asked again whether it may have them."""
        asked_at = case.at
        for start in range(0, len(image), CHUNK):
            if self.clock.now() - asked_at > ASK_AGAIN:
                await self.records.transact(lambda tx: self._permit(tx, caller, job_id, case))
                asked_at = self.clock.now()
            yield image[start : start + CHUNK]
