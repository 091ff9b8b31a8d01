"""Duties of several laws, merged to the strictest."""

from __future__ import annotations

from typing import Any

from policy.advice import would_change
from policy.consent import decide
from policy.obligations import Obligation, obligations
from tests.unit.policy.asking import PACKS, facts


def duties(residence: str, purpose: str = "generate", **changes: Any) -> dict[tuple[str, str], Obligation]:
    asked = facts(residence, purpose, **changes)
    found = obligations(asked, [PACKS[name] for name in decide(asked, PACKS).packs])
    return {(one.kind, one.about): one for one in found}


def test_the_earliest_answer_and_the_longest_record_win() -> None:
    """LGPD Art. 19 II is earlier than Cal. Civ. Code 1798.130; 11 CCR 7101 keeps request files 24 months."""
    got = duties("US-CA", subject={"location": "BR"})
    assert (got["answer_by", "access"].value, got["answer_by", "access"].pack) == ("2026-12-08", "lgpd")
    assert (got["keep_at_least", "dsr_file"].value, got["keep_at_least", "dsr_file"].pack) == ("P24M", "ccpa")
    assert (got["keep_at_least", "breach_record"].value, got["keep_at_least", "breach_record"].pack) == (
        "P5Y",
        "lgpd",
    )
    assert got["keep_at_most", "original"].value == "PT24H"
    assert got["signal", "gpc"].value == "opt_out_of_sale_and_sharing display_honoured"


def test_an_output_carries_all_layers_that_its_system_must() -> None:
    """Reg. (EU) 2024/1689 Art. 50(2), 111(4)."""
    old = {"system": {"placed_on_market": "2026-07-15"}}
    layers = {"manifest", "watermark", "visible_label"}
    assert {about for kind, about in duties("DE") if kind == "mark"} == layers
    assert {about for kind, about in duties("DE", **old) if kind == "mark"} == {"visible_label"}
    late = duties("DE", at="2026-12-02T12:00:00Z", **old)
    assert {about for kind, about in late if kind == "mark"} == layers


def test_every_condition_of_a_transfer_stands() -> None:
    asked = facts("CA-QC", "transfer", recipient={"country": "US"})
    packs = [PACKS[name] for name in decide(asked, PACKS).packs]
    assert {one.pack for one in obligations(asked, packs) if one.kind == "transfer"} == {"qc_law25", "pipeda"}
    assert ("assess", "pia") in duties("CA-QC", "transfer", recipient={"country": "US"})


def test_what_would_turn_a_denial_is_said_or_that_nothing_would() -> None:
    asked = facts("US-IL", "sell_share", consents=[])
    assert "nothing: consent cannot cure it" in would_change(decide(asked, PACKS), asked, PACKS)
    asked = facts("GB", "transfer", recipient={"country": "IN"})
    wanted = "bring: `IDTA` or `ADDENDUM` or `UK_ADDENDUM` or `BCR` or `EXPLICIT_CONSENT_49_1_A`"
    assert wanted in would_change(decide(asked, PACKS, layer="legal"), asked, PACKS)
    asked = facts("DE", subject={"age": 12})
    assert "ask for: the consent of a verified guardian to `generate`" in would_change(
        decide(asked, PACKS, layer="legal"), asked, PACKS
    )
