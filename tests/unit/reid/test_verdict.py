"""When the re-identification bench gives a verdict, and which."""

from __future__ import annotations

import pytest

from tests.benchmarks.reid.attacks import Outcome
from tests.benchmarks.reid.report import as_json, chart, refusals, spoken, table
from tests.benchmarks.reid.verdict import CONTROL, JUDGED, NONE, RIVAL, Side, Verdict, judge

PEOPLE = [person for person in range(13) for _ in range(5)]
FIGURES = {  # hits of 65: own, rank-1, parrot
    NONE: (65, 65, 65),
    CONTROL: (65, 64, 65),
    RIVAL: (2, 6, 26),
    "landmarks": (1, 5, 9),
    "redact": (1, 6, 10),
}


def side(
    hits: tuple[int, int, int], kept: list[int] | None = None, attackers=("SFace", "dlib ResNet")
) -> Side:
    numbers = list(range(65)) if kept is None else kept
    own, others = 1 / 65, 4 / 64
    made = {
        "own": Outcome(len(numbers), hits[0], own),
        "rank-1": Outcome(len(numbers), hits[1], others),
        "parrot": Outcome(len(numbers), hits[2], others),
    }
    return Side(numbers, {}, dict.fromkeys(attackers, made))


def sides(**changed: Side) -> dict[str, Side]:
    return {name: side(hits) for name, hits in FIGURES.items()} | changed


def test_it_holds_where_all_is_near_chance_and_parrot_is_half_of_the_blur():
    assert judge(sides(), PEOPLE) == Verdict(holds=True)


@pytest.mark.parametrize("profile", JUDGED)
@pytest.mark.parametrize(
    ("hits", "word"),
    [((4, 5, 9), "own by"), ((1, 9, 9), "rank-1 by"), ((1, 5, 14), "parrot by")],
)
def test_it_falls_where_one_attack_is_above_chance_or_parrot_above_half(profile, hits, word):
    verdict = judge(sides(**{profile: side(hits)}), PEOPLE)
    assert verdict.holds is False
    assert len(verdict.reasons) == 2
    assert all(reason.startswith(f"{profile}: {word}") for reason in verdict.reasons)


def test_just_within_is_within():
    assert judge(sides(redact=side((3, 8, 13))), PEOPLE).holds


def test_bystanders_and_mosaic_are_not_judged():
    changed = sides() | {"bystanders": side((65, 65, 65)), "mosaic": side((65, 65, 65))}
    assert judge(changed, PEOPLE).holds


@pytest.mark.parametrize("name", [*JUDGED, RIVAL])
def test_no_verdict_below_sixty_photos(name):
    kept = [index for index in range(65) if index % 5 or index >= 30]
    assert len(kept) == 59
    verdict = judge(sides(**{name: side((1, 5, 9), kept)}), PEOPLE)
    assert verdict.holds is None
    assert [name] == [reason.partition(":")[0] for reason in verdict.reasons]


def test_no_verdict_below_thirteen_people_who_are_in_two_photos():
    people = [*PEOPLE[:60], 12, 13, 14, 15, 16]
    verdict = judge(sides(), people)
    assert verdict.holds is None
    assert "12 people" in verdict.reasons[0]


def test_what_is_too_little_gets_no_verdict_however_bad_it_looks():
    assert judge(sides(redact=side((30, 30, 30), list(range(30)))), PEOPLE).holds is None


@pytest.mark.parametrize("name", [NONE, CONTROL])
def test_no_verdict_by_an_attacker_who_recognises_nobody(name):
    verdict = judge(sides() | {name: side((65, 5, 65))}, PEOPLE)
    assert verdict.holds is None
    assert all("proves nothing" in reason for reason in verdict.reasons)


def test_what_is_printed_says_every_figure_and_photos_by_number_alone():
    shown = sides(redact=Side(list(range(63)), {"verifier_linked": [4, 9]}, side((1, 6, 10)).outcomes))
    unused, verdict = {"no_face": [12]}, judge(shown, PEOPLE)
    assert "0.400 (0.290-0.521) 0.062 (0.015-0.123)!" in table(shown)
    assert (
        refusals(unused, shown) == "left out 1 as no_face: #12\nredact refused 2 as verifier_linked: #4, #9"
    )
    assert spoken(verdict) == "verdict: near chance on this bench"
    told = as_json(shown, PEOPLE, unused, ["ArcFace-MBF"], verdict)
    assert told["verdict"] == {"holds": True, "reasons": []}
    assert told["methods"]["redact"]["refused"] == {"verifier_linked": [4, 9]}
    assert told["methods"][RIVAL]["attackers"]["SFace"]["parrot"]["hits"] == 26
    drawn = chart(shown)
    assert drawn.startswith("<svg ")
    assert all(name.replace("'", "&#x27;") in drawn for name in shown)
