"""How long a thing may be kept, by the shortest term that applies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from policy.pack import Pack, Term
from policy.spans import parse_span
from policy.terms import Purpose

_HOUSE_TERMS: Mapping[str, str] = {
    "original": "PT24H",
    "output": "P30D",
    "prompt": "PT24H",
    "consent_proof": "P5Y",
    "dsr_file": "P3Y",
    "package": "P30D",
    "audit": "P2Y",
}
"""What the house keeps where no pack that applies says anything."""
_HOUSE_TERMS_FOR: Mapping[tuple[str, Purpose], str] = {("original", Purpose.RETAIN_ORIGINAL): "P30D"}
"""The same, for a thing that is kept for a purpose of its own."""

_FLOOR = ("House floor: nothing is kept longer than the service needs it",)


@dataclass(frozen=True, slots=True)
class Expiry:
    """When a thing must be gone, and the rule that says so."""

    expires_at: datetime
    pack: str
    layer: Literal["legal", "house"]
    citations: tuple[str, ...]
    uncertain: tuple[str, ...] = ()


def expires_at(
    kind: str, collected_at: datetime, packs: Iterable[Pack], *, purpose: Purpose | None = None
) -> Expiry:
    """Return when a thing of `kind` must be destroyed.

    The shortest term of all packs wins, but never ends before the longest time
    that one of them requires it to be kept.  A kind that nobody grants any time
    expires at once.

    Args:
        kind: A data kind (`original`), or `consent_proof`, `dsr_file`, `audit`.
        collected_at: Aware instant the term runs from (for proof: its end).
        packs: Those that apply to the person.
        purpose: The consented purpose it is kept for, where that changes the term.

    Raises:
        ValueError: `collected_at` has no time zone.

    Rule:
        GDPR Art. 5(1)(e); Cal. Civ. Code 1798.100(a)(3); PIPEDA Sch. 1 cl. 4.5.
    """
    if collected_at.tzinfo is None:
        raise ValueError("an aware instant is needed")
    asked = list(packs)
    ends = [
        _ends(pack, term, collected_at, term.at_most)
        for pack, term in _terms(kind, asked, purpose)
        if term.at_most
    ]
    floors = [
        _ends(pack, term, collected_at, term.at_least)
        for pack, term in _terms(kind, asked, purpose)
        if term.at_least
    ]
    shortest = min(ends, key=_when) if ends else _by_house(kind, purpose, collected_at)
    return max([shortest, *floors], key=_when)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a retention schedule; `at_most` and `at_least` are ISO 8601 durations or empty."""

    pack: str
    layer: Literal["legal", "house"]
    kind: str
    purpose: Purpose | None
    at_most: str
    at_least: str
    citations: tuple[str, ...]


def schedule(packs: Iterable[Pack]) -> tuple[Line, ...]:
    """Return all terms of the packs, and those of the house, as a schedule to publish.

    Rule:
        GDPR Art. 5(1)(e), 13(2)(a), 30(1)(f); Cal. Civ. Code 1798.100(a)(3); PIPEDA Sch. 1 cl. 4.5.2.
    """
    lines = [
        Line(
            pack.id,
            term.layer,
            term.kind,
            term.purpose,
            term.at_most or "",
            term.at_least or "",
            pack.cited(term.cite),
        )
        for pack in packs
        for term in pack.rules.retention
    ]
    floors = [Line("house", "house", kind, None, length, "", _FLOOR) for kind, length in _HOUSE_TERMS.items()]
    floors += [
        Line("house", "house", kind, purpose, length, "", _FLOOR)
        for (kind, purpose), length in _HOUSE_TERMS_FOR.items()
    ]
    return tuple(sorted([*lines, *floors], key=lambda line: (line.kind, line.pack, line.purpose or "")))


def retention_month(expires_at: datetime) -> str:
    """Return the UTC month, `YYYY-MM`, whose epoch key may end with the last thing that expires in it."""
    if expires_at.tzinfo is None:
        raise ValueError("an aware instant is needed")
    return expires_at.astimezone(UTC).strftime("%Y-%m")


def _terms(kind: str, packs: Iterable[Pack], purpose: Purpose | None) -> Iterable[tuple[Pack, Term]]:
    """Yield each pack's terms for the kind: those for the purpose if it has any, else the plain ones."""
    for pack in packs:
        terms = [term for term in pack.rules.retention if term.kind == kind]
        special = [term for term in terms if purpose is not None and term.purpose is purpose]
        for term in special or [term for term in terms if term.purpose is None]:
            yield pack, term


def _ends(pack: Pack, term: Term, start: datetime, length: str) -> Expiry:
    return Expiry(parse_span(length).after(start), pack.id, term.layer, pack.cited(term.cite), term.uncertain)


def _by_house(kind: str, purpose: Purpose | None, start: datetime) -> Expiry:
    length = _HOUSE_TERMS.get(kind)
    if purpose is not None:
        length = _HOUSE_TERMS_FOR.get((kind, purpose), length)
    end = start if length is None else parse_span(length).after(start)
    return Expiry(end, "house", "house", _FLOOR)


def _when(expiry: Expiry) -> datetime:
    return expiry.expires_at
