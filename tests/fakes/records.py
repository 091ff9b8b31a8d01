"""Records in memory that keep the port's contract, and break it when told to."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal, TypeVar

from gateway.errors import StoreUnavailable
from gateway.ports import records as port
from gateway.ports.records import Duplicate, Missing, R, Record, Searched, Seen, Transaction

T = TypeVar("T")
Fault = Literal["lost", "lost_reply"]
Tables = dict[type[Record], dict[tuple[Any, ...], Record]]

KEYS: Mapping[type[Record], tuple[str, ...]] = {
    port.Subject: ("tenant", "handle"),
    port.SubjectKey: ("key_id",),
    port.ClosedEpoch: ("epoch",),
    port.PackText: ("digest",),
    port.Notice: ("tenant", "notice_id", "version", "language"),
    port.Consent: ("consent_id",),
    port.Signal: ("tenant", "handle"),
    port.StoredObject: ("object_id",),
    port.Job: ("job_id",),
    port.Dsr: ("dsr_id",),
    port.Certificate: ("certificate_id",),
    port.Hold: ("hold_id",),
    port.Debt: ("kind", "item"),
    port.Remembered: ("tenant", "method", "request_id"),
    port.Leaf: ("event_id",),
    port.SealedPayload: ("event_id", "slot"),
    port.Tile: ("log", "level", "index"),
    port.LogHead: ("log",),
    port.LogKeys: ("log",),
    port.Checkpoint: ("log", "size"),
    port.WitnessedSize: ("log", "witness"),
    port.Restore: ("backup_id",),
    port.TenantVersion: ("tenant", "version"),
    port.Incident: ("incident_id",),
    port.Dataset: ("dataset_id",),
    port.DatasetItem: ("item_id",),
}
UNIQUE: Mapping[type[Record], tuple[str, ...]] = {port.Leaf: ("log", "seq")}
"""Further values that are unique unless one of them is null."""


class MemoryRecords:
    """The port in memory.  Transactions run one after the other.

    `fail_next("lost")`: the next commit fails and nothing is kept.
    `fail_next("lost_reply")`: it is kept, and fails all the same.
    `after` lets that many commits succeed before.  `is_down`: nothing works.
    """

    def __init__(self) -> None:
        self.is_down = False
        self.commits = 0
        self.scours = 0
        self.unlisted: dict[str, list[bytes]] = {}
        """Tables that the code does not know of, with the cells of their only column."""
        self._tables: Tables = {kind: {} for kind in KEYS}
        self._faults: dict[int, Fault] = {}
        self._lock = threading.Lock()
        self._is_closed = False

    def fail_next(self, fault: Fault, *, after: int = 0) -> None:
        """Let the next commit fail, or the one that comes after `after` more."""
        self._faults[self.commits + after] = fault

    def all(self, kind: type[R]) -> list[R]:
        """Return every record of a kind, for a test to look at, whatever is broken."""
        return list(self._tables[kind].values())  # type: ignore[arg-type]  # a table holds its own kind

    async def transact(self, work: Callable[[Transaction], T]) -> T:
        await asyncio.sleep(0)  # others get their turn, as with a database
        with self._lock:
            result = self._run(work)
        await asyncio.sleep(0)
        return result

    async def scour(self) -> None:
        if self.is_down or self._is_closed:
            raise StoreUnavailable(detail="lost")
        self.scours += 1

    async def search(
        self, needles: Collection[bytes], *, skip: Collection[tuple[type[Record], str]] = ()
    ) -> Searched:
        if self.is_down or self._is_closed:
            raise StoreUnavailable(detail="lost")
        if not all(needles):
            raise ValueError("nothing is looked for")
        seen = {
            Seen(table_name(kind), field.name, is_known=True)
            for kind, table in self._tables.items()
            for row in table.values()
            for field in fields(row)
            if (kind, field.name) not in skip
            for cell in [_cell(getattr(row, field.name))]
            if any(needle in cell for needle in needles)
        }
        seen |= {
            Seen(name, "column", is_known=False)
            for name, cells in self.unlisted.items()
            if any(needle in cell for cell in cells for needle in needles)
        }
        return Searched(frozenset(seen), len(self._tables) + len(self.unlisted))

    async def close(self) -> None:
        self._is_closed = True

    def _run(self, work: Callable[[Transaction], T]) -> T:
        if self.is_down or self._is_closed:
            raise StoreUnavailable(detail="lost")
        tx = MemoryTransaction({kind: dict(table) for kind, table in self._tables.items()})
        try:
            result = work(tx)
        except StopIteration as error:
            raise RuntimeError("the work raised StopIteration") from error
        finally:
            tx.is_over = True
        if tx.failure is not None:
            raise tx.failure
        fault = self._faults.pop(self.commits, None)
        self.commits += 1
        if fault != "lost":
            self._tables = tx.tables
        if fault is not None:
            raise StoreUnavailable(detail=fault)
        return result


class MemoryTransaction:
    """A private copy of everything; a statement that failed spoils the whole, as in a database."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.failure: Exception | None = None
        self.is_over = False

    def add(self, *records: Record) -> None:
        self._check()
        for record in records:
            kept = self._kept(record)
            if _key(kept) in self.tables[type(kept)]:
                self._fail(Duplicate("a record with this key exists"))
            self._store(kept)

    def get(self, kind: type[R], *key: str | int) -> R | None:
        self._check()
        if len(key) != len(KEYS[kind]):
            raise ValueError("that is not the whole key")
        return self.tables[kind].get(key)  # type: ignore[return-value]  # a table holds its own kind

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
        self._check()
        below, above = below or {}, above or {}
        if None in below.values() or None in above.values():
            raise ValueError("nothing is below or above None")
        if limit is not None and limit < 0:
            raise ValueError("a limit is not negative")
        _known(kind, equal or {}, among or {}, below, above, [name.removeprefix("-") for name in order_by])
        rows = [row for row in self._matching(kind, equal) if _lies(row, among or {}, below, above)]
        for name in reversed(order_by):
            rows.sort(key=partial(_rank, name=name.removeprefix("-")), reverse=name.startswith("-"))
        return rows[:limit]

    def count(self, kind: type[Record], *, equal: Mapping[str, Any] | None = None) -> int:
        self._check()
        _known(kind, equal or {})
        return len(self._matching(kind, equal))

    def put(self, *records: Record) -> None:
        self._check()
        for record in records:
            kept = self._kept(record)
            if _key(kept) not in self.tables[type(kept)]:
                raise Missing(type(kept).__name__)
            self._store(kept)

    def remove(self, *records: Record) -> None:
        self._check()
        for record in records:
            self.tables[type(record)].pop(_key(record), None)

    def change(self, kind: type[Record], *, equal: Mapping[str, Any], to: Mapping[str, Any]) -> int:
        self._check()
        _known(kind, equal, to)
        rows = self._matching(kind, equal)
        for row in rows:
            self._store(self._kept(replace(row, **to)))
        return len(rows)

    def discard(
        self, kind: type[Record], *, equal: Mapping[str, Any], below: Mapping[str, Any] | None = None
    ) -> int:
        self._check()
        _known(kind, equal, below or {})
        rows = [row for row in self._matching(kind, equal) if _lies(row, {}, below or {}, {})]
        self.remove(*rows)
        return len(rows)

    def _matching(self, kind: type[R], equal: Mapping[str, Any] | None) -> list[R]:
        wanted = {name: self._value(value) for name, value in (equal or {}).items()}
        rows: list[Any] = list(self.tables[kind].values())
        return [row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())]

    def _store(self, kept: Record) -> None:
        unique = UNIQUE.get(type(kept))
        if unique:
            value = [getattr(kept, name) for name in unique]
            others = [row for key, row in self.tables[type(kept)].items() if key != _key(kept)]
            if None not in value and value in [[getattr(row, name) for name in unique] for row in others]:
                self._fail(Duplicate("a record with this value exists"))
        self.tables[type(kept)][_key(kept)] = kept

    def _kept(self, record: Record) -> Record:
        """Return the record as a database would give it back."""
        for field in fields(record):
            if getattr(record, field.name) is None and "None" not in str(field.type):
                self._fail(ValueError(f"{field.name} is not to be null"))
        return replace(
            record, **{field.name: self._value(getattr(record, field.name)) for field in fields(record)}
        )

    def _value(self, value: Any) -> Any:
        if isinstance(value, str) and ("\0" in value or not _is_encodable(value)):
            self._fail(ValueError("a text cannot be kept"))
        if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
            self._fail(ValueError("an integer does not fit in 64 bits"))
        if isinstance(value, datetime):
            if value.utcoffset() is None:
                self._fail(ValueError("an instant has no time zone"))
            return value.astimezone(UTC)
        if isinstance(value, tuple):
            return tuple(json.loads(json.dumps(list(value))))
        if isinstance(value, Mapping):
            return json.loads(json.dumps(dict(value)))
        return value

    def _check(self) -> None:
        if self.is_over:
            raise RuntimeError("the transaction is over")
        if self.failure is not None:
            raise self.failure

    def _fail(self, failure: Exception) -> None:
        self.failure = failure
        raise failure


def table_name(kind: type[Record]) -> str:
    """Return the name that a database gives the table of a kind."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


def _cell(value: Any) -> bytes:
    """Return a value as a search sees it."""
    if value is None:
        return b""
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else json.dumps(value, default=str)).encode()


def _key(record: Record) -> tuple[Any, ...]:
    return tuple(getattr(record, name) for name in KEYS[type(record)])


def _known(kind: type[Record], *names: Any) -> None:
    unknown = {name for some in names for name in some} - {field.name for field in fields(kind)}
    if unknown:
        raise KeyError(min(unknown))


def _lies(
    row: Record, among: Mapping[str, Sequence[Any]], below: Mapping[str, Any], above: Mapping[str, Any]
) -> bool:
    """Return whether the row meets the conditions; a null meets none."""
    held = {name: getattr(row, name) for name in (*among, *below, *above)}
    return (
        None not in held.values()
        and all(held[name] in values for name, values in among.items())
        and all(held[name] <= value for name, value in below.items())
        and all(held[name] > value for name, value in above.items())
    )


def _rank(row: Record, name: str) -> tuple[bool, Any]:
    """Sort a null before every value."""
    value = getattr(row, name)
    return (value is not None, value if value is not None else 0)


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
