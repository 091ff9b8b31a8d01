"""Decisions, one rule at a time."""

from __future__ import annotations

from typing import Any

import pytest

from policy.applicability import applicable
from policy.codes import ALLOW_CODES, DENY_CODES, TIER, specificity
from policy.consent import decide
from policy.pack import parse_pack
from policy.terms import AgeBand
from tests.unit.policy.asking import ALL_TOLD, PACKS, ask, facts, release, yes

PLACES = ["DE", "US-CA", "CA-ON"]
PACK = {"DE": "gdpr", "US-CA": "ccpa", "CA-ON": "pipeda"}
CHILD = {"subject": {"age": 15, "guardian": {"verified_method": "payment_card", "relation": "father"}}}


# --- the portrait ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "code"),
    [("DE", "ALLOW_EXPLICIT_CONSENT"), ("US-CA", "ALLOW_NOTICE"), ("CA-ON", "ALLOW_EXPRESS_CONSENT")],
)
def test_an_adults_portrait_with_explicit_consent_and_notice_is_allowed(place: str, code: str) -> None:
    """GDPR Art. 9(2)(a); Cal. Civ. Code 1798.100(a); PIPEDA Sch. 1 cl. 4.3.6; and the house floor."""
    got = ask(place, consents=[yes()])
    assert (got.allowed, got.reason_code, got.deciding_pack, got.denials) == (True, code, PACK[place], ())
    assert got.house is not None
    assert got.legal is not None
    assert got.house.allowed
    assert got.legal.allowed


@pytest.mark.parametrize("extracted", [True, False])
@pytest.mark.parametrize(
    ("place", "consents", "code", "pack"),
    [
        ("DE", [], "DENY_NO_EXPLICIT_CONSENT", "gdpr"),
        ("US-CA", [], "DENY_NO_CONSENT", "house"),
        ("CA-ON", [], "DENY_NO_CONSENT", "pipeda"),
        ("DE", [yes("train")], "DENY_NO_EXPLICIT_CONSENT", "gdpr"),
        ("US-CA", [yes("train")], "DENY_PURPOSE_NOT_CONSENTED", "house"),
        ("CA-ON", [yes("train")], "DENY_NO_CONSENT", "pipeda"),
        ("DE", [yes(withdrawn_at="2026-11-22T00:00:00Z")], "DENY_CONSENT_WITHDRAWN", "gdpr"),
        ("US-CA", [yes(withdrawn_at="2026-11-22T00:00:00Z")], "DENY_CONSENT_WITHDRAWN", "house"),
        ("CA-ON", [yes(withdrawn_at="2026-11-22T00:00:00Z")], "DENY_CONSENT_WITHDRAWN", "pipeda"),
        ("DE", [yes(expires_at="2026-11-22T00:00:00Z")], "DENY_CONSENT_EXPIRED", "gdpr"),
        ("US-CA", [yes(expires_at="2026-11-22T00:00:00Z")], "DENY_CONSENT_EXPIRED", "house"),
        ("CA-ON", [yes(expires_at="2026-11-22T00:00:00Z")], "DENY_CONSENT_EXPIRED", "pipeda"),
        ("DE", [yes(form="express")], "DENY_NO_EXPLICIT_CONSENT", "gdpr"),
        ("US-CA", [yes(form="express")], "DENY_NO_EXPLICIT_CONSENT", "house"),
        ("CA-ON", [yes(form="express")], "DENY_NO_EXPLICIT_CONSENT", "house"),
        ("CA-ON", [yes(form="implied")], "DENY_NO_CONSENT", "pipeda"),
        ("DE", [yes(via="terms_of_service")], "DENY_NO_EXPLICIT_CONSENT", "gdpr"),
        ("US-CA", [yes(via="Terms_of_Service ")], "DENY_NO_EXPLICIT_CONSENT", "house"),
        ("CA-ON", [yes(via="upload")], "DENY_NO_CONSENT", "pipeda"),
        ("DE", [yes(separate=False)], "DENY_CONSENT_BUNDLED", "gdpr"),
        ("DE", [yes(given_at="2026-11-24T00:00:00Z")], "DENY_NO_EXPLICIT_CONSENT", "gdpr"),
    ],
)
def test_a_portrait_without_a_good_consent_is_denied_with_the_reason(
    place: str, consents: list[dict[str, Any]], code: str, pack: str, extracted: bool
) -> None:
    """GDPR Art. 7, 9(2)(a), EDPB 05/2020 paras 91-98; PIPEDA Sch. 1 cl. 4.3.6; and the house floor."""
    got = ask(place, consents=consents, data={"kind": "original", "template_extracted": extracted})
    assert (got.allowed, got.reason_code, got.deciding_pack) == (False, code, pack)
    assert got.citations


@pytest.mark.parametrize("place", PLACES)
def test_a_portrait_without_a_notice_is_denied(place: str) -> None:
    """GDPR Art. 13(1); Cal. Civ. Code 1798.100(a); PIPEDA Sch. 1 cl. 4.2."""
    got = ask(place, consents=[yes()], notices=[])
    assert (got.allowed, got.reason_code, got.deciding_pack) == (False, "DENY_NO_NOTICE", PACK[place])


def test_in_california_a_notice_that_nobody_mentions_was_not_shown() -> None:
    """Cal. Civ. Code 1798.100(a): the notice is the basis."""
    assert ask("US-CA", consents=[yes()], notices=None).reason_code == "DENY_NO_NOTICE"


@pytest.mark.parametrize("place", ["DE", "US-CA", "CA-ON", "BR", None])
def test_the_picture_of_another_needs_their_own_release(place: str | None) -> None:
    """House floor, law sheet 2.1; GDPR Art. 14."""
    other: dict[str, Any] = {"subject": {"is_uploader": False}, "notices": ALL_TOLD}
    assert not ask(place, consents=[release()], **other).allowed
    assert ask(place, consents=[release(by="depicted")], **other).allowed
    assert not ask(place, consents=[release()], subject={"is_uploader": None}, notices=ALL_TOLD).allowed


def test_a_stranger_consenting_for_another_is_told_so_by_the_law() -> None:
    got = ask("DE", consents=[yes()], subject={"is_uploader": False})
    assert (got.reason_code, got.deciding_pack) == ("DENY_NOT_SUBJECT", "gdpr")


# --- withdrawal ------------------------------------------------------------------------------


def test_a_withdrawal_cites_the_rule_on_withdrawal() -> None:
    """GDPR Art. 7(3)."""
    got = ask("DE", consents=[yes(withdrawn_at="2026-11-22T00:00:00Z")])
    assert got.citations == ("GDPR Art. 7(3)", "GDPR Art. 17(1)(b)")


def test_a_new_consent_after_a_withdrawal_counts() -> None:
    old = yes(given_at="2026-01-01T00:00:00Z", withdrawn_at="2026-02-01T00:00:00Z")
    assert ask("DE", consents=[old, yes(given_at="2026-03-01T00:00:00Z")]).allowed
    assert not ask("DE", consents=[old, yes(given_at="2026-01-15T00:00:00Z")]).allowed


def test_a_withdrawn_consent_is_not_cured_by_another_ground() -> None:
    """EDPB 05/2020 para 122: the service once asked for consent, so it is bound by it."""
    asked = {"purpose": "retain_output", "layer": "legal"}
    assert ask("DE", **asked).reason_code == "ALLOW_SERVICE_NECESSARY"
    got = ask("DE", **asked, consents=[yes("retain_output", withdrawn_at="2026-11-22T00:00:00Z")])
    assert got.reason_code == "DENY_CONSENT_WITHDRAWN"


# --- minors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "age", "allowed"),
    [
        ("DE", 15, False),
        ("DE", 16, True),
        ("FR", 14, False),
        ("FR", 15, True),
        ("ES", 13, False),
        ("ES", 14, True),
        ("NO", 12, False),
        ("NO", 13, True),
        ("CA-ON", 12, False),
        ("CA-ON", 13, True),
        ("US-CA", 12, False),
        ("US-CA", 13, True),
        ("GB", 12, False),
        ("GB", 13, True),
        ("CA-QC", 13, False),
        ("CA-QC", 14, True),
    ],
)
def test_below_the_digital_age_a_guardian_is_needed_by_law(place: str, age: int, allowed: bool) -> None:
    """GDPR Art. 8(1) with U-05; PIPEDA s. 6.1; P-39.1 s. 14; in California COPPA, 16 CFR 312.5."""
    got = ask(place, layer="legal", consents=[yes()], subject={"age": age})
    assert allowed == got.allowed
    if not allowed:
        assert got.reason_code == "DENY_MINOR_GUARDIAN_REQUIRED"
        subject = {"age": age, "guardian": {"verified_method": "payment_card"}}
        assert ask(place, layer="legal", consents=[yes(by="guardian")], subject=subject).allowed


def test_of_two_places_the_higher_digital_age_counts() -> None:
    subject = {"residence": "AT", "location": "DE", "age": 15}
    assert (
        ask(None, layer="legal", consents=[yes()], subject=subject).reason_code
        == "DENY_MINOR_GUARDIAN_REQUIRED"
    )


@pytest.mark.parametrize("place", [*PLACES, "BR", None])
def test_the_house_serves_no_child_under_thirteen_and_no_youth_without_a_guardian(place: str | None) -> None:
    guardian = {"verified_method": "payment_card"}
    parental = [yes(form="parental", by="guardian")]
    told: dict[str, Any] = {"consents": [release()], "notices": ALL_TOLD}
    assert not ask(place, subject={"age": 12, "guardian": guardian}, **told).allowed
    assert not ask(place, subject={"age": 17}, **told).allowed
    assert not ask(place, subject={"age": None}, **told).allowed
    assert ask(place, subject={"age": 17, "guardian": guardian}, **told).allowed
    assert ask(place, consents=parental, subject={"age": 14, "guardian": guardian}, layer="house").allowed


@pytest.mark.parametrize("purpose", ["train", "analytics", "sell_share"])
def test_the_house_never_uses_a_minors_picture_for_its_own_ends(purpose: str) -> None:
    assert not ask("CA-ON", purpose, consents=[yes(purpose)], **CHILD).allowed


def test_a_parents_consent_without_a_verified_guardian_is_none() -> None:
    got = ask("CA-ON", layer="legal", consents=[yes(form="parental")], subject={"age": 14})
    assert got.reason_code == "DENY_NO_CONSENT"


def test_a_parents_consent_says_nothing_for_an_adult() -> None:
    adult = {"age": 30, "guardian": {"verified_method": "payment_card"}}
    assert not ask("DE", consents=[yes(form="parental")], subject=adult).allowed


@pytest.mark.parametrize(
    ("age", "consents", "guardian", "code"),
    [
        (15, [], None, "DENY_MINOR_OPT_IN_REQUIRED"),
        (15, [yes("sell_share")], None, "DENY_MINOR_OPT_IN_REQUIRED"),
        (15, [yes("sell_share", two_step_confirmed=True)], None, "ALLOW_MINOR_OPT_IN"),
        (13, [yes("sell_share", form="express", two_step_confirmed=True)], None, "ALLOW_MINOR_OPT_IN"),
        (12, [yes("sell_share", two_step_confirmed=True)], None, "DENY_MINOR_OPT_IN_REQUIRED"),
        (12, [yes("sell_share")], "payment_card", "DENY_MINOR_OPT_IN_REQUIRED"),
        (12, [yes("sell_share", form="parental")], "payment_card", "ALLOW_MINOR_OPT_IN"),
        (12, [yes("sell_share", form="parental")], None, "DENY_MINOR_OPT_IN_REQUIRED"),
        (16, [], None, "ALLOW_NO_OPT_OUT"),
    ],
)
def test_the_sale_of_a_young_californians_data_needs_an_opt_in(
    age: int, consents: list[dict[str, Any]], guardian: str | None, code: str
) -> None:
    """Cal. Civ. Code 1798.120(c); 11 CCR 7070, 7071, 7028."""
    got = ask(
        "US-CA",
        "sell_share",
        "legal",
        consents=consents,
        notices=["collection", "right_to_opt_out"],
        subject={"age": age, "guardian": {"verified_method": guardian}},
    )
    assert code == got.reason_code


# --- California's signals --------------------------------------------------------------------


def test_gpc_beats_even_an_opt_in_to_sale_and_touches_nothing_else() -> None:
    """11 CCR 7025(c)(1), (c)(3)."""
    signal = {"signals": {"gpc": True}, "notices": ["collection", "right_to_opt_out"]}
    sale = ask("US-CA", "sell_share", "legal", consents=[yes("sell_share")], **signal)
    assert sale.reason_code == "DENY_GPC_OPT_OUT"
    assert ask("US-CA", consents=[yes()], **signal).allowed


def test_a_choice_taken_back_is_an_opt_out() -> None:
    """Cal. Civ. Code 1798.120(d)."""
    taken_back = {"purpose": "sell_share", "form": "opt_out", "withdrawn_at": "2026-11-01T00:00:00Z"}
    notices = ["collection", "right_to_opt_out"]
    got = ask("US-CA", "sell_share", "legal", consents=[taken_back], notices=notices)
    assert got.reason_code == "DENY_OPTED_OUT"


def test_a_sale_without_notice_of_the_right_to_opt_out_is_denied() -> None:
    """Cal. Civ. Code 1798.120(b)."""
    assert ask("US-CA", "sell_share", "legal").reason_code == "DENY_NO_NOTICE"


@pytest.mark.parametrize(
    ("infers", "code"), [(True, "DENY_SPI_LIMITED"), (None, "DENY_SPI_LIMITED"), (False, "ALLOW_NOTICE")]
)
def test_a_limit_binds_analytics_that_may_infer_characteristics(infers: bool | None, code: str) -> None:
    """Cal. Civ. Code 1798.121(b), 11 CCR 7027."""
    signals = {"limit_spi": True}
    got = ask("US-CA", "analytics", "legal", signals=signals, analytics_infers_characteristics=infers)
    assert code == got.reason_code


def test_training_on_a_californians_face_needs_a_consent_of_its_own() -> None:
    """11 CCR 7002: nobody expects it of a headshot."""
    assert ask("US-CA", "train", "legal", consents=[yes()]).reason_code == "DENY_PURPOSE_NOT_CONSENTED"
    assert ask("US-CA", "train", consents=[yes("train")]).reason_code == "ALLOW_CONSENT"


# --- the other purposes ----------------------------------------------------------------------


@pytest.mark.parametrize("place", [*PLACES, "BR", "GB", None])
def test_nobodys_face_is_sold(place: str | None) -> None:
    """House floor, whatever was consented to."""
    every = {
        "consents": [yes("sell_share", form="signed_authorization")],
        "notices": ["collection", "right_to_opt_out"],
    }
    assert not ask(place, "sell_share", **every).allowed
    codes = {denial.reason_code for denial in ask(place, "sell_share", "house", **every).denials}
    assert "DENY_BIOMETRIC_SALE_PROHIBITED" in codes


@pytest.mark.parametrize("place", PLACES)
def test_training_may_not_be_the_price_of_the_service(place: str) -> None:
    """GDPR Art. 7(4); PIPEDA Sch. 1 cl. 4.3.3; in California the house says so."""
    got = ask(place, "train", consents=[yes("train", condition_of_service=True)])
    assert got.reason_code == "DENY_CONSENT_CONDITIONED"


@pytest.mark.parametrize("purpose", ["retain_original", "retain_output"])
@pytest.mark.parametrize("place", PLACES)
def test_what_is_past_its_purpose_is_not_kept(place: str, purpose: str) -> None:
    """GDPR Art. 5(1)(e); Cal. Civ. Code 1798.100(a)(3); PIPEDA Sch. 1 cl. 4.5."""
    asked = {"consents": [yes(purpose)]}
    assert ask(place, purpose, **asked).allowed
    over = ask(place, purpose, **asked, purpose_expired_at="2026-11-23T12:00:00Z")
    assert over.reason_code == "DENY_RETENTION_EXPIRED"
    assert ask(place, purpose, **asked, purpose_expired_at="2026-11-24T12:00:00Z").allowed


def test_in_california_an_original_goes_with_the_contract_unless_consented() -> None:
    """Cal. Civ. Code 1798.100(c)."""
    done = {"purpose": "retain_original", "layer": "legal", "contract_fulfilled": True}
    assert ask("US-CA", **done).reason_code == "DENY_RETENTION_EXPIRED"
    assert ask("US-CA", **done, consents=[yes("retain_original")]).reason_code == "ALLOW_CONSENT"


@pytest.mark.parametrize("place", ["DE", "CA-ON"])
def test_telemetry_needs_no_consent_by_law_but_faces_do(place: str) -> None:
    """GDPR Art. 6(1)(f); PIPEDA Sch. 1 cl. 4.3.5."""
    telemetry = {"kind": "telemetry", "template_extracted": False}
    assert ask(place, "analytics", "legal", data=telemetry).allowed
    assert not ask(place, "analytics", "legal", data=telemetry, notices=None).allowed
    assert not ask(
        place, "analytics", "legal", data={"kind": "telemetry", "template_extracted": True}
    ).allowed
    assert not ask(place, "analytics", data=telemetry).allowed


@pytest.mark.parametrize(
    ("recipient", "at", "code"),
    [
        ({"country": "FR"}, None, "ALLOW_ADEQUACY"),
        ({"country": "CH"}, None, "ALLOW_ADEQUACY"),
        ({"country": "BR"}, None, "ALLOW_ADEQUACY"),
        ({"country": "BR"}, "2026-01-25T12:00:00Z", "DENY_NO_TRANSFER_MECHANISM"),
        ({"country": "GB"}, "2031-12-27T12:00:00Z", "ALLOW_ADEQUACY"),
        ({"country": "GB"}, "2031-12-28T12:00:00Z", "DENY_NO_TRANSFER_MECHANISM"),
        ({"country": "CA", "role": "processor"}, None, "ALLOW_ADEQUACY"),
        ({"country": "CA"}, None, "DENY_NO_TRANSFER_MECHANISM"),
        ({"country": "US"}, None, "DENY_NO_TRANSFER_MECHANISM"),
        ({"country": "US-CA", "dpf_listed": True}, None, "ALLOW_ADEQUACY"),
        ({"country": "IN", "dpf_listed": True}, None, "DENY_NO_TRANSFER_MECHANISM"),
        ({"country": "IN", "mechanism": "scc_2021_914"}, None, "ALLOW_SAFEGUARDS"),
        ({"country": "IN", "mechanism": "promise"}, None, "DENY_NO_TRANSFER_MECHANISM"),
        ({"country": "IN", "mechanism": "EXPLICIT_CONSENT_49_1_A"}, None, "ALLOW_EXPLICIT_CONSENT"),
        ({}, None, "DENY_NO_TRANSFER_MECHANISM"),
    ],
)
def test_a_transfer_out_of_the_union_needs_a_mechanism(
    recipient: dict[str, Any], at: str | None, code: str
) -> None:
    """GDPR Art. 44-49."""
    changes = {"at": at} if at else {}
    got = ask("DE", "transfer", "legal", recipient=recipient, consents=[yes("transfer")], **changes)
    assert code == got.reason_code


@pytest.mark.parametrize(
    ("place", "code"), [("US-CA", "ALLOW_SAFEGUARDS"), ("CA-ON", "ALLOW_ACCOUNTABILITY")]
)
def test_in_america_a_transfer_needs_a_contract(place: str, code: str) -> None:
    """Cal. Civ. Code 1798.100(d); PIPEDA Sch. 1 cl. 4.1.3."""
    bound = {"country": "US", "written_agreement": True}
    assert code == ask(place, "transfer", "legal", recipient=bound).reason_code
    assert (
        ask(place, "transfer", "legal", recipient={"country": "US"}).reason_code
        == "DENY_NO_TRANSFER_MECHANISM"
    )


# --- layers and headlines --------------------------------------------------------------------


def test_both_layers_are_told_apart_and_the_laws_headline_comes_first() -> None:
    got = ask("DE", subject={"age": 12})
    assert got.legal is not None
    assert got.house is not None
    assert (got.deciding_pack, got.layer) == ("gdpr", "legal")
    assert {d.pack for d in got.denials} == {"gdpr", "house"}
    assert got.reason_code == got.legal.reason_code
    assert got.age_band is AgeBand.LT13


def test_where_the_law_allows_and_the_house_denies_the_house_is_the_headline() -> None:
    got = ask("US-CA")
    assert (got.allowed, got.deciding_pack, got.layer, got.reason_code) == (
        False,
        "house",
        "house",
        "DENY_NO_CONSENT",
    )
    assert got.legal is not None
    assert got.legal.allowed


@pytest.mark.parametrize("layer", ["legal", "house", "both"])
def test_where_no_pack_applies_the_house_answers_on_every_layer(layer: Any) -> None:
    got = ask("US-OH", layer=layer, consents=[yes()])
    assert (got.allowed, got.deciding_pack, got.packs) == (True, "house", ())
    assert ask("US-OH", layer=layer).reason_code == "DENY_NO_CONSENT"


def test_of_an_unknown_place_the_service_can_be_had_but_nothing_else() -> None:
    """Law sheet 2.2: fail closed."""
    assert ask(None, consents=[release()], notices=ALL_TOLD).allowed
    got = ask(None, consents=[yes()], notices=ALL_TOLD)
    assert (got.allowed, got.reason_code, got.deciding_pack) == (False, "DENY_NO_WRITTEN_RELEASE", "house")
    got = ask(None, "analytics", consents=[yes("analytics")])
    assert (got.allowed, got.reason_code, got.deciding_pack) == (False, "DENY_JURISDICTION_UNKNOWN", "house")


def test_a_decision_carries_the_digests_of_the_packs_that_applied() -> None:
    got = ask("US-CA", consents=[yes()], subject={"location": "DE"})
    assert got.policy == tuple((name, PACKS[name].digest) for name in ("ccpa", "gdpr", "eu_ai_act"))


def test_the_allowing_pack_that_asks_most_is_the_headline() -> None:
    got = ask("US-CA", consents=[yes()], subject={"location": "DE"})
    assert (got.reason_code, got.deciding_pack) == ("ALLOW_EXPLICIT_CONSENT", "gdpr")


def test_a_decision_names_the_consent_it_rests_on_and_the_open_questions() -> None:
    got = ask("DE", consents=[yes("train"), yes()])
    assert (got.consent, got.uncertain) == (1, ("U-02",))


def test_a_pack_that_is_pending_decides_nothing() -> None:
    pending = parse_pack(PACKS["gdpr"].source_bytes.replace(b'status: "in_force"', b'status: "pending"'))
    assert applicable(facts("DE"), {"gdpr": pending}) == ()
    assert decide(facts("DE"), {"gdpr": pending}).deciding_pack == "house"


ORDER = [
    {"DENY_BIOMETRIC_SALE_PROHIBITED", "DENY_AI_INTIMATE_CONTENT"},
    {"DENY_NOT_SUBJECT"},
    {"DENY_RESTRICTED", "DENY_OBJECTED"},
    {"DENY_MINOR_OPT_IN_REQUIRED", "DENY_MINOR_GUARDIAN_REQUIRED"},
    {"DENY_CONSENT_WITHDRAWN", "DENY_CONSENT_EXPIRED"},
    {"DENY_GPC_OPT_OUT", "DENY_OPTED_OUT", "DENY_SPI_LIMITED"},
    {
        "DENY_NO_EXPLICIT_CONSENT",
        "DENY_CONSENT_BUNDLED",
        "DENY_CONSENT_CONDITIONED",
        "DENY_NO_WRITTEN_RELEASE",
    },
    {"DENY_PURPOSE_NOT_CONSENTED"},
    {"DENY_NO_NOTICE"},
    {"DENY_NO_TRANSFER_MECHANISM", "DENY_NO_PIA_OUTSIDE_QC"},
    {"DENY_RETENTION_EXPIRED"},
    {"DENY_AI_MARKING_MISSING"},
]


def test_headlines_stand_in_the_order_of_the_contract() -> None:
    """Contract, section `Facts, decisions, clocks`."""
    tiers = [{TIER[code] for code in codes} for codes in ORDER]
    assert [{place} for place in range(len(ORDER))] == tiers


def test_the_codes_are_those_of_the_law_sheet() -> None:
    """Law sheet 2.6."""
    assert (len(ALLOW_CODES), len(DENY_CODES)) == (11, 27)
    assert not ALLOW_CODES & DENY_CODES


def test_the_more_specific_territory_breaks_a_tie() -> None:
    local = ["il_bipa", "qc_law25", "tx_cubi", "wa_mhmda"]
    broad = ["ccpa", "gdpr", "lgpd", "pipeda", "uk_gdpr"]
    rest = ["coppa", "eu_ai_act"]
    assert [*local, *broad, *rest, "aa"] == sorted(["aa", *rest, *broad, *local], key=specificity)
