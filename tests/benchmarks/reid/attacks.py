"""Three ways to link a treated picture to a person, and how often chance alone would.

- own: among all originals, is the person's own original the nearest?
- rank-1: among the other originals, is the nearest one of the same person?
- parrot: the same among the other pictures treated likewise, as an attacker does who has the method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tests.benchmarks.reid.ranges import Range, of_chance, wilson

Attack = Literal["own", "rank-1", "parrot"]
ATTACKS: tuple[Attack, ...] = ("own", "rank-1", "parrot")

Templates = npt.NDArray[np.float32]
"""A row of unit length for each picture."""
Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How often an attack hit.

    Attributes:
        trials: Pictures attacked.
        hits: Those that were linked.
        chance: The share that would be, were the treated pictures dealt out to the people at random.
            It is reckoned from the attacker's answers: one who always names the same person gains nothing.
    """

    trials: int
    hits: int
    chance: float

    @property
    def share(self) -> float:
        return self.hits / self.trials if self.trials else 0.0

    @property
    def range(self) -> Range:
        return wilson(self.hits, self.trials)

    @property
    def range_of_chance(self) -> Range:
        return of_chance(self.chance, self.trials)

    @property
    def is_above_chance(self) -> bool:
        """Whether more was linked than chance explains."""
        return self.share > self.range_of_chance[1]


def attack(
    treated: Templates, kept: Sequence[int], originals: Templates, people: Sequence[int]
) -> dict[Attack, Outcome]:
    """Return what each attack makes of one method by one recogniser.

    Args:
        treated: Templates of the treated pictures, in the order of `kept`.
        kept: Which of the originals they were made of; a picture that was refused is not among them.
        originals: Templates of all the originals.
        people: Who is in each original.
    """
    if not len(kept):
        return dict.fromkeys(ATTACKS, Outcome(0, 0, 0.0))
    own, whose = np.asarray(kept, np.intp), np.asarray(people, np.intp)
    against = treated.astype(np.float64) @ originals.T.astype(np.float64)
    among = treated.astype(np.float64) @ treated.T.astype(np.float64)
    return {
        "own": _own(against, own),
        "rank-1": _others(against, own, whose[own], whose),
        "parrot": _others(among, np.arange(len(own)), whose[own], whose[own]),
    }


def _own(scores: Scores, own: npt.NDArray[np.intp]) -> Outcome:
    trials, gallery = scores.shape
    hits = int(np.sum(scores.argmax(1) == own))
    return Outcome(trials, hits, 1 / gallery)


def _others(
    scores: Scores, own: npt.NDArray[np.intp], who: npt.NDArray[np.intp], gallery: npt.NDArray[np.intp]
) -> Outcome:
    """Return how often the nearest but the own one shows the same person.

    For chance every picture's answer is held against the person of every other one, whose own is barred.
    """
    trials = len(own)
    if trials < 2 or len(gallery) < 2:
        return Outcome(0, 0, 0.0)
    first, second = np.argsort(-scores, axis=1, kind="stable")[:, :2].T
    answers = np.where(first[:, None] == own[None, :], second[:, None], first[:, None])
    is_hit = gallery[answers] == who[None, :]
    hits = int(np.trace(is_hit))
    return Outcome(trials, hits, (int(is_hit.sum()) - hits) / (trials * (trials - 1)))
