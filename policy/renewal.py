"""Which changes of a notice call for the consents under it to be asked for anew."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from policy.pack import Pack

FLOOR = frozenset({"purposes", "recipients", "transfer_countries", "retention_term"})
"""House floor: whoever is told of something else than before is asked again.

Rule:
    GDPR Art. 4(11), 13(3): a consent is to what was told; a new purpose is told first.
"""


@dataclass(frozen=True, slots=True)
class Stated:
    """What a version of a notice states."""

    text: str
    purposes: frozenset[str]
    recipients: frozenset[str]
    transfer_countries: frozenset[str]
    retention_term: str
    withdrawal_method: str


def changes(before: Stated, after: Stated) -> frozenset[str]:
    """Return the names of what another version states differently."""
    return frozenset(name for name in Stated.__slots__ if getattr(before, name) != getattr(after, name))


def calls_for_renewal(changed: Iterable[str], packs: Iterable[Pack], at: datetime) -> bool:
    """Return whether the house, or one of the packs that applied to a consent, wants it asked for anew."""
    asked = set(FLOOR)
    for pack in packs:
        rule = pack.rules.renewal
        if rule is not None and rule.in_force(at):
            asked |= set(rule.when_changed)
    return not asked.isdisjoint(changed)
