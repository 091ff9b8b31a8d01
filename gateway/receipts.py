"""Writes receipts of consent: ISO/IEC TS 27560, in the DPV profile, as signed JSON-LD."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from audit import receipt
from audit.note import Signer
from gateway.controllers import ControllerFacts
from gateway.people import Person
from gateway.ports.records import Consent, Notice, Transaction
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
    """What a receipt is made of; `event` is the leaf that recorded the consent, `evidence` opened."""

    consent: Consent
    notice: Notice
    event: Mapping[str, Any]
    evidence: Mapping[str, Any]
    person: Person


def numbered(tx: Transaction, consent: Consent, random: Callable[[int], bytes]) -> Consent:
    """Return the consent with a receipt's number; one from before there were receipts gets it now."""
    if consent.receipt_id:
        return consent
    given = replace(consent, receipt_id=random(16).hex())
    tx.put(given)
    return given


def issue(found: Found, controller: ControllerFacts, signer: Signer, tlog_proof: str, now: datetime) -> bytes:
    """Return the signed receipt; `tlog_proof` is the proof of `found.event`, with its leaf."""
    return receipt.sign(_receipt(found, controller, signer.name, now), signer, tlog_proof)


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
