"""What several flows do to objects and say of backends, in one place."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from gateway.caller import Caller
from gateway.datasets import remove_copy
from gateway.debts import OBJECT, UNCLAIMED
from gateway.deidentify import Scrubbed
from gateway.deidentify.deidentified import Deidentified
from gateway.errors import LetheError
from gateway.holds import standing
from gateway.ledger import Ledger, Receipt
from gateway.ports.clock import Clock
from gateway.ports.objects import ObjectStore
from gateway.ports.records import STANDING, Debt, Hold, Job, Records, StoredObject, Transaction
from gateway.vault.safe import Draft
from policy.terms import Purpose


def destroy_object(
    tx: Transaction, ledger: Ledger, stored: StoredObject, why: str, by: Caller | None = None
) -> Receipt | None:
    """Destroy an object's key inside `tx` and log it; return None where it was destroyed before, or is held.

    From the commit on nothing opens the bytes; whoever called removes them next,
    and the sweeper does if that fails.  A legal hold stops that: the object is kept
    and not used any more, until the sweeper finds no hold on it.  What is in memory only
    no hold can keep; its row goes at once, for there are no bytes to wait for.
    """
    if stored.state not in STANDING:
        return None
    if stored.purpose == Purpose.TRAIN.value:
        remove_copy(tx, ledger, stored.object_id, why, by)
    said: dict[str, Any] = {"obj": stored.object_id, "cat": stored.kind}
    if stored.state == "transient":
        tx.remove(stored)
        return ledger.record(tx, stored.tenant, "object.destroyed", by, **said, why=why)
    holds = standing(tx, stored.tenant, stored.handle, ledger.clock.now(), stored.cls)
    if holds:
        if stored.state == "live":
            tx.put(replace(stored, state="held"))
            ledger.record(tx, stored.tenant, "object.held", by, **said, hld=holds[0].hold_id, why=why)
        return None
    if stored.state == "held":
        ledger.record(tx, stored.tenant, "object.freed", by, **said)
    tx.put(replace(stored, wrapped_dek=b"", sealed_prompt=b"", state="destroyed"))
    return ledger.record(tx, stored.tenant, "object.destroyed", by, **said, why=why)


def destroy_objects(tx: Transaction, ledger: Ledger, many: Sequence[StoredObject], why: str) -> None:
    """Destroy live objects' keys inside `tx`, as `destroy_object` would one by one, in few statements."""
    with_holds = {hold.handle for hold in tx.find(Hold, among={"handle": sorted({o.handle for o in many})})}
    plain: list[StoredObject] = []
    others: list[StoredObject] = []
    for stored in many:
        is_copy = stored.purpose == Purpose.TRAIN.value
        is_plain = stored.state == "live" and stored.handle not in with_holds and not is_copy
        (plain if is_plain else others).append(stored)
    tx.put(*(replace(stored, wrapped_dek=b"", sealed_prompt=b"", state="destroyed") for stored in plain))
    for stored in plain:
        ledger.record(
            tx, stored.tenant, "object.destroyed", None, obj=stored.object_id, cat=stored.kind, why=why
        )
    for stored in others:
        destroy_object(tx, ledger, stored, why)


def log_object(
    tx: Transaction, ledger: Ledger, by: Caller | None, stored: StoredObject, clean: Scrubbed | Deidentified
) -> None:
    """Log how a picture was scrubbed, how many bytes of what went, and that it is kept until its term.

    Where its faces were seen to, also how many there were, how many heads are masked, and how like the
    output a recogniser holds the input to be.
    """
    picture, said = (clean, _METADATA) if isinstance(clean, Scrubbed) else (clean.picture, _faces(clean))
    ledger.record(
        tx,
        stored.tenant,
        "image.scrubbed",
        by,
        obj=stored.object_id,
        mode=picture.mode,
        meas=dict(picture.dropped),
        **said,
    )
    ledger.record(
        tx,
        stored.tenant,
        "object.transient" if stored.state == "transient" else "object.sealed",
        by,
        obj=stored.object_id,
        cat=stored.kind,
        exp=int(stored.expires_at.timestamp() * 1000),
        pur=stored.purpose,
    )


_METADATA: Mapping[str, Any] = {"kind": "metadata"}


def _faces(clean: Deidentified) -> Mapping[str, Any]:
    return {"kind": clean.profile, "nface": clean.faces, "nhead": clean.masked, "sim": clean.similarity}


def log_prompt(
    tx: Transaction, ledger: Ledger, by: Caller | None, stored: StoredObject, found: Mapping[str, int]
) -> None:
    """Log that the prompt that came with a picture was scrubbed, and how often what was found in it."""
    ledger.record(
        tx, stored.tenant, "prompt.scrubbed", by, obj=stored.object_id, job=stored.job_id, ents=dict(found)
    )


def transient(draft: Draft, object_id: str, now: datetime, at_most: timedelta) -> StoredObject:
    """Return the record of a picture that is not sealed, because it will never be stored."""
    return replace(
        draft.bare(object_id, now), state="transient", expires_at=min(draft.expires_at, now + at_most)
    )


async def discard_unkept(records: Records, objects: ObjectStore, stored: StoredObject) -> None:
    """Remove an object's bytes where its record was surely not kept.

    A lost reply may have persisted the record; in doubt the sweeper decides later.
    """
    with contextlib.suppress(LetheError):
        if await records.transact(lambda tx: tx.get(StoredObject, stored.object_id)) is None:
            await objects.delete(stored.object_id)


def drop_row(tx: Transaction, object_id: str) -> None:
    """Remove the record of a destroyed object whose bytes are gone, and what was owed for them."""
    stored = tx.get(StoredObject, object_id)
    if stored is not None and stored.state == "destroyed":
        tx.remove(stored)
    owed = (tx.get(Debt, kind, object_id) for kind in (OBJECT, UNCLAIMED))
    tx.remove(*(debt for debt in owed if debt is not None))


def backend_id(name: str) -> str:
    """Return the id under which a backend appears in the log: 16 bytes of its name's digest, in hex."""
    return hashlib.sha256(b"lethe.dev/backend/v1\0" + name.encode()).hexdigest()[:32]


def ask_to_stop(
    tx: Transaction, ledger: Ledger, job: Job, clock: Clock, why: str, by: Caller | None
) -> Receipt | None:
    """Ask for a job that has not ended to be stopped; return None where it has, or was asked before."""
    if job.state not in {"queued", "running"} or job.is_cancel_requested:
        return None
    tx.put(replace(job, is_cancel_requested=True, detail=why, updated_at=clock.now()))
    return ledger.record(tx, job.tenant, "job.stopping", by, job=job.job_id)


def end_queued(
    tx: Transaction, ledger: Ledger, job: Job, clock: Clock, why: str, by: Caller | None
) -> tuple[Job, Receipt]:
    """End a job that waits, and destroy its original's key."""
    ended = replace(job, state="cancelled", stage="done", reason="JOB_CANCELLED", updated_at=clock.now())
    tx.put(ended)
    stored = tx.get(StoredObject, job.input_object)
    if stored is not None:
        destroy_object(tx, ledger, stored, why, by)
    return ended, ledger.record(tx, job.tenant, "job.cancelled", by, job=job.job_id, why=why)


async def reap(records: Records, objects: ObjectStore, object_id: str) -> None:
    """Remove the bytes and the row of a destroyed object; what fails is left to the sweeper."""
    with contextlib.suppress(LetheError):
        stored = await records.transact(lambda tx: tx.get(StoredObject, object_id))
        if stored is not None and stored.state != "destroyed":
            return  # held, or not destroyed after all
        await objects.delete(object_id)
        await records.transact(lambda tx: drop_row(tx, object_id))
