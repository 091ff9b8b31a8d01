"""An object store in memory that keeps the contract and can be told to break it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator, Callable
from datetime import UTC, datetime

from gateway.errors import DiskReserve, StoreUnavailable
from gateway.ports.objects import ObjectExists, ObjectMissing, ObjectStore, StoredBytes
from tests.fakes.keys import Faults

CHUNK_BYTES = 1 << 20


class FakeObjects:
    """Keeps every object in a dictionary; `faults` breaks it, `is_full` refuses every put."""

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.faults = Faults(StoreUnavailable)
        self.is_full = False
        self.held: dict[str, tuple[bytes, datetime]] = {}
        self._now = now

    async def put(self, object_id: str, chunks: AsyncIterable[bytes]) -> int:
        _need_id(object_id)
        self.faults.before("put")
        if self.is_full:
            raise DiskReserve
        content = b"".join([bytes(chunk) async for chunk in chunks])
        if object_id in self.held and self.held[object_id][0] != content:
            raise ObjectExists
        self.held[object_id] = (content, self._now())
        self.faults.after("put")
        return len(content)

    async def get(self, object_id: str) -> AsyncIterator[bytes]:
        _need_id(object_id)
        self.faults.before("get")
        if object_id not in self.held:
            raise ObjectMissing
        content = self.held[object_id][0]
        for start in range(0, len(content), CHUNK_BYTES):
            yield content[start : start + CHUNK_BYTES]

    async def delete(self, object_id: str) -> None:
        _need_id(object_id)
        self.faults.before("delete")
        self.held.pop(object_id, None)
        self.faults.after("delete")

    async def list(self) -> AsyncIterator[StoredBytes]:
        self.faults.before("list")
        for object_id, (content, stored_at) in tuple(self.held.items()):
            yield StoredBytes(object_id, len(content), stored_at)


class BreakableObjects:
    """The same door over any object store, real ones included, that can be told to break."""

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner
        self.faults = Faults(StoreUnavailable)

    async def put(self, object_id: str, chunks: AsyncIterable[bytes]) -> int:
        self.faults.before("put")
        size = await self.inner.put(object_id, chunks)
        self.faults.after("put")
        return size

    async def get(self, object_id: str) -> AsyncIterator[bytes]:
        self.faults.before("get")
        async for chunk in self.inner.get(object_id):
            yield chunk

    async def delete(self, object_id: str) -> None:
        self.faults.before("delete")
        await self.inner.delete(object_id)
        self.faults.after("delete")

    async def list(self) -> AsyncIterator[StoredBytes]:
        self.faults.before("list")
        async for found in self.inner.list():
            yield found


def _need_id(object_id: str) -> None:
    if re.fullmatch(r"[0-9a-f]{32}", object_id) is None:
        raise ValueError("an object id is 32 lowercase hex characters")
