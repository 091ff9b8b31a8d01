"""Checks the logs in the records against their tiles, heads and checkpoints; nothing is changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from audit import tiles, tree
from audit.checkpoint import Checkpoint as Head
from audit.errors import AuditError
from audit.fsck import CHECKPOINT, HEAD, FsckReport, Step, compare
from audit.leaf import leaf_hash
from audit.trust import Trust
from gateway.logs import newest_checkpoint, tile_reader
from gateway.ports.records import Checkpoint, Leaf, LogHead, Records, Tile, Transaction

T = TypeVar("T")
Ask = Callable[[Callable[[Transaction], T]], T]
BATCH = 4 * tiles.WIDTH
"""How many leaves are held at a time."""


@dataclass(frozen=True, slots=True)
class Fsck:
    """Checks what the records hold of each log.  It may run beside a gateway: what is sequenced stays.

    `trusts` says by origin whose signatures count, and what quorum a published checkpoint needs.
    """

    records: Records
    trusts: Mapping[str, Trust]

    async def run(self, origin: str, *, deep: bool = False, step: Step = lambda _entries: None) -> FsckReport:
        """Return whether leaves, tiles, head and newest checkpoint of a log fit; the first fault is named.

        In this order:
            (1) The newest checkpoint, and the note in the head, are signed as the trust
                asks, and not ahead of the head.
            (2) No leaf lies beyond the head or below the minimum index.
            (3) The tiles have the head's root, each tile the root that the one above says,
                and each leaf the hash in its tile.
            (4) The signed trees are pasts of this one, and each leaf's row has its hash.

        Raises:
            StoreUnavailable: The database does not answer.
        """
        loop = asyncio.get_running_loop()

        def ask(work: Callable[[Transaction], Any]) -> Any:
            return asyncio.run_coroutine_threadsafe(self.records.transact(work), loop).result()

        while True:
            check = _Check(origin, self.trusts[origin], ask, deep, step)
            report = await asyncio.to_thread(check.run)
            if report.verdict == "valid" or not await self.records.transact(check.is_outrun):
                return report


@dataclass(slots=True)
class _Check:
    """One check of one log, in a thread; `ask` runs a transaction on the loop."""

    origin: str
    trust: Trust
    ask: Ask[Any]
    deep: bool
    step: Step
    head: LogHead | None = None
    odd: int | None = field(default=None, init=False)

    def run(self) -> FsckReport:
        self.head, newest, strays = self.ask(self._standing)
        if self.head is None:
            if newest is None and not strays:
                return FsckReport("valid", origin=self.origin)
            return self._fault("head_missing", "there is none", HEAD)
        # (1)
        signed: list[tuple[str, Head]] = []
        try:
            if newest is not None:
                signed.append((CHECKPOINT, self.trust.open(newest.note)))
        except AuditError as error:
            return self._fault(error.code, _said(error), CHECKPOINT)
        try:
            if self.head.note:
                signed.append((HEAD, replace(self.trust, policy=None).open(self.head.note)))
        except AuditError as error:
            return self._fault(error.code, _said(error), HEAD)
        if newest is not None and signed[0][1] != Head(self.origin, newest.size, newest.root):
            return self._fault("checkpoint_row", "its row says something else", CHECKPOINT)
        for path, stated in signed:
            if stated.origin != self.origin or stated.size > self.head.size:
                return self._fault("head_behind", "another log, or a larger one, was signed", path)
        # (2)
        if strays:
            index = strays[0].seq or 0
            message = "it lies beyond the head" if index >= self.head.size else "it should be gone"
            return self._fault("row_stray", message, index=index)
        # (3)
        here = Head(self.origin, self.head.size, self.head.root)
        report = compare(
            self._read,
            (),
            self._rows(),
            head=here,
            min_index=self.head.min_index,
            deep=self.deep,
            step=self.step,
        )
        if report.verdict != "valid":
            return report
        # (4)
        for path, stated in signed:
            if self.ask(partial(_root, origin=self.origin, size=stated.size)) != stated.root:
                return self._fault("root_differs", "another tree than this one was signed", path)
        if self.odd is not None:
            return self._fault("row_hash", "the hash in its row is not its own", index=self.odd)
        return report

    def is_outrun(self, tx: Transaction) -> bool:
        """Return whether the log was pruned meanwhile, so that what was missing may have to be."""
        now = tx.get(LogHead, self.origin)
        return now is not None and self.head is not None and now.min_index != self.head.min_index

    def _standing(self, tx: Transaction) -> tuple[LogHead | None, Checkpoint | None, list[Leaf]]:
        head = tx.get(LogHead, self.origin)
        size, least = (head.size, head.min_index) if head is not None else (0, 0)
        mine = {"log": self.origin}
        strays = tx.find(Leaf, equal=mine, above={"seq": size - 1}, order_by=("seq",), limit=1)
        strays += tx.find(Leaf, equal=mine, below={"seq": least - 1}, order_by=("seq",), limit=1)
        return head, newest_checkpoint(tx, self.origin), strays

    def _read(self, path: str) -> bytes | None:
        place = tiles.parse_path(path)
        if place.level is None:
            start = place.index * tiles.WIDTH
            lines = [leaf.line for leaf in self._leaves(start, start + place.width)]
            return tiles.bundle(lines) if len(lines) == place.width else None
        found: Tile | None = self.ask(lambda tx: tx.get(Tile, self.origin, place.level or 0, place.index))
        return None if found is None else found.hashes[: place.width * tree.HASH_BYTES]

    def _rows(self) -> Iterator[Sequence[tuple[int, bytes]]]:
        assert self.head is not None  # noqa: S101 - tells mypy what `run` made sure of
        for start in range(self.head.min_index, self.head.size, BATCH):
            batch = self._leaves(start, min(start + BATCH, self.head.size))
            for leaf in batch:
                if self.odd is None and leaf_hash(leaf.line) != leaf.leaf_hash:
                    self.odd = leaf.seq
            yield [(leaf.seq or 0, leaf.line) for leaf in batch]

    def _leaves(self, start: int, end: int) -> list[Leaf]:
        found: list[Leaf] = self.ask(
            lambda tx: tx.find(
                Leaf,
                equal={"log": self.origin},
                above={"seq": start - 1},
                below={"seq": end - 1},
                order_by=("seq",),
            )
        )
        return found

    def _fault(self, code: str, message: str, path: str = "", index: int | None = None) -> FsckReport:
        where = path or f"the database, entry {index}"
        head = self.head
        return FsckReport(
            "invalid",
            fault=f"{code}: {where}: {message}",
            path=path,
            index=index,
            origin=self.origin,
            size=head.size if head else 0,
            root=head.root.hex() if head else "",
        )


def _said(error: AuditError) -> str:
    return str(error).partition(": ")[2] or "refused"


def _root(tx: Transaction, origin: str, size: int) -> bytes:
    return tree.root_of(size, tile_reader(tx, origin))
