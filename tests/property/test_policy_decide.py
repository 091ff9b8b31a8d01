"""What holds of every decision."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from policy.codes import ALLOW_CODES, DENY_CODES, TIER, specificity
from policy.consent import decide
from policy.facts import Facts, parse_facts
from policy.pack import load_packs
from policy.terms import ConsentForm, DataKind, Purpose

Layer = Literal["legal", "house", "both"]
PACKS = load_packs()
LAYERS: tuple[Layer, ...] = ("legal", "house", "both")
AT = datetime(2026, 11, 23, 12, tzinfo=UTC)

TOLD = ["collection", "right_to_opt_out", "before_capture", "bipa_policy", "chd_privacy_policy"]
maybe = st.sampled_from([None, True, False])
places = st.sampled_from(
    [
        None,
        "DE",
        "FR",
        "NO",
        "GB",
        "US",
        "US-CA",
        "US-IL",
        "US-OH",
        "CA",
        "CA-ON",
        "CA-QC",
        "CA-BC",
        "BR",
        "US-TX",
        "US-WA",
        "NZ",
    ]
)
instants = st.one_of(
    st.none(), st.integers(-3000, 3000).map(lambda hours: (AT + timedelta(hours=hours)).isoformat())
)


def objects(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


consents = st.fixed_dictionaries(
    {"purpose": st.sampled_from(Purpose), "form": st.sampled_from(ConsentForm)},
    optional={
        "separate": maybe,
        "presented_separately": maybe,
        "highlighted": maybe,
        "signature": st.sampled_from([None, "electronic"]),
        "term_shown": st.sampled_from([None, "24 h"]),
        "via": st.sampled_from([None, "web", "terms_of_service"]),
        "by": st.sampled_from([None, "subject", "depicted", "guardian"]),
        "given_at": instants,
        "withdrawn_at": instants,
        "expires_at": instants,
        "condition_of_service": maybe,
        "two_step_confirmed": maybe,
    },
)
raw = st.fixed_dictionaries(
    {
        "purpose": st.sampled_from(Purpose),
        "at": st.just(AT.isoformat()),
        "subject": objects(
            residence=places,
            location=places,
            age=st.one_of(st.none(), st.integers(0, 90)),
            is_uploader=maybe,
            guardian=objects(verified_method=st.sampled_from([None, "", "payment_card", "text_plus"])),
        ),
        "consents": st.lists(consents, max_size=4),
    },
    optional={
        "data": objects(kind=st.sampled_from(DataKind), template_extracted=maybe).filter(
            lambda data: (data.get("kind"), data.get("template_extracted")) != (DataKind.TEMPLATE, False)
        ),
        "notices": st.lists(st.sampled_from([*TOLD, "cai_notified", "other"]), max_size=4),
        "capacity": st.sampled_from([None, "consumer", "employee"]),
        "stage": st.sampled_from([None, "release_output", "other"]),
        "system": objects(placed_on_market=st.sampled_from([None, "2026-07-15", "2026-08-10"])),
        "marking": objects(manifest=maybe, watermark=maybe),
        "service": objects(directed_to_children=maybe),
        "sale_for_money": maybe,
        "signals": objects(gpc=maybe, limit_spi=maybe),
        "recipient": objects(
            country=places,
            role=st.sampled_from([None, "processor", "third_party"]),
            mechanism=st.sampled_from([None, "SCC", "EXPLICIT_CONSENT_49_1_A", "IDTA", "FAX"]),
            dpf_listed=maybe,
            pia_done=maybe,
            written_agreement=maybe,
        ),
        "controller": objects(establishments=st.lists(places.filter(bool), max_size=2)),
        "service_requested": maybe,
        "contract_fulfilled": maybe,
        "purpose_expired_at": instants,
        "analytics_infers_characteristics": maybe,
    },
)
layers = st.sampled_from(LAYERS)
all_yes = {
    "form": "signed_authorization",
    "separate": True,
    "highlighted": True,
    "two_step_confirmed": True,
    "signature": "electronic",
    "term_shown": "24 h",
}


@st.composite
def likely(draw: st.DrawFn) -> dict[str, Any]:
    """Questions of an adult with a good consent and notice, so that many are allowed."""
    question = draw(raw)
    good = {**all_yes, "purpose": question["purpose"], "given_at": AT.isoformat()}
    return {
        **question,
        "subject": {**question["subject"], "age": draw(st.integers(18, 90)), "is_uploader": True},
        "consents": [*question["consents"], good],
        "notices": TOLD,
    }


questions = st.one_of(raw, likely())


def own(facts: Facts) -> list[Any]:
    return [consent for consent in facts.consents if consent.purpose is facts.purpose]


@settings(deadline=None)  # a busy machine is no finding
@given(questions)
def test_without_a_consent_for_the_purpose_nothing_is_ever_allowed(question: dict[str, Any]) -> None:
    """Deny by default, for every purpose, place, age and signal."""
    others = [c for c in question["consents"] if c["purpose"] is not question["purpose"]]
    assert not decide(parse_facts({**question, "consents": others}), PACKS).allowed


@settings(deadline=None)  # a busy machine is no finding
@given(likely())
def test_what_is_allowed_rests_on_a_standing_explicit_consent(question: dict[str, Any]) -> None:
    facts = parse_facts(question)
    assume(decide(facts, PACKS).allowed)
    strong = ConsentForm.EXPLICIT.strength
    assert any(facts.stands(c) and (c.form.strength >= strong or facts.guardian_verified) for c in own(facts))


@settings(deadline=None)  # a busy machine is no finding
@given(questions, places)
def test_a_good_consent_can_be_found_among_questions(question: dict[str, Any], place: str | None) -> None:
    """The properties are not empty: an adult's own portrait with notice and consent is allowed anywhere."""
    subject = {"residence": place, "location": place, "age": 18, "is_uploader": True}
    asked = {**question, "subject": subject, "purpose": "generate", "notices": TOLD, "stage": None}
    asked |= {"consents": [{**all_yes, "purpose": "generate"}], "controller": {}}
    assert decide(parse_facts(asked), PACKS).allowed


@settings(deadline=None)  # a busy machine is no finding
@given(questions, layers, st.integers(0, 3000))
def test_a_withdrawal_never_turns_a_denial_into_a_permission(
    question: dict[str, Any], layer: Layer, hours: int
) -> None:
    """GDPR Art. 7(3); Cal. Civ. Code 1798.120(d); PIPEDA Sch. 1 cl. 4.3.8."""
    when = (AT - timedelta(hours=hours)).isoformat()
    before = decide(parse_facts(question), PACKS, layer=layer)
    for number, consent in enumerate(question["consents"]):
        changed = list(question["consents"])
        changed[number] = {**consent, "withdrawn_at": when}
        assume(consent.get("withdrawn_at") is None)
        after = decide(parse_facts({**question, "consents": changed}), PACKS, layer=layer)
        assert before.allowed or not after.allowed


@settings(deadline=None)  # a busy machine is no finding
@given(questions)
def test_with_every_consent_withdrawn_nothing_is_allowed(question: dict[str, Any]) -> None:
    gone = [{**consent, "withdrawn_at": AT.isoformat()} for consent in question["consents"]]
    gone = [{**one, "given_at": (AT - timedelta(days=1)).isoformat()} for one in gone]
    assert not decide(parse_facts({**question, "consents": gone}), PACKS).allowed


@settings(deadline=None)  # a busy machine is no finding
@given(questions, layers)
def test_an_opt_out_signal_never_helps(question: dict[str, Any], layer: Layer) -> None:
    """11 CCR 7025, 7027."""
    plain = decide(parse_facts({**question, "signals": {}}), PACKS, layer=layer)
    signalled = {**question, "signals": {"gpc": True, "limit_spi": True}}
    assert plain.allowed or not decide(parse_facts(signalled), PACKS, layer=layer).allowed


@settings(deadline=None)  # a busy machine is no finding
@given(questions)
def test_both_layers_allow_only_what_each_allows(question: dict[str, Any]) -> None:
    facts = parse_facts(question)
    both, legal, house = (decide(facts, PACKS, layer=layer) for layer in ("both", "legal", "house"))
    assert both.allowed == (legal.allowed and house.allowed)
    assert set(both.denials) == set(legal.denials) | set(house.denials)
    if not legal.allowed:
        assert (legal.reason_code, legal.deciding_pack) == (both.reason_code, both.deciding_pack)


@settings(deadline=None)  # a busy machine is no finding
@given(questions, layers)
def test_a_decision_is_either_a_permission_or_has_denials_and_always_cites(
    question: dict[str, Any], layer: Layer
) -> None:
    got = decide(parse_facts(question), PACKS, layer=layer)
    assert got.reason_code in (ALLOW_CODES if got.allowed else DENY_CODES)
    assert got.allowed == (not got.denials)
    assert all(got.citations)
    assert got.citations


@settings(deadline=None)  # a busy machine is no finding
@given(questions)
def test_the_headline_is_the_strictest_denial_then_the_more_specific_pack(question: dict[str, Any]) -> None:
    facts = parse_facts(question)
    assume(facts.subject.residence is not None or facts.subject.location is not None)
    got = decide(facts, PACKS, layer="legal")
    assume(got.denials)
    first = min(got.denials, key=lambda d: (TIER[d.reason_code], specificity(d.pack)))
    assert (first.pack, first.reason_code) == (got.deciding_pack, got.reason_code)


@settings(deadline=None)  # a busy machine is no finding
@given(questions)
def test_an_unknown_jurisdiction_is_the_first_headline(question: dict[str, Any]) -> None:
    subject = {**question["subject"], "residence": None, "location": None}
    got = decide(parse_facts({**question, "subject": subject}), PACKS)
    assert got.packs == ("il_bipa", "qc_law25", "ccpa", "gdpr")
    if question["purpose"] not in {Purpose.GENERATE, Purpose.RETAIN_OUTPUT}:
        assert (got.reason_code, got.deciding_pack) == ("DENY_JURISDICTION_UNKNOWN", "house")


@settings(deadline=None)  # a busy machine is no finding
@given(questions, st.sampled_from(sorted(PACKS)))
def test_one_more_pack_never_makes_anything_allowed(question: dict[str, Any], name: str) -> None:
    facts = parse_facts(question)
    fewer = {other: pack for other, pack in PACKS.items() if other != name}
    assert not decide(facts, PACKS).allowed or decide(facts, fewer).allowed


@pytest.mark.parametrize("layer", LAYERS)
@settings(deadline=None)  # a busy machine is no finding
@given(question=questions, names=st.permutations(sorted(PACKS)))
def test_the_order_of_the_packs_does_not_matter(
    layer: Layer, question: dict[str, Any], names: list[str]
) -> None:
    facts = parse_facts(question)
    assert decide(facts, PACKS, layer=layer) == decide(facts, {n: PACKS[n] for n in names}, layer=layer)
