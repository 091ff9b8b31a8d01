"""What an erasure destroys and what it leaves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import combinations

import pytest
import yaml

from policy.erasure import Hold, plan
from policy.pack import Pack, parse_pack
from policy.terms import KeyClass
from tests.unit.policy.asking import PACKS

AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
ALL = tuple(KeyClass)
SUBSETS = [
    [PACKS[name] for name in names] for number in range(4) for names in combinations(sorted(PACKS), number)
]


@pytest.mark.parametrize("packs", SUBSETS, ids=lambda packs: "+".join(p.id for p in packs) or "none")
def test_content_and_profile_are_never_kept_and_each_class_is_named_once(packs: list[Pack]) -> None:
    """GDPR Art. 17(1); Cal. Civ. Code 1798.105(a); PIPEDA Sch. 1 cl. 4.5.3."""
    got = plan(packs, ALL, AT)
    kept = [one.cls for one in got.keep]
    assert {KeyClass.CONTENT, KeyClass.PROFILE} <= set(got.erase)
    assert sorted(ALL) == sorted([*got.erase, *kept])


@pytest.mark.parametrize(
    ("name", "cls", "years", "cite"),
    [
        ("gdpr", KeyClass.EVIDENCE, 5, "GDPR Art. 17(3)(b),(e)"),
        ("gdpr", KeyClass.DSR, 3, "GDPR Art. 17(3)(b),(e)"),
        ("ccpa", KeyClass.EVIDENCE, 5, "Cal. Civ. Code 1798.105(d)(8)"),
        ("ccpa", KeyClass.DSR, 3, "11 CCR 7101"),
        ("pipeda", KeyClass.EVIDENCE, 5, "PIPEDA Sch. 1 cl. 4.5.2"),
        ("pipeda", KeyClass.DSR, 3, "PIPEDA s. 8(8)"),
    ],
)
def test_proof_stays_for_a_time_and_by_a_rule(name: str, cls: KeyClass, years: int, cite: str) -> None:
    kept = next(one for one in plan([PACKS[name]], ALL, AT).keep if one.cls is cls)
    assert AT.replace(year=AT.year + years) == kept.until
    assert cite in kept.rule


def test_what_the_log_says_of_a_person_goes_under_every_pack() -> None:
    """The leaves prove that we answered; that they say whom is kept by no law (decision 0018)."""
    assert KeyClass.AUDIT in plan(PACKS.values(), ALL, AT).erase


def test_without_a_pack_nothing_stays() -> None:
    assert plan([], ALL, AT).keep == ()


def test_only_what_is_held_is_planned() -> None:
    got = plan([PACKS["gdpr"]], [KeyClass.DSR, KeyClass.CONTENT, KeyClass.CONTENT], AT)
    assert got.erase == (KeyClass.CONTENT,)
    assert [one.cls for one in got.keep] == [KeyClass.DSR]


def test_a_class_that_several_packs_keep_names_all_their_rules() -> None:
    kept = next(one for one in plan(PACKS.values(), ALL, AT).keep if one.cls is KeyClass.DSR)
    assert all(cite in kept.rule for cite in ("GDPR Art. 17(3)", "11 CCR 7101", "PIPEDA s. 8(8)"))


def test_a_class_stays_as_long_as_any_pack_requires_however_short_the_others_keep_it() -> None:
    """11 CCR 7101(a): at least 24 months."""
    tree = yaml.safe_load(PACKS["gdpr"].source_bytes)
    next(keep for keep in tree["keep_at_erasure"] if keep["class"] == "dsr")["keep_for"] = "P1Y"
    short = parse_pack(yaml.safe_dump(tree).encode())
    assert AT.replace(year=2027) == plan([short], [KeyClass.DSR], AT).keep[0].until
    assert AT.replace(year=2028) == plan([short, PACKS["ccpa"]], [KeyClass.DSR], AT).keep[0].until


def test_a_standing_hold_keeps_even_content_and_an_ended_one_nothing() -> None:
    hold = Hold("litigation 7", (KeyClass.CONTENT,), AT + timedelta(days=1))
    kept = plan([PACKS["gdpr"]], [KeyClass.CONTENT], AT, [hold]).keep
    assert [(KeyClass.CONTENT, "litigation 7", hold.until)] == [(k.cls, k.rule, k.until) for k in kept]
    assert plan([PACKS["gdpr"]], [KeyClass.CONTENT], hold.until or AT, [hold]).keep == ()


def test_of_several_holds_the_last_to_end_counts_and_one_without_end_has_none() -> None:
    first = Hold("a", (KeyClass.CONTENT,), AT + timedelta(days=1))
    later = Hold("b", (KeyClass.CONTENT,), AT + timedelta(days=9))
    endless = Hold("c", (KeyClass.CONTENT,))
    assert later.until == plan([], ALL, AT, [later, first]).keep[0].until
    assert plan([], ALL, AT, [later, endless]).keep[0].until is None


def test_an_instant_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="aware"):
        plan([], ALL, AT.replace(tzinfo=None))
