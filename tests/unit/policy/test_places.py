"""Codes of places."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from lethe.v1 import subject_pb2

from gateway.errors import MessageInvalid
from gateway.judge import Case, ControllerFacts, Judge
from gateway.people import Profile
from gateway.rpc import convert
from policy.places import COUNTRIES, is_place, markets, place
from tests.unit.policy.asking import PACKS


@pytest.mark.parametrize(
    ("code", "read"), [("de", "DE"), (" US-CA ", "US-CA"), ("UK", "GB"), ("UK-SCT", "GB-SCT"), ("EL", "GR")]
)
def test_a_place_is_read_as_rules_compare_it(code: str, read: str) -> None:
    assert read == place(code)


@pytest.mark.parametrize(
    "code", ["", "D", "DEU", "ZZ", "QQ", "EU", "US-ZZ", "CA-CA", "US-CAL1", "DE_BY", "ÄÖ"]
)
def test_what_is_no_place_is_refused(code: str) -> None:
    assert not is_place(code)
    with pytest.raises(ValueError, match="ISO 3166"):
        place(code)


def test_there_are_as_many_countries_as_the_standard_has_and_one() -> None:
    assert len(COUNTRIES) == 249 + 1


def test_the_union_stands_for_its_members() -> None:
    assert len(markets(("EU",))) == 27
    assert {"IS", "LI", "NO"} == set(markets(("EEA", "DE"))) - set(markets(("EU",)))


def test_every_place_that_a_pack_names_is_one() -> None:
    named = {code for pack in PACKS.values() for codes in pack.rules.sets.values() for code in codes}
    named |= {code for pack in PACKS.values() for rule in pack.rules.minors for code in rule.age_table}
    assert all(map(is_place, named))


def test_a_subject_is_not_taken_in_under_a_place_that_is_none() -> None:
    with pytest.raises(MessageInvalid):
        convert.profile(subject_pb2.Subject(name="subjects/ann", residence="QQ"))


def test_a_place_taken_in_before_they_were_checked_counts_as_not_known() -> None:
    controller = ControllerFacts("Acme", "", None, None, "UTC", None)
    case = Case(Profile("ann", "QQ"), "generate", datetime(2026, 11, 23, tzinfo=UTC))
    told = Judge._facts(controller, case, (), (), None)
    assert told["subject"]["residence"] is None
