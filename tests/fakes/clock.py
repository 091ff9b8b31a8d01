"""A clock that stands still until a test moves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

NOON = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)


class FrozenClock:
    """Tells the instant it was given; `advance` moves it on, `set_back` does what a bad time server does."""

    def __init__(self, now: datetime = NOON) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now

    def advance(self, span: timedelta) -> None:
        if span < timedelta(0):
            raise ValueError("time does not run backwards")
        self._now += span

    def set_back(self, span: timedelta) -> None:
        self._now -= span
