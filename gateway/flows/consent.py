"""Records consent, takes it back, and answers whether it stands."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from gateway.caller import Caller
from gateway.errors import MessageInvalid, NotFound, NoticeUnknown, SubjectBlocked, SubjectUnknown
from gateway.idempotency import Idempotency
from gateway.judge import Case, Judge
from gateway.ledger import Ledger, Receipt
from gateway.objects import ask_to_stop, destroy_object, end_queued, reap
from gateway.paging import Page, page
from gateway.people import People
from gateway.ports.clock import Clock
from gateway.ports.objects import ObjectStore
from gateway.ports.records import Consent, Job, Notice, Records, Signal, StoredObject, Subject, Transaction
from gateway.vault.custody import HeldKey
from gateway.vault.keys import Binding, open_column, seal_column
from gateway.vault.payload import PayloadKey
from policy.consent import Decision
from policy.terms import KeyClass

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


def evidence_binding(consent: Consent) -> Binding:
    """Return the associated data of sealed evidence; it names the key, since evidence outlives the handle."""
    return Binding(
        tenant=consent.tenant,
        handle=consent.key_id,
        cls=KeyClass.EVIDENCE.value,
        item=consent.consent_id,
        purpose=consent.purpose,
    )


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
    random: Callable[[int], bytes] = os.urandom

    async def record(self, caller: Caller, draft: ConsentDraft) -> tuple[Consent, Receipt | None]:
        """Keep proof of a consent (GDPR Art. 7(1)); the same purpose's older consent is superseded.

        Raises:
            SubjectUnknown, SubjectBlocked: Nobody to record it for.
            NoticeUnknown: The text shown was not published, or is not the text of that version.
            MessageInvalid: Given in the future, or expired before it was given.
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
            ends = self.judge.proof_term(regimes, bare.expires_at) if bare.expires_at else None
            consent = replace(bare, regimes=regimes, keep_until=ends)
            rows = tx.find(Consent, equal=_of_purpose(consent), order_by=("given_at", "consent_id"))
            for older in (row for row in rows if row.given_at <= consent.given_at):
                keep_until = older.keep_until or self.judge.proof_term(older.regimes, self.clock.now())
                tx.put(replace(older, superseded_by=consent_id, keep_until=keep_until))
            if rows and rows[-1].given_at > consent.given_at:
                # It comes late: what was said after it stands.
                consent = replace(consent, superseded_by=rows[-1].consent_id)
            tx.add(consent)
            self.idempotency.remember(tx, ticket, consent_id)
            return consent, self._log(tx, caller, consent, notice, draft, key)

        return await self.records.transact(commit)

    def _check_times(self, draft: ConsentDraft) -> None:
        now = self.clock.now()
        if draft.given_at is not None and draft.given_at > now:
            raise MessageInvalid("given in the future", violations=(("consent.give_time", "time.future"),))
        if draft.expires_at is not None and draft.expires_at <= (draft.given_at or now):
            raise MessageInvalid("expired already", violations=(("consent.expire_time", "time.past"),))
        if draft.expires_at is not None and draft.expires_at > now + LONGEST:
            raise MessageInvalid("ends too late", violations=(("consent.expire_time", "time.too_far"),))

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
            flags=tuple(sorted(draft.flags)),
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
    ) -> tuple[list[Consent], Receipt | None]:
        """Withdraw one consent, or all of a subject for a purpose, and stop what rests on it.

        Waiting jobs end now, running ones within a poll, and what was kept for
        the purpose is destroyed (GDPR Art. 7(3), 17(1)(b)).  Withdrawing again
        changes nothing.

        Raises:
            NotFound: No such consent.
            SubjectUnknown, SubjectBlocked: No such subject.
        """
        handle = ""
        if not consent_id:
            handle = (await self.people.known(caller.tenant, subject_id)).handle

        def commit(tx: Transaction) -> tuple[list[Consent], Receipt | None, list[str]]:
            chosen = self._chosen(tx, caller.tenant, consent_id, handle, purpose)
            receipt, doomed, withdrawn = None, [], []
            for consent in chosen:
                if consent.withdrawn_at is None:
                    receipt, bytes_of = self._withdraw(tx, caller, consent, channel)
                    doomed += bytes_of
                withdrawn.append(tx.get(Consent, consent.consent_id) or consent)
            return withdrawn, receipt, doomed

        consents, receipt, doomed = await self.records.transact(commit)
        for object_id in doomed:
            await reap(self.records, self.objects, object_id)
        return consents, receipt

    def _chosen(
        self, tx: Transaction, tenant: str, consent_id: str, handle: str, purpose: str
    ) -> list[Consent]:
        if not consent_id:
            return tx.find(Consent, equal={"tenant": tenant, "handle": handle, "purpose": purpose})
        consent = tx.get(Consent, consent_id)
        if consent is None or consent.tenant != tenant:
            raise NotFound
        # The same purpose's superseded consents must not come back to life: all of them go.
        return tx.find(Consent, equal=_of_purpose(consent)) if consent.handle else [consent]

    def _withdraw(
        self, tx: Transaction, caller: Caller, consent: Consent, channel: str
    ) -> tuple[Receipt, list[str]]:
        now = self.clock.now()
        keep_until = self.judge.proof_term(consent.regimes, now)
        tx.put(replace(consent, withdrawn_at=now, withdrawn_via=channel, keep_until=keep_until))
        receipt = self.ledger.record(
            tx,
            caller.tenant,
            "consent.withdrawn",
            caller,
            con=consent.consent_id,
            pur=consent.purpose,
            meth="api",
        )
        same = {"tenant": consent.tenant, "handle": consent.handle, "purpose": consent.purpose}
        doomed: list[str] = []
        for job in tx.find(Job, equal=same):
            if job.state == "queued":
                end_queued(tx, self.ledger, job, self.clock, "withdrawn", caller)
                doomed.append(job.input_object)
            else:
                ask_to_stop(tx, self.ledger, job, self.clock, "consent_withdrawn", caller)
        running = {job.input_object for job in tx.find(Job, equal={**same, "state": "running"})}
        idle = [s for s in tx.find(StoredObject, equal=same) if s.object_id not in running]
        doomed += [s.object_id for s in idle if destroy_object(tx, self.ledger, s, "withdrawn", caller)]
        return receipt, doomed

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

    async def list(self, caller: Caller, subject_id: str, size: int, token: str) -> Page[Consent]:
        """Return a page of a subject's consents, oldest first, withdrawn ones included."""
        subject = await self.people.known(caller.tenant, subject_id)
        equal = {"tenant": caller.tenant, "handle": subject.handle}
        rows = await self.records.transact(lambda tx: tx.find(Consent, equal=equal))
        rows.sort(key=_key)
        return page(rows, size, _key, ("consents", *equal.values()), token)

    async def check(self, caller: Caller, subject_id: str, purpose: str) -> Decision:
        """Return what policy would decide now, without a trace in the log: nothing is processed."""
        person = await self.people.find(caller.tenant, subject_id)
        case = Case(person.profile, purpose, self.clock.now())
        verdict = await self.records.transact(
            lambda tx: self.judge.decide(tx, caller.tenant, person.subject.handle, case)
        )
        return verdict.decision

    async def signal(self, caller: Caller, subject_id: str, *, gpc: bool, limit_spi: bool) -> Receipt:
        """Record opt-out signals (11 CCR 7025, 7027); they act from the commit on."""
        known = await self.people.known(caller.tenant, subject_id)
        signal = Signal(
            tenant=caller.tenant,
            handle=known.handle,
            gpc=gpc,
            limit_spi=limit_spi,
            recorded_at=self.clock.now(),
        )
        codes = [name for name, on in (("gpc", gpc), ("limit_spi", limit_spi)) if on]

        def commit(tx: Transaction) -> Receipt:
            subject = tx.get(Subject, signal.tenant, signal.handle)
            if subject is None or subject.state == "blocked":
                raise SubjectBlocked
            if tx.get(Signal, signal.tenant, signal.handle) is None:
                tx.add(signal)
            else:
                tx.put(signal)
            return self.ledger.record(tx, caller.tenant, "signal.recorded", caller, sig=codes)

        return await self.records.transact(commit)


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


def _of_purpose(consent: Consent) -> dict[str, Any]:
    return {"tenant": consent.tenant, "handle": consent.handle, "purpose": consent.purpose}


def _key(consent: Consent) -> str:
    return f"{consent.given_at.isoformat(timespec='microseconds')} {consent.consent_id}"


def _content(draft: ConsentDraft) -> list[Any]:
    times = [moment.isoformat() if moment else "" for moment in (draft.given_at, draft.expires_at)]
    shown = [draft.notice_id, draft.notice_version, draft.notice_language, draft.notice_sha256]
    said = [draft.form, *sorted(draft.flags), draft.given_by, draft.via, draft.term_shown]
    return [draft.subject_id, draft.purpose, said, shown, times, dict(draft.evidence)]
