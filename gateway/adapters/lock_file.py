"""The checkpoint lock in a directory: for one machine, or a disk of its own.

    lock            marks the directory as a lock, and its layout; whoever swaps holds a lock on it
    NAME.note       the newest note of the log whose origin has the SHA-256 NAME (hex)
    NAME.*.new      a note being written; one that a crash left is never read

It belongs on another disk than the database, or at least into no backup that is
restored together with it: a lock that falls back with the log notices nothing.
The file system must know advisory locks and atomic renames (ext4, xfs, tmpfs do).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ParamSpec, TypeVar

from gateway.adapters.disk import sync_folder
from gateway.errors import AuditUnavailable

P = ParamSpec("P")
T = TypeVar("T")

MARKER = "lock"
MARKER_TEXT = b"lethe checkpoint lock, layout 1\n"
MAX_NOTE_BYTES = 1 << 20
WAIT_S = 10.0

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_POLL_S = 0.002


class FileLock:
    """The `CheckpointLock` over a directory.

    The directory is opened once and all files are reached through it, so what was
    opened is what is written; each call looks whether the path still leads there.
    A sync that failed is never tried again: from then on every call is refused,
    because only what is read from the disk after a new start can be trusted.

    Rule:
        R4: a failed fsync is never repeated on the same file.
        R5, R6: files are made exclusively, renamed, and the directory synced.
        R10: a directory that was replaced is noticed.
    """

    def __init__(self, directory: Path, *, wait_s: float = WAIT_S) -> None:
        """Open a lock that is there; blocks.

        Args:
            directory: Where `create` made it.
            wait_s: How long a swap waits for another process that swaps.

        Raises:
            AuditUnavailable: There is none, it is open to others, or the disk refuses.
        """
        self._path = directory
        self._wait_s = wait_s
        self._is_broken = False
        self._mutex = threading.Lock()
        self._folder = self._marker = -1
        try:
            with _disk_errors():
                self._folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                _refuse_unless_ours(os.fstat(self._folder))
                self._marker = self._open_marker()
                self._need_place()
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, directory: Path, *, wait_s: float = WAIT_S) -> FileLock:
        """Make a lock, durably, and open it; one that is there is opened; blocks.

        Only for a log that has never signed: a lock that is lost and made anew
        holds nothing, and a log that fell back would not be noticed.

        Raises:
            AuditUnavailable: The directory holds something else, or the disk refuses.
        """
        with _disk_errors():
            with contextlib.suppress(FileExistsError):
                directory.mkdir(mode=0o700, parents=True)
            with contextlib.suppress(FileExistsError):
                _make_marker(directory)
            # Also when it was there: whoever made it may not have come to the sync.
            for folder in (directory, directory.parent):
                sync_folder(folder)
        return cls(directory, wait_s=wait_s)

    def close(self) -> None:
        """Let the directory go; nothing can be asked any more."""
        for descriptor in (self._marker, self._folder):
            if descriptor >= 0:
                os.close(descriptor)
        self._folder = self._marker = -1

    async def load(self, origin: str) -> str | None:
        """Return the newest note of the log; see the port."""
        return await _ask(self._load, origin)

    async def swap(self, origin: str, old: str | None, new: str) -> bool:
        """Replace the note `old` by `new`; see the port."""
        if not new.startswith(f"{origin}\n") or not new.endswith("\n"):
            raise ValueError("not a note of this origin")
        if len(new.encode()) > MAX_NOTE_BYTES:
            raise ValueError("the note is too large")
        return await _ask(self._swap, origin, old, new)

    def _load(self, origin: str) -> str | None:
        self._need_place()
        return self._read(origin)

    def _swap(self, origin: str, old: str | None, new: str) -> bool:
        with self._alone():
            self._need_place()
            standing = self._read(origin)
            # `new` itself is written again: whoever wrote it may not have come to its sync.
            if standing not in {old, new}:
                return False
            self._write(_stem(origin), new.encode())
            # Written where nobody will look is not written.
            self._need_place()
            return True

    def _write(self, stem: str, data: bytes) -> None:
        """Replace a file; a crash may cut anywhere: (1) write, (2) sync, (3) rename, (4) sync."""
        draft = f"{stem}.{os.urandom(8).hex()}.new"
        descriptor = os.open(draft, _NEW, 0o600, dir_fd=self._folder)
        try:
            try:
                _write_all(descriptor, data)
                self._sync(descriptor)
            finally:
                os.close(descriptor)
            os.rename(draft, f"{stem}.note", src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft, dir_fd=self._folder)
            raise
        self._sync(self._folder)

    def _sync(self, descriptor: int) -> None:
        try:
            os.fsync(descriptor)
        except OSError:
            self._is_broken = True
            raise

    def _read(self, origin: str) -> str | None:
        try:
            descriptor = os.open(f"{_stem(origin)}.note", _reading(), dir_fd=self._folder)
        except FileNotFoundError:
            return None
        try:
            _refuse_unless_file(os.fstat(descriptor))
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                data = file.read(MAX_NOTE_BYTES + 1)
        finally:
            os.close(descriptor)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            text = ""
        if len(data) > MAX_NOTE_BYTES or not text.startswith(f"{origin}\n") or not text.endswith("\n"):
            raise AuditUnavailable("a note of the checkpoint lock is damaged", detail="lock_corrupt")
        return text

    def _open_marker(self) -> int:
        try:
            descriptor = os.open(MARKER, _reading(), dir_fd=self._folder)
        except FileNotFoundError:
            raise AuditUnavailable("the directory is no checkpoint lock", detail="lock_missing") from None
        try:
            _refuse_unless_marker(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _need_place(self) -> None:
        """Refuse when the path leads elsewhere than to what was opened, or a sync has failed."""
        if self._is_broken:
            raise AuditUnavailable("a sync of the checkpoint lock failed", detail="lock_sync_failed")
        if self._folder < 0:
            raise AuditUnavailable("the checkpoint lock is closed", detail="lock_closed")
        try:
            is_same = _is_same(self._path.lstat(), os.fstat(self._folder))
            marker = os.stat(MARKER, dir_fd=self._folder, follow_symlinks=False)
            is_same = is_same and _is_same(marker, os.fstat(self._marker))
        except FileNotFoundError:
            is_same = False
        if not is_same:
            raise AuditUnavailable("the checkpoint lock is gone or was replaced", detail="lock_replaced")

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock against the threads of this process, then against other processes."""
        until = time.monotonic() + self._wait_s
        if not self._mutex.acquire(timeout=self._wait_s):
            raise _busy()
        try:
            while not _try_lock(self._marker):
                if time.monotonic() > until:
                    raise _busy()
                time.sleep(_POLL_S)
            try:
                yield
            finally:
                fcntl.flock(self._marker, fcntl.LOCK_UN)
        finally:
            self._mutex.release()


def _stem(origin: str) -> str:
    return hashlib.sha256(origin.encode()).hexdigest()


def _reading() -> int:
    # O_NONBLOCK: a FIFO in its place must not hang us; it is refused afterwards.
    return os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def _make_marker(directory: Path) -> None:
    """Make an empty directory a lock.

    Raises:
        FileExistsError: It is one, or another process is just making it one.
        AuditUnavailable: It holds something else.
    """
    names = {path.name for path in directory.iterdir()} - {"lost+found"}
    if any(not name.startswith(MARKER) for name in names):
        if MARKER in names:
            raise FileExistsError
        raise AuditUnavailable("the directory holds something else", detail="lock_not_empty")
    draft = directory / f"{MARKER}.{os.urandom(8).hex()}.new"
    descriptor = os.open(draft, _NEW, 0o600)
    try:
        _write_all(descriptor, MARKER_TEXT)
        os.fsync(descriptor)
        os.link(draft, directory / MARKER, follow_symlinks=False)
    finally:
        os.close(descriptor)
        draft.unlink(missing_ok=True)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _busy() -> AuditUnavailable:
    return AuditUnavailable("another process holds the checkpoint lock", detail="lock_busy")


def _is_same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _refuse_unless_ours(info: os.stat_result) -> None:
    if info.st_uid != os.geteuid() or stat.S_IMODE(info.st_mode) & 0o022:
        raise AuditUnavailable("others may write to the checkpoint lock", detail="lock_not_private")


def _refuse_unless_file(info: os.stat_result) -> None:
    if not stat.S_ISREG(info.st_mode):
        raise AuditUnavailable("a file of the checkpoint lock is no regular file", detail="lock_kind")
    _refuse_unless_ours(info)


def _refuse_unless_marker(descriptor: int) -> None:
    _refuse_unless_file(os.fstat(descriptor))
    if os.read(descriptor, len(MARKER_TEXT) + 1) != MARKER_TEXT:
        raise AuditUnavailable("the checkpoint lock has another layout", detail="lock_layout")


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, "unknown").lower()
        if error.errno == errno.ELOOP:
            code = "lock_kind"
        raise AuditUnavailable("the checkpoint lock's disk does not answer", detail=code) from error


async def _ask(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run disk work in a thread; what the disk refuses, the lock does not answer."""
    with _disk_errors():
        return await asyncio.to_thread(work, *args, **kwargs)
