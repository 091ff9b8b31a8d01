"""Moves queued leaves into the tree, in order, and signs the new checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from audit import checkpoint
from audit.frontier import Frontier
from audit.note import Signer
from gateway.ports.clock import Clock
from gateway.ports.records import Checkpoint, Leaf, Node, Records, Transaction

BATCH = 1024


@dataclass(frozen=True, slots=True)
class Sequence:
    """The sequencer of all tenants' logs.  Start-up recovery runs this same function.

    Numbering, nodes and checkpoint change in one transaction, so a crash leaves
    either the old checkpoint with leaves still queued, or the new one.
    """

    records: Records
    signers: Mapping[str, Signer]
    clock: Clock

    async def run(self) -> int:
        """Sequence everything that waits and return how many leaves there were."""
        total = 0
        for origin in self.signers:
            while True:
                moved = await self.records.transact(partial(self._advance, origin=origin))
                total += moved
                if moved < BATCH:
                    break
        return total

    def _advance(self, tx: Transaction, origin: str) -> int:
        standing = tx.get(Checkpoint, origin)
        waiting = tx.find(
            Leaf, equal={"log": origin, "seq": None}, order_by=("queued_at", "event_id"), limit=BATCH
        )
        if not waiting and standing is not None:
            return 0
        peaks = tuple(bytes.fromhex(peak) for peak in standing.peaks) if standing else ()
        frontier = Frontier(standing.size if standing else 0, peaks)
        for leaf in waiting:
            tx.put(replace(leaf, seq=frontier.size))
            frontier, completed = frontier.append(leaf.leaf_hash)
            tx.add(*[Node(log=origin, level=level, index=index, hash=h) for level, index, h in completed])
        signed = Checkpoint(
            log=origin,
            size=frontier.size,
            root=frontier.root(),
            note=checkpoint.sign(origin, frontier.size, frontier.root(), self.signers[origin]),
            signed_at=self.clock.now(),
            peaks=tuple(peak.hex() for peak in frontier.peaks),
        )
        if standing is None:
            tx.add(signed)
        else:
            tx.put(signed)
        return len(waiting)
