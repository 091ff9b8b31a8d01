"""A gateway as an operator runs it: `lethe serve` in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from gateway import compose
from gateway.admin.folder import Layout
from gateway.client import Client
from gateway.settings import load
from tests.schema import migrated

ROOT = Path(__file__).resolve().parents[1]
START_S = 60.0
PATIENCE_S = 30.0
COMMAND = ("-m", "gateway.main")


@dataclass
class Process:
    """A `lethe serve` that listens; its outputs are files."""

    layout: Layout
    address: str
    child: asyncio.subprocess.Process
    stdout: Path
    stderr: Path

    def client(self, name: str, timeout_s: float = 20.0) -> Client:
        """Return a client of one of the profiles: app, officer, second-officer, auditor."""
        return Client.from_profile(self.layout.profile(name), timeout_s)

    def said(self) -> bytes:
        """Return all that it wrote to stdout and stderr so far."""
        return self.stdout.read_bytes() + self.stderr.read_bytes()

    async def drain(self) -> int:
        """Tell it to stop, and return its exit code."""
        self.child.terminate()
        async with asyncio.timeout(PATIENCE_S):
            return await self.child.wait()


@contextlib.asynccontextmanager
async def serving(layout: Layout, *, command: tuple[str, ...] = COMMAND) -> AsyncIterator[Process]:
    """Run `lethe serve` on the folder until the block ends."""
    settings = load(layout.config)
    compose.make_folders(settings)
    await migrated(compose.records_url(settings))
    compose.make_lock(settings)
    outputs = layout.root / "stdout", layout.root / "stderr"
    with outputs[0].open("wb") as out, outputs[1].open("wb") as err:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            "serve",
            "--config",
            str(layout.config),
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=out,
            stderr=err,
        )
    try:
        await until(lambda: b"listening" in outputs[0].read_bytes() or child.returncode is not None, START_S)
        found = re.search(r"listening (\S+)", outputs[0].read_text())
        assert found, outputs[1].read_text()
        yield Process(layout, found[1], child, *outputs)
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def until(is_so: Callable[[], object | Awaitable[object]], seconds: float = PATIENCE_S) -> None:
    """Return once `is_so` holds, asked again and again; fail after `seconds`."""
    async with asyncio.timeout(seconds):
        while True:
            answer = is_so()
            if await answer if inspect.isawaitable(answer) else answer:
                return
            await asyncio.sleep(0.02)
