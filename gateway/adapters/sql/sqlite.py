"""SQLite: one file, one thread, one connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.pool import NullPool

from gateway.adapters.disk import sync_folder
from gateway.adapters.sql.faults import RAISED, translate
from gateway.adapters.sql.search import BAR, Quest, quoted
from gateway.adapters.sql.transaction import attempt_all
from gateway.errors import StoreUnavailable
from gateway.ports.records import Searched, Seen, Transaction

T = TypeVar("T")


GROUP = 512
"""How many transactions one commit makes durable at most."""

CACHE_KIB = 65_536
"""Memory for pages: ids are random, so a busy log touches pages all over the file."""

WAL_PAGES = 8192
"""Pages in the write-ahead log before they are copied back: with fewer, every group of a busy log does so."""

_Waiting: TypeAlias = tuple[Callable[[Transaction], Any], "asyncio.Future[Any]", asyncio.AbstractEventLoop]


class SqliteDatabase:
    """A SQLite file, which must exist.

    All transactions run one after the other in a thread of their own, in groups that
    begin IMMEDIATE and are committed as one: serialisable without any retry.  Another
    process that holds the file is waited for, `busy_timeout_s` at most.
    """

    def __init__(self, path: Path, *, busy_timeout_s: float = 5.0) -> None:
        self._path = path
        self._busy_timeout_s = busy_timeout_s
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lethe-sqlite")
        self._engine = create_engine(
            "sqlite+pysqlite://", creator=self._connect, poolclass=NullPool, hide_parameters=True
        )
        event.listen(self._engine, "begin", _begin_immediate)
        self._connection: Connection | None = None
        self._file: tuple[int, int] | None = None
        self._mutex = threading.Lock()
        self._waiting: list[_Waiting] = []

    async def run(self, body: Callable[[Connection], T]) -> T:
        """Run `body` in the thread; if the caller is cancelled before it began, it never does."""
        return await self._in_thread(lambda: body(self._held()))

    async def transact(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` as one serialisable transaction, made durable together with those that wait beside it.

        Whatever waits when the thread is free is committed as one: the sync in flight
        forms the next group, and nobody lingers.  If the caller is cancelled before
        its turn, its work is never begun.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        with self._mutex:
            self._waiting.append((work, answer, loop))
            is_first = len(self._waiting) == 1
        if is_first:
            try:
                self._thread.submit(self._serve)
            except RuntimeError as error:
                with self._mutex:
                    self._waiting.clear()
                raise StoreUnavailable("the records are closed", detail="closed") from error
        return await answer

    def _serve(self) -> None:
        """Run everything that waits, in groups, each durable before its callers are answered."""
        while True:
            with self._mutex:
                group, rest = self._waiting[:GROUP], self._waiting[GROUP:]
                self._waiting = rest
            begun = [entry for entry in group if not entry[1].cancelled()]
            if begun:
                _answer(begun, self._outcomes([work for work, _, _ in begun]))
            with self._mutex:
                if not rest:
                    return

    def _outcomes(self, works: list[Callable[[Transaction], Any]]) -> list[tuple[Any, BaseException | None]]:
        try:
            return attempt_all(self._held(), works)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the callers must not wait for ever
            return [(None, error)] * len(works)

    async def scour(self) -> None:
        """Rewrite the file and empty the write-ahead log.

        `secure_delete` alone is not enough: when SQLite rebalances a tree it
        leaves stale copies of rows in the unused part of pages, and what is
        deleted later is zeroed only where it lives (about one row in a thousand
        survived whole when we measured it).  VACUUM builds every page anew.
        It takes about two seconds per 100 MB, as much memory and free disk as the file
        is large (`Reserve`), and everything else waits.  Blocks that the file system freed
        are out of our reach.
        """
        await self._in_thread(self._scour)

    async def search(self, quest: Quest) -> Searched:
        """Look in every table, over a connection and in a thread of its own.

        A reader holds up no writer, and no writer a reader: each table is read as it
        stood when its turn began.  Only the write-ahead log grows while one is read.
        """
        return await asyncio.to_thread(self._search, quest)

    async def close(self) -> None:
        """Close the connection in its thread, and end the thread."""
        try:
            await self._in_thread(self._let_go)
        except StoreUnavailable:
            return  # closed before
        self._thread.shutdown(wait=False)

    async def _in_thread(self, job: Callable[[], T]) -> T:
        try:
            running = asyncio.get_running_loop().run_in_executor(self._thread, job)
        except RuntimeError as error:
            raise StoreUnavailable("the records are closed", detail="closed") from error
        return await running

    def _held(self) -> Connection:
        """Return the connection, opened anew if it failed or the file is another one.

        SQLite would go on writing, and reporting success, into a file that was
        moved away or replaced by a backup.
        """
        file = _identity(self._path)
        if self._connection is not None and (self._connection.invalidated or file != self._file):
            self._let_go()
        if self._connection is None:
            try:
                self._connection = self._engine.connect()
            except RAISED as error:
                raise translate(error)  # noqa: B904  # `translate` decides what is chained
            self._file = file
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        """Open the file, never creating one, and set what every connection needs."""
        connection = sqlite3.connect(
            f"file:{quote(str(self._path))}?mode=rw",
            uri=True,
            timeout=self._busy_timeout_s,
            isolation_level=None,  # we begin ourselves
        )
        try:
            _prepare(connection, int(self._busy_timeout_s * 1000))
        except BaseException:
            connection.close()
            raise
        return connection

    def _scour(self) -> None:
        connection = self._held()
        try:
            raw = connection.connection.driver_connection
            assert isinstance(raw, sqlite3.Connection)  # noqa: S101  # tells mypy what `_connect` returned
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # what it took, the rewriting may need
            raw.execute("VACUUM")
            busy = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "sqlite_error")
            connection.invalidate()
            raise StoreUnavailable("the database could not be scoured", detail=name.lower()) from error
        if busy:
            raise StoreUnavailable("another process reads the database", detail="sqlite_busy")

    def _search(self, quest: Quest) -> Searched:
        seen: set[Seen] = set()
        try:
            with contextlib.closing(self._connect()) as connection:
                connection.execute("PRAGMA query_only = ON")
                listed = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name"
                tables = ["sqlite_schema", *(name for (name,) in connection.execute(listed).fetchall())]
                for table in tables:
                    seen.update(_seen_in(connection, table, quest))
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "sqlite_error")
            raise StoreUnavailable("the database could not be searched", detail=name.lower()) from error
        return Searched(frozenset(seen), len(tables))

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _seen_in(connection: sqlite3.Connection, table: str, quest: Quest) -> set[Seen]:
    """Return the columns of a table that hold a needle."""
    found = connection.execute("SELECT name FROM pragma_table_xinfo(?)", (table,)).fetchall()
    names = quest.columns(table, [name for (name,) in found])
    if not names or not quest.digits:
        return set()
    line = f" || '{BAR}' || ".join(f"hex({quoted(name)})" for name in names)
    # The inner question is computed once a row, however many needles there are.
    lines = connection.execute(
        f"WITH r AS (SELECT {line} AS line FROM {quoted(table)} LIMIT -1) "  # noqa: S608 - names from the catalogue, quoted
        "SELECT line FROM r WHERE EXISTS (SELECT 1 FROM json_each(?) AS n WHERE instr(r.line, n.value))",
        (json.dumps([digits.upper() for digits in quest.digits]),),
    )
    return {seen for (line,) in lines for seen in quest.seen(table, names, line)}


def _answer(group: list[_Waiting], outcomes: list[tuple[Any, BaseException | None]]) -> None:
    """Hand every caller its outcome, with one call into each loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any, BaseException | None]]] = {}
    for (_, answer, loop), (result, error) in zip(group, outcomes, strict=True):
        by_loop.setdefault(loop, []).append((answer, result, error))
    for loop, answers in by_loop.items():
        with contextlib.suppress(RuntimeError):  # a loop that is closed has nobody left who waits
            loop.call_soon_threadsafe(_settle, answers)


def _settle(answers: list[tuple[asyncio.Future[Any], Any, BaseException | None]]) -> None:
    for answer, result, error in answers:
        if answer.done():
            continue  # the caller has gone
        if error is None:
            answer.set_result(result)
        else:
            answer.set_exception(error)


def create_file(path: Path) -> None:
    """Create an empty database file that only its owner may read, unless there is one.

    SQLite gives the log and the index beside it the same mode.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    sync_folder(path.parent)


def _begin_immediate(connection: Connection) -> None:
    """Take the write lock at once: a lock that is upgraded later may fail half-way."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _prepare(connection: sqlite3.Connection, busy_timeout_ms: int) -> None:
    connection.execute(f"PRAGMA busy_timeout = {busy_timeout_ms}")
    if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
        raise sqlite3.OperationalError("the file system does not carry a write-ahead log")
    connection.execute("PRAGMA synchronous = FULL")  # a commit is on the disk when it returns
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA temp_store = MEMORY")  # sorting and VACUUM leave no file behind
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA trusted_schema = OFF")


def _identity(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise StoreUnavailable("the database file is not there", detail="file_missing") from error
    return found.st_dev, found.st_ino
