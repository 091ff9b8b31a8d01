"""The same questions to every object store, then what only the one on disk must answer."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.adapters.objects_local import MARKER, TEMPORARY, FileObjects
from gateway.adapters.objects_s3 import S3Objects
from gateway.errors import DiskReserve, StoreUnavailable
from gateway.ports.objects import ObjectExists, ObjectMissing, ObjectStore
from gateway.settings import S3Section
from tests.fakes.objects import BreakableObjects, FakeObjects
from tests.needs import needs
from tests.seaweed import Seaweed

ID = "0123456789abcdef" * 2
OTHER = "fedcba9876543210" * 2
MIB = 1 << 20


@pytest.fixture(params=["disk", "fake", "s3", "s3 with versions"])
async def objects(request, tmp_path) -> AsyncIterator[ObjectStore]:
    if request.param == "disk":
        yield FileObjects(tmp_path / "store")
    elif request.param == "fake":
        yield FakeObjects()
    else:
        server: Seaweed = request.getfixturevalue("seaweed")
        bucket = server.bucket(versioned=request.param != "s3")
        store = await S3Objects.open(S3Section(**server.section(bucket)))
        yield store
        store.close()


@pytest.fixture
def disk(tmp_path) -> FileObjects:
    return FileObjects(tmp_path / "store")


async def feed(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def read(objects: ObjectStore, object_id: str = ID) -> bytes:
    return b"".join([chunk async for chunk in objects.get(object_id)])


async def listed(objects: ObjectStore) -> dict[str, int]:
    return {found.object_id: found.size_bytes async for found in objects.list()}


def files(directory: Path) -> set[str]:
    return {str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file()} - {MARKER}


# --- every store ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "chunks", [[], [b""], [b"a"], [b"ab", b"", b"c"], [bytes(MIB), bytes(3 * MIB), b"end"]]
)
async def test_what_was_put_is_got_back(objects, chunks):
    content = b"".join(chunks)
    assert await objects.put(ID, feed(*chunks)) == len(content)
    assert await read(objects) == content


async def test_chunks_come_back_in_at_most_a_mebibyte(objects):
    await objects.put(ID, feed(os.urandom(2 * MIB + 5)))
    sizes = [len(chunk) async for chunk in objects.get(ID)]
    assert max(sizes) <= MIB
    assert min(sizes) > 0


async def test_the_same_bytes_may_be_put_again(objects):
    await objects.put(ID, feed(b"abc"))
    assert await objects.put(ID, feed(b"a", b"bc")) == 3
    assert await read(objects) == b"abc"
    assert await listed(objects) == {ID: 3}


@pytest.mark.parametrize("second", [b"abd", b"ab", b"abcd", b""])
async def test_other_bytes_under_the_same_id_are_refused_and_change_nothing(objects, second):
    await objects.put(ID, feed(b"abc"))
    with pytest.raises(ObjectExists):
        await objects.put(ID, feed(second))
    assert await read(objects) == b"abc"


async def test_what_was_never_put_is_missing(objects):
    await objects.put(OTHER, feed(b"other"))
    with pytest.raises(ObjectMissing):
        await read(objects)


async def test_a_deleted_object_is_missing_and_may_be_deleted_again(objects):
    await objects.put(ID, feed(b"abc"))
    await objects.delete(ID)
    await objects.delete(ID)
    with pytest.raises(ObjectMissing):
        await read(objects)
    assert await listed(objects) == {}


async def test_deleting_what_never_was_changes_nothing(objects):
    await objects.put(OTHER, feed(b"other"))
    await objects.delete(ID)
    assert await listed(objects) == {OTHER: 5}


async def test_a_deleted_id_takes_other_bytes(objects):
    await objects.put(ID, feed(b"abc"))
    await objects.delete(ID)
    await objects.put(ID, feed(b"xyz"))
    assert await read(objects) == b"xyz"


async def test_the_listing_tells_id_size_and_when_in_utc(objects):
    before = datetime.now(UTC) - timedelta(seconds=1)  # file systems keep coarser time than clocks
    await objects.put(ID, feed(b"abc"))
    await objects.put(OTHER, feed(b""))
    found = [stored async for stored in objects.list()]
    assert {(ID, 3), (OTHER, 0)} == {(stored.object_id, stored.size_bytes) for stored in found}
    for stored in found:
        assert stored.stored_at.utcoffset() == timedelta(0)
        assert before <= stored.stored_at <= datetime.now(UTC) + timedelta(seconds=1)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "abc",
        ID[:-1],
        ID + "0",
        ID.upper(),
        "../" + ID[3:],
        "/" + ID[1:],
        ID[:-1] + "\n",
        ID + "\n",
        "g" * 32,
    ],
)
async def test_an_id_that_is_not_32_hex_digits_is_refused(objects, bad):
    for ask in (objects.put(bad, feed(b"x")), objects.delete(bad), read(objects, bad)):
        with pytest.raises(ValueError, match="32 lowercase hex"):
            await ask
    assert await listed(objects) == {}


async def test_a_source_that_fails_leaves_nothing_and_its_error_passes_through(objects):
    async def failing() -> AsyncIterator[bytes]:
        yield bytes(MIB)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await objects.put(ID, failing())
    assert await listed(objects) == {}
    await objects.put(ID, feed(b"abc"))
    assert await read(objects) == b"abc"


async def test_a_cancelled_put_leaves_nothing(objects):
    reached = asyncio.Event()

    async def stalling() -> AsyncIterator[bytes]:
        yield b"half"
        reached.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(objects.put(ID, stalling()))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await listed(objects) == {}


async def test_puts_of_the_same_bytes_at_once_all_succeed(objects):
    content = os.urandom(MIB + 3)
    sizes = await asyncio.gather(*(objects.put(ID, feed(content[:7], content[7:])) for _ in range(6)))
    assert set(sizes) == {len(content)}
    assert await read(objects) == content


async def test_of_puts_of_different_bytes_at_once_one_wins(objects):
    contents = [bytes([i]) * 1000 for i in range(6)]
    ended = await asyncio.gather(*(objects.put(ID, feed(c)) for c in contents), return_exceptions=True)
    (winner,) = [c for c, end in zip(contents, ended, strict=True) if end == 1000]
    assert sum(isinstance(end, ObjectExists) for end in ended) == 5
    assert await read(objects) == winner


async def test_a_reader_that_stops_early_does_no_harm(objects):
    await objects.put(ID, feed(bytes(3 * MIB)))
    reading = objects.get(ID)
    await anext(reading)
    await reading.aclose()  # type: ignore[attr-defined] # every implementation is a generator
    assert len(await read(objects)) == 3 * MIB


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(st.lists(st.binary(max_size=50), max_size=8), st.integers(0, 2**128 - 1))
def test_any_chunks_under_any_id_come_back(objects, chunks, number):
    object_id = f"{number:032x}"

    async def back() -> bytes:
        await objects.delete(object_id)
        await objects.put(object_id, feed(*chunks))
        return await read(objects, object_id)

    assert b"".join(chunks) == asyncio.run(back())


# --- faults, in front of every store -------------------------------------------------------------


async def test_a_lost_put_left_nothing_and_may_be_repeated(objects):
    broken = BreakableObjects(objects)
    broken.faults.lose("put")
    with pytest.raises(StoreUnavailable):
        await broken.put(ID, feed(b"abc"))
    assert await listed(broken) == {}
    assert await broken.put(ID, feed(b"abc")) == 3


async def test_a_put_whose_reply_was_lost_may_be_repeated_with_the_same_bytes(objects):
    broken = BreakableObjects(objects)
    broken.faults.lose_reply("put")
    with pytest.raises(StoreUnavailable):
        await broken.put(ID, feed(b"abc"))
    assert await listed(broken) == {ID: 3}
    assert await broken.put(ID, feed(b"abc")) == 3
    assert await read(broken) == b"abc"


@pytest.mark.parametrize("fault", ["lose", "lose_reply"])
async def test_a_caller_who_gives_up_on_a_put_deletes(objects, fault):
    broken = BreakableObjects(objects)
    getattr(broken.faults, fault)("put")
    with pytest.raises(StoreUnavailable):
        await broken.put(ID, feed(b"abc"))
    await broken.delete(ID)
    assert await listed(broken) == {}


@pytest.mark.parametrize("fault", ["lose", "lose_reply"])
async def test_a_delete_that_failed_may_be_repeated(objects, fault):
    broken = BreakableObjects(objects)
    await broken.put(ID, feed(b"abc"))
    getattr(broken.faults, fault)("delete")
    with pytest.raises(StoreUnavailable):
        await broken.delete(ID)
    assert await listed(broken) == ({ID: 3} if fault == "lose" else {})
    await broken.delete(ID)
    assert await listed(broken) == {}


async def test_a_store_that_is_down_answers_nothing(objects):
    await objects.put(ID, feed(b"abc"))
    broken = BreakableObjects(objects)
    broken.faults.is_down = True
    for ask in (broken.put(OTHER, feed(b"x")), broken.delete(ID), read(broken), listed(broken)):
        with pytest.raises(StoreUnavailable):
            await ask
    broken.faults.is_down = False
    assert await listed(broken) == {ID: 3}


@pytest.mark.parametrize("fault", ["lose", "lose_reply"])
async def test_the_fake_itself_can_be_told_to_break(fault):
    fake = FakeObjects()
    getattr(fake.faults, fault)("put")
    with pytest.raises(StoreUnavailable):
        await fake.put(ID, feed(b"abc"))
    assert await listed(fake) == ({ID: 3} if fault == "lose_reply" else {})


async def test_the_full_fake_refuses_as_the_reserve_does():
    fake = FakeObjects()
    fake.is_full = True
    with pytest.raises(DiskReserve):
        await fake.put(ID, feed(b"abc"))


# --- the store on disk ---------------------------------------------------------------------------


async def test_objects_fan_out_over_two_levels_and_no_draft_stays(disk, tmp_path):
    await disk.put(ID, feed(b"abc"))
    assert files(tmp_path / "store") == {f"01/23/{ID}"}


async def test_objects_survive_a_restart(disk, tmp_path):
    await disk.put(ID, feed(b"abc"))
    assert await read(FileObjects(tmp_path / "store")) == b"abc"


async def test_nobody_else_may_read_what_is_stored(disk, tmp_path):
    await disk.put(ID, feed(b"abc"))
    for path in (tmp_path / "store").rglob("*"):
        if path.name != MARKER:
            assert path.stat().st_mode & 0o077 == 0


def leave_draft(directory: Path) -> Path:
    draft = directory / TEMPORARY / f"{ID}.0123456789abcdef"
    draft.write_bytes(b"half")
    return draft


async def test_drafts_of_a_crash_are_cleared_at_the_start(disk, tmp_path):
    await disk.put(OTHER, feed(b"kept"))
    leave_draft(tmp_path / "store")
    again = FileObjects(tmp_path / "store")
    assert files(tmp_path / "store") == {f"fe/dc/{OTHER}"}
    assert await listed(again) == {OTHER: 4}


async def test_a_draft_that_is_being_written_is_not_cleared(disk, tmp_path):
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"ab"
        reached.set()
        await go_on.wait()
        yield b"c"

    putting = asyncio.ensure_future(disk.put(ID, slow()))
    await reached.wait()
    other = FileObjects(tmp_path / "store")
    go_on.set()
    assert await putting == 3
    assert await read(other) == b"abc"


async def test_drafts_are_never_listed(disk, tmp_path):
    leave_draft(tmp_path / "store")
    assert await listed(disk) == {}


async def test_a_failed_put_leaves_no_draft(disk, tmp_path):
    async def failing() -> AsyncIterator[bytes]:
        yield b"half"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await disk.put(ID, failing())
    await disk.put(ID, feed(b"abc"))
    with pytest.raises(ObjectExists):
        await disk.put(ID, feed(b"abd"))
    assert files(tmp_path / "store") == {f"01/23/{ID}"}


async def test_a_put_that_is_cancelled_while_the_disk_works_waits_for_the_disk(disk, tmp_path):
    for _ in range(20):
        task = asyncio.ensure_future(disk.put(ID, feed(*[bytes(MIB)] * 4)))
        for _ in range(3):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert files(tmp_path / "store") == set()


async def test_a_put_again_counts_as_stored_now(disk, tmp_path):
    await disk.put(ID, feed(b"abc"))
    os.utime(tmp_path / "store" / "01" / "23" / ID, (0, 0))
    await disk.put(ID, feed(b"abc"))
    (found,) = [stored async for stored in disk.list()]
    assert found.stored_at > datetime(2020, 1, 1, tzinfo=UTC)


async def test_a_put_is_synced_bytes_first_then_every_name(disk, monkeypatch, tmp_path):
    synced: list[str] = []
    real = os.fsync

    def spy(descriptor: int) -> None:
        synced.append(os.path.relpath(Path(f"/proc/self/fd/{descriptor}").readlink(), tmp_path / "store"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    await disk.put(ID, feed(b"abc"))
    assert synced[0].startswith(f"{TEMPORARY}/{ID}.")
    assert synced[1:] == [".", "01", "01/23"]
    synced.clear()
    await disk.delete(ID)
    assert synced == ["01/23"]


async def test_a_store_whose_disk_went_away_does_not_say_that_nothing_is_there(disk, tmp_path):
    await disk.put(ID, feed(b"abc"))
    (tmp_path / "store").rename(tmp_path / "away")
    for stage in ("gone", "empty mount point"):
        for ask in (disk.put(OTHER, feed(b"x")), disk.delete(ID), read(disk), listed(disk)):
            with pytest.raises(StoreUnavailable):
                await ask
        if stage == "gone":
            (tmp_path / "store").mkdir()
    assert list((tmp_path / "store").iterdir()) == []


async def test_a_directory_that_holds_something_else_is_not_taken(tmp_path):
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(StoreUnavailable) as refusal:
        FileObjects(tmp_path)
    assert refusal.value.detail == "not_a_store"
    assert files(tmp_path) == {"holiday.jpg"}


def test_a_store_of_another_layout_is_not_taken(tmp_path):
    (tmp_path / MARKER).write_text("lethe objects, layout 2\n")
    with pytest.raises(StoreUnavailable):
        FileObjects(tmp_path)


def test_a_store_whose_making_broke_off_is_made_again(tmp_path):
    (tmp_path / MARKER).touch()
    (tmp_path / "lost+found").mkdir()
    FileObjects(tmp_path)
    assert (tmp_path / MARKER).read_text()
    FileObjects(tmp_path)


def test_a_file_in_place_of_the_store_is_refused(tmp_path):
    (tmp_path / "store").touch()
    with pytest.raises(StoreUnavailable):
        FileObjects(tmp_path / "store")


async def test_below_the_reserve_no_byte_is_written(tmp_path):
    disk = FileObjects(tmp_path / "store", reserve_bytes=1 << 62)
    asked: list[int] = []

    async def source() -> AsyncIterator[bytes]:
        asked.append(1)
        yield b"abc"

    with pytest.raises(DiskReserve):
        await disk.put(ID, source())
    assert asked == []
    assert files(tmp_path / "store") == set()


async def test_a_put_that_would_use_up_the_reserve_leaves_nothing(tmp_path):
    left = iter([1000, 1000, 600, 200])
    disk = FileObjects(tmp_path / "store", reserve_bytes=100, free=lambda _: next(left))
    with pytest.raises(DiskReserve):
        await disk.put(ID, feed(bytes(400), bytes(400), bytes(400)))
    assert files(tmp_path / "store") == set()


async def test_reading_and_deleting_need_no_free_space(tmp_path):
    await FileObjects(tmp_path / "store").put(ID, feed(b"abc"))
    full = FileObjects(tmp_path / "store", reserve_bytes=1 << 62)
    assert await read(full) == b"abc"
    await full.delete(ID)
    assert await listed(full) == {}


async def test_foreign_files_in_the_store_are_not_listed(disk, tmp_path):
    await disk.put(ID, feed(b"abc"))
    for name in ("notes.txt", "01/notes.txt", "01/23/notes.txt"):
        (tmp_path / "store" / name).touch()
    assert await listed(disk) == {ID: 3}


PUT = """
import asyncio, pathlib, resource, sys
from gateway.adapters.objects_local import FileObjects
from gateway.errors import StoreUnavailable

async def chunks():
    for _ in range(4):
        yield bytes(1 << 20)

async def main(directory):
    store = FileObjects(directory)
    await store.put("f" * 32, few())
    if sys.argv[2] == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500000, 1500000))
    try:
        await store.put("0" * 32, chunks())
    except StoreUnavailable as error:
        print(error.detail)
    print([found.object_id[0] async for found in store.list()], len(list((directory / "tmp").iterdir())))

async def few():
    yield b"abc"

asyncio.run(main(pathlib.Path(sys.argv[1])))
"""


def put_in_a_process(directory: Path, how: str, *prefix: str) -> subprocess.CompletedProcess[str]:
    command: Iterable[str] = [*prefix, sys.executable, "-c", PUT, str(directory), how]
    return subprocess.run(command, check=True, capture_output=True, text=True)


def test_a_write_the_system_cuts_short_leaves_nothing(tmp_path):
    """RLIMIT_FSIZE stands in for a full disk: it needs no mount and works everywhere."""
    assert put_in_a_process(tmp_path, "limit").stdout == "efbig\n['f'] 0\n"


def test_a_disk_that_is_really_full_leaves_nothing(tmp_path):
    unshare = needs("unshare", "util-linux")
    mount = f"mount -t tmpfs -o size=1800k,mode=700 none {tmp_path}"
    alone = [unshare, "--user", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*alone, mount], check=False, capture_output=True).returncode:
        pytest.skip("mounting is not permitted here; the test above asks the same")
    done = put_in_a_process(tmp_path, "mount", *alone, f'{mount} && exec "$0" "$@"')
    assert done.stdout == "enospc\n['f'] 0\n"


def test_a_lock_on_a_draft_ends_with_its_writer(disk, tmp_path):
    draft = leave_draft(tmp_path / "store")
    with draft.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        FileObjects(tmp_path / "store")
        assert draft.exists()
    FileObjects(tmp_path / "store")
    assert not draft.exists()


async def test_an_object_being_read_may_be_deleted(disk, tmp_path):
    content = os.urandom(2 * MIB)
    await disk.put(ID, feed(content))
    reading = disk.get(ID)
    first = await anext(reading)
    await disk.delete(ID)
    assert first + b"".join([chunk async for chunk in reading]) == content
    shutil.rmtree(tmp_path / "store" / "01")
    await disk.delete(ID)
