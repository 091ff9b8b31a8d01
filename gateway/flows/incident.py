"""The register of breaches: what happened, who is to be told until when, and what was done about it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from audit.schema import RULE
from gateway.caller import Caller
from gateway.controllers import Controllers
from gateway.errors import KeyServiceUnavailable, MessageInvalid, NotFound
from gateway.idempotency import Idempotency
from gateway.judge import Judge
from gateway.ledger import Ledger, Receipt
from gateway.paging import DEFAULT_SIZE, MAX_SIZE, Page, open_token, seal_token
from gateway.people import People, Profile
from gateway.ports.clock import Clock
from gateway.ports.records import Incident, Records, Transaction
from gateway.vault.custody import HeldKey
from gateway.vault.errors import SealBroken
from gateway.vault.keys import Binding, open_column, seal_column
from policy import breach
from policy.breach import Duty
from policy.clocks import is_place
from policy.pack import Pack
from policy.terms import KeyClass

KINDS = ("destruction", "loss", "alteration", "disclosure", "access", "unavailability")
BANDS: Mapping[str, timedelta] = {
    "overdue": timedelta(0),
    "under_12h": timedelta(hours=12),
    "under_24h": timedelta(hours=24),
    "under_72h": timedelta(hours=72),
}
"""How little time is left before an alarm, the least first."""
OLDEST = timedelta(days=10 * 366)


@dataclass(frozen=True, slots=True)
class Telling:
    """What was done about telling somebody: when they were told, or the rule by which they need not be."""

    told_at: datetime | None = None
    rule: str = ""

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing more to do."""
        return self.told_at is not None or bool(self.rule)

    def row(self) -> dict[str, str]:
        """Return it as the records keep it."""
        told = {"told_at": self.told_at.isoformat()} if self.told_at else {}
        return told | ({"rule": self.rule} if self.rule else {})

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Telling:
        """Return what the records say."""
        told = row.get("told_at")
        return cls(datetime.fromisoformat(told) if told else None, row.get("rule", ""))

    @property
    def code(self) -> str:
        """How the log says it."""
        return "told" if self.told_at else "exempt" if self.rule else "open"


@dataclass(frozen=True, slots=True)
class Text:
    """What is said of an incident in words; it rests sealed."""

    nature: str = ""
    consequences: str = ""
    measures: str = ""


@dataclass(frozen=True, slots=True)
class IncidentDraft:
    """An incident as it is known now; with an `incident_id`, of one that is in the register."""

    kind: str
    aware_at: datetime
    data_categories: tuple[str, ...] = ()
    residences: tuple[str, ...] = ()
    about_subjects: int = 0
    about_records: int = 0
    authority: Telling = Telling()
    subjects: Telling = Telling()
    text: Text = Text()
    incident_id: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """An incident with its duties and its opened text."""

    record: Incident
    duties: tuple[Duty, ...]
    text: Text

    def is_settled(self, duty: Duty) -> bool:
        """Return whether nothing more is to be done about a duty that we keep account of."""
        return _is_settled(duty, Telling.of(self.record.authority), Telling.of(self.record.subjects))


@dataclass(frozen=True, slots=True)
class Incidents:
    """Keeps the register.  It tells nobody: that is the controller's to do."""

    records: Records
    people: People
    judge: Judge
    packs: Mapping[str, Pack]
    controllers: Controllers
    ledger: Ledger
    idempotency: Idempotency
    clock: Clock
    random: Callable[[int], bytes] = os.urandom

    async def record(self, caller: Caller, draft: IncidentDraft) -> tuple[Shown, Receipt | None]:
        """Enter an incident in the register, or what is known of it by now (GDPR Art. 33(4), (5)).

        Raises:
            MessageInvalid: No such kind or place, noticed in the future, or an exemption that cites nothing.
            NotFound: No such incident in the caller's tenant.
        """
        self._refuse_faulty(draft)
        content = json.dumps(asdict(draft), sort_keys=True, default=str).encode()
        ticket = await self.idempotency.ticket(caller.tenant, "RecordIncident", draft.request_id, content)
        repeated = await self.records.transact(lambda tx: self.idempotency.recall(tx, ticket))
        incident_id = repeated or draft.incident_id or self.random(16).hex()
        if draft.incident_id:
            await self.records.transact(lambda tx: _own(tx, caller, draft.incident_id))
        held = await self._key(caller.tenant, incident_id)
        text = json.dumps(asdict(draft.text), sort_keys=True).encode()
        sealed = seal_column(held.key, text, _binding(caller.tenant, incident_id))

        def commit(tx: Transaction) -> tuple[Incident, Receipt | None]:
            known = self.idempotency.recall(tx, ticket)
            if known is not None:
                return _own(tx, caller, known), None
            before = _own(tx, caller, draft.incident_id) if draft.incident_id else None
            made = self._incident(tx, caller, draft, before, incident_id)
            made = replace(made, key_id=held.record.key_id, sealed_text=sealed)
            tx.put(made) if before else tx.add(made)
            self.idempotency.remember(tx, ticket, incident_id)
            return made, self.ledger.record(
                tx,
                caller.tenant,
                "incident.recorded",
                caller,
                inc=incident_id,
                ver=made.version,
                ikind=made.kind,
                at=int(made.aware_at.timestamp() * 1000),
                packs=list(made.regimes),
                auth=draft.authority.code,
                subj=draft.subjects.code,
                due=int(made.due_at.timestamp() * 1000) if made.due_at else None,
            )

        record, receipt = await self.records.transact(commit)
        return await self._shown(record), receipt

    async def list(self, caller: Caller, size: int, token: str) -> Page[Shown]:
        """Return a page of the register, the incident noticed first first."""
        limit = min(size or DEFAULT_SIZE, MAX_SIZE)
        query = ("incidents", caller.tenant)
        after = open_token(token, query) or ""
        rows = await self.records.transact(lambda tx: _behind(tx, caller.tenant, after, limit + 1))
        more = len(rows) > limit
        items = tuple([await self._shown(row) for row in rows[:limit]])
        return Page(items, seal_token(_key(rows[limit - 1]), query) if more else "")

    async def pressing(self) -> Counter[str]:
        """Return how many incidents there are by how little time is left, of all tenants (see `BANDS`)."""
        now = self.clock.now()
        last = now + max(BANDS.values())
        found = await self.records.transact(lambda tx: tx.find(Incident, below={"due_at": last}))
        left = [row.due_at - now for row in found if row.due_at is not None]
        return Counter(next(band for band, limit in BANDS.items() if rest <= limit) for rest in left)

    def _refuse_faulty(self, draft: IncidentDraft) -> None:
        now = self.clock.now()
        faults = []
        if draft.kind not in KINDS:
            faults.append(("incident.kind", "kind.unknown"))
        if not all(map(is_place, draft.residences)):
            faults.append(("incident.residences", "place.unknown"))
        if not now - OLDEST <= draft.aware_at <= now:
            faults.append(("incident.aware_time", "time.future" if draft.aware_at > now else "time.too_far"))
        for name, telling in (("authority", draft.authority), ("subjects", draft.subjects)):
            if telling.rule and not RULE(telling.rule):
                faults.append((f"incident.{name}.rule", "rule.no_citation"))
            if telling.told_at is not None and not draft.aware_at <= telling.told_at <= now:
                faults.append((f"incident.{name}.tell_time", "time.impossible"))
        if faults:
            raise MessageInvalid("the incident cannot be so", violations=tuple(faults))

    def _incident(
        self, tx: Transaction, caller: Caller, draft: IncidentDraft, before: Incident | None, incident_id: str
    ) -> Incident:
        now = self.clock.now()
        regimes = self._regimes(tx, caller.tenant, draft)
        zone = ZoneInfo(self.controllers.at(tx, caller.tenant).time_zone)
        packs = [self.packs[name] for name in regimes]
        bare = Incident(
            incident_id=incident_id,
            tenant=caller.tenant,
            version=before.version + 1 if before else 1,
            kind=draft.kind,
            data_categories=draft.data_categories,
            residences=draft.residences,
            about_subjects=draft.about_subjects,
            about_records=draft.about_records,
            aware_at=draft.aware_at,
            authority=draft.authority.row(),
            subjects=draft.subjects.row(),
            regimes=regimes,
            due_at=None,
            key_id="",
            sealed_text=b"",
            recorded_at=before.recorded_at if before else now,
            updated_at=now,
            keep_until=breach.keep_until(packs, draft.aware_at, zone),
        )
        open_ends = [
            duty.due_at
            for duty in self._duties(tx, bare)
            if duty.due_at is not None and not _is_settled(duty, draft.authority, draft.subjects)
        ]
        return replace(bare, due_at=min(open_ends, default=None))

    def _regimes(self, tx: Transaction, tenant: str, draft: IncidentDraft) -> tuple[str, ...]:
        """Return the packs that apply where the persons live; if that is not known, every one."""
        if not draft.residences:
            return tuple(name for name, pack in self.packs.items() if pack.rules.breach)
        found = [
            name
            for residence in draft.residences
            for name in self.judge.regimes(tx, tenant, Profile("", residence), draft.aware_at)
        ]
        return tuple(dict.fromkeys(found))

    def _duties(self, tx: Transaction, record: Incident) -> tuple[Duty, ...]:
        controller = self.controllers.at(tx, record.tenant)
        packs = [self.packs[name] for name in record.regimes if name in self.packs]
        told_at = Telling.of(record.subjects).told_at
        return breach.duties(
            packs, record.aware_at, told_at, ZoneInfo(controller.time_zone), controller.calendar
        )

    async def _shown(self, record: Incident) -> Shown:
        duties = await self.records.transact(lambda tx: self._duties(tx, record))
        return Shown(record, duties, await self._text(record))

    async def _text(self, record: Incident) -> Text:
        """Return what is said in words, or nothing where its key is lost: the rest must be seen."""
        try:
            key = await self.people.custody.open_by_id(record.key_id)
            opened = open_column(key, record.sealed_text, _binding(record.tenant, record.incident_id))
        except SealBroken:
            return Text()
        except KeyServiceUnavailable as error:
            if error.detail == "key_lost":
                return Text()
            raise
        return Text(**json.loads(opened))

    async def _key(self, tenant: str, incident_id: str) -> HeldKey:
        """Return the incident's own key: no subject's id holds a NUL, so it is nobody else's."""
        handle = await self.people.handle(tenant, f"incident\0{incident_id}")
        return await self.people.custody.obtain(tenant, handle, KeyClass.DSR.value)


def _is_settled(duty: Duty, authority: Telling, subjects: Telling) -> bool:
    """Return whether everybody whom the duty names, and of whom we keep account, was seen to."""
    concerned = [
        telling for whom, telling in (("authority", authority), ("subjects", subjects)) if duty.concerns(whom)
    ]
    return all(telling.is_settled for telling in concerned)


def _binding(tenant: str, incident_id: str) -> Binding:
    return Binding(
        tenant=tenant, handle="", cls=KeyClass.DSR.value, item=f"incident/{incident_id}", purpose=""
    )


def _own(tx: Transaction, caller: Caller, incident_id: str) -> Incident:
    found = tx.get(Incident, incident_id)
    if found is None or found.tenant != caller.tenant:
        raise NotFound
    return found


def _key(row: Incident) -> str:
    return f"{row.aware_at.isoformat(timespec='microseconds')} {row.incident_id}"


def _behind(tx: Transaction, tenant: str, after: str, limit: int) -> list[Incident]:
    """Return the incidents that follow the key `after`, the one noticed first first."""
    at, _, last = after.partition(" ")
    order = ("aware_at", "incident_id")
    if not after:
        return tx.find(Incident, equal={"tenant": tenant}, order_by=order, limit=limit)
    moment = datetime.fromisoformat(at)
    same = tx.find(
        Incident,
        equal={"tenant": tenant, "aware_at": moment},
        above={"incident_id": last},
        order_by=order,
        limit=limit,
    )
    later = tx.find(
        Incident, equal={"tenant": tenant}, above={"aware_at": moment}, order_by=order, limit=limit
    )
    return (same + later)[:limit]
