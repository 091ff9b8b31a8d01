"""The worked cases of our law sheet."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from policy.clocks import Moment, reckon
from policy.consent import decide
from policy.facts import parse_facts
from policy.pack import load_packs

LAW = Path(__file__).parents[2] / "vectors" / "law"
SHARED = Path(__file__).parents[4] / "shared" / "law"
PACKS = load_packs()

CITED_BY_ITS_GROUND = {"D06": "9(2)(a)"}
"""A minor old enough is allowed by the ground of the consent; the age rule that did not bite is not cited."""


def cases(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((LAW / name).read_bytes())["cases"]
    return found


DATES = cases("visible_dates.json")
DECISIONS = cases("visible_decisions.json")


def decider(case: dict[str, Any]) -> str:
    return str(case["expected"]["deciding_pack"])


def first_place(citation: str) -> str:
    """Return the first article or section that a citation names: `9(2)(a)`, `1798.120`, `4.3.3`."""
    found = re.search(r"\d+(?:\.\d+)*(?:\([a-z0-9]+\))*", citation)
    assert found is not None
    return found.group()


def printed(moment: Moment | None) -> str | None:
    return None if moment is None else moment.isoformat()


def test_every_regime_of_the_cases_is_packed_and_no_case_is_skipped() -> None:
    regimes = {case["regime"].lower() for case in DATES} | {decider(case) for case in DECISIONS} - {"house"}
    assert regimes <= set(PACKS)
    assert (len(DATES), len(DECISIONS)) == (56, 30)


@pytest.mark.parametrize("name", ["visible_dates.json", "visible_decisions.json"])
def test_the_copies_of_the_law_sheets_cases_are_the_law_sheets(name: str) -> None:
    if not (SHARED / name).exists():
        pytest.skip("no law sheet beside this checkout")
    assert (SHARED / name).read_bytes() == (LAW / name).read_bytes()


@pytest.mark.parametrize("case", DATES, ids=lambda case: str(case["id"]))
def test_a_clock_reckons_the_days_of_the_law_sheet(case: dict[str, Any]) -> None:
    got = {name: printed(moment) for name, moment in reckon(PACKS[case["regime"].lower()], case).items()}
    assert case["expected"] == got, case["note"]


@pytest.mark.parametrize("case", DECISIONS, ids=lambda case: str(case["id"]))
def test_a_decision_is_that_of_the_law_sheet(case: dict[str, Any]) -> None:
    got = decide(parse_facts(case["inputs"]), PACKS, layer="legal")
    expected = case["expected"]
    assert expected["decision"] == ("allow" if got.allowed else "deny"), case["why"]
    assert (expected["reason_code"], expected["deciding_pack"]) == (got.reason_code, got.deciding_pack)
    assert got.citations
    if got.deciding_pack != "house":
        wanted = CITED_BY_ITS_GROUND.get(case["id"], first_place(case["citation"]))
        assert any(wanted in cite for cite in got.citations), (wanted, got.citations)


def test_pipeda_alone_would_let_a_transfer_from_quebec_go_to_a_bound_processor() -> None:
    """D25 says so of PIPEDA, which applies beside Quebec's own law (PIPEDA Sch. 1 cl. 4.1.3)."""
    case = next(case for case in DECISIONS if case["id"] == "D25")
    got = decide(parse_facts(case["inputs"]), {"pipeda": PACKS["pipeda"]}, layer="legal")
    assert (got.allowed, got.reason_code) == (True, "ALLOW_ACCOUNTABILITY")
    assert got.unpacked == ("qc_law25",)
