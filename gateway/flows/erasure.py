"""Carries out approved erasures, step by step, so that a restart goes on where it stopped."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from audit.seal import commit_opening
from gateway.absence import Absence, Looked, Sought
from gateway.debts import FORGET, go_on_asking
from gateway.dsrs import claim, laws_of, leased, tick, with_heartbeat
from gateway.holdings import Holdings, doomed_keys, let_go
from gateway.holds import refuse_held
from gateway.judge import Judge
from gateway.ledger import Ledger
from gateway.objects import ask_to_stop, destroy_object, drop_row
from gateway.people import People
from gateway.ports.clock import Clock
from gateway.ports.keys import Epoch, KeyService
from gateway.ports.objects import ObjectStore
from gateway.ports.records import (
    PICTURES,
    Certificate,
    ClosedEpoch,
    Consent,
    Debt,
    Dsr,
    Job,
    Records,
    StoredObject,
    Subject,
    SubjectKey,
    Transaction,
)
from gateway.vault.custody import Custody
from policy import erasure
from policy.consent_state import transition as consent_after
from policy.erasure import ErasurePlan
from policy.pack import Pack
from policy.recipients import SETTLED, Told
from policy.terms import DsrKind, KeyClass

T = TypeVar("T")

METHOD = "key_destroyed_bytes_deleted"
INCOMPLETE = "ERASURE_INCOMPLETE"
"""The reason code of a request whose erasure left something behind, while that is so."""

LONGEST_PAUSE = timedelta(hours=1)
NOTES = frozenset({"objects", "epochs", "sought", "others", "tries", "said"})
"""What an erasure keeps in `Dsr.counts` to go on after a restart; it goes with the certificate."""

AT_ONCE = 1_000
"""Pictures that one commit destroys."""

NOBODY = ""
"""No subject has this handle: of an erased subject nothing is left to be found."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """One worker for erasures.

    The steps, each idempotent, `Dsr.step` counting those that are done:
        (1) Bar the door: subject blocked, consents withdrawn, jobs told to stop; then the fence;
            then wait until no worker has a picture open.
        (2) Destroy: first the keys of the content, in a commit that is small however much there
            is; then the pictures, some at a time; then in one commit every key and row that
            the plan erases; from here nothing is readable (T1).  Kept classes lose the
            subject's handle.
            A legal hold stops this step until it is released or ends.
        (3) Bytes: the ciphertext of every destroyed object is removed.
        (4) Reach the backups: survivors are re-wrapped under new epoch keys, the
            old epoch keys destroyed (T2), deleted rows scoured from the database's files.
        (5) Certify: state fulfilled, the leaf `subject.erased`, the certificate.  Only once
            `gateway.absence` has looked, by other ways than these steps go, for what should be
            gone and found nothing.  Else `on_found` hears where, the leaf
            `erasure.incomplete` says so, and after a pause all is repeated from (2).
    """

    records: Records
    holdings: Holdings
    custody: Custody
    keys: KeyService
    objects: ObjectStore
    people: People
    judge: Judge
    held_classes: tuple[KeyClass, ...]
    ledger: Ledger
    clock: Clock
    lease: timedelta
    poll_s: float
    absence: Absence
    on_found: Callable[..., None] = lambda *_places: None
    forget_wait: timedelta = timedelta(seconds=60)
    random: Callable[[int], bytes] = os.urandom

    async def run_one(self) -> bool:
        """Carry out one approved erasure to its end and return whether there was one.

        A failure leaves the request where it stands; the lease runs out and it is tried again.
        """
        owner = self.random(8).hex()
        claimed = await self.records.transact(lambda tx: self._claim(tx, owner))
        if claimed is None:
            return False
        dsr: Dsr = claimed
        for number, step in enumerate(
            (self._bar, self._destroy, self._remove_bytes, self._reach_backups), start=1
        ):
            if dsr.step < number:
                await self._with_heartbeat(dsr, step)
                dsr = await self.records.transact(partial(self._tick, dsr=dsr, step=number))
        await self._certify(dsr)
        return True

    async def _with_heartbeat(self, dsr: Dsr, step: Callable[[Dsr], Awaitable[T]]) -> T:
        """Take a step, and keep the lease while it lasts: re-wrapping and scouring may take long."""
        return await with_heartbeat(self.records, self.clock, self.lease, dsr, step)

    def _claim(self, tx: Transaction, owner: str) -> Dsr | None:
        return claim(tx, (DsrKind.ERASURE.value,), owner, self.clock.now(), self.lease)

    def _tick(self, tx: Transaction, dsr: Dsr, step: int) -> Dsr:
        return tick(tx, dsr, step, self.clock.now(), self.lease)

    @staticmethod
    def _own(tx: Transaction, dsr: Dsr) -> Dsr:
        return leased(tx, dsr)

    # (1)
    async def _bar(self, dsr: Dsr) -> None:
        if dsr.handle is None:
            return  # another request of the same subject was carried out first
        handle = dsr.handle

        def block(tx: Transaction) -> None:
            now = self.clock.now()
            subject = tx.get(Subject, dsr.tenant, handle)
            if subject is not None and subject.state != "blocked":
                tx.put(replace(subject, state="blocked", updated_at=now))
                self.ledger.record(tx, dsr.tenant, "subject.blocked", None, dsr=dsr.dsr_id)
            same = {"tenant": dsr.tenant, "handle": handle}
            for consent in tx.find(Consent, equal=same):
                if consent.withdrawn_at is None:
                    state = consent_after(consent.state, "withdraw") or consent.state
                    tx.put(replace(consent, state=state, withdrawn_at=now, withdrawn_via="erasure"))
                    self.ledger.record(
                        tx,
                        dsr.tenant,
                        "consent.withdrawn",
                        None,
                        con=consent.consent_id,
                        pur=consent.purpose,
                        meth="erasure",
                    )
            for job in tx.find(Job, equal=same):
                ask_to_stop(tx, self.ledger, job, self.clock, "subject_blocked", None)

        await self.records.transact(block)
        await self.keys.fence(handle)
        await self._all_hands_off(dsr, handle)

    async def _all_hands_off(self, dsr: Dsr, handle: str) -> None:
        """Wait until no worker has a picture of the subject open, and every backend has forgotten.

        A worker stops within a poll of its own; one that died lets its lease run out.  What is in the
        memory of a process goes within a poll of that process, or went with it.
        A backend that does not confirm is waited for, but not for ever: the
        certificate then says so.
        """
        same = {"tenant": dsr.tenant, "handle": handle}

        def look(tx: Transaction) -> tuple[bool, bool]:
            now, jobs = self.clock.now(), tx.find(Job, equal=same)
            running = [job for job in jobs if job.state == "running"]
            is_worked_on = any(job.lease_until is not None and job.lease_until > now for job in running)
            is_held = bool(tx.find(StoredObject, equal={**same, "state": "transient"}, limit=1))
            return is_worked_on, is_held or any(job.is_forget_owed for job in jobs)

        polls_left = int(self.forget_wait.total_seconds() / self.poll_s)
        while True:
            is_worked_on, is_owed = await self.records.transact(look)
            if not is_worked_on and (not is_owed or polls_left <= 0):
                return
            polls_left -= 1
            await asyncio.sleep(self.poll_s)

    # (2)
    async def _destroy(self, dsr: Dsr) -> None:
        laws = await laws_of(dsr, self.records, self.people, self.judge, self.clock)
        key = await self.absence.key(dsr.tenant, dsr.dsr_id)
        before = await self._progress(dsr)
        known = self.absence.unseal(key, dsr.dsr_id, before)
        missed = await self._missed(dsr, known) if "tries" in before else {}
        if dsr.handle or known.handle:
            # First, and not only afterwards: the answer of what follows may be lost.
            self.custody.evict(dsr.handle or known.handle)
            self.ledger.forget(dsr.handle or known.handle)

        def destroy(tx: Transaction) -> None:
            standing = self._own(tx, dsr)
            noted = standing.counts
            earlier = self.absence.unseal(key, dsr.dsr_id, noted)
            handle = standing.handle or earlier.handle or NOBODY
            refuse_held(tx, dsr.tenant, handle, self.clock.now())
            same = {"tenant": dsr.tenant, "handle": handle}
            keys = tx.find(SubjectKey, equal=same)
            epochs = sorted({*noted.get("epochs", ()), *(held.epoch for held in keys)})
            objects = sorted(
                {
                    *noted.get("objects", ()),
                    *missed,
                    *(o.object_id for o in tx.find(StoredObject, equal=same)),
                }
            )
            jobs = tx.find(Job, equal=same)
            others = [other.dsr_id for other in tx.find(Dsr, equal=same) if other.dsr_id != dsr.dsr_id]
            plan = erasure.plan(laws, self.held_classes, self.clock.now())
            sought = earlier | Sought(
                handle,
                tuple(
                    (held.key_id, held.cls, held.month) for held in doomed_keys(tx, dsr.tenant, handle, plan)
                ),
                tuple(job.job_id for job in jobs),
            )
            counts: dict[str, Any] = {
                name: noted.get(name, 0) + number
                for name, number in self.holdings.erase(tx, dsr.tenant, handle, plan).items()
            }
            counts["nobj"] = counts.get("nobj", 0) + self._end_missed(tx, dsr.tenant, missed)
            for job in jobs:
                go_on_asking(tx, job, self.clock, dsr.dsr_id)
                if job.state in {"queued", "running"}:
                    self.ledger.record(tx, dsr.tenant, "job.cancelled", None, job=job.job_id, why="erasure")
            now = int(self.clock.now().timestamp() * 1000)
            progress = {
                **noted,
                **counts,
                "t1": now,
                "epochs": epochs,
                "objects": objects,
                "erased": sorted(cls.value for cls in plan.erase),
                "kept": _kept(plan),
                "others": sorted({*noted.get("others", ()), *others}),
                "sought": self.absence.seal(key, dsr.dsr_id, sought),
            }
            # Read again: the holding of requests has just unlinked this one too.
            tx.put(replace(self._own(tx, dsr), step=2, counts=progress))

        await self.records.transact(partial(self._end_content, dsr=dsr, laws=laws, key=key))
        while await self.records.transact(partial(self._end_pictures, dsr=dsr, laws=laws, key=key)):
            pass
        await self.records.transact(destroy)

    def _end_content(self, tx: Transaction, dsr: Dsr, laws: Sequence[Pack], key: bytes) -> None:
        """Destroy the keys of the content ahead of all else, so that no object opens, however many there are.

        The great commit takes as long as there are rows and leaves; a person's content has a key a month.
        """
        standing = self._own(tx, dsr)
        earlier = self.absence.unseal(key, dsr.dsr_id, standing.counts)
        handle = standing.handle or earlier.handle or NOBODY
        refuse_held(tx, dsr.tenant, handle, self.clock.now())
        if KeyClass.CONTENT not in erasure.plan(laws, self.held_classes, self.clock.now()).erase:
            return
        content = {"tenant": dsr.tenant, "handle": handle, "cls": KeyClass.CONTENT.value}
        keys = tx.find(SubjectKey, equal=content)
        if not keys:
            return
        tx.remove(*keys)
        # As the great commit would have noted it: these are not there for it to see.
        sought = earlier | Sought(handle, tuple((held.key_id, held.cls, held.month) for held in keys))
        progress = {
            **standing.counts,
            "nkey": standing.counts.get("nkey", 0) + len(keys),
            "epochs": sorted({*standing.counts.get("epochs", ()), *(held.epoch for held in keys)}),
            "sought": self.absence.seal(key, dsr.dsr_id, sought),
        }
        tx.put(replace(standing, counts=progress))

    def _end_pictures(self, tx: Transaction, dsr: Dsr, laws: Sequence[Pack], key: bytes) -> bool:
        """Destroy some of the pictures, each with its leaf; return whether there may be more.

        One commit of all of them would hold up whoever else writes, and on PostgreSQL its first
        leaf would be too old at its end.
        """
        standing = self._own(tx, dsr)
        handle = standing.handle or self.absence.unseal(key, dsr.dsr_id, standing.counts).handle or NOBODY
        refuse_held(tx, dsr.tenant, handle, self.clock.now())
        if KeyClass.CONTENT not in erasure.plan(laws, self.held_classes, self.clock.now()).erase:
            return False
        theirs = {"tenant": dsr.tenant, "handle": handle, "state": "live"}
        some = tx.find(StoredObject, equal=theirs, among={"kind": PICTURES}, limit=AT_ONCE)
        if not some:
            return False
        noted = standing.counts
        progress = {
            **noted,
            "nobj": noted.get("nobj", 0) + let_go(tx, self.ledger, some),
            "objects": sorted({*noted.get("objects", ()), *(stored.object_id for stored in some)}),
        }
        tx.put(replace(standing, counts=progress))
        return len(some) == AT_ONCE

    async def _missed(self, dsr: Dsr, known: Sought) -> dict[str, str]:
        """Return the objects that only the log knows, with what to say of each: its category, or nothing.

        Asked only where a look has found something; and the fence is put up again, which may be what it was.
        """
        if known.handle:
            await self.keys.fence(known.handle)
        if KeyClass.CONTENT.value not in (await self._progress(dsr)).get("erased", ()):
            return {}
        logged = await self.absence.logged_objects(dsr.tenant, known)
        over = await self.absence.logged_ends(dsr.tenant, logged)
        return {obj: "" if obj in over else category for obj, category in logged.items()}

    def _end_missed(self, tx: Transaction, tenant: str, missed: Mapping[str, str]) -> int:
        """Destroy what was missed, whatever its row says or whether it has one; each gets its leaf once."""
        ended = 0
        for object_id, category in missed.items():
            stored = tx.get(StoredObject, object_id)
            if stored is not None:
                ended += destroy_object(tx, self.ledger, stored, "erasure") is not None
                tx.put(replace(stored, handle=NOBODY, wrapped_dek=b"", sealed_prompt=b"", state="destroyed"))
            elif category:
                self.ledger.record(
                    tx, tenant, "object.destroyed", None, obj=object_id, cat=category, why="erasure"
                )
                ended += 1
        return ended

    # (3)
    async def _remove_bytes(self, dsr: Dsr) -> None:
        for object_id in (await self._progress(dsr)).get("objects", ()):
            # A failure must not be left to the sweeper: the row is to be gone before its traces are scoured.
            await self.objects.delete(object_id)
            await self.records.transact(partial(drop_row, object_id=object_id))

    # (4)
    async def _reach_backups(self, dsr: Dsr) -> None:
        names = {*(await self._progress(dsr)).get("epochs", ())}
        standing = [str(epoch) for epoch in await self.keys.epochs() if epoch.tenant == dsr.tenant]
        # What the sweeper dropped of the person's keys before waits for its epoch to be rolled, too.
        names |= await self.records.transact(partial(_closed_of, epochs=standing))
        for text in sorted(names):
            await self.custody.roll(Epoch.parse(text))
        await self.records.scour()

    async def _progress(self, dsr: Dsr) -> Mapping[str, Any]:
        standing = await self.records.transact(lambda tx: tx.get(Dsr, dsr.dsr_id))
        return standing.counts if standing else {}

    # (5)
    async def _look(self, dsr: Dsr) -> Looked | None:
        """Look for what should be gone; None where another request of the same subject is still looking.

        What is found is looked for once more: a call that was under way when the door was
        barred may just have been taking back what it had written.
        """
        counts = await self._progress(dsr)
        key = await self.absence.key(dsr.tenant, dsr.dsr_id)
        sought = self.absence.unseal(key, dsr.dsr_id, counts)
        if not sought.handle and await self.records.transact(partial(_is_waited_for, dsr=dsr)):
            return None
        look = partial(
            self.absence.look,
            dsr.tenant,
            sought,
            counts.get("objects", ()),
            counts.get("epochs", ()),
            is_content_gone=KeyClass.CONTENT.value in counts.get("erased", ()),
        )
        looked = await look()
        if not looked.places:
            return looked
        await asyncio.sleep(self.poll_s)
        again = await look()
        return replace(again, places=looked.places & again.places, names=looked.names & again.names)

    def _postpone(self, tx: Transaction, dsr: Dsr) -> None:
        """Let the request go for a while."""
        standing = self._own(tx, dsr)
        tx.put(replace(standing, lease_owner="", lease_until=self.clock.now() + self.lease))

    def _refuse(self, tx: Transaction, dsr: Dsr, looked: Looked) -> None:
        """Give no certificate: say where something was found, once, and go back to (2) after a pause."""
        standing = self._own(tx, dsr)
        counts, where, now = standing.counts, sorted(looked.places), self.clock.now()
        tries, said = counts.get("tries", 0) + 1, counts.get("said", [])
        if where not in said:
            self.ledger.record(tx, dsr.tenant, "erasure.incomplete", None, dsr=dsr.dsr_id, where=where)
        tx.put(
            replace(
                standing,
                step=1,
                reason_code=INCOMPLETE,
                counts={**counts, "tries": tries, "said": said if where in said else [*said, where]},
                lease_owner="",
                lease_until=now + min(self.lease * 2 ** min(tries - 1, 16), LONGEST_PAUSE),
                updated_at=now,
            )
        )

    async def _certify(self, dsr: Dsr) -> None:
        looked = await self._with_heartbeat(dsr, self._look)
        if looked is None:
            await self.records.transact(partial(self._postpone, dsr=dsr))
        elif looked.places:
            await self.records.transact(partial(self._refuse, dsr=dsr, looked=looked))
            self.on_found(*sorted(looked.names))
        else:
            await self._issue(dsr, looked)

    async def _issue(self, dsr: Dsr, looked: Looked) -> None:
        latency = self.keys.destroy_latency
        salt = self.random(32)

        def certify(tx: Transaction) -> None:
            standing = tx.get(Dsr, dsr.dsr_id)
            if standing is None or standing.state != "running":
                return
            # Those that have confirmed since are not counted; of the others the log says how it ended.
            owed = tx.count(Debt, equal={"kind": FORGET, "about": dsr.dsr_id})
            standing = replace(standing, counts={**standing.counts, "nowed": owed})
            counts = standing.counts
            now = self.clock.now()
            t2 = None
            if not self.keys.copies_outside_our_control:
                t2 = int((now + latency).timestamp() * 1000)
            # As planned when it was destroyed: a rule may have come or gone since.
            erased = counts["erased"]
            certificate_id = self.random(16).hex()
            statement = _statement(standing, certificate_id, erased, t2, self.keys.name, latency, looked, now)
            receipt = self.ledger.record(
                tx,
                dsr.tenant,
                "subject.erased",
                None,
                dsr=dsr.dsr_id,
                cls=erased,
                kept=counts["kept"],
                nobj=counts.get("nobj", 0),
                ncon=counts.get("ncon", 0),
                njob=counts.get("njob", 0),
                nkey=counts.get("nkey", 0),
                nowed=owed,
                meth=METHOD,
                t1=counts["t1"],
                t2=t2,
                opn=commit_opening(statement, salt).hex(),
            )
            opening = json.dumps({"payload": statement.decode(), "salt": salt.hex()}, sort_keys=True).encode()
            tx.add(
                Certificate(
                    certificate_id=certificate_id,
                    tenant=dsr.tenant,
                    dsr_id=dsr.dsr_id,
                    event_id=receipt.event_id,
                    opening=opening,
                    issued_at=now,
                    keep_until=standing.keep_until,
                )
            )
            tx.put(
                replace(
                    standing,
                    state="fulfilled",
                    step=5,
                    # What was needed to go on after a restart is not needed any more.
                    counts={k: v for k, v in counts.items() if k not in NOTES},
                    certificate_id=certificate_id,
                    reason_code="",
                    due_key=None,
                    lease_owner="",
                    lease_until=None,
                    answered_at=now,
                    updated_at=now,
                )
            )

        await self.records.transact(certify)


def _kept(plan: ErasurePlan) -> list[dict[str, Any]]:
    """Return what stays and why, as the leaf carries it."""
    return [
        {"cls": k.cls.value, "rule": k.rule}
        | ({"until": int(k.until.timestamp() * 1000)} if k.until is not None else {})
        for k in plan.keep
    ]


def _closed_of(tx: Transaction, epochs: Sequence[str]) -> set[str]:
    """Return which of the epochs were closed, under which no key is made any more."""
    return {row.epoch for row in tx.find(ClosedEpoch, among={"epoch": epochs})} if epochs else set()


def _is_waited_for(tx: Transaction, dsr: Dsr) -> bool:
    """Tell whether a request that unlinked this one, being of the same subject, has no certificate yet."""
    running = tx.find(Dsr, equal={"tenant": dsr.tenant, "state": "running"})
    return any(dsr.dsr_id in other.counts.get("others", ()) for other in running)


def _statement(
    dsr: Dsr,
    certificate_id: str,
    erased: list[str],
    t2: int | None,
    adapter: str,
    latency: timedelta,
    looked: Looked,
    looked_at: datetime,
) -> bytes:
    """Return what the certificate says in words, without naming anyone; the leaf commits to it."""
    told = [one["state"] for one in dsr.recipients.values()]
    return json.dumps(
        {
            "certificate": f"certificates/{certificate_id}",
            "dsr": f"dsrs/{dsr.dsr_id}",
            "regime": dsr.regime,
            "received_at": dsr.received_at.isoformat(),
            "erased_classes": erased,
            "kept_classes": dsr.counts["kept"],
            "objects_destroyed": dsr.counts.get("nobj", 0),
            "backends_unconfirmed": dsr.counts.get("nowed", 0),
            "recipients_confirmed": len([s for s in told if s == Told.ACKNOWLEDGED]),
            "recipients_excused": len([s for s in told if s == Told.EXCUSED]),
            "recipients_unconfirmed": len([s for s in told if s not in SETTLED]),
            "unreadable_here_ms": dsr.counts["t1"],
            "unreadable_in_backups_ms": t2,
            "key_service": adapter,
            "destroy_latency_s": int(latency.total_seconds()),
            "searched": {
                "at_ms": int(looked_at.timestamp() * 1000),
                "tables": looked.tables,
                "tables_not_readable": looked.unread,
                "objects": looked.objects,
                "epochs": looked.epochs,
                "found": 0,
            },
        },
        sort_keys=True,
        separators=(",", ":"),
    ).encode()
