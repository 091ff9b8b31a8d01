"""Who is to be told of a breach, and until when; how long the register keeps it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from policy.clocks import Moment, limits, seat
from policy.errors import EventUnknown
from policy.pack import Pack

KEPT_FOR_YEARS = 5
"""The house keeps what no law names a term for as long as the longest that one does (U-09)."""

_RECORD = "breach record retention"


@dataclass(frozen=True, slots=True)
class Duty:
    """One duty to tell of a breach.

    `tell` is `authority`, `subjects`, `authority_and_subjects`, `controller` or `others`.
    `due_at` is the last instant, and `due` as the law counts it: an instant where it counts
    hours, a day where it counts days.  Both are None where the law says `promptly` in words
    of its own, or where what the clock starts from has not happened yet (`field` names the limit).
    """

    pack: str
    tell: str
    name: str
    field: str
    due: Moment | None
    due_at: datetime | None
    promptly: str
    threshold: str
    unless: tuple[str, ...]
    more_than: int | None
    citations: tuple[str, ...]
    uncertain: tuple[str, ...]

    def concerns(self, whom: str) -> bool:
        """Return whether it is `authority` or `subjects` who is to be told."""
        return whom in self.tell.split("_and_")


def duties(
    packs: Iterable[Pack],
    aware_at: datetime,
    subjects_told_at: datetime | None,
    zone: tzinfo,
    calendar: str | None,
) -> tuple[Duty, ...]:
    """Return every duty of these packs for a breach of which the controller became aware then.

    A law that counts hours counts them through weekends and changes of the clock.  A law
    that counts days does so where it sits, else in the controller's `zone` and `calendar`.

    Rule:
        GDPR Art. 33(1), 34(1); Cal. Civ. Code 1798.82; PIPEDA s. 10.1.
    """
    found = []
    for pack in packs:
        here, holidays = seat(pack, zone, calendar)
        for duty in pack.rules.breach:
            if not duty.in_force(aware_at):
                continue
            due = None
            if duty.event is not None and duty.field is not None:
                alias = pack.rules.events[duty.event].aliases[0]
                due = _limit(pack, alias, duty.field, aware_at, subjects_told_at, here, holidays)
            found.append(
                Duty(
                    pack=pack.id,
                    tell=duty.tell,
                    name=duty.name,
                    field=duty.field or "",
                    due=due,
                    due_at=_last_instant(due, here),
                    promptly=duty.promptly or "",
                    threshold=duty.threshold,
                    unless=duty.unless,
                    more_than=duty.more_than,
                    citations=pack.cited(duty.cite),
                    uncertain=duty.uncertain,
                )
            )
    return tuple(found)


def keep_until(packs: Iterable[Pack], aware_at: datetime, zone: tzinfo) -> datetime:
    """Return until when the register keeps the breach: the longest that a pack asks for, else the house's.

    Rule:
        GDPR Art. 33(5); SOR/2018-64 s. 6(1).
    """
    ends = [
        end
        for pack in packs
        if (end := _limit(pack, _RECORD, "keep_at_least_until", aware_at, None, *seat(pack, zone, None)))
    ]
    instants = [moment for end in ends if (moment := _last_instant(end, zone)) is not None]
    return max(instants, default=aware_at + timedelta(days=366 * KEPT_FOR_YEARS))


def _limit(
    pack: Pack,
    event: str,
    field: str,
    aware_at: datetime,
    told_at: datetime | None,
    zone: tzinfo,
    calendar: str | None,
) -> Moment | None:
    """Return a limit of an event, or None where the pack has none, or not yet."""
    names = ("aware_at", "aware", "discovered", "known", "determined")
    inputs = dict.fromkeys(names, aware_at.isoformat())
    if told_at is not None:
        inputs["residents_notified"] = told_at.isoformat()
    try:
        return limits(pack, event, inputs, zone, calendar).get(field)
    except EventUnknown:
        return None


def _last_instant(due: date | datetime | None, zone: tzinfo) -> datetime | None:
    """Return the last instant that is on time: a day is over where it is counted."""
    if due is None or isinstance(due, datetime):
        return due
    return datetime.combine(due + timedelta(days=1), time(), zone).astimezone(UTC) - timedelta(microseconds=1)
