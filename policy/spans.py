"""ISO 8601 durations and calendar arithmetic, shared by clocks, retention and erasure."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TypeVar

_SPAN = re.compile(r"P(?:([0-9]{1,4})Y)?(?:([0-9]{1,4})M)?(?:([0-9]{1,5})D)?(?:T(?:([0-9]{1,5})H)?)?")

Day = TypeVar("Day", date, datetime)


@dataclass(frozen=True, slots=True)
class Span:
    """A length of time: calendar months, then days and hours."""

    months: int
    days: int
    hours: int

    def after(self, start: datetime) -> datetime:
        """Return the instant this long after `start`, in the time zone of `start`."""
        return add_months(start, self.months) + timedelta(days=self.days, hours=self.hours)

    @property
    def at_most(self) -> timedelta:
        """Return an upper bound, good for comparing spans (a month may have 31 days)."""
        return timedelta(days=self.months * 31 + self.days, hours=self.hours)


def parse_span(text: str) -> Span:
    """Read `P5Y`, `P24M`, `P30D`, `PT24H` and their sums.

    Raises:
        ValueError: It is something else, or of no length.
    """
    match = _SPAN.fullmatch(text)
    if match is None or not any(match.groups()) or text.endswith("T"):
        raise ValueError(f"not a duration: {text!r}")
    years, months, days, hours = (int(group or 0) for group in match.groups())
    return Span(years * 12 + months, days, hours)


def add_months(start: Day, months: int) -> Day:
    """Return the same day `months` later, or the last day of a month that is too short.

    Rule:
        Reg. (EEC, Euratom) 1182/71 Art. 3(2)(c): a missing date is the last day of the month.
    """
    index = start.year * 12 + start.month - 1 + months
    year, month = divmod(index, 12)
    day = min(start.day, calendar.monthrange(year, month + 1)[1])
    return start.replace(year=year, month=month + 1, day=day)
