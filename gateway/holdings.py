"""Every place where personal data rests, and how it lets go.

A record kind with a `handle` belongs to exactly one holding; a test demands it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from gateway.datasets import remove_copy, remove_item
from gateway.holds import end_hold, standing
from gateway.ledger import Ledger
from gateway.ports.records import (
    STANDING,
    Consent,
    Dataset,
    DatasetItem,
    Dsr,
    Hold,
    Job,
    Record,
    SealedPayload,
    Signal,
    StoredObject,
    Subject,
    SubjectKey,
    Transaction,
)
from gateway.vault.box import OVERHEAD_BYTES
from gateway.vault.payload import BUCKET
from policy.erasure import ErasurePlan
from policy.terms import DataKind, KeyClass, Purpose


@dataclass(frozen=True, slots=True)
class Held:
    """One thing that is held of a subject: what, of which class, what for, until when, why."""

    name: str
    cls: str
    kind: str
    purpose: str
    size_bytes: int
    expires_at: datetime | None
    rule: str


class Holding(Protocol):
    """One capability's personal data.

    `erase` runs inside a transaction, is idempotent, and returns counts by name;
    what it leaves (kept classes) no longer carries the subject's handle.
    """

    @property
    def kinds(self) -> tuple[type[Record], ...]:
        """The record kinds it owns."""

    def locate(self, tx: Transaction, tenant: str, handle: str) -> list[Held]:
        """List what is held of the subject."""

    def erase(self, tx: Transaction, tenant: str, handle: str, plan: ErasurePlan) -> Mapping[str, int]:
        """Let go of what the plan erases, and unlink what it keeps."""


def _of(tenant: str, handle: str) -> dict[str, str]:
    return {"tenant": tenant, "handle": handle}


def doomed_keys(tx: Transaction, tenant: str, handle: str, plan: ErasurePlan) -> list[SubjectKey]:
    """Return the subject keys that an erasure destroys: of erased classes, and those that objects rest under.

    No object survives an erasure, whatever its class: a package of the class `dsr` opened with a kept
    key, by the wrapped key that an old backup still has, would be one that does.
    """
    erased = {cls.value for cls in plan.erase}
    under = {stored.key_id for stored in tx.find(StoredObject, equal=_of(tenant, handle))}
    keys = tx.find(SubjectKey, equal=_of(tenant, handle))
    return [key for key in keys if key.cls in erased or key.key_id in under]


@dataclass(frozen=True, slots=True)
class JobHolding:
    """Jobs: none survives, so no new copy can be made."""

    kinds: tuple[type[Record], ...] = (Job,)

    def locate(self, tx: Transaction, tenant: str, handle: str) -> list[Held]:
        """List the jobs."""
        return [
            Held(f"jobs/{j.job_id}", "content", "job", j.purpose, 0, j.expires_at, "GDPR Art. 6(1)(b)")
            for j in tx.find(Job, equal=_of(tenant, handle), order_by=("created_at",))
        ]

    def erase(self, tx: Transaction, tenant: str, handle: str, plan: ErasurePlan) -> Mapping[str, int]:  # noqa: ARG002 - jobs go under every plan
        """Remove the jobs."""
        jobs = tx.find(Job, equal=_of(tenant, handle))
        tx.remove(*jobs)
        return {"njob": len(jobs)}


_TERM = "GDPR Art. 5(1)(e)"


@dataclass(frozen=True, slots=True)
class DatasetHolding:
    """Items of training sets: who has a copy is told which to remove.  Their bytes are objects."""

    ledger: Ledger
    kinds: tuple[type[Record], ...] = (DatasetItem,)

    def locate(self, tx: Transaction, tenant: str, handle: str) -> list[Held]:
        """List the items, each by the set it is in."""
        items = tx.find(DatasetItem, equal=_of(tenant, handle), order_by=("added_at", "item_id"))
        sets = {dataset.dataset_id: dataset for dataset in _sets(tx, items)}
        return [
            Held(
                f"datasets/{item.dataset_id}/items/{item.item_id}",
                "content",
                "dataset_item",
                "train",
                0,
                sets[item.dataset_id].expires_at if item.dataset_id in sets else None,
                "GDPR Art. 6(1)(a), 9(2)(a)",
            )
            for item in items
        ]

    def erase(self, tx: Transaction, tenant: str, handle: str, plan: ErasurePlan) -> Mapping[str, int]:  # noqa: ARG002 - no plan keeps content
        """Remove the items from their sets, which are stale from then on."""
        for item in tx.find(DatasetItem, equal=_of(tenant, handle)):
            remove_item(tx, self.ledger, item, "erasure")
        return {}


def _sets(tx: Transaction, items: Sequence[DatasetItem]) -> list[Dataset]:
    names = sorted({item.dataset_id for item in items})
    return tx.find(Dataset, among={"dataset_id": names}) if names else []


@dataclass(frozen=True, slots=True)
class VaultHolding:
    """Objects and subject keys: keys die in this transaction, bytes follow."""

    ledger: Ledger
    kinds: tuple[type[Record], ...] = (StoredObject, SubjectKey)

    def locate(self, tx: Transaction, tenant: str, handle: str) -> list[Held]:
        """List the sealed objects, also those that a legal hold keeps, and the prompts with them."""
        rows = tx.find(
            StoredObject,
            equal=_of(tenant, handle),
            among={"state": STANDING},
            order_by=("created_at",),
        )
        holds = standing(tx, tenant, handle, self.ledger.clock.now())
        found = []
        for stored in rows:
            held = self._held(stored, [hold for hold in holds if stored.cls in hold.classes])
            found.append(held)
            if stored.sealed_prompt:
                # It rests in the picture's row and ends with it.
                size = len(stored.sealed_prompt) - OVERHEAD_BYTES
                found.append(
                    replace(
                        held, name=prompt_name(stored.object_id), kind=DataKind.PROMPT.value, size_bytes=size
                    )
                )
        return found

    @staticmethod
    def _held(stored: StoredObject, holds: list[Hold]) -> Held:
        # A hold keeps nothing that is in memory only.
        keeping = [] if stored.state == "transient" else holds
        until = [hold.until for hold in keeping]
        rule = "GDPR Art. 15(3)" if stored.cls is KeyClass.DSR else _TERM
        return Held(
            object_name(stored.object_id),
            stored.cls.value,
            stored.kind,
            stored.basis,
            stored.size_bytes,
            None if None in until else max([stored.expires_at, *(end for end in until if end)]),
            keeping[0].rule if keeping else rule,
        )

    def erase(self, tx: Transaction, tenant: str, handle: str, plan: ErasurePlan) -> Mapping[str, int]:
        """Destroy the objects' keys and the subject keys that go with them; unlink the kept keys."""
        objects = tx.find(StoredObject, equal=_of(tenant, handle))
        doomed = doomed_keys(tx, tenant, handle, plan)
        destroyed = 0
        for key in tx.find(SubjectKey, equal=_of(tenant, handle)):
            if key in doomed:
                tx.remove(key)
                destroyed += 1
            else:
                tx.put(replace(key, handle=None))
        return {"nobj": let_go(tx, self.ledger, objects), "nkey": destroyed}


def let_go(tx: Transaction, ledger: Ledger, objects: Sequence[StoredObject]) -> int:
    """Destroy the keys of an erased subject's objects, with a leaf for each that stood; return how many did.

    The rows wait for their bytes to go; whose they were is not said any more.
    """
    for stored in objects:
        tx.put(replace(stored, handle="", wrapped_dek=b"", sealed_prompt=b"", state="destroyed"))
    live = [stored for stored in objects if stored.state in STANDING]
    for stored in live:
        if stored.purpose == Purpose.TRAIN.value:
            remove_copy(tx, ledger, stored.object_id, "erasure")
        # All leaves last: what takes long must not make them old before the commit.
        if stored.state == "held":  # by a hold that has ended, or the erasure would not be here
            ledger.record(tx, stored.tenant, "object.freed", None, obj=stored.object_id, cat=stored.kind)
        ledger.record(
            tx, stored.tenant, "object.destroyed", None, obj=stored.object_id, cat=stored.kind, why="erasure"
        )
    return len(live)


def object_name(object_id: str) -> str:
    """Return the name of an object."""
    return f"objects/{object_id}"


def prompt_name(object_id: str) -> str:
    """Return the name of the prompt that came with a picture."""
    return f"{object_name(object_id)}/prompt"


SIGNAL_RULE = "Cal. Civ. Code 1798.135(c)(4)"
"""Why a signal is kept: who has opted out is not to be asked again."""


@dataclass(frozen=True, slots=True)
class ConsentHolding:
    """Consents and signals.  Proof of consent may outlive the subject's handle, by the rule in the plan."""

    kinds: tuple[type[Record], ...] = (Consent, Signal)

    def locate(self, tx: Transaction, tenant: str, handle: str) -> list[Held]:
        """List the consents and the signals."""
        signals = tx.find(Signal, equal=_of(tenant, handle))
        return [Held("signals", "profile", "signal", "", 0, None, SIGNAL_RULE) for _ in signals] + [
            Held(
                f"consents/{c.consent_id}",
                "evidence",
                "consent",
                c.purpose,
                0,
                c.keep_until,
                "GDPR Art. 7(1)",
            )
            for c in tx.find(Consent, equal=_of(tenant, handle), order_by=("given_at",))
        ]

    def erase(self, tx: Transaction, tenant: str, handle: str, plan: ErasurePlan) -> Mapping[str, int]:
        """Unlink the consents where evidence is kept, else remove them; signals go."""
        consents = tx.find(Consent, equal=_of(tenant, handle))
        kept = next((k for k in plan.keep if k.cls is KeyClass.EVIDENCE), None)
        for consent in consents:
            if kept is None:
                tx.remove(consent)
            else:
                tx.put(replace(consent, handle=None, keep_until=kept.until))
        tx.remove(*tx.find(Signal, equal=_of(tenant, handle)))
        return {"ncon": len(consents)}


@dataclass(frozen=True, slots=True)
class SubjectHolding:
    """The subject's own row and sealed profile."""

    kinds: tuple[type[Record], ...] = (Subject,)

    def locate(self, tx: Transaction, tenant: str, handle: str) -> list[Held]:
        """List the profile."""
        row = tx.get(Subject, tenant, handle)
        if row is None:
            return []
        return [Held("profile", "profile", "profile", "", len(row.sealed_profile), None, "GDPR Art. 6(1)(b)")]

    def erase(self, tx: Transaction, tenant: str, handle: str, plan: ErasurePlan) -> Mapping[str, int]:  # noqa: ARG002 - the row goes under every plan
        """Remove the row."""
        row = tx.get(Subject, tenant, handle)
        if row is not None:
            tx.remove(row)
        return {}


@dataclass(frozen=True, slots=True)
class DsrHolding:
    """The files of data-subject requests: kept under their own random id, without the handle."""

    kinds: tuple[type[Record], ...] = (Dsr,)

    def locate(self, tx: Transaction, tenant: str, handle: str) -> list[Held]:
        """List the requests."""
        return [
            Held(f"dsrs/{d.dsr_id}", "dsr", d.kind, "", 0, d.keep_until, "GDPR Art. 5(2)")
            for d in tx.find(Dsr, equal=_of(tenant, handle), order_by=("received_at",))
        ]

    def erase(self, tx: Transaction, tenant: str, handle: str, plan: ErasurePlan) -> Mapping[str, int]:
        """Unlink the requests."""
        kept = next((k for k in plan.keep if k.cls is KeyClass.DSR), None)
        for dsr in tx.find(Dsr, equal=_of(tenant, handle)):
            bare = replace(dsr, preview={}, wish_key="", sealed_wish=b"", package_id="")
            tx.put(replace(bare, handle=None, keep_until=kept.until if kept else None))
        return {}


@dataclass(frozen=True, slots=True)
class HoldHolding:
    """Legal holds: none stands when a subject is erased, so only ended ones are left to go."""

    ledger: Ledger
    kinds: tuple[type[Record], ...] = (Hold,)

    def locate(self, tx: Transaction, tenant: str, handle: str) -> list[Held]:
        """List the holds."""
        return [
            Held(f"holds/{hold.hold_id}", "dsr", "hold", "", 0, hold.until, hold.rule)
            for hold in tx.find(Hold, equal=_of(tenant, handle), order_by=("placed_at",))
        ]

    def erase(self, tx: Transaction, tenant: str, handle: str, plan: ErasurePlan) -> Mapping[str, int]:  # noqa: ARG002 - likewise
        """Remove the holds, and say in the log that they are over."""
        for hold in tx.find(Hold, equal=_of(tenant, handle)):
            end_hold(tx, self.ledger, hold, "ended")
        return {}


@dataclass(frozen=True, slots=True)
class PayloadHolding:
    """What audit events fix about the subject: the log stays, what it says of anyone goes."""

    ledger: Ledger
    kinds: tuple[type[Record], ...] = (SealedPayload,)

    def locate(self, tx: Transaction, tenant: str, handle: str) -> list[Held]:  # noqa: ARG002 - a handle is of one tenant
        """List how much the log says of the subject, as one thing: it may be thousands of events."""
        number = tx.count(SealedPayload, equal={"handle": handle})
        if not number:
            return []
        return [Held("audit-payloads", "audit", "payload", "", number * BUCKET, None, "GDPR Art. 5(2)")]

    def erase(self, tx: Transaction, tenant: str, handle: str, plan: ErasurePlan) -> Mapping[str, int]:
        """Empty the payloads, and say so in the log, in one statement however many there are."""
        mine = {"handle": handle}
        if any(kept.cls is KeyClass.AUDIT for kept in plan.keep):
            tx.change(SealedPayload, equal=mine, to={"handle": None})
            return {}
        number = tx.count(SealedPayload, equal=mine)
        if number:
            by = self.ledger.record(tx, tenant, "payload.erased", None, nseal=number)
            gone = {"handle": None, "blob": b"", "erased_by": by.event_id}
            tx.change(SealedPayload, equal=mine, to=gone)
        return {"nseal": number}


@dataclass(frozen=True, slots=True)
class Holdings:
    """All holdings, in the order in which an erasure asks them; compose fixes it."""

    each: Sequence[Holding]

    def locate(self, tx: Transaction, tenant: str, handle: str) -> list[Held]:
        """List everything that is held of a subject."""
        return [held for holding in self.each for held in holding.locate(tx, tenant, handle)]

    def erase(self, tx: Transaction, tenant: str, handle: str, plan: ErasurePlan) -> dict[str, int]:
        """Let every holding erase, and add their counts up."""
        counts: dict[str, int] = {}
        for holding in self.each:
            for name, number in holding.erase(tx, tenant, handle, plan).items():
                counts[name] = counts.get(name, 0) + number
        return counts


def in_order(ledger: Ledger) -> Holdings:
    """Return the holdings in the order of an erasure: no new copies, then keys, then rows."""
    return Holdings(
        (
            JobHolding(),
            DatasetHolding(ledger),
            VaultHolding(ledger),
            ConsentHolding(),
            SubjectHolding(),
            DsrHolding(),
            HoldHolding(ledger),
            PayloadHolding(ledger),
        )
    )
