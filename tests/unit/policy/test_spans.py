"""Durations and months."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from policy.spans import Span, add_months, parse_span


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("P5Y", Span(60, 0, 0)),
        ("P24M", Span(24, 0, 0)),
        ("P30D", Span(0, 30, 0)),
        ("PT24H", Span(0, 0, 24)),
        ("P1Y2M3DT4H", Span(14, 3, 4)),
    ],
)
def test_a_duration_is_read(text: str, span: Span) -> None:
    assert span == parse_span(text)


@pytest.mark.parametrize(
    "text", ["", "P", "PT", "P1DT", "P1W", "1D", "p1d", "P-1D", "PT1M", "P1.5Y", "P1D ", "P١D"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_span(text)


@pytest.mark.parametrize(
    ("start", "months", "end"),
    [
        (date(2026, 1, 31), 1, date(2026, 2, 28)),
        (date(2028, 1, 31), 1, date(2028, 2, 29)),
        (date(2026, 1, 31), 3, date(2026, 4, 30)),
        (date(2024, 2, 29), 36, date(2027, 2, 28)),
        (date(2026, 12, 15), 1, date(2027, 1, 15)),
        (date(2026, 1, 15), -1, date(2025, 12, 15)),
        (date(2026, 1, 15), 0, date(2026, 1, 15)),
    ],
)
def test_a_missing_date_is_the_last_day_of_the_month(start: date, months: int, end: date) -> None:
    """Reg. (EEC, Euratom) 1182/71 Art. 3(2)(c)."""
    assert end == add_months(start, months)


def test_months_come_before_days_and_hours() -> None:
    start = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert datetime(2026, 3, 1, 13, tzinfo=UTC) == parse_span("P1M1DT1H").after(start)


def test_the_upper_bound_of_a_month_is_thirty_one_days() -> None:
    assert timedelta(days=31) == parse_span("P1M").at_most
