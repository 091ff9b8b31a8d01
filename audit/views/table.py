"""Events as a table for spreadsheets: no cell is taken for a formula."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from audit.views.rows import Row, instant

PATH = "events.csv"
CODED = (
    "pur",
    "cat",
    "dec",
    "rc",
    "layer",
    "age",
    "minor",
    "form",
    "flags",
    "sig",
    "why",
    "meth",
    "det",
    "dkind",
    "reg",
    "cls",
    "mthd",
    "con",
    "ntc",
    "obj",
    "job",
    "bak",
    "dsr",
    "nseal",
)
"""Fields that have a column of their own, as they stand in the leaf; the rest is in the leaf alone."""

COLUMNS = ("index", "leaf_hash", "type", "time", "id", "actor", *CODED, "exp", "seals")

_FORMULA = re.compile(r"[ \n]*[=+\-@\t\r]")
_QUOTED = re.compile(r'[,"\r\n]')


def write(rows: Sequence[Row]) -> bytes:
    """Return the events as CSV (RFC 4180, with line feeds), in the order given."""
    return as_csv([COLUMNS, *map(cells, rows)])


def cells(row: Row) -> tuple[str, ...]:
    """Return the cells of one event, in the order of `COLUMNS`; times are RFC 3339 in UTC."""
    event = row.event
    return (
        str(row.index),
        row.hash.hex(),
        str(event["ty"]),
        instant(event["t"]),
        str(event["id"]),
        str(event["act"]),
        *(plain(event.get(name, "")) for name in CODED),
        instant(event["exp"]) if "exp" in event else "",
        str(len(event["seals"])),
    )


def plain(value: Any) -> str:
    """Return a value of a leaf as text; a list becomes its items with spaces between."""
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    return str(value)


def as_csv(lines: Iterable[Sequence[str]]) -> bytes:
    """Return lines of cells as CSV."""
    return "".join(",".join(map(cell, line)) + "\n" for line in lines).encode()


def cell(text: str) -> str:
    """Return `text` as a CSV cell that no spreadsheet takes for a formula.

    The closed schema keeps such text out of leaves; facts that people give are not so bounded.
    """
    if _FORMULA.match(text):
        text = f"'{text}"
    if _QUOTED.search(text):
        return '"' + text.replace('"', '""') + '"'
    return text
