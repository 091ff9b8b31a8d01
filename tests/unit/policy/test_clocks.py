"""Statutory deadlines beyond the worked cases."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from policy.clocks import due, limits, reckon, seat
from policy.dsr import is_a_right
from policy.errors import EventUnknown
from policy.terms import DsrKind
from tests.unit.policy.asking import PACKS

GDPR, CCPA, PIPEDA = PACKS["gdpr"], PACKS["ccpa"], PACKS["pipeda"]
BERLIN, TORONTO = ZoneInfo("Europe/Berlin"), ZoneInfo("America/Toronto")
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def roll(day: str, calendar: str | None = None) -> date:
    """The day on which a PIPEDA answer is due whose thirtieth day is `day`."""
    received = datetime.fromisoformat(f"{day}T12:00:00").replace(tzinfo=TORONTO) - timedelta(days=30)
    return due(PIPEDA, "access", received, TORONTO, calendar).respond_by


@pytest.mark.parametrize("name", sorted(PACKS))
@pytest.mark.parametrize("kind", list(DsrKind))
def test_each_right_that_is_there_has_a_clock_and_no_other_has(name: str, kind: DsrKind) -> None:
    pack = PACKS[name]
    if not is_a_right(pack, kind):
        with pytest.raises(EventUnknown):
            due(pack, kind.value, NOON, BERLIN)
        return
    got = due(pack, kind.value, NOON, BERLIN)
    assert got.received_on <= got.internal_target <= got.respond_by
    assert got.citations


@pytest.mark.parametrize("event", ["ACCESS", " access ", "Access/Erasure Request"])
def test_an_event_is_found_in_any_case(event: str) -> None:
    assert due(GDPR, event, NOON, BERLIN) == due(GDPR, "access", NOON, BERLIN)


@pytest.mark.parametrize("event", ["", "appeal", "personal data breach"])
def test_an_event_without_an_answer_is_refused(event: str) -> None:
    with pytest.raises(EventUnknown):
        due(GDPR, event, NOON, BERLIN)


def test_a_withdrawal_acts_on_its_day_and_has_no_extension() -> None:
    """GDPR Art. 7(3)."""
    got = due(GDPR, "withdrawal", NOON, BERLIN)
    assert (got.respond_by, got.extended_respond_by, got.extension_notice_by) == (
        date(2026, 11, 23),
        None,
        None,
    )


def test_a_clock_that_sits_with_the_controller_needs_to_know_where() -> None:
    with pytest.raises(ValueError, match="time zone"):
        due(GDPR, "access", NOON)
    assert due(CCPA, "access", NOON).received_on == date(2026, 11, 23)


def test_an_instant_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="aware"):
        due(GDPR, "access", NOON.replace(tzinfo=None), BERLIN)


def test_without_a_calendar_only_weekends_roll() -> None:
    """The earlier and safe reading: 5 April 2026 is Easter Sunday."""
    received = datetime(2026, 3, 5, 10, tzinfo=BERLIN)
    assert due(GDPR, "access", received, BERLIN).respond_by == date(2026, 4, 6)
    assert due(GDPR, "access", received, BERLIN, "DE").respond_by == date(2026, 4, 7)


def test_a_part_of_a_country_has_its_own_holidays() -> None:
    """1 November is a holiday in Bavaria, not in Berlin (Reg. 1182/71 Art. 2(1): where action is taken)."""
    received = datetime(2027, 10, 1, 10, tzinfo=BERLIN)
    assert due(GDPR, "access", received, BERLIN, "DE-BE").respond_by == date(2027, 11, 1)
    assert due(GDPR, "access", received, BERLIN, "DE-BY").respond_by == date(2027, 11, 2)


@pytest.mark.parametrize("text", ["Mon-Fri minus whatever", "XX", "", "  ", "ZZ-99", None])
def test_a_calendar_that_is_no_known_code_is_ignored(text: str | None) -> None:
    received = datetime(2026, 3, 5, 10, tzinfo=BERLIN)
    assert due(GDPR, "access", received, BERLIN, text) == due(GDPR, "access", received, BERLIN)


@pytest.mark.parametrize(
    ("last", "answer"),
    [
        ("2027-01-01", "2027-01-02"),
        ("2026-04-03", "2026-04-04"),
        ("2026-04-06", "2026-04-07"),
        ("2026-05-18", "2026-05-19"),
        ("2026-07-01", "2026-07-02"),
        ("2026-09-07", "2026-09-08"),
        ("2026-09-30", "2026-10-01"),
        ("2026-10-12", "2026-10-13"),
        ("2026-11-11", "2026-11-12"),
        ("2026-12-25", "2026-12-26"),
        ("2026-11-15", "2026-11-16"),
        ("2026-11-14", "2026-11-14"),
        ("2026-12-28", "2026-12-28"),
        ("2026-08-03", "2026-08-03"),
    ],
)
def test_a_canadian_term_rolls_past_sundays_and_federal_holidays_only(last: str, answer: str) -> None:
    """Interpretation Act ss. 26, 35; a Saturday counts, provincial days are not relied on (U-08)."""
    assert date.fromisoformat(answer) == roll(last)
    assert date.fromisoformat(answer) == roll(last, "CA")


def test_a_pack_with_a_fixed_zone_keeps_its_calendar() -> None:
    """11 CCR 7021: days are California's, wherever the controller sits."""
    assert seat(CCPA, BERLIN, "DE") == (ZoneInfo("America/Los_Angeles"), None)
    assert seat(GDPR, BERLIN, "DE") == (BERLIN, "DE")


def test_a_business_day_is_one_that_no_shared_holiday_takes() -> None:
    """U-07: Columbus Day is not California's, Cesar Chavez Day is not federal: both count."""
    october = datetime(2026, 10, 5, 12, tzinfo=UTC)
    march = datetime(2026, 3, 23, 12, tzinfo=UTC)
    assert due(CCPA, "access", october).ack_by == date(2026, 10, 19)
    assert due(CCPA, "access", march).ack_by == date(2026, 4, 6)


def test_an_opt_out_takes_effect_at_once_in_the_house() -> None:
    """11 CCR 7026(f)(1): fifteen business days are the outer limit."""
    got = due(CCPA, "opt_out", NOON)
    assert got.internal_target == got.received_on


def test_seventy_two_hours_need_an_instant() -> None:
    """GDPR Art. 33(1), U-13."""
    for text in ("2026-11-23", "2026-11-23T12:00:00"):
        with pytest.raises(ValueError, match="aware instant"):
            limits(GDPR, "breach", {"aware_at": text}, BERLIN)


def test_a_limit_without_its_input_is_refused() -> None:
    with pytest.raises(EventUnknown):
        limits(GDPR, "breach", {}, BERLIN)
    with pytest.raises(EventUnknown):
        limits(GDPR, "access", {"aware_at": NOON.isoformat()}, BERLIN)


def test_californians_hear_of_a_breach_within_thirty_days_and_their_attorney_general_fifteen_later() -> None:
    """Cal. Civ. Code 1798.82."""
    assert limits(CCPA, "data breach", {"discovered": "2026-11-23"}) == {
        "notify_residents_by": date(2026, 12, 23)
    }
    told = {"residents_notified": "2026-12-20"}
    assert limits(CCPA, "breach notice to the attorney general", told) == {"notify_AG_by": date(2027, 1, 4)}


def test_a_case_without_a_time_is_refused() -> None:
    with pytest.raises(ValueError, match="instant of its receipt"):
        reckon(CCPA, {"event": "access"})
    with pytest.raises(EventUnknown):
        reckon(CCPA, {})
