"""Looking for bytes in every column of every table, whatever tables there are.

The database does the looking: each row becomes one line of hexadecimal digits, its
columns apart by a bar, and only lines that hold a needle come to us.  So neither the
client's memory nor the network carries the tables, and a text, a blob and a number are
searched in one and the same way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from gateway.adapters.sql.registry import MAPPED
from gateway.ports.records import Seen

KNOWN = frozenset(mapped.table.name for mapped in MAPPED.values())
BAR = "|"
"""Between two columns of a line; no hexadecimal digit, so no needle crosses it."""


@dataclass(frozen=True)
class Quest:
    """What is looked for, and the columns (table, column) that are left out."""

    needles: Collection[bytes]
    skip: Collection[tuple[str, str]] = ()
    digits: tuple[str, ...] = field(init=False)
    """The needles in lower-case hexadecimal digits."""

    def __post_init__(self) -> None:
        """Turn the needles into digits.

        Raises:
            ValueError: One is empty: it would be seen everywhere.
        """
        if not all(self.needles):
            raise ValueError("nothing is looked for")
        object.__setattr__(self, "digits", tuple(sorted(needle.hex() for needle in self.needles)))

    def columns(self, table: str, names: Collection[str], *, is_ours: bool = True) -> list[str]:
        """Return the columns of a table that are looked into."""
        return [name for name in names if not (is_ours and (table, name) in self.skip)]

    def seen(self, table: str, names: list[str], line: str, *, is_ours: bool = True) -> Iterator[Seen]:
        """Yield the columns of a line that hold a needle; `is_ours` where the table lies in our schema."""
        for name, value in zip(names, line.lower().split(BAR), strict=True):
            if any(_is_in(digits, value) for digits in self.digits):
                yield Seen(table, name, is_ours and table in KNOWN)


def _is_in(digits: str, value: str) -> bool:
    """Tell whether the bytes occur, beginning at a whole byte or not: the database does not tell either."""
    return digits in value


def quoted(name: str) -> str:
    """Return a name of a table or a column as SQL takes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'
