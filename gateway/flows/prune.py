"""Lets old entries of the logs go, in whole bundles; hash tiles and checkpoints stay (decision 0021)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from audit import tiles
from audit.leaf import decode
from gateway.errors import AuditUnavailable
from gateway.ledger import Ledger
from gateway.logs import leaves, newest_checkpoint
from gateway.ports.clock import Clock
from gateway.ports.files import LogFiles
from gateway.ports.records import Certificate, Hold, Leaf, LogHead, Records, SealedPayload, Transaction

BATCH = 16 * tiles.WIDTH
"""How many entries one transaction removes at most."""


@dataclass(frozen=True, slots=True)
class Prune:
    """The pruner of all tenants' logs.  Several may run; every step is idempotent.

    For each log, in this order, so that no crash leaves more said than done:
        (1) One transaction removes the entries of some bundles and the tombstones of
            their payloads, moves the log's minimum index behind them, and writes
            `log.pruned`.  It is repeated until a bundle has to stay.
        (2) The published bundles below the minimum index are removed, also those
            that an earlier run was kept from removing.

    A bundle stays while one of its entries is younger than the term, is in no
    published checkpoint, fixes a payload that is still there, placed a legal hold that
    stands, or is what a certificate proves; all that come after it stay, too.

    `term` None keeps entries for ever; step (2) is done all the same.

    Rule:
        c2sp.org/tlog-tiles, pruning: a minimum index.
        GDPR Art. 5(1)(e).
    """

    records: Records
    ledger: Ledger
    clock: Clock
    term: timedelta | None = None
    files: LogFiles | None = None

    async def run(self) -> int:
        """Prune every log as far as it may be, and return how many entries went.

        Raises:
            AuditUnavailable: An entry that should be there is missing (detail `leaf_missing`), or the
                folder refuses; the other logs were pruned all the same.
        """
        failures: list[AuditUnavailable] = []
        total = 0
        for tenant, origin in self.ledger.origins.items():
            try:
                total += await self._prune(tenant, origin)
            except AuditUnavailable as failure:
                failures.append(failure)
        if failures:
            raise failures[0]
        return total

    async def _prune(self, tenant: str, origin: str) -> int:
        total, gone = 0, BATCH
        while gone == BATCH:
            min_index, gone = await self.records.transact(
                partial(self._prune_some, tenant=tenant, origin=origin)
            )
            total += gone
        if self.files is not None and min_index:
            await self.files.prune(origin, min_index)
        return total

    # (1)
    def _prune_some(self, tx: Transaction, tenant: str, origin: str) -> tuple[int, int]:
        """Let the next bundles go, and return the minimum index and how many entries went."""
        head, newest = tx.get(LogHead, origin), newest_checkpoint(tx, origin)
        if head is None or newest is None or self.term is None:
            return (head.min_index if head else 0), 0
        before = self.clock.now() - self.term
        end = head.min_index
        tombstones: list[SealedPayload] = []
        while end + tiles.WIDTH <= min(newest.size, head.min_index + BATCH):
            bundle = leaves(tx, origin, end, end + tiles.WIDTH)
            if not _may_go(tx, bundle, before):
                break
            tombstones += tx.find(SealedPayload, among={"event_id": [leaf.event_id for leaf in bundle]})
            end += tiles.WIDTH
        gone = end - head.min_index
        if gone:
            tx.discard(Leaf, equal={"log": origin}, below={"seq": end - 1})
            tx.remove(*tombstones)
            tx.put(replace(head, min_index=end))
            self.ledger.record(tx, tenant, "log.pruned", None, to=end)
        return end, gone


def _may_go(tx: Transaction, bundle: list[Leaf], before: datetime) -> bool:
    """Return whether nothing needs an entry of the bundle any more."""
    if any(leaf.queued_at >= before for leaf in bundle):
        return False
    ids = [leaf.event_id for leaf in bundle]
    if tx.find(SealedPayload, among={"event_id": ids}, above={"blob": b""}, limit=1):
        return False
    holds = [decode(leaf.line)["hld"] for leaf in bundle if leaf.ty == "hold.placed"]
    if holds and tx.find(Hold, among={"hold_id": holds}, limit=1):
        return False
    erased = [leaf.event_id for leaf in bundle if leaf.ty == "subject.erased"]
    return not (erased and tx.find(Certificate, among={"event_id": erased}, limit=1))
