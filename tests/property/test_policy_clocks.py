"""What holds of every deadline."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from policy.clocks import due, limits
from policy.dsr import is_a_right
from policy.pack import load_packs
from policy.spans import add_months, parse_span
from policy.terms import DsrKind

PACKS = load_packs()
ZONES = [ZoneInfo(name) for name in ("Europe/Berlin", "America/Toronto", "Pacific/Auckland", "UTC")]
zones = st.sampled_from(ZONES)
instants = st.datetimes(datetime(2020, 1, 1), datetime(2040, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 # aware by `timezones`
days = st.dates(date(2000, 1, 1), date(2090, 12, 31))
names = st.sampled_from(sorted(name for name, pack in PACKS.items() if is_a_right(pack, DsrKind.ACCESS)))
calendars = st.sampled_from([None, "DE", "FR", "IE", "US", "CA-ON", "nonsense"])


@settings(deadline=None)  # a busy machine is no finding
@given(names, instants, zones, calendars)
def test_the_days_of_a_request_stand_in_order(
    name: str, received_at: datetime, zone: ZoneInfo, calendar: str | None
) -> None:
    got = due(PACKS[name], "access", received_at, zone, calendar)
    assert got.received_on < got.internal_target <= got.respond_by
    if got.extended_respond_by is not None:
        assert got.respond_by < got.extended_respond_by
        assert got.extension_notice_by == got.respond_by


@settings(deadline=None)  # a busy machine is no finding
@given(names, instants, zones, calendars, st.integers(0, 40_000))
def test_who_asks_later_is_never_due_earlier(
    name: str, received_at: datetime, zone: ZoneInfo, calendar: str | None, minutes: int
) -> None:
    pack = PACKS[name]
    first = due(pack, "access", received_at, zone, calendar)
    later = due(pack, "access", received_at + timedelta(minutes=minutes), zone, calendar)
    assert first.respond_by <= later.respond_by
    assert first.received_on <= later.received_on


@settings(deadline=None)  # a busy machine is no finding
@given(instants, zones, zones)
def test_the_offset_an_instant_is_written_with_does_not_matter(
    received_at: datetime, zone: ZoneInfo, written: ZoneInfo
) -> None:
    gdpr = PACKS["gdpr"]
    assert due(gdpr, "access", received_at, zone) == due(
        gdpr, "access", received_at.astimezone(written), zone
    )


@settings(deadline=None)  # a busy machine is no finding
@given(instants, zones)
def test_a_european_answer_is_never_due_on_a_weekend_nor_before_the_month_is_over(
    received_at: datetime, zone: ZoneInfo
) -> None:
    """GDPR Art. 12(3); Reg. (EEC, Euratom) 1182/71 Art. 3."""
    got = due(PACKS["gdpr"], "access", received_at, zone)
    month = add_months(got.received_on, 1)
    assert got.respond_by.weekday() < 5
    assert month <= got.respond_by <= month + timedelta(days=2)
    assert month == got.internal_target


@settings(deadline=None)  # a busy machine is no finding
@given(instants)
def test_a_californian_answer_is_due_on_day_forty_five_whatever_day_that_is(received_at: datetime) -> None:
    """11 CCR 7021; an acknowledgement takes at least twelve days, as ten business days span two weekends."""
    got = due(PACKS["ccpa"], "access", received_at)
    assert got.ack_by is not None
    assert got.respond_by - got.received_on == timedelta(days=45)
    assert got.extended_respond_by == got.received_on + timedelta(days=90)
    assert timedelta(days=12) <= got.ack_by - got.received_on <= timedelta(days=18)
    assert got.ack_by.weekday() < 5


@settings(deadline=None)  # a busy machine is no finding
@given(instants, zones)
def test_a_canadian_answer_is_never_due_on_a_sunday_and_at_most_a_few_days_late(
    received_at: datetime, zone: ZoneInfo
) -> None:
    """PIPEDA s. 8(3); Interpretation Act s. 26."""
    got = due(PACKS["pipeda"], "access", received_at, zone)
    assert got.respond_by.weekday() != 6
    assert timedelta(days=30) <= got.respond_by - got.received_on <= timedelta(days=33)


@settings(deadline=None)  # a busy machine is no finding
@given(instants, zones)
def test_seventy_two_hours_are_seventy_two_hours(aware_at: datetime, zone: ZoneInfo) -> None:
    """GDPR Art. 33(1): through weekends and clock changes."""
    end = limits(PACKS["gdpr"], "personal data breach", {"aware_at": aware_at.isoformat()}, zone)[
        "notify_SA_by"
    ]
    assert isinstance(end, datetime)
    assert end - aware_at == timedelta(hours=72)


@settings(deadline=None)  # a busy machine is no finding
@given(days, st.integers(-600, 600))
def test_months_keep_the_day_or_clip_it(start: date, months: int) -> None:
    """Reg. (EEC, Euratom) 1182/71 Art. 3(2)(c)."""
    end = add_months(start, months)
    assert (end.year * 12 + end.month) - (start.year * 12 + start.month) == months
    assert end.day == start.day or (end.day < start.day and (end + timedelta(days=1)).day == 1)


@settings(deadline=None)  # a busy machine is no finding
@given(instants, st.integers(0, 999), st.sampled_from(["P{}M", "P{}D", "PT{}H", "P1Y{}M2D"]))
def test_no_span_is_longer_than_its_bound(start: datetime, number: int, form: str) -> None:
    span = parse_span(form.format(number))
    assert timedelta(0) <= span.after(start) - start <= span.at_most
