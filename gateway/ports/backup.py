"""The doors of a backup: the records of one moment, a file that is being made, survivors of a roll."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Protocol

Columns = tuple[tuple[str, str], ...]
"""Names of columns and their kinds: `text`, `int`, `flag` or `bytes`."""


class Snapshot(Protocol):
    """All tables as they stood at one moment, whatever is written meanwhile."""

    @property
    def revision(self) -> str:
        """The revision of the schema."""

    @property
    def tables(self) -> Mapping[str, Columns]:
        """The tables and their columns."""

    def rows(self, table: str) -> AsyncIterator[Sequence[Sequence[Any]]]:
        """Yield the rows of a table in batches, each row's values in the order of the columns."""


class Sink(Protocol):
    """A file being written, sealed; until `keep` there is none of its name."""

    async def write(self, piece: bytes) -> None:
        """Append to what is sealed.

        Raises:
            StoreUnavailable: The disk refuses.
        """

    async def finish(self) -> str:
        """End the file, make it durable, and return the SHA-256 of its bytes in hex."""

    async def keep(self) -> None:
        """Give the finished file its name; one that is there already is left alone.

        Raises:
            StoreUnavailable: The name is taken by now, or the disk refuses.
        """


class Survivors(Protocol):
    """Wrapped subject keys of the epochs that took over from destroyed ones.

    A backup from before a roll has its keys under an epoch that is gone; what those
    who stayed were wrapped in instead is kept here, where a loss of the records does
    not reach it.  It opens nothing without the epoch, so it may lie in any backup.
    """

    async def keep(self, epoch: str, wrapped: Iterable[tuple[str, bytes]]) -> None:
        """Make (key id, wrapped key) of an epoch durable, in place of what was kept of it before.

        Raises:
            KeyServiceUnavailable: The disk refuses.
        """

    async def drop(self, epoch: str) -> None:
        """Forget an epoch; one that is not there is no error."""

    async def find(self, epoch: str) -> Mapping[str, bytes]:
        """Return what is kept of an epoch, by key id."""
