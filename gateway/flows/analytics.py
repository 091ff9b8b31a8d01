"""Gives out the abstract record of a picture: bins, and nothing that tells one person from another."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime

from gateway.caller import Caller
from gateway.deidentify.deidentified import Record
from gateway.errors import (
    LetheError,
    NotFound,
    ObjectExpired,
    ScrubberUnavailable,
    StoreUnavailable,
    SubjectBlocked,
)
from gateway.faces import Faces
from gateway.judge import Case, Judge, Verdict
from gateway.ledger import Ledger, Receipt
from gateway.people import People
from gateway.ports.clock import Clock
from gateway.ports.records import PICTURES, Job, Records, StoredObject, Subject, Transaction
from gateway.vault.payload import PayloadKey
from gateway.vault.safe import Safe
from policy.terms import DataKind, Purpose


@dataclass(frozen=True, slots=True)
class Recorded:
    """The record of a picture, what was measured when it was made, and the receipt of its leaf."""

    record: Record
    similarity: int
    made_at: datetime
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class _Asked:
    stored: StoredObject
    subject: Subject
    case: Case
    key: PayloadKey


@dataclass(frozen=True, slots=True)
class Analytics:
    """Makes records when they are asked for; nothing of one is kept, here or in the log.

    So there is nothing that a withdrawal or an erasure would have to reach, and each call
    is decided by policy for itself.
    """

    records: Records
    people: People
    judge: Judge
    ledger: Ledger
    safe: Safe
    faces: Faces
    clock: Clock

    async def record(self, caller: Caller, object_id: str) -> Recorded:
        """Return the abstract record of a stored picture.

        Steps:
            (1) The picture is the caller's and there; policy permits `analytics` for its subject.
            (2) It is opened and abstracted in the worker; what comes back is bins.
            (3) One transaction: policy still permits, the picture is still there, and the leaves are kept.

        Raises:
            NotFound: No such picture in the caller's tenant.
            ObjectExpired: Its term is over, it was destroyed, or it is kept by a hold only.
            SubjectBlocked: The subject is being erased.
            PolicyDenied: There is no consent to `analytics`, or no other person's release.
            ImageRejected: It shows no face, too many, or one that stays linked.
            ScrubberUnavailable: Nobody can look at it now.
        """
        await self.records.transact(lambda tx: self._there(tx, caller, object_id))
        try:
            return await self._record(caller, object_id)
        except NotFound:
            raise
        except LetheError as refusal:
            await self._log_refusal(caller, object_id, refusal)
            raise

    async def _record(self, caller: Caller, object_id: str) -> Recorded:
        asked = await self._admit(caller, object_id)
        made = await self.faces.see_to(await self.safe.open(asked.stored), Purpose.ANALYTICS)
        record, similarity = made.record, made.similarity
        if record is None or similarity is None:
            raise ScrubberUnavailable(detail="no_record")
        receipt = await self.records.transact(
            lambda tx: self._commit(tx, caller, asked, made.faces, similarity)
        )
        return Recorded(record, similarity, self.clock.now(), receipt)

    # (1)
    async def _admit(self, caller: Caller, object_id: str) -> _Asked:
        def read(tx: Transaction) -> tuple[StoredObject, Subject, Job | None]:
            stored = self._usable(tx, caller, object_id)
            subject = tx.get(Subject, caller.tenant, stored.handle)
            if subject is None or subject.state == "blocked":
                raise SubjectBlocked
            return stored, subject, tx.get(Job, stored.job_id)

        stored, subject, job = await self.records.transact(read)
        case = Case(
            await self.people.open_profile(subject),
            Purpose.ANALYTICS.value,
            self.clock.now(),
            # Where nobody can tell any more who uploaded it, it counts as another's.
            is_uploader=job is not None and job.is_uploader,
            kind=DataKind.LANDMARKS.value,
        )
        asked = _Asked(stored, subject, case, await self.people.payload_key(caller.tenant, subject.handle))

        def ask(tx: Transaction) -> Verdict:
            verdict = self._decide(tx, caller, asked)
            if not verdict.allowed:
                self.judge.record(tx, caller, subject, verdict, asked.key, obj=object_id)
            return verdict

        verdict = await self.records.transact(ask)
        if not verdict.allowed:
            raise self.judge.refusal(verdict)
        return asked

    def _decide(self, tx: Transaction, caller: Caller, asked: _Asked) -> Verdict:
        return self.judge.decide(tx, caller.tenant, asked.stored.handle, asked.case)

    @staticmethod
    def _there(tx: Transaction, caller: Caller, object_id: str) -> StoredObject:
        """Return a picture of the caller's that was sealed; copies for training and packages are none."""
        stored = tx.get(StoredObject, object_id)
        if stored is None or stored.tenant != caller.tenant or stored.state == "transient":
            raise NotFound
        if stored.kind not in PICTURES or stored.purpose == Purpose.TRAIN.value:
            raise NotFound
        return stored

    def _usable(self, tx: Transaction, caller: Caller, object_id: str) -> StoredObject:
        stored = self._there(tx, caller, object_id)
        if stored.state != "live" or stored.expires_at <= self.clock.now():
            raise ObjectExpired
        return stored

    # (3)
    def _commit(self, tx: Transaction, caller: Caller, asked: _Asked, faces: int, similarity: int) -> Receipt:
        stored = self._usable(tx, caller, asked.stored.object_id)
        verdict = self._decide(tx, caller, asked)
        if not verdict.allowed:
            raise self.judge.refusal(verdict)
        self.judge.record(tx, caller, asked.subject, verdict, asked.key, obj=stored.object_id)
        return self.ledger.record(
            tx,
            caller.tenant,
            "landmarks.released",
            caller,
            obj=stored.object_id,
            pur=Purpose.ANALYTICS.value,
            nface=faces,
            sim=similarity,
        )

    async def _log_refusal(self, caller: Caller, object_id: str, refusal: LetheError) -> None:
        """Log a refusal; where the log is what fails, the refusal stands all the same."""
        with contextlib.suppress(StoreUnavailable):
            await self.records.transact(
                lambda tx: self.ledger.record(
                    tx,
                    caller.tenant,
                    "landmarks.refused",
                    caller,
                    obj=object_id,
                    rc=refusal.code,
                    det=refusal.detail or None,
                )
            )
