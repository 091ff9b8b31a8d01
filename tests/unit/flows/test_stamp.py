"""Published checkpoints get timestamps now and then, and nothing waits for them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from audit.verify import verify_export
from gateway import compose
from gateway.adapters.log_folder import LogFolder
from gateway.bell import Bell
from gateway.errors import AuditUnavailable
from gateway.flows.audit import Wish
from gateway.flows.stamp import Stamp
from gateway.ports.files import LogFiles
from gateway.ports.records import Checkpoint
from gateway.ports.timestamp import TimestampInvalid, TimestampUnavailable
from tests.process import until
from tests.world import OFFICER, ORIGIN, World

HOUR = timedelta(hours=1)


class OneAuthority:
    """An authority that answers as it is told."""

    def __init__(self, *faults: Exception) -> None:
        self.faults = list(faults)
        self.asked: list[str] = []

    async def stamp(self, checkpoint: str) -> bytes:
        self.asked.append(checkpoint)
        if self.faults:
            raise self.faults.pop(0)
        return b"token over " + checkpoint.encode()


@pytest.fixture
async def w() -> World:
    world = World()
    await world.ready("ann")
    await world.log()
    return world


def stamper(w: World, authority: OneAuthority | None, files: LogFiles | None = None) -> Stamp:
    return Stamp(w.records, w.clock, {"acme": ORIGIN}, authority, HOUR, files)


def points(w: World) -> list[Checkpoint]:
    return sorted((row for row in w.records.all(Checkpoint) if row.log == ORIGIN), key=lambda row: row.size)


async def test_the_newest_checkpoint_is_stamped_and_kept_for_good(w: World) -> None:
    authority = OneAuthority()
    assert await stamper(w, authority).run() == 1
    (stamped,) = points(w)
    assert (authority.asked, stamped.is_kept) == ([stamped.note], True)
    assert stamped.timestamp == b"token over " + stamped.note.encode()
    await w.know("bob")
    await w.log()
    assert [point.timestamp is not None for point in points(w)] == [True, False]


async def test_it_is_stamped_once_in_an_interval_and_only_where_it_is_new(w: World) -> None:
    authority = OneAuthority()
    assert await stamper(w, authority).run() == 1
    w.clock.advance(HOUR * 3)
    assert await stamper(w, authority).run() == 0  # nothing new
    await w.know("bob")
    await w.log()
    assert await stamper(w, authority).run() == 1
    w.clock.advance(HOUR - timedelta(seconds=1))
    await w.know("carl")
    await w.log()
    assert await stamper(w, authority).run() == 0
    w.clock.advance(timedelta(seconds=1))
    assert await stamper(w, authority).run() == 1
    assert len(points(w)) == len(authority.asked) == 3


async def test_without_an_authority_nothing_is_done(w: World) -> None:
    assert await w.flows.stamp.run() == 0
    assert [point.timestamp for point in points(w)] == [None]


@pytest.mark.parametrize(
    "fault", [TimestampUnavailable("away"), TimestampInvalid("timestamp_false")], ids=["away", "false"]
)
async def test_a_failure_is_raised_and_publishing_goes_on(w: World, fault: Exception) -> None:
    stamp = stamper(w, OneAuthority(fault))
    with pytest.raises(type(fault)):
        await stamp.run()
    before = points(w)[-1].size
    await w.know("bob")
    await w.log()
    assert points(w)[-1].size > before
    assert await stamp.run() == 1


async def test_a_failure_raises_the_alarm_once(w: World) -> None:
    away = OneAuthority(*[TimestampUnavailable("away")] * 3)
    watch = compose.Watch(CollectorRegistry())
    loop = compose._forever("timestamp_failing", 0.001, stamper(w, away).run, watch, Bell())
    task = asyncio.create_task(loop)
    await until(lambda: points(w)[-1].timestamp)
    task.cancel()
    assert watch.registry.get_sample_value("lethe_alarms_total", {"alarm": "timestamp_failing"}) == 1


async def test_a_log_whose_stamp_fails_does_not_keep_the_others_from_theirs(w: World) -> None:
    other = "lethe.test/0b"
    await w.records.transact(lambda tx: w.flows.ledger.record(tx, "other", "signal.recorded", None, sig=[]))
    await w.log()
    authority = OneAuthority(TimestampUnavailable("away"))
    stamp = Stamp(w.records, w.clock, {"acme": ORIGIN, "other": other}, authority, HOUR)
    with pytest.raises(TimestampUnavailable):
        await stamp.run()
    assert {row.log for row in w.records.all(Checkpoint) if row.timestamp} == {other}


async def test_a_checkpoint_that_was_followed_meanwhile_is_kept_all_the_same(w: World) -> None:
    class Slow(OneAuthority):
        async def stamp(self, checkpoint: str) -> bytes:
            await w.know("bob")
            await w.log()
            return await super().stamp(checkpoint)

    first = points(w)[-1].size
    assert await stamper(w, Slow()).run() == 1
    assert next((point.size, bool(point.timestamp)) for point in points(w)) == (first, True)
    assert len(points(w)) == 2


async def test_an_export_of_a_stamped_checkpoint_carries_the_timestamp_and_verifies(w: World) -> None:
    await stamper(w, OneAuthority()).run()
    (stamped,) = points(w)
    trust = "".join(f"{signer.vkey()}\n" for signer in w.signers[ORIGIN])
    files = await w.flows.audit.export(OFFICER, Wish())
    assert files["checkpoint.tsr"] == stamped.timestamp
    report = verify_export(files, trust)
    assert (report.verdict, report.fault) == ("valid", "")
    assert "checkpoint.tsr" in report.unchecked
    spoilt = verify_export(files | {"checkpoint.tsr": b"another"}, trust)
    assert spoilt.fault.startswith("file_changed: checkpoint.tsr")
    await w.log()
    assert "checkpoint.tsr" not in await w.flows.audit.export(OFFICER, Wish())
    assert "checkpoint.tsr" in await w.flows.audit.export(OFFICER, Wish(size=stamped.size))


async def test_the_folder_shows_the_stamped_checkpoint_again_after_a_crash(w: World, tmp_path: Path) -> None:
    class Full(LogFolder):
        async def show_stamped(self, origin: str, checkpoint: str, timestamp: bytes) -> None:
            raise AuditUnavailable("the disk is full", detail="folder")

    authority = OneAuthority()
    with pytest.raises(AuditUnavailable):
        await stamper(w, authority, Full(tmp_path)).run()
    assert await stamper(w, authority, LogFolder(tmp_path)).run() == 0
    (stamped,) = points(w)
    assert (tmp_path / ORIGIN / "checkpoint.stamped").read_text() == stamped.note
    assert (tmp_path / ORIGIN / "checkpoint.tsr").read_bytes() == stamped.timestamp
    assert len(authority.asked) == 1
