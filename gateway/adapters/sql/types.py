"""Column types that mean the same in SQLite and PostgreSQL.

What one database would take and the other refuse (a NUL in a text, a naive
instant, an integer beyond 64 bits) is refused here, with a `ValueError` or
`TypeError` that does not repeat the value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
INT64 = 1 << 63

BYTEWISE_TEXT = Text().with_variant(Text(collation="C"), "postgresql")
"""Text that sorts by code point, whatever the locale of the database."""


class Words(TypeDecorator[str]):
    """Text: any Unicode but NUL and lone surrogates, sorted by code point."""

    impl = BYTEWISE_TEXT
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: Dialect) -> str | None:
        """Return the text if both databases can hold it."""
        if type(value) is str and value.isascii() and "\0" not in value:  # most are
            return value
        if value is None:
            return None
        if not isinstance(value, str):
            raise TypeError("a text column was given something else")
        if "\0" in value:
            raise ValueError("a text holds NUL")
        if not value.isascii() and not _is_encodable(value):
            raise ValueError("a text holds a lone surrogate")
        return value


class Whole(TypeDecorator[int]):
    """An integer of 64 bits, signed."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: int | None, _dialect: Dialect) -> int | None:
        """Return the integer if it fits."""
        if value is None:
            return None
        if type(value) is not int:  # a bool is an int to isinstance
            raise TypeError("an integer column was given something else")
        if not -INT64 <= value < INT64:
            raise ValueError("an integer does not fit in 64 bits")
        return value


class Instant(TypeDecorator[datetime]):
    """An instant, kept as whole microseconds since 1970-01-01T00:00Z; comes back aware and in UTC.

    A database's own timestamp types differ in range, precision and in what they
    do with time zones; a 64-bit integer does not.
    """

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> int | None:
        """Return the microseconds; a naive datetime is refused."""
        if value is None:
            return None
        if not isinstance(value, datetime):
            raise TypeError("an instant column was given something else")
        if value.utcoffset() is None:
            raise ValueError("an instant has no time zone")
        return (value - EPOCH) // MICROSECOND

    def process_result_value(self, value: int | None, _dialect: Dialect) -> datetime | None:
        """Return the aware instant."""
        return None if value is None else EPOCH + value * MICROSECOND


class JsonList(TypeDecorator[tuple[Any, ...]]):
    """A tuple of JSON values as canonical text; comes back as a tuple, what is nested as lists."""

    impl = BYTEWISE_TEXT
    cache_ok = True

    def process_bind_param(self, value: tuple[Any, ...] | None, _dialect: Dialect) -> str | None:
        """Return the JSON array."""
        return None if value is None else _dumps(list(value))

    def process_result_value(self, value: str | None, _dialect: Dialect) -> tuple[Any, ...] | None:
        """Return the tuple."""
        return None if value is None else tuple(json.loads(value))


class JsonMapping(TypeDecorator[Mapping[str, Any]]):
    """A mapping of JSON values as canonical text (names sorted), so that equal mappings are equal text."""

    impl = BYTEWISE_TEXT
    cache_ok = True

    def process_bind_param(self, value: Mapping[str, Any] | None, _dialect: Dialect) -> str | None:
        """Return the JSON object."""
        return None if value is None else _dumps(dict(value))

    def process_result_value(self, value: str | None, _dialect: Dialect) -> dict[str, Any] | None:
        """Return the mapping."""
        return None if value is None else dict(json.loads(value))


def _dumps(value: Any) -> str:
    # ASCII only: NUL and surrogates stay escapes, which both databases can hold.
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _is_encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
