"""The audit log: durable events, time to a proof, proofs, fsck, erasure and restart; pymerkle beside it.

Run as a module of its own with the folder of a book and its keys' seed, it appends until it is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from audit import checkpoint, fsck, tiles, tree
from audit.note import Signer
from audit.quorum import Log, Policy
from audit.quorum import Witness as WitnessKey
from gateway.adapters.clock import SystemClock
from gateway.adapters.lock_file import FileLock
from gateway.adapters.sql.records import open_records
from gateway.adapters.sql.schema import migrate
from gateway.adapters.witness_http import HttpWitness
from gateway.flows.publish import Publish
from gateway.flows.sequence import Sequence
from gateway.holdings import PayloadHolding
from gateway.ledger import Ledger
from gateway.logs import newest_checkpoint
from gateway.ports.records import LogHead, Records, Remembered, SubjectKey, Tile, Transaction
from gateway.vault.payload import PayloadKey
from policy.erasure import ErasurePlan
from policy.terms import KeyClass
from tests.benchmarks.append import SYNC, Disk
from tests.benchmarks.measure import Side, Table, table, take_turns

TENANT, ORIGIN = "acme", "lethe.test/benchmarks"
HANDLE = "h" * 64


@dataclass(frozen=True)
class Counts:
    """How much a side does in its turn."""

    rounds: int
    events: int
    callers: int
    few: int
    leaves: int
    tree: int
    erased: int


FULL = Counts(rounds=5, events=8_192, callers=512, few=16, leaves=100_000, tree=10_000_000, erased=1_000)
QUICK = Counts(rounds=1, events=8, callers=4, few=2, leaves=300, tree=3_000, erased=10)


async def run(*, quick: bool) -> list[Table]:
    """Return the tables of the log."""
    counts = QUICK if quick else FULL
    async with contextlib.AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lethe-bench-")))
        disk = stack.enter_context(Disk.in_(home))
        seed = os.urandom(32)
        await _make(home)
        witness = await stack.enter_async_context(_witness(home, seed))
        book = await stack.enter_async_context(_opened(home, seed, witness))
        notes: list[str] = []
        sides: dict[str, Side] = {
            SYNC: lambda: disk.rate(300 if not quick else 2),
            f"event and change, {counts.callers} callers": lambda: book.appends(
                counts.events, counts.callers, 1
            ),
            f"the same, {counts.few} callers": lambda: book.appends(counts.events // 4, counts.few, 1),
            "the same, without a payload": lambda: book.appends(counts.events, counts.callers, 0),
            "event and change, one caller": lambda: book.appends(max(counts.events // 32, 2), 1, 1),
            "an appender: 64 events a transaction": lambda: book.groups(counts.events // 64 or 1),
        }
        rival = _pymerkle(home, notes)
        if rival is not None:
            sides["pymerkle, SQLite tree, one entry a call"] = lambda: rival(max(counts.events // 32, 2))
        seen = await take_turns(sides, counts.rounds)
        appends = table("durable events per second, sealing on", "events/s", SYNC, seen, notes + book.told())
        walks = await _walks(counts, book)
    return [appends, *walks]


@dataclass
class Book:
    """Records, the pen and the log's flows on SQLite in a folder, as the gateway has them."""

    records: Records
    ledger: Ledger
    sequence: Sequence
    publish: Publish
    key: PayloadKey
    latencies: dict[int, list[float]]

    async def appends(self, count: int, callers: int, payloads: int) -> float:
        """Return events per second, each with a change of its own, and awaited."""
        each = -(-count // callers)

        def work(tx: Transaction) -> None:
            number = os.urandom(16).hex()
            tx.add(Remembered(TENANT, "bench", number, "", number, self.ledger.clock.now()))
            self.write(tx, payloads)

        async def caller() -> None:
            for _ in range(each):
                begun = time.perf_counter()
                await self.records.transact(work)
                if payloads:
                    self.latencies.setdefault(callers, []).append(time.perf_counter() - begun)

        begun = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(callers)))
        rate = each * callers / (time.perf_counter() - begun)
        await self.sequence.run()
        return rate

    async def groups(self, count: int) -> float:
        """Return events per second, sixty-four in a transaction."""

        def work(tx: Transaction) -> None:
            for _ in range(64):
                self.write(tx, 1)

        begun = time.perf_counter()
        for _ in range(count):
            await self.records.transact(work)
        rate = 64 * count / (time.perf_counter() - begun)
        await self.sequence.run()
        return rate

    def write(self, tx: Transaction, payloads: int) -> None:
        """Write one event, with so many payloads."""
        sealed = ((self.key, {"subject": {"residence": "DE", "age": 46}}),) * payloads
        self.ledger.record(tx, TENANT, "job.stopping", None, sealed=sealed, job=os.urandom(16).hex())

    def told(self) -> list[str]:
        """Return how long one event took among so many callers."""
        told = []
        for callers, seen in sorted(self.latencies.items()):
            held = sorted(seen)
            p50, p99 = (held[int(len(held) * share)] * 1e3 for share in (0.5, 0.99))
            told.append(f"an awaited event, {callers} at once: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
        return told

    async def to_proof(self) -> float:
        """Return the seconds from before an event is written to its published proof."""
        begun = time.perf_counter()
        await self.records.transact(lambda tx: self.write(tx, 1))
        await self.sequence.run()
        await self.publish.run()
        await self.records.transact(lambda tx: newest_checkpoint(tx, ORIGIN))
        return time.perf_counter() - begun

    async def erase(self, count: int) -> float:
        """Return the seconds in which a subject with so many payloads is emptied, durably."""

        def write(tx: Transaction) -> None:
            for _ in range(count):
                self.write(tx, 1)

        await self.records.transact(write)
        plan = ErasurePlan(erase=tuple(KeyClass), keep=())
        holding = PayloadHolding(self.ledger)
        begun = time.perf_counter()
        await self.records.transact(lambda tx: holding.erase(tx, TENANT, HANDLE, plan))
        return time.perf_counter() - begun


def _signers(seed: bytes) -> tuple[Signer, ...]:
    return (Signer(ORIGIN, seed), Signer(ORIGIN, seed, "ml-dsa-44"))


HOLDER = SubjectKey("k" * 32, TENANT, HANDLE, "audit", "2030-01", "e", b"", datetime(2030, 1, 1, tzinfo=UTC))


async def _make(home: Path) -> None:
    url = f"sqlite://{home}/log.db"
    await migrate(url)
    records = open_records(url)
    await records.transact(lambda tx: tx.add(HOLDER))
    await records.close()
    FileLock.create(home / "lock").close()


@contextlib.asynccontextmanager
async def _opened(home: Path, seed: bytes, witness: HttpWitness | None = None) -> AsyncIterator[Book]:
    records = open_records(f"sqlite://{home}/log.db")
    await records.check_schema()
    clock = SystemClock()
    signers = _signers(seed)
    ledger = Ledger(clock, {TENANT: ORIGIN})
    logs = tuple(Log(signer.verifier) for signer in signers)
    policy = Policy(logs, (), (), "none")
    if witness is not None:
        policy = Policy(logs, (WitnessKey("w", witness.verifier),), (), "w")
    lock = FileLock(home / "lock")
    try:
        yield Book(
            records,
            ledger,
            Sequence(records, lock, {ORIGIN: signers}, clock, ledger),
            Publish(records, clock, ledger, {ORIGIN: policy}, (witness,) if witness else ()),
            PayloadKey.of(HOLDER, os.urandom(32)),
            {},
        )
    finally:
        lock.close()
        await records.close()


@contextlib.asynccontextmanager
async def _witness(home: Path, seed: bytes) -> AsyncIterator[HttpWitness]:
    """Run `lethe audit witness` for the log in a process of its own."""
    trust = home / "trust.txt"
    trust.write_text("".join(f"{signer.vkey()}\n" for signer in _signers(seed)))
    command = (sys.executable, "-m", "gateway.main", "audit", "witness", "--dir", str(home / "witness"))
    keys, _ = await (
        await asyncio.create_subprocess_exec(*command, "--init", "witness.test/bench", stdout=PIPE)
    ).communicate()
    child = await asyncio.create_subprocess_exec(
        *command, "--log", str(trust), "--listen", "127.0.0.1:0", stdout=PIPE, stderr=DEVNULL
    )
    assert child.stdout is not None
    try:
        address = (await child.stdout.readline()).decode().split()[1]
        witness = HttpWitness(f"http://{address}", keys.decode().split()[0])
        yield witness
        await witness.close()
    finally:
        child.terminate()
        await child.wait()


@contextlib.asynccontextmanager
async def _large(
    held: dict[tuple[int, int], bytes], size: int
) -> AsyncIterator[Callable[[], Awaitable[float]]]:
    """Yield a side that restarts a log of that size after a writer was killed, in seconds.

    The records hold all tiles of the tree, and of the leaves only those written here:
    a start reads no leaf that has its place.
    """
    seed = os.urandom(32)
    with tempfile.TemporaryDirectory(prefix="lethe-bench-") as folder:
        home = Path(folder)
        await _make(home)
        async with _opened(home, seed) as book:
            places = list(held)
            for at in range(0, len(places), 2048):
                rows = [Tile(ORIGIN, *place, held[place]) for place in places[at : at + 2048]]
                await book.records.transact(lambda tx, rows=rows: tx.add(*rows))  # type: ignore[misc]  # bound now
            root = tree.root_of(size, tiles.reader(lambda level, index: held[level, index]))
            await book.records.transact(lambda tx: tx.add(LogHead(ORIGIN, size, root, "")))
            await book.sequence.run()

        async def side() -> float:
            writer = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.benchmarks.log", folder, seed.hex(), stdout=PIPE
            )
            assert writer.stdout is not None
            await writer.stdout.readline()
            writer.kill()
            await writer.wait()
            begun = time.perf_counter()
            async with _opened(home, seed) as book:
                await book.sequence.run()
                await book.records.transact(lambda tx: book.write(tx, 1))
                return time.perf_counter() - begun

        yield side


async def _write_until_killed(home: Path, seed: bytes) -> None:
    async with _opened(home, seed) as book:
        while True:
            await book.appends(512, 64, 1)
            print("written", flush=True)


def _pymerkle(home: Path, notes: list[str]) -> Callable[[int], object] | None:
    """Return a side that appends to pymerkle's SQLite tree, if it is there."""
    try:
        from pymerkle import SqliteTree
    except ImportError:
        notes.append("pymerkle is not installed, so it was not measured")
        return None
    rival = SqliteTree(str(home / "pymerkle.db"))

    async def side(count: int) -> float:
        begun = time.perf_counter()
        for _ in range(count):
            rival.append_entry(os.urandom(300))
        return count / (time.perf_counter() - begun)

    return side


async def _walks(counts: Counts, book: Book) -> list[Table]:
    """Return what is measured in seconds or leaves a second, beside SHA-256 in the same round."""
    line = os.urandom(370)
    lines = [line + number.to_bytes(4, "big") for number in range(counts.leaves)]
    files = _published(lines)
    signer = Signer(ORIGIN, bytes(32))
    held = await asyncio.to_thread(_tree, counts.tree)

    async def hashing() -> float:
        begun = time.perf_counter()
        for entry in lines:
            hashlib.sha256(entry).digest()
        return len(lines) / (time.perf_counter() - begun)

    async def checking() -> float:
        begun = time.perf_counter()
        report = fsck.fsck(files.get, [signer.verifier])
        assert report.verdict == "valid", report.fault
        return len(lines) / (time.perf_counter() - begun)

    async def growing() -> float:
        hashes = [bytes(32)] * 4096
        begun = time.perf_counter()
        for _ in range(max(counts.leaves // 4096, 1)):
            tiles.grow(0, hashes, lambda _level, _index: b"")
        return max(counts.leaves // 4096, 1) * 4096 / (time.perf_counter() - begun)

    rates = await take_turns(
        {"SHA-256 of each leaf": hashing, "fsck": checking, "grow the tiles, 4096 at a time": growing},
        counts.rounds,
    )

    async def sync() -> float:
        return 1.0 / await disk_rate()

    async def disk_rate() -> float:
        with tempfile.TemporaryDirectory(prefix="lethe-bench-") as folder, Disk.in_(Path(folder)) as disk:
            return await disk.rate(50)

    async def proving() -> float:
        reader = tiles.reader(lambda level, index: held[level, index])
        index = int.from_bytes(os.urandom(8), "big") % counts.tree
        begun = time.perf_counter()
        tree.inclusion_proof(index, counts.tree, reader)
        return time.perf_counter() - begun

    async with _large(held, counts.tree) as restarting:
        seconds = await take_turns(
            {
                SYNC: sync,
                "an event, written, sequenced, signed, locked, witnessed, published": book.to_proof,
                f"an inclusion proof in a tree of {counts.tree:,} leaves, cold": proving,
                f"a subject with {counts.erased:,} payloads emptied": lambda: book.erase(counts.erased),
                f"a restart after kill -9 at {counts.tree:,} leaves, to the first event": restarting,
            },
            counts.rounds,
        )
    return [
        table("walk a log", "leaves/s", "SHA-256 of each leaf", rates),
        table("how long it takes", "s", SYNC, seconds),
    ]


def _published(lines: list[bytes]) -> dict[str, bytes]:
    """Return the files of a published log of these leaves."""
    grown = tiles.grow(0, [tree.hash_leaf(line) for line in lines], lambda _level, _index: b"")
    files = {tiles.tile_path(level, index, len(tile) // 32): tile for (level, index), tile in grown.items()}
    for start in range(0, len(lines), tiles.WIDTH):
        part = lines[start : start + tiles.WIDTH]
        files[tiles.entries_path(start // tiles.WIDTH, len(part))] = tiles.bundle(part)
    root = tree.root_of(len(lines), tiles.reader(lambda level, index: grown[level, index]))
    signer = Signer(ORIGIN, bytes(32))
    files["checkpoint"] = checkpoint.sign(ORIGIN, len(lines), root, signer).encode()
    return files


def _tree(size: int) -> dict[tuple[int, int], bytes]:
    """Return all tiles of a tree of that size; its leaf hashes repeat, which no proof notices."""
    hashes = [hashlib.sha256(bytes([number])).digest() for number in range(256)] * 16
    held: dict[tuple[int, int], bytes] = {}

    def edge(level: int, index: int) -> bytes:
        return held.get((level, index), b"")

    for at in range(0, size, len(hashes)):
        held.update(tiles.grow(at, hashes[: min(len(hashes), size - at)], edge))
    return held


if __name__ == "__main__":
    asyncio.run(_write_until_killed(Path(sys.argv[1]), bytes.fromhex(sys.argv[2])))
