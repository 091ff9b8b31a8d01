"""Gathers the facts of a case and asks policy; policy itself stays pure."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from gateway.caller import Caller
from gateway.contract import HERE
from gateway.controllers import ControllerFacts, Controllers
from gateway.errors import (
    PolicyDenied,
    PolicyUnavailable,
    ResidencyNoTarget,
    SubjectBlocked,
    SubjectUnknown,
)
from gateway.ledger import Ledger, Receipt, without_nulls
from gateway.people import Profile
from gateway.ports.inference import BackendFacts
from gateway.ports.records import Consent, Notice, Signal, Subject, Transaction
from gateway.vault.payload import PayloadKey
from policy import coded, obligations, renewal, retention
from policy import consent as consent_rules
from policy.applicability import applicable
from policy.consent import Decision
from policy.consent_state import ConsentState
from policy.errors import PolicyError
from policy.facts import parse_facts
from policy.obligations import Obligation
from policy.pack import Pack
from policy.places import is_place
from policy.proof import Lack, lacks
from policy.renewal import Stated
from policy.terms import Purpose

SIGNATURE = "signature"
"""The flag of a consent whose evidence holds a signature; the signature itself rests sealed."""


@dataclass(frozen=True, slots=True)
class Case:
    """One question to policy: may this purpose be pursued for this subject now?"""

    profile: Profile
    purpose: str
    at: datetime
    is_uploader: bool = True
    template_extracted: bool = True
    kind: str = "original"
    target: BackendFacts | None = None
    """Who would receive it for that purpose, where that is the question."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision, and the consents that its layers rest on, the headline's first."""

    decision: Decision
    bases: tuple[Consent, ...]
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What was decided on; personal data."""
    codes: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What of that decides, as the log carries it (`policy.coded`)."""

    @property
    def allowed(self) -> bool:
        """Whether law and house both permit it."""
        return self.decision.allowed

    @property
    def code(self) -> str:
        """The reason code of the headline."""
        return self.decision.reason_code


@dataclass(frozen=True, slots=True)
class Judge:
    """Asks `policy.consent.decide` with facts from the records."""

    packs: Mapping[str, Pack]
    controllers: Controllers
    ledger: Ledger

    def decide(self, tx: Transaction, tenant: str, handle: str, case: Case) -> Verdict:
        """Return the decision on `case` at this instant, as the records stand inside `tx`.

        A restriction leaves nothing but storage (GDPR Art. 18(2)), whatever was consented to.

        Raises:
            SubjectUnknown: There is no such subject, or no longer.
            SubjectBlocked: An erasure has begun.
            PolicyUnavailable: The rule books cannot answer.
        """
        subject = tx.get(Subject, tenant, handle)
        if subject is None:
            raise SubjectUnknown
        if subject.state == "blocked":
            raise SubjectBlocked
        # Now, and not when the case was put together: a withdrawal in between must count.
        now = replace(case, at=self.ledger.clock.now())
        return self._decide(tx, tenant, handle, now, is_restricted=subject.state == "restricted")

    def need_target(
        self, tx: Transaction, tenant: str, handle: str, case: Case, target: BackendFacts
    ) -> None:
        """Refuse a backend that runs where a law that protects the person does not let the picture go.

        At the gateway's own site nothing is transferred.  Elsewhere the packs' rules on transfers decide, by
        the safeguards that the contract declares; where no pack reaches the person, or nobody knows which
        do, the house does, and asks for a consent to the transfer.

        Raises:
            ResidencyNoTarget: It may not (the detail is policy's code, the metadata its pack and citations).
            PolicyUnavailable: The rule books cannot answer.

        Rule:
            GDPR Art. 44-49; Cal. Civ. Code 1798.100(d); PIPEDA Sch. 1 cl. 4.1.3; P-39.1 s. 17.
        """
        if target.region == HERE:
            return
        asked = replace(
            case,
            at=self.ledger.clock.now(),
            template_extracted=target.template_extracted,
            target=target,
        )
        consents, notices, signal = self._on_record(tx, tenant, handle)
        with _asking():
            told = self._facts(self.controllers.at(tx, tenant), asked, consents, notices, signal)
            decision = consent_rules.decide(parse_facts(told), self.packs, layer="legal")
        if not decision.allowed:
            raise ResidencyNoTarget(
                detail=decision.reason_code.lower(),
                deciding_pack=decision.deciding_pack,
                citations="; ".join(decision.citations),
            )

    def term(self, verdict: Verdict, kind: str, start: datetime, at_most: timedelta) -> datetime:
        """Return when a thing of `kind` must be gone: by configuration, by law, or when a consent ends."""
        packs = [self.packs[name] for name in verdict.decision.packs]
        with _asking():
            by_law = retention.expires_at(kind, start, packs).expires_at
        consents = [basis.expires_at for basis in verdict.bases if basis.expires_at is not None]
        return min([start + at_most, by_law, *consents])

    def marks(self, verdict: Verdict) -> tuple[Obligation, ...]:
        """Return the layers of a mark that the packs demand of an output itself.

        A visible label is owed by whoever shows it (Reg. (EU) 2024/1689 Art. 50(4)).
        """
        packs = [self.packs[name] for name in verdict.decision.packs]
        with _asking():
            duties = obligations.marks(parse_facts(verdict.facts), packs)
            return tuple(duty for duty in duties if duty.about != "visible_label")

    def proof_term(self, regimes: Iterable[str], end: datetime) -> datetime:
        """Return until when proof of a consent that ended at `end` is kept (GDPR Art. 17(3)(e))."""
        packs = [self.packs[name] for name in regimes if name in self.packs]
        with _asking():
            return retention.expires_at("consent_proof", end, packs).expires_at

    def lacks(
        self, tx: Transaction, tenant: str, profile: Profile, consent: Consent, held: Collection[str]
    ) -> tuple[Lack, ...]:
        """Return what the record of a consent does not prove that the packs ask for (GDPR Art. 7(1))."""
        case = Case(profile, consent.purpose, self.ledger.clock.now())
        with _asking():
            facts = parse_facts(self._facts(self.controllers.at(tx, tenant), case, (consent,), (), None))
            return lacks(facts, facts.consents[0], self.packs, held)

    def calls_for_renewal(self, consent: Consent, shown: Notice, newest: Notice) -> bool:
        """Return whether what the newest version states calls for this consent to be asked for anew."""
        changed = renewal.changes(_stated(shown), _stated(newest))
        packs = [self.packs[name] for name in consent.regimes if name in self.packs]
        return renewal.calls_for_renewal(changed, packs, self.ledger.clock.now())

    def laws(
        self, tx: Transaction, tenant: str, profile: Profile | None, invoked: str, at: datetime
    ) -> tuple[Pack, ...]:
        """Return the packs an erasure is planned by: the one invoked, and those that apply to the person."""
        applying = self.regimes(tx, tenant, profile, at) if profile is not None else ()
        return tuple(self.packs[name] for name in dict.fromkeys((invoked, *applying)))

    def _decide(
        self, tx: Transaction, tenant: str, handle: str, case: Case, *, is_restricted: bool
    ) -> Verdict:
        consents, notices, signal = self._on_record(tx, tenant, handle)
        with _asking():
            told = self._facts(self.controllers.at(tx, tenant), case, consents, notices, signal)
            facts = parse_facts(told)
            decision = consent_rules.decide(facts, self.packs)
            if is_restricted:
                decision = consent_rules.restricted(decision)
            ids = [consent.consent_id for consent in consents]
            codes = coded.code(facts, decision, self.packs, ids, is_restricted=is_restricted)
        rests_on = () if is_restricted else coded.rests(decision)
        return Verdict(decision, tuple(consents[index] for index in rests_on), told, codes)

    def _on_record(
        self, tx: Transaction, tenant: str, handle: str
    ) -> tuple[list[Consent], list[Notice], Signal | None]:
        """Return the consents that count, the notices shown for them, and the standing signal."""
        consents = self._consents(tx, tenant, handle)
        shown = {(c.notice_id, c.notice_version, c.notice_language) for c in consents}
        notices = [n for key in sorted(shown) if (n := tx.get(Notice, tenant, *key)) is not None]
        return consents, notices, tx.get(Signal, tenant, handle)

    def regimes(self, tx: Transaction, tenant: str, profile: Profile, at: datetime) -> tuple[str, ...]:
        """Return the ids of the packs that apply to a person, the more specific territory first."""
        with _asking():
            facts = self._facts(self.controllers.at(tx, tenant), Case(profile, "generate", at), (), (), None)
            return tuple(pack.id for pack in applicable(parse_facts(facts), self.packs))

    def record(
        self,
        tx: Transaction,
        by: Caller | None,
        subject: Subject,
        verdict: Verdict,
        key: PayloadKey | None = None,
        job: str | None = None,
        obj: str | None = None,
    ) -> Receipt:
        """Write a decision to the log, as codes from which it can be replayed; under `key`, all facts too.

        `job` is what it permits, or `obj` the picture whose record it does.
        """
        return self.ledger.record(
            tx,
            subject.tenant,
            "decision.made",
            by,
            sealed=((key, without_nulls(verdict.facts)),) if key is not None else (),
            job=job,
            obj=obj,
            **verdict.codes,
        )

    @staticmethod
    def _consents(tx: Transaction, tenant: str, handle: str) -> list[Consent]:
        """Return the consents that count, oldest first: one that was superseded says nothing any more.

        A withdrawn one does: it ends whatever was given before it.  One that was found invalid
        was never given.
        """
        rows = tx.find(
            Consent, equal={"tenant": tenant, "handle": handle}, order_by=("given_at", "consent_id")
        )
        return [
            row
            for row in rows
            if row.state != ConsentState.INVALIDATED
            and (not row.superseded_by or row.withdrawn_at is not None)
        ]

    @staticmethod
    def refusal(verdict: Verdict) -> PolicyDenied:
        """Return the refusal that a denial becomes."""
        decision = verdict.decision
        return PolicyDenied(decision.reason_code, pack=decision.deciding_pack, citations=decision.citations)

    @staticmethod
    def _facts(
        controller: ControllerFacts,
        case: Case,
        consents: Iterable[Consent],
        notices: Iterable[Notice],
        signal: Signal | None,
    ) -> dict[str, Any]:
        profile = case.profile
        subject: dict[str, Any] = {
            # What was taken in before places were checked counts as not known, the stricter reading.
            "residence": profile.residence if is_place(profile.residence) else None,
            "location": profile.location if is_place(profile.location) else None,
            "age": profile.age(case.at),
            "is_uploader": case.is_uploader,
        }
        if profile.guardian is not None:
            subject["guardian"] = {
                "verified_method": profile.guardian.verified_method,
                "relation": profile.guardian.relation,
            }
        facts: dict[str, Any] = {
            "subject": subject,
            # Shown is what was shown for the purpose for which the picture would be sent.
            "purpose": case.purpose if case.target is None else Purpose.TRANSFER.value,
            "data": {
                "kind": case.kind,
                "template_extracted": case.template_extracted,
                "unique_identification_purpose": case.template_extracted,
            },
            "consents": [_consent_fact(consent) for consent in consents],
            "notices": _shown_for(case.purpose, notices),
            "service_requested": True,
            "at": case.at.isoformat(),
        }
        known = {"establishments": controller.establishments, "targets": controller.targets}
        controller_facts = {name: list(value) for name, value in known.items() if value is not None}
        if controller_facts:
            facts["controller"] = controller_facts
        if case.target is not None:
            # Nothing that is not promised counts: an empty mechanism is none.
            safeguards = {name: value for name, value in asdict(case.target.safeguards).items() if value}
            facts["recipient"] = {"role": "processor", "country": case.target.region, **safeguards}
        if signal is not None:
            facts["signals"] = {"gpc": signal.gpc, "limit_spi": signal.limit_spi}
        return facts


@contextlib.contextmanager
def _asking() -> Iterator[None]:
    """Turn what policy cannot answer into a refusal: then nothing is permitted.

    Raises:
        PolicyUnavailable: A fact or a date is beyond what the rule books can reckon with.
    """
    try:
        yield
    except (PolicyError, ValueError, OverflowError) as error:
        raise PolicyUnavailable(detail=type(error).__name__.lower()) from error


def _stated(notice: Notice) -> Stated:
    shown = notice.shown
    return Stated(
        text=notice.sha256,
        purposes=frozenset(notice.purposes),
        recipients=frozenset(shown.get("recipients", ())),
        transfer_countries=frozenset(shown.get("transfer_countries", ())),
        retention_term=shown.get("retention_term", ""),
        withdrawal_method=shown.get("withdrawal_method", ""),
    )


def _shown_for(purpose: str, notices: Iterable[Notice]) -> list[str]:
    """Return which of the notices that laws ask for were shown, by those that name the purpose."""
    naming = [notice for notice in notices if purpose in notice.purposes]
    served = {code for notice in naming for code in notice.shown.get("serves", ())}
    return sorted(served | {"collection"}) if naming else []


def _consent_fact(consent: Consent) -> dict[str, Any]:
    fact: dict[str, Any] = {
        "purpose": consent.purpose,
        "form": consent.form,
        "given_at": consent.given_at.isoformat(),
        **dict.fromkeys((flag for flag in consent.flags if flag != SIGNATURE), True),
    }
    if "separate" not in consent.flags:
        fact["separate"] = False
    optional = {
        "via": consent.via or None,
        "by": consent.given_by or None,
        "term_shown": consent.term_shown or None,
        SIGNATURE: "given" if SIGNATURE in consent.flags else None,
        "withdrawn_at": consent.withdrawn_at.isoformat() if consent.withdrawn_at else None,
        "expires_at": consent.expires_at.isoformat() if consent.expires_at else None,
    }
    return {**fact, **{name: value for name, value in optional.items() if value is not None}}
