"""The object store in a directory.

    store           marks the directory as a store, and its layout
    tmp/            objects being written; each is locked by its writer
    ab/cd/abcd...   objects, by the first two pairs of digits of their id

The file system must know hard links and advisory locks (ext4, xfs, tmpfs do).
Every byte here is ciphertext; the store does not know of what.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ParamSpec, TypeVar

from gateway.adapters.disk import free_bytes
from gateway.adapters.threads import finish
from gateway.errors import DiskReserve, StoreUnavailable
from gateway.ports.objects import ObjectExists, ObjectMissing, StoredBytes

P = ParamSpec("P")
T = TypeVar("T")

MARKER = "store"
MARKER_TEXT = "lethe objects, layout 1\n"
TEMPORARY = "tmp"
CHUNK_BYTES = 1 << 20

_OBJECT_ID = re.compile(r"[0-9a-f]{32}")
_PAIR = re.compile(r"[0-9a-f]{2}")


@dataclass(slots=True)
class _Draft:
    """An object being written; `descriptor` is -1 while it is not open."""

    path: Path
    descriptor: int = -1
    size: int = 0


class FileObjects:
    """The `ObjectStore` over a directory.

    Synced to disk are the bytes, then the names that lead to them; only then does
    `put` return.  Objects appear whole under their id or not at all.
    """

    def __init__(
        self, directory: Path, *, reserve_bytes: int = 0, free: Callable[[Path], int] = free_bytes
    ) -> None:
        """Open the store, made if it is new, and clear away what broken writes left; blocks.

        Args:
            directory: Where the objects lie.
            reserve_bytes: Free space that is never used.
            free: Tells the free bytes of the file system of a directory.

        Raises:
            StoreUnavailable: The disk refuses, or the directory is something else.
        """
        self._directory = directory
        self._temporary = directory / TEMPORARY
        self._reserve_bytes = reserve_bytes
        self._free = free
        self._synced: set[Path] = set()
        with _disk_errors():
            self._open_store()
            self._clear_drafts()

    async def put(self, object_id: str, chunks: AsyncIterable[bytes]) -> int:
        """Store `chunks` under `object_id`; see the port.

        Raises:
            ObjectExists: The id holds other bytes.
            DiskReserve: The reserve would be used up; nothing is left behind.
            StoreUnavailable: The disk refuses; nothing is left behind unless it
                refused the last sync.
        """
        place = self._place(object_id)
        draft = _Draft(self._temporary / f"{object_id}.{os.urandom(8).hex()}")
        try:
            await _disk(self._begin, draft)
            async for chunk in chunks:
                await _disk(self._append, draft, chunk)
            await _disk(self._keep, draft, place)
        finally:
            await _disk(_discard, draft)
        return draft.size

    async def get(self, object_id: str) -> AsyncIterator[bytes]:
        """Yield the bytes in chunks of at most 1 MiB; see the port."""
        reading = _Draft(self._place(object_id))
        try:
            await _disk(self._open_reading, reading)
            while chunk := await _disk(os.read, reading.descriptor, CHUNK_BYTES):
                yield chunk
        finally:
            _close(reading)

    async def delete(self, object_id: str) -> None:
        """Remove the bytes durably; see the port."""
        await _disk(self._remove, self._place(object_id))

    async def list(self) -> AsyncIterator[StoredBytes]:
        """Yield what is stored, in no order; objects that come or go meanwhile may be missed."""
        for folder in await _disk(self._folders):
            for found in await _disk(_found_in, folder):
                yield found

    def _place(self, object_id: str) -> Path:
        """Return where an object lies.

        Raises:
            ValueError: The id is not 32 lowercase hex characters (so it never leaves the directory).
        """
        if _OBJECT_ID.fullmatch(object_id) is None:
            raise ValueError("an object id is 32 lowercase hex characters")
        return self._directory / object_id[:2] / object_id[2:4] / object_id

    def _open_store(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        marker = self._directory / MARKER
        text = marker.read_text() if marker.exists() else ""
        if not text:
            # An empty marker is one whose writing a crash cut short.
            if {path.name for path in self._directory.iterdir()} - {MARKER, "lost+found"}:
                raise StoreUnavailable("the directory holds something else", detail="not_a_store")
            marker.write_text(MARKER_TEXT)
            _sync(marker)
        elif text != MARKER_TEXT:
            raise StoreUnavailable("the store has another layout", detail="not_a_store")
        self._temporary.mkdir(mode=0o700, exist_ok=True)
        _sync(self._directory)
        _sync(self._directory.parent)

    def _clear_drafts(self) -> None:
        """Remove what no living writer holds a lock on."""
        for path in self._temporary.iterdir():
            # Gone already: another process starts and clears as well.
            with contextlib.suppress(FileNotFoundError):
                _clear(path)

    def _need_store(self) -> None:
        """Tell a missing object from a missing disk: without its marker the store does not answer."""
        (self._directory / MARKER).stat()

    def _need_space(self, size: int) -> None:
        if self._reserve_bytes and self._free(self._directory) - size < self._reserve_bytes:
            raise DiskReserve

    def _begin(self, draft: _Draft) -> None:
        self._need_store()
        self._need_space(0)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        draft.descriptor = os.open(draft.path, flags, 0o600)
        fcntl.flock(draft.descriptor, fcntl.LOCK_EX)

    def _append(self, draft: _Draft, chunk: bytes) -> None:
        self._need_space(len(chunk))
        view = memoryview(chunk)
        while view:
            written = os.write(draft.descriptor, view)
            draft.size += written
            view = view[written:]

    def _keep(self, draft: _Draft, place: Path) -> None:
        """Give the written bytes their name: (1) sync them, (2) link exclusively, (3) sync the name."""
        os.fsync(draft.descriptor)
        self._make_folders(place)
        try:
            os.link(draft.path, place)
        except FileExistsError:
            if not _same_bytes(draft.path, place):
                raise ObjectExists("the id holds other bytes") from None
            # The sweeper counts from the last put, and the first may not have come to its sync.
            os.utime(place)
            _sync(place)
        _sync(place.parent)

    def _make_folders(self, place: Path) -> None:
        for folder in (place.parent.parent, place.parent):
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700)
            # Whoever made it may not have synced it yet, so each process does it once.
            if folder not in self._synced:
                _sync(folder.parent)
                self._synced.add(folder)

    def _open_reading(self, reading: _Draft) -> None:
        try:
            reading.descriptor = os.open(reading.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._need_store()
            raise ObjectMissing("nothing is stored under the id") from None

    def _remove(self, place: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            place.unlink()
        self._need_store()
        # Also when it was gone: whoever removed it may not have come to the sync.
        with contextlib.suppress(FileNotFoundError):
            _sync(place.parent)

    def _folders(self) -> tuple[Path, ...]:
        self._need_store()
        tops = [top for top in self._directory.iterdir() if _PAIR.fullmatch(top.name)]
        return tuple(folder for top in tops for folder in top.iterdir() if _PAIR.fullmatch(folder.name))


def _found_in(folder: Path) -> tuple[StoredBytes, ...]:
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if _OBJECT_ID.fullmatch(entry.name) is None:
                continue
            with contextlib.suppress(FileNotFoundError):
                info = entry.stat(follow_symlinks=False)
                stored_at = datetime.fromtimestamp(info.st_mtime, UTC)
                found.append(StoredBytes(entry.name, info.st_size, stored_at))
    return tuple(found)


def _same_bytes(one: Path, other: Path) -> bool:
    with one.open("rb") as left, other.open("rb") as right:
        if os.fstat(left.fileno()).st_size != os.fstat(right.fileno()).st_size:
            return False
        while piece := left.read(CHUNK_BYTES):
            if piece != right.read(CHUNK_BYTES):
                return False
        return True


def _clear(path: Path) -> None:
    """Unlink a draft unless its writer lives and holds the lock."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except BlockingIOError:
        return
    finally:
        os.close(descriptor)


def _discard(draft: _Draft) -> None:
    """Close the draft and drop its temporary name; what cannot be dropped is cleared at the next start."""
    with contextlib.suppress(OSError):
        draft.path.unlink(missing_ok=True)
    _close(draft)


def _close(draft: _Draft) -> None:
    if draft.descriptor >= 0:
        descriptor, draft.descriptor = draft.descriptor, -1
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _sync(path: Path) -> None:
    """Make a file's bytes, or a directory's names, durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, "unknown").lower()
        raise StoreUnavailable("the object store's disk does not answer", detail=code) from error


async def _disk(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run disk work in a thread and wait until it is over, even when cancelled.

    A caller that went on before the thread is done would close a descriptor under
    it, and the thread might then write into whatever file got the same number.
    """
    with _disk_errors():
        return await finish(None, work, *args, **kwargs)
