"""The plain statements of a table for SQLite, without SQLAlchemy between them and the driver.

A gateway on SQLite makes a few hundred of them a second in one thread, and building
each through SQLAlchemy costs several times what SQLite itself takes.  Values pass
through the same column types, so both ways keep and give the same.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from sqlalchemy import Column, LargeBinary
from sqlalchemy.dialects.sqlite.pysqlite import dialect as sqlite_dialect
from sqlalchemy.types import TypeDecorator

from gateway.adapters.sql.registry import MAPPED, Mapped
from gateway.ports.records import Record

Change = Callable[[Any], Any]
_DIALECT = sqlite_dialect(dbapi=sqlite3)


@dataclass(frozen=True)
class Quick:
    """The statements of one table, and what its values become on their way in and out."""

    names: tuple[str, ...]
    key: tuple[str, ...]
    into: Mapping[str, Change | None]
    taken: Callable[[Record], tuple[Any, ...]]
    out: tuple[Change | None, ...]
    insert: str
    select: str
    update: str
    delete: str

    def row(self, record: Record) -> list[Any]:
        """Return a record's values as the driver takes them."""
        return [
            value if change is None else change(value)
            for value, change in zip(self.taken(record), self.into.values(), strict=True)
        ]

    def key_of(self, record: Record) -> list[Any]:
        """Return a record's key as the driver takes it."""
        return self.bound([getattr(record, name) for name in self.key])

    def bound(self, values: Sequence[Any]) -> list[Any]:
        """Return a key that is given by value."""
        changes = [self.into[name] for name in self.key]
        return [
            value if change is None else change(value) for value, change in zip(values, changes, strict=True)
        ]

    def values(self, row: Sequence[Any]) -> list[Any]:
        """Return a row's values as a record holds them."""
        return [
            value if change is None else change(value) for value, change in zip(row, self.out, strict=True)
        ]


def quick(kind: type[Record]) -> Quick:
    """Return the statements of a record's table."""
    return _QUICK[kind]


def _made(mapped: Mapped) -> Quick:
    names = tuple(mapped.columns)
    quoted = {name: f'"{name}"' for name in names}
    at_key = " AND ".join(f"{quoted[name]} = ?" for name in mapped.key)
    table = f'"{mapped.table.name}"'
    return Quick(
        names=names,
        key=mapped.key,
        into={name: _into(column) for name, column in mapped.columns.items()},
        taken=attrgetter(*names),
        out=tuple(column.type.result_processor(_DIALECT, None) for column in mapped.columns.values()),
        insert=f"INSERT INTO {table} ({', '.join(quoted.values())}) VALUES ({', '.join('?' * len(names))})",  # noqa: S608 - our own names
        select=f"SELECT {', '.join(quoted.values())} FROM {table} WHERE {at_key}",  # noqa: S608 - likewise
        update=f"UPDATE {table} SET {', '.join(f'{name} = ?' for name in quoted.values())} WHERE {at_key}",  # noqa: S608 - likewise
        delete=f"DELETE FROM {table} WHERE {at_key}",  # noqa: S608 - likewise
    )


def _into(column: Column[Any]) -> Change | None:
    """Return what a value becomes on its way in; one of our own types is asked itself, without a wrapper."""
    own = column.type
    if isinstance(own, TypeDecorator) and own.impl_instance.bind_processor(_DIALECT) is None:
        take = own.process_bind_param
        return lambda value: take(value, _DIALECT)
    return _bytes if isinstance(own, LargeBinary) else own.bind_processor(_DIALECT)


def _bytes(value: Any) -> Any:
    return value if type(value) is bytes or value is None else memoryview(value)


_QUICK: Mapping[type[Record], Quick] = {kind: _made(mapped) for kind, mapped in MAPPED.items()}
