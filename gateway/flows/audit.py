"""Shows the log: events, checkpoints, proofs, exports, certificates."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from importlib.metadata import version

from audit import export, note, payloads, proof, tiles, tree
from audit import leaf as leaf_codec
from audit.derive import derive
from audit.errors import ExportInvalid, KeyRefused
from audit.head import parse
from audit.note import Signer
from audit.quorum import Policy
from gateway.caller import Caller
from gateway.errors import AuditUnavailable, MessageInvalid, NotFound, RateLimited, StateConflict
from gateway.ledger import Ledger
from gateway.logkeys import is_rekeyed, key_book, policy_at
from gateway.logs import leaves, newest_checkpoint, pruned, refuse_pruned, tile_reader
from gateway.paging import DEFAULT_SIZE, MAX_SIZE, Page, open_token, seal_token
from gateway.ports.records import (
    Checkpoint,
    Leaf,
    LogHead,
    PackText,
    Records,
    SealedPayload,
    SubjectKey,
    Tile,
    Transaction,
)
from gateway.vault.custody import Custody
from gateway.vault.errors import SealBroken
from gateway.vault.payload import PayloadKey

EXPORT_BATCH = 2000
TILE_BATCH = 256
"""How many tiles are read at a time: 2 MiB."""
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Inclusion:
    """An inclusion proof with the checkpoint it leads to, and the same as a C2SP tlog-proof file."""

    index: int
    size: int
    hashes: tuple[bytes, ...]
    note: str
    tlog_proof: str


@dataclass(frozen=True, slots=True)
class Wish:
    """Which part of the log is to be exported, for whom, and on what terms (`export.Terms`, `export.Filter`).

    `end` and `size` of 0 mean up to the newest checkpoint.  `complete` adds the
    hashes of what a filter leaves out.
    """

    start: int = 0
    end: int = 0
    size: int = 0
    previous: int = 0
    types: tuple[str, ...] = ()
    from_ms: int | None = None
    until_ms: int | None = None
    complete: bool = False
    disclosed: tuple[str, ...] = ()
    expires_ms: int | None = None
    recipient: str = "auditor"
    purpose: str = "audit"


@dataclass(frozen=True, slots=True)
class Audit:
    """Reads one tenant's log; what an auditor gets can be verified without us."""

    records: Records
    ledger: Ledger
    signers: Mapping[str, tuple[Signer, ...]]
    policies: Mapping[str, Policy]
    custody: Custody
    _exporting: asyncio.Lock = field(default_factory=asyncio.Lock, init=False, repr=False)

    async def events(
        self,
        caller: Caller,
        ty: str,
        size: int,
        token: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Page[Leaf]:
        """Return a page of sequenced leaves, oldest first, of one event type where `ty` is given.

        `since` is the first instant, `until` the one after the last.  The first leaf is the
        oldest that is kept: the log may be pruned.  All pages are of the log as it was
        at the first.
        """
        origin = self.ledger.origins[caller.tenant]
        limit = min(size or DEFAULT_SIZE, MAX_SIZE)
        query = ("events", origin, ty, str(since or ""), str(until or ""))
        early = {"queued_at": since - _TICK} if since is not None else {}
        late = {"queued_at": until - _TICK} if until is not None else {}
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
                above={"seq": after, **early},
                below={"seq": last - 1, **late},
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

    async def keys(self, caller: Caller) -> tuple[str, ...]:
        """Return the lines of the log's `keys.txt`: verifier keys, with the sizes that they may sign.

        Raises:
            AuditUnavailable: The log was never signed, or its keys are gone.
        """
        origin = self.ledger.origins[caller.tenant]
        book = await self.records.transact(partial(key_book, origin=origin))
        return tuple(key.line() for key in book.keys)

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
            NotFound: No such event in the caller's tenant, or none of that id is kept.
            StateConflict: The event is durable but not sequenced yet (detail `not_sequenced`), or the one
                at that place is not kept any more (`range.pruned`).
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
            refuse_pruned(tx, origin, index or 0)
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

    async def export(self, caller: Caller, wish: Wish) -> dict[str, bytes]:
        """Return the files of an export.

        A wish that begins at 0 means the oldest event that is kept; the export says where it begins.
        The export itself becomes an event, which lies after the exported range.  It
        is read in short transactions and built in a thread: nobody waits for it.

        Raises:
            RateLimited: Another export is being made.
            NotFound: No checkpoint of that size is kept.
            MessageInvalid: The wish contradicts itself or the log.
            StateConflict: Events are asked for that are not kept any more (detail `range.pruned`), or a
                payload was erased meanwhile (`erased_meanwhile`).
            KeyServiceUnavailable: Payloads are to be disclosed and cannot be opened now.
            AuditUnavailable: Our keys are not those of the log today (detail `log_key_retired`, ...).
            StateConflict: A key that signed the checkpoint is revoked at its size (detail `key_revoked`).
        """
        if self._exporting.locked():
            raise RateLimited("another export is being made")
        async with self._exporting:
            origin = self.ledger.origins[caller.tenant]
            head, first = await self.records.transact(partial(_keep_head, origin=origin, size=wish.size))
            end = wish.end or head.size
            if 0 < end <= first:
                raise pruned(first)
            wish = replace(wish, start=wish.start or first)
            if not wish.start <= end <= head.size or not 0 <= (wish.previous or 0) <= head.size:
                raise MessageInvalid("range", violations=(("to_index", "range.outside"),))
            try:
                asked = export.Filter(wish.types, wish.from_ms, wish.until_ms)
                terms = export.Terms(
                    wish.recipient, wish.purpose, f"lethe/{version('lethe')}", wish.disclosed, wish.expires_ms
                )
            except ExportInvalid as error:
                raise MessageInvalid("terms", violations=(("terms", f"export.{error.code}"),)) from error
            kind: export.Kind = "hashes" if wish.complete else "events"
            if asked == export.Filter():
                kind = "range"
            entries: list[tuple[int, bytes]] = []
            found: list[payloads.Payload] = []
            erasers: dict[int, bytes] = {}
            for start in range(wish.start, end, EXPORT_BATCH):
                rows = await self.records.transact(
                    partial(leaves, origin=origin, start=start, end=min(start + EXPORT_BATCH, end))
                )
                chosen = [leaf for leaf in rows if asked.admits(leaf_codec.decode(leaf.line))]
                entries += [(leaf.seq or 0, leaf.line) for leaf in chosen]
                if kind == "events" and len(entries) > export.MAX_PROOFS:
                    # `build` says so, too; here nothing more is read.
                    violation = ("export", "export.selection_too_large")
                    raise MessageInvalid("export", violations=(violation,))
                found += await self._payloads(origin, chosen, wish.disclosed, erasers)
            packs = await self.records.transact(lambda tx: {p.digest: p.body for p in tx.find(PackText)})
            beyond = max(erasers, default=-1)
            later = await self.records.transact(partial(_later, origin=origin, size=head.size, beyond=beyond))
            places = {index for index, _ in entries}
            needed = export.tiles_needed(
                size=head.size,
                start=wish.start,
                end=end,
                kind=kind,
                places=places,
                previous=wish.previous,
                erasures=erasers.keys() - places,
                later=later.size if later else 0,
            )
            nodes = await self._nodes(origin, sorted(needed))
            # Read last: no note above can be by a key that is newer than this.
            book = await self.records.transact(partial(key_book, origin=origin))
            is_rekeyed(book, self.signers[origin])  # raises unless our keys are those that stand
            sizes = [parse(note.parse(text)[0]).size for text in (head.note, later and later.note) if text]
            try:
                files = await asyncio.to_thread(
                    export.build,
                    origin=origin,
                    checkpoint=head.note,
                    keys=book.text(),
                    policy=policy_at(self.policies[origin], book, *sizes).text(),
                    start=wish.start,
                    end=end,
                    entries=entries,
                    nodes=nodes,
                    packs=packs,
                    signer=self.signers[origin][0],
                    terms=terms,
                    kind=kind,
                    asked=asked,
                    previous=wish.previous or None,
                    found=found,
                    erasures=erasers,
                    later=later.note if later else None,
                    timestamp=head.timestamp,
                    derive=derive,
                )
            except ExportInvalid as error:
                raise MessageInvalid("export", violations=(("export", f"export.{error.code}"),)) from error
            except KeyRefused as error:
                raise StateConflict("a revoked key has signed that checkpoint", detail=error.code) from error
            await self.records.transact(
                partial(self._log_export, caller=caller, head=head, wish=wish, end=end, files=files)
            )
            return files

    async def _nodes(self, origin: str, places: Sequence[tuple[int, int]]) -> tree.NodeReader:
        """Return what reads the tree from those tiles without the database, since tiles only grow."""
        held: dict[tuple[int, int], bytes] = {}
        for at in range(0, len(places), TILE_BATCH):
            some = places[at : at + TILE_BATCH]
            held |= await self.records.transact(partial(_tiles, origin=origin, places=some))
        return tiles.reader(lambda level, index: held.get((level, index), b""))

    async def _payloads(
        self, origin: str, shown: Sequence[Leaf], disclosed: Sequence[str], erasers: dict[int, bytes]
    ) -> list[payloads.Payload]:
        """Return what became of each payload of these leaves; note the leaves that erased some."""
        kept, by = await self.records.transact(partial(_sealed, origin=origin, shown=shown))
        states: list[payloads.Payload] = []
        for leaf in shown:
            index = leaf.seq or 0
            for slot, entry in enumerate(leaf_codec.decode(leaf.line)["seals"]):
                row = kept.get((leaf.event_id, slot))
                eraser = by.get(row.erased_by) if row is not None else None
                if eraser is not None and eraser.seq is not None:
                    erasers[eraser.seq] = eraser.line
                    states.append(payloads.Payload(index, slot, "erased", by=eraser.seq))
                elif row is not None and row.blob and entry[1] in disclosed:
                    salt, payload = await self._opened(origin, row, entry)
                    states.append(payloads.Payload(index, slot, "opened", salt=salt, payload=payload))
                else:
                    states.append(payloads.Payload(index, slot, "withheld"))
        return states

    async def _opened(self, origin: str, row: SealedPayload, entry: list[str]) -> tuple[bytes, bytes]:
        holder = await self.records.transact(lambda tx: tx.get(SubjectKey, row.key_id))
        if holder is None:
            raise StateConflict(
                "a payload was erased while it was exported; ask again", detail="erased_meanwhile"
            )
        key = PayloadKey.of(holder, await self.custody.open(holder))
        try:
            return key.open(origin, entry, row.blob)
        except SealBroken as error:
            raise AuditUnavailable("a payload is damaged", detail="payload_damaged") from error

    def _log_export(
        self,
        tx: Transaction,
        caller: Caller,
        head: Checkpoint,
        wish: Wish,
        end: int,
        files: Mapping[str, bytes],
    ) -> None:
        by_type, by_time = bool(wish.types), wish.from_ms is not None or wish.until_ms is not None
        self.ledger.record(
            tx,
            caller.tenant,
            "export.created",
            caller,
            sealed=(),
            size=head.size,
            root=head.root.hex(),
            man=hashlib.sha256(files[export.MANIFEST]).hexdigest(),
            prev=wish.previous or None,
            open=list(wish.disclosed) or None,
            filt="type" if by_type else "time" if by_time else "all",
            **{"from": wish.start, "to": end},
        )


def _keep_head(tx: Transaction, origin: str, size: int) -> tuple[Checkpoint, int]:
    """Return the checkpoint of that size, or the newest, and the log's minimum index.

    The checkpoint is kept for good: an export is made of it.
    """
    found = tx.get(Checkpoint, origin, size) if size else _checkpoint(tx, origin)
    if found is None:
        raise NotFound
    if not found.is_kept:
        found = replace(found, is_kept=True)
        tx.put(found)
    log = tx.get(LogHead, origin)
    return found, log.min_index if log is not None else 0


def _later(tx: Transaction, origin: str, size: int, beyond: int) -> Checkpoint | None:
    """Return the newest checkpoint where a leaf lies beyond `size`."""
    newest = _checkpoint(tx, origin)
    return newest if size <= beyond < newest.size else None


def _tiles(tx: Transaction, origin: str, places: Sequence[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
    """Return the hashes of those tiles that there are, by (level, index)."""
    held: dict[tuple[int, int], bytes] = {}
    for level in {level for level, _ in places}:
        among = {"index": [index for at, index in places if at == level]}
        for tile in tx.find(Tile, equal={"log": origin, "level": level}, among=among):
            held[level, tile.index] = tile.hashes
    return held


def _sealed(
    tx: Transaction, origin: str, shown: Sequence[Leaf]
) -> tuple[dict[tuple[str, int], SealedPayload], dict[str, Leaf]]:
    """Return the payload rows of leaves, and the published leaves that say that some were erased."""
    rows = tx.find(SealedPayload, among={"event_id": [leaf.event_id for leaf in shown]})
    size = _checkpoint(tx, origin).size
    by = {name: tx.get(Leaf, name) for name in {row.erased_by for row in rows if row.erased_by}}
    return (
        {(row.event_id, row.slot): row for row in rows},
        {name: leaf for name, leaf in by.items() if leaf and leaf.seq is not None and leaf.seq < size},
    )


def _checkpoint(tx: Transaction, origin: str) -> Checkpoint:
    found = newest_checkpoint(tx, origin)
    if found is None:
        raise AuditUnavailable("no checkpoint is published yet")
    return found
