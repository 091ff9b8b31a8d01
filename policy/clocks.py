"""Statutory deadlines.  Days are counted where the clock sits; instants become days there first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import holidays as tables

from policy.errors import EventUnknown
from policy.pack import Calendar, Clock, Event, HolidayRule, Limit, Pack
from policy.spans import add_months

Moment = date | datetime
_WEEK = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CODE = re.compile(r"[A-Z]{2}(-[A-Z0-9]{1,3})?")
_COUNTRIES = frozenset(tables.list_supported_countries(include_aliases=False))
_OTHER_NAMES = {"UK": "GB", "UK-EAW": "GB-ENG", "UK-SCT": "GB-SCT", "UK-NIR": "GB-NIR", "UK-NI": "GB-NIR"}


@dataclass(frozen=True, slots=True)
class ClockResult:
    """The days of one request, all inclusive: an answer sent on `respond_by` is on time.

    None where the regime knows no such limit.  `internal_target` is the house's
    own day, never after the legal one.
    """

    received_on: date
    ack_by: date | None
    respond_by: date
    extension_notice_by: date | None
    extended_respond_by: date | None
    internal_target: date
    citations: tuple[str, ...]
    uncertain: tuple[str, ...]


def seat(pack: Pack, zone: tzinfo, calendar: str | None) -> tuple[tzinfo, str | None]:
    """Return the zone and calendar in which the pack counts for a controller in `zone`.

    A pack that fixes its zone (CCPA: California) also fixes its calendar.
    """
    fixed = pack.rules.seat.zone
    return (zone, calendar) if fixed is None else (ZoneInfo(fixed), None)


def is_calendar(code: str) -> bool:
    """Return whether holidays are tabled under the code (`DE`, `CA-QC`, `UK-EAW`)."""
    return _CODE.fullmatch(code) is not None and _table(code, 2026) is not None


def is_place(code: str) -> bool:
    """Return whether the code is a country of ISO 3166-1 or has the form of one of its subdivisions."""
    return _CODE.fullmatch(code) is not None and code.partition("-")[0] in _COUNTRIES


def due(
    pack: Pack,
    event: str,
    received_at: datetime,
    tz: tzinfo | None = None,
    calendar: str | None = None,
    *,
    inputs: Mapping[str, str] | None = None,
    pauses: Iterable[tuple[str, str]] = (),
) -> ClockResult:
    """Return the days by which a request must be acknowledged and answered.

    An extension is counted from receipt, never from a day that was clipped or
    rolled; its notice is due while the first limit still runs.

    Args:
        pack: The regime.
        event: A request kind or an alias of the pack's events.
        received_at: Aware instant of receipt.
        tz: Where days are counted; the pack's own zone if None.
        calendar: A code (`DE`, `UK-EAW`) that replaces the pack's holidays; other text is ignored.
        inputs: Days that restart or pause the clock, where the pack knows such.
        pauses: More pauses, each from its first to its last day; a day in two counts once.

    Raises:
        EventUnknown: The pack has no such request.
        ValueError: `received_at` has no time zone, or none is known to count in.

    Rule:
        GDPR Art. 12(3) with Reg. (EEC, Euratom) 1182/71 Art. 3; 11 CCR 7021; PIPEDA s. 8(3)-(4).
    """
    found = find_event(pack, event)
    if found.respond is None or found.target is None:
        raise EventUnknown(pack.id, event)
    counter = _Counter.of(pack, tz, calendar)
    received = counter.day(received_at)
    given = inputs or {}
    start = max([received, *(counter.day(given[name]) for name in found.restart if given.get(name))])
    skip = _paused(found, given, pauses, counter)
    clocks = pack.rules.clocks
    respond = counter.last_day(clocks[found.respond], start, skip)
    extended = counter.last_day(clocks[found.extend], start, skip) if found.extend else None
    used = [found, *(clocks[name] for name in (found.ack, found.respond, found.extend) if name)]
    return ClockResult(
        received_on=received,
        ack_by=counter.last_day(clocks[found.ack], received) if found.ack else None,
        respond_by=respond,
        extension_notice_by=respond if extended else None,
        extended_respond_by=extended,
        internal_target=min(respond, counter.last_day(clocks[found.target], start, skip)),
        citations=tuple(dict.fromkeys(cite for rule in used for cite in pack.cited(rule.cite))),
        uncertain=tuple(sorted({doubt for rule in used for doubt in rule.uncertain})),
    )


def may_pause(pack: Pack, event: str) -> bool:
    """Return whether a question that is needed to find what is asked for stops the clock of such a request.

    Rule:
        UK GDPR Art. 12A: the days from asking to the answer do not count (U-17); for access only.
    """
    return find_event(pack, event).pause is not None


def limits(
    pack: Pack, event: str, inputs: Mapping[str, str], tz: tzinfo | None = None, calendar: str | None = None
) -> dict[str, Moment]:
    """Return the named moments of an event that is no request (a breach, keeping a record).

    Args:
        pack: The regime.
        event: An alias of the pack's events.
        inputs: ISO days or instants by name, as the event needs them.
        tz: Where days are counted, and in which instants are shown; the pack's own zone if None.
        calendar: As in `due`.

    Raises:
        EventUnknown: No such event, or no input that it counts from.
        ValueError: An input is no ISO 8601 text, or an hour clock got a day.
    """
    found = find_event(pack, event)
    if not found.limits:
        raise EventUnknown(pack.id, event)
    counter = _Counter.of(pack, tz, calendar)
    result: dict[str, Moment] = {}
    for limit in found.limits:
        options = list(_options(pack, limit, inputs, counter))
        if not options:
            raise EventUnknown(pack.id, event)
        result[limit.field] = min(options, key=lambda moment: moment.isoformat())
    return result


def reckon(pack: Pack, case: Mapping[str, Any]) -> dict[str, Moment | None]:
    """Return the fields of a clock case as `lethe policy clock` prints them.

    `case` has `event`, `received_at` or `inputs`, and may have `clock_tz` and
    `holiday_calendar`.

    Raises:
        EventUnknown: The pack has no such event, or the inputs do not fit it.
        ValueError: A time or zone cannot be read.
    """
    tz = ZoneInfo(str(case["clock_tz"])) if case.get("clock_tz") else None
    inputs: Mapping[str, str] = case.get("inputs") or {}
    event = str(case.get("event", ""))
    found = find_event(pack, event)
    if found.limits and (found.respond is None or case.get("received_at") is None):
        return dict(limits(pack, event, inputs, tz, case.get("holiday_calendar")))
    if case.get("received_at") is None:
        raise ValueError("a request needs the instant of its receipt")
    received_at = datetime.fromisoformat(str(case["received_at"]))
    answer = due(pack, event, received_at, tz, case.get("holiday_calendar"), inputs=inputs)
    return {
        "received": answer.received_on,
        "ack_by": answer.ack_by,
        "respond_by": answer.respond_by,
        "extension_notice_by": answer.extension_notice_by,
        "extended_respond_by": answer.extended_respond_by,
        "internal_target": answer.internal_target,
    }


@dataclass(frozen=True, slots=True)
class _Counter:
    """Counts days in one zone and calendar."""

    zone: tzinfo
    calendar: Calendar
    code: str | None

    @classmethod
    def of(cls, pack: Pack, tz: tzinfo | None, calendar: str | None) -> _Counter:
        own = pack.rules.calendars[pack.rules.seat.calendar]
        zone = tz or (ZoneInfo(pack.rules.seat.zone) if pack.rules.seat.zone else None)
        if zone is None:
            raise ValueError(f"{pack.id} counts days in the controller's time zone, and none was given")
        code = (calendar or "").strip().upper()
        is_override = bool(_CODE.fullmatch(code)) and code not in own.codes and _table(code, 2026) is not None
        return cls(zone, own, code if is_override else None)

    def day(self, moment: str | datetime) -> date:
        """Return the day of an instant here; an ISO day is taken as it stands."""
        if isinstance(moment, str):
            if "T" not in moment:
                return date.fromisoformat(moment)
            moment = datetime.fromisoformat(moment)
        if moment.tzinfo is None:
            raise ValueError("an aware instant is needed")
        return moment.astimezone(self.zone).date()

    def last_day(self, clock: Clock, start: date, skip: int = 0) -> date:
        """Return the last day of a term that an event on `start` begins."""
        if clock.unit == "business_day":
            return self._business_days(start, clock.length)
        if clock.unit == "hour":
            raise ValueError("hours are counted from an instant, not from a day")
        if clock.unit == "day":
            end = start + timedelta(days=clock.length)
        else:
            end = add_months(start, clock.length * (12 if clock.unit == "year" else 1))
        end += timedelta(days=skip)
        while clock.roll == "next_working_day" and self._is_off(end):
            end += timedelta(days=1)
        return end

    def _business_days(self, start: date, number: int) -> date:
        day = start
        while number > 0:
            day += timedelta(days=1)
            number -= not self._is_off(day)
        return day

    def _is_off(self, day: date) -> bool:
        if _WEEK[day.weekday()] in self.calendar.weekend:
            return True
        if self.code is not None:
            return day in (_table(self.code, day.year) or ())
        if self.calendar.common_to and all(
            day in (_table(c, day.year) or ()) for c in self.calendar.common_to
        ):
            return True
        return any(_falls_on(rule, day.year) == day for rule in self.calendar.rules)


def find_event(pack: Pack, event: str) -> Event:
    """Return the event of the pack that goes by that name.

    Raises:
        EventUnknown: There is none.
    """
    name = event.strip().casefold()
    for found in pack.rules.events.values():
        if name in {alias.casefold() for alias in found.aliases}:
            return found
    raise EventUnknown(pack.id, event)


def _paused(
    event: Event, inputs: Mapping[str, str], pauses: Iterable[tuple[str, str]], counter: _Counter
) -> int:
    """Return how many days do not count, the day of asking and the day of the answer included (U-17)."""
    if event.pause is None:
        return 0
    given = (inputs.get(event.pause.begin), inputs.get(event.pause.end))
    spans = [(begin, end) for begin, end in (given, *pauses) if begin and end]
    days: set[int] = set()
    for begin, end in spans:
        days |= set(range(counter.day(begin).toordinal(), counter.day(end).toordinal() + 1))
    return len(days)


def _options(pack: Pack, limit: Limit, inputs: Mapping[str, str], counter: _Counter) -> Iterable[Moment]:
    for option in limit.options:
        given = next((inputs[name] for name in option.after if inputs.get(name)), None)
        clock = pack.rules.clocks[option.clock]
        if given is None:
            continue
        if clock.unit == "hour":
            # Hours run through weekends and clock changes: they are added in UTC.
            instant = datetime.fromisoformat(given)
            if instant.tzinfo is None:
                raise ValueError("hours are counted from an aware instant")
            yield (instant.astimezone(UTC) + timedelta(hours=clock.length)).astimezone(counter.zone)
        else:
            yield counter.last_day(clock, counter.day(given))


def _falls_on(rule: HolidayRule, year: int) -> date:
    """Return the day of a holiday in a year."""
    if rule.easter is not None:
        return _easter(year) + timedelta(days=rule.easter)
    month = rule.month or 1
    if rule.weekday is None:
        return date(year, month, rule.day or 1)
    if rule.before_day is not None:
        last = date(year, month, rule.before_day) - timedelta(days=1)
        return last - timedelta(days=(last.weekday() - rule.weekday) % 7)
    first = date(year, month, 1)
    return first + timedelta(days=(rule.weekday - first.weekday()) % 7 + 7 * ((rule.nth or 1) - 1))


def _easter(year: int) -> date:
    """Return Easter Sunday in the Gregorian calendar (the Meeus/Jones/Butcher reckoning)."""
    century, in_century = divmod(year, 100)
    golden = year % 19
    shift = century - century // 4 - (century - (century + 8) // 25 + 1) // 3
    moon = (19 * golden + shift + 15) % 30
    week = (32 + 2 * (century % 4) + 2 * (in_century // 4) - moon - in_century % 4) % 7
    late = (golden + 11 * moon + 22 * week) // 451
    month, day = divmod(moon + week - 7 * late + 114, 31)
    return date(year, month, day + 1)


@lru_cache(maxsize=512)
def _table(code: str, year: int) -> frozenset[date] | None:
    """Return the public holidays of a country or subdivision, or None if nobody tables them."""
    land, _, part = _OTHER_NAMES.get(code, code).partition("-")
    try:
        return frozenset(tables.country_holidays(land, subdiv=part or None, years=year))
    except NotImplementedError:
        return None
