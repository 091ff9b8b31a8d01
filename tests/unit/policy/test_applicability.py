"""Which rule books apply."""

from __future__ import annotations

from typing import Any

import pytest

from policy.applicability import applicable, unpacked
from policy.pack import Pack
from tests.unit.policy.asking import PACKS, facts

PENDING = {"gdpr", "ccpa", "pipeda"}
THREE = {name: PACKS[name] for name in sorted(PENDING)}


def books(
    residence: str | None, location: str | None, packs: dict[str, Pack] = THREE, **changes: Any
) -> list[str]:
    subject = {"residence": residence, "location": location}
    return [pack.id for pack in applicable(facts(None, subject=subject, **changes), packs)]


@pytest.mark.parametrize("code", ["DE", "DE-BY", "NO", "IS", "LI", "GF", "AX", "de"])
def test_gdpr_applies_to_who_lives_or_is_in_the_eea(code: str) -> None:
    """GDPR Art. 3(2): being in the Union; the house adds residence."""
    assert books(code, None) == ["gdpr"]
    assert books(None, code) == ["gdpr"]
    assert books("BR", code) == ["gdpr"]
    assert books(code, "BR") == ["gdpr"]


@pytest.mark.parametrize("code", ["GB", "CH", "GL", "FO", "PF", "US-OH", "BR", "CW"])
def test_outside_the_eea_gdpr_does_not_apply_by_itself(code: str) -> None:
    assert books(code, code) == []


def test_an_establishment_in_the_eea_brings_gdpr_to_everyone() -> None:
    """GDPR Art. 3(1): wherever the person is."""
    assert books("US-CA", "US-CA", controller={"establishments": ["IE"]}) == ["ccpa", "gdpr"]
    assert books("US-CA", "US-CA", controller={"establishments": ["US-CA"]}) == ["ccpa"]
    assert books("US-CA", "US-CA") == ["ccpa"]


def test_a_controller_who_does_not_target_the_eea_still_meets_gdpr_by_the_house() -> None:
    assert books("DE", "DE", controller={"targets": ["US"]}) == ["gdpr"]


@pytest.mark.parametrize(("residence", "location"), [("US-CA", "DE"), ("US-CA", None), (None, "US-CA")])
def test_ccpa_follows_the_resident_abroad(residence: str | None, location: str | None) -> None:
    """Cal. Civ. Code 1798.140(i): a resident, also while temporarily away."""
    assert "ccpa" in books(residence, location)


def test_several_rule_books_apply_together_the_more_specific_first() -> None:
    assert books("US-CA", "DE") == ["ccpa", "gdpr"]
    assert books("CA-ON", "FR") == ["gdpr", "pipeda"]


def test_who_is_known_only_to_be_in_a_country_may_be_in_any_part_of_it() -> None:
    assert books("US", None) == ["ccpa"]
    assert books("CA", None) == ["pipeda"]


@pytest.mark.parametrize("province", ["ON", "MB", "SK", "NS", "NB", "PE", "NL", "YT", "NT", "NU"])
def test_pipeda_applies_where_no_province_has_a_law_of_its_own(province: str) -> None:
    """PIPEDA s. 4(1)(a)."""
    assert books(f"CA-{province}", None, recipient={"country": f"CA-{province}"}) == ["pipeda"]


@pytest.mark.parametrize(
    ("country", "applies"),
    [(None, True), ("US", True), ("CA-ON", True), ("CA", True), ("CA-QC", False)],
)
def test_pipeda_comes_to_quebec_when_data_crosses_the_border(country: str | None, applies: bool) -> None:
    """PIPEDA s. 4(1), SOR/2003-374: an unknown border counts as crossed."""
    assert applies == ("pipeda" in books("CA-QC", "CA-QC", recipient={"country": country}))


@pytest.mark.parametrize("province", ["CA-AB", "CA-BC"])
def test_pipeda_stands_in_for_the_provinces_that_are_not_packed(province: str) -> None:
    """House: BC PIPA and AB PIPA have no pack."""
    assert books(province, province, recipient={"country": province}) == ["pipeda"]


def test_of_an_unknown_place_the_strictest_packs_apply() -> None:
    """Law sheet 2.2: GDPR + CCPA + Quebec + BIPA together, of those that are loaded."""
    assert books(None, None) == ["ccpa", "gdpr"]


def test_an_establishment_does_not_make_a_place_known() -> None:
    assert books(None, None, controller={"establishments": ["US-CA"]}) == ["ccpa", "gdpr"]


@pytest.mark.parametrize(
    ("residence", "location", "laws"),
    [
        ("GB", None, ("uk_gdpr",)),
        ("CA-QC", "US-IL", ("qc_law25", "il_bipa")),
        (
            "US",
            None,
            (
                "il_bipa",
                "tx_cubi",
                "wa_mhmda",
                "tx_tdpsa",
                "co_cpa",
                "va_cdpa",
                "ct_ctdpa",
                "or_ocpa",
                "md_modpa",
            ),
        ),
        ("CA-BC", None, ("bc_pipa",)),
        ("BR", "BR", ("lgpd",)),
        ("DE", "DE", ()),
        (None, None, ()),
    ],
)
def test_a_law_that_reaches_the_person_without_a_pack_is_named(
    residence: str | None, location: str | None, laws: tuple[str, ...]
) -> None:
    asked = facts(None, subject={"residence": residence, "location": location})
    assert laws == unpacked(asked, THREE)
