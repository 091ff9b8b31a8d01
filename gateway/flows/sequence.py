"""Moves queued leaves into the tree, in order, and signs the new checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from audit import checkpoint
from audit.errors import AuditError
from audit.frontier import Frontier
from audit.leaf import leaf_hash
from audit.note import Signer, Verifier
from gateway.errors import AuditUnavailable
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
        frontier = self._right_edge(tx, standing, origin)
        nodes: list[Node] = []
        for leaf in waiting:
            if leaf_hash(leaf.line) != leaf.leaf_hash:
                raise AuditUnavailable("a waiting event was changed", detail="leaf_changed")
            tx.put(replace(leaf, seq=frontier.size))
            frontier, completed = frontier.append(leaf.leaf_hash)
            nodes += [Node(log=origin, level=level, index=index, hash=h) for level, index, h in completed]
        tx.add(*nodes)  # one statement for all: a statement costs more than its row
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

    def _right_edge(self, tx: Transaction, standing: Checkpoint | None, origin: str) -> Frontier:
        """Return the tree's right edge as we signed it last.

        Who can write the database must not get another history signed: size, root
        and peaks have to be those of a note that our own key has signed.

        Raises:
            AuditUnavailable: They are not (detail `log_changed`); nothing is signed until somebody looked.
        """
        if standing is None:
            if tx.find(Leaf, equal={"log": origin}, above={"seq": -1}, limit=1):
                raise AuditUnavailable("the checkpoint of a log is gone", detail="log_changed")
            return Frontier(0, ())
        try:
            frontier = Frontier(standing.size, tuple(bytes.fromhex(peak) for peak in standing.peaks))
            own = Verifier.parse(self.signers[origin].vkey())
            signed = checkpoint.open_checkpoint(standing.note, [own])
        except AuditError as error:
            raise AuditUnavailable("the standing checkpoint is not ours", detail="log_changed") from error
        if not (signed.size == standing.size and signed.root == standing.root == frontier.root()):
            raise AuditUnavailable("the standing checkpoint was changed", detail="log_changed")
        return frontier
