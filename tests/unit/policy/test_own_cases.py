"""More cases in the form of the law sheet's, its sections gone through one by one.

They go through `policy.answer`, which the command line and the wire print.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from policy.answer import clocked, decided
from policy.pack import load_packs
from policy.terms import Purpose
from tests.unit.policy.test_visible_cases import cases, first_place

PACKS = load_packs()
DECISIONS = cases("own_decisions.json")
DATES = cases("own_dates.json")


@pytest.mark.parametrize("case", DECISIONS, ids=lambda one: f"{one['id']} {one['why']}")
def test_a_decision_is_what_the_law_sheet_says(case: dict[str, Any]) -> None:
    got = decided(case["inputs"], PACKS, "legal")
    assert case["expected"] == {name: got[name] for name in case["expected"]}, got["denials"]
    assert bool(got["would_change"]) is (got["decision"] == "deny")
    if got["deciding_pack"] != "house":
        assert first_place(case["citation"]) in "; ".join(got["citations"])


@pytest.mark.parametrize("case", DATES, ids=lambda one: f"{one['id']} {one['regime']} {one['note']}")
def test_a_clock_is_what_the_law_sheet_says(case: dict[str, Any]) -> None:
    got = clocked(case, PACKS)
    assert case["expected"] == {name: got[name] for name in case["expected"]}


def test_every_pack_that_applies_decides_some_case_and_every_purpose_is_asked() -> None:
    deciding = {case["expected"]["deciding_pack"] for case in DECISIONS}
    assert deciding == {*PACKS, "house"} - {"wa_bio"}
    assert {case["inputs"]["purpose"] for case in DECISIONS} == {purpose.value for purpose in Purpose}


@pytest.mark.parametrize(
    "case", [*DECISIONS, *cases("visible_decisions.json")], ids=lambda one: str(one["id"])
)
def test_what_is_printed_is_json_and_both_layers_stand_in_it(case: dict[str, Any]) -> None:
    got = decided(case["inputs"], PACKS)
    assert json.loads(json.dumps(got)) == got
    assert got["allowed"] is ("deny" not in {got["decision"], got["house"]["decision"]})
    assert all(one["id"] in PACKS and one["version"] and len(one["digest"]) == 64 for one in got["policy"])
