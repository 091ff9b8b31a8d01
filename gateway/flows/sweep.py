"""Ends terms: destroys what has expired, removes bytes that nothing opens, forgets old answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial

from gateway.caller import Caller
from gateway.debts import EPOCH, OBJECT, UNCLAIMED, Debts, take_up
from gateway.errors import LetheError, MessageInvalid
from gateway.holds import end_hold, standing
from gateway.judge import Judge
from gateway.ledger import Ledger, Receipt
from gateway.objects import destroy_object, destroy_objects, drop_row, end_queued
from gateway.ports.clock import Clock
from gateway.ports.keys import Epoch, KeyService
from gateway.ports.objects import ObjectStore
from gateway.ports.records import (
    STANDING,
    Certificate,
    ClosedEpoch,
    Consent,
    Dataset,
    DatasetItem,
    Debt,
    Dsr,
    Hold,
    Incident,
    Job,
    Notice,
    Record,
    Records,
    Remembered,
    SealedPayload,
    StoredObject,
    Subject,
    SubjectKey,
    Transaction,
)
from gateway.vault.custody import OPEN_TERM
from policy import consent_state
from policy.terms import KeyClass

BATCH = 100
_CLASSES: Mapping[type[Record], KeyClass] = {
    Consent: KeyClass.EVIDENCE,
    Dsr: KeyClass.DSR,
    Job: KeyClass.CONTENT,
}
STRAYS = 500
"""So many keys a sweep are looked at for strays."""
EXPIRE_BATCH = 250
BY_MONTH = (KeyClass.CONTENT, KeyClass.DSR)
"""Classes of what rests under a key of the month in which it ends."""
MOST_COUNTED = 10_000


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep did: objects whose term ended, bytes removed, unclaimed bytes removed."""

    expired: int
    reaped: int
    orphans: int


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a sweep finds of a tenant: objects that are due, and held ones among them; debts set aside.

    Counted up to `MOST_COUNTED`.
    """

    due: int
    held: int
    owed: int


@dataclass(frozen=True, slots=True)
class Sweep:
    """The sweeper.  Several may run; every step is idempotent.

    What fails for one object or one key is owed (`gateway.debts`) and holds up no other.
    """

    records: Records
    objects: ObjectStore
    ledger: Ledger
    clock: Clock
    orphan_grace: timedelta
    keys: KeyService
    judge: Judge
    debts: Debts
    looked_to: list[str] = field(default_factory=lambda: [""])
    """Up to which key strays were looked for in this round."""

    async def run(self) -> Swept:
        """Sweep once.  A step that fails does not keep the others from their work.

        Raises:
            LetheError: What the first failing step said, once all have had their turn.
        """
        counts, faults = [], []
        steps = (
            self.expire,
            self._end_holds,
            self._reap_destroyed,
            self._reap_orphans,
            self._forget_all,
            self._end_payloads,
            self._end_months,
            self._drop_strays,
            self._mark_renewals,
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

    async def outlook(self, caller: Caller) -> Outlook:
        """Return what a sweep would find of the caller's tenant."""
        return await self.records.transact(lambda tx: self._outlook(tx, caller.tenant))

    def _outlook(self, tx: Transaction, tenant: str) -> Outlook:
        due = tx.find(
            StoredObject,
            equal={"tenant": tenant},
            among={"state": STANDING},
            below={"expires_at": self.clock.now()},
            order_by=("expires_at",),
            limit=MOST_COUNTED,
        )
        now = self.clock.now()
        covered = {
            hold.handle
            for hold in tx.find(Hold, equal={"tenant": tenant})
            if KeyClass.CONTENT in hold.classes and (hold.until is None or hold.until > now)
        }
        held = sum(row.handle in covered for row in due if row.state != "transient")
        owed = sum(tx.count(Debt, equal={"tenant": one, "retry_at": None}) for one in (tenant, ""))
        return Outlook(len(due), held, owed)

    async def run_for(self, caller: Caller, reason_code: str) -> tuple[Outlook, Receipt]:
        """Sweep now, because an officer says so; what was set aside is taken up again.

        Returns what was found.  Whatever this does not come to, the next sweep does.

        Raises:
            MessageInvalid: No reason is given.
        """
        if not reason_code:
            raise MessageInvalid("a sweep needs its reason", violations=(("reason_code", "reason.missing"),))

        def begin(tx: Transaction) -> tuple[Outlook, Receipt]:
            found = self._outlook(tx, caller.tenant)
            take_up(tx, caller.tenant, self.clock)
            receipt = self.ledger.record(
                tx,
                caller.tenant,
                "retention.swept",
                caller,
                rc=reason_code,
                nobj=found.due,
                nowed=found.owed,
            )
            return found, receipt

        began = await self.records.transact(begin)
        await self.run()
        return began

    async def expire(self) -> int:
        """Destroy the keys of objects whose term is over (GDPR Art. 5(1)(e)); return how many.

        The step that is promised to the moment, so it may be taken more often than all of them.
        """
        while await self.records.transact(self._end_datasets) == BATCH:
            pass
        total = 0
        while True:
            number = await self.records.transact(self._expire_some)
            total += number
            if number < EXPIRE_BATCH:
                return total

    def _expire_some(self, tx: Transaction) -> int:
        now = self.clock.now()
        due = tx.find(
            StoredObject,
            among={"state": ["live", "transient"]},
            below={"expires_at": now},
            order_by=("expires_at",),
            limit=EXPIRE_BATCH,
        )
        found = tx.find(Job, among={"job_id": sorted({stored.job_id for stored in due})})
        jobs = {job.job_id: job for job in found}
        waiting = {job.input_object: job for job in found if job.state == "queued"}
        for stored in due:
            if stored.object_id in waiting:
                end_queued(tx, self.ledger, waiting[stored.object_id], self.clock, "expired", None)
        over = [stored for stored in due if stored.object_id not in waiting]
        destroy_objects(tx, self.ledger, over, "expired")
        done = [jobs[stored.job_id] for stored in over if stored.job_id in jobs]
        results = {stored.object_id for stored in over}
        tx.put(
            *(
                replace(job, state="expired", updated_at=now)
                for job in done
                if job.state == "succeeded" and job.result_object in results
            )
        )
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
            owed = await self.debts.resting(OBJECT, [stored.object_id for stored in doomed])
            gone = [
                stored.object_id
                for stored in doomed
                if not owed.get(stored.object_id) and await self._is_removed(stored)
            ]
            await self.records.transact(partial(_drop_rows, object_ids=gone))
            total += len(gone)
            if len(doomed) < BATCH:
                return total
            after = doomed[-1].object_id

    async def _is_removed(self, stored: StoredObject) -> bool:
        """Remove the bytes of a destroyed object; what fails is owed."""
        try:
            await self.objects.delete(stored.object_id)
        except LetheError as fault:
            await self._refuse_outage(fault)
            await self.debts.failed(OBJECT, stored.object_id, fault.code, stored.tenant, self._log_stuck)
            return False
        return True

    def _log_stuck(self, tx: Transaction, debt: Debt) -> None:
        self.ledger.record(
            tx, debt.tenant, "object.stuck", None, obj=debt.item, rc=debt.code, ntry=debt.tries
        )

    async def _refuse_outage(self, fault: LetheError) -> None:
        """Return where the store answers, so that the fault is one object's; else it is no debt of that.

        Raises:
            LetheError: The fault: the store is out.
        """
        try:
            async for _ in self.objects.list():
                return
        except LetheError:
            raise fault from None

    async def _reap_orphans(self) -> int:
        """Remove bytes that no record claims: a crash or a refusal came between put and commit."""
        edge = self.clock.now() - self.orphan_grace
        orphans, batch = 0, list[str]()
        owed, there = await self.debts.items(UNCLAIMED), set[str]()
        async for found in self.objects.list():
            if found.object_id in owed:
                there.add(found.object_id)
            if found.stored_at <= edge:
                batch.append(found.object_id)
            if len(batch) == BATCH:
                orphans += await self._remove_unclaimed(batch)
                batch = []
        for item in owed - there:
            await self.debts.paid(UNCLAIMED, item)  # another has seen to it
        return orphans + await self._remove_unclaimed(batch)

    async def _remove_unclaimed(self, object_ids: list[str]) -> int:
        claimed = await self.records.transact(partial(_claimed, object_ids=object_ids))
        orphans = [object_id for object_id in object_ids if object_id not in claimed]
        owed = await self.debts.resting(UNCLAIMED, orphans)
        removed = 0
        for object_id in orphans:
            if owed.get(object_id):
                continue
            try:
                await self.objects.delete(object_id)
            except LetheError as fault:
                await self._refuse_outage(fault)
                await self.debts.failed(UNCLAIMED, object_id, fault.code)
                continue
            if object_id in owed:
                await self.debts.paid(UNCLAIMED, object_id)
            removed += 1
        return removed

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
            if not self._is_held(tx, job)
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

    def _is_held(self, tx: Transaction, row: Consent | Dsr | Job) -> bool:
        """Put off the end of what a hold keeps, and look again a day later."""
        if not standing(tx, row.tenant, row.handle, self.clock.now(), _CLASSES[type(row)]):
            return False
        later = self.clock.now() + timedelta(days=1)
        tx.put(replace(row, expires_at=later) if isinstance(row, Job) else replace(row, keep_until=later))
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

    async def _end_months(self) -> int:
        """Drop the keys of months that are over, but those that something standing needs; return how many.

        Of what expired only the wrapped key was emptied, and the bytes of the old row linger in
        heaps, WALs, replicas and backups.  Here the epoch is closed; its key follows within the
        bound (`flows/rotation.py`), and what a hold or another consent keeps beyond its month is
        wrapped anew before.
        """
        ended = f"{self.clock.now() - timedelta(days=1):%Y-%m}"
        total = 0
        for epoch in await self.keys.epochs():
            if epoch.cls not in BY_MONTH or not OPEN_TERM != epoch.month < ended:
                continue
            after: str | None = ""
            while after is not None:
                dropped, after = await self.records.transact(
                    partial(self._end_some_keys, epoch=epoch, after=after)
                )
                total += dropped
        return total

    def _end_some_keys(self, tx: Transaction, epoch: Epoch, after: str) -> tuple[int, str | None]:
        """Drop such keys of a page; return how many, and where the next page begins, if there may be one."""
        page = tx.find(
            SubjectKey,
            equal={"epoch": str(epoch)},
            above={"key_id": after},
            order_by=("key_id",),
            limit=EXPIRE_BATCH,
        )
        needed = _needed(tx, epoch.tenant, page)
        over = [key for key in page if key.key_id not in needed]
        tx.remove(*over)
        if over and tx.get(ClosedEpoch, str(epoch)) is None:
            tx.add(ClosedEpoch(epoch=str(epoch), closed_at=self.clock.now()))
        return len(over), page[-1].key_id if len(page) == EXPIRE_BATCH else None

    async def _end_payloads(self) -> int:
        """End what audit events say of anyone, a month at a time: its epoch key dies with the month."""
        ended = f"{self.clock.now():%Y-%m}"
        total = 0
        over = [
            epoch
            for epoch in await self.keys.epochs()
            if epoch.cls == KeyClass.AUDIT and OPEN_TERM != epoch.month < ended
        ]
        owed = await self.debts.resting(EPOCH, list(map(str, over)))
        for epoch in over:
            if owed.get(str(epoch)):
                continue
            total += await self.records.transact(partial(self._end_month, epoch=epoch))
            try:
                await self.keys.destroy_epoch(epoch)
            except LetheError as fault:
                await self.keys.epochs()  # the service itself is out: that is no debt of one epoch
                await self.debts.failed(EPOCH, str(epoch), fault.code, epoch.tenant)
                continue
            if str(epoch) in owed:
                await self.debts.paid(EPOCH, str(epoch))
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

    async def _drop_strays(self) -> int:
        """Drop keys that were made for somebody while their erasure ended.

        Whoever makes a key looks at the fence afterwards and takes it back.  Who is killed
        between leaves a key that seals nothing, under the handle of a person who is gone.
        In each sweep a page of the keys is looked at, and the key service asked of those that
        belong to no subject; beside strays that is the staff.
        """
        page = await self.records.transact(partial(_some_keys, after=self.looked_to[0]))
        self.looked_to[0] = page[-1].key_id if len(page) == STRAYS else ""
        edge = self.clock.now() - self.orphan_grace
        old = [key for key in page if key.handle and key.created_at <= edge]
        strays = await self.records.transact(partial(_of_nobody, keys=old)) if old else []
        fenced = [key for key in strays if await self.keys.is_fenced(key.handle or "")]
        return await self.records.transact(partial(_drop, keys=fenced)) if fenced else 0

    async def _mark_renewals(self) -> int:
        """Mark the consents that are to be asked for anew, because their notice has a new version."""
        total = 0
        for notice in await self.records.transact(lambda tx: tx.find(Notice, equal={"is_spread": False})):
            after = ""
            while True:
                marked, after = await self.records.transact(
                    partial(self._mark_some, newer=notice, after=after)
                )
                total += marked
                if not after:
                    break
        return total

    def _mark_some(self, tx: Transaction, newer: Notice, after: str) -> tuple[int, str]:
        """Mark some consents to older versions; return how many, and after which one to go on."""
        same = {"tenant": newer.tenant, "notice_id": newer.notice_id, "notice_language": newer.language}
        rows = tx.find(
            Consent, equal=same, above={"consent_id": after}, order_by=("consent_id",), limit=BATCH
        )
        marked = sum(self._is_marked(tx, consent, newer) for consent in rows)
        if len(rows) == BATCH:
            return marked, rows[-1].consent_id
        tx.put(replace(newer, is_spread=True))
        return marked, ""

    def _is_marked(self, tx: Transaction, consent: Consent, newer: Notice) -> bool:
        """Mark a consent that stands, unless it was before; it goes on to permit what its text named."""
        now = self.clock.now()
        state = consent_state.state_at(consent.state, consent.expires_at, now)
        stands = state in consent_state.STANDING
        if not stands or consent.renew_at is not None or consent.notice_version >= newer.version:
            return False
        key = (consent.tenant, consent.notice_id, consent.notice_version, consent.notice_language)
        shown = tx.get(Notice, *key)
        if shown is None or not self.judge.calls_for_renewal(consent, shown, newer):
            return False
        tx.put(replace(consent, renew_at=now))
        self.ledger.record(
            tx, consent.tenant, "consent.renewal", None, con=consent.consent_id, ntc=newer.thing_id
        )
        return True


def _in_state(tx: Transaction, state: str, after: str) -> list[StoredObject]:
    return tx.find(
        StoredObject,
        equal={"state": state},
        above={"object_id": after},
        order_by=("object_id",),
        limit=BATCH,
    )


def _drop_rows(tx: Transaction, object_ids: list[str]) -> None:
    for object_id in object_ids:
        drop_row(tx, object_id)


def _claimed(tx: Transaction, object_ids: list[str]) -> set[str]:
    return {stored.object_id for stored in tx.find(StoredObject, among={"object_id": object_ids})}


def _some_keys(tx: Transaction, after: str) -> list[SubjectKey]:
    return tx.find(SubjectKey, above={"key_id": after}, order_by=("key_id",), limit=STRAYS)


def _of_nobody(tx: Transaction, keys: list[SubjectKey]) -> list[SubjectKey]:
    """Return the keys whose handle is no subject's."""
    known: set[tuple[str, str]] = set()
    for tenant in sorted({key.tenant for key in keys}):
        handles = sorted({key.handle for key in keys if key.tenant == tenant and key.handle})
        rows = tx.find(Subject, equal={"tenant": tenant}, among={"handle": handles})
        known |= {(tenant, row.handle) for row in rows}
    return [key for key in keys if (key.tenant, key.handle) not in known]


def _drop(tx: Transaction, keys: list[SubjectKey]) -> int:
    """Remove the keys that still are what they were, unless a request is to note their epochs first."""
    strays = [
        key
        for key in _of_nobody(tx, keys)
        if tx.get(SubjectKey, key.key_id) == key
        and not tx.count(Dsr, equal={"tenant": key.tenant, "handle": key.handle})
    ]
    tx.remove(*strays)
    return len(strays)


def _needed(tx: Transaction, tenant: str, keys: Sequence[SubjectKey]) -> set[str]:
    """Return the ids of those keys that an object which stands, or a training set, is sealed under."""
    handles = sorted({key.handle for key in keys if key.handle})
    ids = [key.key_id for key in keys]
    objects = tx.find(StoredObject, equal={"tenant": tenant}, among={"handle": handles}) if handles else []
    sets = tx.find(Dataset, equal={"tenant": tenant}, among={"key_id": ids}) if ids else []
    return {one.key_id for one in objects if one.state in STANDING} | {one.key_id for one in sets}
