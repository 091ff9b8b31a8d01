from __future__ import annotations

import json
from typing import Any

import pytest

from policy import coded
from policy.coded import CodesContradict, NotReplayable, code, recompute
from policy.consent import decide, restricted
from policy.facts import parse_facts
from policy.pack import Pack, parse_pack
from policy.terms import Purpose
from tests.unit.policy.asking import PACKS, facts, yes
from tests.unit.policy.test_visible_cases import DECISIONS

SOURCES = {pack.digest: pack.source_bytes for pack in PACKS.values()}
ID, OTHER_ID = "0a" * 16, "0b" * 16


def leaf(residence: str | None = "DE", purpose: str = "generate", **changes: Any) -> dict[str, Any]:
    """Return what a leaf says of a question, each consent with an id."""
    asked = facts(residence, purpose, **changes)
    ids = [f"{place:032x}" for place in range(len(asked.consents))]
    read: dict[str, Any] = json.loads(json.dumps(code(asked, decide(asked, PACKS), PACKS, ids)))
    return read


@pytest.mark.parametrize("case", DECISIONS, ids=lambda case: str(case["id"]))
def test_every_case_of_the_law_sheet_is_replayable_from_its_codes(case: dict[str, Any]) -> None:
    """With the packs that there are; a case whose pack is to come is decided by the others and the house."""
    asked = parse_facts(case["inputs"])
    said = code(asked, decide(asked, PACKS), PACKS)
    again = recompute(json.loads(json.dumps(said)), None, SOURCES)
    assert again == {name: said.get(name) for name in again}
    assert {"dec", "rc", "law", "layer", "minor", "form", "flags"} <= again.keys()


def test_the_codes_of_a_plain_permission_are_these() -> None:
    said = leaf(consents=[yes(given_at="2026-11-01T00:00:00Z")])
    assert said.pop("pol") == [{"id": id_, "sha256": PACKS[id_].digest} for id_ in ("gdpr", "eu_ai_act")]
    assert said == {
        "pur": "generate",
        "cat": "original",
        "packs": ["gdpr", "eu_ai_act"],
        "age": "adult",
        "minor": "none",
        "sig": [],
        "at": 1795435200000,
        "yes": ["consents", "identifying", "place", "requested", "template", "uploader"],
        "no": [],
        "told": ["collection"],
        "under": [],
        "cons": [{"st": "standing", "form": "explicit", "flags": ["separate"], "con": "0" * 32}],
        "base": ["0" * 32],
        "dec": "allow",
        "rc": "ALLOW_EXPLICIT_CONSENT",
        "law": "gdpr",
        "layer": "legal",
        "form": "explicit",
        "flags": ["separate"],
    }


def test_consents_for_other_purposes_are_not_named() -> None:
    said = leaf(consents=[yes("train"), yes("analytics")])
    assert said["cons"] == []
    assert "consents" in said["yes"]
    assert said["rc"] == recompute(said, None, SOURCES)["rc"]


def test_however_often_someone_changes_their_mind_the_list_stays_short() -> None:
    times = [f"2026-{month:02d}-{day:02d}" for month in range(1, 11) for day in range(1, 29)]
    back = [yes(given_at=f"{day}T01:00:00Z", withdrawn_at=f"{day}T02:00:00Z") for day in times]
    said = leaf(consents=[*back, yes(given_at="2026-11-01T00:00:00Z")])
    assert [one["st"] for one in said["cons"]] == ["withdrawn", "standing"]
    assert said["base"] == [f"{len(back):032x}"]
    assert recompute(said, None, SOURCES)["base"] == said["base"]


@pytest.mark.parametrize(
    ("consent", "state"),
    [
        (yes(), "standing"),
        (yes(given_at="2026-11-02T00:00:00Z", withdrawn_at="2026-11-03T00:00:00Z"), "withdrawn"),
        (yes(expires_at="2026-11-03T00:00:00Z"), "expired"),
    ],
)
def test_a_consent_is_in_one_state(consent: dict[str, Any], state: str) -> None:
    assert [one["st"] for one in leaf(consents=[consent])["cons"]] == [state]


def test_a_withdrawal_overtakes_what_was_given_before_it() -> None:
    older = yes(given_at="2026-11-01T00:00:00Z", by="depicted")
    newer = yes(given_at="2026-11-02T00:00:00Z", withdrawn_at="2026-11-03T00:00:00Z")
    said = leaf(consents=[older, newer])
    assert [one["st"] for one in said["cons"]] == ["overtaken", "withdrawn"]
    assert (said["rc"], said["base"]) == ("DENY_CONSENT_WITHDRAWN", ["0" * 32])
    assert recompute(said, None, SOURCES)["base"] == said["base"]


def test_a_withdrawal_before_the_consent_began_is_not_coded() -> None:
    odd = yes("sell_share", given_at="2027-01-01T00:00:00Z", withdrawn_at="2026-11-03T00:00:00Z")
    said = leaf("US-CA", "sell_share", consents=[odd])
    assert "uncoded" in said["yes"]
    with pytest.raises(NotReplayable, match="fact_uncoded"):
        recompute(said, None, SOURCES)


def test_the_countrys_own_age_is_coded_and_the_country_is_not() -> None:
    """14 is of age in Austria and not in Ireland (GDPR Art. 8(1)); the house asks for a guardian in both."""
    subject = {"age": 14, "guardian": {"verified_method": "payment_card"}}
    ireland = leaf("IE", subject={**subject, "guardian": None}, consents=[yes()])
    austria = leaf("AT", subject={**subject, "guardian": None}, consents=[yes()])
    assert (ireland["under"], austria["under"]) == (["gdpr.0"], [])
    for said in (ireland, austria):
        assert recompute(said, None, SOURCES)["rc"] == said["rc"]
    assert leaf("IE", subject=subject, consents=[yes()])["dec"] == "allow"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"under": []}, "age_contradicts"),
        ({"under": ["gdpr.0", "gdpr.1"]}, "age_contradicts"),
        ({"packs": []}, "packs_differ"),
        ({"no": ["uploader"]}, "codes_malformed"),
    ],
)
def test_codes_that_nobody_can_have_contradict(changes: dict[str, Any], why: str) -> None:
    said = leaf("DE", subject={"age": 11}, consents=[yes()])
    with pytest.raises(CodesContradict, match=why):
        recompute({**said, **changes}, None, SOURCES)


def test_a_pack_under_another_name_contradicts() -> None:
    said = leaf("DE", consents=[yes()])
    named = {"id": "gdpr", "sha256": PACKS["pipeda"].digest}
    with pytest.raises(CodesContradict, match="pack_misnamed"):
        recompute({**said, "pol": [named, *said["pol"][1:]]}, None, SOURCES)


@pytest.mark.parametrize("sources", [{}, {PACKS["gdpr"].digest: b"pack: {}"}])
def test_without_the_rule_book_nothing_is_replayable(sources: dict[str, bytes]) -> None:
    with pytest.raises(NotReplayable, match="pack_unreadable"):
        recompute(leaf("DE", consents=[yes()]), None, sources)


@pytest.mark.parametrize("name", ["at", "yes", "no", "under", "cons", "law"])
def test_a_leaf_without_its_codes_is_not_replayable_but_from_all_facts(name: str) -> None:
    question = {"purpose": "generate", "at": "2026-11-23T12:00:00Z", "subject": {"residence": "DE"}}
    asked = parse_facts(question)
    said = code(asked, decide(asked, PACKS), PACKS)
    del said[name]
    with pytest.raises(NotReplayable, match="codes_missing"):
        recompute(said, None, SOURCES)
    assert recompute(said, question, SOURCES)["rc"] == said["rc"]


def test_a_restriction_denies_whatever_the_packs_say() -> None:
    asked = facts("DE", consents=[yes()])
    said = code(asked, restricted(decide(asked, PACKS)), PACKS, [ID], is_restricted=True)
    again = recompute(said, None, SOURCES)
    answered = [again[name] for name in ("dec", "rc", "law", "base")]
    assert answered == ["deny", "DENY_RESTRICTED", "gdpr", []]
    unsaid = {**said, "yes": [name for name in said["yes"] if name != "restricted"]}
    assert recompute(unsaid, None, SOURCES)["dec"] == "allow"


def test_facts_that_are_none_contradict() -> None:
    said = leaf("DE", consents=[yes()])
    for given in ({}, {"purpose": "generate"}, {"purpose": "generate", "at": "now"}, {"who": "Eileen"}):
        with pytest.raises(CodesContradict, match="facts_malformed"):
            recompute(said, given, SOURCES)


def test_facts_that_the_named_packs_are_not_about_contradict() -> None:
    said = leaf("DE", consents=[yes()])
    with pytest.raises(CodesContradict, match="packs_do_not_apply"):
        recompute(
            said,
            {"purpose": "generate", "at": "2026-11-23T12:00:00Z"} | {"subject": {"residence": "BR"}},
            SOURCES,
        )


def pack_with(condition: str) -> Pack:
    """Return the federal Canadian pack with one more gate."""
    text = PACKS["pipeda"].source_bytes.decode()
    gate = (
        f'    gates:\n      - when: {condition}\n        deny: "DENY_NO_NOTICE"\n        cite: ["SCH1#4.8"]\n'
    )
    return parse_pack(text.replace("    gates:\n", gate, 1).encode())


@pytest.mark.parametrize(
    ("condition", "is_coded"),
    [
        ('{fact: "service.directed_to_children", op: "eq", value: true}', True),
        ('{fact: "notices", op: "intersects", value: ["collection"]}', True),
        ('{fact: "notices", op: "intersects", value: ["some_other"]}', False),
        ('{fact: "subject.age", op: "gte", value: 65}', False),
        ('{fact: "subject.residence", op: "in", value: ["CA-ON"]}', False),
        ('{fact: "capacity", op: "eq", value: "employee"}', True),
    ],
)
def test_a_rule_that_reads_what_has_no_code_is_noticed(condition: str, is_coded: bool) -> None:
    """A fact that nobody knows needs no code: `capacity` is not said here."""
    pack = pack_with(condition)
    asked = facts("CA-ON", consents=[yes()])
    packs = {"pipeda": pack}
    said = code(asked, decide(asked, packs), packs)
    assert is_coded is ("uncoded" not in said["yes"])
    if is_coded:
        again = recompute(said, None, {pack.digest: pack.source_bytes})
        assert again["rc"] == said["rc"]


def test_what_packs_name_is_in_the_closed_lists() -> None:
    """A pack that names a notice, a role or a mechanism adds it to the codes and to the leaf's schema."""
    said = [
        (test.fact, value)
        for pack in PACKS.values()
        for purpose in Purpose
        for test in coded._tests(pack, facts("DE", purpose.value))
        for value in (test.value if isinstance(test.value, tuple) else (test.value,))
        if test.fact in coded._WORDS and test.op != "exists"
    ]
    assert said
    assert all(value in coded._WORDS[fact] for fact, value in said)
