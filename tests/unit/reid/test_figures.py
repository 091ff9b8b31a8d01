"""The figures of the re-identification bench, held against values known from elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from tests.benchmarks.reid.attacks import Outcome, attack
from tests.benchmarks.reid.ranges import of_chance, wilson


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_a_share_has_wilsons_range(hits, trials, low, high):
    assert wilson(hits, trials) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("chance", "trials", "low", "high"),
    [
        (0.5, 10, 2, 8),  # 11 / 1024 lie at 0 and 1, 56 / 1024 at 0 to 2
        (1 / 13, 61, 1, 9),
        (1 / 61, 61, 0, 3),
        (0.0, 7, 0, 0),
        (1.0, 7, 7, 7),
        (0.5, 5000, 2431, 2569),  # 1.96 * sqrt(5000) / 2 = 69.3
    ],
)
def test_chance_has_the_exact_binomial_range(chance, trials, low, high):
    assert of_chance(chance, trials) == (low / trials, high / trials)


def test_nothing_tried_says_nothing():
    assert wilson(0, 0) == (0.0, 1.0)
    assert of_chance(0.5, 0) == (0.0, 1.0)
    assert not Outcome(0, 0, 0.0).is_above_chance


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def people_and_templates(people: int = 15, each: int = 5) -> tuple[list[int], np.ndarray]:
    """Return who is in each photo, and templates that cluster by person."""
    draw = np.random.default_rng(7)
    who = [person for person in range(people) for _ in range(each)]
    middles = unit(draw.standard_normal((people, 64)))
    return who, unit(middles[who] + 0.02 * draw.standard_normal((len(who), 64)))


def test_what_is_not_treated_is_always_linked():
    who, originals = people_and_templates()
    found = attack(originals, range(len(who)), originals, who)
    assert {(seen.hits, seen.trials) for seen in found.values()} == {(75, 75)}
    assert found["own"].chance == pytest.approx(1 / 75)
    assert found["rank-1"].chance == found["parrot"].chance == pytest.approx(4 / 74)
    assert all(seen.is_above_chance for seen in found.values())


def test_noise_is_linked_as_often_as_chance_says():
    who, originals = people_and_templates()
    noise = unit(np.random.default_rng(8).standard_normal(originals.shape))
    for seen in attack(noise, range(len(who)), originals, who).values():
        assert not seen.is_above_chance
        assert seen.chance == pytest.approx(4 / 74, abs=0.02) or seen.chance == 1 / 75


def test_an_attacker_who_always_names_the_person_with_most_photos_gains_nothing():
    """Two thirds of the photos show one person, so two thirds of such answers are right."""
    who = [0] * 40 + [person for person in range(1, 11) for _ in range(2)]
    originals = unit(np.random.default_rng(9).standard_normal((60, 64)))
    same = np.repeat(originals[:1], 60, axis=0)
    seen = attack(same, range(60), originals, who)["rank-1"]
    assert seen.share > 0.6
    assert seen.chance == pytest.approx(seen.share, abs=0.02)
    assert not seen.is_above_chance


def test_a_picture_that_was_refused_is_not_tried_but_its_original_stays_in_the_gallery():
    who, originals = people_and_templates()
    kept = [index for index in range(75) if index % 5]
    found = attack(originals[kept], kept, originals, who)
    assert {seen.trials for seen in found.values()} == {60}
    assert found["own"].chance == pytest.approx(1 / 75)
    assert found["parrot"].chance == pytest.approx(3 / 59)


def test_the_own_picture_is_barred_where_another_is_to_be_found():
    """Nobody is in two photos: then nobody is linked, however well the attacker sees."""
    _, originals = people_and_templates()
    found = attack(originals, range(75), originals, range(75))
    assert (found["own"].hits, found["rank-1"].hits, found["parrot"].hits) == (75, 0, 0)
