"""Whom to tell of a breach, and until when."""

from __future__ import annotations

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from policy.breach import duties, keep_until
from policy.pack import load_packs

PACKS = load_packs()
BERLIN = ZoneInfo("Europe/Berlin")
FRIDAY = datetime.fromisoformat("2026-11-20T18:20:00+01:00")


def test_seventy_two_hours_run_through_the_weekend_and_a_change_of_the_clock() -> None:
    """GDPR Art. 33(1)."""
    before_change = datetime.fromisoformat("2026-10-24T12:00:00+02:00")
    for aware_at, due in (
        (FRIDAY, "2026-11-23T18:20:00+01:00"),
        (before_change, "2026-10-27T11:00:00+01:00"),
    ):
        first, second, *_ = duties([PACKS["gdpr"]], aware_at, None, BERLIN, "DE")
        assert (first.tell, first.due) == ("authority", datetime.fromisoformat(due))
        assert (first.due_at, first.citations) == (first.due, ("GDPR Art. 33(1)",))
        assert (second.tell, second.due, second.promptly) == ("subjects", None, "without_undue_delay")


def test_a_day_ends_where_the_law_sits() -> None:
    """Cal. Civ. Code 1798.82: the last instant is the end of the day in California."""
    residents, attorney = duties([PACKS["ccpa"]], datetime(2026, 11, 20, 20, tzinfo=UTC), None, BERLIN, "DE")
    assert residents.due == date(2026, 12, 20)
    assert residents.due_at == datetime(2026, 12, 21, 7, 59, 59, 999999, tzinfo=UTC)
    assert (attorney.field, attorney.due, attorney.more_than) == ("notify_AG_by", None, 500)


def test_a_clock_that_starts_later_is_shown_once_it_has_started() -> None:
    told_at = datetime(2026, 12, 1, 20, tzinfo=UTC)
    _, attorney = duties([PACKS["ccpa"]], datetime(2026, 11, 20, 20, tzinfo=UTC), told_at, BERLIN, None)
    assert attorney.due == date(2026, 12, 16)


def test_who_is_told_together_concerns_both() -> None:
    first, *_ = duties([PACKS["gdpr"]], FRIDAY, None, BERLIN, "DE")
    assert (first.concerns("authority"), first.concerns("subjects")) == (True, False)


def test_the_register_keeps_for_as_long_as_the_longest_that_is_asked() -> None:
    """SOR/2018-64 s. 6(1): 24 months; where no law names a term, the house's five years."""
    toronto = ZoneInfo("America/Toronto")
    end = keep_until([PACKS["pipeda"]], datetime(2026, 11, 23, 15, tzinfo=UTC), toronto)
    assert end.astimezone(toronto).date() == date(2028, 11, 23)
    assert keep_until([PACKS["gdpr"]], FRIDAY, BERLIN).year == 2031
