"""The flows over a real database and a published folder, without a server."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from audit.note import Verifier
from gateway import compose
from gateway.adapters.log_folder import LogFolder
from gateway.adapters.sql.records import open_records
from gateway.ports.records import Records, Transaction
from tests.schema import migrated
from tests.world import OFFICER, ORIGIN, TENANT, World

GROUP = 100


@dataclass
class Ground:
    """The flows over a real database and a real folder."""

    world: World
    records: Records
    flows: compose.Flows
    published: Path

    @property
    def verifiers(self) -> list[Verifier]:
        return [signer.verifier for signer in self.world.signers[ORIGIN]]

    async def grow(self, number: int) -> str:
        """Write so many events, sequence and publish them; return the checkpoint."""

        def write(tx: Transaction, some: int) -> None:
            for _ in range(some):
                self.flows.ledger.record(tx, TENANT, "signal.recorded", None, sig=["gpc"])

        for start in range(0, number, GROUP):
            await self.records.transact(partial(write, some=min(GROUP, number - start)))
        return await self.log()

    async def log(self) -> str:
        await self.flows.sequence.run()
        await self.flows.publish.run()
        return (await self.flows.audit.checkpoint(OFFICER)).note


@contextlib.asynccontextmanager
async def open_ground(root: Path, url: str, **audit: Any) -> AsyncIterator[Ground]:
    """Yield the flows over the database at `url`, which is migrated, and a folder in `root`."""
    await migrated(url)
    records = open_records(url)
    (root / "log").mkdir()
    world = World()
    outside = replace(world.outside, records=records, log_files=LogFolder(root / "log"))
    section = world.settings.audit.model_copy(update=audit)
    settings = world.settings.model_copy(update={"audit": section})
    try:
        yield Ground(world, records, compose.flows(settings, outside, world.signers), root / "log" / ORIGIN)
    finally:
        await records.close()
