"""Blocking work in a thread that nobody leaves before it is over."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import Executor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def finish(pool: Executor | None, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what `work` returns, run in a thread; wait until it is over, even when cancelled.

    Args:
        pool: Where it runs; the loop's own threads if None.
        work: What blocks.
    """
    loop = asyncio.get_running_loop()
    running = asyncio.ensure_future(loop.run_in_executor(pool, functools.partial(work, *args, **kwargs)))
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        running.exception()  # taken, so that it is not reported as lost
        raise cancelled
    return running.result()
