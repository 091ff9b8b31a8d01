"""Questions to policy as the tests ask them."""

from __future__ import annotations

from typing import Any, Literal

from policy.consent import Decision, decide
from policy.facts import Facts, parse_facts
from policy.pack import load_packs

PACKS = load_packs()
AT = "2026-11-23T12:00:00Z"


def yes(purpose: str = "generate", **changes: Any) -> dict[str, Any]:
    """An explicit, separate consent."""
    return {"purpose": purpose, "form": "explicit", "separate": True, **changes}


def release(purpose: str = "generate", **changes: Any) -> dict[str, Any]:
    """A consent that has whatever any law asks: separate, highlighted, signed, with its term."""
    asked = {"form": "written_release", "highlighted": True, "signature": "electronic", "term_shown": "24 h"}
    return yes(purpose, **{**asked, **changes})


ALL_TOLD = ["collection", "before_capture", "bipa_policy", "chd_privacy_policy", "right_to_opt_out"]
"""Every notice that some law asks for."""


def facts(residence: str | None, purpose: str = "generate", **changes: Any) -> Facts:
    """An adult's own portrait, the notice shown, no consent."""
    subject = {"residence": residence, "location": residence, "age": 30, "is_uploader": True}
    subject |= changes.pop("subject", {})
    return parse_facts(
        {
            "subject": subject,
            "purpose": purpose,
            "data": {"kind": "original", "template_extracted": True, "unique_identification_purpose": True},
            "consents": [],
            "notices": ["collection"],
            "service_requested": True,
            "at": AT,
            **changes,
        }
    )


def ask(
    residence: str | None,
    purpose: str = "generate",
    layer: Literal["legal", "house", "both"] = "both",
    **changes: Any,
) -> Decision:
    """Decide on `facts` with every pack that there is."""
    return decide(facts(residence, purpose, **changes), PACKS, layer=layer)
