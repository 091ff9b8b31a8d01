"""What an erasure destroys and what it must leave, with the rule that keeps it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from policy.pack import Keep, Pack
from policy.spans import parse_span
from policy.terms import KeyClass


@dataclass(frozen=True, slots=True)
class Hold:
    """A duty to keep that stands against erasure (litigation; PIPEDA s. 8(8)); no end if `until` is None."""

    rule: str
    classes: tuple[KeyClass, ...]
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """A class that stays, by which rule, and until when (None: until the hold is released)."""

    cls: KeyClass
    rule: str
    until: datetime | None


@dataclass(frozen=True, slots=True)
class ErasurePlan:
    """Key classes to destroy, and those that stay; together all that is held, each once."""

    erase: tuple[KeyClass, ...]
    keep: tuple[Kept, ...]


def plan(
    regimes: Iterable[Pack], held: Iterable[KeyClass], at: datetime, holds: Iterable[Hold] = ()
) -> ErasurePlan:
    """Return what to destroy and what to leave, for an erasure at `at`.

    Several packs may keep the same class: it stays for the shortest of their
    times, but as long as any of them requires.  No pack keeps `content` or
    `profile`; only a hold does.

    Args:
        regimes: The packs that apply to the person.
        held: The classes under which something is held.
        at: Aware instant of the erasure; terms run from it.
        holds: Holds that stand at that instant; ended ones are ignored.

    Raises:
        ValueError: `at` has no time zone.

    Rule:
        GDPR Art. 17(1), 17(3)(b), (e)
        Cal. Civ. Code 1798.105(c)(2), (d)(8); 11 CCR 7101
        PIPEDA Sch. 1 cl. 4.5.3
    """
    if at.tzinfo is None:
        raise ValueError("an aware instant is needed")
    packs = list(regimes)
    standing = [hold for hold in holds if hold.until is None or hold.until > at]
    present = set(held)
    keep: list[Kept] = []
    for cls in (one for one in KeyClass if one in present):
        kept = _by_hold(cls, standing) or _by_rule(cls, packs, at)
        if kept is not None:
            keep.append(kept)
    left = {kept.cls for kept in keep}
    return ErasurePlan(tuple(one for one in KeyClass if one in present - left), tuple(keep))


def _by_hold(cls: KeyClass, holds: Iterable[Hold]) -> Kept | None:
    reasons = [hold for hold in holds if cls in hold.classes]
    if not reasons:
        return None
    ends = [hold.until for hold in reasons if hold.until is not None]
    until = max(ends) if len(ends) == len(reasons) else None
    return Kept(cls, "; ".join(sorted({hold.rule for hold in reasons})), until)


def _by_rule(cls: KeyClass, packs: Iterable[Pack], at: datetime) -> Kept | None:
    found: list[tuple[Pack, Keep]] = [
        (pack, keep)
        for pack in packs
        for keep in pack.rules.keep_at_erasure
        if keep.cls is cls and keep.in_force(at)
    ]
    if not found:
        return None
    ends = min(parse_span(keep.keep_for).after(at) for _, keep in found)
    floors = [parse_span(keep.at_least).after(at) for _, keep in found if keep.at_least]
    cites = [cite for pack, keep in found for cite in pack.cited(keep.cite)]
    return Kept(cls, "; ".join(dict.fromkeys(cites)), max([ends, *floors]))
