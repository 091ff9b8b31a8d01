"""Facts: known keys only, typed, frozen."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from policy.errors import FactInvalid, FactUnknown
from policy.facts import DERIVED, Facts, is_fact, parse_facts

AT = "2026-11-23T12:00:00Z"


def given(**changes: Any) -> dict[str, Any]:
    return {"purpose": "generate", "at": AT, **changes}


def consents(*several: dict[str, Any]) -> Facts:
    return parse_facts(
        given(consents=[{"purpose": "generate", "form": "explicit", **one} for one in several])
    )


@pytest.mark.parametrize(
    ("path", "changes"),
    [
        ("residence", {"residence": "DE"}),
        ("subject.resident", {"subject": {"resident": "DE"}}),
        ("subject.guardian.methods", {"subject": {"guardian": {"methods": "x"}}}),
        ("consents.0.withdrawn", {"consents": [{"purpose": "train", "form": "express", "withdrawn": AT}]}),
        ("signals.dnt", {"signals": {"dnt": True}}),
        ("recipient.name", {"recipient": {"name": "x"}}),
        ("purpose_withdrawn", {"purpose_withdrawn": False}),
        ("unheard_of", {"unheard_of": None}),
    ],
)
def test_an_unknown_key_is_refused_at_any_depth_by_its_path(path: str, changes: dict[str, Any]) -> None:
    with pytest.raises(FactUnknown) as caught:
        parse_facts(given(**changes))
    assert path == caught.value.path
    assert caught.value.reason == "FACT_UNKNOWN"


def test_an_unknown_key_is_told_before_a_wrong_value() -> None:
    with pytest.raises(FactUnknown):
        parse_facts(given(subject={"age": "old", "aeg": 3}))


@pytest.mark.parametrize(
    "changes",
    [
        {"at": 1_795_000_000},
        {"at": 1_795_000_000.5},
        {"at": "2026-11-23T12:00:00"},
        {"at": None},
        {"purpose": None},
        {"purpose": "everything"},
        {"purpose_expired_at": 0},
        {"system": {"placed_on_market": 20_000}},
        {"consents": [{"purpose": "train", "form": "express", "withdrawn_at": 0}]},
        {"consents": [{"purpose": "train", "form": "express", "given_at": "2026-11-23"}]},
        {"consents": [{"purpose": "train"}]},
        {"consents": {"purpose": "train", "form": "express"}},
        {"subject": {"age": "30"}},
        {"subject": {"age": True}},
        {"subject": {"age": 30.0}},
        {"subject": {"age": -1}},
        {"subject": {"is_uploader": "yes"}},
        {"subject": {"residence": False}},
        {"signals": {"gpc": 1}},
        {"notices": "collection"},
    ],
)
def test_a_value_that_a_fact_cannot_have_is_refused(changes: dict[str, Any]) -> None:
    """A number where an instant is meant would be read as seconds since 1970, in the past."""
    with pytest.raises(FactInvalid):
        parse_facts(given(**changes))


@pytest.mark.parametrize("whole", [None, [], "x", 3])
def test_facts_are_an_object(whole: Any) -> None:
    with pytest.raises(FactInvalid):
        parse_facts(whole)


def test_a_refusal_does_not_repeat_the_value() -> None:
    with pytest.raises(FactInvalid) as caught:
        parse_facts(given(subject={"residence": {"street": "Musterweg 3"}}))
    assert "Musterweg" not in str(caught.value)


def test_null_and_not_given_are_the_same() -> None:
    assert parse_facts(given()) == parse_facts(
        given(subject=None, consents=None, notices=None, signals=None, recipient=None, capacity=None)
    )


@pytest.mark.parametrize("code", ["us-ca", " US-CA ", "US-CA"])
def test_a_code_is_read_in_any_case(code: str) -> None:
    assert parse_facts(given(subject={"residence": code})).subject.residence == "US-CA"


def test_an_empty_code_is_not_known() -> None:
    assert parse_facts(given(subject={"residence": " "})).subject.residence is None


def test_facts_do_not_change() -> None:
    with pytest.raises(ValidationError):
        parse_facts(given()).purpose = "train"  # type: ignore[assignment,misc] # the point of the test


@pytest.mark.parametrize(
    ("method", "is_verified"), [("payment_card", True), ("", False), (" ", False), (None, False)]
)
def test_a_guardian_is_verified_only_where_the_method_is_named(method: str | None, is_verified: bool) -> None:
    """GDPR Art. 8(2): reasonable efforts to verify."""
    facts = parse_facts(given(subject={"guardian": {"verified_method": method, "relation": "mother"}}))
    assert is_verified == facts.guardian_verified


def test_a_withdrawal_ends_older_consents_of_the_same_purpose() -> None:
    """GDPR Art. 7(3): an older record of the same choice does not come back to life."""
    old, taken_back = {"given_at": "2026-01-01T00:00:00Z"}, {"withdrawn_at": "2026-02-01T00:00:00Z"}
    assert consents(old, taken_back).purpose_withdrawn
    assert not consents(taken_back, {"given_at": "2026-03-01T00:00:00Z"}).purpose_withdrawn


def test_a_consent_without_a_time_does_not_outlive_a_withdrawal() -> None:
    assert consents({}, {"withdrawn_at": "2026-02-01T00:00:00Z"}).purpose_withdrawn


@pytest.mark.parametrize(
    ("one", "stands"),
    [
        ({}, True),
        ({"given_at": AT}, True),
        ({"given_at": "2026-11-23T12:00:01Z"}, False),
        ({"withdrawn_at": AT}, False),
        ({"withdrawn_at": "2026-11-23T12:00:01Z"}, True),
        ({"expires_at": AT}, False),
        ({"expires_at": "2026-11-23T12:00:01Z"}, True),
    ],
)
def test_a_consent_stands_from_its_giving_to_its_end(one: dict[str, Any], stands: bool) -> None:
    facts = consents(one)
    assert stands == facts.stands(facts.consents[0])


def test_only_leaves_and_derived_facts_have_names() -> None:
    assert all(map(is_fact, [*DERIVED, "subject.age", "notices", "recipient.country", "at"]))
    assert not any(map(is_fact, ["", "subject", "subject.guardian", "subject.", "guardian_verified_method"]))
