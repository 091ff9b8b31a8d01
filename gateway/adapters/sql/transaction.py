"""One transaction: the port's verbs as statements, between BEGIN and COMMIT."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    RootTransaction,
    Row,
    Select,
    bindparam,
    delete,
    func,
    select,
    tuple_,
    update,
)
from sqlalchemy.sql.base import Executable

from gateway.adapters.sql.faults import RAISED, TRIES_AFTER_LOSS, Again, translate
from gateway.adapters.sql.quick import quick
from gateway.adapters.sql.registry import MAPPED, Mapped
from gateway.errors import StoreUnavailable
from gateway.ports.records import Leaf, Missing, R, Record, SealedPayload, Transaction

T = TypeVar("T")

_Row: TypeAlias = tuple[str, list[Any]]

LEAF_AGE_S = 3.0
"""How old a leaf may be when its transaction commits; an export allows five seconds of lag."""


class SqlTransaction:
    """The port's transaction on a connection that has begun.

    INVARIANT: once a statement has failed, nothing is committed, even if `work`
    catches the exception: PostgreSQL would refuse to go on anyway, and SQLite
    must not differ.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._is_over = False
        self._leaf_at: float | None = None
        self.failure: Exception | None = None

    def add(self, *records: Record) -> None:
        """Insert the records, in order."""
        for mapped, some in _by_kind(records):
            self._do(mapped.insert, [mapped.row(record) for record in some])
        if self._leaf_at is None and any(isinstance(record, Leaf) for record in records):
            self._leaf_at = time.monotonic()

    def get(self, kind: type[R], *key: str | int) -> R | None:
        """Return the record with that primary key, or None."""
        mapped = MAPPED[kind]
        bound = {f"key_{name}": value for name, value in zip(mapped.key, key, strict=True)}
        rows = self._rows(mapped.select_one, bound)
        return _made(kind, rows[0]) if rows else None

    def find(
        self,
        kind: type[R],
        *,
        equal: Mapping[str, Any] | None = None,
        among: Mapping[str, Sequence[Any]] | None = None,
        below: Mapping[str, Any] | None = None,
        above: Mapping[str, Any] | None = None,
        order_by: Sequence[str] = (),
        limit: int | None = None,
    ) -> list[R]:
        """Return the records for which every condition holds; a null sorts before every value."""
        mapped = MAPPED[kind]
        where = _conditions(mapped, equal or {}, among or {}, below or {}, above or {})
        never_null = {*(name for name, value in (equal or {}).items() if value is not None)}
        never_null |= {*(among or {}), *(below or {}), *(above or {})}
        statement = mapped.select_all.where(*where)
        for name in order_by:
            statement = statement.order_by(_order(mapped, name, never_null))
        return [_made(kind, row) for row in self._rows(_limited(statement, limit))]

    def count(self, kind: type[Record], *, equal: Mapping[str, Any] | None = None) -> int:
        """Return how many records match."""
        mapped = MAPPED[kind]
        where = _conditions(mapped, equal or {}, {}, {}, {})
        rows = self._rows(select(func.count()).select_from(mapped.table).where(*where))
        return int(rows[0][0])

    def put(self, *records: Record) -> None:
        """Replace the records that have the same keys; several of a kind in one statement."""
        for mapped, some in _by_kind(records):
            changed = self._do(mapped.update, [mapped.change(record) for record in some])
            if changed < 0:  # asyncpg does not tell, where there are several
                changed = self._number_of(mapped, some)
            if changed != len(some):
                raise Missing(mapped.table.name)

    def _number_of(self, mapped: Mapped, records: Sequence[Record]) -> int:
        """Return how many of the records' keys are there."""
        keys = [mapped.columns[name] for name in mapped.key]
        theirs = [tuple(getattr(record, name) for name in mapped.key) for record in records]
        where = tuple_(*keys).in_(theirs) if len(keys) > 1 else keys[0].in_([key for (key,) in theirs])
        return int(self._rows(select(func.count()).select_from(mapped.table).where(where))[0][0])

    def remove(self, *records: Record) -> None:
        """Delete the records by key."""
        for mapped, some in _by_kind(records):
            self._do(mapped.delete, [mapped.key_of(record) for record in some])

    def change(self, kind: type[Record], *, equal: Mapping[str, Any], to: Mapping[str, Any]) -> int:
        """Set fields in every record that matches."""
        mapped = MAPPED[kind]
        where = _conditions(mapped, equal, {}, {}, {})
        return self._do(update(mapped.table).where(*where).values(_new(mapped, to)), {})

    def discard(
        self, kind: type[Record], *, equal: Mapping[str, Any], below: Mapping[str, Any] | None = None
    ) -> int:
        """Delete every record that matches."""
        mapped = MAPPED[kind]
        return self._do(delete(mapped.table).where(*_conditions(mapped, equal, {}, below or {}, {})), {})

    def refuse_old_leaf(self) -> None:
        """Have the work done again where its first leaf grew so old that it would lag behind others.

        Where transactions run side by side, one that stalls is overtaken by younger leaves.
        """
        if self._leaf_at is not None and time.monotonic() - self._leaf_at > LEAF_AGE_S:
            slow = StoreUnavailable("the transaction was slow", detail="slow")
            self.failure = Again(slow, TRIES_AFTER_LOSS)
            raise self.failure

    def end(self) -> None:
        """Let nothing more be done, and raise the failure that `work` may have swallowed."""
        self._is_over = True
        if self.failure is not None:
            raise self.failure

    def _do(self, statement: Executable, values: dict[str, Any] | list[dict[str, Any]]) -> int:
        """Execute a change and return how many rows it met."""
        self._check()
        try:
            return self._connection.execute(statement, values).rowcount
        except RAISED as error:
            self._fail(error)
            raise

    def _rows(self, statement: Select[Any], values: dict[str, Any] | None = None) -> Sequence[Row[Any]]:
        """Execute a question and fetch all of its answer: SQLite reads, and may fail, while fetching."""
        self._check()
        try:
            return self._connection.execute(statement, values).all()
        except RAISED as error:
            self._fail(error)
            raise

    def _check(self) -> None:
        if self._is_over:
            raise RuntimeError("the transaction is over")
        if self.failure is not None:
            raise self.failure

    def _fail(self, error: Exception) -> None:
        self.failure = translate(error)
        raise self.failure


LATE: frozenset[type[Record]] = frozenset({Leaf, SealedPayload})
"""Kinds with random keys that nobody reads back at once: a group inserts its rows of them in one go."""


class SqliteTransaction(SqlTransaction):
    """The same on SQLite, with the plain statements made by the driver itself (`quick`).

    Rows of the kinds in `LATE` wait in `late`, which a group shares, until something
    might read them, or the group ends (`flush`).
    """

    def __init__(self, connection: Connection, late: list[_Row] | None = None) -> None:
        super().__init__(connection)
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)  # noqa: S101  # tells mypy what SQLite gives
        self._raw = raw
        self._is_alone = late is None
        self._late: list[_Row] = [] if late is None else late
        self._before = len(self._late)
        self._flushed: list[_Row] = []
        self._is_marked = False
        self.is_spoilt = False

    def add(self, *records: Record) -> None:
        """Insert the records, in order."""
        for kind, some in _alike(records):
            plain = quick(kind)
            if kind in LATE:
                self._check()
                self._late.extend((plain.insert, row) for row in self._bound(map(plain.row, some)))
            else:
                self._change(plain.insert, map(plain.row, some))

    def get(self, kind: type[R], *key: str | int) -> R | None:
        """Return the record with that primary key, or None."""
        plain = quick(kind)
        self._check()
        self._settle(kind)
        try:
            row = self._raw.execute(plain.select, plain.bound(key)).fetchone()
        except sqlite3.Error as error:
            self._fail(error)
            raise
        return None if row is None else _made(kind, plain.values(row))

    def put(self, *records: Record) -> None:
        """Replace the records that have the same keys."""
        for kind, some in _alike(records):
            plain = quick(kind)
            self._settle(kind)
            changed = self._change(plain.update, (plain.row(r) + plain.key_of(r) for r in some))
            if changed != len(some):
                raise Missing(MAPPED[kind].table.name)

    def remove(self, *records: Record) -> None:
        """Delete the records by key."""
        for kind, some in _alike(records):
            plain = quick(kind)
            self._settle(kind)
            self._change(plain.delete, map(plain.key_of, some))

    def end(self) -> None:
        """Let nothing more be done; what is late is inserted now, where no group does it."""
        if self._is_alone and self.failure is None:
            self.flush()
        super().end()

    def flush(self) -> None:
        """Insert what is late."""
        if not self._late:
            return
        self._mark()
        self._flushed += self._late[: self._before]
        self.is_spoilt = self._before > 0  # until they are in: the fault may be another's
        rows, self._late[:], self._before = list(self._late), [], 0
        rows.sort(key=itemgetter(0))  # stable: the rows of a kind stay in order
        for statement, some in groupby(rows, key=itemgetter(0)):
            self._change(statement, (row for _, row in some))
        self.is_spoilt = False

    def undo(self) -> None:
        """Take back what this transaction did in its group."""
        del self._late[self._before :]
        if self._is_marked:
            self._raw.execute("ROLLBACK TO one")
            self._raw.execute("RELEASE one")
            self._late[:0] = self._flushed

    def keep(self) -> None:
        """Let the group have what this transaction did."""
        if self._is_marked:
            self._raw.execute("RELEASE one")

    def _mark(self) -> None:
        """Set the savepoint that `undo` goes back to, before the first change."""
        if not self._is_alone and not self._is_marked:
            self._raw.execute("SAVEPOINT one")
            self._is_marked = True

    def _settle(self, kind: type[Record]) -> None:
        if kind in LATE:
            self.flush()

    def _do(self, statement: Executable, values: dict[str, Any] | list[dict[str, Any]]) -> int:
        self._check()
        self.flush()
        self._mark()
        return super()._do(statement, values)

    def _rows(self, statement: Select[Any], values: dict[str, Any] | None = None) -> Sequence[Row[Any]]:
        self._check()
        self.flush()
        return super()._rows(statement, values)

    def _change(self, statement: str, rows: Iterable[list[Any]]) -> int:
        """Execute a change once for each row and return how many rows it met."""
        self._check()
        bound = self._bound(rows)
        try:
            self._mark()
            return self._raw.executemany(statement, bound).rowcount
        except sqlite3.Error as error:
            self._fail(error)
            raise

    def _bound(self, rows: Iterable[list[Any]]) -> list[list[Any]]:
        try:
            return list(rows)
        except (ValueError, TypeError) as error:
            self.failure = error  # one of our column types refused the value
            raise


def _transaction(connection: Connection) -> SqlTransaction:
    is_sqlite = connection.dialect.name == "sqlite"
    return SqliteTransaction(connection) if is_sqlite else SqlTransaction(connection)


def attempt(connection: Connection, work: Callable[[Transaction], T]) -> T:
    """Run `work` once between BEGIN and COMMIT and return its result.

    A connection that failed is invalidated, so that nothing of it is used again.
    """
    try:
        outer = connection.begin()
    except RAISED as error:
        connection.invalidate()
        raise translate(error)  # noqa: B904  # `translate` decides what is chained
    tx = _transaction(connection)
    try:
        result = _run(work, tx)
        tx.end()
        if connection.dialect.name == "postgresql":
            tx.refuse_old_leaf()
    except BaseException:
        _roll_back(connection, outer, tx.failure)
        if isinstance(tx.failure, Again):
            raise tx.failure from None  # whatever `work` made of it
        raise
    try:
        outer.commit()
    except RAISED as error:
        failure = translate(error, is_committing=True)
        _roll_back(connection, outer, failure)
        raise failure  # noqa: B904  # `translate` decides what is chained
    return result


def attempt_all(
    connection: Connection, works: Sequence[Callable[[Transaction], Any]]
) -> list[tuple[Any, BaseException | None]]:
    """Run several works behind one another and make them durable by one COMMIT; return what became of each.

    Each stands behind a savepoint: one that raises takes nothing of the others with it.
    What one saw of another is as durable as itself, for they are kept together or not at all.
    Where the database itself fails, each is run once more alone, so that only the
    one at fault fails; where it fails while committing, all of them do.

    SQLite only: the transactions of a group run one after the other.
    """
    if len(works) == 1:
        return [_outcome(lambda: attempt(connection, works[0]))]
    try:
        outer = connection.begin()
    except RAISED as error:
        connection.invalidate()
        failure = translate(error)
        return [(None, failure)] * len(works)
    done: list[tuple[Any, BaseException | None]] = []
    late: list[_Row] = []
    try:
        done.extend(_in_group(connection, late, work) for work in works)
        _insert_late(connection, late)
        outer.commit()
    except _Spoilt:
        _roll_back(connection, outer, None)
        return [_outcome(lambda work=work: attempt(connection, work)) for work in works]  # type: ignore[misc]  # bound now
    except RAISED as error:
        failure = translate(error, is_committing=True)
        _roll_back(connection, outer, failure)
        return [(None, failure)] * len(works)
    except BaseException:
        _roll_back(connection, outer, None)
        raise
    return done


class _Spoilt(Exception):
    """The database failed within a group: nothing of it is kept."""


def _insert_late(connection: Connection, late: list[_Row]) -> None:
    _, error = _in_group(connection, late, SqliteTransaction.flush)
    if error is not None:
        raise _Spoilt from error


def _in_group(
    connection: Connection, late: list[_Row], work: Callable[[SqliteTransaction], Any]
) -> tuple[Any, BaseException | None]:
    tx = SqliteTransaction(connection, late)
    try:
        try:
            result = _run(work, tx)
            tx.end()
        except Exception as error:  # the caller's, who gets it once the group is durable
            if tx.is_spoilt or isinstance(tx.failure, (StoreUnavailable, Again)):
                raise _Spoilt from error
            tx.undo()
            return None, error
        tx.keep()
    except RAISED as error:
        raise _Spoilt from error
    return result, None


def _outcome(run: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return run(), None
    except Exception as error:  # noqa: BLE001 - likewise
        return None, error


def _run(work: Callable[[Any], T], tx: SqlTransaction) -> T:
    try:
        return work(tx)
    except StopIteration as error:
        # A future cannot carry it: the caller would wait for ever.
        raise RuntimeError("the work raised StopIteration") from error


def _roll_back(connection: Connection, outer: RootTransaction, failure: Exception | None) -> None:
    """Undo; where the connection has failed or cannot even do that, let it go: that undoes, too."""
    try:
        if isinstance(failure, StoreUnavailable):
            connection.invalidate()
        outer.rollback()
    except RAISED:
        connection.invalidate()


def _by_kind(records: Sequence[Record]) -> list[tuple[Mapped, list[Record]]]:
    return [(MAPPED[kind], some) for kind, some in _alike(records)]


def _alike(records: Sequence[Record]) -> list[tuple[type[Record], list[Record]]]:
    """Return the records in runs of one kind."""
    return [(kind, list(some)) for kind, some in groupby(records, key=type)]


def _made(kind: type[R], row: Sequence[Any]) -> R:
    """Return the record of a row, whose columns stand in the order of the record's fields."""
    build: Callable[..., R] = kind
    return build(*row)


def _conditions(
    mapped: Mapped,
    equal: Mapping[str, Any],
    among: Mapping[str, Sequence[Any]],
    below: Mapping[str, Any],
    above: Mapping[str, Any],
) -> list[ColumnElement[bool]]:
    """Return the conditions; an unknown field is a `KeyError`, a bound of None a `ValueError`."""
    if None in below.values() or None in above.values():
        raise ValueError("nothing is below or above None")
    columns = mapped.columns
    found: list[ColumnElement[bool]] = []
    for name, value in equal.items():
        found.append(
            columns[name].is_(None) if value is None else columns[name] == _bound(mapped, name, value)
        )
    for name, values in among.items():
        found.append(columns[name].in_([value for value in values if value is not None]))
    found.extend(columns[name] <= _bound(mapped, name, value) for name, value in below.items())
    found.extend(columns[name] > _bound(mapped, name, value) for name, value in above.items())
    return found


def _bound(mapped: Mapped, name: str, value: Any) -> Any:
    return bindparam(None, value, type_=mapped.columns[name].type)


def _new(mapped: Mapped, to: Mapping[str, Any]) -> dict[Any, Any]:
    return {mapped.columns[name]: _bound(mapped, name, value) for name, value in to.items()}


def _order(mapped: Mapped, name: str, never_null: set[str]) -> Any:
    """Return the sort key.  The databases disagree where nulls go, so we say it, where there can be any."""
    is_descending = name.startswith("-")
    name = name.removeprefix("-")
    column = mapped.columns[name]
    key = column.desc() if is_descending else column.asc()
    if not column.nullable or name in never_null:
        return key
    return key.nulls_last() if is_descending else key.nulls_first()


def _limited(statement: Select[Any], limit: int | None) -> Select[Any]:
    if limit is None:
        return statement
    if limit < 0:
        raise ValueError("a limit is not negative")
    return statement.limit(limit)
