"""The machine's clock."""

from __future__ import annotations

from datetime import UTC, datetime


class SystemClock:
    """Tells the machine's time, aware and in UTC."""

    def now(self) -> datetime:
        """Return the present instant."""
        return datetime.now(UTC)
