"""Publishes signed heads: cosigned as the log's policy asks, then shown, then laid out as files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from audit import note, tiles, tree
from audit.checkpoint import parse
from audit.errors import AuditError, KeyRefused, QuorumNotMet
from audit.head import Checkpoint as Head
from audit.keys import KeyBook
from audit.quorum import Policy
from audit.schema import SIZE
from audit.trust import Trust
from gateway.errors import AuditUnavailable
from gateway.ledger import Ledger
from gateway.logkeys import read_book, turn
from gateway.logs import leaves, newest_checkpoint, tile_reader
from gateway.ports.clock import Clock
from gateway.ports.files import LogFiles
from gateway.ports.records import Checkpoint, LogHead, LogKeys, Records, Tile, Transaction, WitnessedSize
from gateway.ports.witness import Witness, WitnessConflict, WitnessRefused, WitnessUnavailable

STEP = 64 * tiles.WIDTH
"""How many leaves are laid out at a time."""
WITNESS_DEADLINE_S = 20.0
"""How long one witness may take over one head, all its calls together."""

COSIGNED = "cosigned"
FORKS = {"witness_ahead": "ahead", "witness_other_root": "root"}
"""Answers of a witness that knows another log than ours: nothing is published on top."""
DISPUTES = {**FORKS, "witness_proof_refused": "proof", "witness_lied": "lied"}
"""Answers that the log itself keeps, and the word for each in `log.disputed`."""
OUTAGES = frozenset({"witness_unavailable", "witness_timeout", "witness_busy", "witness_moved"})
"""Answers that say nothing about the log; `publish_failing` tells where they keep a head from its quorum."""


def alarm_of(code: str) -> str:
    """Return the alarm for a witness that answers so, and neither cosigns nor is away."""
    if code == "witness_lied":
        return code
    return "log_forked" if code in DISPUTES else "witness_refuses"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a witness said to a head: its lines, or why there are none (a code); and what size it knows."""

    code: str
    lines: tuple[str, ...] = ()
    known: int | None = None


@dataclass(frozen=True, slots=True)
class Publish:
    """The publisher of all tenants' logs.

    A head that does not get its quorum is not published: proofs then lead to the one
    before, while events are durable as ever.  The head at which the log's keys changed is
    published before any later one, however long that takes: a witness or monitor that
    knows the old keys alone sees it.  `policies` name the witnesses; the log's own
    keys are those of its book.

    `on_answer` hears what each witness answered, and whether that is a new objection: neither
    a cosignature nor an outage, nor what it answered last to a head of that log.  Where it knows another
    past of the log than ours, or its cosignature is none, the event `log.disputed`
    says so, once in the life of a process.  A witness that is away is asked about no
    further log in the same run, so that one that hangs costs one deadline.
    """

    records: Records
    clock: Clock
    ledger: Ledger
    policies: Mapping[str, Policy]
    witnesses: tuple[Witness, ...] = ()
    files: LogFiles | None = None
    on_answer: Callable[[str, str, bool], None] = lambda _witness, _code, _is_new: None
    deadline_s: float = WITNESS_DEADLINE_S
    _said: dict[tuple[str, str], str] = field(default_factory=dict, init=False, repr=False)

    async def run(self) -> int:
        """Publish what is signed and return how many logs moved on.

        Raises:
            AuditUnavailable: A log cannot be published (detail `quorum_not_met`, `log_forked`, or
                why the folder refuses); the others were tried all the same.
        """
        failures: list[AuditUnavailable] = []
        away: set[str] = set()
        moved = 0
        for origin in self.policies:
            try:
                moved += await self._publish(origin, away)
            except AuditUnavailable as failure:
                failures.append(failure)
        if failures:
            raise failures[0]
        return moved

    async def _publish(self, origin: str, away: set[str]) -> int:
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
                cosigned = await self._cosigned(book, text, signed, away)
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

    async def _cosigned(self, book: KeyBook, text: str, head: Head, away: set[str]) -> str:
        """Return the note with the witnesses' cosignatures; add to `away` those that do not answer.

        Raises:
            AuditUnavailable: They do not make the quorum, or one knows another log.
        """
        trust = Trust(book, self.policies[head.origin])
        _open(trust, text)  # what we would not publish ourselves, nobody is asked to cosign
        asked = [witness for witness in self.witnesses if witness.name not in away]
        answers = await asyncio.gather(*(self._ask(witness, text, head, trust) for witness in asked))
        for witness, answer in zip(asked, answers, strict=True):
            await self._hear(witness, answer, head)
            if answer.code in OUTAGES:
                away.add(witness.name)
            if answer.lines:
                text = note.add_signatures(text, answer.lines)
        if any(answer.code in FORKS for answer in answers):
            raise AuditUnavailable("a witness knows another log", detail="log_forked")
        if not _open(trust, text):
            raise AuditUnavailable("too few witnesses have cosigned", detail="quorum_not_met")
        return text

    async def _ask(self, witness: Witness, text: str, head: Head, trust: Trust) -> Answer:
        """Return what the witness answers within the deadline; lines are true cosignatures."""
        try:
            async with asyncio.timeout(self.deadline_s):
                answer = await self._add(witness, text, head)
        except TimeoutError:
            return Answer("witness_timeout")
        try:
            if answer.lines:
                _open(trust, note.add_signatures(text, answer.lines))
        except (AuditError, AuditUnavailable):
            return Answer("witness_lied")
        return answer

    async def _add(self, witness: Witness, text: str, head: Head) -> Answer:
        origin, size = head.origin, head.size
        old = await self.records.transact(partial(_seen, origin=origin, witness=witness.name))
        for _ in range(2):
            proof = await self.records.transact(partial(_consistency, origin=origin, first=old, second=size))
            try:
                lines = await witness.add_checkpoint(old, proof, text)
            except WitnessConflict as conflict:
                if conflict.size == old:
                    return Answer("witness_other_root", known=old)
                if await self._is_beyond(origin, conflict.size):
                    return Answer("witness_ahead", known=conflict.size)
                if conflict.size > size:
                    return Answer("witness_moved")  # another process has published a later head
                old = conflict.size
            except (WitnessUnavailable, WitnessRefused) as refusal:
                return Answer(refusal.code, known=old if refusal.code == "witness_proof_refused" else None)
            else:
                await self.records.transact(partial(_saw, row=WitnessedSize(origin, witness.name, size)))
                return Answer(COSIGNED, lines)
        return Answer("witness_moved")

    async def _hear(self, witness: Witness, answer: Answer, head: Head) -> None:
        """Tell what a witness answered, and write it into the log where it is about the log."""
        place = (head.origin, witness.name)
        is_new = answer.code not in {COSIGNED, *OUTAGES} and answer.code != self._said.get(place)
        if is_new and answer.code in DISPUTES:
            await self.records.transact(
                partial(self._dispute, witness=witness.name, answer=answer, head=head)
            )
        if answer.code not in OUTAGES:
            self._said[place] = answer.code
        self.on_answer(witness.name, answer.code, is_new)

    def _dispute(self, tx: Transaction, witness: str, answer: Answer, head: Head) -> None:
        tenant = next(name for name, origin in self.ledger.origins.items() if origin == head.origin)
        keys = [known.verifier for known in self.policies[head.origin].witnesses]
        self.ledger.record(
            tx,
            tenant,
            "log.disputed",
            None,
            why=DISPUTES[answer.code],
            wit=[key.key_id.hex() for key in keys if key.name == witness],
            size=head.size,
            known=answer.known if SIZE(answer.known) else None,  # a stranger's number may be any
        )

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


def _open(trust: Trust, text: str) -> bool:
    """Return whether a head that is signed as it should be has its quorum, too.

    Raises:
        AuditUnavailable: It is not signed so.
    """
    try:
        trust.open(text)
    except QuorumNotMet:
        return False
    except AuditError as error:
        raise AuditUnavailable("the head is not as the policy asks", detail=error.code) from error
    return True


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
