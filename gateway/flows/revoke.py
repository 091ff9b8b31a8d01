"""Takes back the belief in keys of a log that may be in wrong hands."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from audit import note
from audit.keys import KeyBook, LogKey
from gateway.errors import NotFound, StateConflict
from gateway.ledger import Ledger
from gateway.logkeys import read_book
from gateway.ports.records import Checkpoint, Leaf, LogHead, LogKeys, Records, Transaction

_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Revoked:
    """Keys of one log of which nothing is believed from a size on.

    Attributes:
        keys: Their ids, in hex.
        checkpoints: How many of the checkpoints that we keep verify no more.
    """

    origin: str
    keys: tuple[str, ...]
    size: int
    checkpoints: int


@dataclass(frozen=True, slots=True)
class Revoke:
    """Revokes keys that sign no more: their ends move down to where they may have been stolen.

    A key that stands is rotated first (`Sequence`): so there is always one that signs, also the
    event `log.keyrevoked`, which is written with the change of the book or not at all.
    """

    records: Records
    ledger: Ledger

    async def run(
        self,
        key_ids: Collection[str],
        since: int | datetime,
        reason: str,
        *,
        rehearse: bool = False,
    ) -> tuple[Revoked, ...]:
        """Revoke the keys, and return in which logs; with `rehearse` nothing is changed.

        Args:
            key_ids: As they stand in a verifier key, 8 hex digits.
            since: A size, from which on nothing by them is believed in the logs that have these
                very ids.  Or an instant: the first size that they can only have signed then or
                later, in every log that had keys of the same seeds.
            reason: A code, for the log.

        Raises:
            NotFound: No log has a key of one of the ids.
            StateConflict: A key stands (detail `log_key_standing`); or all were retired or revoked
                at or below that size, so that nothing would change (`log_key_retired`).
            AuditUnavailable: The keys of a log are damaged.
        """
        meant = frozenset(key_ids)
        return await self.records.transact(
            partial(self._revoke, key_ids=meant, since=since, reason=reason, rehearse=rehearse)
        )

    def _revoke(
        self,
        tx: Transaction,
        key_ids: frozenset[str],
        since: int | datetime,
        reason: str,
        rehearse: bool,
    ) -> tuple[Revoked, ...]:
        revoked: list[Revoked] = []
        for tenant, row, book, meant in self._meant(tx, key_ids, is_everywhere=isinstance(since, datetime)):
            start = _size_at(tx, row.log, since) if isinstance(since, datetime) else since
            ending = [key for key in meant if start < _end(key)]
            if not ending:
                continue
            for key in ending:
                book = book.revoked(key.verifier, start)  # noqa: PLW2901 - it loses key after key
            ids = tuple(key.verifier.key_id.hex() for key in ending)
            revoked.append(Revoked(row.log, ids, start, _spoilt(tx, row.log, ending, start)))
            if not rehearse:
                tx.put(replace(row, text=book.text()))
                self.ledger.record(
                    tx, tenant, "log.keyrevoked", None, sealed=(), key=list(ids), rc=reason, **{"from": start}
                )
        if not revoked:
            raise StateConflict("the keys ended at or below that size before", detail="log_key_retired")
        return tuple(revoked)

    def _meant(
        self, tx: Transaction, key_ids: frozenset[str], *, is_everywhere: bool
    ) -> Iterator[tuple[str, LogKeys, KeyBook, list[LogKey]]]:
        """Yield each log with those of its keys that are meant."""
        rows = {tenant: tx.get(LogKeys, origin) for tenant, origin in self.ledger.origins.items()}
        books = {tenant: read_book(row) for tenant, row in rows.items() if row is not None}
        known = {key.verifier.key_id.hex(): key.verifier for book in books.values() for key in book.keys}
        if not key_ids <= known.keys():
            raise NotFound("no log has a key of that id")
        seeds = {known[key_id].public_key for key_id in key_ids}
        for tenant, book in books.items():
            meant = [
                key
                for key in book.keys
                if key.verifier.key_id.hex() in key_ids
                or (is_everywhere and key.verifier.public_key in seeds)
            ]
            if any(key.verifier in book.standing for key in meant):
                raise StateConflict("the key signs today; rotate it first", detail="log_key_standing")
            row = rows[tenant]
            if meant and row is not None:
                yield tenant, row, book, meant


def _end(key: LogKey) -> int:
    """Return the first size that the key, which does not stand, cannot sign."""
    ends = [key.revoked, None if key.last is None else key.last + 1]
    return min(end for end in ends if end is not None)


def _size_at(tx: Transaction, origin: str, since: datetime) -> int:
    """Return the smallest size of a tree that holds a leaf of that instant or later."""
    above = {"queued_at": since - _TICK, "seq": -1}
    later = tx.find(Leaf, equal={"log": origin}, above=above, order_by=("seq",), limit=1)
    head = tx.get(LogHead, origin)
    first = later[0].seq if later else head.size if head is not None else 0
    return (first or 0) + 1


def _spoilt(tx: Transaction, origin: str, keys: Collection[LogKey], start: int) -> int:
    kept = tx.find(Checkpoint, equal={"log": origin}, above={"size": start - 1})
    signatures = [note.parse(row.note)[1] for row in kept]
    return sum(any(key.verifier.made(one) for key in keys for one in made) for made in signatures)
