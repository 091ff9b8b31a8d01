"""Gives queued leaves their place in the tree, and signs the new head."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from audit import checkpoint, tree
from audit.head import Checkpoint
from audit.keys import KeyBook
from audit.leaf import leaf_hash
from audit.note import Signer
from gateway.errors import AuditUnavailable
from gateway.ledger import Ledger
from gateway.logkeys import (
    first_book,
    is_rekeyed,
    log_keys,
    opened,
    read_book,
    rekeyed,
    signers_at,
    turn,
)
from gateway.logs import grow, refuse_fork, tile_reader
from gateway.ports.clock import Clock
from gateway.ports.lock import CheckpointLock
from gateway.ports.records import Leaf, LogHead, LogKeys, Records, Transaction

BATCH = 4096


@dataclass(frozen=True, slots=True)
class Standing:
    """What one transaction saw of a log: its head, its keys, and the head that the lock holds.

    INVARIANT: until the head at which the keys changed is signed and kept (`is_handed_over`),
    the log does not grow; so it is signed, and everybody who publishes finds it.
    """

    head: LogHead
    book: KeyBook
    is_handed_over: bool
    locked: Checkpoint | None

    @property
    def is_locked(self) -> bool:
        """Whether the lock holds a head of this size."""
        return self.locked is not None and self.locked.size >= self.head.size


@dataclass(frozen=True, slots=True)
class Sequence:
    """The sequencer of all tenants' logs.  Start-up recovery runs this same function.

    For each log, in this order, so that no crash forks it:
        (1) Leaves get their places and the tiles grow, in one transaction: they are
            durable before anything is signed (R1), each place once (R3).
        (2) The new head is signed and swapped into the lock, which lies outside the
            database (R2).  Whoever loses that race looks again at what stands.
        (3) The signed head is kept; from here it may be published.

    What the lock holds must be a past of what the database holds (R12): a database
    that was restored from a backup, or rewritten, gets nothing signed.

    Keys change in (1) where `signers` are new to the log and `retiring` are those that
    stand: one transaction writes `log.rekeyed`, gives it its place, and ends the old keys
    and begins the new ones at the size S that this makes.  The head of size S is new
    to everybody, says itself that the keys change, and is signed by all of them and kept
    before the log grows on.  From that transaction on a process with the old keys signs nothing.
    """

    records: Records
    lock: CheckpointLock
    signers: Mapping[str, tuple[Signer, ...]]
    clock: Clock
    ledger: Ledger
    retiring: Mapping[str, tuple[Signer, ...]] = field(default_factory=dict)

    async def run(self) -> int:
        """Sequence everything that waits and return how many leaves there were.

        Raises:
            AuditUnavailable: Detail `log_rolled_back`, `log_changed`, `log_key_retired`,
                `log_key_missing`, `log_key_unknown`, or why the lock does not answer.
        """
        total = 0
        for origin in self.signers:
            total += await self._sequence(origin)
        return total

    async def _sequence(self, origin: str) -> int:
        note = await self.lock.load(origin)
        total, moved = 0, BATCH
        while moved == BATCH:
            standing, moved = await self.records.transact(partial(self._advance, origin=origin, note=note))
            total += moved
        # The lock may hold a head that a crash kept us from noting.
        if not standing.is_locked or standing.head.note != note:
            await self._sign(origin, standing, note)
        if not standing.is_handed_over:
            total += await self._sequence(origin)  # now it is, and what waited meanwhile may follow
        return total

    # (1)
    def _advance(self, tx: Transaction, origin: str, note: str | None) -> tuple[Standing, int]:
        """Give the next leaves their places, and return what stands then and how many there were."""
        standing, is_due = self._look(tx, origin, note)
        if not standing.is_handed_over:
            return standing, 0
        head, moved = self._move(tx, origin, standing.head)
        standing = replace(standing, head=head)
        if is_due and moved < BATCH:
            return self._rekey(tx, origin, standing), moved + 1
        return standing, moved

    def _look(self, tx: Transaction, origin: str, note: str | None) -> tuple[Standing, bool]:
        """Return what stands, and whether our keys are to take over; make what a new log lacks."""
        head = tx.get(LogHead, origin)
        if head is None:
            if tx.find(Leaf, equal={"log": origin}, above={"seq": -1}, limit=1):
                raise AuditUnavailable("the head of a log is gone", detail="log_changed")
            head = LogHead(origin, 0, tree.EMPTY_ROOT, "")
            tx.add(head)
        keys = tx.get(LogKeys, origin)
        if keys is None:
            notes = [text for text in (note, head.note) if text]
            keys = LogKeys(origin, first_book(origin, *self._keys(origin), notes).text())
            tx.add(keys)
        book = read_book(keys)
        locked = opened(book, origin, note) if note is not None else None
        refuse_fork(head, locked, tile_reader(tx, origin))
        is_handed_over = bool(keys.handover) or not 0 < turn(book) == head.size
        return Standing(head, book, is_handed_over, locked), is_rekeyed(book, *self._keys(origin))

    def _keys(self, origin: str) -> tuple[tuple[Signer, ...], tuple[Signer, ...]]:
        """Return the keys that we sign with, and those that they take over from."""
        return self.signers[origin], self.retiring.get(origin, ())

    def _rekey(self, tx: Transaction, origin: str, standing: Standing) -> Standing:
        """Write that the keys change as the log's next leaf, and let them change there."""
        signing, retiring = self._keys(origin)
        self.ledger.record(
            tx,
            next(tenant for tenant, its in self.ledger.origins.items() if its == origin),
            "log.rekeyed",
            None,
            old=[key.key_id.hex() for key in standing.book.standing],
            new=[signer.verifier.key_id.hex() for signer in signing],
        )
        head, _ = self._move(tx, origin, standing.head)
        book = rekeyed(standing.book, signing, retiring, head.size)
        tx.put(LogKeys(origin, book.text()))
        return replace(standing, head=head, book=book, is_handed_over=False)

    def _move(self, tx: Transaction, origin: str, head: LogHead) -> tuple[LogHead, int]:
        """Give the leaves that wait their places, and return the head and how many there were."""
        waiting = tx.find(
            Leaf, equal={"log": origin, "seq": None}, order_by=("queued_at", "event_id"), limit=BATCH
        )
        if not waiting:
            return head, 0
        if any(leaf_hash(leaf.line) != leaf.leaf_hash for leaf in waiting):
            raise AuditUnavailable("a waiting event was changed", detail="leaf_changed")
        grown = grow(tx, origin, head, [leaf.leaf_hash for leaf in waiting])
        tx.put(*(replace(leaf, seq=head.size + place) for place, leaf in enumerate(waiting)))
        tx.put(grown)
        return grown, len(waiting)

    # (2), (3)
    async def _sign(self, origin: str, standing: Standing, note: str | None) -> None:
        """Sign the head, unless another process has locked a later one."""
        held = [signer for keys in self._keys(origin) for signer in keys]
        while not standing.is_locked:
            head, at_s = standing.head, int(self.clock.now().timestamp())
            keys = signers_at(standing.book, head.size, held)
            signed = await asyncio.to_thread(checkpoint.sign, origin, head.size, head.root, keys, at_s=at_s)
            if await self.lock.swap(origin, note, signed):
                note = signed
                break
            note = await self.lock.load(origin)
            standing, _ = await self.records.transact(partial(self._look, origin=origin, note=note))
        await self.records.transact(partial(self._keep, origin=origin, note=note or ""))

    @staticmethod
    def _keep(tx: Transaction, origin: str, note: str) -> None:
        head, keys = _head(tx, origin), log_keys(tx, origin)
        book = read_book(keys)
        signed = opened(book, origin, note)
        standing = opened(book, origin, head.note) if head.note else None
        if standing is None or standing.size <= signed.size:
            tx.put(replace(head, note=note))
        if not keys.handover and signed.size == turn(book) > 0:
            tx.put(replace(keys, handover=note))


def _head(tx: Transaction, origin: str) -> LogHead:
    head = tx.get(LogHead, origin)
    if head is None:
        raise AuditUnavailable("the head of a log is gone", detail="log_changed")
    return head
