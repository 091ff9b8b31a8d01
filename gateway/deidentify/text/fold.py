"""The text as it is looked at: one spelling for what looks alike, and where each character came from.

Nothing of this reaches a backend.  It undoes what hides an address from a
pattern: letters of another script that look Latin, full-width digits, accents,
characters of no width, marks that turn the direction of writing.

Rule:
    Unicode Standard Annex 15 (NFKD) and Technical Standard 39 (confusables; the common ones).
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Final

_ALIKE: Final = str.maketrans(
    "АВЕЅІЈКМНОРСТУХЗавеѕіјкмнорстухԁһгүӏΑΒΕΖΗΙΚΜΝΟΡΤΥΧαικνορτυχıɑɡᴏᴀᴇɪʟ‐‑‒–—−﹣’‘ʼ´`“”„«»․。｡⁄∕＠﹫·•",
    "ABESIJKMHOPCTYX3abesijkmhopctyxdhrylABEZHIKMNOPTYXaiknoptuxiagoaeil-------'''''\"\"\"\"\"...//@@..",
)
_JOINER: Final = "\u200d"
_BLANKS: Final = frozenset("\u115f\u1160\u17b4\u17b5\u3164\uffa0\u2800\u034f")
"""Letters and marks by their class that show nothing all the same."""


@dataclass(frozen=True, slots=True)
class Folded:
    """Folded text; `origin[i]` is the index in the original of what its character i came from."""

    text: str
    origin: tuple[int, ...]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return the range of the original that the folded range [start, end) came from."""
        return self.origin[start], self.origin[end - 1] + 1


def is_hidden(text: str, place: int) -> bool:
    """Tell whether the character shows nothing: format, control, tag and filler characters.

    Line ends and tabs show; a joiner between two pictographs makes one of them.
    """
    char = text[place]
    if char in "\n\r\t":
        return False
    if char == _JOINER:
        around = (text[place - 1 : place] or "x", text[place + 1 : place + 2] or "x")
        return not all(unicodedata.category(one) in {"So", "Mn", "Sk"} for one in around)
    return char in _BLANKS or unicodedata.category(char) in {"Cf", "Cc", "Co", "Cn", "Cs"}


def fold(text: str) -> Folded:
    """Return the text to look at."""
    made: list[str] = []
    origin: list[int] = []
    for place, char in enumerate(text):
        if is_hidden(text, place):
            continue
        for plain in unicodedata.normalize("NFKD", char):
            kind = unicodedata.category(plain)
            if kind in {"Mn", "Me"}:
                continue
            made.append(" " if kind in {"Zs", "Zl", "Zp"} else _digit(plain, kind))
            origin.append(place)
    folded = "".join(made).translate(_ALIKE)
    return Folded(folded, tuple(origin))


def _digit(char: str, kind: str) -> str:
    return str(unicodedata.digit(char)) if kind == "Nd" else char
