"""A backup file on its way to disk: sealed in a thread, and named only once it is whole."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from gateway.adapters.disk import sync_folder
from gateway.errors import StoreUnavailable

WAITING = 8
"""How many pieces wait to be sealed at most."""


class BackupFile:
    """The `Sink` at a path: written beside it under another name, linked to it at the end.

    Rule:
        R5: the file is made exclusively and linked under its name, and the folder synced.
    """

    def __init__(self, place: Path, seal: Callable[[Iterable[bytes]], Iterator[bytes]]) -> None:
        """Begin the file; `seal` makes the file's bytes of the pieces that are written.

        Raises:
            StoreUnavailable: The disk refuses.
        """
        self._place = place
        self._draft = place.with_name(f".{place.name}.{os.urandom(8).hex()}.part")
        self._pieces: queue.Queue[bytes | None] = queue.Queue(WAITING)
        self._fault: Exception | None = None
        self._digest = hashlib.sha256()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            descriptor = os.open(self._draft, flags, 0o600)
        except OSError as error:
            raise _refused(error) from error
        self._thread = threading.Thread(target=self._run, args=(descriptor, seal), daemon=True)
        self._thread.start()

    async def write(self, piece: bytes) -> None:
        """Append to what is sealed; see the port."""
        if self._fault is not None:
            raise _refused(self._fault) from self._fault
        try:
            self._pieces.put_nowait(piece)
        except queue.Full:
            await asyncio.to_thread(self._pieces.put, piece)

    async def finish(self) -> str:
        """End the file, make it durable, and return its digest; see the port."""
        await asyncio.to_thread(self._end)
        if self._fault is not None:
            raise _refused(self._fault) from self._fault
        return self._digest.hexdigest()

    async def keep(self) -> None:
        """Give the finished file its name; see the port."""
        try:
            os.link(self._draft, self._place)
            self._draft.unlink()
            sync_folder(self._place.parent)
        except OSError as error:
            raise _refused(error) from error

    def discard(self) -> None:
        """Leave nothing of a file that was not kept; one that was stays."""
        self._end()
        with contextlib.suppress(OSError):
            self._draft.unlink(missing_ok=True)

    def _end(self) -> None:
        if self._thread.is_alive():
            self._pieces.put(None)
            self._thread.join()

    def _run(self, descriptor: int, seal: Callable[[Iterable[bytes]], Iterator[bytes]]) -> None:
        try:
            with os.fdopen(descriptor, "wb") as file:
                for piece in seal(iter(self._pieces.get, None)):
                    file.write(piece)
                    self._digest.update(piece)
                file.flush()
                os.fsync(file.fileno())
        except Exception as error:  # noqa: BLE001 - whatever it is, who writes must not wait for ever
            self._fault = error
            while self._pieces.get() is not None:
                pass


def _refused(error: Exception) -> StoreUnavailable:
    code = errno.errorcode.get(getattr(error, "errno", None) or 0, "unknown").lower()
    return StoreUnavailable("the backup cannot be written", detail=code)
