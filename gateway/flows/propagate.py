"""Notes that recipients were told of what a request changed, and what they answered; it sends nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.caller import Caller
from gateway.dsrs import laws_of, own, with_recipients
from gateway.errors import MessageInvalid, StateConflict
from gateway.judge import Judge
from gateway.ledger import Ledger, Receipt
from gateway.people import People
from gateway.ports.clock import Clock
from gateway.ports.records import Dsr, Records, Transaction
from policy.pack import Pack
from policy.recipients import Role, Told, after, excuses
from policy.terms import DsrKind

OPEN_FOR = frozenset({"approved", "running", "fulfilled"})
"""The states of a request whose recipients may be told."""

_NOTED = {Told.TOLD: "told_at", Told.ACKNOWLEDGED: "acknowledged_at", Told.EXCUSED: "excused_at"}


@dataclass(frozen=True, slots=True)
class Propagation:
    """Keeps of each request which recipients were told (GDPR Art. 19; 11 CCR 7022)."""

    records: Records
    people: People
    judge: Judge
    ledger: Ledger
    clock: Clock

    async def note(
        self, caller: Caller, dsr_id: str, code: str, outcome: str, ground: str = ""
    ) -> tuple[Dsr, Receipt | None]:
        """Note that a recipient was told, has acknowledged, or is excused; again, it changes nothing.

        `ground` is why it is not told: one that every law which asks for it knows.

        Raises:
            NotFound: There is no such request in the caller's tenant.
            MessageInvalid: The request names no such recipient, or the ground is none.
            StateConflict: The request is not approved, or the recipient is not so far (detail: the state).
        """
        dsr = await self.records.transact(lambda tx: own(tx, caller, dsr_id))
        laws = await laws_of(dsr, self.records, self.people, self.judge, self.clock)

        def commit(tx: Transaction) -> tuple[Dsr, Receipt | None]:
            dsr = own(tx, caller, dsr_id)
            entry = _entry(dsr, code)
            if entry["state"] == outcome:
                return dsr, None
            if dsr.state not in OPEN_FOR:
                raise StateConflict(detail=dsr.state)
            changed = _noted(entry, outcome, self.clock.now())
            if outcome == Told.EXCUSED:
                _check_ground(laws, dsr, entry, ground)
                changed["ground"] = ground
            noted = with_recipients(dsr, {**dsr.recipients, code: changed})
            tx.put(noted)
            receipt = self.ledger.record(
                tx,
                caller.tenant,
                "dsr.propagated",
                caller,
                dsr=dsr_id,
                rcp=entry["id"],
                out=outcome,
                why=ground or None,
            )
            return noted, receipt

        if ground and outcome != Told.EXCUSED:
            raise MessageInvalid("told for no ground", violations=(("ground", "ground.not_excused"),))
        return await self.records.transact(commit)


def _entry(dsr: Dsr, code: str) -> Mapping[str, Any]:
    if code not in dsr.recipients:
        raise MessageInvalid(
            f"the request names these: {', '.join(sorted(dsr.recipients))}",
            violations=(("recipient", "recipient.unknown"),),
        )
    found: Mapping[str, Any] = dsr.recipients[code]
    return found


def _noted(entry: Mapping[str, Any], outcome: str, now: datetime) -> dict[str, Any]:
    state = after(entry["state"], outcome)
    if state is None:
        raise StateConflict(detail=entry["state"])
    return {**entry, "state": state.value, _NOTED[state]: now.isoformat()}


def _check_ground(laws: tuple[Pack, ...], dsr: Dsr, entry: Mapping[str, Any], ground: str) -> None:
    known = excuses(laws, DsrKind(dsr.kind), Role(entry["role"]))
    if ground not in known:
        raise MessageInvalid(
            f"it may stay untold for these grounds: {', '.join(known)}",
            violations=(("ground", "ground.unknown"),),
        )
