"""A checkpoint lock in memory that keeps the contract and can be told to break it."""

from __future__ import annotations

from gateway.errors import AuditUnavailable
from gateway.ports.lock import CheckpointLock
from tests.fakes.keys import Faults


class FakeLock:
    """Keeps the notes in `notes`, by origin; `faults` loses swaps or their replies."""

    def __init__(self) -> None:
        self.faults = Faults(AuditUnavailable)
        self.notes: dict[str, str] = {}

    async def load(self, origin: str) -> str | None:
        self.faults.before("load")
        return self.notes.get(origin)

    async def swap(self, origin: str, old: str | None, new: str) -> bool:
        if not new.startswith(f"{origin}\n") or not new.endswith("\n"):
            raise ValueError("not a note of this origin")
        self.faults.before("swap")
        if self.notes.get(origin) not in {old, new}:
            return False
        self.notes[origin] = new
        self.faults.after("swap")
        return True


class BreakableLock:
    """The same door over any lock, real ones included, that can be told to break."""

    def __init__(self, inner: CheckpointLock) -> None:
        self.inner = inner
        self.faults = Faults(AuditUnavailable)

    async def load(self, origin: str) -> str | None:
        self.faults.before("load")
        return await self.inner.load(origin)

    async def swap(self, origin: str, old: str | None, new: str) -> bool:
        self.faults.before("swap")
        is_swapped = await self.inner.swap(origin, old, new)
        self.faults.after("swap")
        return is_swapped
