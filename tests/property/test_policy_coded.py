"""What a leaf says of a decision is enough to decide again, and says nothing of whom."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.coded import CodesContradict, code, recompute
from policy.consent import decide, restricted
from policy.facts import parse_facts
from policy.pack import load_packs
from tests.property.test_policy_decide import questions
from tests.sample import examples

PACKS = load_packs()
SOURCES = {pack.digest: pack.source_bytes for pack in PACKS.values()}
ANSWER = ("age", "base", "dec", "flags", "form", "law", "layer", "minor", "rc")


def leaf_of(question: dict[str, Any], *, is_restricted: bool = False) -> dict[str, Any]:
    """Return what the leaf says, as it is read back from JSON."""
    facts = parse_facts(question)
    decision = decide(facts, PACKS)
    ids = [f"{place:032x}" for place in range(len(facts.consents))]
    if is_restricted:
        decision = restricted(decision)
    said = code(facts, decision, PACKS, ids, is_restricted=is_restricted)
    read: dict[str, Any] = json.loads(json.dumps(said))
    return read


def answer(said: dict[str, Any]) -> dict[str, Any]:
    return {name: said.get(name) for name in ANSWER}


@settings(deadline=None, max_examples=examples(300))
@given(questions, st.booleans())
def test_the_codes_give_the_same_answer_and_so_do_the_facts(question: dict[str, Any], held: bool) -> None:
    leaf = leaf_of(question, is_restricted=held)
    if "uncoded" not in leaf["yes"]:
        assert answer(leaf) == recompute(leaf, None, SOURCES)
    full = recompute(leaf, question, SOURCES)
    assert leaf == {name: value for name, value in full.items() if value is not None}


@settings(deadline=None)
@given(questions)
def test_an_answer_that_is_turned_round_differs_from_what_the_codes_give(question: dict[str, Any]) -> None:
    leaf = leaf_of(question)
    turned = {**leaf, "dec": "allow" if leaf["dec"] == "deny" else "deny"}
    if "uncoded" not in leaf["yes"]:
        assert turned["dec"] != recompute(turned, None, SOURCES)["dec"]
    assert turned["dec"] != recompute(turned, question, SOURCES)["dec"]


@settings(deadline=None)
@given(questions, st.lists(st.sampled_from(["gdpr.0", "ccpa.0", "ccpa.1", "pipeda.0", "x.9"]), unique=True))
def test_rules_for_the_young_that_no_age_of_the_band_is_under_contradict(
    question: dict[str, Any], under: list[str]
) -> None:
    """Only where the limit is the country's own may the codes choose."""
    leaf = leaf_of(question)
    if leaf["age"] in {"adult", "unknown"} and under and "uncoded" not in leaf["yes"]:
        with pytest.raises(CodesContradict, match="age_contradicts"):
            recompute({**leaf, "under": under}, None, SOURCES)


@settings(deadline=None)
@given(questions)
def test_nothing_of_where_or_who_stands_in_the_codes(question: dict[str, Any]) -> None:
    subject = {**question["subject"], "residence": "DE-BY", "location": "DE-BY", "age": 88}
    subject["guardian"] = {"verified_method": "Eileen", "relation": "Collins"}
    seen = [
        {**one, "by": "Eileen", "via": "Collins", "signature": "EC", "term_shown": "for Eileen"}
        for one in question["consents"]
    ]
    text = json.dumps(leaf_of({**question, "subject": subject, "consents": seen}))
    for canary in ("DE-BY", "Eileen", "Collins", '"EC"', "88,"):
        assert canary not in text.replace("sha256", "")
