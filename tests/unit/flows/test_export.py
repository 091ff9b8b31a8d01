"""What an export reads of a large log: its range, and a few tiles beside it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeVar

import pytest
import pytest_asyncio

from audit import checkpoint, leaf, tiles, tree
from audit.keys import KeyBook
from audit.verify import verify_export
from gateway.errors import MessageInvalid
from gateway.flows.audit import Audit, Wish
from gateway.ports.records import Checkpoint, Leaf, LogHead, LogKeys, Records, Tile, Transaction
from tests.world import OFFICER, ORIGIN, World

pytestmark = pytest.mark.asyncio(loop_scope="module")

T = TypeVar("T")
SIZE = 200_000
BEFORE = 150_000
"""Size of the checkpoint that the recipient had last."""
HELD = range(120_000, 120_640)
"""The leaves that there are; of all others only the hashes are."""
ALL_TILES = 782 + 4 + 1


@dataclass
class Counted:
    """A transaction that counts the rows it reads."""

    inner: Transaction
    read: Counter[type]

    def get(self, kind: Any, *key: Any) -> Any:
        found = self.inner.get(kind, *key)
        self.read[kind] += found is not None
        return found

    def find(self, kind: Any, **conditions: Any) -> Any:
        found = self.inner.find(kind, **conditions)
        self.read[kind] += len(found)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@dataclass
class CountedRecords:
    inner: Records
    read: Counter[type] = field(default_factory=Counter)
    most: Counter[type] = field(default_factory=Counter)
    """The most rows of a kind that one transaction read."""

    async def transact(self, work: Callable[[Transaction], T]) -> T:
        counted: Counter[type] = Counter()
        result = await self.inner.transact(lambda tx: work(Counted(tx, counted)))  # type: ignore[arg-type]
        self.read += counted
        self.most |= counted
        return result


@dataclass
class Large:
    """A log of 200,000 leaves."""

    world: World
    audit: Audit
    records: CountedRecords

    async def export(self, **wish: Any) -> tuple[dict[str, bytes], int]:
        """Return an export that is valid, and how many tiles were read for it."""
        self.records.read.clear()
        self.records.most.clear()
        files = await self.audit.export(OFFICER, Wish(**wish))
        keys = "".join(f"{signer.vkey()}\n" for signer in self.world.signers[ORIGIN])
        report = verify_export(files, keys)
        assert (report.verdict, report.fault) == ("valid", "")
        return files, self.records.read[Tile]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def log() -> Large:
    w = World()
    kinds = {0: "log.pruned", 1: "audit.read"}
    fields: dict[str, dict[str, Any]] = {
        "log.pruned": {"to": 256},
        "audit.read": {"mthd": "AuditService/ListEvents", "nrow": 1},
    }
    at = w.clock.now()
    rows: list[Leaf] = []
    for place in HELD:
        ty = kinds[place % 8 == 0]
        made = leaf.new_event(
            ty,
            at_ms=int(at.timestamp() * 1000),
            actor="sys:lethe",
            random=lambda size, place=place: hashlib.sha256(place.to_bytes(8, "big")).digest()[:size],
            **fields[ty],
        )
        line = leaf.encode(made)
        rows.append(Leaf(str(made["id"]), ORIGIN, ty, line, tree.hash_leaf(line), at, place))
    hashes = [hashlib.sha256(place.to_bytes(8, "big")).digest() for place in range(SIZE)]
    for row in rows:
        hashes[row.seq or 0] = row.leaf_hash
    grown = tiles.grow(0, hashes, lambda _level, _index: b"")
    read = tiles.reader(lambda level, index: grown[level, index])
    notes = {
        size: checkpoint.sign(ORIGIN, size, tree.root_of(size, read), w.signers[ORIGIN])
        for size in (BEFORE, SIZE)
    }
    book = KeyBook.of(signer.verifier for signer in w.signers[ORIGIN]).text()

    def write(tx: Transaction) -> None:
        tx.add(*rows, *(Tile(ORIGIN, *place, content) for place, content in grown.items()))
        root = tree.root_of(SIZE, read)
        tx.add(LogHead(ORIGIN, SIZE, root, notes[SIZE]), LogKeys(ORIGIN, book))
        for size, note in notes.items():
            found = checkpoint.parse(note.partition("\n\n")[0] + "\n")
            tx.add(Checkpoint(ORIGIN, size, found.root, note, at + timedelta(seconds=size), is_kept=True))

    await w.records.transact(write)
    assert w.count(Tile) == ALL_TILES
    records = CountedRecords(w.records)
    return Large(w, replace(w.flows.audit, records=records), records)


async def test_a_range_takes_a_few_tiles_however_large_the_log_is(
    log: Large, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All 787 were read before."""
    monkeypatch.setattr("gateway.flows.audit.EXPORT_BATCH", 200)
    start = HELD.start + 77
    counted = {
        length: (await log.export(start=start, end=start + length, previous=BEFORE))[1]
        for length in (1, 100, 500)
    }
    assert max(counted.values()) <= 9  # two edges and a consistency proof, three levels each
    assert log.records.read[Leaf] <= 500 + 1
    assert log.records.most[Leaf] <= 200


async def test_an_older_checkpoint_takes_as_few(log: Large) -> None:
    _, read = await log.export(start=HELD.start + 1, end=HELD.start + 3, size=BEFORE, previous=BEFORE - 1)
    assert read <= 9


async def test_selected_events_take_a_tile_each_at_most(log: Large) -> None:
    files, read = await log.export(start=HELD.start, end=HELD.stop, types=("audit.read",))
    chosen = files["entries.jsonl"].count(b"\n")
    assert chosen == len(HELD) / 8
    assert read <= len(HELD) // tiles.WIDTH + 2 + 4 + 1  # of the range, and what is above it


async def test_all_hashes_of_a_range_take_its_tiles_and_its_edges(log: Large) -> None:
    start, end = HELD.start + 30, HELD.start + 600
    _, read = await log.export(start=start, end=end, types=("audit.read",), complete=True)
    assert read <= (end - start) // tiles.WIDTH + 2 + 6


async def test_a_selection_that_is_too_large_is_refused_before_it_is_all_read(
    log: Large, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.flows.audit.EXPORT_BATCH", 200)
    monkeypatch.setattr("audit.export.MAX_PROOFS", 10)
    with pytest.raises(MessageInvalid) as refused:
        await log.export(start=HELD.start, end=HELD.stop, types=("audit.read",))
    assert refused.value.violations == (("export", "export.selection_too_large"),)
    assert log.records.read[Leaf] < len(HELD)
    assert log.records.read[Tile] == 0
