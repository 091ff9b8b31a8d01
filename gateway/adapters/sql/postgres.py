"""PostgreSQL: a bounded pool of serialisable connections through asyncpg."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from gateway.adapters.sql.faults import RAISED, Again, translate
from gateway.adapters.sql.registry import MAPPED
from gateway.adapters.sql.search import BAR, Quest, quoted
from gateway.adapters.sql.transaction import attempt
from gateway.errors import StoreUnavailable
from gateway.ports.records import SUBJECT_TABLES, Duplicate, Searched, Seen, Transaction

T = TypeVar("T")

FIRST_PAUSE_S = 0.002
LONGEST_PAUSE_S = 0.25


@dataclass(frozen=True, slots=True)
class PostgresLimits:
    """How much of the server one process may use, and how long anything may take (seconds)."""

    connections: int = 10
    wait_s: float = 10.0
    connect_s: float = 5.0
    statement_s: float = 30.0


_TABLES = """
SELECT c.oid, n.nspname AS schema, c.relname AS name, n.nspname = current_schema() AS is_ours,
       has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE') AS is_readable
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
  AND NOT (c.relpersistence = 't' AND pg_is_other_temp_schema(n.oid))
ORDER BY n.nspname, c.relname
"""
"""Every table and materialised view with rows of its own; partitions are tables."""

_COLUMNS = """
SELECT attname AS name, atttypid = 'bytea'::regtype AS is_bytes
FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""


class PostgresDatabase:
    """A PostgreSQL database.

    `url` is what libpq and asyncpg understand, `sslmode=verify-full` included.
    The server must be spoken to directly, or through a pooler that keeps a
    session together: prepared statements are used.
    """

    def __init__(self, url: str, limits: PostgresLimits | None = None) -> None:
        self._url = url
        self._limits = limits or PostgresLimits()
        self._engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=self._connect,
            isolation_level="SERIALIZABLE",
            pool_size=self._limits.connections,
            max_overflow=0,
            hide_parameters=True,
        )
        self._gate = asyncio.Semaphore(self._limits.connections)
        self._running: set[asyncio.Task[Any]] = set()
        self._is_closed = False

    async def run(self, body: Callable[[Connection], T]) -> T:
        """Run `body` on a connection of the pool, again where the server reports a conflict.

        The server may report a duplicate that the body could not yet see when
        it looked; a second run sees it, or meets it again.
        """
        tries = 0
        while True:
            tries += 1
            try:
                return await self._once(body)
            except Again as again:
                if tries >= again.tries:
                    raise again.failure from again.failure.__cause__
            except Duplicate:
                if tries > 1:
                    raise
            await asyncio.sleep(random.uniform(0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**tries)))

    async def transact(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` as one serialisable transaction; see `run`."""
        return await self.run(lambda connection: attempt(connection, work))

    async def scour(self) -> None:
        """Vacuum the tables that hold subjects, as far as our role may.

        This does not make deleted bytes unreadable: PostgreSQL leaves them in
        heap pages, in its write-ahead log, in replicas and in backups.  That is
        why a subject key is wrapped under an epoch key that is destroyed.
        """
        tables = ", ".join(f'"{MAPPED[kind].table.name}"' for kind in SUBJECT_TABLES)
        try:
            connection = await self._connect(command_timeout=None, statement_s=0)
            try:
                await connection.execute(f"VACUUM {tables}")
            finally:
                await connection.close(timeout=self._limits.connect_s)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise StoreUnavailable("the database could not be vacuumed", detail="vacuum") from error

    async def search(self, quest: Quest) -> Searched:
        """Look in every table of every schema that our role may read, over a connection of its own.

        All tables are read as they stood at one moment.  The transaction is no
        serialisable one: it locks nothing and makes nobody repeat.  Tables of other
        owners that we may not read are counted.  The catalogue itself, and with it the
        planner's statistics, is not searched.
        """
        seen: set[Seen] = set()
        try:
            connection = await self._connect(command_timeout=None, statement_s=0)
            try:
                async with connection.transaction(isolation="repeatable_read", readonly=True):
                    tables = await connection.fetch(_TABLES)
                    for table in tables:
                        if table["is_readable"]:
                            seen |= await _seen_in(connection, table, quest)
            finally:
                await connection.close(timeout=self._limits.connect_s)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise StoreUnavailable("the database could not be searched", detail="search") from error
        read = sum(table["is_readable"] for table in tables)
        return Searched(frozenset(seen), read, len(tables) - read)

    async def close(self) -> None:
        """Wait for the transactions that have begun, and close the pool."""
        self._is_closed = True
        if self._running:
            await asyncio.wait(self._running)
        await self._engine.dispose()

    async def _once(self, body: Callable[[Connection], T]) -> T:
        """Run the body in a task of its own, which goes on to its end if the caller is cancelled.

        INVARIANT: a statement is never interrupted from our side; the server's
        own limits end what takes too long.
        """
        await self._enter()
        task = asyncio.get_running_loop().create_task(self._on_connection(body))
        self._running.add(task)
        task.add_done_callback(self._leave)
        return await asyncio.shield(task)

    async def _enter(self) -> None:
        if self._is_closed:
            raise StoreUnavailable("the records are closed", detail="closed")
        try:
            async with asyncio.timeout(self._limits.wait_s):
                await self._gate.acquire()
        except TimeoutError as error:
            raise StoreUnavailable("all database connections are busy", detail="pool_exhausted") from error

    def _leave(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        self._gate.release()
        if not task.cancelled():
            task.exception()  # nobody may be waiting for it any more

    async def _on_connection(self, body: Callable[[Connection], T]) -> T:
        try:
            connection = await self._engine.connect()
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            # Not from SQLAlchemy: while connecting, asyncpg's exceptions come as they are.
            raise StoreUnavailable("the database refuses the connection", detail="refused") from error
        except RAISED as error:
            raise translate(error, is_committing=True)  # noqa: B904  # `translate` decides what is chained
        try:
            return await connection.run_sync(body)
        finally:
            await connection.close()

    async def _connect(self, *, statement_s: float | None = None, **options: Any) -> Any:
        limit_s = self._limits.statement_s if statement_s is None else statement_s
        # The client's limit is for a server that fell silent, so it is the longer one.
        options.setdefault("command_timeout", limit_s + self._limits.connect_s)
        return await asyncpg.connect(
            self._url,
            timeout=self._limits.connect_s,
            server_settings={
                "application_name": "lethe",
                "statement_timeout": str(int(limit_s * 1000)),
                "idle_in_transaction_session_timeout": str(int(self._limits.statement_s * 1000)),
            },
            **options,
        )


async def _seen_in(connection: Any, table: Any, quest: Quest) -> set[Seen]:
    """Return the columns of a table that hold a needle."""
    ours = bool(table["is_ours"])
    columns = {row["name"]: row["is_bytes"] for row in await connection.fetch(_COLUMNS, table["oid"])}
    names = quest.columns(table["name"], columns, is_ours=ours)
    if not names or not quest.digits:
        return set()
    values = (
        quoted(name) if columns[name] else f"convert_to({quoted(name)}::text, 'UTF8')" for name in names
    )
    line = f" || '{BAR}' || ".join(f"coalesce(encode({value}, 'hex'), '')" for value in values)
    # OFFSET 0: the line is computed once a row, however many needles there are.
    lines = connection.cursor(
        f"SELECT r.line FROM (SELECT {line} AS line FROM {quoted(table['schema'])}.{quoted(table['name'])} "  # noqa: S608 - names from the catalogue, quoted
        "OFFSET 0) AS r WHERE EXISTS (SELECT 1 FROM unnest($1::text[]) AS n WHERE strpos(r.line, n) > 0)",
        list(quest.digits),
        prefetch=50,
    )
    return {
        seen async for row in lines for seen in quest.seen(table["name"], names, row["line"], is_ours=ours)
    }
