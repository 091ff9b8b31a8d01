"""Shows the log: events, checkpoints, proofs, exports, certificates."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version

from audit import export, payloads, proof, tree
from audit.derive import derive
from audit.note import Signer
from gateway.caller import Caller
from gateway.errors import AuditUnavailable, MessageInvalid, NotFound, RateLimited, StateConflict
from gateway.ledger import Ledger
from gateway.logs import leaves, newest_checkpoint, tile_reader
from gateway.paging import DEFAULT_SIZE, MAX_SIZE, Page, open_token, seal_token
from gateway.ports.records import Checkpoint, Leaf, LogHead, PackText, Records, Transaction

EXPORT_BATCH = 2000


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
    signers: Mapping[str, tuple[Signer, ...]]
    _exporting: asyncio.Lock = field(default_factory=asyncio.Lock, init=False, repr=False)

    async def events(self, caller: Caller, ty: str, size: int, token: str) -> Page[Leaf]:
        """Return a page of sequenced leaves, oldest first, of one event type where `ty` is given.

        All pages are of the log as it was at the first.
        """
        origin = self.ledger.origins[caller.tenant]
        limit = min(size or DEFAULT_SIZE, MAX_SIZE)
        query = ("events", origin, ty)
        try:
            after, end = map(int, (open_token(token, query) or "-1:-1").split(":"))
        except ValueError as error:
            raise MessageInvalid("page_token", violations=(("page_token", "page_token.unknown"),)) from error
        equal = {"log": origin} | ({"ty": ty} if ty else {})

        def read(tx: Transaction) -> tuple[list[Leaf], int]:
            # Reading is an event itself: later pages must not chase what they make.
            head = tx.get(LogHead, origin)
            last = end if end >= 0 else (head.size if head else 0)
            rows = tx.find(
                Leaf,
                equal=equal,
                above={"seq": after},
                below={"seq": last - 1},
                order_by=("seq",),
                limit=limit + 1,
            )
            self._log_read(tx, caller, "AuditService/ListEvents", rows[:limit])
            return rows, last

        rows, last = await self.records.transact(read)
        more = len(rows) > limit
        following = seal_token(f"{rows[limit - 1].seq}:{last}", query) if more else ""
        return Page(tuple(rows[:limit]), following)

    async def checkpoint(self, caller: Caller) -> Checkpoint:
        """Return the newest checkpoint.

        Raises:
            AuditUnavailable: None is signed yet.
        """
        origin = self.ledger.origins[caller.tenant]
        return await self.records.transact(lambda tx: _checkpoint(tx, origin))

    def vkeys(self, caller: Caller) -> tuple[str, ...]:
        """Return the log's verifier keys (C2SP vkeys)."""
        return tuple(signer.vkey() for signer in self.signers[self.ledger.origins[caller.tenant]])

    def _log_read(self, tx: Transaction, caller: Caller, method: str, shown: Sequence[Leaf]) -> None:
        """Write that leaves were shown, and from where to where: who reads the log is in the log."""
        places = [leaf.seq for leaf in shown if leaf.seq is not None]
        span = {"from": min(places), "to": max(places) + 1} if places else {}
        self.ledger.record(
            tx, caller.tenant, "audit.read", caller, sealed=(), mthd=method, nrow=len(shown), **span
        )

    async def inclusion(
        self,
        caller: Caller,
        event_id: str = "",
        index: int | None = None,
        *,
        method: str = "AuditService/GetInclusionProof",
    ) -> Inclusion:
        """Return the proof that an event is in the log at its newest checkpoint.

        `method` is what was called, for the log: a proof shows its leaf.

        Raises:
            NotFound: No such event in the caller's tenant.
            StateConflict: The event is durable but not sequenced yet (detail `not_sequenced`).
        """
        origin = self.ledger.origins[caller.tenant]

        def read(tx: Transaction) -> Inclusion:
            leaf, proved = self._inclusion(tx, origin, event_id, index)
            self._log_read(tx, caller, method, [leaf])
            return proved

        return await self.records.transact(read)

    def _inclusion(
        self, tx: Transaction, origin: str, event_id: str, index: int | None
    ) -> tuple[Leaf, Inclusion]:
        if event_id:
            leaf = tx.get(Leaf, event_id)
        else:
            leaf = next(iter(tx.find(Leaf, equal={"log": origin, "seq": index}, limit=1)), None)
        if leaf is None or leaf.log != origin:
            raise NotFound
        if leaf.seq is None:
            raise StateConflict("the event has no place yet", detail="not_sequenced")
        head = _checkpoint(tx, origin)
        if leaf.seq >= head.size:
            raise StateConflict("the event is not published yet", detail="not_sequenced")
        hashes = tuple(tree.inclusion_proof(leaf.seq, head.size, tile_reader(tx, origin)))
        text = proof.write(index=leaf.seq, hashes=hashes, checkpoint=head.note, extra=leaf.line)
        return leaf, Inclusion(leaf.seq, head.size, hashes, head.note, text)

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
            return tuple(tree.consistency_proof(first, second, tile_reader(tx, origin)))

        return await self.records.transact(read)

    async def export(self, caller: Caller) -> dict[str, bytes]:
        """Return the files of an export of the whole log.

        The export itself becomes an event, which lies after the exported range.  It
        is read in short transactions and built in a thread: nobody waits for it.

        Raises:
            RateLimited: Another export is being made.
        """
        if self._exporting.locked():
            raise RateLimited("another export is being made")
        async with self._exporting:
            origin = self.ledger.origins[caller.tenant]
            head = await self.checkpoint(caller)
            entries: list[bytes] = []
            while len(entries) < head.size:
                entries += await self.records.transact(
                    partial(_lines, origin=origin, start=len(entries), end=head.size)
                )
            packs = await self.records.transact(lambda tx: {p.digest: p.body for p in tx.find(PackText)})
            files = await asyncio.to_thread(self._build, origin, head, entries, packs)
            await self.records.transact(lambda tx: self._log_export(tx, caller, head))
            return files

    def _build(
        self, origin: str, head: Checkpoint, entries: list[bytes], packs: Mapping[str, bytes]
    ) -> dict[str, bytes]:
        """Return the export of the whole log; payloads are withheld."""
        signer = self.signers[origin][0]
        reading = export.read(enumerate(entries))
        return export.build(
            origin=origin,
            checkpoint=head.note,
            keys="".join(f"{key.vkey()}\n" for key in self.signers[origin]),
            policy=export.trust_policy(signer.verifier),
            start=0,
            end=head.size,
            entries=enumerate(entries),
            nodes=_no_nodes,
            packs=packs,
            signer=signer,
            terms=export.Terms("auditor", "audit", f"lethe/{version('lethe')}"),
            found=payloads.withheld(reading.placed()),
            derive=derive,
        )

    def _log_export(self, tx: Transaction, caller: Caller, head: Checkpoint) -> None:
        self.ledger.record(
            tx,
            caller.tenant,
            "export.created",
            caller,
            sealed=(),
            size=head.size,
            root=head.root.hex(),
            **{"from": 0, "to": head.size},
        )


def _no_nodes(_level: int, _index: int) -> bytes:
    """Nothing lies outside the whole log."""
    raise AuditUnavailable("the tree has a hole", detail="node_missing")


def _lines(tx: Transaction, origin: str, start: int, end: int) -> list[bytes]:
    """Return the next leaves of a range, at least one."""
    return [leaf.line for leaf in leaves(tx, origin, start, min(start + EXPORT_BATCH, end))]


def _checkpoint(tx: Transaction, origin: str) -> Checkpoint:
    found = newest_checkpoint(tx, origin)
    if found is None:
        raise AuditUnavailable("no checkpoint is published yet")
    return found
