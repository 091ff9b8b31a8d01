"""The register of requests: what is due next, what a year's answers amount to, and the letters to send."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from statistics import median
from zoneinfo import ZoneInfo

from gateway.caller import Caller
from gateway.controllers import Controllers
from gateway.dsrs import own, pinned, seat
from gateway.errors import MessageInvalid, StateConflict
from gateway.paging import DEFAULT_SIZE, MAX_SIZE, Page, open_token, page
from gateway.ports.clock import Clock
from gateway.ports.records import Dsr, Records, Transaction
from policy import letter
from policy.dsr import told
from policy.letter import Kind, Letter
from policy.pack import Pack
from policy.recipients import NEVER_RECEIVED, Told

STEPS = (0, 3, 7)
"""Days left from which the alarms count: overdue or due today, in three days, in a week."""

MOST_COUNTED = 1000


@dataclass(frozen=True, slots=True)
class Figures:
    """What became of the requests of one kind that were received in a span (11 CCR 7101, 7102).

    `complied` are those complied with in whole or in part, `complied_in_part` of them those of which a
    part was refused, or of which a rule kept something.  `median_days` is None where none was
    answered yet.  Of the recipients that were to be told,
    those are confirmed that have acknowledged it, and unconfirmed that neither have nor are excused.
    """

    kind: str
    received: int
    complied: int
    complied_in_part: int
    denied: int
    cancelled: int
    open: int
    recipients_confirmed: int
    recipients_unconfirmed: int
    median_days: float | None


@dataclass(frozen=True, slots=True)
class Register:
    """Reads the files of requests; it changes nothing."""

    records: Records
    packs: Mapping[str, Pack]
    controllers: Controllers
    clock: Clock

    async def due(self, caller: Caller, before: str, size: int, token: str) -> Page[Dsr]:
        """Return a page of open requests, the one due next first; up to the day `before` where it is given.

        Raises:
            MessageInvalid: `before` is no day.
        """
        until = _day(before) if before else None
        query = ("due", caller.tenant, before)
        after = open_token(token, query)

        def read(tx: Transaction) -> list[Dsr]:
            return tx.find(
                Dsr,
                equal={"tenant": caller.tenant},
                above={"due_key": after or ""},
                below={"due_key": _through(until)} if until else None,
                order_by=("due_key",),
                limit=min(size or DEFAULT_SIZE, MAX_SIZE) + 1,
            )

        return page(await self.records.transact(read), size, lambda dsr: dsr.due_key or "", query, token)

    async def owed(self, caller: Caller, size: int, token: str) -> Page[Dsr]:
        """Return a page of requests of which a recipient neither acknowledged nor is excused, due first."""
        query = ("owed", caller.tenant)
        after = open_token(token, query)

        def read(tx: Transaction) -> list[Dsr]:
            return tx.find(
                Dsr,
                equal={"tenant": caller.tenant},
                above={"owed_key": after or ""},
                order_by=("owed_key",),
                limit=min(size or DEFAULT_SIZE, MAX_SIZE) + 1,
            )

        return page(await self.records.transact(read), size, lambda dsr: dsr.owed_key or "", query, token)

    async def left(self) -> dict[int, int]:
        """Return how many open requests are due in so many days or fewer, at most a thousand a tenant."""
        counts: Counter[int] = Counter()
        for tenant in self.controllers.seeds:
            facts = await self.controllers.now(self.records, tenant)
            today = self.clock.now().astimezone(ZoneInfo(facts.time_zone)).date()
            for days in STEPS:
                bound = {"due_key": _through(today + timedelta(days=days))}

                def read(tx: Transaction, tenant: str = tenant, bound: dict[str, str] = bound) -> int:
                    return len(tx.find(Dsr, equal={"tenant": tenant}, below=bound, limit=MOST_COUNTED))

                counts[days] += await self.records.transact(read)
        return dict(counts)

    async def figures(self, caller: Caller, since: datetime, until: datetime, regime: str) -> list[Figures]:
        """Return by kind what became of the requests received from `since` until before `until`."""
        equal = {"tenant": caller.tenant} | ({"regime": regime} if regime else {})
        rows = await self.records.transact(
            lambda tx: tx.find(
                Dsr,
                equal=equal,
                above={"received_at": since - timedelta(microseconds=1)},
                below={"received_at": until - timedelta(microseconds=1)},
            )
        )
        return [
            self._figures(kind, [r for r in rows if r.kind == kind])
            for kind in sorted({r.kind for r in rows})
        ]

    @staticmethod
    def _figures(kind: str, rows: list[Dsr]) -> Figures:
        states = Counter(row.state for row in rows)
        spans = [
            (row.answered_at - row.received_at) / timedelta(days=1)
            for row in rows
            if row.answered_at is not None and row.state in {"fulfilled", "refused"}
        ]
        told = Counter(one["state"] for row in rows for one in row.recipients.values())
        over = states["fulfilled"] + states["refused"] + states["cancelled"]
        return Figures(
            kind=kind,
            received=len(rows),
            complied=states["fulfilled"],
            complied_in_part=sum(
                row.state == "fulfilled" and bool(row.refused_parts or row.counts.get("kept")) for row in rows
            ),
            denied=states["refused"],
            cancelled=states["cancelled"],
            open=len(rows) - over,
            recipients_confirmed=told[Told.ACKNOWLEDGED],
            recipients_unconfirmed=told[Told.DUE] + told[Told.TOLD],
            median_days=round(median(spans), 1) if spans else None,
        )

    async def letter(self, caller: Caller, dsr_id: str, kind: str, language: str) -> Letter:
        """Return a letter about the request in the language, or in the nearest that there is.

        It names nobody: whoever sends it puts the address on it.

        Raises:
            NotFound: There is no such request in the caller's tenant.
            StateConflict: There is nothing of that kind to tell.
        """
        dsr, pack = await self.records.transact(
            lambda tx: (found := own(tx, caller, dsr_id), pinned(tx, found, self.packs))
        )
        wanted = Kind(kind) if kind else _latest(dsr)
        if not _can_tell(dsr, wanted):
            raise StateConflict(detail=f"no_{wanted.value}")
        facts = await self.controllers.now(self.records, dsr.tenant)
        zone, _ = seat(pack, facts)
        said = {
            "reference": f"dsrs/{dsr.dsr_id}",
            "controller": facts.name,
            "contact": facts.contact,
            "received": dsr.received_at.astimezone(zone).date().isoformat(),
            "due": dsr.due_on,
            "answered": dsr.answered_at.astimezone(zone).date().isoformat() if dsr.answered_at else "",
            "reason": dsr.extension_reason if wanted is Kind.EXTENSION else told(dsr.reason_code),
        }
        outcome = dsr.outcome
        if wanted is Kind.COMPLETION:
            parts = sorted({ground for ground in dsr.refused_parts.values() if told(ground)})
            said["reason"] = " ".join(parts)
            if not parts and outcome == "complied_in_part":
                outcome = "complied"  # what may not be revealed was not refused
        return letter.write(
            wanted, language, pack, dsr.kind, said, outcome=outcome, recipients=_recipients(dsr)
        )


def _recipients(dsr: Dsr) -> dict[str, list[tuple[str, str]]]:
    """Return by state whom the person is told of, with the ground; not those that never had anything."""
    found: dict[str, list[tuple[str, str]]] = {}
    for one in sorted(dsr.recipients.values(), key=lambda one: str(one["name"])):
        if one.get("ground") != NEVER_RECEIVED:
            found.setdefault(one["state"], []).append((one["name"], one.get("ground", "")))
    return found


def _latest(dsr: Dsr) -> Kind:
    """Return the letter that is to be sent next."""
    return next(
        kind
        for kind in (Kind.COMPLETION, Kind.REFUSAL, Kind.EXTENSION, Kind.ACKNOWLEDGEMENT)
        if _can_tell(dsr, kind)
    )


def _can_tell(dsr: Dsr, kind: Kind) -> bool:
    return {
        Kind.ACKNOWLEDGEMENT: True,
        Kind.EXTENSION: dsr.extended_at is not None,
        Kind.REFUSAL: dsr.state == "refused",
        Kind.COMPLETION: dsr.state == "fulfilled",
    }[kind]


def _through(day: date) -> str:
    """Return the bound below which lies every key of that day and before: `~` sorts behind an id."""
    return f"{day.isoformat()} ~"


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise MessageInvalid("no day", violations=(("due_before", "date.invalid"),)) from error
