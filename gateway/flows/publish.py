"""Publishes signed heads: cosigned as the log's policy asks, then shown, then laid out as files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from audit import note, tiles, tree
from audit.checkpoint import parse
from audit.errors import AuditError, KeyRefused, QuorumNotMet
from audit.head import Checkpoint as Head
from audit.keys import KeyBook
from audit.quorum import Policy
from audit.trust import Trust
from gateway.errors import AuditUnavailable
from gateway.logkeys import read_book, turn
from gateway.logs import leaves, newest_checkpoint, tile_reader
from gateway.ports.clock import Clock
from gateway.ports.files import LogFiles
from gateway.ports.records import Checkpoint, LogHead, LogKeys, Records, Tile, Transaction, WitnessedSize
from gateway.ports.witness import Witness, WitnessConflict, WitnessRefused, WitnessUnavailable

STEP = 64 * tiles.WIDTH
"""How many leaves are laid out at a time."""


@dataclass(frozen=True, slots=True)
class Publish:
    """The publisher of all tenants' logs.

    A head that does not get its quorum is not published: proofs then lead to the one
    before, while events are durable as ever.  The head at which the log's keys changed is
    published before any later one, however long that takes: a witness or monitor that
    knows the old keys alone sees it.  `policies` name the witnesses; the log's own
    keys are those of its book.  `on_fork` hears of the origin where a
    witness knows more of a log than we do: it fell back, or somebody forked it.
    """

    records: Records
    clock: Clock
    policies: Mapping[str, Policy]
    witnesses: tuple[Witness, ...] = ()
    files: LogFiles | None = None
    on_fork: Callable[[str], None] = lambda _origin: None

    async def run(self) -> int:
        """Publish what is signed and return how many logs moved on.

        Raises:
            AuditUnavailable: A log cannot be published (detail `quorum_not_met`, `log_forked`, or
                why the folder refuses); the others were tried all the same.
        """
        failures: list[AuditUnavailable] = []
        moved = 0
        for origin in self.policies:
            try:
                moved += await self._publish(origin)
            except AuditUnavailable as failure:
                failures.append(failure)
        if failures:
            raise failures[0]
        return moved

    async def _publish(self, origin: str) -> int:
        head, keys, newest = await self.records.transact(partial(_standing, origin=origin))
        if head is None or keys is None or not head.note:
            return 0
        book, moved = read_book(keys), 0
        is_first = (newest.size if newest is not None else 0) < turn(book) and _is_believed(
            book, keys.handover
        )
        for text in (keys.handover, head.note) if is_first else (head.note,):
            signed = parse(note.parse(text)[0])
            if newest is None or newest.size < signed.size:
                cosigned = await self._cosigned(book, text, signed)
                is_kept = text == keys.handover
                newest = Checkpoint(
                    origin, signed.size, signed.root, cosigned, self.clock.now(), is_kept=is_kept
                )
                await self.records.transact(partial(_keep, newest=newest))
                moved = 1
            if self.files is not None:
                await self._lay_out(self.files, newest)
        return moved

    # Witnesses.

    async def _cosigned(self, book: KeyBook, text: str, head: Head) -> str:
        """Return the note with the witnesses' cosignatures.

        Raises:
            AuditUnavailable: They do not make the quorum.
        """
        asked = [self._ask(head.origin, witness, text, head.size) for witness in self.witnesses]
        for lines in await asyncio.gather(*asked):
            if lines:
                text = note.add_signatures(text, lines)
        try:
            Trust(book, self.policies[head.origin]).open(text)
        except QuorumNotMet as error:
            raise AuditUnavailable("too few witnesses have cosigned", detail="quorum_not_met") from error
        except AuditError as error:
            raise AuditUnavailable("the head is not as the policy asks", detail=error.code) from error
        return text

    async def _ask(self, origin: str, witness: Witness, text: str, size: int) -> tuple[str, ...]:
        """Return the witness's lines, or none where it does not answer or will not."""
        old = await self.records.transact(partial(_seen, origin=origin, witness=witness.name))
        for _ in range(2):
            proof = await self.records.transact(partial(_consistency, origin=origin, first=old, second=size))
            try:
                lines = await witness.add_checkpoint(old, proof, text)
            except WitnessConflict as conflict:
                if conflict.size == old or await self._is_beyond(origin, conflict.size):
                    self.on_fork(origin)
                    raise AuditUnavailable("a witness knows another log", detail="log_forked") from conflict
                if conflict.size > size:
                    return ()  # another process has published a later head
                old = conflict.size
            except (WitnessUnavailable, WitnessRefused):
                return ()
            else:
                await self.records.transact(partial(_saw, row=WitnessedSize(origin, witness.name, size)))
                return lines
        return ()

    async def _is_beyond(self, origin: str, size: int) -> bool:
        head, *_ = await self.records.transact(partial(_standing, origin=origin))
        return head is None or size > head.size

    # Files.

    async def _lay_out(self, files: LogFiles, newest: Checkpoint) -> None:
        """Write the tiles and bundles up to the checkpoint, then the checkpoint itself."""
        shown = await files.size(newest.log)
        if shown >= newest.size:
            return
        for start, end in _steps(shown, newest.size):
            made = await self.records.transact(
                partial(_files, origin=newest.log, start=start, end=end, size=newest.size)
            )
            await files.put(newest.log, made)
        await files.show(newest.log, newest.note)


def _standing(tx: Transaction, origin: str) -> tuple[LogHead | None, LogKeys | None, Checkpoint | None]:
    return tx.get(LogHead, origin), tx.get(LogKeys, origin), newest_checkpoint(tx, origin)


def _is_believed(book: KeyBook, handover: str) -> bool:
    """Return whether there is a handover that no key has signed which was revoked since."""
    try:
        return bool(handover) and book.open(handover).size > 0
    except KeyRefused:
        return False


def _keep(tx: Transaction, newest: Checkpoint) -> None:
    """Keep the new checkpoint, and those before it only where they are needed for good."""
    if tx.get(Checkpoint, newest.log, newest.size) is None:
        tx.add(newest)
    tx.discard(Checkpoint, equal={"log": newest.log, "is_kept": False}, below={"size": newest.size - 1})


def _seen(tx: Transaction, origin: str, witness: str) -> int:
    row = tx.get(WitnessedSize, origin, witness)
    return row.size if row is not None else 0


def _saw(tx: Transaction, row: WitnessedSize) -> None:
    if tx.get(WitnessedSize, row.log, row.witness) is None:
        tx.add(row)
    else:
        tx.put(row)


def _consistency(tx: Transaction, origin: str, first: int, second: int) -> tuple[bytes, ...]:
    if not 0 < first < second:
        return ()
    return tuple(tree.consistency_proof(first, second, tile_reader(tx, origin)))


def _steps(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield ranges that end at whole steps, but for the last."""
    while start < end:
        stop = min((start // STEP + 1) * STEP, end)
        yield start, stop
        start = stop


def _files(tx: Transaction, origin: str, start: int, end: int, size: int) -> dict[str, bytes]:
    """Return the files that leaves [start, end) bring about, as a tree of `size` leaves has them."""
    made: dict[str, bytes] = {}
    first, last = start // tiles.WIDTH, (end - 1) // tiles.WIDTH
    head = tx.get(LogHead, origin)
    min_index = head.min_index if head is not None else 0
    for index in range(first, last + 1):
        if (index + 1) * tiles.WIDTH > min_index:
            kept = leaves(tx, origin, index * tiles.WIDTH, min(size, (index + 1) * tiles.WIDTH))
            lines = [leaf.line for leaf in kept]
            made[tiles.entries_path(index, len(lines))] = tiles.bundle(lines)
    level = 0
    while first << (tiles.HEIGHT * level) < size or level == 0:
        for index in range(first, last + 1):
            width = tiles.width(level, index, size)
            tile = tx.get(Tile, origin, level, index) if width else None
            if tile is None or len(tile.hashes) < width * tree.HASH_BYTES:
                if width:
                    raise AuditUnavailable("the tree has a hole", detail="tile_missing")
                continue
            made[tiles.tile_path(level, index, width)] = tile.hashes[: width * tree.HASH_BYTES]
        if not size >> (tiles.HEIGHT * (level + 1)):
            break
        first, last, level = first // tiles.WIDTH, last // tiles.WIDTH, level + 1
    return made
