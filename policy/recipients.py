"""Whom a controller tells of what a request changed, and when it need not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from policy.pack import Pack, Right
from policy.terms import DsrKind


class Role(StrEnum):
    """What a recipient of data is to the controller; a service provider is a processor."""

    PROCESSOR = "processor"
    CONTRACTOR = "contractor"
    AFFILIATE = "affiliate"
    THIRD_PARTY = "third_party"


class Told(StrEnum):
    """How far a recipient is with a request: to be told, told, and what came of it."""

    DUE = "due"
    TOLD = "told"
    ACKNOWLEDGED = "acknowledged"
    EXCUSED = "excused"


SETTLED = frozenset({Told.ACKNOWLEDGED, Told.EXCUSED})
"""States that nothing leaves."""

_TABLE: Mapping[tuple[str, str], Told] = {
    (Told.DUE, Told.TOLD): Told.TOLD,
    (Told.DUE, Told.EXCUSED): Told.EXCUSED,
    (Told.TOLD, Told.ACKNOWLEDGED): Told.ACKNOWLEDGED,
    (Told.TOLD, Told.EXCUSED): Told.EXCUSED,
}

# An affiliate is a third party wherever those are told: the wider reading.
_OTHERS = frozenset({Role.THIRD_PARTY, Role.AFFILIATE})
_ALL = frozenset(Role)
_ADDRESSED: Mapping[str, frozenset[Role]] = {
    "all_recipients": _ALL,
    "those_who_received_it": _ALL,
    "agents_it_was_shared_with": _ALL,
    "affiliates": frozenset({Role.AFFILIATE}),
    "processors": frozenset({Role.PROCESSOR}),
    "service_providers": frozenset({Role.PROCESSOR}),
    "contractors": frozenset({Role.CONTRACTOR}),
    "third_parties": _OTHERS,
    "third_parties_sold_or_shared": _OTHERS,
    "third_parties_since_the_request": _OTHERS,
    "third_parties_where_appropriate": _OTHERS,
}

NEVER_RECEIVED = "never_received"
"""The ground of whoever has had nothing of the person: no law asks to tell them."""


def after(state: str, outcome: str) -> Told | None:
    """Return the state once `outcome` is recorded, or None where it does not follow."""
    return _TABLE.get((state, outcome))


def is_told(laws: Iterable[Pack], kind: DsrKind, role: Role) -> bool:
    """Return whether any of the laws has a recipient of that role told of such a request.

    Rule:
        GDPR Art. 19; 11 CCR 7022, 7023, 7026; PIPEDA Sch. 1 cl. 4.9.5; RCW 19.373.040; LGPD Art. 18.
    """
    return any(_names(right.propagate_to, role) for right in _rights(laws, kind))


def excuses(laws: Iterable[Pack], kind: DsrKind, role: Role) -> tuple[str, ...]:
    """Return the grounds for which it need not be told: those that every law that asks for it knows."""
    asking = [right for right in _rights(laws, kind) if _names(right.propagate_to, role)]
    known: list[set[str]] = [
        {ground for ground, to in right.propagate_unless.items() if _names(to, role)} for right in asking
    ]
    return (*(sorted(set.intersection(*known)) if known else ()), NEVER_RECEIVED)


def _rights(laws: Iterable[Pack], kind: DsrKind) -> list[Right]:
    rights = [law.rules.rights.get(kind) for law in laws]
    return [right for right in rights if right is not None]


def _names(addressed: Iterable[str], role: Role) -> bool:
    return any(role in _ADDRESSED[name] for name in addressed)
