"""The fake backend as a process of its own: `python -m tests.faults.backend FOLDER [--hold]`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from gateway.admin.folder import Layout
from tests.fakes.backend_server import serving_backend


async def run(layout: Layout, *, is_held: bool) -> None:
    """Serve until killed; say `up` once calls are taken, and `held` once a job waits."""
    async with serving_backend(layout) as fake:
        if is_held:
            fake.hold()
        print("up", flush=True)
        await fake.held.wait()
        print("held", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(run(Layout(Path(sys.argv[1])), is_held="--hold" in sys.argv[2:]))
