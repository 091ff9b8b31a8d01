"""What SQLite and PostgreSQL do each in their own way: where a transaction runs, and how traces go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from gateway.adapters.sql.search import Quest
from gateway.ports.records import Searched, Transaction

T = TypeVar("T")


class Database(Protocol):
    """A database behind the records."""

    async def run(self, body: Callable[[Connection], T]) -> T:
        """Run `body` on a connection where it may do one transaction, and return its result.

        Where the body raises `Again` or `Duplicate` it may be run again.  A
        caller that is cancelled stops waiting; a body that has begun is
        finished all the same, so that a transaction is never left half-done.

        Raises:
            StoreUnavailable: There is no connection.
        """

    async def transact(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` as one serialisable transaction and return its result once it is durable."""

    async def scour(self) -> None:
        """Remove traces of deleted rows, where the database can."""

    async def search(self, quest: Quest) -> Searched:
        """Look in every column of every table, beside what others read and write."""

    async def close(self) -> None:
        """Wait for what has begun, and let all connections go."""
