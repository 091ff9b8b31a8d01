"""The door to the object store: ciphertext by object id."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StoredBytes:
    """What the store knows of an object: its id, its size, when it was written (aware, UTC)."""

    object_id: str
    size_bytes: int
    stored_at: datetime


class ObjectStore(Protocol):
    """Ciphertext by object id (32 lowercase hex characters).

    A `put` that returns is durable.  A `put` that raises may or may not have
    persisted, so a caller that retries uses the same id and the same bytes, and
    one that gives up calls `delete`.  Failures of the medium raise
    `StoreUnavailable`; too little free space raises `DiskReserve` before a byte
    is written.
    """

    async def put(self, object_id: str, chunks: AsyncIterable[bytes]) -> int:
        """Store `chunks` under `object_id` and return the number of bytes.

        Raises:
            ObjectExists: The id holds other bytes; the same bytes may be put again.
        """

    def get(self, object_id: str) -> AsyncIterator[bytes]:
        """Yield the bytes in chunks of at most 1 MiB.

        Raises:
            ObjectMissing: Nothing is stored under the id.
        """

    async def delete(self, object_id: str) -> None:
        """Remove the bytes durably; removing what is not there changes nothing."""

    def list(self) -> AsyncIterator[StoredBytes]:
        """Yield what is stored, in no order."""


class ObjectExists(Exception):
    """The id is taken by other bytes."""


class ObjectMissing(Exception):
    """Nothing is stored under the id."""
