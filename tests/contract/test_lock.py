"""The same questions to every checkpoint lock, then what only the one on disk must answer."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.adapters import lock_file
from gateway.adapters.lock_file import MARKER, MAX_NOTE_BYTES, FileLock
from gateway.errors import AuditUnavailable
from gateway.ports.lock import CheckpointLock
from tests.fakes.lock import BreakableLock, FakeLock

ORIGIN = "log.example/7f3a"
OTHER = "log.example/7f3b"
STEM = hashlib.sha256(ORIGIN.encode()).hexdigest()


def head(size: int, origin: str = ORIGIN) -> str:
    return f"{origin}\n{size}\nroot\n\n\u2014 {origin} c2ln\n"


@pytest.fixture(params=["disk", "fake"])
def lock(request, tmp_path):
    if request.param == "fake":
        yield FakeLock()
        return
    made = FileLock.create(tmp_path / "lock")
    yield made
    made.close()


@pytest.fixture
def place(tmp_path) -> Path:
    return tmp_path / "lock"


@pytest.fixture
def disk(place):
    made = FileLock.create(place, wait_s=0.2)
    yield made
    made.close()


async def refused(asking: object) -> str:
    """Return the detail with which the lock refuses."""
    with pytest.raises(AuditUnavailable) as refusal:
        await asking
    return refusal.value.detail


def files(place: Path) -> set[str]:
    return {path.name for path in place.iterdir()} - {MARKER}


# --- every lock ----------------------------------------------------------------------------------


async def test_a_log_that_was_never_swapped_has_no_note(lock):
    assert await lock.load(ORIGIN) is None


async def test_what_was_swapped_in_is_loaded(lock):
    assert await lock.swap(ORIGIN, None, head(1))
    assert await lock.swap(ORIGIN, head(1), head(2))
    assert await lock.load(ORIGIN) == head(2)


@pytest.mark.parametrize("old", [None, head(1), head(3)])
async def test_a_swap_of_what_does_not_stand_changes_nothing(lock, old):
    await lock.swap(ORIGIN, None, head(1))
    await lock.swap(ORIGIN, head(1), head(2))
    assert not await lock.swap(ORIGIN, old, head(4))
    assert await lock.load(ORIGIN) == head(2)


async def test_a_first_swap_from_something_is_refused(lock):
    assert not await lock.swap(ORIGIN, head(1), head(2))
    assert await lock.load(ORIGIN) is None


@pytest.mark.parametrize("old", [None, head(1)])
async def test_a_swap_whose_reply_was_lost_is_repeated(lock, old):
    if old is not None:
        await lock.swap(ORIGIN, None, old)
    broken = BreakableLock(lock)
    broken.faults.lose_reply("swap")
    assert await refused(broken.swap(ORIGIN, old, head(2))) == ""
    assert await lock.load(ORIGIN) == head(2)
    assert await broken.swap(ORIGIN, old, head(2))


async def test_a_swap_that_was_lost_changes_nothing(lock):
    broken = BreakableLock(lock)
    broken.faults.lose("swap")
    await refused(broken.swap(ORIGIN, None, head(1)))
    assert await lock.load(ORIGIN) is None


async def test_logs_do_not_meet(lock):
    await lock.swap(ORIGIN, None, head(1))
    assert await lock.load(OTHER) is None
    assert await lock.swap(OTHER, None, head(9, OTHER))
    assert await lock.load(ORIGIN) == head(1)


@pytest.mark.parametrize("new", [head(1, OTHER), "", ORIGIN, f"{ORIGIN}\nno end"])
async def test_a_note_of_another_log_is_refused(lock, new):
    with pytest.raises(ValueError, match="origin"):
        await lock.swap(ORIGIN, None, new)
    assert await lock.load(ORIGIN) is None


async def test_of_many_that_swap_at_once_one_wins(lock):
    """And each of the others is told so."""
    await lock.swap(ORIGIN, None, head(1))
    outcomes = await asyncio.gather(*(lock.swap(ORIGIN, head(1), head(size)) for size in range(2, 12)))
    assert sum(outcomes) == 1
    assert await lock.load(ORIGIN) == head(2 + outcomes.index(True))


# --- the one on disk -----------------------------------------------------------------------------


async def test_another_process_sees_it(disk, place):
    await disk.swap(ORIGIN, None, head(1))
    second = FileLock(place)
    assert await second.load(ORIGIN) == head(1)
    assert await second.swap(ORIGIN, head(1), head(2))
    assert not await disk.swap(ORIGIN, head(1), head(3))
    second.close()


async def test_processes_that_swap_at_once_lose_nothing(disk, place):
    """Each of three counts to 20 by swaps; a swap that was lost would show in the sum."""
    program = f"""
import asyncio, os
from pathlib import Path
from gateway.adapters.lock_file import FileLock
async def count():
    lock, done = FileLock(Path({str(place)!r})), 0
    while done < 20:
        old = await lock.load({ORIGIN!r})
        size = int(old.split("\\n")[1]) if old else 0
        done += await lock.swap({ORIGIN!r}, old, f"{ORIGIN}\\n{{size + 1}}\\n{{os.getpid()}}\\n")
asyncio.run(count())
"""
    running = [await asyncio.create_subprocess_exec(sys.executable, "-c", program) for _ in range(3)]
    assert [await child.wait() for child in running] == [0, 0, 0]
    assert (await disk.load(ORIGIN)).split("\n")[1] == "60"


async def test_only_its_owner_may_read_it(disk, place):
    await disk.swap(ORIGIN, None, head(1))
    assert {stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()} == {0o600}
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


async def test_nothing_but_the_note_is_left(disk, place):
    await disk.swap(ORIGIN, None, head(1))
    await disk.swap(ORIGIN, head(1), head(2))
    assert files(place) == {f"{STEM}.note"}


async def test_a_lock_that_was_never_made_is_no_lock(place):
    with pytest.raises(AuditUnavailable):
        FileLock(place)
    place.mkdir()
    with pytest.raises(AuditUnavailable) as refusal:
        FileLock(place)
    assert refusal.value.detail == "lock_missing"


def test_making_a_lock_twice_keeps_it(place):
    for _ in range(2):
        lock = FileLock.create(place)
        asyncio.run(lock.swap(ORIGIN, asyncio.run(lock.load(ORIGIN)), head(1)))
        lock.close()
    assert files(place) == {f"{STEM}.note"}


def test_a_folder_of_something_else_does_not_become_a_lock(place):
    place.mkdir()
    (place / "photo.jpg").write_bytes(b"")
    with pytest.raises(AuditUnavailable) as refusal:
        FileLock.create(place)
    assert refusal.value.detail == "lock_not_empty"


def test_another_layout_is_refused(disk, place):
    (place / MARKER).write_text("lethe checkpoint lock, layout 2\n")
    with pytest.raises(AuditUnavailable) as refusal:
        FileLock(place)
    assert refusal.value.detail == "lock_layout"


@pytest.mark.parametrize("what", [".", MARKER])
def test_a_lock_that_others_may_change_is_refused(disk, place, what):
    (place / what).chmod(0o722)
    with pytest.raises(AuditUnavailable) as refusal:
        FileLock(place)
    assert refusal.value.detail == "lock_not_private"


def _link(note: Path) -> None:
    outside = note.parent.parent / "outside"
    outside.write_text(head(7))
    note.symlink_to(outside)


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "link": (_link, "lock_kind"),
    "pipe": (lambda note: os.mkfifo(note, 0o600), "lock_kind"),
    "folder": (lambda note: note.mkdir(mode=0o700), "lock_kind"),
    "empty": (lambda note: note.write_bytes(b""), "lock_corrupt"),
    "cut": (lambda note: note.write_text(head(1)[:-1]), "lock_corrupt"),
    "other": (lambda note: note.write_text(head(1, OTHER)), "lock_corrupt"),
    "binary": (lambda note: note.write_bytes(ORIGIN.encode() + b"\n\xff\n"), "lock_corrupt"),
    "huge": (lambda note: note.write_text(f"{ORIGIN}\n" + "x" * MAX_NOTE_BYTES + "\n"), "lock_corrupt"),
}


@pytest.mark.parametrize("how", SPOILED)
async def test_a_spoiled_note_is_neither_believed_nor_overwritten(disk, place, how):
    spoil, detail = SPOILED[how]
    spoil(place / f"{STEM}.note")
    assert await refused(disk.load(ORIGIN)) == detail
    assert await refused(disk.swap(ORIGIN, None, head(1))) == detail
    assert files(place) == {f"{STEM}.note"}


async def test_what_a_link_leads_to_is_left_alone(disk, place):
    _link(place / f"{STEM}.note")
    await refused(disk.swap(ORIGIN, head(7), head(8)))
    assert (place.parent / "outside").read_text() == head(7)


@pytest.mark.parametrize("is_made_anew", [False, True])
async def test_a_folder_that_went_away_is_noticed(disk, place, is_made_anew):
    """Rule R10: also when another, whole lock stands in its place."""
    await disk.swap(ORIGIN, None, head(1))
    place.rename(place.with_name("moved"))
    if is_made_anew:
        FileLock.create(place).close()
    assert await refused(disk.load(ORIGIN)) == "lock_replaced"
    assert await refused(disk.swap(ORIGIN, head(1), head(2))) == "lock_replaced"


async def test_a_folder_that_was_removed_is_noticed(disk, place):
    shutil.rmtree(place)
    assert await refused(disk.load(ORIGIN)) == "lock_replaced"


async def test_a_marker_that_was_replaced_is_noticed(disk, place):
    """Two processes would else hold two locks that exclude nobody."""
    shutil.copy(place / MARKER, place / "copy")
    (place / "copy").rename(place / MARKER)
    assert await refused(disk.swap(ORIGIN, None, head(1))) == "lock_replaced"


async def test_a_folder_that_goes_away_meanwhile_makes_no_swap(disk, place, monkeypatch):
    write = FileLock._write

    def written_elsewhere(self: FileLock, stem: str, data: bytes) -> None:
        place.rename(place.with_name("moved"))
        write(self, stem, data)

    monkeypatch.setattr(FileLock, "_write", written_elsewhere)
    assert await refused(disk.swap(ORIGIN, None, head(1))) == "lock_replaced"


async def test_a_lock_that_another_process_holds_is_waited_for_and_then_refused(disk, place):
    descriptor = os.open(place / MARKER, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert await refused(disk.swap(ORIGIN, None, head(1))) == "lock_busy"
    os.close(descriptor)
    assert await disk.swap(ORIGIN, None, head(1))


async def test_a_closed_lock_answers_nothing(disk):
    disk.close()
    assert await refused(disk.load(ORIGIN)) == "lock_closed"


# --- where the disk fails ------------------------------------------------------------------------


def failing(code: int, at: int = 1) -> Callable[..., object]:
    """Return a system call that fails the `at`th time it is made."""
    calls = 0

    def call(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == at:
            raise OSError(code, os.strerror(code))
        return real(*arguments, **options)

    real: Callable[..., object] = lambda *_arguments, **_options: None  # noqa: E731 - replaced below

    def of(original: Callable[..., object]) -> Callable[..., object]:
        nonlocal real
        real = original
        return call

    return of


@pytest.mark.parametrize(("at", "standing"), [(1, head(1)), (2, head(2))], ids=["note", "name"])
async def test_after_a_sync_that_failed_nothing_is_asked_of_it_again(disk, place, monkeypatch, at, standing):
    """Rule R4.  Whether the swap happened is told by a new start, where it may be repeated."""
    await disk.swap(ORIGIN, None, head(1))
    monkeypatch.setattr(lock_file.os, "fsync", failing(errno.EIO, at)(os.fsync))
    assert await refused(disk.swap(ORIGIN, head(1), head(2))) == "eio"
    monkeypatch.undo()
    assert await refused(disk.load(ORIGIN)) == "lock_sync_failed"
    assert await refused(disk.swap(ORIGIN, head(1), head(2))) == "lock_sync_failed"
    again = FileLock(place)
    assert await again.load(ORIGIN) == standing
    assert await again.swap(ORIGIN, head(1), head(2))
    again.close()


async def test_a_repeated_swap_writes_anew_what_may_never_have_reached_the_disk(disk, place):
    """What stands may be pages that a failed sync left in memory: only new ones are known to arrive."""
    await disk.swap(ORIGIN, None, head(1))
    before = (place / f"{STEM}.note").stat().st_ino
    other = os.open(place / f"{STEM}.note", os.O_RDONLY)  # keeps the number from being given again
    assert await disk.swap(ORIGIN, None, head(1))
    assert (place / f"{STEM}.note").stat().st_ino != before
    os.close(other)


@pytest.mark.parametrize("call", ["write", "rename"])
async def test_a_full_disk_leaves_the_note_that_stood(disk, place, monkeypatch, call):
    await disk.swap(ORIGIN, None, head(1))
    monkeypatch.setattr(lock_file.os, call, failing(errno.ENOSPC)(getattr(os, call)))
    assert await refused(disk.swap(ORIGIN, head(1), head(2))) == "enospc"
    assert await disk.load(ORIGIN) == head(1)
    assert files(place) == {f"{STEM}.note"}
    assert await disk.swap(ORIGIN, head(1), head(2))


async def test_a_short_write_is_gone_on_with(disk, monkeypatch):
    write = os.write
    monkeypatch.setattr(lock_file.os, "write", lambda descriptor, data: write(descriptor, bytes(data)[:7]))
    assert await disk.swap(ORIGIN, None, head(1))
    assert await disk.load(ORIGIN) == head(1)


KILLED_BEFORE = ["open", "write", "fsync", "close", "rename", "fsync:2"]


@pytest.mark.parametrize("point", KILLED_BEFORE)
async def test_a_process_killed_anywhere_leaves_the_old_note_or_the_new(disk, place, point):
    await disk.swap(ORIGIN, None, head(1))
    name, _, at = point.partition(":")
    program = f"""
import asyncio, os, signal
from pathlib import Path
from gateway.adapters import lock_file
lock, real, calls = lock_file.FileLock(Path({str(place)!r})), os.{name}, 0
def deadly(*arguments, **options):
    global calls
    is_ours = {name!r} != "open" or options.get("dir_fd") and arguments[1] & os.O_CREAT
    calls += bool(is_ours)
    if calls == {at or 1}:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **options)
async def swap():
    os.{name} = deadly
    await lock.swap({ORIGIN!r}, {head(1)!r}, {head(2)!r})
asyncio.run(swap())
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    standing = head(2) if point == "fsync:2" else head(1)
    assert await disk.load(ORIGIN) == standing
    assert await disk.swap(ORIGIN, head(1), head(2))
    assert await disk.load(ORIGIN) == head(2)


async def test_a_lock_whose_making_was_cut_short_can_be_made(place):
    place.mkdir(mode=0o700)
    (place / f"{MARKER}.0123456789abcdef.new").write_text("let")
    lock = FileLock.create(place)
    assert await lock.swap(ORIGIN, None, head(1))
    lock.close()


def test_every_lock_is_one() -> None:
    def takes(_lock: CheckpointLock) -> None: ...

    takes(FakeLock())
    takes(BreakableLock(FakeLock()))
