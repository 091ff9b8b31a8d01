"""Settles a restored backup before anything is served: the log goes on, what ended since ends again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from audit import checkpoint, leaf, tiles, tree
from audit.errors import AuditError, LeafInvalid, TileInvalid
from audit.leaf import leaf_hash
from audit.note import Signer
from gateway.controllers import version_of
from gateway.datasets import bare, shrink
from gateway.debts import go_on_asking
from gateway.dsrs import closed, due_key, pinned, recipient_id, resumed, seat, with_recipients
from gateway.errors import AuditUnavailable
from gateway.holdings import Holdings
from gateway.judge import Judge
from gateway.ledger import Ledger
from gateway.logkeys import log_keys, read_book
from gateway.logs import grow, leaves
from gateway.objects import destroy_object, drop_row
from gateway.ports.backup import Survivors
from gateway.ports.clock import Clock
from gateway.ports.files import LogFiles
from gateway.ports.keys import Epoch, KeyService
from gateway.ports.lock import CheckpointLock
from gateway.ports.objects import ObjectStore
from gateway.ports.records import (
    STANDING,
    Consent,
    Dataset,
    DatasetItem,
    Dsr,
    Hold,
    Incident,
    Job,
    Leaf,
    LogHead,
    Records,
    Restore,
    SealedPayload,
    Signal,
    StoredObject,
    Subject,
    SubjectKey,
    Transaction,
)
from gateway.vault.custody import Custody
from policy import breach, erasure
from policy.consent_state import ConsentState, ConsentVerb, transition
from policy.pack import Pack
from policy.recipients import Role, Told
from policy.terms import KeyClass

BATCH = 100
COUNTS = ("nsub", "nkey", "nobj", "njob", "ncon", "nseal", "ndsr", "nres", "nfact", "ninc")
LOST = {"nfact": "facts", "ninc": "incidents"}
"""What a person must enter again, by its count; `on_lost` hears of it."""

RESTORED = "restored"
INVOKED = "gdpr"
"""The law by which a suppression plans: which one its subject invoked, the log does not say."""

_ENDS = {"job.cancelled": "cancelled", "job.failed": "failed", "job.succeeded": "succeeded"}
_OVER = ("dsr.refused", "dsr.cancelled", "dsr.fulfilled", "subject.erased")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class _Ahead:
    """What the tail of a log comes to: things that are over by its end, and whether it knows the backup."""

    destroyed: set[str] = field(default_factory=set)
    jobs: set[str] = field(default_factory=set)
    dsrs: set[str] = field(default_factory=set)
    sets: set[str] = field(default_factory=set)
    items: set[str] = field(default_factory=set)
    digest: str = ""
    restricted: bool = False
    signals: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Suppress:
    """What happens at the start after a restore; nothing is served until it is done.

    In this order, each step idempotent, so that a start that is cut goes on at the next:
        (1) The tail of each log, which the backup lacks, comes back from its published
            files, if it leads to the head that was locked: the log goes on unforked.
        (2) The backup is one that the log knows, by the digest of its file.
        (3) What the tail ended ends again, and what only the tail knew is written off.
        (4) The log names no subject, but the key service knows who is fenced: each of
            them is erased as before.  Who restricted or objected meanwhile it does
            not know: then everybody is restricted, or has objected, until a person looked.
        (5) Keys of destroyed epochs come back as their survivors were wrapped, or go.
        (6) Bytes that nothing opens go, and traces of deleted rows.
        (7) `backup.restored` in every log; the mark goes.  Facts of the controller and breaches that
            the log knows only in codes are an alarm (`on_lost`).
    """

    records: Records
    objects: ObjectStore
    keys: KeyService
    custody: Custody
    holdings: Holdings
    judge: Judge
    packs: Mapping[str, Pack]
    ledger: Ledger
    clock: Clock
    lock: CheckpointLock
    signers: Mapping[str, tuple[Signer, ...]]
    held_classes: tuple[KeyClass, ...]
    files: LogFiles | None = None
    survivors: Survivors | None = None
    on_lost: Callable[..., None] = lambda *_what: None

    async def run(self) -> bool:
        """Settle the restored backup and return whether there was one.

        Raises:
            AuditUnavailable: The log cannot go on (detail `log_tail_missing`, `log_changed`), or
                does not know the backup (`backup_unknown`).
        """
        mark = await self._mark()
        if mark is None:
            return False
        for origin in self.ledger.origins.values():
            await self._append_tail(origin)
        ahead = {origin: await self._look_ahead(origin, mark) for origin in self.ledger.origins.values()}
        if any(ahead[origin].digest != mark.digest for origin in mark.logs if origin in ahead):
            raise AuditUnavailable("the log does not know the restored backup", detail="backup_unknown")
        for tenant, origin in self.ledger.origins.items():
            await self._settle(tenant, origin, ahead[origin])
            await self._restrict_all(tenant, origin, ahead[origin])
        await self._suppress_fenced()
        await self._mend_keys()
        await self._remove_bytes()
        await self.records.scour()
        lost = await self.records.transact(self._finish)
        if lost:
            self.on_lost(*lost)
        return True

    async def _mark(self) -> Restore | None:
        marks = await self.records.transact(lambda tx: tx.find(Restore))
        return marks[0] if marks else None

    # (1)
    async def _append_tail(self, origin: str) -> None:
        """Take the leaves that were signed since the backup back into the records."""
        note = await self.lock.load(origin)
        head = await self.records.transact(partial(_head, origin=origin))
        if note is None:
            return
        try:
            locked = checkpoint.open_checkpoint(note, [signer.verifier for signer in self.signers[origin]])
        except AuditError as error:
            raise AuditUnavailable("a locked head is not signed by us", detail="log_changed") from error
        if locked.size <= head.size:
            return  # the sequencer compares them
        shown = await self.files.size(origin) if self.files is not None else 0
        if self.files is None or shown < locked.size:
            raise AuditUnavailable("the published log ends before the locked head", detail="log_tail_missing")
        hashes: list[bytes] = []
        for at in range(head.size, locked.size, BATCH):
            lines = await self._lines(self.files, origin, at, min(at + BATCH, locked.size), shown)
            hashes += map(leaf_hash, lines)
        grown = await self.records.transact(
            partial(grow, origin=origin, head=head, hashes=hashes, rehearse=True)
        )
        if grown.root != locked.root:
            raise AuditUnavailable("the published log is not the one that was signed", detail="log_changed")
        for at in range(head.size, locked.size, BATCH):
            lines = await self._lines(self.files, origin, at, min(at + BATCH, locked.size), shown)
            expected = hashes[at - head.size : at - head.size + len(lines)]
            await self.records.transact(
                partial(_append, origin=origin, start=at, lines=lines, hashes=expected)
            )

    @staticmethod
    async def _lines(files: LogFiles, origin: str, start: int, end: int, shown: int) -> list[bytes]:
        """Return the published leaves [start, end)."""
        found: list[bytes] = []
        for index in range(start // tiles.WIDTH, (end - 1) // tiles.WIDTH + 1):
            width = tiles.width(0, index, shown)
            data = await files.get(origin, tiles.entries_path(index, width))
            if data is None:
                raise AuditUnavailable("published events are missing", detail="log_tail_missing")
            try:
                lines = tiles.read_bundle(data, width)
            except TileInvalid as error:
                raise AuditUnavailable("published events are damaged", detail="log_changed") from error
            low = index * tiles.WIDTH
            found += lines[max(start - low, 0) : end - low]
        return found

    # (2)
    async def _look_ahead(self, origin: str, mark: Restore) -> _Ahead:
        ahead, at = _Ahead(), mark.logs.get(origin, 0)
        while events := await self.records.transact(partial(_events, origin=origin, start=at)):
            for event in events:
                _note(ahead, event, mark.backup_id)
            at += len(events)
        return ahead

    # (3)
    async def _settle(self, tenant: str, origin: str, ahead: _Ahead) -> None:
        while await self.records.transact(
            partial(self._settle_some, tenant=tenant, origin=origin, ahead=ahead)
        ):
            pass

    def _settle_some(self, tx: Transaction, tenant: str, origin: str, ahead: _Ahead) -> int:
        """Make some events of the tail good and return how many; how far it is stands in the mark."""
        mark = tx.find(Restore)[0]
        start = mark.settled.get(origin, mark.logs.get(origin, 0))
        events = _events(tx, origin, start)
        done: dict[str, int] = {}
        missing: list[tuple[str, int]] = []
        for event in events:
            for name in self._again(tx, tenant, event, ahead):
                done[name] = done.get(name, 0) + 1
            missing += [
                (event["id"], slot)
                for slot in range(len(event["seals"]))
                if tx.get(SealedPayload, event["id"], slot) is None
            ]
        if missing:
            # The payloads of the tail rested in the records that are lost.
            by = self.ledger.record(tx, tenant, "payload.erased", None, nseal=len(missing))
            tx.add(*(SealedPayload(*place, origin, None, "", "", b"", by.event_id) for place in missing))
            done["nseal"] = len(missing)
        if events:
            settled = {**mark.settled, origin: start + len(events)}
            tx.put(replace(mark, settled=settled, counts=_plus(mark.counts, origin, done)))
        return len(events)

    def _again(self, tx: Transaction, tenant: str, event: Mapping[str, Any], ahead: _Ahead) -> Iterable[str]:
        """Do again what an event of the tail ended, and return what it counts as."""
        ty, at = event["ty"], _EPOCH + timedelta(milliseconds=event["t"])
        if ty == "consent.withdrawn":
            return self._withdraw(tx, event["con"], at)
        if ty == "consent.invalidated":
            consent = tx.get(Consent, event["con"])
            if consent is not None:
                keep_until = self.judge.proof_term(consent.regimes, at)
                tx.put(replace(consent, state=ConsentState.INVALIDATED, keep_until=keep_until))
                return ("ncon",)
        if ty == "record.expired":
            return self._expire(tx, event)
        if ty == "object.destroyed":
            stored = tx.get(StoredObject, event["obj"])
            if stored is not None and stored.state in STANDING:
                tx.put(replace(stored, wrapped_dek=b"", sealed_prompt=b"", state="destroyed"))
                return ("nobj",)
        if ty == "object.kept":
            stored = tx.get(StoredObject, event["obj"])
            if stored is not None:
                tx.put(replace(stored, kept_for=event["pur"]))
        if ty in {"object.sealed", "object.transient"}:
            is_lost = event["obj"] not in ahead.destroyed and tx.get(StoredObject, event["obj"]) is None
            return self._write_off(tx, tenant, event) if is_lost else ()
        if ty.startswith("dataset."):
            self._dataset(tx, tenant, event, at, ahead)
        if ty.startswith("job."):
            return self._job(tx, tenant, event, at, ahead)
        if "dsr" in event:
            return self._dsr(tx, event, at, ahead)
        if ty == "tenant.updated":
            return self._facts(tx, tenant, event, at)
        if ty == "incident.recorded":
            return self._incident(tx, tenant, event, at)
        if ty == "hold.released":
            hold = tx.get(Hold, event["hld"])
            if hold is not None:
                tx.remove(hold)
        if ty == "log.keyrevoked":
            self._revoke(tx, self.ledger.origins[tenant], event)
        if ty == "payload.expired":
            held = {"log": self.ledger.origins[tenant], "month": event["month"], "erased_by": ""}
            tx.change(SealedPayload, equal=held, to={"handle": None, "blob": b"", "erased_by": event["id"]})
        return ()

    def _facts(self, tx: Transaction, tenant: str, event: Mapping[str, Any], at: datetime) -> Iterable[str]:
        """Let the places count that the log says; of other facts it says only that they have changed.

        Where training was switched, it is off until somebody says otherwise.
        """
        known, version = self.judge.controllers.versioned(tx, tenant)
        if event["ver"] <= version:
            return ()
        facts = replace(
            known,
            establishments=tuple(event["est"]) or None if "est" in event else known.establishments,
            targets=tuple(event["tgt"]) or None if "tgt" in event else known.targets,
            is_training_on=known.is_training_on and "is_training_on" not in event["chg"],
        )
        tx.add(version_of(tenant, event["ver"], facts, at))
        said = {name for name, code in (("establishments", "est"), ("targets", "tgt")) if code in event}
        return ["nfact"] * len(set(event["chg"]) - said)

    def _incident(
        self, tx: Transaction, tenant: str, event: Mapping[str, Any], at: datetime
    ) -> Iterable[str]:
        """Enter a breach again as far as the log says it: its clock runs; its words are lost.

        By which rule somebody need not be told, the log does not say: that is open again.
        """
        known = tx.get(Incident, event["inc"])
        if known is not None and known.version >= event["ver"]:
            return ()
        aware_at = _EPOCH + timedelta(milliseconds=event["at"])
        packs = [self.packs[name] for name in event["packs"] if name in self.packs]
        zone = ZoneInfo(self.judge.controllers.at(tx, tenant).time_zone)
        told = {"told_at": at.isoformat()}
        again = replace(
            known or _lost_incident(tenant, event["inc"], at),
            version=event["ver"],
            kind=event["ikind"],
            aware_at=aware_at,
            authority=told if event["auth"] == "told" else {},
            subjects=told if event["subj"] == "told" else {},
            regimes=tuple(event["packs"]),
            due_at=_EPOCH + timedelta(milliseconds=event["due"]) if "due" in event else None,
            updated_at=at,
            keep_until=breach.keep_until(packs, aware_at, zone),
        )
        tx.put(again) if known else tx.add(again)
        return ("ninc",)

    @staticmethod
    def _revoke(tx: Transaction, origin: str, event: Mapping[str, Any]) -> None:
        """Believe a stolen key as little as before; one that the book lacks is the sequencer's to refuse."""
        row = log_keys(tx, origin)
        book = read_book(row)
        for key in book.keys:
            if key.verifier.key_id.hex() in event["key"]:
                book = book.revoked(key.verifier, event["from"])
        tx.put(replace(row, text=book.text()))

    def _write_off(self, tx: Transaction, tenant: str, event: Mapping[str, Any]) -> Iterable[str]:
        """Log that an object is lost: its row is gone, and with it the key, so nothing opens its bytes."""
        self.ledger.record(
            tx, tenant, "object.destroyed", None, obj=event["obj"], cat=event["cat"], why=RESTORED
        )
        return ("nobj",)

    def _dataset(
        self, tx: Transaction, tenant: str, event: Mapping[str, Any], at: datetime, ahead: _Ahead
    ) -> None:
        """Remove from a training set again what was, and what nobody could remove later; or end it again."""
        ty, dataset = event["ty"], tx.get(Dataset, event["dst"])
        item = tx.get(DatasetItem, event["itm"]) if "itm" in event else None
        if dataset is None:
            if ty == "dataset.created" and event["dst"] not in ahead.sets:
                self.ledger.record(tx, tenant, "dataset.expired", None, dst=event["dst"])
        elif ty == "dataset.added" and item is None:
            # Whose it is is lost, so that no withdrawal would reach it: every copy must lose it now.
            tx.add(_lost_item(tenant, event, at))
            if event["itm"] not in ahead.items:
                said = {"dst": event["dst"], "itm": event["itm"], "why": RESTORED}
                self.ledger.record(tx, tenant, "dataset.reduced", None, **said)
        elif ty == "dataset.reduced" and item is not None and item.state == "live":
            tx.put(replace(bare(item), removed_at=at))
            shrink(tx, item.dataset_id)
        elif ty == "dataset.completed":
            tx.put(replace(dataset, state="stale", cursor="", lease_owner="", lease_until=None))
        elif ty == "dataset.expired":
            # Its key goes with the next sweep.
            tx.discard(DatasetItem, equal={"dataset_id": dataset.dataset_id})
            tx.put(replace(dataset, state="ended", size=0, cursor="", lease_owner="", lease_until=None))

    def _withdraw(self, tx: Transaction, consent_id: str, at: datetime) -> Iterable[str]:
        consent = tx.get(Consent, consent_id)
        if consent is None or consent.withdrawn_at is not None:
            return ()
        keep_until = self.judge.proof_term(consent.regimes, at)
        state = transition(consent.state, ConsentVerb.WITHDRAW) or consent.state
        tx.put(replace(consent, state=state, withdrawn_at=at, withdrawn_via=RESTORED, keep_until=keep_until))
        return ("ncon",)

    @staticmethod
    def _expire(tx: Transaction, event: Mapping[str, Any]) -> Iterable[str]:
        consent = tx.get(Consent, event["con"]) if "con" in event else None
        if consent is not None:
            tx.remove(consent)
            if consent.handle is None and not tx.count(Consent, equal={"key_id": consent.key_id}):
                key = tx.get(SubjectKey, consent.key_id)
                if key is not None:
                    tx.remove(key)
        dsr = tx.get(Dsr, event["dsr"]) if "dsr" in event else None
        if dsr is not None:
            tx.remove(dsr)
        incident = tx.get(Incident, event["inc"]) if "inc" in event else None
        if incident is not None:
            tx.remove(incident)
            key = tx.get(SubjectKey, incident.key_id)
            if key is not None:
                tx.remove(key)
        return ()

    def _job(
        self, tx: Transaction, tenant: str, event: Mapping[str, Any], at: datetime, ahead: _Ahead
    ) -> Iterable[str]:
        ty, job = event["ty"], tx.get(Job, event["job"])
        if job is None:
            if ty == "job.created" and event["job"] not in ahead.jobs:
                self.ledger.record(tx, tenant, "job.cancelled", None, job=event["job"], why=RESTORED)
                return ("njob",)
            return ()
        if ty == "job.deleted":
            tx.remove(job)
        elif ty == "job.dispatched":
            # Whether the backend confirmed since that it forgot, the log does not say: it is asked again.
            tx.put(replace(job, is_forget_owed=True))
        elif ty == "job.stopping" and job.state in {"queued", "running"}:
            tx.put(replace(job, is_cancel_requested=True, updated_at=at))
        elif ty in _ENDS and job.state in {"queued", "running"}:
            # A result that was made since is lost with its row.
            state = "expired" if ty == "job.succeeded" else _ENDS[ty]
            reason = event.get("rc", "JOB_CANCELLED" if state == "cancelled" else "")
            over = replace(job, state=state, stage="done", reason=reason, detail=event.get("det", ""))
            tx.put(replace(over, lease_owner="", lease_until=None, updated_at=at))
            return ("njob",)
        return ()

    def _dsr(self, tx: Transaction, event: Mapping[str, Any], at: datetime, ahead: _Ahead) -> Iterable[str]:
        ty, dsr = event["ty"], tx.get(Dsr, event["dsr"])
        if dsr is None:
            return ("ndsr",) if ty == "dsr.received" and event["dsr"] not in ahead.dsrs else ()
        pack = pinned(tx, dsr, self.packs)
        if ty == "dsr.approved" and dsr.state not in {"running", "fulfilled"}:
            approved = replace(dsr, state="approved", preview={}, updated_at=at)
            tx.put(self._owing(tx, approved, event.get("rcp", ())))
        elif ty == "dsr.propagated":
            tx.put(_propagated(dsr, event, at))
        elif ty == "dsr.extended":
            later = replace(dsr, extended_at=at, extension_reason=event["rc"])
            tx.put(self._due_by(tx, later, event["due"], pack))
        elif ty == "dsr.partrefused":
            parts = dict.fromkeys((*event.get("objs", ()), *event.get("pur", ())), event["rc"])
            tx.put(replace(dsr, refused_parts={**dsr.refused_parts, **parts}))
        elif ty == "dsr.paused":
            tx.put(replace(dsr, clock={**dsr.clock, "asked_at": at.isoformat()}))
        elif ty == "dsr.resumed":
            if "asked_at" in dsr.clock:
                facts = self.judge.controllers.at(tx, dsr.tenant)
                tx.put(self._due_by(tx, resumed(dsr, at, pack, facts), event["due"], pack))
        elif ty == "dsr.verified":
            self._verify(tx, event, dsr, pack)
        elif ty in {"dsr.refused", "dsr.cancelled"}:
            changed = closed(dsr, ty.removeprefix("dsr."), at, pack)
            tx.put(replace(changed, reason_code=event.get("rc", "")))
        elif ty == "dsr.fulfilled":
            self._correct(tx, dsr, at)
            tx.put(replace(closed(dsr, "fulfilled", at, pack), outcome=event["out"]))
        elif ty == "subject.erased":
            over = closed(dsr, "fulfilled", at, pack)
            tx.put(replace(over, step=5, handle=None, counts={}, package_id=""))
        return ()

    def _owing(self, tx: Transaction, dsr: Dsr, ids: Sequence[str]) -> Dsr:
        """Return the request with its recipients; of one that the backup lacks, only the id is known."""
        known = self.judge.controllers.at(tx, dsr.tenant).recipients
        by_id = {recipient_id(dsr.tenant, code): (code, one) for code, one in known.items()}
        lost = {"name": "", "role": Role.THIRD_PARTY.value, "country": "", "channel": ""}
        entries = {
            code: {**one, "id": found, "state": Told.DUE.value}
            for found in ids
            for code, one in (by_id.get(found, (found, lost)),)
        }
        return with_recipients(dsr, entries)

    def _due_by(self, tx: Transaction, dsr: Dsr, due_ms: int, pack: Pack) -> Dsr:
        """Return the request with the last day that the log says it has."""
        zone, _ = seat(pack, self.judge.controllers.at(tx, dsr.tenant))
        due_on = datetime.fromtimestamp(due_ms / 1000, zone).date().isoformat()
        return replace(dsr, due_on=due_on, due_key=due_key(due_on, dsr.dsr_id))

    def _verify(self, tx: Transaction, event: Mapping[str, Any], dsr: Dsr, pack: Pack) -> None:
        if event["out"] == "shown":
            changed = replace(dsr, state="verified", verified_by=event["meth"])
        else:
            failures = dsr.failures + 1
            changed = replace(dsr, state="identity_pending", verified_by="", failures=failures)
        tx.put(self._due_by(tx, changed, event["due"], pack) if "due" in event else changed)

    @staticmethod
    def _correct(tx: Transaction, dsr: Dsr, at: datetime) -> None:
        """Take a correction over again: the backup has the profile as it was, and the wish in the file."""
        subject = tx.get(Subject, dsr.tenant, dsr.handle) if dsr.handle and dsr.sealed_wish else None
        if subject is not None:
            tx.put(replace(subject, key_id=dsr.wish_key, sealed_profile=dsr.sealed_wish, updated_at=at))

    # (4)
    async def _restrict_all(self, tenant: str, origin: str, ahead: _Ahead) -> None:
        """Where the tail restricts or objects for somebody it does not name, take it for everybody's."""
        if not ahead.restricted and not ahead.signals:
            return
        after = ""
        while some := await self.records.transact(
            lambda tx, after=after: self._restrict_some(tx, tenant, origin, ahead, after)  # type: ignore[misc]
        ):
            after = some

    def _restrict_some(self, tx: Transaction, tenant: str, origin: str, ahead: _Ahead, after: str) -> str:
        some = tx.find(
            Subject, equal={"tenant": tenant}, above={"handle": after}, order_by=("handle",), limit=BATCH
        )
        now, number = self.clock.now(), 0
        for subject in some:
            is_changed = False
            if ahead.restricted and subject.state == "active":
                tx.put(replace(subject, state="restricted", updated_at=now))
                is_changed = True
            signal = tx.get(Signal, tenant, subject.handle)
            made = signal or Signal(tenant, subject.handle, gpc=False, limit_spi=False, recorded_at=now)
            wanted = replace(
                made,
                gpc=made.gpc or "gpc" in ahead.signals,
                limit_spi=made.limit_spi or "limit_spi" in ahead.signals,
            )
            if wanted != made:
                tx.put(replace(wanted, recorded_at=now)) if signal else tx.add(wanted)
                is_changed = True
            number += is_changed
        if number:
            mark = tx.find(Restore)[0]
            tx.put(replace(mark, counts=_plus(mark.counts, origin, {"nres": number})))
        return some[-1].handle if some else ""

    async def _suppress_fenced(self) -> None:
        """Erase again whoever the key service has fenced; whoever has data has a key, or is a subject."""
        for tenant, origin in self.ledger.origins.items():
            after = ""
            while handles := await self.records.transact(partial(_subjects, tenant=tenant, after=after)):
                await self._suppress(tenant, origin, handles)
                after = handles[-1]
        after = ""
        while keys := await self.records.transact(partial(_keys, after=after)):
            for key in keys:
                if key.handle is not None and key.tenant in self.ledger.origins:
                    await self._suppress(key.tenant, self.ledger.origins[key.tenant], [key.handle])
            after = keys[-1].key_id

    async def _suppress(self, tenant: str, origin: str, handles: Sequence[str]) -> None:
        for handle in handles:
            if await self.keys.is_fenced(handle):
                await self.records.transact(partial(self._erase, tenant=tenant, origin=origin, handle=handle))

    def _erase(self, tx: Transaction, tenant: str, origin: str, handle: str) -> None:
        now = self.clock.now()
        same = {"tenant": tenant, "handle": handle}
        if tx.get(Subject, tenant, handle) is None and not tx.count(SubjectKey, equal=same):
            return
        plan = erasure.plan(self.judge.laws(tx, tenant, None, INVOKED, now), self.held_classes, now)
        erased = {cls.value for cls in plan.erase}
        epochs = {key.epoch for key in tx.find(SubjectKey, equal=same) if key.cls in erased}
        for job in tx.find(Job, equal=same):
            go_on_asking(tx, job, self.clock)
            if job.state in {"queued", "running"}:
                self.ledger.record(tx, tenant, "job.cancelled", None, job=job.job_id, why="erasure")
        done = self.holdings.erase(tx, tenant, handle, plan)
        mark = tx.find(Restore)[0]
        counts = _plus(mark.counts, origin, {"nsub": 1, "nkey": done["nkey"], "nobj": done["nobj"]})
        # An erasure that was cut before it rolled them left them open.
        counts["epochs"] = sorted(epochs | set(counts.get("epochs", ())))
        tx.put(replace(mark, counts=counts))

    # (5)
    async def _mend_keys(self) -> None:
        mark = await self._mark()
        standing = set(await self.keys.epochs())
        for epoch in map(Epoch.parse, (mark.counts if mark else {}).get("epochs", ())):
            if epoch in standing:
                await self.custody.roll(epoch)
        standing = set(await self.keys.epochs())
        gone: set[str] = set()
        after = ""
        while keys := await self.records.transact(partial(_keys, after=after)):
            gone |= {key.epoch for key in keys} - set(map(str, standing))
            after = keys[-1].key_id
        for text in sorted(gone):
            old = Epoch.parse(text)
            kept: dict[str, tuple[str, bytes]] = {}
            for epoch in sorted(standing):
                if self.survivors is not None and replace(epoch, roll=old.roll) == old:
                    found = await self.survivors.find(str(epoch))
                    kept |= {key_id: (str(epoch), wrapped) for key_id, wrapped in found.items()}
            while await self.records.transact(partial(self._mend_some, epoch=text, kept=kept)):
                pass

    def _mend_some(self, tx: Transaction, epoch: str, kept: Mapping[str, tuple[str, bytes]]) -> int:
        """Re-wrap or drop some keys of a destroyed epoch, and what only they would open."""
        some = tx.find(SubjectKey, equal={"epoch": epoch}, order_by=("key_id",), limit=BATCH)
        for key in some:
            if key.key_id in kept:
                again, wrapped = kept[key.key_id]
                tx.put(replace(key, epoch=again, wrapped=wrapped))
                continue
            tx.remove(key)
            done = {"nkey": 1, "nobj": 0}
            for stored in tx.find(StoredObject, equal={"tenant": key.tenant, "handle": key.handle or ""}):
                is_mine = stored.key_id == key.key_id
                if is_mine and destroy_object(tx, self.ledger, stored, RESTORED) is not None:
                    done["nobj"] += 1
            mark = tx.find(Restore)[0]
            tx.put(replace(mark, counts=_plus(mark.counts, self.ledger.origins.get(key.tenant, ""), done)))
        return len(some)

    # (6)
    async def _remove_bytes(self) -> None:
        after = ""
        while some := await self.records.transact(partial(_destroyed, after=after)):
            for stored in some:
                await self.objects.delete(stored.object_id)
                await self.records.transact(partial(drop_row, object_id=stored.object_id))
            after = some[-1].object_id

    # (7)
    def _finish(self, tx: Transaction) -> list[str]:
        """Say what was done, and return what is lost that a person must enter again."""
        lost: set[str] = set()
        for mark in tx.find(Restore):
            for tenant, origin in self.ledger.origins.items():
                counts = {**dict.fromkeys(COUNTS, 0), **mark.counts.get(origin, {})}
                lost |= {what for name, what in LOST.items() if counts[name]}
                self.ledger.record(
                    tx,
                    tenant,
                    "backup.restored",
                    None,
                    bkp=mark.backup_id,
                    at=int(mark.made_at.timestamp() * 1000),
                    size=mark.logs.get(origin, 0),
                    **counts,
                )
            tx.remove(mark)
        return sorted(lost)


def _head(tx: Transaction, origin: str) -> LogHead:
    return tx.get(LogHead, origin) or LogHead(origin, 0, tree.EMPTY_ROOT, "")


def _append(
    tx: Transaction, origin: str, start: int, lines: Sequence[bytes], hashes: Sequence[bytes]
) -> None:
    """Append leaves that were verified as `hashes`; one that was waiting gets its place."""
    head = _head(tx, origin)
    if head.size != start:
        return  # another process was here
    if [leaf_hash(line) for line in lines] != list(hashes):
        raise AuditUnavailable("the published log has changed", detail="log_changed")
    made = [_leaf(origin, line, start + place) for place, line in enumerate(lines)]
    waiting = {row.event_id: row for row in tx.find(Leaf, among={"event_id": [row.event_id for row in made]})}
    for row in made:
        known = waiting.get(row.event_id)
        if known is not None and (known.seq is not None or known.line != row.line):
            raise AuditUnavailable("the records hold another event of that id", detail="log_changed")
    grown = grow(tx, origin, head, hashes)
    if tx.get(LogHead, origin) is None:
        tx.add(grown)
    else:
        tx.put(grown)
    tx.put(*(replace(waiting[row.event_id], seq=row.seq) for row in made if row.event_id in waiting))
    tx.add(*(row for row in made if row.event_id not in waiting))


def _leaf(origin: str, line: bytes, seq: int) -> Leaf:
    try:
        event = leaf.decode(line)
    except LeafInvalid as error:
        raise AuditUnavailable("a published event is none", detail="log_changed") from error
    at = _EPOCH + timedelta(milliseconds=event["t"])
    return Leaf(event["id"], origin, event["ty"], line, leaf_hash(line), at, seq)


def _events(tx: Transaction, origin: str, start: int) -> list[Mapping[str, Any]]:
    """Return some events of a log from `start` on, none where it ends."""
    end = min(_head(tx, origin).size, start + BATCH)
    return [leaf.decode(row.line) for row in leaves(tx, origin, start, end)] if start < end else []


def _note(ahead: _Ahead, event: Mapping[str, Any], backup_id: str) -> None:
    ty = event["ty"]
    if ty == "object.destroyed":
        ahead.destroyed.add(event["obj"])
    elif ty in _ENDS or ty == "job.deleted":
        ahead.jobs.add(event["job"])
    elif ty in _OVER:
        ahead.dsrs.add(event["dsr"])
    elif ty == "dataset.expired":
        ahead.sets.add(event["dst"])
    elif ty == "dataset.reduced":
        ahead.items.add(event["itm"])
    elif ty == "subject.restricted":
        ahead.restricted = True
    elif ty == "signal.recorded":
        ahead.signals |= set(event["sig"])
    elif ty == "backup.created" and event["bkp"] == backup_id:
        ahead.digest = event["dig"]


def _lost_incident(tenant: str, incident_id: str, at: datetime) -> Incident:
    """Return an entry of which nothing is known but that it was made; it has no words and no key."""
    return Incident(
        incident_id=incident_id,
        tenant=tenant,
        version=0,
        kind="",
        data_categories=(),
        residences=(),
        about_subjects=0,
        about_records=0,
        aware_at=at,
        authority={},
        subjects={},
        regimes=(),
        due_at=None,
        key_id="",
        sealed_text=b"",
        recorded_at=at,
        updated_at=at,
        keep_until=at,
    )


def _lost_item(tenant: str, event: Mapping[str, Any], at: datetime) -> DatasetItem:
    """Return what is known of an item that was added since: that every copy must lose it."""
    return DatasetItem(
        item_id=event["itm"],
        dataset_id=event["dst"],
        tenant=tenant,
        handle=None,
        state="removed",
        job_id="",
        source_object="",
        object_id="",
        consent_id="",
        image_type="",
        sha256="",
        added_at=at,
        removed_at=at,
    )


def _propagated(dsr: Dsr, event: Mapping[str, Any], at: datetime) -> Dsr:
    """Return the request with what is known again of a recipient."""
    entries = {
        code: {**one, "state": event["out"], f"{event['out']}_at": at.isoformat()}
        | ({"ground": event["why"]} if "why" in event else {})
        if one["id"] == event["rcp"]
        else one
        for code, one in dsr.recipients.items()
    }
    return with_recipients(dsr, entries)


def _plus(counts: Mapping[str, Any], origin: str, done: Mapping[str, int]) -> dict[str, Any]:
    standing = counts.get(origin, {})
    return {**counts, origin: {**standing, **{n: standing.get(n, 0) + more for n, more in done.items()}}}


def _subjects(tx: Transaction, tenant: str, after: str) -> list[str]:
    some = tx.find(
        Subject, equal={"tenant": tenant}, above={"handle": after}, order_by=("handle",), limit=BATCH
    )
    return [subject.handle for subject in some]


def _keys(tx: Transaction, after: str) -> list[SubjectKey]:
    return tx.find(SubjectKey, above={"key_id": after}, order_by=("key_id",), limit=BATCH)


def _destroyed(tx: Transaction, after: str) -> list[StoredObject]:
    return tx.find(
        StoredObject,
        equal={"state": "destroyed"},
        above={"object_id": after},
        order_by=("object_id",),
        limit=BATCH,
    )
