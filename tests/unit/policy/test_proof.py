"""What a record of consent must prove, as the packs say."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from policy.pack import ProofField, load_packs
from policy.proof import lacks
from tests.unit.policy.asking import facts, yes

PACKS = load_packs()


ALL = frozenset(get_args(ProofField))


def found(residence: str, purpose: str = "generate", **changes: Any) -> set[tuple[str, str]]:
    """Return what a record lacks by the pack of the place: each field with its reason."""
    held = changes.pop("held", ALL)
    pack = changes.pop("pack", "gdpr")
    age = changes.pop("age", 30)
    asked = facts(residence, purpose, subject={"age": age}, consents=[yes(purpose, **changes)])
    said = lacks(asked, asked.consents[0], PACKS, held)
    assert all(lack.citations for lack in said)
    return {(lack.field, lack.reason_code) for lack in said if lack.pack == pack}


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
    assert lack in found("DE", age=14, held=ALL - {"guardian"})
    assert lack not in found("DE", age=14)
    assert lack not in found("DE", age=30, held=ALL - {"guardian"})


def test_where_no_pack_applies_nothing_is_asked() -> None:
    asked = facts("JP", consents=[yes(form="implied")])
    assert lacks(asked, asked.consents[0], {}, ()) == ()


@pytest.mark.parametrize("field", ["act", "channel", "withdrawal_method_shown"])
def test_what_every_record_must_hold_is_data_too(field: str) -> None:
    """GDPR Art. 7(1)."""
    assert found("DE", held=ALL - {field}) == {(field, "DENY_NO_EXPLICIT_CONSENT")}


def test_a_signature_and_the_term_shown_are_asked_for_where_the_pack_says_so() -> None:
    """740 ILCS 14/15(b)."""
    weak = "DENY_NO_WRITTEN_RELEASE"
    lacking = found("US-IL", pack="il_bipa", form="express", held=ALL - {"signature", "term_shown"})
    assert lacking == {("form", weak), ("signature", weak), ("term_shown", weak)}
    written = {"form": "written_release", "signature": "given", "term_shown": "until delivery"}
    assert found("US-IL", pack="il_bipa", **written) == set()


def test_recipients_are_asked_for_where_something_is_sent_abroad() -> None:
    """GDPR Art. 7(1), 13(1)(e)-(f)."""
    lacking = {field for field, _ in found("DE", "transfer", held=ALL - {"recipients", "transfer_countries"})}
    assert {"recipients", "transfer_countries"} <= lacking
