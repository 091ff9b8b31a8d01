"""What a database's error means to us.  Drivers' exceptions do not get past this file.

SQLAlchemy is told to hide parameters, and exceptions that may quote a row
(PostgreSQL's `DETAIL: Key (...)=(...)`) are not chained: a traceback must not
carry what the records hold.
"""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError

from gateway.errors import StoreUnavailable
from gateway.ports.records import Duplicate

RAISED = (SQLAlchemyError, OSError, sqlite3.Error)
"""What SQLAlchemy and the drivers raise; a time-out is an `OSError`."""

TRIES_AFTER_CONFLICT = 20
TRIES_AFTER_LOSS = 2


class Again(Exception):
    """Nothing was kept and the transaction may be run again, up to `tries` times in all.

    `failure` is what to raise when that does not help.
    """

    def __init__(self, failure: StoreUnavailable, tries: int) -> None:
        super().__init__(failure.detail)
        self.failure = failure
        self.tries = tries


def translate(error: Exception, *, is_committing: bool = False) -> Exception:
    """Return what to raise for an error of SQLAlchemy or of a driver.

    `Duplicate` for a taken key, `ValueError` or `TypeError` for a value the
    database does not take, `Again` where a repetition is right, and
    `StoreUnavailable` for all else: a database that is lost, full or broken, or
    whose schema is not ours.
    """
    if isinstance(error, sqlite3.Error):
        name = getattr(error, "sqlite_errorname", None)
        if name is None:  # the driver's own: a connection that is closed, a statement that is none
            return StoreUnavailable("the database connection is unusable", detail="unusable")
        return _from_sqlite(name)
    if isinstance(error, DBAPIError):
        code = getattr(error.orig, "sqlstate", None)
        if code is not None:
            return _from_postgres(code, error, is_committing)
        name = getattr(error.orig, "sqlite_errorname", None)
        if name is not None:
            return _from_sqlite(name)
        return _lost(error, is_committing)
    if isinstance(error, StatementError) and isinstance(error.orig, (ValueError, TypeError)):
        return _bare(error.orig)  # one of our column types refused the value
    if isinstance(error, OSError):
        return _chained(StoreUnavailable("the database does not answer", detail="lost"), error)
    return _chained(StoreUnavailable("the database connection is unusable", detail="unusable"), error)


def _from_postgres(code: str, error: DBAPIError, is_committing: bool) -> Exception:
    if code in {"40001", "40P01"}:
        return Again(StoreUnavailable("too many conflicts", detail="contention"), TRIES_AFTER_CONFLICT)
    if code == "23505":
        return _bare(Duplicate("a record with this key exists"))
    if code[:2] in {"22", "23", "54"}:
        return _bare(ValueError(f"the database refuses a value: {code}"))
    if code[:2] in {"08", "57"} and error.connection_invalidated:
        return _lost(error, is_committing)
    return _chained(StoreUnavailable("the database failed", detail=f"sqlstate_{code.lower()}"), error)


def _from_sqlite(name: str) -> Exception:
    if name in {"SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_ROWID"}:
        return _bare(Duplicate("a record with this key exists"))
    if name.startswith("SQLITE_CONSTRAINT") or name in {"SQLITE_TOOBIG", "SQLITE_MISMATCH"}:
        return _bare(ValueError(f"the database refuses a value: {name}"))
    return StoreUnavailable("the database failed", detail=name.lower())


def _lost(error: DBAPIError, is_committing: bool) -> Exception:
    """Translate a connection that broke: before the commit nothing was kept, after it nobody knows."""
    failure = _chained(StoreUnavailable("the database does not answer", detail="lost"), error)
    if error.connection_invalidated and not is_committing:
        return Again(failure, TRIES_AFTER_LOSS)
    return failure


def _chained(failure: StoreUnavailable, cause: Exception) -> StoreUnavailable:
    failure.__cause__ = cause
    return failure


def _bare(error: Exception) -> Exception:
    error.__suppress_context__ = True
    return error
