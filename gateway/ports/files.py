"""The door to the published files of the logs (C2SP tlog-tiles): derived, and made again from the records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class LogFiles(Protocol):
    """A place from which anybody we let may read a log as static files.

    `AuditUnavailable` is raised where the place fails, or holds other bytes under a
    name than it is given: published files never change.
    """

    async def size(self, origin: str) -> int:
        """Return the size of the checkpoint that is shown, 0 where there is none."""

    async def get(self, origin: str, name: str) -> bytes | None:
        """Return the file under a tlog-tiles path, or None where there is none."""

    async def put(self, origin: str, files: Mapping[str, bytes]) -> None:
        """Make files durable under their tlog-tiles paths; the same bytes may be put again."""

    async def prune(self, origin: str, min_index: int) -> None:
        """Remove the bundles of entries that end at or before the minimum index; no other file is touched.

        May be repeated: what is gone already is no fault.
        """

    async def show(self, origin: str, checkpoint: str) -> None:
        """Put the checkpoint in the place of the one before, whole or not at all."""

    async def show_stamped(self, origin: str, checkpoint: str, timestamp: bytes) -> None:
        """Show the newest checkpoint that has a timestamp, and its timestamp, beside `checkpoint`.

        May be repeated; each of the two is replaced whole, one after the other.
        """
