"""Keys: what wrapping anew costs, when a subject's objects stop opening, how often the root is asked."""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway import compose
from gateway.adapters.clock import SystemClock
from gateway.adapters.keys_local import LocalKeyring
from gateway.adapters.sql.records import open_records
from gateway.adapters.sql.schema import migrate
from gateway.ports.keys import Epoch, rewrap_each
from gateway.ports.records import StoredObject, SubjectKey, Transaction
from gateway.vault.custody import Custody, wrap_binding
from gateway.vault.keys import KeyCache
from tests.benchmarks.measure import Side, Table, table, take_turns
from tests.doors import When, around
from tests.world import World

GROUP = 1_000
BARE, MANY, EACH, ROLL = "AES-GCM, bare", "local root, many", "local root, one by one", "a roll, with SQLite"
OLD, NEW, ROLLED = (Epoch("bench", cls, "open", 0) for cls in ("content", "profile", "evidence"))
UNREADABLE, ALL_GONE, LONGEST = "no object opens", "keys and rows gone (T1)", "the longest commit"

Keys = list[tuple[bytes, bytes]]


async def run(*, quick: bool) -> list[Table]:
    """Return the tables; `quick` only tries whether everything runs."""
    return [
        await _rewrapping(200 if quick else 20_000, 1 if quick else 5),
        *await _erasures((1, 20) if quick else (1, 1_000, 100_000), 1 if quick else 3),
    ]


# --- wrapping anew -------------------------------------------------------------------------------


async def _rewrapping(number: int, rounds: int) -> Table:
    with tempfile.TemporaryDirectory() as folder:
        root = LocalKeyring.create(Path(folder) / "keys")
        url = f"sqlite://{folder}/lethe.db"
        await migrate(url)
        records = open_records(url)
        clock = SystemClock()
        custody = Custody(records, root, clock, KeyCache(1, compose.KEY_CACHE_TTL, clock))
        for epoch in (OLD, NEW, ROLLED):
            await root.create_epoch(epoch)
        first = await root.wrap(OLD, os.urandom(32), b"binding")
        keys = [(first, b"binding")] * number
        few = keys[: max(1, number // 50)]
        await _fill(custody, number)
        roll = [0]

        async def roll_once() -> None:
            assert await custody.roll(replace(ROLLED, roll=roll[0])) == number
            roll[0] += 1

        old, new = AESGCM(os.urandom(32)), AESGCM(os.urandom(32))
        sides: dict[str, Side] = {
            BARE: partial(_timed, partial(_bare, old, new, number), number),
            MANY: partial(_timed, lambda: root.rewrap(OLD, NEW, keys), number),
            EACH: partial(_timed, lambda: rewrap_each(root, OLD, NEW, few), len(few)),
            ROLL: partial(_timed, roll_once, number),
        }
        seen = await take_turns(sides, rounds)
        await records.close()
    notes = [f"{number} subject keys; bare: one decrypt and one encrypt of 32 bytes each, and nothing else"]
    return table("Subject keys wrapped anew", "keys per CPU second", BARE, seen, notes)


async def _bare(old: AESGCM, new: AESGCM, number: int) -> None:
    nonce = bytes(12)
    box = old.encrypt(nonce, bytes(32), b"binding")
    for _ in range(number):
        new.encrypt(nonce, old.decrypt(nonce, box, b"binding"), b"binding")


async def _fill(custody: Custody, number: int) -> None:
    """Mint so many subject keys under `ROLLED`."""
    minted: list[SubjectKey] = []
    for _ in range(number):
        key_id = os.urandom(16).hex()
        row = SubjectKey(
            key_id, ROLLED.tenant, None, ROLLED.cls, ROLLED.month, str(ROLLED), b"", custody.clock.now()
        )
        minted.append(row)
    temporary: Keys = []
    for row in minted:
        binding = wrap_binding(row.tenant, row.key_id, row.cls, row.month)
        temporary.append((await custody.keys.wrap(ROLLED, os.urandom(32), binding), binding))
    rows = [replace(row, wrapped=wrapped) for row, (wrapped, _) in zip(minted, temporary, strict=True)]
    await _add(custody.records.transact, rows)


async def _add(
    transact: Callable[[Callable[[Transaction], None]], Awaitable[None]],
    rows: Sequence[SubjectKey] | Sequence[StoredObject],
) -> None:
    for start in range(0, len(rows), GROUP):
        await transact(partial(_add_some, rows=rows[start : start + GROUP]))


def _add_some(tx: Transaction, rows: Sequence[SubjectKey] | Sequence[StoredObject]) -> None:
    tx.add(*rows)


async def _timed(work: Callable[[], Awaitable[object]], number: int) -> float:
    begun = time.process_time()
    await work()
    return number / (time.process_time() - begun)


# --- an erasure ----------------------------------------------------------------------------------


@dataclass
class Stopwatch:
    """Notes when the erasure's first and last commit were durable, from the moment the first was begun.

    And how long the longest of all took: so long others wait who write to SQLite.
    """

    begun: float = 0.0
    one_begun: float = 0.0
    after: dict[str, float] = field(default_factory=dict)
    calls: int = 0

    def __call__(self, point: str, when: When, *, wrote: bool) -> None:
        if (point, when) == ("keys.unwrap", "before"):
            self.calls += 1
        name, now = point.rpartition(".")[2], time.perf_counter()
        if name not in {"_end_content", "_end_pictures", "destroy"}:
            return
        if when == "before":
            self.begun, self.one_begun = self.begun or now, now
            return
        self.after[name] = (now - self.begun) * 1000
        self.after["longest"] = max(self.after.get("longest", 0), (now - self.one_begun) * 1000)


async def _erasures(numbers: Sequence[int], rounds: int) -> list[Table]:
    names = {f"{number:,} object" + "s" * (number > 1): number for number in numbers}
    soon: dict[str, list[float]] = {name: [] for name in names}
    whole: dict[str, list[float]] = {name: [] for name in names}
    longest: dict[str, list[float]] = {name: [] for name in names}
    calls = []
    for _ in range(rounds):
        for name, number in names.items():
            watch, opened, asked = await _erase(number)
            soon[name].append(watch.after["_end_content"])
            whole[name].append(watch.after["destroy"])
            longest[name].append(watch.after["longest"])
            calls.append((opened, asked))
    base = next(iter(names))
    opened, asked = max(calls)
    notes = [f"root calls: {asked} for {opened} openings of one object within a cache window"]
    return [
        table(f"Erasure: {UNREADABLE}", "ms", base, soon, notes),
        table(
            f"Erasure: {ALL_GONE}",
            "ms",
            base,
            whole,
            ["every object has a leaf of its own"],
        ),
        table(f"Erasure: {LONGEST}", "ms", base, longest, ["so long others wait who write to SQLite"]),
    ]


async def _erase(number: int) -> tuple[Stopwatch, int, int]:
    """Erase a person with so many objects, all flows over SQLite and a local root; return what was seen."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite://{folder}/lethe.db"
        await migrate(url)
        records = open_records(url)
        world, watch = World(), Stopwatch()
        world.outside = replace(
            world.outside, records=records, keys=LocalKeyring.create(Path(folder) / "keys")
        )
        flows = compose.flows(world.settings, around(world.outside, watch), world.signers)
        flows.backends.known["studio"] = world.backend.facts
        world.flows = flows
        await world.ready("ann")
        await world.upload("ann")
        (stored,) = await records.transact(lambda tx: tx.find(StoredObject))
        await _add(
            records.transact, [replace(stored, object_id=os.urandom(16).hex()) for _ in range(number - 1)]
        )
        gc.collect()  # what made the rows is not what is measured
        flows.upload.people.custody.cache.clear()
        watch.calls = 0
        for _ in range(opened := 50):
            await flows.upload.safe.open(stored)
        asked = watch.calls
        dsr = await world.request("ann")
        await flows.erasure._bar(dsr)
        await flows.erasure._destroy(dsr)
        await records.close()
    return watch, opened, asked
