"""Conditions over facts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from policy.facts import parse_facts
from policy.predicates import Predicate, compiled, lies_in

SETS = {"SOME": ("DE", "US-CA")}
READ: TypeAdapter[Predicate] = TypeAdapter(Predicate)


def true_of(predicate: dict[str, Any], **facts: Any) -> bool:
    known = parse_facts({"purpose": "generate", "at": "2026-11-23T12:00:00Z", **facts})
    return compiled(READ.validate_json(json.dumps(predicate)), SETS)(known)


def lives(code: str | None) -> dict[str, Any]:
    return {"subject": {"residence": code}}


@pytest.mark.parametrize(
    ("code", "territory", "widened", "lies"),
    [
        ("DE", "DE", False, True),
        ("DE-BY", "DE", False, True),
        ("DE", "DE-BY", False, False),
        ("DE", "DE-BY", True, True),
        ("US", "US-CA", True, True),
        ("US-OH", "US-CA", True, False),
        ("USA", "US", True, False),
        ("D", "DE", True, False),
    ],
)
def test_a_territory_lies_in_itself_and_in_what_contains_it(
    code: str, territory: str, widened: bool, lies: bool
) -> None:
    assert lies == lies_in(code, territory, widened=widened)


@pytest.mark.parametrize(("code", "is_in"), [("DE", True), ("DE-BY", True), ("US", True), ("FR", False)])
def test_a_named_set_is_compared_by_containment(code: str, is_in: bool) -> None:
    assert is_in == true_of({"fact": "subject.residence", "op": "in", "value": "$SOME"}, **lives(code))


def test_a_recipients_country_is_not_widened() -> None:
    """Someone known to be in the US is not thereby a recipient in California."""
    test = {"fact": "recipient.country", "op": "in", "value": ["US-CA"]}
    assert not true_of(test, recipient={"country": "US"})


@pytest.mark.parametrize("op", ["eq", "in", "lt", "intersects"])
def test_an_unknown_fact_makes_a_test_false_unless_the_pack_says_otherwise(op: str) -> None:
    fact, value = ("subject.age", 18) if op in {"lt", "eq"} else ("notices", ["x"])
    test = {"fact": fact, "op": op, "value": value}
    assert not true_of(test)
    assert true_of({**test, "missing": True})


def test_true_is_not_one() -> None:
    assert not true_of({"fact": "signals.gpc", "op": "eq", "value": 1}, signals={"gpc": True})
    assert true_of({"fact": "signals.gpc", "op": "eq", "value": True}, signals={"gpc": True})


@pytest.mark.parametrize(("age", "is_lt"), [(15, True), (16, False)])
def test_an_age_is_compared_as_a_number(age: int, is_lt: bool) -> None:
    subject = {"subject": {"age": age}}
    assert is_lt == true_of({"fact": "subject.age", "op": "lt", "value": 16}, **subject)
    assert is_lt != true_of({"fact": "subject.age", "op": "gte", "value": 16}, **subject)


def test_a_day_is_compared_as_a_day() -> None:
    test = {"fact": "system.placed_on_market", "op": "gte", "value": "2026-08-02"}
    assert true_of(test, system={"placed_on_market": "2026-08-02"})
    assert not true_of(test, system={"placed_on_market": "2026-08-01"})


def test_exists_tells_known_from_unknown_and_an_empty_list_is_known() -> None:
    test = {"fact": "notices", "op": "exists", "value": True}
    assert true_of(test, notices=[])
    assert not true_of(test)
    assert true_of({**test, "value": False})


def test_all_any_and_not_combine() -> None:
    yes: dict[str, Any] = {"fact": "subject.age", "op": "exists", "value": False}
    no: dict[str, Any] = {"not": yes}
    assert true_of({"all": [yes, {"any": [no, yes]}]})
    assert not true_of({"all": [yes, no]})
    assert not true_of({"any": [no, {"all": [no, yes]}]})


def test_a_derived_fact_can_be_read() -> None:
    test = {"fact": "purpose_expired", "op": "eq", "value": True}
    assert true_of(test, purpose_expired_at="2026-11-23T12:00:00Z")
    assert not true_of(test, purpose_expired_at="2026-11-23T12:00:01Z")


@pytest.mark.parametrize(
    "broken",
    [
        {"fact": "subject.shoe_size", "op": "eq", "value": 1},
        {"fact": "subject", "op": "exists", "value": True},
        {"fact": "subject.age", "op": "matches", "value": ".*"},
        {"fact": "subject.age", "op": "lt", "value": True},
        {"fact": "subject.age", "op": "lt", "value": "2026-01-01"},
        {"fact": "subject.residence", "op": "lt", "value": 5},
        {"fact": "purpose_expired_at", "op": "gte", "value": "soon"},
        {"fact": "subject.age", "op": "eq", "value": [1]},
        {"fact": "subject.residence", "op": "in", "value": "DE"},
        {"fact": "subject.age", "op": "exists", "value": 1},
        {"fact": "subject.residence", "op": "in", "value": [None]},
        {"fact": "subject.age", "op": "eq", "value": 1, "else": 2},
        {"all": []},
        {"any": []},
        {"all": [{"fact": "subject.age", "op": "eq", "value": 1}], "any": []},
        "subject.age < 16",
    ],
)
def test_what_the_closed_set_of_operators_cannot_say_is_refused(broken: Any) -> None:
    with pytest.raises(ValidationError):
        READ.validate_json(json.dumps(broken))
