"""Shows the log: events, checkpoints, proofs, exports, certificates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from audit import export, proof, tree
from audit.note import Signer

from gateway.caller import Caller
from gateway.errors import AuditUnavailable, MessageInvalid, NotFound, StateConflict
from gateway.ledger import Ledger
from gateway.paging import DEFAULT_SIZE, MAX_SIZE, Page
from gateway.ports.records import Certificate, Checkpoint, Leaf, Node, PackText, Records, Transaction


@dataclass(frozen=True, slots=True)
class Inclusion:
    """An inclusion proof with the checkpoint it leads to, and the same as a C2SP tlog-proof file."""

    index: int
    size: int
    hashes: tuple[bytes, ...]
    note: str
    tlog_proof: str


@dataclass(frozen=True, slots=True)
class Audit:
    """Reads one tenant's log; what an auditor gets can be verified without us."""

    records: Records
    ledger: Ledger
    signers: Mapping[str, Signer]

    async def events(self, caller: Caller, ty: str, size: int, token: str) -> Page[Leaf]:
        """Return a page of sequenced leaves, oldest first, of one event type where `ty` is given."""
        origin = self.ledger.origins[caller.tenant]
        limit = min(size or DEFAULT_SIZE, MAX_SIZE)
        try:
            after = int(token or -1)
        except ValueError as error:
            raise MessageInvalid("page_token", violations=(("page_token", "page_token.unknown"),)) from error
        equal = {"log": origin} | ({"ty": ty} if ty else {})
        rows = await self.records.transact(
            lambda tx: tx.find(Leaf, equal=equal, above={"seq": after}, order_by=("seq",), limit=limit + 1)
        )
        more = len(rows) > limit
        return Page(tuple(rows[:limit]), str(rows[limit - 1].seq) if more else "")

    async def checkpoint(self, caller: Caller) -> Checkpoint:
        """Return the newest checkpoint.

        Raises:
            AuditUnavailable: None is signed yet.
        """
        origin = self.ledger.origins[caller.tenant]
        return await self.records.transact(lambda tx: _checkpoint(tx, origin))

    def vkey(self, caller: Caller) -> str:
        """Return the log's verifier key (C2SP vkey)."""
        return self.signers[self.ledger.origins[caller.tenant]].vkey()

    async def inclusion(self, caller: Caller, event_id: str = "", index: int | None = None) -> Inclusion:
        """Return the proof that an event is in the log at its newest checkpoint.

        Raises:
            NotFound: No such event in the caller's tenant.
            StateConflict: The event is durable but not sequenced yet (detail `not_sequenced`).
        """
        origin = self.ledger.origins[caller.tenant]
        return await self.records.transact(lambda tx: self._inclusion(tx, origin, event_id, index))

    def _inclusion(self, tx: Transaction, origin: str, event_id: str, index: int | None) -> Inclusion:
        if event_id:
            leaf = tx.get(Leaf, event_id)
        else:
            leaf = next(iter(tx.find(Leaf, equal={"log": origin, "seq": index}, limit=1)), None)
        if leaf is None or leaf.log != origin:
            raise NotFound
        if leaf.seq is None:
            raise StateConflict("the event has no place yet", detail="not_sequenced")
        head = _checkpoint(tx, origin)
        hashes = tuple(tree.inclusion_proof(leaf.seq, head.size, _reader(tx, origin)))
        text = proof.write(index=leaf.seq, hashes=hashes, checkpoint=head.note, extra=leaf.line)
        return Inclusion(leaf.seq, head.size, hashes, head.note, text)

    async def consistency(self, caller: Caller, first: int, second: int) -> tuple[bytes, ...]:
        """Return the proof that the log of size `second` extends the log of size `first`.

        Raises:
            MessageInvalid: The sizes are not 0 < first <= second <= size.
        """
        origin = self.ledger.origins[caller.tenant]

        def read(tx: Transaction) -> tuple[bytes, ...]:
            head = _checkpoint(tx, origin)
            if not 0 < first <= second <= head.size:
                raise MessageInvalid("sizes", violations=(("from_size", "size.range"),))
            return tuple(tree.consistency_proof(first, second, _reader(tx, origin)))

        return await self.records.transact(read)

    async def export(self, caller: Caller) -> dict[str, bytes]:
        """Return the files of an export of the whole log.

        The export itself becomes an event, which lies after the exported range.
        """
        origin = self.ledger.origins[caller.tenant]

        def read(tx: Transaction) -> dict[str, bytes]:
            head = _checkpoint(tx, origin)
            leaves = tx.find(
                Leaf, equal={"log": origin}, above={"seq": -1}, order_by=("seq",), limit=head.size
            )
            packs = {pack.digest: pack.body for pack in tx.find(PackText)}
            files = export.build(
                origin=origin,
                checkpoint=head.note,
                entries=[leaf.line for leaf in leaves],
                packs=packs,
                signer=self.signers[origin],
            )
            self.ledger.record(
                tx,
                caller.tenant,
                "export.created",
                caller,
                **{"from": 0, "to": head.size},
                size=head.size,
                root=head.root.hex(),
            )
            return files

        return await self.records.transact(read)

    async def certificate_proof(self, caller: Caller, certificate: Certificate) -> Inclusion:
        """Return the inclusion proof of a certificate's leaf; see `inclusion`."""
        return await self.inclusion(caller, event_id=certificate.event_id)


def _checkpoint(tx: Transaction, origin: str) -> Checkpoint:
    head = tx.get(Checkpoint, origin)
    if head is None:
        raise AuditUnavailable("no checkpoint is signed yet")
    return head


def _reader(tx: Transaction, origin: str) -> tree.NodeReader:
    def read(level: int, index: int) -> bytes:
        node = tx.get(Node, origin, level, index)
        if node is None:
            raise AuditUnavailable("the tree has a hole", detail="node_missing")
        return node.hash

    return read
