"""Records consent, takes it back, and answers whether it stands."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.caller import Caller
from gateway.errors import (
    MessageInvalid,
    NotFound,
    NoticeUnknown,
    PolicyDenied,
    SubjectBlocked,
    SubjectUnknown,
)
from gateway.idempotency import Idempotency
from gateway.judge import SIGNATURE, Case, Judge
from gateway.ledger import Ledger, Receipt
from gateway.objects import reap
from gateway.paging import Page, page
from gateway.people import People, Profile, evidence_binding
from gateway.ports.clock import Clock
from gateway.ports.objects import ObjectStore
from gateway.ports.records import Consent, Job, Notice, Records, Signal, Subject, Transaction
from gateway.vault.custody import HeldKey
from gateway.vault.keys import open_column, seal_column
from gateway.vault.payload import PayloadKey
from gateway.withdrawal import Ended, end_consents, note_signal, of_purpose
from policy.codes import TIER
from policy.consent import Decision
from policy.consent_state import NOTHING, STANDING, ConsentVerb, state_at, transition
from policy.terms import KeyClass

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LONGEST = timedelta(days=100 * 365)
"""Nobody consents for longer; and no date beyond it is one that clocks can reckon with."""


@dataclass(frozen=True, slots=True)
class ConsentDraft:
    """What a subject agreed to, as the controller's service saw it.

    `evidence` holds what only proof needs (channel, UI version, act, signature,
    guardian); it rests sealed.  `notice_sha256` is the digest of the text that
    was shown and must be that of the published version.
    """

    subject_id: str
    purpose: str
    form: str
    flags: tuple[str, ...]
    notice_id: str
    notice_version: int
    notice_language: str
    notice_sha256: str
    given_at: datetime | None
    expires_at: datetime | None
    given_by: str
    via: str
    term_shown: str
    evidence: Mapping[str, Any]
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """What a withdrawal did.

    Attributes:
        receipt: Its event in the log; None where nothing stood any more.
        stopping: Jobs that had not confirmed that they stopped when the patience was over.
    """

    consents: tuple[Consent, ...]
    receipt: Receipt | None
    stopping: tuple[str, ...] = ()

    @property
    def is_repeated(self) -> bool:
        """Whether all of it had ended before, so that nothing was changed."""
        return bool(self.consents) and self.receipt is None


@dataclass(frozen=True, slots=True)
class _Which:
    """The consents that are meant: one, that of a receipt, or all of a subject for a purpose."""

    consent_id: str = ""
    receipt_id: str = ""
    subject_id: str = ""
    purpose: str = ""


@dataclass(frozen=True, slots=True)
class Consents:
    """Consent per subject and purpose; a withdrawal acts at once, also on what runs."""

    records: Records
    people: People
    judge: Judge
    ledger: Ledger
    idempotency: Idempotency
    objects: ObjectStore
    clock: Clock
    poll_s: float
    patience: timedelta = timedelta(seconds=2)
    """How long a withdrawal waits for workers to say that they have stopped."""
    random: Callable[[int], bytes] = os.urandom

    async def record(self, caller: Caller, draft: ConsentDraft) -> tuple[Consent, Receipt | None]:
        """Keep proof of a consent (GDPR Art. 7(1)); the same purpose's older consent is superseded.

        Raises:
            SubjectUnknown, SubjectBlocked: Nobody to record it for.
            NoticeUnknown: The text shown was not published, or is not the text of that version.
            MessageInvalid: Given in the future, or expired before it was given.
            PolicyDenied: It does not prove what the packs that apply ask for; `violations` names
                each field and the rule behind it.
        """
        person = await self.people.find(caller.tenant, draft.subject_id)
        self._check_times(draft)
        held = await self.people.custody.obtain(caller.tenant, person.subject.handle, KeyClass.EVIDENCE.value)
        key = await self.people.payload_key(caller.tenant, person.subject.handle)
        content = json.dumps(_content(draft), sort_keys=True).encode()
        ticket = await self.idempotency.ticket(caller.tenant, "RecordConsent", draft.request_id, content)
        consent_id = self.random(16).hex()

        def commit(tx: Transaction) -> tuple[Consent, Receipt | None]:
            known = self.idempotency.recall(tx, ticket)
            if known is not None:
                standing = tx.get(Consent, known)
                if standing is not None:
                    return standing, None
            subject = tx.get(Subject, caller.tenant, person.subject.handle)
            if subject is None:
                raise SubjectUnknown
            if subject.state == "blocked":
                raise SubjectBlocked
            notice = self._notice(tx, caller.tenant, draft)
            regimes = self.judge.regimes(tx, caller.tenant, person.profile, self.clock.now())
            bare = self._consent(caller.tenant, consent_id, person.subject.handle, draft, notice, held)
            self._need_proof(tx, bare, person.profile, _held(bare, notice, draft.evidence))
            ends = self.judge.proof_term(regimes, bare.expires_at) if bare.expires_at else None
            consent = self._in_its_place(tx, replace(bare, regimes=regimes, keep_until=ends))
            receipt = self._log(tx, caller, consent, notice, draft, key)
            consent = self._marked(tx, caller, replace(consent, event_id=receipt.event_id), notice)
            tx.add(consent)
            self.idempotency.remember(tx, ticket, consent_id)
            return consent, receipt

        return await self.records.transact(commit)

    def _check_times(self, draft: ConsentDraft) -> None:
        now = self.clock.now()
        if draft.given_at is not None and draft.given_at > now:
            raise MessageInvalid("given in the future", violations=(("consent.give_time", "time.future"),))
        if draft.expires_at is not None and draft.expires_at <= (draft.given_at or now):
            raise MessageInvalid("expired already", violations=(("consent.expire_time", "time.past"),))
        if draft.expires_at is not None and draft.expires_at > now + LONGEST:
            raise MessageInvalid("ends too late", violations=(("consent.expire_time", "time.too_far"),))

    def _need_proof(self, tx: Transaction, consent: Consent, profile: Profile, held: Collection[str]) -> None:
        found = self.judge.lacks(tx, consent.tenant, profile, consent, held)
        if not found:
            return
        first = min(found, key=lambda lack: TIER[lack.reason_code])
        named = {lack.field: "; ".join(lack.citations) for lack in reversed(found)}
        raise PolicyDenied(
            first.reason_code,
            pack=first.pack,
            citations=first.citations,
            violations=tuple((f"consent.{_PATHS.get(name, name)}", cited) for name, cited in named.items()),
        )

    def _in_its_place(self, tx: Transaction, consent: Consent) -> Consent:
        """Supersede the consents for the purpose that were given before; return this one as it then is."""
        now = self.clock.now()
        rows = tx.find(Consent, equal=of_purpose(consent), order_by=("given_at", "consent_id"))
        before = [row for row in rows if row.given_at <= consent.given_at]
        stands = any(state_at(row.state, row.expires_at, consent.given_at) in STANDING for row in before)
        for older in before:
            tx.put(
                replace(
                    older,
                    state=transition(older.state, ConsentVerb.SUPERSEDE) or older.state,
                    superseded_by=consent.consent_id,
                    keep_until=older.keep_until or self.judge.proof_term(older.regimes, now),
                    renew_at=None,
                )
            )
        verb = ConsentVerb.REAFFIRM if stands else ConsentVerb.GIVE
        made = replace(consent, state=transition(NOTHING, verb) or consent.state)
        if len(before) < len(rows):
            # It comes late: what was said after it stands.
            superseded = transition(made.state, ConsentVerb.SUPERSEDE) or made.state
            return replace(made, state=superseded, superseded_by=rows[-1].consent_id)
        return made

    def _marked(self, tx: Transaction, caller: Caller, consent: Consent, shown: Notice) -> Consent:
        """Mark a consent to a text that has been replaced meanwhile, where what it states has changed."""
        newest = self._newest(tx, consent)
        if consent.superseded_by or newest.version <= consent.notice_version:
            return consent
        if not self.judge.calls_for_renewal(consent, shown, newest):
            return consent
        self.ledger.record(
            tx, consent.tenant, "consent.renewal", caller, con=consent.consent_id, ntc=newest.thing_id
        )
        return replace(consent, renew_at=self.clock.now())

    @staticmethod
    def _newest(tx: Transaction, consent: Consent) -> Notice:
        equal = {
            "tenant": consent.tenant,
            "notice_id": consent.notice_id,
            "language": consent.notice_language,
        }
        return tx.find(Notice, equal=equal, order_by=("-version",), limit=1)[0]

    def _notice(self, tx: Transaction, tenant: str, draft: ConsentDraft) -> Notice:
        notice = tx.get(Notice, tenant, draft.notice_id, draft.notice_version, draft.notice_language)
        if notice is None:
            raise NoticeUnknown
        if draft.notice_sha256 and draft.notice_sha256 != notice.sha256:
            raise NoticeUnknown("the text shown is not that of the version", detail="sha256_differs")
        if draft.purpose not in notice.purposes:
            raise NoticeUnknown("the notice does not name the purpose", detail="purpose_not_named")
        return notice

    def _consent(
        self, tenant: str, consent_id: str, handle: str, draft: ConsentDraft, notice: Notice, held: HeldKey
    ) -> Consent:
        bare = Consent(
            consent_id=consent_id,
            tenant=tenant,
            handle=handle,
            key_id=held.record.key_id,
            purpose=draft.purpose,
            form=draft.form,
            flags=tuple(sorted({*draft.flags, *([SIGNATURE] if draft.evidence.get("signature") else [])})),
            given_by=draft.given_by,
            via=draft.via,
            term_shown=draft.term_shown,
            notice_id=notice.notice_id,
            notice_version=notice.version,
            notice_language=notice.language,
            notice_sha256=notice.sha256,
            given_at=draft.given_at or self.clock.now(),
            expires_at=draft.expires_at,
            withdrawn_at=None,
            withdrawn_via="",
            superseded_by="",
            regimes=(),
            sealed_evidence=b"",
            receipt_id=self.random(16).hex(),
        )
        evidence = json.dumps(dict(draft.evidence), sort_keys=True).encode()
        return replace(bare, sealed_evidence=seal_column(held.key, evidence, evidence_binding(bare)))

    def _log(
        self,
        tx: Transaction,
        caller: Caller,
        consent: Consent,
        notice: Notice,
        draft: ConsentDraft,
        key: PayloadKey,
    ) -> Receipt:
        expires = int(consent.expires_at.timestamp() * 1000) if consent.expires_at else None
        return self.ledger.record(
            tx,
            caller.tenant,
            "consent.recorded",
            caller,
            con=consent.consent_id,
            pur=consent.purpose,
            form=consent.form,
            flags=list(consent.flags),
            ntc=notice.thing_id,
            exp=expires,
            minor="guardian" if draft.evidence.get("guardian") else "own",
            sealed=((key, _shown(consent)),),
        )

    async def withdraw(
        self,
        caller: Caller,
        consent_id: str = "",
        subject_id: str = "",
        purpose: str = "",
        channel: str = "",
        receipt_id: str = "",
    ) -> Withdrawn:
        """Withdraw one consent, by its id or its receipt's, or all of a subject for a purpose.

        From the commit on nothing more is permitted.  Waiting jobs end, running ones stop within
        a poll, and what was kept for the purpose is destroyed unless another consent asks to keep
        it (GDPR Art. 7(3), 17(1)(b)).  The answer waits until no worker is about to call a backend
        any more, and names the jobs that had not said so in time.  Withdrawing again changes nothing.

        Raises:
            NotFound: No such consent or receipt.
            SubjectUnknown, SubjectBlocked: No such subject.
        """
        which = _Which(consent_id, receipt_id, subject_id, purpose)
        return await self._end(caller, which, ConsentVerb.WITHDRAW, channel)

    async def invalidate(self, caller: Caller, consent_id: str) -> Withdrawn:
        """Note that a consent was never valid, and stop what rests on it, as a withdrawal does.

        Raises:
            NotFound: No such consent.
        """
        return await self._end(caller, _Which(consent_id), ConsentVerb.INVALIDATE)

    async def _end(self, caller: Caller, which: _Which, verb: ConsentVerb, channel: str = "") -> Withdrawn:
        handle = ""
        if which.subject_id:
            handle = (await self.people.known(caller.tenant, which.subject_id)).handle

        def commit(tx: Transaction) -> Ended:
            chosen = _chosen(tx, caller.tenant, which, handle, verb)
            return end_consents(tx, self.judge, chosen, verb, caller, channel)

        ended = await self.records.transact(commit)
        for object_id in ended.doomed:
            await reap(self.records, self.objects, object_id)
        stopping = await self._until_stopped(ended.running)
        return Withdrawn(tuple(ended.consents), ended.receipt, stopping)

    async def _until_stopped(self, job_ids: Sequence[str]) -> tuple[str, ...]:
        """Wait until workers have let go of the jobs, or their leases have run out; return those left.

        A worker that was permitted to forward a picture just before may be about to do so.
        """

        def look(tx: Transaction) -> tuple[str, ...]:
            now = self.clock.now()
            jobs = [job for job_id in job_ids if (job := tx.get(Job, job_id)) is not None]
            return tuple(
                job.job_id
                for job in jobs
                if job.state == "running" and job.lease_until is not None and job.lease_until > now
            )

        looks_left = int(self.patience.total_seconds() / self.poll_s)
        left = tuple(job_ids)
        while left:
            left = await self.records.transact(look)
            if not left or looks_left <= 0:
                break
            looks_left -= 1
            await asyncio.sleep(self.poll_s)
        return left

    async def get(self, caller: Caller, consent_id: str) -> Consent:
        """Return the consent.

        Raises:
            NotFound: There is none in the caller's tenant.
        """
        consent = await self.records.transact(lambda tx: tx.get(Consent, consent_id))
        if consent is None or consent.tenant != caller.tenant:
            raise NotFound
        return consent

    async def evidence(self, consent: Consent) -> Mapping[str, Any]:
        """Return the opened evidence of a consent."""
        key = await self.people.custody.open_by_id(consent.key_id)
        opened: dict[str, Any] = json.loads(
            open_column(key, consent.sealed_evidence, evidence_binding(consent))
        )
        return opened

    async def list(
        self, caller: Caller, subject_id: str, size: int, token: str, *, due_for_renewal: bool = False
    ) -> Page[Consent]:
        """Return a page of a subject's consents, oldest first, withdrawn ones included.

        With `due_for_renewal` only those that are to be asked for anew; without a subject, everybody's.

        Raises:
            MessageInvalid: Neither a subject nor `due_for_renewal`.
        """
        equal: dict[str, str] = {"tenant": caller.tenant}
        if subject_id:
            equal["handle"] = (await self.people.known(caller.tenant, subject_id)).handle
        elif not due_for_renewal:
            raise MessageInvalid("whose consents?", violations=(("subject", "subject.required"),))
        marked: dict[str, Any] = {"above": {"renew_at": _EPOCH}} if due_for_renewal else {}
        rows = await self.records.transact(lambda tx: tx.find(Consent, equal=equal, **marked))
        if due_for_renewal:
            now = self.clock.now()
            rows = [row for row in rows if state_at(row.state, row.expires_at, now) in STANDING]
        rows.sort(key=_key)
        return page(rows, size, _key, ("consents", str(due_for_renewal), *equal.values()), token)

    async def check(self, caller: Caller, subject_id: str, purpose: str) -> Decision:
        """Return what policy would decide now, without a trace in the log: nothing is processed."""
        person = await self.people.find(caller.tenant, subject_id)
        case = Case(person.profile, purpose, self.clock.now())
        verdict = await self.records.transact(
            lambda tx: self.judge.decide(tx, caller.tenant, person.subject.handle, case)
        )
        return verdict.decision

    async def heed_gpc(self, caller: Caller, subject_id: str) -> None:
        """Record that a call came with Global Privacy Control, once: it stands until it is recalled.

        The other signal stays as it is, and a later call without this one does not undo it
        (11 CCR 7025).
        """
        known = await self.people.known(caller.tenant, subject_id)

        def commit(tx: Transaction) -> None:
            standing = tx.get(Signal, caller.tenant, known.handle)
            if standing is None or not standing.gpc:
                limit_spi = standing is not None and standing.limit_spi
                self._signal(tx, caller, known.handle, gpc=True, limit_spi=limit_spi)

        await self.records.transact(commit)

    async def signal(self, caller: Caller, subject_id: str, *, gpc: bool, limit_spi: bool) -> Receipt:
        """Record opt-out signals (11 CCR 7025, 7027); they act from the commit on."""
        known = await self.people.known(caller.tenant, subject_id)
        return await self.records.transact(
            lambda tx: self._signal(tx, caller, known.handle, gpc=gpc, limit_spi=limit_spi)
        )

    def _signal(self, tx: Transaction, caller: Caller, handle: str, *, gpc: bool, limit_spi: bool) -> Receipt:
        subject = tx.get(Subject, caller.tenant, handle)
        if subject is None or subject.state == "blocked":
            raise SubjectBlocked
        return note_signal(tx, self.ledger, caller, caller.tenant, handle, gpc=gpc, limit_spi=limit_spi)


def _shown(consent: Consent) -> dict[str, Any]:
    """Return how a consent came about: what a leaf fixes of it, and its codes do not say (GDPR Art. 7(1))."""
    return {
        "given_at": consent.given_at.isoformat(),
        "given_by": consent.given_by,
        "via": consent.via,
        "term_shown": consent.term_shown,
        "notice": f"notices/{consent.notice_id}",
        "notice_version": consent.notice_version,
        "notice_language": consent.notice_language,
        "notice_sha256": consent.notice_sha256,
    }


_PATHS = {
    "guardian": "guardian.verified_method",
    "recipients": "recipients_shown",
    "transfer_countries": "transfer_countries_shown",
    "expires_at": "expire_time",
}
"""Where a field of the record lies on the wire, if not under its own name."""
_ALWAYS = frozenset(
    {"consent_id", "subject_ref", "purpose", "form", "text_id", "text_version", "language", "text_sha256"}
) | frozenset({"controller", "given_at"})
"""Fields that every record here has: we make them, or refuse what lacks them before."""


def _held(consent: Consent, notice: Notice, evidence: Mapping[str, Any]) -> frozenset[str]:
    """Return which fields of a record (`policy.pack.ProofField`) a consent has.

    What the published version of its notice states was shown with it.
    """
    shown = notice.shown
    told = {
        "channel": evidence.get("channel"),
        "act": evidence.get("act") not in {None, "", "unspecified"},
        "term_shown": consent.term_shown or shown.get("retention_term"),
        "withdrawal_method_shown": evidence.get("withdrawal_method_shown") or shown.get("withdrawal_method"),
        "recipients": evidence.get("recipients_shown") or shown.get("recipients"),
        "transfer_countries": evidence.get("transfer_countries_shown") or shown.get("transfer_countries"),
        "data_categories": evidence.get("data_categories"),
        "age_evidence": evidence.get("age_evidence"),
        "guardian": (evidence.get("guardian") or {}).get("verified_method"),
        "expires_at": consent.expires_at,
    }
    return _ALWAYS | frozenset(consent.flags) | {name for name, is_there in told.items() if is_there}


def _chosen(tx: Transaction, tenant: str, which: _Which, handle: str, verb: ConsentVerb) -> list[Consent]:
    if which.subject_id:
        return tx.find(Consent, equal={"tenant": tenant, "handle": handle, "purpose": which.purpose})
    if which.receipt_id:
        of_receipt = tx.find(Consent, equal={"tenant": tenant, "receipt_id": which.receipt_id}, limit=1)
        consent = of_receipt[0] if of_receipt else None
    else:
        consent = tx.get(Consent, which.consent_id)
    if consent is None or consent.tenant != tenant:
        raise NotFound
    if verb is ConsentVerb.INVALIDATE or not consent.handle:
        return [consent]
    # The same purpose's superseded consents must not come back to life: all of them go.
    return tx.find(Consent, equal=of_purpose(consent))


def _key(consent: Consent) -> str:
    return f"{consent.given_at.isoformat(timespec='microseconds')} {consent.consent_id}"


def _content(draft: ConsentDraft) -> list[Any]:
    times = [moment.isoformat() if moment else "" for moment in (draft.given_at, draft.expires_at)]
    shown = [draft.notice_id, draft.notice_version, draft.notice_language, draft.notice_sha256]
    said = [draft.form, *sorted(draft.flags), draft.given_by, draft.via, draft.term_shown]
    return [draft.subject_id, draft.purpose, said, shown, times, dict(draft.evidence)]
