"""Ends terms: destroys what has expired, removes bytes that nothing opens, forgets old answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

from gateway.errors import LetheError
from gateway.holds import end_hold, standing
from gateway.ledger import Ledger
from gateway.objects import destroy_object, end_queued, reap
from gateway.ports.clock import Clock
from gateway.ports.keys import Epoch, KeyService
from gateway.ports.objects import ObjectStore
from gateway.ports.records import (
    Certificate,
    ClosedEpoch,
    Consent,
    Dataset,
    DatasetItem,
    Dsr,
    Hold,
    Incident,
    Job,
    Records,
    Remembered,
    SealedPayload,
    StoredObject,
    SubjectKey,
    Transaction,
)
from gateway.vault.custody import OPEN_TERM
from policy.terms import KeyClass

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
    keys: KeyService

    async def run(self) -> Swept:
        """Sweep once.  A step that fails does not keep the others from their work.

        Raises:
            LetheError: What the first failing step said, once all have had their turn.
        """
        counts, faults = [], []
        steps = (
            self._expire,
            self._end_holds,
            self._reap_destroyed,
            self._reap_orphans,
            self._forget_all,
            self._end_payloads,
            self._retire_datasets,
        )
        for step in steps:
            try:
                counts.append(await step())
            except LetheError as fault:
                counts.append(0)
                faults.append(fault)
        if faults:
            raise faults[0]
        expired, freed, reaped, orphans = counts[:4]
        return Swept(expired + freed, reaped, orphans)

    async def _retire_datasets(self) -> int:
        """Destroy the keys of ended training sets, once no copy that a hold keeps needs them."""
        return await self.records.transact(self._end_dataset_keys)

    def _end_datasets(self, tx: Transaction) -> int:
        """End training sets whose term is over, before their copies are: nothing of them is missed then."""
        due = tx.find(
            Dataset,
            among={"state": ["building", "ready", "stale"]},
            below={"expires_at": self.clock.now()},
            limit=BATCH,
        )
        for dataset in due:
            tx.discard(DatasetItem, equal={"dataset_id": dataset.dataset_id})
            tx.put(replace(dataset, state="ended", size=0, cursor="", lease_owner="", lease_until=None))
            self.ledger.record(tx, dataset.tenant, "dataset.expired", None, dst=dataset.dataset_id)
        return len(due)

    def _end_dataset_keys(self, tx: Transaction) -> int:
        number = 0
        for dataset in tx.find(Dataset, equal={"state": "ended"}):
            copies = {"tenant": dataset.tenant, "job_id": dataset.dataset_id}
            if not any(tx.count(StoredObject, equal={**copies, "state": s}) for s in ("live", "held")):
                self._end_key(tx, dataset.key_id)
                tx.put(replace(dataset, state="gone", key_id=""))
                number += 1
        return number

    async def _expire(self) -> int:
        """Destroy the keys of objects whose term is over (GDPR Art. 5(1)(e))."""
        while await self.records.transact(self._end_datasets) == BATCH:
            pass
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

    async def _end_holds(self) -> int:
        """End the holds whose time is over, and destroy what no hold keeps any more."""
        while True:
            ended = await self.records.transact(self._end_some_holds)
            if ended < BATCH:
                break
        total, after = 0, ""
        while True:
            held = await self.records.transact(partial(_in_state, state="held", after=after))
            if not held:
                return total
            after = held[-1].object_id
            total += await self.records.transact(partial(self._free, object_ids=[o.object_id for o in held]))

    def _end_some_holds(self, tx: Transaction) -> int:
        over = tx.find(Hold, below={"until": self.clock.now()}, limit=BATCH)
        for hold in over:
            end_hold(tx, self.ledger, hold, "ended")
        return len(over)

    def _free(self, tx: Transaction, object_ids: list[str]) -> int:
        rows = [tx.get(StoredObject, object_id) for object_id in object_ids]
        freed = [row for row in rows if row is not None and row.state == "held"]
        return sum(destroy_object(tx, self.ledger, row, "expired") is not None for row in freed)

    async def _reap_destroyed(self) -> int:
        """Remove the bytes of objects whose key is gone."""
        total, after = 0, ""
        while True:
            doomed = await self.records.transact(partial(_in_state, state="destroyed", after=after))
            for stored in doomed:
                await reap(self.records, self.objects, stored.object_id)
            total += len(doomed)
            if len(doomed) < BATCH:
                return total
            after = doomed[-1].object_id

    async def _reap_orphans(self) -> int:
        """Remove bytes that no record claims: a crash or a refusal came between put and commit."""
        edge = self.clock.now() - self.orphan_grace
        orphans, batch = 0, list[str]()
        async for found in self.objects.list():
            if found.stored_at <= edge:
                batch.append(found.object_id)
            if len(batch) == BATCH:
                orphans += await self._remove_unclaimed(batch)
                batch = []
        return orphans + await self._remove_unclaimed(batch)

    async def _remove_unclaimed(self, object_ids: list[str]) -> int:
        claimed = await self.records.transact(partial(_claimed, object_ids=object_ids))
        orphans = [object_id for object_id in object_ids if object_id not in claimed]
        for object_id in orphans:
            await self.objects.delete(object_id)
        return len(orphans)

    async def _forget_all(self) -> int:
        """Remove answers older than a day, ended jobs past their term, and proof past its keeping."""
        total = 0
        while True:
            number = await self.records.transact(self._forget)
            total += number
            if number < BATCH:
                return total

    def _forget(self, tx: Transaction) -> int:
        now = self.clock.now()
        answers = tx.find(Remembered, below={"expires_at": now}, limit=BATCH)
        # A job whose backend has not confirmed that it forgot is how we know what to ask for.
        over = [
            job
            for state in ("succeeded", "failed", "cancelled", "expired")
            for job in tx.find(
                Job, equal={"state": state, "is_forget_owed": False}, below={"expires_at": now}, limit=BATCH
            )
        ]
        certificates = tx.find(Certificate, below={"keep_until": now}, limit=BATCH)
        requests = [
            row for row in tx.find(Dsr, below={"keep_until": now}, limit=BATCH) if not self._is_held(tx, row)
        ]
        consents = [
            row
            for row in tx.find(Consent, below={"keep_until": now}, limit=BATCH)
            if not self._is_held(tx, row)
        ]
        breaches = tx.find(Incident, below={"keep_until": now}, limit=BATCH)
        tx.remove(*answers, *over, *certificates, *requests)
        for request in requests:
            self.ledger.record(tx, request.tenant, "record.expired", None, dsr=request.dsr_id)
        for consent in consents:
            self._end_proof(tx, consent)
        for one in breaches:
            tx.remove(one)
            self.ledger.record(tx, one.tenant, "record.expired", None, inc=one.incident_id)
            self._end_key(tx, one.key_id)
        return max(len(answers), len(over), len(certificates), len(requests), len(consents), len(breaches))

    def _is_held(self, tx: Transaction, row: Consent | Dsr) -> bool:
        """Put off the end of what a hold keeps, and look again a day later."""
        cls = KeyClass.EVIDENCE if isinstance(row, Consent) else KeyClass.DSR
        if not standing(tx, row.tenant, row.handle, self.clock.now(), cls):
            return False
        tx.put(replace(row, keep_until=self.clock.now() + timedelta(days=1)))
        return True

    def _end_proof(self, tx: Transaction, consent: Consent) -> None:
        """Remove a consent past its keeping; its key goes with the last one of a person who is gone."""
        tx.remove(consent)
        self.ledger.record(tx, consent.tenant, "record.expired", None, con=consent.consent_id)
        if consent.handle is None and not tx.count(Consent, equal={"key_id": consent.key_id}):
            self._end_key(tx, consent.key_id)

    def _end_key(self, tx: Transaction, key_id: str) -> None:
        key = tx.get(SubjectKey, key_id)
        if key is not None:
            tx.remove(key)
            if tx.get(ClosedEpoch, key.epoch) is None:
                # Its bytes linger: the epoch is rolled, and its key destroyed (`flows/rotation.py`).
                tx.add(ClosedEpoch(epoch=key.epoch, closed_at=self.clock.now()))

    async def _end_payloads(self) -> int:
        """End what audit events say of anyone, a month at a time: its epoch key dies with the month."""
        ended = f"{self.clock.now():%Y-%m}"
        total = 0
        for epoch in await self.keys.epochs():
            if epoch.cls == KeyClass.AUDIT and OPEN_TERM != epoch.month < ended:
                total += await self.records.transact(partial(self._end_month, epoch=epoch))
                await self.keys.destroy_epoch(epoch)
        return total

    def _end_month(self, tx: Transaction, epoch: Epoch) -> int:
        """Empty the payloads of a month and drop their keys, and say how many there were."""
        if tx.get(ClosedEpoch, str(epoch)) is None:
            tx.add(ClosedEpoch(epoch=str(epoch), closed_at=self.clock.now()))
        tx.discard(SubjectKey, equal={"epoch": str(epoch)})
        held = {"log": self.ledger.origins[epoch.tenant], "month": epoch.month, "erased_by": ""}
        number = tx.count(SealedPayload, equal=held)
        if number:
            by = self.ledger.record(
                tx, epoch.tenant, "payload.expired", None, cls=epoch.cls, month=epoch.month, nseal=number
            )
            tx.change(SealedPayload, equal=held, to={"handle": None, "blob": b"", "erased_by": by.event_id})
        return number


def _in_state(tx: Transaction, state: str, after: str) -> list[StoredObject]:
    return tx.find(
        StoredObject,
        equal={"state": state},
        above={"object_id": after},
        order_by=("object_id",),
        limit=BATCH,
    )


def _claimed(tx: Transaction, object_ids: list[str]) -> set[str]:
    return {stored.object_id for stored in tx.find(StoredObject, among={"object_id": object_ids})}
