"""A deterministic scheduler: an event loop on which a seed decides who goes on, and time is only as it says.

Tasks park at the doors.  Once nothing else can go on, one parked task is chosen by chance, or time
jumps to the next timer.  What is really outside (a database's thread or socket) is waited for in
earnest, one call at a time; so the same seed gives the same order, whatever the machine is busy with.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")
PATIENCE_S = 20


class Stuck(Exception):
    """Nothing can go on any more, and yet something is waited for."""


class _Chooser(selectors.DefaultSelector):
    """Decides what happens when nothing is ready."""

    loop: Loop

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        if found or (timeout is not None and timeout <= 0):
            return found
        if self.loop.outside:
            return super().select(PATIENCE_S) or self._stuck()
        self.loop.choose(timeout)
        return []

    def _stuck(self) -> Any:
        raise Stuck("a call outside does not return")


class Loop(asyncio.SelectorEventLoop):
    """The loop of stories; `chance.seed` begins one."""

    def __init__(self) -> None:
        chooser = _Chooser()
        super().__init__(chooser)
        chooser.loop = self
        self.chance = random.Random()
        self.parked: list[asyncio.Future[None]] = []
        self.outside = 0
        self.moment = 0.0

    def time(self) -> float:
        """Return the time as this loop has it."""
        return self.moment

    def choose(self, until_timer_s: float | None) -> None:
        """Let one parked task go on, or the time pass that is left until the next timer."""
        self.parked = [one for one in self.parked if not one.done()]
        if not self.parked and until_timer_s is None:
            raise Stuck("everybody waits for somebody else")
        # A timer is a tenth as likely as a task: else polls would be most of the story.
        if not self.parked or (until_timer_s is not None and self.chance.random() < 0.1):
            self.moment += until_timer_s or 0.0
            return
        self.parked.pop(self.chance.randrange(len(self.parked))).set_result(None)

    async def turn(self) -> None:
        """Park until the dice say that it is this task's turn."""
        mine = self.create_future()
        self.parked.append(mine)
        await mine

    async def door(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call through a door in two turns: when it is made, and when its reply is heard of."""
        await self.turn()
        reply = await self.aside(call())
        await self.turn()
        return reply

    async def aside(self, call: Awaitable[T]) -> T:
        """Wait in earnest for something outside."""
        self.outside += 1
        try:
            return await call
        finally:
            self.outside -= 1
