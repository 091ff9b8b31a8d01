"""Entries past their term go in whole bundles; the tree, its proofs and its checkpoints stay."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from pathlib import Path

import pytest

from audit import fsck, tree
from audit.proof import verify
from audit.verify import verify_export
from gateway.adapters.log_folder import LogFolder
from gateway.compose import refuse_past, refuse_rollback
from gateway.errors import AuditUnavailable, LetheError, StateConflict
from gateway.flows import prune
from gateway.flows.audit import Wish
from gateway.flows.prune import Prune
from gateway.flows.publish import Publish
from gateway.ports.files import LogFiles
from gateway.ports.records import Certificate, Leaf, LogHead, SealedPayload, Tile, Transaction
from tests.doors import HookedRecords, When
from tests.world import OFFICER, ORIGIN, TENANT, Trip, World

TERM = timedelta(days=30)


@pytest.fixture
def w() -> World:
    return World()


async def grow(w: World, number: int, *, sealed: bool = False) -> None:
    """Write so many events, sequence and publish them."""
    key = await w.flows.upload.people.payload_key(TENANT, await w.handle("ann")) if sealed else None

    def write(tx: Transaction) -> None:
        for _ in range(number):
            payload = ((key, {"x": 1}),) if key is not None else ()
            w.flows.ledger.record(tx, TENANT, "signal.recorded", None, sealed=payload, sig=["gpc"])

    await w.records.transact(write)
    await w.log()


def pruner(w: World, files: LogFiles | None = None) -> Prune:
    return Prune(w.records, w.flows.ledger, w.clock, TERM, files)


def head(w: World) -> LogHead:
    return next(row for row in w.records.all(LogHead) if row.log == ORIGIN)


def kept(w: World) -> list[int]:
    """Return the places of the leaves that are there."""
    mine = [leaf.seq for leaf in w.records.all(Leaf) if leaf.log == ORIGIN and leaf.seq is not None]
    return sorted(mine)


# --- what goes, and what stays ----------------------------------------------------------------


async def test_whole_bundles_past_the_term_go_and_the_log_says_so(w: World) -> None:
    await grow(w, 600)
    w.clock.advance(TERM + timedelta(seconds=1))
    tiles = w.records.all(Tile)
    assert await pruner(w).run() == 512
    assert (head(w).min_index, kept(w)) == (512, list(range(512, 600)))
    assert [event["to"] for event in w.events("log.pruned")] == [512]
    assert tiles == w.records.all(Tile)
    assert await pruner(w).run() == 0
    assert len(w.events("log.pruned")) == 1


async def test_without_a_term_nothing_goes(w: World) -> None:
    await grow(w, 300)
    w.clock.advance(TERM * 1000)
    assert await w.flows.prune.run() == 0
    assert len(kept(w)) == 300


async def test_one_entry_within_the_term_keeps_its_bundle_and_all_after_it(w: World) -> None:
    await grow(w, 300)
    w.clock.advance(TERM)
    await grow(w, 300)
    assert await pruner(w).run() == 0  # not older than the term: as old
    w.clock.advance(timedelta(seconds=1))
    assert await pruner(w).run() == 256
    assert kept(w)[0] == 256


async def test_what_is_in_no_published_checkpoint_stays(w: World) -> None:
    await grow(w, 255)
    await w.records.transact(
        lambda tx: [w.flows.ledger.record(tx, TENANT, "signal.recorded", None, sig=[]) for _ in range(300)]
    )
    await w.flows.sequence.run()
    w.clock.advance(TERM * 2)
    assert await pruner(w).run() == 0
    await w.flows.publish.run()
    assert await pruner(w).run() == 512


async def test_a_payload_that_is_still_there_keeps_its_bundle(w: World) -> None:
    await w.know("ann")
    await grow(w, 1, sealed=True)
    w.clock.advance(timedelta(seconds=1))
    await grow(w, 300)
    w.clock.advance(timedelta(seconds=1))
    await grow(w, 300, sealed=True)
    w.clock.advance(TERM * 2)
    (first,) = [row for row in w.records.all(SealedPayload) if row.event_id in ids(w, 0, 256)]
    assert await pruner(w).run() == 0
    await w.records.transact(
        lambda tx: tx.change(
            SealedPayload,
            equal={"event_id": first.event_id},
            to={"blob": b"", "handle": None, "erased_by": "b" * 32},
        )
    )
    assert await pruner(w).run() == 256
    assert first.event_id not in {row.event_id for row in w.records.all(SealedPayload)}
    assert len(w.records.all(SealedPayload)) == 300  # those of the entries that stay


def ids(w: World, start: int, end: int) -> set[str]:
    return {
        leaf.event_id for leaf in w.records.all(Leaf) if leaf.log == ORIGIN and leaf.seq in range(start, end)
    }


async def test_what_a_certificate_proves_stays_until_the_certificate_goes(w: World) -> None:
    await w.ready("ann")
    await w.erase("ann")
    await w.log()
    await grow(w, 300)
    w.clock.advance(TERM * 2)
    for row in w.records.all(SealedPayload):
        await w.records.transact(
            lambda tx, row=row: tx.change(
                SealedPayload, equal={"event_id": row.event_id}, to={"blob": b"", "erased_by": "b" * 32}
            )
        )
    assert await pruner(w).run() == 0
    await w.records.transact(lambda tx: tx.remove(*tx.find(Certificate)))
    assert await pruner(w).run() == 256


async def test_a_long_log_goes_in_bounded_steps(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune, "BATCH", 256)
    await grow(w, 600)
    w.clock.advance(TERM * 2)
    assert await pruner(w).run() == 512
    assert [event["to"] for event in w.events("log.pruned")] == [256, 512]


async def test_a_log_with_a_hole_is_not_pruned(w: World) -> None:
    await grow(w, 300)
    w.clock.advance(TERM * 2)
    await w.records.transact(lambda tx: tx.remove(*tx.find(Leaf, equal={"log": ORIGIN, "seq": 7})))
    with pytest.raises(AuditUnavailable) as refused:
        await pruner(w).run()
    assert (refused.value.detail, head(w).min_index) == ("leaf_missing", 0)


# --- readers ----------------------------------------------------------------------------------


async def pruned(w: World) -> None:
    await grow(w, 600)
    w.clock.advance(TERM * 2)
    await pruner(w).run()
    await w.log()


async def test_events_begin_at_the_minimum_index(w: World) -> None:
    await pruned(w)
    page = await w.flows.audit.events(OFFICER, "", 10, "")
    assert [leaf.seq for leaf in page.items] == list(range(512, 522))
    following = await w.flows.audit.events(OFFICER, "", 10, page.next_token)
    assert following.items[0].seq == 522


async def test_a_proof_of_a_pruned_entry_is_refused_and_says_from_where_on_there_are_some(w: World) -> None:
    await pruned(w)
    with pytest.raises(StateConflict) as refused:
        await w.flows.audit.inclusion(OFFICER, index=511)
    assert (refused.value.detail, refused.value.metadata) == ("range.pruned", {"min_index": "512"})
    verify(
        (await w.flows.audit.inclusion(OFFICER, index=512)).tlog_proof,
        [signer.verifier for signer in w.signers[ORIGIN]],
        None,
    )


async def test_an_export_begins_at_the_minimum_index_and_says_so(w: World) -> None:
    await pruned(w)
    files = await w.flows.audit.export(OFFICER, Wish())
    report = verify_export(files, "".join(f"{signer.vkey()}\n" for signer in w.signers[ORIGIN]))
    assert (report.verdict, report.fault, report.start) == ("valid", "", 512)
    assert w.events("export.created")[-1]["from"] == 512


@pytest.mark.parametrize("wish", [Wish(start=511), Wish(end=512), Wish(start=1, end=600), Wish(size=600)])
async def test_an_export_of_pruned_entries_is_refused(w: World, wish: Wish) -> None:
    await grow(w, 600)
    await w.flows.audit.export(OFFICER, Wish())  # keeps the checkpoint
    await grow(w, 200)
    w.clock.advance(TERM * 2)
    assert await pruner(w).run() == 768
    with pytest.raises(StateConflict) as refused:
        await w.flows.audit.export(OFFICER, wish)
    assert (refused.value.detail, refused.value.metadata) == ("range.pruned", {"min_index": "768"})


async def test_a_log_that_is_pruned_to_its_end_starts_and_goes_on(w: World) -> None:
    await grow(w, 512)
    w.clock.advance(TERM * 2)
    assert await pruner(w).run() == 512
    assert kept(w) == []
    again = w.process()
    await refuse_past(again)
    await refuse_rollback(again)
    await again.publish.run()
    assert kept(w) == [512]  # that it was pruned
    assert head(w).size == 513


# --- crashes ----------------------------------------------------------------------------------


class HookedFiles:
    """The folder, with the hook at each call and at each file that goes."""

    def __init__(self, inner: LogFolder, trip: Trip) -> None:
        self.inner = inner
        self.trip = trip

    async def prune(self, origin: str, min_index: int) -> None:
        for step in range(256, min_index + 1, 256):
            self.trip("lock.prune", "before", wrote=False)
            await self.inner.prune(origin, step)
            self.trip("lock.prune", "after", wrote=True)


@pytest.mark.parametrize("when", ["before", "inside", "after"])
@pytest.mark.parametrize("at", range(3))
async def test_killed_at_each_step_it_is_pruned_all_the_same(
    w: World, tmp_path: Path, at: int, when: When
) -> None:
    folder = LogFolder(tmp_path)
    publish = Publish(w.records, w.clock, w.flows.ledger, w.flows.publish.policies, (), folder)
    await grow(w, 600)
    await publish.run()
    w.clock.advance(TERM * 2)
    trip = Trip()
    files = HookedFiles(folder, trip)
    doomed = Prune(HookedRecords(w.records, trip), w.flows.ledger, w.clock, TERM, files)  # type: ignore[arg-type]
    trip.lose(at, when)
    with contextlib.suppress(LetheError):
        await doomed.run()
    check_folder(w, tmp_path, head(w).min_index)  # whatever is left, it is a log
    await pruner(w, folder).run()
    await w.flows.sequence.run()
    await publish.run()
    assert head(w).min_index == 512
    assert [event["to"] for event in w.events("log.pruned")] == [512]
    assert kept(w) == list(range(512, 601))
    report = check_folder(w, tmp_path, 512)
    assert (report.pruned, report.size) == (512, 601)
    assert list((tmp_path / ORIGIN / "tile/entries").iterdir()) == [tmp_path / ORIGIN / "tile/entries/002.p"]


def check_folder(w: World, folder: Path, min_index: int) -> fsck.FsckReport:
    verifiers = [signer.verifier for signer in w.signers[ORIGIN]]
    report = fsck.fsck(fsck.folder_reader(folder / ORIGIN), verifiers, min_index=min_index, deep=True)
    assert (report.verdict, report.fault) == ("valid", "")
    return report


async def test_a_folder_that_is_laid_out_anew_has_no_pruned_bundle(w: World, tmp_path: Path) -> None:
    await pruned(w)
    await Publish(w.records, w.clock, w.flows.ledger, w.flows.publish.policies, (), LogFolder(tmp_path)).run()
    assert check_folder(w, tmp_path, 512).pruned == 512


@pytest.mark.parametrize("end", [0, 1, 999, 1000, 1001, 1999, 2000, 1_000_000, 1_000_001, 1_002_003])
async def test_exactly_the_bundles_below_the_minimum_index_go(tmp_path: Path, end: int) -> None:
    from audit.tiles import entries_path, parse_path

    indices = {
        0,
        1,
        255,
        998,
        999,
        1000,
        1001,
        1999,
        2000,
        999_999,
        1_000_000,
        1_000_001,
        1_002_002,
        1_002_003,
    }
    paths = {entries_path(index) for index in indices} | {entries_path(0, 7), entries_path(1000, 3)}
    for path in (*paths, "tile/0/000", "checkpoint"):
        place = tmp_path / ORIGIN / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    await LogFolder(tmp_path).prune(ORIGIN, end * 256)
    root = tmp_path / ORIGIN
    left = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert left == {path for path in paths if parse_path(path).index >= end} | {"tile/0/000", "checkpoint"}


async def test_consistency_is_proven_from_sizes_below_the_minimum_index(w: World) -> None:
    await grow(w, 300)
    before = head(w)
    await pruned(w)
    links = await w.flows.audit.consistency(OFFICER, before.size, head(w).size)
    tree.verify_consistency(
        first=before.size, second=head(w).size, first_root=before.root, second_root=head(w).root, proof=links
    )
