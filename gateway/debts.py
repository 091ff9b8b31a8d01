"""What is owed and could not be done: tried again after ever longer pauses, and at last set aside.

A thing that fails again and again must neither stand in the way of others nor be forgotten in
silence.  Whoever does the work asks `resting` what to leave alone for now, and says
`failed` or `paid` of each thing it tried.  A store that fails as a whole is no debt of
one thing: whoever does the work tells the two apart.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import timedelta

from gateway.ports.clock import Clock
from gateway.ports.records import Debt, Job, Records, Transaction

OBJECT, UNCLAIMED, EPOCH, FORGET = "object", "unclaimed", "epoch", "forget"
"""Bytes of a destroyed object; bytes that no record claims; an epoch key to destroy; a backend to forget."""

KINDS = tuple(sorted((OBJECT, UNCLAIMED, EPOCH, FORGET)))

FIRST_PAUSE, LONGEST_PAUSE = timedelta(minutes=1), timedelta(hours=1)

OnSetAside = Callable[[Transaction, Debt], object]
"""What belongs into the transaction in which a debt is set aside: its leaf."""


@dataclass(frozen=True, slots=True)
class Debts:
    """The book of what is owed.  `alarm` hears the kind of each debt that is set aside."""

    records: Records
    clock: Clock
    tries: int
    alarm: Callable[[str], None] = lambda _kind: None

    async def resting(self, kind: str, items: Collection[str]) -> dict[str, bool]:
        """Return which of the items are owed, and whether each is to be left alone for now."""
        if not items:
            return {}
        now = self.clock.now()
        owed = await self.records.transact(
            lambda tx: tx.find(Debt, equal={"kind": kind}, among={"item": list(items)})
        )
        return {debt.item: debt.retry_at is None or debt.retry_at > now for debt in owed}

    async def items(self, kind: str) -> set[str]:
        """Return all that is owed of a kind."""
        return {
            debt.item for debt in await self.records.transact(lambda tx: tx.find(Debt, equal={"kind": kind}))
        }

    async def failed(
        self,
        kind: str,
        item: str,
        code: str,
        tenant: str = "",
        on_set_aside: OnSetAside = lambda _tx, _debt: None,
    ) -> None:
        """Note a failure: the item rests for a while, or is set aside after so many."""

        def note(tx: Transaction) -> bool:
            now = self.clock.now()
            known = tx.get(Debt, kind, item)
            debt = known or opened(kind, item, tenant, self.clock)
            tries = debt.tries + 1
            is_over = tries >= self.tries
            pause = min(FIRST_PAUSE * 2 ** min(tries - 1, 16), LONGEST_PAUSE)
            debt = replace(debt, tries=tries, code=code, retry_at=None if is_over else now + pause)
            if known is None:
                tx.add(debt)
            else:
                tx.put(debt)
            if is_over:
                on_set_aside(tx, debt)
            return is_over

        if await self.records.transact(note):
            self.alarm(kind)

    async def paid(self, kind: str, item: str) -> None:
        """Note that what was owed is done."""

        def strike(tx: Transaction) -> None:
            debt = tx.get(Debt, kind, item)
            if debt is not None:
                tx.remove(debt)

        await self.records.transact(strike)


def opened(kind: str, item: str, tenant: str, clock: Clock, about: str = "") -> Debt:
    """Return a debt that nobody has tried to pay yet."""
    now = clock.now()
    return Debt(kind, item, tenant, about, 0, "", now, now)


def go_on_asking(tx: Transaction, job: Job, clock: Clock, about: str = "") -> None:
    """Note, before a job's row goes, that its backend is still to be asked to forget it, if it is."""
    item = f"{job.backend}/{job.backend_job}"
    if job.is_forget_owed and tx.get(Debt, FORGET, item) is None:
        tx.add(opened(FORGET, item, job.tenant, clock, about))


def take_up(tx: Transaction, tenant: str, clock: Clock) -> int:
    """Have what was set aside for a tenant tried again, from the first pause on; return how many."""
    to = {"retry_at": clock.now(), "tries": 0}
    return sum(tx.change(Debt, equal={"tenant": one, "retry_at": None}, to=to) for one in (tenant, ""))
