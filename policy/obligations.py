"""What those who go ahead must keep to, merged over all packs that apply to the strictest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date
from zoneinfo import ZoneInfo

from policy.clocks import due
from policy.compiled import utc_day, window
from policy.facts import Facts
from policy.pack import MarkingDuty, Pack, Rule, Term
from policy.spans import parse_span
from policy.terms import DsrKind, Purpose

_KINDS = ("original", "output", "prompt", "template", "consent_proof", "dsr_file", "breach_record")


@dataclass(frozen=True, slots=True)
class Obligation:
    """One duty: of which kind, about what, how much, and by which rule of which pack."""

    kind: str
    about: str
    value: str
    pack: str
    citations: tuple[str, ...]
    uncertain: tuple[str, ...] = ()


def obligations(facts: Facts, packs: Iterable[Pack]) -> tuple[Obligation, ...]:
    """Return the duties of all `packs`, which apply, each kind merged to its strictest.

    - `keep_at_most`: of several terms the shortest; `keep_at_least`: the longest.
    - `answer_by`: the earliest day for a request received at `facts.at`.
    - `mark`: the layers that an output must carry, all of them together.
    - `transfer`: what each pack asks of a recipient; all must be met.
    - `assess`: the assessments that are due before the purpose is pursued.
    - `signal`: what an opt-out signal does, and what is said back.

    Rule:
        GDPR Art. 5(1)(e), 12(3), 35, 44; Reg. (EU) 2024/1689 Art. 50(2); 11 CCR 7025, 7150; P-39.1 s. 17.
    """
    asked, day = list(packs), utc_day(facts.at)
    return (
        *_terms(facts, asked),
        *_deadlines(facts, asked),
        *marks(facts, asked),
        *_transfers(facts, asked),
        *(
            _of("assess", rule.type, rule.deadline, pack, rule)
            for pack in asked
            for rule in pack.rules.assessments
            if facts.purpose in rule.purposes and window(rule).holds(day)
        ),
        *(
            _of("signal", rule.signal, f"{rule.treat_as} {rule.confirm or ''}".strip(), pack, rule)
            for pack in asked
            for rule in pack.rules.signals
            if window(rule).holds(day)
        ),
    )


def _of(kind: str, about: str, value: str, pack: Pack, rule: Rule) -> Obligation:
    return Obligation(kind, about, value, pack.id, pack.cited(rule.cite), tuple(rule.uncertain))


def _terms(facts: Facts, packs: list[Pack]) -> Iterable[Obligation]:
    for kind in _KINDS:
        found = [(pack, term) for pack in packs for term in _terms_of(pack, kind, facts.purpose)]
        most = [(parse_span(t.at_most).at_most, pack, t, t.at_most) for pack, t in found if t.at_most]
        least = [(parse_span(t.at_least).at_most, pack, t, t.at_least) for pack, t in found if t.at_least]
        if most:
            _, pack, term, length = min(most, key=lambda one: one[0])
            yield _of("keep_at_most", kind, length, pack, term)
        if least:
            _, pack, term, length = max(least, key=lambda one: one[0])
            yield _of("keep_at_least", kind, length, pack, term)


def _terms_of(pack: Pack, kind: str, purpose: Purpose) -> list[Term]:
    terms = [term for term in pack.rules.retention if term.kind == kind]
    return [t for t in terms if t.purpose is purpose] or [t for t in terms if t.purpose is None]


def _deadlines(facts: Facts, packs: list[Pack]) -> Iterable[Obligation]:
    for kind in DsrKind:
        days: list[tuple[date, Pack, tuple[str, ...], tuple[str, ...]]] = []
        for pack in packs:
            right = pack.rules.rights.get(kind)
            if right is None or right.available == "none":
                continue
            zone = pack.rules.seat.zone
            clock = due(pack, kind.value, facts.at, ZoneInfo(zone) if zone else UTC)
            days.append((clock.respond_by, pack, clock.citations, clock.uncertain))
        if days:
            day, pack, citations, uncertain = min(days, key=lambda one: one[0])
            yield Obligation("answer_by", kind.value, day.isoformat(), pack.id, citations, uncertain)


def marks(facts: Facts, packs: Iterable[Pack]) -> Iterable[Obligation]:
    """Yield the layers of the mark that an output must carry, each once, by the first pack that asks for it.

    Rule:
        Reg. (EU) 2024/1689 Art. 50(2), 50(4), 111(4).
    """
    day = utc_day(facts.at)
    seen: set[str] = set()
    for pack in packs:
        for rule in pack.rules.marking:
            if not window(rule).holds(day) or not _is_marked_by(rule, facts):
                continue
            for layer in rule.layers:
                if layer not in seen:
                    seen.add(layer)
                    yield _of("mark", layer, "before_release", pack, rule)


def _is_marked_by(rule: MarkingDuty, facts: Facts) -> bool:
    """Return whether a duty binds a system placed on the market when the facts say (unknown: a new one)."""
    placed = facts.system.placed_on_market
    if rule.placed_from is not None:
        return placed is None or placed.isoformat() >= rule.placed_from
    return rule.placed_before is None or (placed is not None and placed.isoformat() < rule.placed_before)


def _transfers(facts: Facts, packs: list[Pack]) -> Iterable[Obligation]:
    if facts.purpose is not Purpose.TRANSFER and facts.recipient.country is None:
        return
    for pack in packs:
        rule = pack.rules.purposes[Purpose.TRANSFER]
        if rule.basis:
            yield _of("transfer", facts.recipient.country or "", "; ".join(rule.basis), pack, rule)
