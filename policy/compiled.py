"""Rule books made ready to be asked: conditions as functions, findings put together once.

A pack is read once and asked thousands of times a second, so whatever does not
depend on the facts is worked out here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from policy.codes import TIER, specificity
from policy.facts import Facts
from policy.pack import ConsentNeed, Gate, Ground, MinorRule, Pack, PurposeRule, Rule
from policy.predicates import Condition, compiled, tests_of
from policy.spans import Span, parse_span
from policy.terms import ConsentForm, Purpose


class Denial(NamedTuple):
    """One rule's no."""

    pack: str
    reason_code: str
    cite: str
    rule: str = ""


class Finding(NamedTuple):
    """One rule's answer, before the headline is chosen.  `tier` is -1 for a permission."""

    pack: str
    code: str
    citations: tuple[str, ...]
    rule: str
    uncertain: tuple[str, ...] = ()
    strength: int = -1
    tier: int = -1
    order: tuple[int, str] = (0, "")
    said: Denial | None = None
    consent: int | None = None

    @property
    def denies(self) -> bool:
        """Whether it is a no."""
        return self.tier >= 0


def finding(
    pack: str,
    code: str,
    citations: tuple[str, ...],
    rule: str,
    *,
    uncertain: tuple[str, ...] = (),
    strength: int = -1,
) -> Finding:
    """Return a finding with its place among headlines."""
    said = Denial(pack, code, "; ".join(citations), rule) if code in TIER else None
    return Finding(
        pack, code, citations, rule, uncertain, strength, TIER.get(code, -1), specificity(pack), said
    )


def utc_day(at: datetime) -> str:
    """Return the UTC day of an instant, as rules say since when they are in force."""
    return at.astimezone(UTC).date().isoformat()


class Window(NamedTuple):
    """The UTC days on which a rule is in force, as ISO text; `until` itself is no longer in."""

    since: str
    until: str

    def holds(self, day: str) -> bool:
        """Return whether the rule is in force on a day."""
        return self.since <= day < self.until


def window(rule: Rule) -> Window:
    """Return when a rule is in force."""
    return Window(rule.since or "", rule.until or "~")


@dataclass(frozen=True, slots=True)
class ReadyGate:
    """A gate with what it says."""

    window: Window
    when: Condition
    instead: bool
    says: Finding


@dataclass(frozen=True, slots=True)
class ReadyGround:
    """A ground with its permission, and with the denial for each way in which its consent may fall short."""

    window: Window
    when: Condition | None
    need: ConsentNeed | None
    valid_for: Span | None
    allows: Finding
    denies: Mapping[str, Finding]


@dataclass(frozen=True, slots=True)
class ReadyMinor:
    """A rule for the young with what it says."""

    window: Window
    rule: MinorRule
    unless: Condition | None
    need: ConsentNeed
    allows: Finding | None
    denies: Finding

    def binds(self, facts: Facts) -> bool:
        """Return whether the rule is about a person of this age, where they live or are."""
        if self.unless is not None and self.unless(facts):
            return False
        age = facts.subject.age
        if age is None:
            return self.rule.unknown_age
        rule = self.rule
        return rule.age_gte <= age < (self._limit(facts) if rule.age_table else rule.age_lt)

    def _limit(self, facts: Facts) -> int:
        """Return the limit of the country; of two places, the higher."""
        table = self.rule.age_table
        limits = [
            limit
            for code in (facts.subject.residence, facts.subject.location)
            if code is not None
            for limit in (table.get(code), table.get(code.partition("-")[0]))
            if limit is not None
        ]
        return max(limits, default=self.rule.age_lt)


@dataclass(frozen=True, slots=True)
class ReadyPurpose:
    """What a pack says of one purpose."""

    forbidden: Finding | None
    gates: tuple[ReadyGate, ...]
    grounds: tuple[ReadyGround, ...]
    otherwise: Finding | None
    minors: tuple[tuple[int, ReadyMinor], ...]
    house_form: ConsentForm | None
    house_forbids: Finding | None


@dataclass(frozen=True, slots=True)
class ReadyPack:
    """A pack ready to be asked; `reads` are the facts by which it applies, `minors` as in its file."""

    id: str
    named: tuple[str, str]
    reads: frozenset[str]
    order: tuple[int, str]
    never: bool
    triggers: tuple[tuple[Window, Condition], ...]
    scope: Condition | None
    purposes: Mapping[Purpose, ReadyPurpose]
    minors: tuple[ReadyMinor, ...]


@lru_cache(maxsize=512)
def ready(pack: Pack) -> ReadyPack:
    """Return the pack made ready; the same object for the same pack."""
    rules = pack.rules
    minors = tuple(_minor(pack, place, rule) for place, rule in enumerate(rules.minors))
    scope = rules.scope
    return ReadyPack(
        id=pack.id,
        named=(pack.id, pack.digest),
        reads=frozenset(test.fact for t in rules.applicability for test in tests_of(t.when)),
        order=specificity(pack.id),
        never=pack.status in {"pending", "documentation"},
        triggers=tuple((window(t), compiled(t.when, rules.sets)) for t in rules.applicability),
        scope=compiled(scope.when, rules.sets) if scope is not None else None,
        purposes={name: _purpose(pack, name, rule, minors) for name, rule in rules.purposes.items()},
        minors=minors,
    )


def _says(pack: Pack, code: str, rule: Rule, path: str, strength: int = -1) -> Finding:
    return finding(
        pack.id, code, pack.cited(rule.cite), path, uncertain=tuple(rule.uncertain), strength=strength
    )


def _purpose(pack: Pack, name: Purpose, rule: PurposeRule, minors: Sequence[ReadyMinor]) -> ReadyPurpose:
    path = f"purposes.{name.value}"
    return ReadyPurpose(
        forbidden=_says(pack, rule.forbidden, rule, path) if rule.forbidden is not None else None,
        gates=tuple(_gate(pack, gate, f"{path}.gates.{place}") for place, gate in enumerate(rule.gates)),
        grounds=tuple(
            _ground(pack, rule, ground, f"{path}.grounds.{place}", path)
            for place, ground in enumerate(rule.grounds)
        ),
        otherwise=None if rule.silent else _says(pack, rule.otherwise, rule, path),
        minors=tuple((place, minor) for place, minor in enumerate(minors) if name in minor.rule.purposes),
        house_form=rule.house.form,
        house_forbids=finding(
            "house", "DENY_BIOMETRIC_SALE_PROHIBITED", pack.cited(rule.cite), f"{pack.id}.{path}.house"
        )
        if rule.house.forbidden
        else None,
    )


def _gate(pack: Pack, gate: Gate, path: str) -> ReadyGate:
    return ReadyGate(
        window=window(gate),
        when=compiled(gate.when, pack.rules.sets),
        instead=gate.instead,
        says=_says(pack, gate.deny, gate, path),
    )


def _ground(pack: Pack, rule: PurposeRule, ground: Ground, path: str, purpose_path: str) -> ReadyGround:
    need = ground.consent
    strength = need.form.strength if need is not None else -1
    return ReadyGround(
        window=window(ground),
        when=compiled(ground.when, pack.rules.sets) if ground.when is not None else None,
        need=need,
        valid_for=parse_span(need.valid_for) if need is not None and need.valid_for else None,
        allows=_says(pack, ground.allow, ground, path, strength),
        denies=_denials(pack, rule, ground, need, path, purpose_path) if need is not None else {},
    )


def _denials(
    pack: Pack, rule: PurposeRule, ground: Ground, need: ConsentNeed, path: str, purpose_path: str
) -> dict[str, Finding]:
    """Return what is said for each way to fall short, with the rule to cite for it.

    That is the rule of withdrawal, of the purpose where nothing was said, else the ground.
    """
    ended = pack.rules.withdrawal
    withdrawn = (
        _says(pack, "DENY_CONSENT_WITHDRAWN", ended, "withdrawal")
        if ended is not None
        else _says(pack, "DENY_CONSENT_WITHDRAWN", ground, path)
    )
    return {
        "withdrawn": withdrawn,
        "expired": _says(pack, "DENY_CONSENT_EXPIRED", ground, path),
        "conditioned": _says(pack, need.conditioned, ground, path),
        "bundled": _says(pack, need.bundled, ground, path),
        "weak": _says(pack, need.weak, ground, path),
        "stranger": _says(pack, "DENY_NOT_SUBJECT", ground, path),
        "absent": _says(pack, need.absent or rule.otherwise, rule, purpose_path),
    }


def _minor(pack: Pack, place: int, rule: MinorRule) -> ReadyMinor:
    path = f"minors.{place}"
    return ReadyMinor(
        window=window(rule),
        rule=rule,
        unless=compiled(rule.unless, pack.rules.sets) if rule.unless is not None else None,
        need=ConsentNeed(
            form=ConsentForm.EXPRESS,
            must_have=("two_step_confirmed",) if rule.two_step else (),
            separate=rule.separate,
            conditioning="if_necessary",
        ),
        allows=_says(pack, rule.allow, rule, path, ConsentForm.EXPRESS.strength) if rule.allow else None,
        denies=_says(pack, rule.deny, rule, path),
    )
