"""Hands out receipts of consent: ISO/IEC TS 27560, in the DPV profile, as signed JSON-LD."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from audit import leaf, receipt
from audit.note import Signer
from gateway.caller import Caller
from gateway.controllers import ControllerFacts, Controllers
from gateway.errors import NotFound, StateConflict, SubjectBlocked
from gateway.ledger import Ledger
from gateway.people import People, Person
from gateway.ports.clock import Clock
from gateway.ports.records import Consent, Leaf, Notice, Records, Subject, Transaction
from policy.consent_state import ConsentState, state_at

MEDIA_TYPE = "application/ld+json"
PROFILE = "https://w3id.org/dpv/schema/dpv-27560"
NOT_STATED = "not stated"
_CONTEXT = {
    "dct": "http://purl.org/dc/terms/",
    "dpv": "https://w3id.org/dpv#",
    "eu-gdpr": "https://w3id.org/dpv/legal/eu/gdpr#",
    "lethe": "https://lethe.dev/ns#",
    "loc": "https://w3id.org/dpv/loc#",
    "schema": "https://schema.org/",
    "skos": "http://www.w3.org/2004/02/skos/core#",
}
_BASIS = {
    "implied": "dpv:ImpliedConsent",
    "opt_out": "dpv:ImpliedConsent",
    "express": "dpv:ExpressedConsent",
}
"""DPV's word for a form; every other form is explicit."""
_PURPOSES = {
    "generate": "Making the picture that was asked for",
    "retain_original": "Keeping the picture that was sent",
    "retain_output": "Keeping the picture that was made",
    "train": "Training models",
    "analytics": "Statistics on pictures",
    "sell_share": "Sale or sharing",
    "transfer": "Transfer to another country",
}


@dataclass(frozen=True, slots=True)
class Found:
    """What a receipt is made of."""

    consent: Consent
    notice: Notice
    event: Mapping[str, Any]
    evidence: Mapping[str, Any]
    person: Person


@dataclass(frozen=True, slots=True)
class Receipts:
    """Says in full what was consented to, under the log's own key."""

    records: Records
    people: People
    ledger: Ledger
    controllers: Controllers
    signers: Mapping[str, tuple[Signer, ...]]
    clock: Clock
    random: Callable[[int], bytes] = os.urandom

    async def event_of(self, caller: Caller, consent_id: str) -> str:
        """Return the id of the event that recorded a consent, whose proof its receipt carries.

        Raises:
            NotFound: There is no such consent in the caller's tenant.
            StateConflict: Its event is not known or not kept any more (detail `event_gone`).
        """

        def read(tx: Transaction) -> str:
            consent = _own(tx, caller, consent_id)
            if not consent.event_id or tx.get(Leaf, consent.event_id) is None:
                raise StateConflict("the event of this consent is not kept", detail="event_gone")
            return consent.event_id

        return await self.records.transact(read)

    async def issue(
        self, caller: Caller, consent_id: str, evidence: Mapping[str, Any], tlog_proof: str
    ) -> tuple[str, bytes]:
        """Return the id and the bytes of a receipt, with the opened evidence and the proof of its event.

        Raises:
            NotFound: There is no such consent in the caller's tenant.
            SubjectBlocked: Its person is erased: nobody is left to give it to.
        """
        consent = await self.records.transact(lambda tx: self._numbered(tx, caller, consent_id))
        found = await self._find(consent, evidence)
        signer = self.signers[self.ledger.origins[caller.tenant]][0]
        controller = await self.controllers.now(self.records, caller.tenant)
        content = _receipt(found, controller, signer.name, self.clock.now())
        return consent.receipt_id, receipt.sign(content, signer, tlog_proof)

    def _numbered(self, tx: Transaction, caller: Caller, consent_id: str) -> Consent:
        """Return the consent with a receipt's number; one from before there were receipts gets it now."""
        consent = _own(tx, caller, consent_id)
        if not consent.receipt_id:
            consent = replace(consent, receipt_id=self.random(16).hex())
            tx.put(consent)
        return consent

    async def _find(self, consent: Consent, evidence: Mapping[str, Any]) -> Found:
        def read(tx: Transaction) -> tuple[Subject | None, Notice | None, Leaf | None]:
            key = (consent.tenant, consent.notice_id, consent.notice_version, consent.notice_language)
            subject = tx.get(Subject, consent.tenant, consent.handle) if consent.handle else None
            return subject, tx.get(Notice, *key), tx.get(Leaf, consent.event_id)

        subject, notice, recorded = await self.records.transact(read)
        if subject is None or subject.state == "blocked":
            raise SubjectBlocked
        if notice is None or recorded is None:
            raise StateConflict("the event of this consent is not kept", detail="event_gone")
        person = Person(subject, await self.people.open_profile(subject))
        return Found(consent, notice, leaf.decode(recorded.line), evidence, person)


def _own(tx: Transaction, caller: Caller, consent_id: str) -> Consent:
    consent = tx.get(Consent, consent_id)
    if consent is None or consent.tenant != caller.tenant:
        raise NotFound
    return consent


def _receipt(found: Found, controller: ControllerFacts, origin: str, now: datetime) -> dict[str, Any]:
    """Return the receipt's content: it wraps the record, as the profile has it."""
    name = f"receipts/{found.consent.receipt_id}"
    return {
        "@context": _CONTEXT,
        "@id": f"urn:lethe:{name}",
        "@type": "dpv:ConsentReceipt",
        "dct:identifier": name,
        "dct:conformsTo": f"{PROFILE}#receipt",
        "dct:created": _moment(now),
        "dct:publisher": controller.name,
        "schema:recipient": "dpv:DataSubject",
        "dpv:hasRecordOfActivity": _record(found, controller, origin, now),
    }


def _record(found: Found, controller: ControllerFacts, origin: str, now: datetime) -> dict[str, Any]:
    consent, profile = found.consent, found.person.profile
    places = sorted({code for code in (profile.residence, profile.location) if code})
    made: dict[str, Any] = {
        "@id": f"urn:lethe:consents/{consent.consent_id}",
        "@type": "dpv:ConsentRecord",
        "dct:identifier": f"consents/{consent.consent_id}",
        "dct:conformsTo": f"{PROFILE}#record",
        "dpv:hasDataSubject": {
            "@type": "dpv:DataSubject",
            "dct:identifier": f"subjects/{profile.subject_id}",
        },
        "dpv:hasDataController": {
            "@type": "dpv:DataController",
            "dct:identifier": origin,
            "dpv:hasName": found.evidence.get("controller_shown") or controller.name,
            "dpv:hasContact": controller.contact,
            "dpv:hasAddress": [f"loc:{code}" for code in controller.establishments or ()] or NOT_STATED,
        },
        "dpv:hasJurisdiction": [f"loc:{code}" for code in places] or NOT_STATED,
        "dpv:hasApplicableLaw": list(consent.regimes),
        "dpv:hasLegalBasis": _BASIS.get(consent.form, "dpv:ExplicitlyExpressedConsent"),
        "dpv:hasProcess": _process(found),
        "dpv:hasNotice": _notice(found.notice),
        "dpv:hasConsentControl": {
            "@type": "dpv:WithdrawConsent",
            "dpv:isExercisedAt": found.evidence.get("withdrawal_method_shown")
            or found.notice.shown.get("withdrawal_method")
            or NOT_STATED,
            "lethe:byReceiptAlone": f"receipts/{consent.receipt_id}",
        },
        "dpv:hasConsentStatus": _events(found, now),
        "lethe:recorded": receipt.recorded(found.event),
        "lethe:evidence": _evidence(found),
    }
    if "gdpr" in consent.regimes:
        right = "Right to withdraw consent"
        made["dpv:hasRight"] = {"@type": ["dpv:DataSubjectRight", "eu-gdpr:A7-3"], "dct:title": right}
    if consent.superseded_by:
        made["dct:isReplacedBy"] = f"consents/{consent.superseded_by}"
    return made


def _process(found: Found) -> dict[str, Any]:
    consent, evidence, shown = found.consent, found.evidence, found.notice.shown
    countries = evidence.get("transfer_countries_shown") or shown.get("transfer_countries") or ()
    recipients = evidence.get("recipients_shown") or shown.get("recipients") or ()
    return {
        "@type": "dpv:Process",
        "dpv:hasPurpose": {
            "@id": f"lethe:{consent.purpose}",
            "@type": "dpv:Purpose",
            "dct:title": _PURPOSES[consent.purpose],
        },
        "dpv:hasPersonalData": [
            {"@type": "dpv:PersonalData", "dct:title": kind}
            for kind in evidence.get("data_categories") or (NOT_STATED,)
        ],
        "dpv:hasRecipient": list(recipients) or NOT_STATED,
        "dpv:hasStorageCondition": [
            {
                "@type": "dpv:StorageDuration",
                "dpv:hasDuration": consent.term_shown or shown.get("retention_term") or NOT_STATED,
            },
            {
                "@type": "dpv:StorageLocation",
                "dpv:hasLocation": [f"loc:{code}" for code in countries] or NOT_STATED,
            },
        ],
    }


def _notice(notice: Notice) -> dict[str, Any]:
    """Return the very text that was shown, with its layers and digests."""
    return {
        "@id": f"urn:lethe:notices/{notice.notice_id}/{notice.version}/{notice.language}",
        "@type": "dpv:ConsentNotice",
        "dct:identifier": f"notices/{notice.notice_id}",
        "dct:hasVersion": notice.version,
        "dct:language": notice.language,
        "dct:date": _moment(notice.published_at),
        "dct:title": notice.title,
        "dct:description": notice.body,
        "lethe:sha256": notice.sha256,
        "lethe:layers": [dict(layer) for layer in notice.shown.get("layers", ())],
    }


def _events(found: Found, now: datetime) -> Sequence[dict[str, Any]]:
    """Return what happened to the consent, the first first."""
    consent = found.consent
    by = "dpv:Guardian" if consent.given_by == "guardian" else "dpv:DataSubject"
    basis = _BASIS.get(consent.form, "dpv:ExplicitlyExpressedConsent")
    given = "RenewedConsentGiven" if consent.state == ConsentState.REAFFIRMED else "ConsentGiven"
    events: list[dict[str, Any]] = [
        {
            "@type": [f"dpv:{given}", basis],
            "dpv:isIndicatedBy": by,
            "dpv:hasIndicationMethod": found.evidence.get("act") or NOT_STATED,
            "dpv:isIndicatedAtTime": _moment(consent.given_at),
            "dct:valid": _moment(consent.expires_at) if consent.expires_at else "until withdrawn",
        }
    ]
    if consent.withdrawn_at is not None:
        events.append(
            {
                "@type": "dpv:ConsentWithdrawn",
                "dpv:isIndicatedBy": by,
                "dpv:hasIndicationMethod": consent.withdrawn_via or NOT_STATED,
                "dpv:isIndicatedAtTime": _moment(consent.withdrawn_at),
            }
        )
    state = state_at(consent.state, consent.expires_at, now)
    if state is ConsentState.EXPIRED and consent.expires_at is not None:
        events.append({"@type": "dpv:ConsentExpired", "dpv:isIndicatedAtTime": _moment(consent.expires_at)})
    if state is ConsentState.INVALIDATED:
        events.append({"@type": "dpv:ConsentInvalidated", "dpv:isIndicatedBy": "dpv:DataController"})
    return events


def _evidence(found: Found) -> dict[str, Any]:
    """Return how the consent came about; a signature stays sealed, and is known by its digest."""
    consent, said = found.consent, found.evidence
    signature = bytes.fromhex(said.get("signature") or "")
    told = {
        "form": consent.form,
        "act": said.get("act", ""),
        "by": consent.given_by,
        "via": consent.via,
        "channel": said.get("channel", ""),
        "uiVersion": said.get("ui_version", ""),
        "ageEvidence": said.get("age_evidence", ""),
        "signatureSha256": hashlib.sha256(signature).hexdigest() if signature else "",
    }
    shown: dict[str, Any] = {name: value for name, value in told.items() if value}
    if said.get("guardian"):
        shown["guardian"] = {name: value for name, value in said["guardian"].items() if value}
    return shown


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
