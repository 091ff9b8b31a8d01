"""Gives a finished picture out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from gateway.caller import Caller
from gateway.errors import (
    MessageInvalid,
    NotFound,
    ObjectExpired,
    PolicyDenied,
    StateConflict,
    SubjectBlocked,
)
from gateway.ledger import Ledger
from gateway.ports.clock import Clock
from gateway.ports.records import Job, Records, StoredObject, Subject, Transaction
from gateway.vault.safe import Safe

CHUNK = 256 << 10


@dataclass(frozen=True, slots=True)
class Released:
    """A result on its way out: what it is, and its bytes from `offset` on in chunks of 256 KiB."""

    stored: StoredObject
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Release:
    """Releases results; each release is in the log before the first byte leaves."""

    records: Records
    ledger: Ledger
    safe: Safe
    clock: Clock

    async def run(self, caller: Caller, job_id: str, offset: int = 0) -> Released:
        """Return the result of a job.

        Raises:
            NotFound: No such job in the caller's tenant.
            StateConflict: The job has no result (detail: its state).
            ObjectExpired: The result's term is over.
            SubjectBlocked: The subject is being erased.
            PolicyDenied: Processing is restricted (GDPR Art. 18(2)).
        """
        stored = await self.records.transact(lambda tx: self._permit(tx, caller, job_id))
        if offset > stored.size_bytes:
            raise MessageInvalid("offset", violations=(("offset", "offset.beyond_end"),))
        image = await self.safe.open(stored)
        await self.records.transact(lambda tx: self._log(tx, caller, job_id))
        return Released(stored, _chunks(image, offset))

    def _permit(self, tx: Transaction, caller: Caller, job_id: str) -> StoredObject:
        job = tx.get(Job, job_id)
        if job is None or job.tenant != caller.tenant:
            raise NotFound
        subject = tx.get(Subject, caller.tenant, job.handle)
        if subject is None or subject.state == "blocked":
            raise SubjectBlocked
        if subject.state == "restricted":
            raise PolicyDenied("DENY_RESTRICTED", pack="gdpr", citations=("GDPR Art. 18(2)",))
        if job.state != "succeeded":
            raise StateConflict("the job has no result", detail=job.state)
        stored = tx.get(StoredObject, job.result_object)
        if stored is None or stored.state != "live" or stored.expires_at <= self.clock.now():
            raise ObjectExpired
        return stored

    def _log(self, tx: Transaction, caller: Caller, job_id: str) -> None:
        """Log the release if it is still permitted: an erasure may have won the race."""
        stored = self._permit(tx, caller, job_id)
        self.ledger.record(tx, caller.tenant, "result.released", caller, job=job_id, obj=stored.object_id)


async def _chunks(image: bytes, offset: int) -> AsyncIterator[bytes]:
    for start in range(offset, len(image), CHUNK):
        yield image[start : start + CHUNK]
