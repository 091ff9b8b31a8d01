"""What legal holds stop, in one place: whoever destroys asks here, inside the transaction that would.

A hold reaches the objects, profile, consents and requests of its subject.  It does not
reach what audit events say of anyone: their keys die by the month, and the entries
themselves name nobody.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime

from gateway.caller import Caller
from gateway.errors import HoldActive
from gateway.ledger import Ledger, Receipt
from gateway.ports.records import Dsr, Hold, Transaction
from policy.pack import Pack
from policy.terms import DsrKind, KeyClass

REACHED = (KeyClass.CONTENT, KeyClass.PROFILE, KeyClass.EVIDENCE, KeyClass.DSR)
"""The key classes that a hold may cover."""


def standing(
    tx: Transaction, tenant: str, handle: str | None, at: datetime, cls: KeyClass | None = None
) -> list[Hold]:
    """Return the holds that stand on a subject at that instant, on one class where `cls` is given."""
    if not handle:
        return []
    rows = tx.find(Hold, equal={"tenant": tenant, "handle": handle}, order_by=("placed_at", "hold_id"))
    return [
        row for row in rows if (row.until is None or row.until > at) and (cls is None or cls in row.classes)
    ]


def refuse_held(
    tx: Transaction, tenant: str, handle: str | None, at: datetime, cls: KeyClass | None = None
) -> None:
    """Return if no hold stands in the way.

    Raises:
        HoldActive: One does; it is named in the metadata, by its id and rule.
    """
    holds = standing(tx, tenant, handle, at, cls)
    if holds:
        raise HoldActive(hold=f"holds/{holds[0].hold_id}", rule=holds[0].rule)


def end_hold(
    tx: Transaction,
    ledger: Ledger,
    hold: Hold,
    why: str,
    by: Caller | None = None,
    reason_code: str | None = None,
) -> Receipt:
    """Remove a hold and log it; what it kept is found by the sweeper."""
    tx.remove(hold)
    return ledger.record(tx, hold.tenant, "hold.released", by, hld=hold.hold_id, why=why, rc=reason_code)


def place_for_request(
    tx: Transaction, ledger: Ledger, dsr: Dsr, pack: Pack, random: Callable[[int], bytes] = os.urandom
) -> Hold | None:
    """Place the hold that the request's regime asks for while it is open; None where it asks for none.

    Call it in the transaction that receives the request, after the event that says so.
    What is asked for must not go by the end of its term before it was answered.

    Rule:
        PIPEDA s. 8(8).
    """
    rule = pack.rules.rights[DsrKind(dsr.kind)].hold
    if rule is None or dsr.handle is None:
        return None
    hold = Hold(
        hold_id=random(16).hex(),
        tenant=dsr.tenant,
        handle=dsr.handle,
        rule="; ".join(pack.cited(rule.cite)),
        classes=tuple(cls.value for cls in REACHED if cls in rule.classes),
        until=None,
        placed_at=ledger.clock.now(),
        dsr_id=dsr.dsr_id,
    )
    tx.add(hold)
    ledger.record(
        tx,
        hold.tenant,
        "hold.placed",
        None,
        hld=hold.hold_id,
        cls=list(hold.classes),
        rule=hold.rule,
        dsr=dsr.dsr_id,
    )
    return hold


def end_for_request(tx: Transaction, ledger: Ledger, dsr: Dsr) -> None:
    """End the holds that the request placed: it was answered in full, or taken back.

    Not when it is refused: then recourse is open, and a person releases them.
    """
    for hold in tx.find(Hold, equal={"tenant": dsr.tenant, "handle": dsr.handle, "dsr_id": dsr.dsr_id}):
        end_hold(tx, ledger, hold, "ended")
