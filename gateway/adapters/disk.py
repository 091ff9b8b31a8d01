"""Files that are durable and whole, or not there; and how much room is left for them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from gateway.errors import DiskReserve, StoreUnavailable

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC  # O_EXCL follows no link either


def write_draft(place: Path, content: bytes, mode: int) -> Path:
    """Return a synced file beside `place` that holds the content; the caller moves or removes it."""
    draft = place.with_name(f"{place.name}.{os.urandom(8).hex()}.new")
    try:
        descriptor = os.open(draft, _NEW, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return draft


def write_new(place: Path, content: bytes) -> None:
    """Create a file whole and durable, or not at all; only its owner may read it.

    Raises:
        FileExistsError: It exists; it is left alone.
    """
    link_new(place, content, 0o600)
    sync_folder(place.parent)


def link_new(place: Path, content: bytes, mode: int) -> None:
    """Do the same for who makes many files in a folder, and syncs the folder once.

    Raises:
        FileExistsError: It exists; it is left alone.
    """
    draft = write_draft(place, content, mode)
    try:
        os.link(draft, place)
    finally:
        draft.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_bytes(directory: Path) -> int:
    """Return how many bytes the file system still gives to an ordinary user."""
    info = os.statvfs(directory)
    return info.f_bavail * info.f_frsize


class Reserve:
    """The room on a database's file system that is kept for what must go on (rule R11 of the log).

    An erasure rewrites a SQLite file whole (`Records.scour`) and needs its size once
    more; withdrawals and the sequencer need little, and it is `reserve_bytes`.
    """

    def __init__(self, database: Path, reserve_bytes: int, free: Callable[[Path], int] = free_bytes) -> None:
        """Keep what is to be asked.

        Args:
            database: The SQLite file.
            reserve_bytes: What is kept beside the file's own size; 0 keeps nothing.
            free: Tells the free bytes of the file system of a directory.
        """
        self._database = database
        self._reserve_bytes = reserve_bytes
        self._free = free

    def need_room(self) -> None:
        """Return if there is room for something new.

        Raises:
            DiskReserve: What is free is needed for what must go on (detail `records`).
            StoreUnavailable: The disk does not say.
        """
        if not self._reserve_bytes:
            return
        try:
            kept = self._reserve_bytes + self._database.stat().st_size
            free = self._free(self._database.parent)
        except OSError as error:
            raise StoreUnavailable("the disk does not say how much is free", detail="records") from error
        if free < kept:
            raise DiskReserve(detail="records")
