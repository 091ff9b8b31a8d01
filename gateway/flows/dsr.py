"""Receives data-subject requests, keeps their clocks, and lets people decide them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from gateway.caller import Caller
from gateway.controllers import ControllerFacts, Controllers
from gateway.errors import (
    MessageInvalid,
    MethodNotBuilt,
    NotFound,
    PreviewStale,
    SecondPersonRequired,
    StateConflict,
    SubjectBlocked,
)
from gateway.holdings import Held, Holdings
from gateway.holds import refuse_held, standing
from gateway.idempotency import Idempotency, Ticket
from gateway.judge import Judge
from gateway.ledger import Ledger, Receipt
from gateway.paging import Page, page
from gateway.people import People
from gateway.ports.clock import Clock
from gateway.ports.records import Certificate, Dsr, Records, Subject, Transaction
from policy import clocks, erasure, retention
from policy.dsr import transition
from policy.erasure import ErasurePlan
from policy.pack import Pack
from policy.terms import DsrKind, KeyClass

OLDEST = timedelta(days=10 * 365)
"""A request received before that is a slip of the pen."""

HELD_CLASSES = tuple(KeyClass)
"""The key classes under which data of a subject may rest."""


@dataclass(frozen=True, slots=True)
class DsrDraft:
    """A request as it was received; `regime` is the pack the subject invokes, empty for `gdpr`."""

    subject_id: str
    kind: str
    regime: str = ""
    received_at: datetime | None = None
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Preview:
    """What an erasure would do: the plan, what is held now, and an etag of both."""

    plan: ErasurePlan
    held: tuple[Held, ...]
    etag: str


@dataclass(frozen=True, slots=True)
class Dsrs:
    """Opens and decides requests.  The work of an erasure is another flow's."""

    records: Records
    people: People
    judge: Judge
    holdings: Holdings
    packs: Mapping[str, Pack]
    controllers: Controllers
    ledger: Ledger
    idempotency: Idempotency
    clock: Clock
    two_person: bool
    random: Callable[[int], bytes] = os.urandom

    async def create(
        self, caller: Caller, draft: DsrDraft, *, rehearse: bool = False
    ) -> tuple[Dsr, Receipt | None]:
        """Open a request and start its statutory clock (GDPR Art. 12(3), 11 CCR 7021(b), PIPEDA s. 8(3)).

        With `rehearse` nothing is kept and there is no receipt.

        Raises:
            SubjectUnknown, SubjectBlocked: Nobody to open it for.
            MethodNotBuilt: Only erasures are built yet.
            MessageInvalid: Unknown regime, or received in the future.
        """
        if draft.kind != DsrKind.ERASURE.value:
            raise MethodNotBuilt("only erasures are built yet", detail="dsr_kind")
        now = self.clock.now()
        received_at = draft.received_at or now
        if received_at > now:
            raise MessageInvalid("received in the future", violations=(("receive_time", "time.future"),))
        if received_at < now - OLDEST:
            raise MessageInvalid("received too long ago", violations=(("receive_time", "time.too_far"),))
        regime = draft.regime.lower() or "gdpr"
        if regime not in self.packs:
            raise MessageInvalid("no such regime", violations=(("regime", "regime.unknown"),))
        ticket = await self.idempotency.ticket(
            caller.tenant,
            "CreateDsr",
            "" if rehearse else draft.request_id,
            json.dumps([draft.subject_id, draft.kind, regime]).encode(),
        )
        repeated = await self.records.transact(lambda tx: self._recall(tx, caller, ticket))
        if repeated is not None:
            # Also once the erasure is done and there is no such subject any more.
            return repeated, None
        handle = (await self.people.known(caller.tenant, draft.subject_id)).handle
        controller = await self.controllers.now(self.records, caller.tenant)
        dsr = self._dsr(caller, draft, handle, regime, received_at, controller)
        if rehearse:
            return dsr, None
        key = await self.people.payload_key(caller.tenant, handle)
        asked = {"subject": f"subjects/{draft.subject_id}", "received_at": received_at.isoformat()}

        def commit(tx: Transaction) -> tuple[Dsr, Receipt | None]:
            known = self._recall(tx, caller, ticket)
            if known is not None:
                return known, None
            subject = tx.get(Subject, caller.tenant, handle)
            if subject is None or subject.state == "blocked":
                raise SubjectBlocked
            tx.add(dsr)
            self.idempotency.remember(tx, ticket, dsr.dsr_id)
            receipt = self.ledger.record(
                tx,
                caller.tenant,
                "dsr.received",
                caller,
                sealed=((key, asked),),
                dsr=dsr.dsr_id,
                dkind=dsr.kind,
                reg=regime,
            )
            return dsr, receipt

        return await self.records.transact(commit)

    def _recall(self, tx: Transaction, caller: Caller, ticket: Ticket | None) -> Dsr | None:
        known = self.idempotency.recall(tx, ticket)
        return _own(tx, caller, known) if known is not None else None

    def _dsr(
        self,
        caller: Caller,
        draft: DsrDraft,
        handle: str,
        regime: str,
        received_at: datetime,
        controller: ControllerFacts,
    ) -> Dsr:
        pack = self.packs[regime]
        # A law that counts its days in a place of its own (CCPA: California) does so wherever we are.
        zone, calendar = clocks.seat(pack, ZoneInfo(controller.time_zone), controller.calendar)
        due = clocks.due(pack, draft.kind, received_at, zone, calendar)
        now = self.clock.now()
        return Dsr(
            dsr_id=self.random(16).hex(),
            tenant=caller.tenant,
            handle=handle,
            kind=draft.kind,
            regime=regime,
            state="received",
            step=0,
            opened_by=caller.name,
            approved_by="",
            reason_code="",
            received_at=received_at,
            due_on=due.respond_by.isoformat(),
            extended_due_on=due.extended_respond_by.isoformat() if due.extended_respond_by else "",
            internal_target_on=due.internal_target.isoformat(),
            counts={},
            certificate_id="",
            lease_owner="",
            lease_until=None,
            created_at=now,
            updated_at=now,
        )

    async def get(self, caller: Caller, dsr_id: str) -> Dsr:
        """Return the request.

        Raises:
            NotFound: There is none in the caller's tenant.
        """
        return await self.records.transact(lambda tx: _own(tx, caller, dsr_id))

    async def list(self, caller: Caller, state: str, size: int, token: str) -> Page[Dsr]:
        """Return a page of requests, oldest first, in one state where `state` is given."""
        equal = {"tenant": caller.tenant} | ({"state": state} if state else {})
        rows = await self.records.transact(lambda tx: tx.find(Dsr, equal=equal))
        rows.sort(key=_key)
        return page(rows, size, _key, ("dsrs", *equal.values()), token)

    async def preview(self, caller: Caller, dsr_id: str) -> Preview:
        """Return what approving would destroy and what would stay, and by which rule."""
        laws = await self._laws(await self.get(caller, dsr_id))
        return await self.records.transact(lambda tx: self._preview(tx, _own(tx, caller, dsr_id), laws))

    async def _laws(self, dsr: Dsr) -> tuple[Pack, ...]:
        """Return the packs that the erasure is planned by."""
        profile = await self.people.profile(dsr.tenant, dsr.handle)
        return await self.records.transact(
            lambda tx: self.judge.laws(tx, dsr.tenant, profile, dsr.regime, self.clock.now())
        )

    def _preview(self, tx: Transaction, dsr: Dsr, laws: tuple[Pack, ...]) -> Preview:
        now = self.clock.now()
        holds = standing(tx, dsr.tenant, dsr.handle, now)
        duties = [erasure.Hold(h.rule, tuple(map(KeyClass, h.classes)), h.until) for h in holds]
        plan = erasure.plan(laws, HELD_CLASSES, now, duties)
        held = tuple(self.holdings.locate(tx, dsr.tenant, dsr.handle)) if dsr.handle else ()
        digest = hashlib.sha256(json.dumps([dsr.regime, sorted(h.name for h in held)]).encode()).hexdigest()
        return Preview(plan, held, digest[:32])

    async def approve(
        self, caller: Caller, dsr_id: str, etag: str = "", *, rehearse: bool = False
    ) -> tuple[Dsr, Receipt | None]:
        """Approve an erasure; the worker then carries it out.  Approving again changes nothing.

        Raises:
            SecondPersonRequired: The opener may not approve their own request.
            PreviewStale: What is held has changed since the preview with `etag`.
            HoldActive: A legal hold forbids the erasure while it stands.
            StateConflict: The request is refused, cancelled or done.
        """
        laws = await self._laws(await self.get(caller, dsr_id))

        def commit(tx: Transaction) -> tuple[Dsr, Receipt | None]:
            dsr = _own(tx, caller, dsr_id)
            if dsr.state in {"approved", "running", "fulfilled"}:
                return dsr, None
            if self.two_person and dsr.opened_by == caller.name:
                raise SecondPersonRequired
            refuse_held(tx, caller.tenant, dsr.handle, self.clock.now())
            if etag and etag != self._preview(tx, dsr, laws).etag:
                raise PreviewStale
            changed = self._moved(dsr, "approve", approved_by=caller.name)
            if rehearse:
                return changed, None
            tx.put(changed)
            return changed, self.ledger.record(tx, caller.tenant, "dsr.approved", caller, dsr=dsr.dsr_id)

        return await self.records.transact(commit)

    async def refuse(self, caller: Caller, dsr_id: str, reason_code: str) -> tuple[Dsr, Receipt]:
        """Refuse a request for a reason of its regime (GDPR Art. 12(4)).

        Raises:
            MessageInvalid: The regime knows no such reason for this kind of request.
            StateConflict: It is being carried out or is over.
        """
        dsr = await self.get(caller, dsr_id)
        known = self.packs[dsr.regime].rules.rights[DsrKind(dsr.kind)].exemptions
        if reason_code not in known:
            raise MessageInvalid(
                f"{dsr.regime} knows these reasons: {', '.join(known)}",
                violations=(("reason_code", "reason_code.unknown"),),
            )
        return await self._decide(caller, dsr_id, "refuse", "dsr.refused", reason_code)

    async def cancel(self, caller: Caller, dsr_id: str) -> tuple[Dsr, Receipt]:
        """Take a request back, as its subject asked.

        Raises:
            StateConflict: It is being carried out or is over.
        """
        return await self._decide(caller, dsr_id, "cancel", "dsr.cancelled", "")

    async def _decide(
        self, caller: Caller, dsr_id: str, verb: str, ty: str, reason_code: str
    ) -> tuple[Dsr, Receipt]:
        def commit(tx: Transaction) -> tuple[Dsr, Receipt]:
            dsr = _own(tx, caller, dsr_id)
            now = self.clock.now()
            keep_until = retention.expires_at("dsr_file", now, (self.packs[dsr.regime],)).expires_at
            changed = replace(self._moved(dsr, verb, reason_code=reason_code), keep_until=keep_until)
            tx.put(changed)
            receipt = self.ledger.record(tx, caller.tenant, ty, caller, dsr=dsr_id, rc=reason_code or None)
            return changed, receipt

        return await self.records.transact(commit)

    def _moved(self, dsr: Dsr, verb: str, **changes: str) -> Dsr:
        state = transition(dsr.state, verb)
        if state is None:
            raise StateConflict(detail=dsr.state)
        return replace(dsr, state=state, updated_at=self.clock.now(), **changes)  # type: ignore[arg-type] # text fields only

    async def certificate(self, caller: Caller, certificate_id: str) -> Certificate:
        """Return the certificate of a finished erasure.

        Raises:
            NotFound: There is none in the caller's tenant.
        """
        found = await self.records.transact(lambda tx: tx.get(Certificate, certificate_id))
        if found is None or found.tenant != caller.tenant:
            raise NotFound
        return found


def _own(tx: Transaction, caller: Caller, dsr_id: str) -> Dsr:
    dsr = tx.get(Dsr, dsr_id)
    if dsr is None or dsr.tenant != caller.tenant:
        raise NotFound
    return dsr


def _key(dsr: Dsr) -> str:
    return f"{dsr.received_at.isoformat(timespec='microseconds')} {dsr.dsr_id}"
