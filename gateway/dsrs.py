"""What several flows do to the file of a data-subject request: find it, lease it, and close it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta, tzinfo
from functools import partial
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from gateway.caller import Caller
from gateway.controllers import ControllerFacts
from gateway.errors import LeaseLost, NotFound, PolicyUnavailable, StoreUnavailable
from gateway.judge import Judge
from gateway.people import People
from gateway.ports.clock import Clock
from gateway.ports.records import Dsr, PackText, Records, Transaction
from policy import clocks, retention
from policy import recipients as told
from policy.dsr import FINAL, transition
from policy.pack import Pack, parse_named
from policy.recipients import SETTLED, Role, Told
from policy.terms import DsrKind

T = TypeVar("T")


def own(tx: Transaction, caller: Caller, dsr_id: str) -> Dsr:
    """Return the request.

    Raises:
        NotFound: There is none in the caller's tenant.
    """
    dsr = tx.get(Dsr, dsr_id)
    if dsr is None or dsr.tenant != caller.tenant:
        raise NotFound
    return dsr


def pinned(tx: Transaction, dsr: Dsr, packs: Mapping[str, Pack]) -> Pack:
    """Return the rule book that the request was submitted under, as it stood that day.

    Raises:
        PolicyUnavailable: It is neither loaded nor kept.
    """
    return _as_it_stood(tx, dsr.regime, dsr.policy.get(dsr.regime), packs)


async def laws_of(dsr: Dsr, records: Records, people: People, judge: Judge, clock: Clock) -> tuple[Pack, ...]:
    """Return the rule books that an erasure is planned by: those pinned at submission, the invoked one first.

    A request from before rule books were pinned is planned by those that apply now.

    Raises:
        PolicyUnavailable: One is neither loaded nor kept.
    """
    if dsr.policy:
        names = dict.fromkeys((dsr.regime, *sorted(dsr.policy)))
        return await records.transact(
            lambda tx: tuple(_as_it_stood(tx, name, dsr.policy.get(name), judge.packs) for name in names)
        )
    # Before the profile goes: where the person lived says which laws keep what.
    profile = await people.profile(dsr.tenant, dsr.handle)
    return await records.transact(lambda tx: judge.laws(tx, dsr.tenant, profile, dsr.regime, clock.now()))


def _as_it_stood(tx: Transaction, name: str, digest: str | None, packs: Mapping[str, Pack]) -> Pack:
    pack = packs.get(name)
    if pack is not None and digest in {None, pack.digest}:
        return pack
    text = tx.get(PackText, digest) if digest is not None else None
    if text is None:
        raise PolicyUnavailable("a pinned rule book is not kept")
    return parse_named({text.digest: text.body}, text.digest)


def seat(pack: Pack, controller: ControllerFacts) -> tuple[tzinfo, str | None]:
    """Return where the days of a request are counted: the law's own place, or the controller's."""
    return clocks.seat(pack, ZoneInfo(controller.time_zone), controller.calendar)


def end_of(day: date, zone: tzinfo) -> int:
    """Return the last millisecond of a day: an answer sent then is on time."""
    return int(datetime.combine(day + timedelta(days=1), datetime.min.time(), zone).timestamp() * 1000) - 1


def due_key(due_on: str, dsr_id: str) -> str:
    """Return what orders open requests by the day their answer is due."""
    return f"{due_on} {dsr_id}"


# --- recipients ----------------------------------------------------------------------------------


def recipient_id(tenant: str, code: str) -> str:
    """Return the id under which a recipient appears in the log: 16 bytes of a digest, in hex."""
    return hashlib.sha256(f"lethe.dev/recipient/v1\0{tenant}\0{code}".encode()).hexdigest()[:32]


def owing(dsr: Dsr, laws: Sequence[Pack], controller: ControllerFacts) -> Dsr:
    """Return the request with those who are to be told of it, as they stand now (GDPR Art. 19)."""
    entries = {
        code: {**one, "id": recipient_id(dsr.tenant, code), "state": Told.DUE.value}
        for code, one in controller.recipients.items()
        if told.is_told(laws, DsrKind(dsr.kind), Role(one["role"]))
    }
    return with_recipients(dsr, entries)


def with_recipients(dsr: Dsr, entries: Mapping[str, Mapping[str, Any]]) -> Dsr:
    """Return the request with its recipients; while one of them is unsettled it is on the list of those."""
    is_owed = any(one["state"] not in SETTLED for one in entries.values())
    return replace(dsr, recipients=entries, owed_key=due_key(dsr.due_on, dsr.dsr_id) if is_owed else None)


def named(dsr: Dsr) -> list[str] | None:
    """Return the ids of a request's recipients for the leaf of its approval; None where there are none."""
    return sorted(one["id"] for one in dsr.recipients.values()) or None


def reckoned(dsr: Dsr, pack: Pack, controller: ControllerFacts) -> Dsr:
    """Return the request with its days as they follow from what moved its clock."""
    zone, calendar = seat(pack, controller)
    inputs = {"identity": str(dsr.clock.get("identity", ""))}
    pauses = [(first, last) for first, last in dsr.clock.get("pauses", ())]
    due = clocks.due(pack, dsr.kind, dsr.received_at, zone, calendar, inputs=inputs, pauses=pauses)
    later = due.extended_respond_by
    due_on = (later if dsr.extended_at is not None and later else due.respond_by).isoformat()
    changed = replace(
        dsr,
        due_on=due_on,
        due_key=due_key(due_on, dsr.dsr_id),
        extended_due_on=later.isoformat() if later else "",
        internal_target_on=due.internal_target.isoformat(),
    )
    return with_recipients(changed, changed.recipients)


def resumed(dsr: Dsr, at: datetime, pack: Pack, controller: ControllerFacts) -> Dsr:
    """Return the request whose question was answered: the days from asking to `at` do not count (U-17)."""
    zone, _ = seat(pack, controller)
    asked_at = datetime.fromisoformat(dsr.clock["asked_at"])
    days = [instant.astimezone(zone).date().isoformat() for instant in (asked_at, at)]
    kept = {name: value for name, value in dsr.clock.items() if name != "asked_at"}
    clock = {**kept, "pauses": [*dsr.clock.get("pauses", ()), days]}
    return reckoned(replace(dsr, clock=clock), pack, controller)


def closed(dsr: Dsr, state: str, now: datetime, pack: Pack) -> Dsr:
    """Return the file of an answered request: off the due list, without what only the work needed.

    Who has still to be told of what was done stays on the list of that.
    """
    return replace(
        dsr,
        state=state,
        due_key=None,
        owed_key=dsr.owed_key if state == "fulfilled" else None,
        preview={},
        wish_key="",
        sealed_wish=b"",
        lease_owner="",
        lease_until=None,
        answered_at=now,
        updated_at=now,
        keep_until=retention.expires_at("dsr_file", now, (pack,)).expires_at,
    )


def is_open(dsr: Dsr) -> bool:
    """Tell whether the request still waits for its answer."""
    return dsr.state not in FINAL


# --- leases --------------------------------------------------------------------------------------


def claim(tx: Transaction, kinds: Collection[str], owner: str, now: datetime, lease: timedelta) -> Dsr | None:
    """Lease the oldest approved request of those kinds that nobody works on; None where there is none."""
    approved = tx.find(
        Dsr,
        among={"state": ["approved", "running"], "kind": sorted(kinds)},
        order_by=("received_at", "dsr_id"),
    )
    ready = [dsr for dsr in approved if dsr.lease_until is None or dsr.lease_until <= now]
    if not ready:
        return None
    dsr = ready[0]
    state = transition(dsr.state, "run") or dsr.state
    claimed = replace(dsr, state=state, lease_owner=owner, lease_until=now + lease, updated_at=now)
    tx.put(claimed)
    return claimed


def leased(tx: Transaction, dsr: Dsr) -> Dsr:
    """Return the request as it stands.

    Raises:
        LeaseLost: It is not ours any more to carry out.
    """
    standing = tx.get(Dsr, dsr.dsr_id)
    if standing is None or standing.lease_owner != dsr.lease_owner:
        raise LeaseLost
    return standing


def tick(tx: Transaction, dsr: Dsr, step: int, now: datetime, lease: timedelta) -> Dsr:
    """Count a finished step and renew the lease."""
    standing = leased(tx, dsr)
    ticked = replace(standing, step=max(standing.step, step), lease_until=now + lease, updated_at=now)
    tx.put(ticked)
    return ticked


async def with_heartbeat(
    records: Records, clock: Clock, lease: timedelta, dsr: Dsr, step: Callable[[Dsr], Awaitable[T]]
) -> T:
    """Take a step, and keep the lease while it lasts: it may last long."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(lease.total_seconds() / 3)
            # One beat that the records miss is no reason to stop beating.
            with contextlib.suppress(StoreUnavailable):
                await records.transact(partial(tick, dsr=dsr, step=0, now=clock.now(), lease=lease))

    beating = asyncio.create_task(beat())
    try:
        return await step(dsr)
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
