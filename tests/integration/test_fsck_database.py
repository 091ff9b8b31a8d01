"""`lethe audit fsck` over a database: each fault is found, and named as the first one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from audit import checkpoint
from audit.cosign import Cosigner
from audit.fsck import FsckReport
from audit.keys import KeyBook
from audit.note import Signer
from audit.quorum import Policy
from audit.trust import Trust
from gateway import compose
from gateway.flows.fsck import Fsck
from gateway.main import app
from gateway.ports.records import Checkpoint, Leaf, LogHead, Record, Tile, Transaction
from gateway.settings import load
from tests.gateway import make_folder
from tests.ground import Ground, open_ground
from tests.world import ORIGIN, TENANT

SIZE = 600
STRANGER = Signer(ORIGIN, bytes([9]) * 32)


@pytest.fixture
async def ground(tmp_path: Path, records_url: str) -> AsyncIterator[Ground]:
    async with open_ground(tmp_path, records_url or f"sqlite://{tmp_path}/lethe.db") as opened:
        await opened.grow(SIZE)
        yield opened


async def checked(ground: Ground, policy: Policy | None = None, **options: Any) -> FsckReport:
    trust = Trust(KeyBook.of(ground.verifiers), policy)
    return await Fsck(ground.records, {ORIGIN: trust}).run(ORIGIN, **options)


async def test_a_log_that_is_whole_is_valid_also_where_it_is_not_all_published(ground: Ground) -> None:
    report = await checked(ground, deep=True)
    assert (report.verdict, report.entries, report.tiles) == ("valid", SIZE, 4)
    await ground.records.transact(
        lambda tx: ground.flows.ledger.record(tx, TENANT, "signal.recorded", None, sig=[])
    )
    assert (await checked(ground)).entries == SIZE
    await ground.flows.sequence.run()
    assert (await checked(ground)).entries == SIZE + 1


async def test_a_log_that_has_not_begun_is_valid(ground: Ground) -> None:
    await ground.records.transact(lambda tx: [tx.remove(*tx.find(kind)) for kind in (Leaf, Tile)])
    await ground.records.transact(lambda tx: [tx.remove(*tx.find(kind)) for kind in (LogHead, Checkpoint)])
    assert (await checked(ground)).verdict == "valid"


async def test_a_pruned_log_is_valid(ground: Ground) -> None:
    def prune(tx: Transaction) -> None:
        tx.discard(Leaf, equal={"log": ORIGIN}, below={"seq": 511})
        tx.put(replace(head(tx), min_index=512))

    await ground.records.transact(prune)
    report = await checked(ground)
    assert (report.verdict, report.pruned, report.entries) == ("valid", 512, SIZE - 512)


def head(tx: Transaction) -> LogHead:
    (found,) = tx.find(LogHead, equal={"log": ORIGIN})
    return found


def leaf(tx: Transaction, seq: int) -> Leaf:
    (found,) = tx.find(Leaf, equal={"log": ORIGIN, "seq": seq})
    return found


def tile(tx: Transaction, level: int, index: int) -> Tile:
    found = tx.get(Tile, ORIGIN, level, index)
    assert found is not None
    return found


def point(tx: Transaction) -> Checkpoint:
    (found,) = tx.find(Checkpoint, equal={"log": ORIGIN})
    return found


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def resigned(root: bytes, size: int = SIZE) -> str:
    return checkpoint.sign(ORIGIN, size, root, Signer(ORIGIN, bytes(32)))


def _put(make: Callable[[Transaction], Record]) -> Callable[[Transaction], object]:
    return lambda tx: tx.put(make(tx))


FAULTS: dict[str, tuple[Callable[[Transaction], object], str]] = {
    "a changed leaf": (
        _put(lambda tx: replace(leaf(tx, 300), line=leaf(tx, 300).line.replace(b"gpc", b"spi"))),
        "entry_differs: the database, entry 300",
    ),
    "a changed hash of a leaf": (
        _put(lambda tx: replace(leaf(tx, 300), leaf_hash=bytes(32))),
        "row_hash: the database, entry 300",
    ),
    "a missing leaf": (lambda tx: tx.remove(leaf(tx, 300)), "row_missing: the database, entry 300"),
    "a leaf at another place": (
        _put(lambda tx: replace(leaf(tx, 300), seq=900)),
        "row_stray: the database, entry 900: it lies beyond the head",
    ),
    "a leaf before the first": (
        _put(lambda tx: replace(leaf(tx, 300), seq=-1)),
        "row_stray: the database, entry -1: it should be gone",
    ),
    "a leaf that was pruned": (
        _put(lambda tx: replace(head(tx), min_index=256)),
        "row_stray: the database, entry 0: it should be gone",
    ),
    "a changed full tile": (
        _put(lambda tx: replace(tile(tx, 0, 1), hashes=flipped(tile(tx, 0, 1).hashes))),
        "tile_differs: tile/0/001",
    ),
    "a changed tile at the edge": (
        _put(lambda tx: replace(tile(tx, 0, 2), hashes=flipped(tile(tx, 0, 2).hashes))),
        "tile_differs: tile/0/002.p/88",
    ),
    "a changed tile above": (
        _put(lambda tx: replace(tile(tx, 1, 0), hashes=flipped(tile(tx, 1, 0).hashes))),
        "tile_differs: tile/1/000.p/2",
    ),
    "a short tile": (
        _put(lambda tx: replace(tile(tx, 0, 1), hashes=tile(tx, 0, 1).hashes[:-32])),
        "tile_truncated: tile/0/001",
    ),
    "a missing tile": (lambda tx: tx.remove(tile(tx, 0, 1)), "tile_missing: tile/0/001"),
    "a head that is not the tree's": (
        _put(lambda tx: replace(head(tx), root=bytes(32))),
        "root_differs: head: its root is not that of the tiles",
    ),
    "a head that fell back": (
        _put(lambda tx: replace(head(tx), size=599)),
        "head_behind: checkpoint",
    ),
    "a missing head": (lambda tx: tx.remove(head(tx)), "head_missing: head"),
    "a head signed by another": (
        _put(lambda tx: replace(head(tx), note=checkpoint.sign(ORIGIN, 1, bytes(32), STRANGER))),
        "note_",
    ),
    "a checkpoint signed by another": (
        _put(lambda tx: replace(point(tx), note=checkpoint.sign(ORIGIN, SIZE, point(tx).root, STRANGER))),
        "note_",
    ),
    "a checkpoint whose row says something else": (
        _put(lambda tx: replace(point(tx), root=bytes(32))),
        "checkpoint_row: checkpoint",
    ),
    "a checkpoint of another tree": (
        _put(lambda tx: replace(point(tx), root=bytes(32), note=resigned(bytes(32)))),
        "root_differs: checkpoint: another tree than this one was signed",
    ),
    "a head that was signed for another tree": (
        _put(lambda tx: replace(head(tx), note=resigned(bytes(32), 500))),
        "root_differs: head: another tree than this one was signed",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_is_named(ground: Ground, name: str) -> None:
    spoil, expected = FAULTS[name]
    await ground.records.transact(spoil)
    report = await checked(ground)
    assert report.verdict == "invalid"
    assert report.fault.startswith(expected), report.fault


async def test_a_place_that_is_taken_twice_is_named(ground: Ground) -> None:
    """The databases have a constraint against it; a file that was tampered with has none."""
    inner = ground.records

    class Twice:
        async def transact(self, work: Callable[[Transaction], Any]) -> Any:
            found = await inner.transact(work)
            if isinstance(found, list) and len(found) > 300 and isinstance(found[0], Leaf):
                return [*found[:301], *found[300:]]
            return found

    ground.records = Twice()  # type: ignore[assignment]
    report = await checked(ground)
    assert report.fault.startswith("row_order: the database, entry 300"), report.fault
    ground.records = inner


async def test_a_checkpoint_without_its_quorum_is_named(ground: Ground) -> None:
    witness = Cosigner("witness.test/w", bytes(32), "ed25519")
    policy = Policy.parse(f"witness w {witness.vkey()}\nquorum w\n")
    assert (await checked(ground, policy)).fault.startswith("quorum_not_met: checkpoint")


async def test_the_command_needs_a_configuration_and_nothing_else(tmp_path: Path, records_url: str) -> None:
    layout = make_folder(tmp_path / "dev", records_url=records_url)
    settings = load(layout.config)
    ((tenant, section),) = settings.tenants.items()
    compose.make_folders(settings)
    compose.make_lock(settings)
    url = compose.records_url(settings)
    (tmp_path / "own").mkdir()
    async with open_ground(tmp_path / "own", url) as ground:
        signers = compose.read_signers(settings)
        outside = replace(ground.world.outside, records=ground.records, backends={})
        flows = compose.flows(settings, outside, signers)
        await ground.records.transact(
            lambda tx: [flows.ledger.record(tx, tenant, "signal.recorded", None, sig=[]) for _ in range(300)]
        )
        await flows.sequence.run()
        await flows.publish.run()

    async def lethe(*arguments: str) -> Any:
        import asyncio

        command = ["audit", "fsck", "--config", str(layout.config), "-o", "json", *arguments]
        return await asyncio.to_thread(CliRunner().invoke, app, command)

    found = await lethe()
    assert (found.exit_code, found.stderr) == (0, "")
    (report,) = json.loads(found.stdout)["logs"]
    assert (report["origin"], report["entries"]) == (section.log_origin, 300)
    assert (await lethe("--trust", str(layout.trust))).exit_code == 0
    stranger = tmp_path / "stranger.txt"
    stranger.write_text(Signer(section.log_origin, bytes(32)).vkey() + "\n")
    assert (await lethe("--trust", str(stranger))).exit_code == 4
    assert (await lethe("--min-index", "256")).exit_code == 2
    records = compose.open_records(url)
    await records.transact(lambda tx: tx.remove(*tx.find(Leaf, equal={"seq": 299})))
    await records.close()
    found = await lethe()
    assert found.exit_code == 4
    assert "error: LOG_INVALID: row_missing: the database, entry 299" in found.stderr
