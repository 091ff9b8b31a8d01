"""The figures as a table, as a chart in SVG, and as JSON; a photo appears by its number at most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tests.benchmarks.reid.attacks import ATTACKS, Attack, Outcome
from tests.benchmarks.reid.verdict import Side, Verdict, seen_twice

ABOUT: Mapping[Attack, str] = {
    "own": "own: the person's own original is the nearest of all originals",
    "rank-1": "rank-1: the nearest of the other originals shows the same person",
    "parrot": "parrot: the nearest of the other pictures treated likewise shows the same person",
}
LEGEND = "share (its 95 % range, Wilson) chance (95 % of chance's outcomes, exact binomial); ! above these"
COLOURS = ("#3b6ea5", "#c26a2d", "#5a8f4f")


def table(sides: Mapping[str, Side]) -> str:
    """Return a table for each attack: a row for each method, a column for each attacker."""
    blocks = []
    for attack in ATTACKS:
        attackers = list(next(iter(sides.values())).outcomes)
        lines = [("", "N", *attackers)]
        for name, side in sides.items():
            lines.append((name, str(len(side.kept)), *(_cell(side.outcomes[a][attack]) for a in attackers)))
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        body = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) for line in lines]
        blocks.append("\n".join([ABOUT[attack], *(f"  {line.rstrip()}" for line in body)]))
    return "\n\n".join([*blocks, LEGEND])


def _cell(seen: Outcome) -> str:
    (low, high), (least, most) = seen.range, seen.range_of_chance
    mark = "!" if seen.is_above_chance else ""
    return f"{seen.share:.3f} ({low:.3f}-{high:.3f}) {seen.chance:.3f} ({least:.3f}-{most:.3f}){mark}"


def refusals(unused: Mapping[str, Sequence[int]], sides: Mapping[str, Side]) -> str:
    """Return which photos were left out, by number: as none of the bench's, or refused by a method."""
    lines = [_refusal("left out", reason, numbers) for reason, numbers in unused.items()]
    for name, side in sides.items():
        lines += [_refusal(f"{name} refused", reason, numbers) for reason, numbers in side.refused.items()]
    return "\n".join(lines)


def _refusal(who: str, reason: str, numbers: Sequence[int]) -> str:
    return f"{who} {len(numbers)} as {reason}: {', '.join(f'#{number}' for number in numbers)}"


def spoken(verdict: Verdict) -> str:
    """Return the verdict in words."""
    head = {
        True: "verdict: near chance on this bench",
        False: "verdict: linkable on this bench",
        None: "no verdict",
    }[verdict.holds]
    return "\n".join([head, *(f"  {reason}" for reason in verdict.reasons)])


def as_json(
    sides: Mapping[str, Side],
    people: Sequence[int],
    unused: Mapping[str, Sequence[int]],
    missing: Sequence[str],
    verdict: Verdict,
) -> dict[str, Any]:
    """Return everything that was printed, for a program."""
    return {
        "photos": len(people),
        "people": len(set(people)),
        "left_out": {reason: list(numbers) for reason, numbers in unused.items()},
        "missing_attackers": list(missing),
        "verdict": {"holds": verdict.holds, "reasons": verdict.reasons},
        "methods": {
            name: {
                "photos": len(side.kept),
                "people": len({people[index] for index in side.kept}),
                "people_twice": seen_twice(side.kept, people),
                "refused": {reason: list(numbers) for reason, numbers in side.refused.items()},
                "attackers": {
                    attacker: {attack: _figures(seen) for attack, seen in outcomes.items()}
                    for attacker, outcomes in side.outcomes.items()
                },
            }
            for name, side in sides.items()
        },
    }


def _figures(seen: Outcome) -> dict[str, Any]:
    return {
        "trials": seen.trials,
        "hits": seen.hits,
        "share": seen.share,
        "range": list(seen.range),
        "chance": seen.chance,
        "range_of_chance": list(seen.range_of_chance),
        "is_above_chance": seen.is_above_chance,
    }


# --- the chart ---------------------------------------------------------------------------------

LEFT, TOP, PANEL, GAP, BAR = 190, 58, 250, 34, 11


def chart(sides: Mapping[str, Side]) -> str:
    """Return bars of every share with its range, a panel for each attack, chance's range behind in grey."""
    attackers = list(next(iter(sides.values())).outcomes)
    row = BAR * len(attackers) + 12
    width, height = LEFT + len(ATTACKS) * (PANEL + GAP), TOP + row * len(sides) + 34
    size, font = f'width="{width}" height="{height}"', 'font-family="sans-serif" font-size="11"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>',
        f'<rect {size} fill="#ffffff"/>',
        *_legend(attackers),
    ]
    bottom = TOP + row * len(sides)
    for panel, attack in enumerate(ATTACKS):
        x = LEFT + panel * (PANEL + GAP)
        parts.append(_text(x, TOP - 10, attack, "start", bold=True))
        for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
            at = x + tick * PANEL
            parts += [_line(at, TOP, at, bottom, "#dddddd"), _text(at, bottom + 14, f"{tick:g}", "middle")]
    for number, (name, side) in enumerate(sides.items()):
        y = TOP + number * row + 6
        parts.append(_text(LEFT - 8, y + row / 2 - 2, f"{name} (N {len(side.kept)})", "end"))
        for panel, attack in enumerate(ATTACKS):
            x = LEFT + panel * (PANEL + GAP)
            for place, attacker in enumerate(attackers):
                colour = COLOURS[place % len(COLOURS)]
                parts += _bar(x, y + place * BAR, side.outcomes[attacker][attack], colour)
    return "\n".join([*parts, "</svg>", ""])


def _legend(attackers: Sequence[str]) -> list[str]:
    parts, x = [], LEFT
    for place, attacker in enumerate(attackers):
        parts += [_box(x, 12, 10, 10, COLOURS[place % len(COLOURS)]), _text(x + 15, 21, attacker, "start")]
        x += 120
    what = "line: 95 % range of the share; grey: 95 % of chance's outcomes"
    return [*parts, _box(x, 12, 10, 10, "#d0d0d0"), _text(x + 15, 21, what, "start")]


def _bar(x: float, y: float, seen: Outcome, colour: str) -> list[str]:
    (low, high), (least, most) = seen.range, seen.range_of_chance
    middle = y + (BAR - 2) / 2
    return [
        _box(x + least * PANEL, y - 1, (most - least) * PANEL, BAR, "#d0d0d0"),
        _box(x, y + 1, seen.share * PANEL, BAR - 4, colour),
        _line(x + low * PANEL, middle, x + high * PANEL, middle, "#222222"),
    ]


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _text(x: float, y: float, words: str, anchor: str, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>{escape(words)}</text>'
