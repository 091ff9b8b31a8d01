"""What a record of consent must prove, as the packs say."""

from __future__ import annotations

from typing import Any

import pytest

from policy.facts import Consent, Facts
from policy.pack import Pack, load_packs, parse_pack
from policy.proof import lacks
from tests.unit.policy.asking import facts, yes

PACKS = load_packs()


def found(residence: str, purpose: str = "generate", *, has_guardian: bool = False, **changes: Any) -> Any:
    """Return the fields that a record lacks, each with its reason."""
    age = changes.pop("age", 30)
    asked = facts(residence, purpose, subject={"age": age}, consents=[yes(purpose, **changes)])
    said = lacks(asked, asked.consents[0], PACKS, has_guardian=has_guardian)
    assert all(lack.citations for lack in said)
    return {(lack.field, lack.reason_code) for lack in said if lack.pack == "gdpr"}


def test_an_explicit_separate_consent_proves_all_that_the_gdpr_asks_for() -> None:
    """GDPR Art. 7(2), 9(2)(a)."""
    assert found("DE") == set()


@pytest.mark.parametrize(
    ("changes", "lack"),
    [
        ({"form": "express"}, ("form", "DENY_NO_EXPLICIT_CONSENT")),
        ({"via": "terms_of_service"}, ("form", "DENY_NO_EXPLICIT_CONSENT")),
        ({"separate": False}, ("separate", "DENY_CONSENT_BUNDLED")),
    ],
)
def test_what_is_lacking_is_named_with_its_reason(changes: dict[str, Any], lack: tuple[str, str]) -> None:
    assert lack in found("DE", **changes)


def test_for_training_the_service_may_not_hang_on_it() -> None:
    """GDPR Art. 7(4)."""
    assert ("condition_of_service", "DENY_CONSENT_CONDITIONED") in found(
        "DE", "train", condition_of_service=True
    )
    assert found("DE", "generate", condition_of_service=True) == set()


def test_a_young_person_s_record_names_the_guardian() -> None:
    """GDPR Art. 8(2)."""
    lack = ("guardian", "DENY_MINOR_GUARDIAN_REQUIRED")
    assert lack in found("DE", age=14)
    assert lack not in found("DE", age=14, has_guardian=True)
    assert lack not in found("DE", age=30)


def test_where_no_pack_applies_nothing_is_asked() -> None:
    asked = facts("JP", consents=[yes(form="implied")])
    assert lacks(asked, asked.consents[0], {}, has_guardian=False) == ()


def written(must_have: str) -> tuple[Facts, Pack]:
    """Return facts and a pack whose consent needs a signature and the term: data alone says so."""
    source = PACKS["gdpr"].source_bytes.decode()
    changed = source.replace(
        'form: "explicit"\n          separate: true\n          conditioning: "if_necessary"',
        f'form: "written_release"\n          separate: true\n          must_have: [{must_have}]',
        1,
    )
    assert changed != source
    return facts("DE"), parse_pack(changed.encode())


def test_a_signature_and_the_term_shown_are_asked_for_by_data_alone() -> None:
    """740 ILCS 14/15(b), as a pack would say it."""
    asked, pack = written('"signature", "term_shown"')
    bare = Consent.model_validate(yes(form="written_release"))
    said = lacks(asked, bare, {"gdpr": pack}, has_guardian=False)
    assert {lack.field for lack in said} == {"signature", "term_shown"}
    whole = bare.model_copy(update={"signature": "given", "term_shown": "until delivery"})
    assert lacks(asked, whole, {"gdpr": pack}, has_guardian=False) == ()
