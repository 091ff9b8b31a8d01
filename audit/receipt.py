"""Signs and verifies receipts of consent: ISO/IEC TS 27560 in the DPV profile, as JSON-LD.

A receipt is one JSON document.  Under `lethe:proof` it carries a signed note of a key of the
log over everything else, and the proof that the event which recorded the consent is in the log.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from audit import canonical, note
from audit.checkpoint import Checkpoint
from audit.errors import AuditError, ReceiptInvalid
from audit.note import Signer
from audit.single import opened
from audit.trust import Trust, read_trust

FORMAT = "lethe.dev/consent-receipt/v1"
PROOF = "lethe:proof"
RECORDED = "consent.recorded"
MAX_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class ReceiptReport:
    """What a receipt is worth.

    Attributes:
        verdict: `untrusted` says that all fits and that nobody knows whose log it is.
        fault: The first fault, a sentence that begins with its code; empty where there is none.
        content: What the receipt says, without its proof; empty where that does not hold.
    """

    verdict: Literal["valid", "invalid", "untrusted"]
    fault: str = ""
    origin: str = ""
    index: int = 0
    size: int = 0
    content: Mapping[str, Any] = field(default_factory=dict)


def statement(origin: str, content: Mapping[str, Any]) -> str:
    """Return what is signed; no checkpoint has this first line.

    Raises:
        JsonInvalid: The content has no canonical form.
    """
    digest = hashlib.sha256(canonical.encode(content)).hexdigest()
    return f"{FORMAT}\n{origin}\n{digest}\n"


def sign(content: Mapping[str, Any], signer: Signer, tlog_proof: str) -> bytes:
    """Return the receipt: the content with its signature and its proof of inclusion.

    Raises:
        JsonInvalid: The content has no canonical form.
        NoteInvalid: The key is for checkpoints only.
    """
    signed = {"signature": signer.sign(statement(signer.name, content)), "tlogProof": tlog_proof}
    return json.dumps({**content, PROOF: signed}, ensure_ascii=False, indent=2).encode() + b"\n"


def verify_receipt(data: bytes, trust: str | None) -> ReceiptReport:
    """Return what a receipt is worth, by the keys of `trust`.

    Args:
        data: Bytes of the receipt's file.
        trust: Text of a trust file (`read_trust`), or None: then at best `untrusted`.

    Raises:
        TrustInvalid: No key can be taken from `trust`.
    """
    known = None if trust is None else read_trust(trust)
    try:
        content, signature, text = _parts(data)
        found, head, event = opened(text, known)
        _check_signature(content, signature, head, known)
        _check_event(content, event)
    except AuditError as error:
        return ReceiptReport("invalid", str(error))
    return ReceiptReport(
        "untrusted" if known is None else "valid", "", head.origin, found.index, head.size, content
    )


def receipt_id(data: bytes) -> str:
    """Return the id that a receipt gives itself, unverified: whoever withdraws by it is checked elsewhere.

    Raises:
        AuditError: Not a receipt.
    """
    name = _parts(data)[0].get("dct:identifier")
    if not isinstance(name, str):
        raise ReceiptInvalid("receipt_malformed", "it has no identifier")
    return name


def _parts(data: bytes) -> tuple[dict[str, Any], str, str]:
    """Return the content of a receipt, its signature and its proof of inclusion."""
    document = canonical.parse(data, MAX_BYTES)
    if not isinstance(document, dict) or document.get("@type") != "dpv:ConsentReceipt":
        raise ReceiptInvalid("receipt_malformed", "not a receipt of consent")
    signed = document.pop(PROOF, None)
    if not isinstance(signed, dict) or signed.keys() != {"signature", "tlogProof"}:
        raise ReceiptInvalid("receipt_unsigned", "it carries no signature and proof")
    signature, text = signed["signature"], signed["tlogProof"]
    if not isinstance(signature, str) or not isinstance(text, str):
        raise ReceiptInvalid("receipt_unsigned", "it carries no signature and proof")
    return document, signature, text


def _check_signature(
    content: Mapping[str, Any], signature: str, head: Checkpoint, known: Trust | None
) -> None:
    """Ask whether a key of the log whose checkpoint it is has signed the content."""
    if known is None:
        body = note.parse(signature)[0]
    else:
        body, signed = note.open_note(signature, known.verifiers)
        if any(key.name != head.origin for key in signed):
            raise ReceiptInvalid("receipt_key_name", "a key of another log has signed")
        for key in signed:
            known.book.check_signer(key, head.size)
    if body != statement(head.origin, content):
        raise ReceiptInvalid("receipt_changed", "what is signed is something else")


def _check_event(content: Mapping[str, Any], event: Mapping[str, Any]) -> None:
    """Ask whether the event in the log is that of this consent, and says the same."""
    if event["ty"] != RECORDED:
        raise ReceiptInvalid("receipt_event", "the event is not that of a consent")
    record = content.get("dpv:hasRecordOfActivity")
    said = record.get("lethe:recorded") if isinstance(record, dict) else None
    if said != recorded(event):
        raise ReceiptInvalid("receipt_differs", "the log says something else of the consent")


def recorded(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the event in the log says of a consent, as its receipt repeats it."""
    return {name: event[name] for name in ("con", "pur", "form", "flags", "ntc", "exp") if name in event}
