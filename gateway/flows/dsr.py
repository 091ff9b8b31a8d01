"""Receives data-subject requests, keeps their clocks, and lets people decide them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

from gateway.caller import Caller
from gateway.controllers import ControllerFacts, Controllers
from gateway.dsrs import (
    closed,
    due_key,
    end_of,
    is_open,
    laws_of,
    named,
    owing,
    own,
    pinned,
    reckoned,
    resumed,
    seat,
)
from gateway.errors import (
    ExtensionRefused,
    IdentityRequired,
    MandateRequired,
    MessageInvalid,
    NotFound,
    PreviewStale,
    SecondPersonRequired,
    StateConflict,
    SubjectBlocked,
    SubjectUnknown,
)
from gateway.holdings import Held, Holdings
from gateway.holds import end_for_request, place_for_request, refuse_held, standing
from gateway.idempotency import Idempotency, Ticket
from gateway.judge import Judge
from gateway.ledger import Ledger, Receipt
from gateway.paging import DEFAULT_SIZE, MAX_SIZE, Page, open_token, page
from gateway.people import People, Profile
from gateway.ports.clock import Clock
from gateway.ports.records import Certificate, Dsr, Records, StoredObject, Subject, Transaction
from policy import clocks, erasure
from policy.dsr import (
    DIRECT,
    EFFECTS,
    IN_PARTS,
    LOOKED_AT_FIRST,
    METHODS,
    Effect,
    Level,
    Time,
    asks_too_much,
    ended_purposes,
    extension_reasons,
    grounds,
    is_a_right,
    level_of,
    mandates,
    needed,
    refuse_extension,
    transition,
)
from policy.erasure import ErasurePlan
from policy.pack import Pack
from policy.terms import PACKAGE, DsrKind, KeyClass, Purpose, age_band

OLDEST = timedelta(days=10 * 365)
"""A request received before that is a slip of the pen."""

HELD_CLASSES = tuple(KeyClass)
"""The key classes under which data of a subject may rest."""


PREVIEW_TERM = timedelta(hours=1)
"""How long an approval may rest on a preview."""

PREVIEWS_KEPT = 3
"""How many different previews an approval may rest on: the newest."""

MOST_NAMES = 10
"""How many things a stale preview names."""


@dataclass(frozen=True, slots=True)
class DsrDraft:
    """A request as it was received; `regime` is the pack the subject invokes, empty for `gdpr`.

    `mandate` is what an agent showed who asks for the subject.  `purposes` are those a
    withdrawal or an objection names, `correction` the profile as it should be, `about`
    the earlier request of a complaint or an appeal.
    """

    subject_id: str
    kind: str
    regime: str = ""
    received_at: datetime | None = None
    request_id: str = ""
    is_by_agent: bool = False
    mandate: str = ""
    purposes: tuple[str, ...] = ()
    correction: Profile | None = None
    about: str = ""


@dataclass(frozen=True, slots=True)
class Preview:
    """What approving would do: its effects, what is held, what an erasure takes; and an etag of all that."""

    effects: tuple[Effect, ...]
    plan: ErasurePlan
    held: tuple[Held, ...]
    etag: str
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class Dsrs:
    """Opens and decides requests.  Carrying them out is other flows' work."""

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

        What needs no approval by law is approved at once.  A second request of the
        same subject for the same is linked to the first; each keeps its own proof of
        identity.  With `rehearse` nothing is kept and there is no receipt.

        Raises:
            SubjectUnknown: Nobody to open it for; whether there once was, is not told.
            MandateRequired: An agent showed no mandate that suffices.
            MessageInvalid: Unknown regime, no right of that regime, received in the future, or
                not what the kind needs.
        """
        kind, pack = DsrKind(draft.kind), self._pack(draft)
        received_at = self._received_at(draft)
        self._check(draft, kind, pack)
        ticket = await self.idempotency.ticket(
            caller.tenant, "CreateDsr", "" if rehearse else draft.request_id, _content(draft, pack)
        )
        repeated = await self.records.transact(lambda tx: self._recall(tx, caller, ticket))
        if repeated is not None:
            # Also once the erasure is done and there is no such subject any more.
            return repeated, None
        try:
            handle = (await self.people.known(caller.tenant, draft.subject_id)).handle
            key = await self.people.payload_key(caller.tenant, handle)
            wish = await self._wish(caller.tenant, handle, draft.correction)
        except SubjectBlocked as error:
            raise SubjectUnknown from error
        profile = await self.people.profile(caller.tenant, handle)
        controller = await self.controllers.now(self.records, caller.tenant)
        laws = await self.records.transact(
            lambda tx: self.judge.laws(tx, caller.tenant, profile, pack.id, self.clock.now())
        )
        dsr = replace(
            self._dsr(caller, draft, handle, pack, received_at, controller),
            policy={law.id: law.digest for law in laws},
            **wish,
        )
        if rehearse:
            return dsr, None
        asked = {"subject": f"subjects/{draft.subject_id}", "received_at": received_at.isoformat()}

        def commit(tx: Transaction) -> tuple[Dsr, Receipt | None]:
            known = self._recall(tx, caller, ticket)
            if known is not None:
                return known, None
            subject = tx.get(Subject, caller.tenant, handle)
            if subject is None or subject.state == "blocked":
                raise SubjectUnknown
            if dsr.about:
                own(tx, caller, dsr.about)
            linked = replace(dsr, duplicate_of=_first_of(tx, dsr))
            if kind in DIRECT:
                linked = owing(linked, laws, controller)
            tx.add(linked)
            self.idempotency.remember(tx, ticket, dsr.dsr_id)
            receipt = self.ledger.record(
                tx,
                caller.tenant,
                "dsr.received",
                caller,
                sealed=((key, asked),),
                dsr=dsr.dsr_id,
                dkind=dsr.kind,
                reg=pack.id,
                due=self._last_moment(tx, dsr, pack),
                pol=[{"id": law.id, "sha256": law.digest} for law in laws],
            )
            if kind in DIRECT:
                self.ledger.record(tx, caller.tenant, "dsr.approved", None, dsr=dsr.dsr_id, rcp=named(linked))
            place_for_request(tx, self.ledger, linked, pack, self.random)
            return linked, receipt

        return await self.records.transact(commit)

    def _pack(self, draft: DsrDraft) -> Pack:
        regime = draft.regime.lower() or "gdpr"
        if regime not in self.packs:
            raise MessageInvalid("no such regime", violations=(("regime", "regime.unknown"),))
        return self.packs[regime]

    def _received_at(self, draft: DsrDraft) -> datetime:
        now = self.clock.now()
        received_at = draft.received_at or now
        if received_at > now:
            raise MessageInvalid("received in the future", violations=(("receive_time", "time.future"),))
        if received_at < now - OLDEST:
            raise MessageInvalid("received too long ago", violations=(("receive_time", "time.too_far"),))
        return received_at

    def _check(self, draft: DsrDraft, kind: DsrKind, pack: Pack) -> None:
        if not is_a_right(pack, kind):
            raise MessageInvalid(f"{pack.id} has no such right", violations=(("kind", "kind.no_right"),))
        if draft.is_by_agent and draft.mandate not in mandates(pack):
            raise MandateRequired(mandates=" ".join(mandates(pack)))
        fits = {
            "mandate": draft.is_by_agent or not draft.mandate,
            "correction": (draft.correction is not None) is (kind is DsrKind.CORRECTION),
            "purposes": not draft.purposes or kind in {DsrKind.WITHDRAWAL, DsrKind.OBJECTION},
            "about": not draft.about or kind in {DsrKind.COMPLAINT, DsrKind.APPEAL},
        }
        wrong = tuple((name, f"{name}.not_for_kind") for name, fit in fits.items() if not fit)
        if kind is DsrKind.CORRECTION and draft.correction is None:
            wrong = (("correction", "correction.required"),)
        if any(purpose not in set(Purpose) for purpose in draft.purposes):
            wrong = (*wrong, ("purposes", "purpose.unknown"))
        if wrong:
            raise MessageInvalid("not what that kind of request needs", violations=wrong)

    async def _wish(self, tenant: str, handle: str, profile: Profile | None) -> dict[str, Any]:
        """Return the corrected profile, sealed as it will rest."""
        if profile is None:
            return {}
        key_id, sealed = await self.people.seal_profile(tenant, handle, profile)
        age = age_band(profile.age(self.clock.now())).value
        return {"wish_key": key_id, "sealed_wish": sealed, "wish_age": age}

    def _recall(self, tx: Transaction, caller: Caller, ticket: Ticket | None) -> Dsr | None:
        known = self.idempotency.recall(tx, ticket)
        return own(tx, caller, known) if known is not None else None

    def _dsr(
        self,
        caller: Caller,
        draft: DsrDraft,
        handle: str,
        pack: Pack,
        received_at: datetime,
        controller: ControllerFacts,
    ) -> Dsr:
        # A law that counts its days in a place of its own (CCPA: California) does so wherever we are.
        zone, calendar = seat(pack, controller)
        due = clocks.due(pack, draft.kind, received_at, zone, calendar)
        now, dsr_id = self.clock.now(), self.random(16).hex()
        due_on = due.respond_by.isoformat()
        return Dsr(
            dsr_id=dsr_id,
            tenant=caller.tenant,
            handle=handle,
            kind=draft.kind,
            regime=pack.id,
            state="approved" if DsrKind(draft.kind) in DIRECT else "received",
            step=0,
            opened_by=caller.name,
            approved_by="",
            reason_code="",
            received_at=received_at,
            due_on=due_on,
            extended_due_on=due.extended_respond_by.isoformat() if due.extended_respond_by else "",
            internal_target_on=due.internal_target.isoformat(),
            counts={},
            certificate_id="",
            lease_owner="",
            lease_until=None,
            created_at=now,
            updated_at=now,
            ack_on=due.ack_by.isoformat() if due.ack_by else "",
            due_key=due_key(due_on, dsr_id),
            mandate=draft.mandate,
            about=draft.about,
            purposes=draft.purposes,
        )

    def _last_moment(self, tx: Transaction, dsr: Dsr, pack: Pack) -> int:
        zone, _ = seat(pack, self.controllers.at(tx, dsr.tenant))
        return end_of(date.fromisoformat(dsr.due_on), zone)

    async def get(self, caller: Caller, dsr_id: str) -> Dsr:
        """Return the request.

        Raises:
            NotFound: There is none in the caller's tenant.
        """
        return await self.records.transact(lambda tx: own(tx, caller, dsr_id))

    async def show(self, caller: Caller, dsr_id: str) -> tuple[Dsr, tuple[str, ...]]:
        """Return the request, and the methods by which identity may still have to be shown; see `get`."""

        def look(tx: Transaction) -> tuple[Dsr, tuple[str, ...]]:
            dsr = own(tx, caller, dsr_id)
            return dsr, sufficient(dsr, pinned(tx, dsr, self.packs))

        return await self.records.transact(look)

    async def list(self, caller: Caller, state: str, size: int, token: str) -> Page[Dsr]:
        """Return a page of requests, oldest first, in one state where `state` is given."""
        equal = {"tenant": caller.tenant} | ({"state": state} if state else {})
        query = ("dsrs", *equal.values())
        after = open_token(token, query)
        since = {"received_at": _moment(after) - timedelta(microseconds=1)} if after else {}

        def read(tx: Transaction) -> list[Dsr]:
            # Those of the very instant that the last page ended with are read again, and left out.
            limit = 2 * min(size or DEFAULT_SIZE, MAX_SIZE) + 1
            while True:
                rows = tx.find(Dsr, equal=equal, above=since, order_by=("received_at", "dsr_id"), limit=limit)
                if len(rows) < limit or after is None or _key(rows[limit // 2]) > after:
                    return rows
                limit *= 2

        return page(await self.records.transact(read), size, _key, query, token)

    async def verify(
        self, caller: Caller, dsr_id: str, method: str, *, is_shown: bool = True
    ) -> tuple[Dsr, Receipt]:
        """Note that identity was shown, or that it was not; once there is doubt, it must be.

        Where a law counts anew from the proof it asked for (UK GDPR Art. 12A), the clock
        begins again; elsewhere a check stops nothing (U-06; 11 CCR 7021(b)).

        Raises:
            MessageInvalid: An unknown method, one that asks for more than is needed, or one too weak.
            StateConflict: Nothing is to be verified: it is approved or over.
        """

        def commit(tx: Transaction) -> tuple[Dsr, Receipt]:
            dsr = own(tx, caller, dsr_id)
            if method not in METHODS:
                raise MessageInvalid(
                    f"the methods are {', '.join(METHODS)}", violations=(("method", "method.unknown"),)
                )
            pack, kind = pinned(tx, dsr, self.packs), DsrKind(dsr.kind)
            if asks_too_much(pack, kind, method):
                raise MessageInvalid(
                    "asks for more than is needed", violations=(("method", "method.asks_too_much"),)
                )
            if is_shown and level_of(method) < _needed(dsr, pack):
                raise MessageInvalid("does not make sure enough", violations=(("method", "method.too_weak"),))
            changed = self._moved(dsr, "verify" if is_shown else "ask_identity")
            due = None
            if is_shown:
                changed = replace(changed, verified_by=method)
                if dsr.state == "identity_pending":
                    changed, due = self._counted_anew(tx, changed, pack)
            else:
                changed = replace(changed, verified_by="", failures=dsr.failures + 1)
            tx.put(changed)
            return changed, self.ledger.record(
                tx,
                caller.tenant,
                "dsr.verified",
                caller,
                dsr=dsr_id,
                meth=method,
                out="shown" if is_shown else "not_shown",
                due=due,
            )

        return await self.records.transact(commit)

    def _counted_anew(self, tx: Transaction, dsr: Dsr, pack: Pack) -> tuple[Dsr, int | None]:
        """Return the request with the days as they are once identity was shown today, where that counts."""
        controller = self.controllers.at(tx, dsr.tenant)
        zone, _ = seat(pack, controller)
        today = self.clock.now().astimezone(zone).date().isoformat()
        changed = reckoned(replace(dsr, clock={**dsr.clock, "identity": today}), pack, controller)
        if dsr.extended_at is not None or changed.due_on == dsr.due_on:
            return dsr, None
        return changed, self._last_moment(tx, changed, pack)

    async def pause(self, caller: Caller, dsr_id: str) -> tuple[Dsr, Receipt | None]:
        """Stop the clock while the subject is asked what they mean; again, it changes nothing.

        Raises:
            StateConflict: The law knows no such pause for that kind (detail `no_pause`), the time is over
                (`too_late`), or the request is approved or over (its state).

        Rule:
            UK GDPR Art. 12A: what is reasonably required to identify the information or processing.
        """

        def commit(tx: Transaction) -> tuple[Dsr, Receipt | None]:
            dsr = own(tx, caller, dsr_id)
            if "asked_at" in dsr.clock:
                return dsr, None
            pack, now = pinned(tx, dsr, self.packs), self.clock.now()
            changed = self._moved(dsr, "pause")
            if not clocks.may_pause(pack, dsr.kind):
                raise StateConflict(detail="no_pause")
            if int(now.timestamp() * 1000) > self._last_moment(tx, dsr, pack):
                raise StateConflict(detail="too_late")
            changed = replace(changed, clock={**dsr.clock, "asked_at": now.isoformat()})
            tx.put(changed)
            return changed, self.ledger.record(tx, caller.tenant, "dsr.paused", caller, dsr=dsr_id)

        return await self.records.transact(commit)

    async def resume(self, caller: Caller, dsr_id: str) -> tuple[Dsr, Receipt | None]:
        """Let the clock go on, as the subject has answered; where it goes, nothing changes.

        Raises:
            StateConflict: The request is being carried out or is over.
        """

        def commit(tx: Transaction) -> tuple[Dsr, Receipt | None]:
            dsr = own(tx, caller, dsr_id)
            if "asked_at" not in dsr.clock:
                return dsr, None
            pack = pinned(tx, dsr, self.packs)
            controller = self.controllers.at(tx, caller.tenant)
            changed = resumed(self._moved(dsr, "resume"), self.clock.now(), pack, controller)
            tx.put(changed)
            receipt = self.ledger.record(
                tx,
                caller.tenant,
                "dsr.resumed",
                caller,
                dsr=dsr_id,
                due=self._last_moment(tx, changed, pack),
            )
            return changed, receipt

        return await self.records.transact(commit)

    async def extend(self, caller: Caller, dsr_id: str, reason: str) -> tuple[Dsr, Receipt]:
        """Extend the time for an answer, once, while the first limit still runs (GDPR Art. 12(3)).

        Raises:
            ExtensionRefused: Not in that regime, not for that reason, not again, or too late.
            StateConflict: It is being carried out or is over, or its clock stands (detail `paused`).
        """

        def commit(tx: Transaction) -> tuple[Dsr, Receipt]:
            dsr = own(tx, caller, dsr_id)
            pack = pinned(tx, dsr, self.packs)
            changed = self._moved(dsr, "extend")
            if "asked_at" in dsr.clock:
                raise StateConflict("the clock stands", detail="paused")
            zone, _ = seat(pack, self.controllers.at(tx, dsr.tenant))
            later = date.fromisoformat(dsr.extended_due_on) if dsr.extended_due_on else None
            time = Time(date.fromisoformat(dsr.due_on), later, dsr.extended_at is not None)
            now = self.clock.now()
            refused = refuse_extension(pack, time, reason, now.astimezone(zone).date())
            if refused is not None:
                raise ExtensionRefused(detail=refused.value, reasons=" ".join(extension_reasons(pack)))
            longer = replace(
                changed,
                due_on=dsr.extended_due_on,
                due_key=due_key(dsr.extended_due_on, dsr_id),
                extended_at=now,
                extension_reason=reason,
            )
            tx.put(longer)
            receipt = self.ledger.record(
                tx,
                caller.tenant,
                "dsr.extended",
                caller,
                dsr=dsr_id,
                rc=reason,
                due=self._last_moment(tx, longer, pack),
            )
            return longer, receipt

        return await self.records.transact(commit)

    async def preview(self, caller: Caller, dsr_id: str) -> Preview:
        """Return what approving would do, what would be destroyed and what would stay, and by which rule.

        What was shown is remembered, so that a stale approval can be told what has changed.
        """
        laws = await self._laws(caller, dsr_id)

        def look(tx: Transaction) -> Preview:
            dsr = own(tx, caller, dsr_id)
            seen = self._preview(tx, dsr, laws)
            if transition(dsr.state, "approve") is not None:
                noted = {
                    "until": seen.ends_at.isoformat(),
                    "names": sorted(held.name for held in seen.held),
                }
                # The newest last; whoever approves may have looked before somebody else did.
                before = {etag: shown for etag, shown in dsr.preview.items() if etag != seen.etag}
                kept = dict(list(before.items())[1 - PREVIEWS_KEPT :])
                tx.put(replace(dsr, preview={**kept, seen.etag: noted}))
            return seen

        return await self.records.transact(look)

    async def _laws(self, caller: Caller, dsr_id: str) -> tuple[Pack, ...]:
        dsr = await self.get(caller, dsr_id)
        return await laws_of(dsr, self.records, self.people, self.judge, self.clock)

    def _preview(self, tx: Transaction, dsr: Dsr, laws: tuple[Pack, ...]) -> Preview:
        now, kind = self.clock.now(), DsrKind(dsr.kind)
        plan = ErasurePlan((), ())
        if kind is DsrKind.ERASURE:
            holds = standing(tx, dsr.tenant, dsr.handle, now)
            duties = [erasure.Hold(h.rule, tuple(map(KeyClass, h.classes)), h.until) for h in holds]
            plan = erasure.plan(laws, HELD_CLASSES, now, duties)
        held = tuple(self.holdings.locate(tx, dsr.tenant, dsr.handle)) if dsr.handle else ()
        named = [dsr.regime, dsr.kind, sorted(plan.erase), sorted(h.name for h in held)]
        digest = hashlib.sha256(json.dumps(named).encode()).hexdigest()
        return Preview(EFFECTS[kind], plan, held, digest[:32], now + PREVIEW_TERM)

    async def approve(
        self, caller: Caller, dsr_id: str, etag: str = "", *, rehearse: bool = False
    ) -> tuple[Dsr, Receipt | None]:
        """Approve a request; a worker then carries it out.  Approving again changes nothing.

        From here on the controller's recipients whom the laws name are to be told (`flows/propagate.py`).

        Raises:
            IdentityRequired: Who asks is not sure enough for that.
            SecondPersonRequired: The opener may not approve their own request.
            PreviewStale: The preview with `etag` is too old, or what is held has changed since; or there
                is no `etag`, and the request destroys or discloses.
            HoldActive: A legal hold forbids the erasure while it stands.
            StateConflict: The request is refused, cancelled or done.
        """
        laws = await self._laws(caller, dsr_id)

        def commit(tx: Transaction) -> tuple[Dsr, Receipt | None]:
            dsr = own(tx, caller, dsr_id)
            if dsr.state in {"approved", "running", "fulfilled"}:
                return dsr, None
            pack = pinned(tx, dsr, self.packs)
            if is_open(dsr) and level_of(dsr.verified_by) < _needed(dsr, pack):
                raise IdentityRequired(
                    needed=_needed(dsr, pack).name.lower(), methods=" ".join(sufficient(dsr, pack))
                )
            changed = replace(self._moved(dsr, "approve", approved_by=caller.name), preview={})
            if self.two_person and dsr.opened_by == caller.name:
                raise SecondPersonRequired
            if dsr.kind == DsrKind.ERASURE:
                refuse_held(tx, caller.tenant, dsr.handle, self.clock.now())
            if etag or dsr.kind in LOOKED_AT_FIRST:
                self._check_fresh(dsr, self._preview(tx, dsr, laws), etag)
            if rehearse:
                return changed, None
            changed = owing(changed, laws, self.controllers.at(tx, caller.tenant))
            tx.put(changed)
            receipt = self.ledger.record(
                tx, caller.tenant, "dsr.approved", caller, dsr=dsr.dsr_id, rcp=named(changed)
            )
            return changed, receipt

        return await self.records.transact(commit)

    def _check_fresh(self, dsr: Dsr, now: Preview, etag: str) -> None:
        seen = dsr.preview.get(etag)
        if seen is None:
            raise PreviewStale("nobody was shown that", detail="unknown" if etag else "missing")
        if etag != now.etag:
            names, before = {held.name for held in now.held}, set(seen["names"])
            differs = {"added": names - before, "gone": before - names}
            told = {name: _names(things) for name, things in differs.items() if things}
            raise PreviewStale(detail="changed", **told)
        if self.clock.now() > datetime.fromisoformat(seen["until"]):
            raise PreviewStale("the preview is too old", detail="expired")

    async def refuse(self, caller: Caller, dsr_id: str, reason_code: str) -> tuple[Dsr, Receipt]:
        """Refuse a request for a reason of its regime (GDPR Art. 12(4)).

        Raises:
            MessageInvalid: The regime knows no such reason for this kind of request.
            StateConflict: It is being carried out or is over.
        """
        dsr, pack = await self.records.transact(
            lambda tx: (found := own(tx, caller, dsr_id), pinned(tx, found, self.packs))
        )
        self._check_ground(pack, DsrKind(dsr.kind), reason_code)
        return await self._decide(caller, dsr_id, "refuse", "dsr.refused", reason_code)

    async def refuse_part(
        self, caller: Caller, dsr_id: str, reason_code: str, parts: Sequence[str]
    ) -> tuple[Dsr, Receipt | None]:
        """Refuse a part of a request for a reason of its regime; the rest goes on to its approval.

        `parts` are pictures of the subject by their id (access, portability) or purposes that the
        request would end (objection).  What was refused before stays refused; only that changes nothing.

        Raises:
            MessageInvalid: No such reason, no such part, or nothing would be left of the request.
            StateConflict: It is approved or over.
        """

        def commit(tx: Transaction) -> tuple[Dsr, Receipt | None]:
            dsr = own(tx, caller, dsr_id)
            kind, pack = DsrKind(dsr.kind), pinned(tx, dsr, self.packs)
            changed = self._moved(dsr, "refuse_part")
            self._check_ground(pack, kind, reason_code)
            known = _parts_of(tx, dsr)
            if not set(parts) <= known:
                raise MessageInvalid("no part of it", violations=(("parts", "parts.unknown"),))
            new = sorted(set(parts) - dsr.refused_parts.keys())
            if kind is DsrKind.OBJECTION and not known - dsr.refused_parts.keys() - set(new):
                raise MessageInvalid("refuse it as a whole", violations=(("parts", "parts.all"),))
            if not new:
                return dsr, None
            refused = {**dsr.refused_parts, **dict.fromkeys(new, reason_code)}
            changed = replace(changed, refused_parts=refused, preview={})
            tx.put(changed)
            is_objection = kind is DsrKind.OBJECTION
            receipt = self.ledger.record(
                tx,
                caller.tenant,
                "dsr.partrefused",
                caller,
                dsr=dsr_id,
                rc=reason_code,
                objs=None if is_objection else new,
                pur=new if is_objection else None,
            )
            return changed, receipt

        return await self.records.transact(commit)

    @staticmethod
    def _check_ground(pack: Pack, kind: DsrKind, reason_code: str) -> None:
        known = grounds(pack, kind)
        if reason_code not in known:
            raise MessageInvalid(
                f"{pack.id} knows these reasons: {', '.join(known)}",
                violations=(("reason_code", "reason_code.unknown"),),
            )

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
            dsr = own(tx, caller, dsr_id)
            moved = self._moved(dsr, verb, reason_code=reason_code)
            changed = closed(moved, moved.state, self.clock.now(), pinned(tx, dsr, self.packs))
            tx.put(changed)
            receipt = self.ledger.record(tx, caller.tenant, ty, caller, dsr=dsr_id, rc=reason_code or None)
            if verb == "cancel":
                end_for_request(tx, self.ledger, changed)
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


def _parts_of(tx: Transaction, dsr: Dsr) -> set[str]:
    """Return what may be refused of a request by itself.

    Raises:
        MessageInvalid: Of its kind there are no parts.
    """
    kind = DsrKind(dsr.kind)
    if kind not in IN_PARTS:
        raise MessageInvalid("it has no parts", violations=(("parts", "parts.not_for_kind"),))
    if kind is DsrKind.OBJECTION:
        return set(ended_purposes(kind, tuple(dsr.purposes)))
    mine = {"tenant": dsr.tenant, "handle": dsr.handle}
    objects = tx.find(StoredObject, equal=mine, among={"state": ["live", "held"]})
    return {stored.object_id for stored in objects if stored.kind != PACKAGE}


def _first_of(tx: Transaction, dsr: Dsr) -> str:
    """Return the oldest open request of the same subject for the same, or nothing."""
    same = {"tenant": dsr.tenant, "handle": dsr.handle}
    rows = tx.find(Dsr, equal=same, order_by=("received_at", "dsr_id"))
    alike = [r for r in rows if (r.kind, r.regime, r.purposes) == (dsr.kind, dsr.regime, dsr.purposes)]
    return next((row.dsr_id for row in alike if is_open(row) and not row.duplicate_of), "")


def _needed(dsr: Dsr, pack: Pack) -> Level:
    is_doubted = dsr.failures > 0 or dsr.state == "identity_pending"
    return needed(pack, DsrKind(dsr.kind), is_doubted=is_doubted, mandate=dsr.mandate)


def sufficient(dsr: Dsr, pack: Pack) -> tuple[str, ...]:
    """Return the methods by which identity may still have to be shown, none of which asks too much."""
    level, kind = _needed(dsr, pack), DsrKind(dsr.kind)
    if level_of(dsr.verified_by) >= level or not is_open(dsr):
        return ()
    return tuple(m for m, sure in METHODS.items() if sure >= level and not asks_too_much(pack, kind, m))


def _names(things: set[str]) -> str:
    """Return some things by name, and how many more there are."""
    shown = sorted(things)[:MOST_NAMES]
    more = len(things) - len(shown)
    return " ".join(shown) + (f" and {more} more" if more else "")


def _content(draft: DsrDraft, pack: Pack) -> bytes:
    wish = draft.correction.to_json().decode() if draft.correction else ""
    more = [draft.is_by_agent, draft.mandate, list(draft.purposes), wish, draft.about]
    return json.dumps([draft.subject_id, draft.kind, pack.id, *more]).encode()


def _moment(key: str) -> datetime:
    """Return the instant in a key of `_key`.

    Raises:
        MessageInvalid: It is none.
    """
    try:
        return datetime.fromisoformat(key.partition(" ")[0])
    except ValueError as error:
        raise MessageInvalid("page_token", violations=(("page_token", "page_token.unknown"),)) from error


def _key(dsr: Dsr) -> str:
    return f"{dsr.received_at.isoformat(timespec='microseconds')} {dsr.dsr_id}"
