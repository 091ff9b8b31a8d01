"""Sides that take turns, and what their ratios say.

The machine is shared and noisy, so a number alone says little.  In each round
every side runs once, in an order that turns from round to round; the ratio is
taken within the round, where both sides met the same noise.
"""

from __future__ import annotations

import os
import platform
import re
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Spread:
    """The least, the middle and the greatest of some values."""

    min: float
    median: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(min(values), statistics.median(values), max(values))

    def __str__(self) -> str:
        return " / ".join(f"{value:.{_digits(value)}f}" for value in (self.min, self.median, self.max))


@dataclass(frozen=True)
class Row:
    """One side: what was measured, and its ratio to the base, None where it has none."""

    name: str
    value: Spread
    ratio: Spread | None


@dataclass(frozen=True)
class Table:
    """One question, its unit, who the ratios are taken against, and the sides."""

    title: str
    unit: str
    base: str
    rows: list[Row]
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        head = ("", f"{self.unit} (min / median / max)", f"ratio to {self.base} (min / median / max)")
        lines = [head, *((r.name, str(r.value), str(r.ratio) if r.ratio else "") for r in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(3)]
        body = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) for line in lines]
        return "\n".join([self.title, *(f"  {line.rstrip()}" for line in body), *map(_note, self.notes)])


def _note(text: str) -> str:
    return f"  note: {text}"


def _digits(value: float) -> int:
    return 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 4


Side = Callable[[], Awaitable[float]]


async def take_turns(sides: Mapping[str, Side], rounds: int) -> dict[str, list[float]]:
    """Return each side's values, round by round."""
    names = list(sides)
    seen: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            seen[name].append(await sides[name]())
    return seen


def table(
    title: str, unit: str, base: str, seen: Mapping[str, Sequence[float]], notes: Sequence[str] = ()
) -> Table:
    """Return the table of some values, with ratios taken round by round."""
    rows = []
    for name, values in seen.items():
        against = [value / other for value, other in zip(values, seen[base], strict=True)]
        rows.append(Row(name, Spread.of(values), None if name == base else Spread.of(against)))
    return Table(title, unit, base, rows, list(notes))


def machine() -> dict[str, Any]:
    """Return what the numbers depend on."""
    try:
        told = Path("/proc/cpuinfo").read_text()
    except OSError:
        told = ""
    model = re.search(r"^model name\s*: (.*)$", told, re.MULTILINE)
    return {
        "cpu": model[1] if model else platform.processor(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }
