"""What the figures say of the profiles that are to hide who somebody is; or that they say nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.benchmarks.reid.attacks import Attack, Outcome

JUDGED: Final = ("landmarks", "redact")
NONE, CONTROL, RIVAL = "none", "low-poly of one's own", "blur as deface does"

LEAST_PHOTOS, LEAST_PEOPLE = 60, 13


@dataclass(frozen=True)
class Side:
    """A method: which photos it treated, which it refused and why, and what each attacker made of it."""

    kept: Sequence[int]
    refused: Mapping[str, Sequence[int]]
    outcomes: Mapping[str, Mapping[Attack, Outcome]]


@dataclass(frozen=True)
class Verdict:
    """Whether the profiles hold; None where the figures do not suffice to say so, and why."""

    holds: bool | None
    reasons: list[str] = field(default_factory=list)


def judge(sides: Mapping[str, Side], people: Sequence[int]) -> Verdict:
    """Return whether own and rank-1 are within chance's range, and parrot at most half of the blur's.

    No verdict below 60 photos or 13 people of whom there are two, in any of the rows
    compared: what a method refused does not count for it.  Nor from an attacker who
    does not recognise people where nothing was hidden.
    """
    doubts = [doubt for name in (*JUDGED, RIVAL) for doubt in _too_few(name, sides[name].kept, people)]
    doubts += [
        f"{attacker} does not recognise people by '{name}', so that it proves nothing"
        for name in (NONE, CONTROL)
        for attacker, outcome in sides[name].outcomes.items()
        if not outcome["rank-1"].is_above_chance
    ]
    if doubts:
        return Verdict(None, doubts)
    faults = [fault for name in JUDGED for fault in _faults(name, sides[name], sides[RIVAL])]
    return Verdict(not faults, faults)


def seen_twice(kept: Sequence[int], people: Sequence[int]) -> int:
    """Return how many people are in two photos or more: only they can be found by another photo."""
    return sum(count > 1 for count in Counter(people[index] for index in kept).values())


def _too_few(name: str, kept: Sequence[int], people: Sequence[int]) -> list[str]:
    twice = seen_twice(kept, people)
    if len(kept) >= LEAST_PHOTOS and twice >= LEAST_PEOPLE:
        return []
    needed = f"{LEAST_PHOTOS} photos and {LEAST_PEOPLE} people are needed"
    return [f"{name}: {len(kept)} photos, {twice} people with two or more; {needed}"]


def _faults(name: str, side: Side, rival: Side) -> list[str]:
    faults = []
    for attacker, outcome in side.outcomes.items():
        for attack in ("own", "rank-1"):
            seen = outcome[attack]
            if seen.is_above_chance:
                top = seen.range_of_chance[1]
                faults.append(f"{name}: {attack} by {attacker} is {seen.share:.3f}, above chance's {top:.3f}")
        ours, theirs = outcome["parrot"].share, rival.outcomes[attacker]["parrot"].share
        if ours > theirs / 2:
            faults.append(
                f"{name}: parrot by {attacker} is {ours:.3f}, more than half of the blur's {theirs:.3f}"
            )
    return faults
