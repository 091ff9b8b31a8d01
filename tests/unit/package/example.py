"""A document as the gatherer makes it, with something in every part."""

from __future__ import annotations

from typing import Any

from gateway.package.answers import ANSWERS

AT = "2026-11-30T14:12:05+00:00"
LATER = "2026-12-30T14:12:05+00:00"


def held(
    name: str, cls: str, kind: str, purpose: str = "", rule: str = "GDPR Art. 5(1)(e)"
) -> dict[str, Any]:
    return {
        "name": name,
        "class": cls,
        "kind": kind,
        "purpose": purpose,
        "size_bytes": 4711,
        "since": AT,
        "until": None if kind == "profile" else LATER,
        "rule": rule,
    }


def image(number: int, kind: str) -> dict[str, Any]:
    return {
        "file": f"images/{number:03}-{kind}.jpg",
        "object": f"objects/{number:032x}",
        "job": f"jobs/{number:032x}",
        "kind": kind,
        "purpose": "generate",
        "type": "jpeg",
        "width": 640,
        "height": 800,
        "size_bytes": 4711,
        "state": "live",
        "created_at": AT,
        "expires_at": LATER,
    }


DOCUMENT: dict[str, Any] = {
    "format": "lethe.dev/access-package/v1",
    "kind": "access",
    "law": {
        "id": "gdpr",
        "title": "Regulation (EU) 2016/679",
        "authority": "lead or local supervisory authority",
        "version": "2026.11.23",
        "sha256": "ab" * 32,
    },
    "request": {"id": f"dsrs/{'0a' * 16}", "received_at": AT},
    "made_at": AT,
    "controller": {
        "name": "Example Studio",
        "contact": "privacy@example.org",
        "time_zone": "Europe/Berlin",
    },
    "rights": [
        {"right": "access", "layer": "legal", "citations": ["GDPR Art. 15", "GDPR Art. 12(3)-(6)"]},
        {"right": "erasure", "layer": "legal", "citations": ["GDPR Art. 17"]},
        {"right": "withdrawal", "layer": "legal", "citations": ["GDPR Art. 7(3)"]},
    ],
    "answers": {part: list(cites) for part, cites in ANSWERS["gdpr"].items()},
    "subject": {
        "id": "crew-4711",
        "residence": "DE",
        "location": "",
        "birth_year": 1980,
        "age_band": "",
        "guardian": {"verified_method": "payment_card", "relation": "parent"},
        "known_since": AT,
        "state": "active",
    },
    "images": [image(1, "original"), image(2, "output")],
    "withheld": [{"object": f"objects/{3:032x}", "kind": "output", "reason_code": "GDPR_15_4_OTHERS"}],
    "jobs": [
        {
            "job": f"jobs/{1:032x}",
            "purpose": "generate",
            "style": "studio_grey",
            "uploaded_by": "other",
            "backend": "studio",
            "state": "succeeded",
            "reason": "",
            "created_at": AT,
            "updated_at": AT,
            "expires_at": LATER,
        }
    ],
    "consents": [
        {
            "file": "receipts/001.json",
            "receipt": "receipts/001.jsonld",
            "purpose": "generate",
            "given_at": AT,
            "expires_at": None,
            "is_expired": False,
            "withdrawn_at": None,
            "superseded_by": "",
        },
        {
            "file": "receipts/002.json",
            "receipt": None,
            "purpose": "retain_output",
            "given_at": AT,
            "expires_at": None,
            "is_expired": False,
            "withdrawn_at": LATER,
            "superseded_by": "",
        },
    ],
    "signals": {"gpc": True, "limit_spi": True, "recorded_at": AT},
    "held": [
        held(f"jobs/{1:032x}", "content", "job", "generate", "GDPR Art. 6(1)(b)"),
        held(f"objects/{1:032x}", "content", "original", "generate"),
        held(f"objects/{2:032x}", "content", "output", "generate"),
        held("signals", "profile", "signal", "", "Cal. Civ. Code 1798.135(c)(4)"),
        held(f"consents/{1:032x}", "evidence", "consent", "generate", "GDPR Art. 7(1)"),
        held("profile", "profile", "profile", "", "GDPR Art. 6(1)(b)"),
        held(f"dsrs/{'0a' * 16}", "dsr", "access", "", "GDPR Art. 5(2)"),
        held(f"holds/{1:032x}", "dsr", "hold", "", "PIPEDA s. 8(8)"),
        held("audit-payloads", "audit", "payload", "", "GDPR Art. 5(2)"),
    ],
    "requests": [
        {
            "request": f"dsrs/{'0a' * 16}",
            "kind": "access",
            "law": "gdpr",
            "state": "running",
            "received_at": AT,
            "due_on": "2026-12-30",
            "extended_due_on": "",
            "reason_code": "",
        }
    ],
    "holds": [
        {
            "hold": f"holds/{1:032x}",
            "rule": "PIPEDA s. 8(8)",
            "classes": ["content"],
            "placed_at": AT,
            "until": None,
        }
    ],
    "datasets": [],
    "recipients": [
        {
            "id": "0b" * 16,
            "name": "studio",
            "region": "DE",
            "retention_s": 0,
            "trains_on_inputs": False,
            "count": 2,
            "first_at": AT,
            "last_at": LATER,
        }
    ],
    "events": [
        {
            "index": number,
            "id": f"{number:032x}",
            "type": ty,
            "at": AT,
            "says": {},
            "proof": f"events/{number:09}.tlog-proof" if number else None,
            "opening": f"events/{number:09}-0.json" if number else None,
        }
        for number, ty in enumerate(
            ("consent.recorded", "decision.made", "dsr.received", "package.released", "job.created")
        )
    ],
}
