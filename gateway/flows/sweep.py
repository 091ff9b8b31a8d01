"""Ends terms: destroys what has expired, removes bytes that nothing opens, forgets old answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

from gateway.ledger import Ledger
from gateway.objects import destroy_object, end_queued, reap
from gateway.ports.clock import Clock
from gateway.ports.objects import ObjectStore
from gateway.ports.records import (
    Consent,
    Dsr,
    Job,
    Records,
    Remembered,
    StoredObject,
    SubjectKey,
    Transaction,
)

BATCH = 100


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep did: objects whose term ended, bytes removed, unclaimed bytes removed."""

    expired: int
    reaped: int
    orphans: int


@dataclass(frozen=True, slots=True)
class Sweep:
    """The sweeper.  Several may run; every step is idempotent."""

    records: Records
    objects: ObjectStore
    ledger: Ledger
    clock: Clock
    orphan_grace: timedelta

    async def run(self) -> Swept:
        """Sweep once."""
        expired = await self._expire()
        reaped = await self._reap_destroyed()
        orphans = await self._reap_orphans()
        await self.records.transact(self._forget)
        return Swept(expired, reaped, orphans)

    async def _expire(self) -> int:
        """Destroy the keys of objects whose term is over (GDPR Art. 5(1)(e))."""
        total = 0
        while True:
            number = await self.records.transact(self._expire_some)
            total += number
            if number < BATCH:
                return total

    def _expire_some(self, tx: Transaction) -> int:
        now = self.clock.now()
        due = tx.find(
            StoredObject,
            equal={"state": "live"},
            below={"expires_at": now},
            order_by=("expires_at",),
            limit=BATCH,
        )
        for stored in due:
            job = tx.get(Job, stored.job_id)
            if job is not None and job.state == "queued" and job.input_object == stored.object_id:
                end_queued(tx, self.ledger, job, self.clock, "expired", None)
            else:
                destroy_object(tx, self.ledger, stored, "expired")
            if job is not None and job.state == "succeeded" and job.result_object == stored.object_id:
                tx.put(replace(job, state="expired", updated_at=now))
        return len(due)

    async def _reap_destroyed(self) -> int:
        """Remove the bytes of objects whose key is gone."""
        doomed = await self.records.transact(lambda tx: tx.find(StoredObject, equal={"state": "destroyed"}))
        for stored in doomed:
            await reap(self.records, self.objects, stored.object_id)
        return len(doomed)

    async def _reap_orphans(self) -> int:
        """Remove bytes that no record claims: a crash or a refusal came between put and commit."""
        edge = self.clock.now() - self.orphan_grace
        orphans = 0
        async for found in self.objects.list():
            if found.stored_at > edge:
                continue
            if not await self.records.transact(partial(_is_claimed, object_id=found.object_id)):
                await self.objects.delete(found.object_id)
                orphans += 1
        return orphans

    def _forget(self, tx: Transaction) -> None:
        """Remove answers older than a day, ended jobs past their term, and proof past its keeping."""
        now = self.clock.now()
        tx.remove(*tx.find(Remembered, below={"expires_at": now}, limit=BATCH))
        over = tx.find(Job, below={"expires_at": now}, limit=BATCH)
        tx.remove(*[job for job in over if job.state not in {"queued", "running"}])
        for consent in tx.find(Consent, below={"keep_until": now}, limit=BATCH):
            tx.remove(consent)
            if not tx.count(Consent, equal={"key_id": consent.key_id}):
                key = tx.get(SubjectKey, consent.key_id)
                if key is not None:
                    tx.remove(key)
        tx.remove(*tx.find(Dsr, below={"keep_until": now}, limit=BATCH))


def _is_claimed(tx: Transaction, object_id: str) -> bool:
    return tx.get(StoredObject, object_id) is not None
