"""What all tables share: metadata, names of constraints, and the columns by kind of value."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import Boolean, LargeBinary, MetaData
from sqlmodel import Field, SQLModel

from gateway.adapters.sql.types import Instant, JsonList, JsonMapping, Whole, Words

NAMES = {
    "pk": "pk_%(table_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
}
"""Every constraint has a name that follows from the model, so that a migration can name it."""


class Table(SQLModel):
    """Base of the tables.  Each mirrors one record, field for field; a test compares them."""

    metadata: ClassVar[MetaData] = MetaData(naming_convention=NAMES)


def words(*, key: bool = False) -> Any:
    """Return a text column."""
    return Field(sa_type=Words, primary_key=key)


def whole(*, key: bool = False) -> Any:
    """Return a 64-bit integer column."""
    return Field(sa_type=Whole, primary_key=key)


def flag() -> Any:
    """Return a boolean column."""
    return Field(sa_type=Boolean)


def blob() -> Any:
    """Return a column of bytes."""
    return Field(sa_type=LargeBinary)


def instant() -> Any:
    """Return a column of instants."""
    return Field(sa_type=Instant)


def json_list() -> Any:
    """Return a column of JSON arrays."""
    return Field(sa_type=JsonList)


def json_mapping() -> Any:
    """Return a column of JSON objects."""
    return Field(sa_type=JsonMapping)
