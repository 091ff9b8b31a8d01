"""Gives queued leaves their place in the tree, and signs the new head."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from audit import checkpoint, tree
from audit.errors import AuditError
from audit.leaf import leaf_hash
from audit.note import Signer
from gateway.errors import AuditUnavailable
from gateway.logs import grow, refuse_fork, tile_reader
from gateway.ports.clock import Clock
from gateway.ports.lock import CheckpointLock
from gateway.ports.records import Leaf, LogHead, Records, Transaction

BATCH = 4096


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
    """

    records: Records
    lock: CheckpointLock
    signers: Mapping[str, tuple[Signer, ...]]
    clock: Clock

    async def run(self) -> int:
        """Sequence everything that waits and return how many leaves there were.

        Raises:
            AuditUnavailable: Detail `log_rolled_back`, `log_changed`, or why the lock does not answer.
        """
        total = 0
        for origin in self.signers:
            total += await self._sequence(origin)
        return total

    async def _sequence(self, origin: str) -> int:
        note = await self.lock.load(origin)
        locked = self._opened(origin, note)
        total, moved = 0, BATCH
        while moved == BATCH:
            head, moved = await self.records.transact(partial(self._advance, origin=origin, locked=locked))
            total += moved
        # The lock may hold a head that a crash kept us from noting.
        if locked is None or locked.size < head.size or head.note != note:
            await self._sign(origin, head, note, locked)
        return total

    # (1)
    def _advance(
        self, tx: Transaction, origin: str, locked: checkpoint.Checkpoint | None
    ) -> tuple[LogHead, int]:
        """Give the next leaves their places, and return the head and how many there were."""
        standing = tx.get(LogHead, origin)
        head = standing or LogHead(origin, 0, tree.EMPTY_ROOT, "")
        if standing is None:
            if tx.find(Leaf, equal={"log": origin}, above={"seq": -1}, limit=1):
                raise AuditUnavailable("the head of a log is gone", detail="log_changed")
            tx.add(head)
        read = tile_reader(tx, origin)
        refuse_fork(head, locked, read)
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
    async def _sign(
        self, origin: str, head: LogHead, note: str | None, locked: checkpoint.Checkpoint | None
    ) -> None:
        """Sign the head, unless another process has locked a later one."""
        while locked is None or locked.size < head.size:
            at_s = int(self.clock.now().timestamp())
            signed = await asyncio.to_thread(
                checkpoint.sign, origin, head.size, head.root, self.signers[origin], at_s=at_s
            )
            if await self.lock.swap(origin, note, signed):
                note = signed
                break
            note = await self.lock.load(origin)
            locked = self._opened(origin, note)
            head = await self.records.transact(partial(self._check, origin=origin, locked=locked))
        await self.records.transact(partial(self._keep, origin=origin, note=note or ""))

    @staticmethod
    def _check(tx: Transaction, origin: str, locked: checkpoint.Checkpoint | None) -> LogHead:
        head = _head(tx, origin)
        refuse_fork(head, locked, tile_reader(tx, origin))
        return head

    def _keep(self, tx: Transaction, origin: str, note: str) -> None:
        head = _head(tx, origin)
        standing, signed = self._opened(origin, head.note or None), self._opened(origin, note)
        if signed is not None and (standing is None or standing.size <= signed.size):
            tx.put(replace(head, note=note))

    def _opened(self, origin: str, note: str | None) -> checkpoint.Checkpoint | None:
        if note is None:
            return None
        try:
            return checkpoint.open_checkpoint(note, [signer.verifier for signer in self.signers[origin]])
        except AuditError as error:
            raise AuditUnavailable("a head of the log is not signed by us", detail="log_changed") from error


def _head(tx: Transaction, origin: str) -> LogHead:
    head = tx.get(LogHead, origin)
    if head is None:
        raise AuditUnavailable("the head of a log is gone", detail="log_changed")
    return head
