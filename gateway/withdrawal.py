"""Ends consents inside a transaction, and with them everything that rests on them; notes opt-outs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.caller import Caller
from gateway.judge import Judge
from gateway.ledger import Ledger, Receipt
from gateway.objects import ask_to_stop, destroy_object, end_queued
from gateway.ports.records import Consent, Job, Signal, StoredObject, Transaction
from policy.consent_state import STANDING, ConsentVerb, state_at, transition
from policy.terms import Purpose

KEPT_FOR = {"original": Purpose.RETAIN_ORIGINAL.value, "output": Purpose.RETAIN_OUTPUT.value}
"""The purpose for which a picture may be kept when the one it was made for has ended."""


@dataclass(slots=True)
class Ended:
    """What came of it: the consents as they are now, and what whoever called has to see to.

    Attributes:
        receipt: The last event; None where nothing stood any more.
        doomed: Objects without a key, whose bytes are to be removed.
        running: Jobs that were told to stop, and have not yet.
    """

    consents: list[Consent] = field(default_factory=list)
    receipt: Receipt | None = None
    doomed: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)


def of_purpose(consent: Consent) -> dict[str, str | None]:
    """Return what the rows of the same person and purpose have in common."""
    return {"tenant": consent.tenant, "handle": consent.handle, "purpose": consent.purpose}


def end_consents(
    tx: Transaction,
    judge: Judge,
    consents: Iterable[Consent],
    verb: ConsentVerb,
    by: Caller | None,
    channel: str = "",
) -> Ended:
    """Withdraw the consents, or find them invalid, and stop and destroy what rests on them.

    Waiting jobs end, running ones are told to stop; what was kept for the purpose is destroyed
    unless another consent asks to keep it.  What has ended so before is left as it is; and where
    another consent for the same purpose stands, what goes on goes on by that one.

    Rule:
        GDPR Art. 7(3), 17(1)(b).
    """
    ended = Ended()
    purposes: dict[tuple[str, str], Consent] = {}
    for consent in consents:
        standing = _end(tx, judge, consent, verb, by, channel, ended)
        ended.consents.append(standing)
        if standing is not consent and consent.handle is not None:
            purposes[consent.handle, consent.purpose] = standing
    now = judge.ledger.clock.now()
    for consent in purposes.values():
        rows = tx.find(Consent, equal=of_purpose(consent))
        if not any(state_at(row.state, row.expires_at, now) in STANDING for row in rows):
            _stop(tx, judge, consent, by, ended)
    return ended


def note_signal(
    tx: Transaction,
    ledger: Ledger,
    by: Caller | None,
    tenant: str,
    handle: str,
    *,
    gpc: bool,
    limit_spi: bool,
) -> Receipt:
    """Note which opt-out signals a subject has set, in place of those before (11 CCR 7025, 7027)."""
    signal = Signal(tenant, handle, gpc, limit_spi, ledger.clock.now())
    if tx.get(Signal, tenant, handle) is None:
        tx.add(signal)
    else:
        tx.put(signal)
    codes = [name for name, on in (("gpc", gpc), ("limit_spi", limit_spi)) if on]
    return ledger.record(tx, tenant, "signal.recorded", by, sig=codes)


def _end(
    tx: Transaction,
    judge: Judge,
    consent: Consent,
    verb: ConsentVerb,
    by: Caller | None,
    channel: str,
    ended: Ended,
) -> Consent:
    state = transition(consent.state, verb)
    if state is None:
        return consent
    now = judge.ledger.clock.now()
    changed = replace(consent, state=state, keep_until=judge.proof_term(consent.regimes, now))
    said: dict[str, Any] = {"con": consent.consent_id, "pur": consent.purpose}
    if verb is ConsentVerb.WITHDRAW:
        changed = replace(changed, withdrawn_at=now, withdrawn_via=channel)
        ended.receipt = judge.ledger.record(tx, consent.tenant, "consent.withdrawn", by, **said, meth="api")
    else:
        ended.receipt = judge.ledger.record(tx, consent.tenant, "consent.invalidated", by, **said)
    tx.put(changed)
    return changed


def _stop(tx: Transaction, judge: Judge, consent: Consent, by: Caller | None, ended: Ended) -> None:
    ledger, clock = judge.ledger, judge.ledger.clock
    same = of_purpose(consent)
    for job in tx.find(Job, equal=same):
        if job.state == "queued":
            end_queued(tx, ledger, job, clock, "withdrawn", by)
            ended.doomed.append(job.input_object)
        else:
            ask_to_stop(tx, ledger, job, clock, "consent_withdrawn", by)
    running = tx.find(Job, equal={**same, "state": "running"})
    ended.running += [job.job_id for job in running]
    # A worker has these open: it destroys them when it stops.
    open_still = {job.input_object for job in running}
    owned = {"tenant": consent.tenant, "handle": consent.handle}
    for stored in tx.find(StoredObject, equal=owned):
        if stored.basis != consent.purpose:
            continue
        if stored.object_id in open_still or _is_kept(tx, judge, stored, by):
            continue
        if destroy_object(tx, ledger, stored, "withdrawn", by):
            ended.doomed.append(stored.object_id)


def _is_kept(tx: Transaction, judge: Judge, stored: StoredObject, by: Caller | None) -> bool:
    """Keep an object for which another basis is recorded: a standing consent to keep such a thing.

    From here on it rests on that one, is given out by it, and goes with it.  A copy in a training
    set is another thing than the result it was made of: to keep that is no reason to train on it.
    """
    if stored.purpose == Purpose.TRAIN.value:
        return False
    purpose = KEPT_FOR.get(stored.kind)
    if stored.state != "live" or purpose in {None, stored.basis}:
        return False
    now = judge.ledger.clock.now()
    others = tx.find(
        Consent,
        equal={"tenant": stored.tenant, "handle": stored.handle, "purpose": purpose},
        order_by=("-given_at", "-consent_id"),
    )
    basis = next((o for o in others if state_at(o.state, o.expires_at, now) in STANDING), None)
    if basis is None or purpose is None:
        return False
    ends = min(stored.expires_at, basis.expires_at or stored.expires_at)
    tx.put(replace(stored, kept_for=purpose, expires_at=ends))
    judge.ledger.record(
        tx,
        stored.tenant,
        "object.kept",
        by,
        obj=stored.object_id,
        cat=stored.kind,
        pur=purpose,
        con=basis.consent_id,
    )
    return True
