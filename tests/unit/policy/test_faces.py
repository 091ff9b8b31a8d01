"""What is done about faces follows from what a picture is for."""

from __future__ import annotations

from typing import get_args

import pytest

from audit.schema import RULE
from gateway.deidentify.deidentified import Profile
from policy.faces import NOT_SERVED, TREATMENTS, WRONG_PROFILE, pair
from policy.terms import Purpose

PROFILES = get_args(Profile)
MAY = {
    (Purpose.GENERATE, "bystanders"),
    (Purpose.ANALYTICS, "landmarks"),
    (Purpose.ANALYTICS, "redact"),
    (Purpose.TRAIN, "landmarks"),
    (Purpose.TRAIN, "redact"),
}


@pytest.mark.parametrize("purpose", Purpose)
@pytest.mark.parametrize("profile", [*PROFILES, "metadata_free", "canonical", "LANDMARKS"])
def test_a_pairing_that_is_not_in_the_table_is_refused_with_a_reason(purpose: Purpose, profile: str) -> None:
    """GDPR Art. 25."""
    found = pair(purpose, profile)
    assert (found.profile == profile) is ((purpose, profile) in MAY)
    assert (found.reason == "") is bool(found.profile)
    assert found.reason in {"", NOT_SERVED, WRONG_PROFILE}


def test_what_is_not_asked_for_is_the_usual() -> None:
    assert [pair(purpose).profile for purpose in Purpose] == [
        "bystanders",
        "",
        "",
        "landmarks",
        "landmarks",
        "",
        "",
    ]


def test_every_row_names_a_profile_that_there_is_and_cites_what_asks_for_it() -> None:
    for treatment in TREATMENTS.values():
        assert set(treatment.profiles) <= set(PROFILES)
        assert treatment.citations
        assert all(RULE(citation) for citation in treatment.citations)
