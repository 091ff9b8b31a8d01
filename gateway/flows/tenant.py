"""Shows and changes the facts of a controller."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from gateway.caller import Caller
from gateway.controllers import ControllerFacts, Controllers, version_of
from gateway.errors import MessageInvalid, StateConflict
from gateway.idempotency import Idempotency
from gateway.ledger import Ledger, Receipt
from gateway.ports.clock import Clock
from gateway.ports.records import Records, Transaction
from policy.clocks import is_calendar, is_place

THRESHOLDS = frozenset({"ccpa_business"})
"""Thresholds that a controller can be asked about (Cal. Civ. Code 1798.140(d))."""

_LAND_CODES = {"establishments": "est", "targets": "tgt"}


@dataclass(frozen=True, slots=True)
class TenantDraft:
    """What is to change: new values by the name of the fact, if the facts still are those of `etag`."""

    changes: Mapping[str, Any]
    etag: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """The facts that count, and which version they are."""

    facts: ControllerFacts
    version: int

    @property
    def etag(self) -> str:
        """What an update can name so that it changes nothing else than what was seen."""
        return f"v{self.version}"


@dataclass(frozen=True, slots=True)
class Tenants:
    """The controllers' facts: configured first, then kept here, each change a version and an event."""

    records: Records
    controllers: Controllers
    ledger: Ledger
    idempotency: Idempotency
    clock: Clock

    async def get(self, caller: Caller) -> Known:
        """Return the facts of the caller's tenant."""
        return await self.records.transact(lambda tx: Known(*self.controllers.versioned(tx, caller.tenant)))

    async def update(
        self, caller: Caller, draft: TenantDraft, *, rehearse: bool = False
    ) -> tuple[Known, Receipt | None]:
        """Change facts; from the commit on every decision is made by them, in every process.

        Where nothing differs, nothing is written and there is no receipt.  With `rehearse`
        nothing is kept.

        Raises:
            MessageInvalid: No such country, zone, calendar or threshold.
            StateConflict: The facts have changed since `etag` (detail `etag`).
        """
        _refuse_faulty(draft.changes)
        content = json.dumps([dict(draft.changes), draft.etag], sort_keys=True).encode()
        ticket = await self.idempotency.ticket(
            caller.tenant, "UpdateTenant", "" if rehearse else draft.request_id, content
        )

        def commit(tx: Transaction) -> tuple[Known, Receipt | None]:
            before = Known(*self.controllers.versioned(tx, caller.tenant))
            if self.idempotency.recall(tx, ticket) is not None:
                return before, None
            if draft.etag and draft.etag != before.etag:
                raise StateConflict("the facts have changed meanwhile", detail="etag")
            facts = replace(before.facts, **draft.changes)
            changed = sorted(name for name, value in asdict(facts).items() if value != _of(before, name))
            after = Known(facts, before.version + bool(changed))
            if rehearse or not changed:
                return after, None
            tx.add(version_of(caller.tenant, after.version, facts, self.clock.now()))
            self.idempotency.remember(tx, ticket, after.etag)
            places = {
                code: list(getattr(facts, name) or ())
                for name, code in _LAND_CODES.items()
                if name in changed
            }
            return after, self.ledger.record(
                tx, caller.tenant, "tenant.updated", caller, ver=after.version, chg=changed, **places
            )

        return await self.records.transact(commit)


def _of(known: Known, name: str) -> Any:
    return getattr(known.facts, name)


def _refuse_faulty(changes: Mapping[str, Any]) -> None:
    """Refuse what policy could not reckon with.

    Raises:
        MessageInvalid: It names the field and the rule, not the value.
    """
    faults = [
        (f"tenant.{name}", "place.unknown")
        for name in ("establishments", "targets")
        if not all(map(is_place, changes.get(name) or ()))
    ]
    if "time_zone" in changes and not _is_zone(changes["time_zone"]):
        faults.append(("tenant.time_zone", "zone.unknown"))
    if changes.get("calendar") and not is_calendar(changes["calendar"]):
        faults.append(("tenant.calendar", "calendar.unknown"))
    if not THRESHOLDS.issuperset(changes.get("thresholds", ())):
        faults.append(("tenant.thresholds", "threshold.unknown"))
    if "name" in changes and not changes["name"].strip():
        faults.append(("tenant.controller", "controller.empty"))
    if not all(is_place(one["country"]) for one in changes.get("recipients", {}).values()):
        faults.append(("tenant.recipients", "place.unknown"))
    if faults:
        raise MessageInvalid("a fact cannot be right", violations=tuple(faults))


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True
