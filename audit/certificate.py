"""Verifies a certificate of erasure: the proof carries its leaf, the opening what the leaf committed to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from audit import canonical
from audit.errors import AuditError, OpeningInvalid, ProofInvalid
from audit.seal import check_opening
from audit.single import opened
from audit.trust import read_trust

ERASED = "subject.erased"
MAX_OPENING_BYTES = 4 << 20
_SALT = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class CertificateReport:
    """What a certificate is worth.

    Attributes:
        verdict: `untrusted` says that all fits and that nobody knows whose log it is.
        fault: The first fault, a sentence that begins with its code; empty where there is none.
        leaf: The event `subject.erased`; empty where the proof does not hold.
        opening: What the leaf committed to; None where no opening was given or it does not fit.
    """

    verdict: Literal["valid", "invalid", "untrusted"]
    fault: str = ""
    origin: str = ""
    index: int = 0
    size: int = 0
    leaf: Mapping[str, Any] = field(default_factory=dict)
    opening: Mapping[str, Any] | None = None


def verify_certificate(tlog_proof: str, opening: bytes | None, trust: str | None) -> CertificateReport:
    """Return what a certificate of erasure is worth, by the keys of `trust`.

    Args:
        tlog_proof: Text of the `*.tlog-proof` file; its `extra` line is the leaf.
        opening: Bytes of the `*.opening.json` beside it, or None.
        trust: Text of a trust file (`read_trust`), or None: then at best `untrusted`.

    Raises:
        TrustInvalid: No key can be taken from `trust`.
    """
    believed = None if trust is None else read_trust(trust)
    try:
        found, head, event = opened(tlog_proof, believed)
        if event["ty"] != ERASED:
            raise ProofInvalid("certificate_type", "the leaf is not that of an erasure")
        payload = None if opening is None else _opened(opening, event)
    except AuditError as error:
        return CertificateReport("invalid", str(error))
    verdict: Literal["valid", "untrusted"] = "valid" if believed else "untrusted"
    return CertificateReport(verdict, "", head.origin, found.index, head.size, event, payload)


def _opened(opening: bytes, event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the payload of an opening that fits the leaf and says what the leaf says."""
    parts = canonical.parse(opening, MAX_OPENING_BYTES)
    if not isinstance(parts, dict) or parts.keys() != {"payload", "salt"}:
        raise OpeningInvalid("opening_malformed", "an opening is a payload and its salt")
    text, salt = parts["payload"], parts["salt"]
    if not isinstance(text, str) or not isinstance(salt, str) or not _SALT.fullmatch(salt):
        raise OpeningInvalid("opening_malformed", "an opening is a payload and its salt")
    # A lone surrogate has no bytes, so nobody can have committed to it.
    payload = text.encode(errors="replace")
    check_opening(bytes.fromhex(event["opn"]), payload, bytes.fromhex(salt))
    stated = canonical.parse(payload, MAX_OPENING_BYTES)
    if not isinstance(stated, dict):
        raise OpeningInvalid("opening_malformed", "the payload is not an object")
    for name, expected in _facts(event).items():
        if name not in stated or not _same(stated[name], expected):
            raise OpeningInvalid(f"opening_{name}", "the opening says something else than the leaf")
    return stated


def _facts(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the opening must say because the leaf says it."""
    return {
        "dsr": f"dsrs/{event['dsr']}",
        "erased_classes": event["cls"],
        "kept_classes": event["kept"],
        "unreadable_here_ms": event["t1"],
        "unreadable_in_backups_ms": event.get("t2"),
    }


def _same(left: Any, right: Any) -> bool:
    """Return whether two JSON values are the same; `True == 1` in Python and not here."""
    if left is None or right is None:
        return left is right
    return canonical.encode(left) == canonical.encode(right)
