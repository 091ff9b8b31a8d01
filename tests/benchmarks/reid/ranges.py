"""How far a share may be off: Wilson's range of what was measured, the exact binomial range of chance."""

from __future__ import annotations

import math

Range = tuple[float, float]

Z95 = 1.959963984540054
TAIL = 0.025


def wilson(hits: int, trials: int) -> Range:
    """Return the 95 % range of the share behind `hits` of `trials`, by Wilson's score.

    >>> [round(end, 3) for end in wilson(5, 61)]
    [0.036, 0.178]
    """
    if not trials:
        return 0.0, 1.0
    share, spread = hits / trials, Z95**2 / trials
    middle = (share + spread / 2) / (1 + spread)
    half = Z95 / (1 + spread) * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    return max(0.0, middle - half), min(1.0, middle + half)


def of_chance(chance: float, trials: int) -> Range:
    """Return between which shares 95 % of chance's outcomes lie, each tail at most 2.5 %; exact binomial."""
    if not trials:
        return 0.0, 1.0
    below, low, high = 0.0, None, trials
    for hits in range(trials + 1):
        upto = below + _exactly(hits, chance, trials)
        if low is None and upto > TAIL:
            low = hits
        if upto >= 1 - TAIL:
            high = hits
            break
        below = upto
    return (low or 0) / trials, high / trials


def _exactly(hits: int, chance: float, trials: int) -> float:
    if chance in {0.0, 1.0}:
        return float(hits == trials * chance)
    ways = math.lgamma(trials + 1) - math.lgamma(hits + 1) - math.lgamma(trials - hits + 1)
    return math.exp(ways + hits * math.log(chance) + (trials - hits) * math.log1p(-chance))
