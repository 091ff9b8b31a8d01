"""One thread for a library that bears no second one, and a deadline for who waits on it."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class OneThread:
    """Does one piece of work after another, all in the same thread of its own.

    Nobody waits longer than `deadline_s`.  Work that hangs keeps the thread;
    until it comes back, if ever, whoever asks is refused at once.  The thread is
    a daemon: work that hangs does not keep the process from ending.
    """

    name: str
    deadline_s: float
    _work: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = field(
        default_factory=queue.SimpleQueue, init=False, repr=False
    )
    _thread: threading.Thread | None = field(default=None, init=False, repr=False)
    _since: float | None = field(default=None, init=False, repr=False)

    @property
    def is_stuck(self) -> bool:
        """Whether a piece of work has had the thread for longer than the deadline."""
        since = self._since
        return since is not None and time.monotonic() - since > self.deadline_s

    async def ask(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, or raise what it raises.

        Raises:
            TimeoutError: It did not come to an end, or to its turn, in time.  Begun
                work may still have its effect; work that had not begun never will.
        """
        if self.is_stuck:
            raise TimeoutError
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
            self._thread.start()
        answer: Future[T] = Future()
        self._work.put((work, answer))
        return await asyncio.wait_for(asyncio.wrap_future(answer), self.deadline_s)

    def _run(self) -> None:
        while True:
            work, answer = self._work.get()
            if not answer.set_running_or_notify_cancel():
                continue
            self._since = time.monotonic()
            try:
                answer.set_result(work())
            except BaseException as fault:  # noqa: BLE001 - it belongs to who asked
                answer.set_exception(fault)
            finally:
                self._since = None
                # Else the last answer, which may be a key, lives until the next one.
                del work, answer
