"""Shows how long things are kept, and places and releases the legal holds that keep them longer."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from audit.schema import RULE
from gateway.caller import Caller
from gateway.debts import KINDS
from gateway.errors import MessageInvalid, NotFound, SubjectBlocked, SubjectUnknown
from gateway.holds import REACHED, end_hold, standing
from gateway.idempotency import Idempotency
from gateway.ledger import Ledger, Receipt
from gateway.paging import DEFAULT_SIZE, MAX_SIZE, Page, open_token, page, seal_token
from gateway.people import People
from gateway.ports.clock import Clock
from gateway.ports.records import STANDING, Debt, Hold, Records, StoredObject, Subject, Transaction
from policy.pack import Pack
from policy.retention import Line, schedule

_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class HoldDraft:
    """A hold to place; no `classes` means all that a hold can cover."""

    subject_id: str
    rule: str
    classes: tuple[str, ...] = ()
    until: datetime | None = None
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Due:
    """An object whose term has ended, or ends, and the hold that keeps it beyond, if one does."""

    stored: StoredObject
    hold_id: str


@dataclass(frozen=True, slots=True)
class Retention:
    """Terms and holds of a tenant.  Destroying at the end of a term is the sweeper's."""

    records: Records
    people: People
    packs: Mapping[str, Pack]
    terms: Mapping[str, tuple[Line, ...]]
    ledger: Ledger
    idempotency: Idempotency
    clock: Clock
    random: Callable[[int], bytes] = os.urandom

    def schedule(self, caller: Caller) -> tuple[Line, ...]:
        """Return every term: of law, of the house, and of this deployment; the shortest that applies wins."""
        return (*schedule(self.packs.values()), *self.terms[caller.tenant])

    async def due(self, caller: Caller, before: datetime | None, size: int, token: str) -> Page[Due]:
        """Return a page of the objects whose term ends by `before`, or by now, earliest first."""
        until = before or self.clock.now()
        limit = min(size or DEFAULT_SIZE, MAX_SIZE)
        query = ("due", caller.tenant, str(before or ""))
        after = open_token(token, query) or ""

        def read(tx: Transaction) -> list[Due]:
            rows = _behind(tx, caller.tenant, until, after, limit + 1)
            return [Due(row, self._holding(tx, row)) for row in rows]

        found = await self.records.transact(read)
        more = len(found) > limit
        following = seal_token(_key(found[limit - 1].stored), query) if more else ""
        return Page(tuple(found[:limit]), following)

    def _holding(self, tx: Transaction, stored: StoredObject) -> str:
        holds = standing(tx, stored.tenant, stored.handle, self.clock.now(), stored.cls)
        return holds[0].hold_id if holds else ""

    async def place(self, caller: Caller, draft: HoldDraft) -> tuple[Hold, Receipt | None]:
        """Place a hold: from the commit on nothing it covers is destroyed.

        A subject whose erasure was approved but has destroyed nothing yet can be
        held: the erasure then waits.

        Raises:
            SubjectUnknown: Not known to this tenant.
            SubjectBlocked: The subject was erased: there is nothing left to hold.
            MessageInvalid: The rule is no citation, or the end lies in the past.

        Rule:
            GDPR Art. 17(3)(e), 18(1)(c); PIPEDA s. 8(8).
        """
        now = self.clock.now()
        if not RULE(draft.rule):
            raise MessageInvalid("the rule is no citation", violations=(("hold.rule", "rule.no_citation"),))
        if draft.until is not None and draft.until <= now:
            raise MessageInvalid(
                "the hold would have ended", violations=(("hold.retain_until_time", "time.past"),)
            )
        handle = await self.people.handle(caller.tenant, draft.subject_id)
        is_fenced = await self.people.keys.is_fenced(handle)
        classes = tuple(cls.value for cls in REACHED if not draft.classes or cls in draft.classes)
        content = json.dumps([handle, draft.rule, classes, str(draft.until)]).encode()
        ticket = await self.idempotency.ticket(caller.tenant, "PlaceHold", draft.request_id, content)
        hold = Hold(
            hold_id=self.random(16).hex(),
            tenant=caller.tenant,
            handle=handle,
            rule=draft.rule,
            classes=classes,
            until=draft.until,
            placed_at=now,
        )

        def commit(tx: Transaction) -> tuple[Hold, Receipt | None]:
            known = self.idempotency.recall(tx, ticket)
            standing_hold = tx.get(Hold, known) if known is not None else None
            if standing_hold is not None:
                return standing_hold, None
            if tx.get(Subject, caller.tenant, handle) is None:
                raise SubjectBlocked if is_fenced else SubjectUnknown
            tx.add(hold)
            receipt = self.ledger.record(
                tx,
                caller.tenant,
                "hold.placed",
                caller,
                hld=hold.hold_id,
                cls=list(classes),
                rule=draft.rule,
                until=int(draft.until.timestamp() * 1000) if draft.until else None,
            )
            self.idempotency.remember(tx, ticket, hold.hold_id)
            return hold, receipt

        return await self.records.transact(commit)

    async def debts(self, caller: Caller, size: int, token: str) -> Page[Debt]:
        """Return a page of what is owed for the tenant; of bytes that no record claims nobody knows whose."""
        limit = min(size or DEFAULT_SIZE, MAX_SIZE)
        query = ("debts", caller.tenant)
        after = open_token(token, query) or ""
        rows = await self.records.transact(lambda tx: _debts(tx, caller.tenant, after, limit + 1))
        more = len(rows) > limit
        return Page(tuple(rows[:limit]), seal_token(_debt_key(rows[limit - 1]), query) if more else "")

    async def release(self, caller: Caller, hold_id: str, reason_code: str = "") -> Receipt:
        """Release a hold; the sweeper then destroys what only it kept.

        Raises:
            NotFound: None stands under this name in the caller's tenant.
        """

        def commit(tx: Transaction) -> Receipt:
            hold = tx.get(Hold, hold_id)
            if hold is None or hold.tenant != caller.tenant:
                raise NotFound
            return end_hold(tx, self.ledger, hold, "released", caller, reason_code or None)

        return await self.records.transact(commit)

    async def holds(self, caller: Caller, size: int, token: str) -> Page[Hold]:
        """Return a page of the holds that stand, oldest first."""
        rows = await self.records.transact(
            lambda tx: tx.find(Hold, equal={"tenant": caller.tenant}, order_by=("placed_at", "hold_id"))
        )
        now = self.clock.now()
        rows = [row for row in rows if row.until is None or row.until > now]
        return page(rows, size, _place, ("holds", caller.tenant), token)


def _behind(tx: Transaction, tenant: str, until: datetime, after: str, wanted: int) -> list[StoredObject]:
    """Return the first objects that are due behind the key `after`; many may share one instant."""
    start = {"expires_at": datetime.fromisoformat(after.partition(" ")[0]) - _TICK} if after else {}
    limit = wanted
    while True:
        found = tx.find(
            StoredObject,
            equal={"tenant": tenant},
            among={"state": STANDING},
            above=start,
            below={"expires_at": until},
            order_by=("expires_at", "object_id"),
            limit=limit,
        )
        rows = [row for row in found if _key(row) > after]
        if len(rows) >= wanted or len(found) < limit:
            return rows[:wanted]
        limit *= 2


def _debts(tx: Transaction, tenant: str, after: str, wanted: int) -> list[Debt]:
    """Return the first debts behind the key `after`, of the tenant and of nobody, by kind."""
    kind, _, item = after.partition(" ")
    found: list[Debt] = []
    for one in KINDS:
        if one < kind or len(found) >= wanted:
            continue
        found += tx.find(
            Debt,
            equal={"kind": one},
            among={"tenant": [tenant, ""]},
            above={"item": item if one == kind else ""},
            order_by=("item",),
            limit=wanted - len(found),
        )
    return found


def _debt_key(debt: Debt) -> str:
    return f"{debt.kind} {debt.item}"


def _key(stored: StoredObject) -> str:
    return f"{_moment(stored.expires_at)} {stored.object_id}"


def _place(hold: Hold) -> str:
    return f"{_moment(hold.placed_at)} {hold.hold_id}"


def _moment(at: datetime) -> str:
    return at.isoformat(timespec="microseconds")
