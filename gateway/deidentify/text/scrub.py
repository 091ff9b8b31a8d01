"""The scrubber itself: text in, text out, and what was found where."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway.deidentify.text.entities import ENTITIES, HIDDEN, MAX_CHARS, PromptPolicy, PromptRefused
from gateway.deidentify.text.fold import fold, is_hidden
from gateway.deidentify.text.model import NameFinder
from gateway.deidentify.text.names import JARGON, find_names
from gateway.deidentify.text.patterns import FINDERS

_RANK: Final = {entity: place for place, entity in enumerate(ENTITIES)}
_PASSES: Final = 3
_MASK: Final = re.compile(rf"\[(?:{'|'.join(ENTITIES)})\]")


@dataclass(frozen=True, slots=True, order=True)
class Found:
    """Something found: characters [start, end) of the text as it came, what it is, what was done.

    Never the text itself: a report of what was hidden must not say it.
    """

    start: int
    end: int
    entity: str
    action: str


@dataclass(frozen=True, slots=True)
class ScrubbedText:
    """A text that may be passed on, and what was found in the one that came."""

    text: str = field(repr=False)
    found: tuple[Found, ...]

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each entity was found; codes and numbers, so it may stand in a leaf."""
        counted: dict[str, int] = {}
        for one in self.found:
            counted[one.entity] = counted.get(one.entity, 0) + 1
        return counted


def scrub(
    text: str, policy: PromptPolicy | None = None, more_names: NameFinder | None = None
) -> ScrubbedText:
    """Return `text` without what names, reaches or numbers a person.

    Steps:
        (1) What nobody sees goes; what looks alike is looked at alike.
        (2) Everything found is masked, dropped or refused, as `policy` says per entity;
            a name found once is a name wherever it stands.
        (3) The result is looked at again; what still holds something after three looks is refused.

    Args:
        text: The prompt.
        policy: What is done with what is found.
        more_names: Finds names beside the patterns, in the text as it came; a text full of
            masks says nothing to it.

    Raises:
        PromptRefused: Too long, holds what policy refuses, or does not become clean.
    """
    if len(text) > MAX_CHARS:
        raise PromptRefused("too_long")
    policy = policy or PromptPolicy()
    found = [*_hidden(text), *_look(text, (), more_names)]
    _refuse(found, policy)
    clean = _applied(text, found, policy)
    for _ in range(_PASSES - 1):
        # Where something was dropped, what stood around it may have come together.
        left = _look(clean, _masks(clean))
        if not left:
            break
        _refuse(left, policy)
        clean = _applied(clean, left, policy)
        found = [*found, *((0, 0, entity) for _, _, entity in left)]
    else:
        if _look(clean, _masks(clean)):
            raise PromptRefused("residue_found")
    return ScrubbedText(
        clean.strip(),
        tuple(sorted(Found(start, end, what, policy.action(what)) for start, end, what in found)),
    )


_Span = tuple[int, int, str]


def _refuse(found: list[_Span], policy: PromptPolicy) -> None:
    for _, _, entity in found:
        if policy.action(entity) == "refuse":
            raise PromptRefused(entity)


def _hidden(text: str) -> Iterator[_Span]:
    start: int | None = None
    for place in range(len(text) + 1):
        hides = place < len(text) and is_hidden(text, place)
        if hides and start is None:
            start = place
        elif not hides and start is not None:
            yield start, place, HIDDEN
            start = None


def _masks(text: str) -> tuple[tuple[int, int], ...]:
    """Return where masks stand; in a text as it came they count for nothing, for anybody can write one."""
    return tuple(match.span() for match in _MASK.finditer(fold(text).text))


def _look(text: str, masks: Sequence[tuple[int, int]], more_names: NameFinder | None = None) -> list[_Span]:
    """Return what is found in `text` outside of `masks`, in its own offsets, without overlaps."""
    folded = fold(text)
    spans = [(start, end, entity) for entity, find in FINDERS for start, end in find(folded.text)]
    spans += [(start, end, "person") for start, end in find_names(folded.text)]
    if more_names is not None:
        spans += [(start, end, "person") for start, end in more_names(folded.text)]
    spans += _again(folded.text, spans)
    apart = _apart(_tight(folded.text, spans))
    free = [span for span in apart if not any(a < span[1] and span[0] < b for a, b in masks)]
    return [(*folded.span(start, end), entity) for start, end, entity in free]


def _tight(text: str, spans: list[_Span]) -> list[_Span]:
    """Return the spans without blanks and commas at their ends."""
    tight = []
    for start, end, entity in spans:
        found = text[start:end]
        first = start + len(found) - len(found.lstrip(" \n\t"))
        last = end - (len(found) - len(found.rstrip(" \n\t,;")))
        if first < last:
            tight.append((first, last, entity))
    return tight


def _again(text: str, spans: list[_Span]) -> Iterator[_Span]:
    """Find the words of a found name wherever else they stand."""
    words = {
        word
        for start, end, entity in spans
        if entity == "person"
        for word in re.findall(r"[^\W\d_]{4,}", text[start:end])
        if word.lower() not in JARGON
    }
    for word in words:
        for match in re.finditer(rf"(?<![^\W_]){re.escape(word)}(?![^\W_])", text, re.IGNORECASE):
            yield *match.span(), "person"


def _apart(spans: list[_Span]) -> list[_Span]:
    """Return the spans joined where they overlap, under the code that ranks first."""
    apart: list[_Span] = []
    for start, end, entity in sorted(spans):
        if apart and start < apart[-1][1]:
            first, last, other = apart[-1]
            apart[-1] = (first, max(last, end), min(other, entity, key=_RANK.__getitem__))
        else:
            apart.append((start, end, entity))
    return apart


def _applied(text: str, found: list[_Span], policy: PromptPolicy) -> str:
    made: list[str] = []
    place = 0
    for start, end, entity in sorted(found):
        if start < place:
            # Something hidden in the middle of what is replaced goes with it.
            continue
        made += [text[place:start], f"[{entity}]" if policy.action(entity) == "mask" else ""]
        place = end
    return "".join([*made, text[place:]])
