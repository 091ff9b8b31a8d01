"""A bell that shortens a poll: who changes something rings, who waits for it looks again at once.

It reaches this process only and promises nothing: the records say what is true,
and whoever waits looks again after its own interval, bell or no bell.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, eq=False)
class Ear:
    """Hears one name, also what rang while its owner was busy looking."""

    _rung: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait(self, timeout_s: float) -> None:
        """Return when the bell has rung since the last time, or after `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._rung.wait()
        self._rung.clear()

    def hear(self) -> None:
        """Wake the owner."""
        self._rung.set()


@dataclass(frozen=True, slots=True)
class Bell:
    """Rings by name; a ring that nobody listens for costs nothing and is forgotten."""

    _ears: dict[str, set[Ear]] = field(default_factory=dict)

    def ring(self, name: str) -> None:
        """Wake everybody who listens for `name`."""
        for ear in self._ears.get(name, ()):
            ear.hear()

    @contextlib.contextmanager
    def listen(self, name: str) -> Iterator[Ear]:
        """Give an ear for `name` until the block ends."""
        ear = Ear()
        self._ears.setdefault(name, set()).add(ear)
        try:
            yield ear
        finally:
            self._ears[name].discard(ear)
            if not self._ears[name]:
                del self._ears[name]
