"""Wraps subject keys anew under fresh epoch keys, and destroys the old ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from gateway.caller import Caller
from gateway.ledger import Ledger, Receipt
from gateway.ports.clock import Clock
from gateway.ports.keys import Epoch, KeyService
from gateway.ports.records import ClosedEpoch, Records, SubjectKey
from gateway.vault.custody import Custody


@dataclass(frozen=True, slots=True)
class Rotation:
    """Rolls epochs: on demand, and those that lost a key by another way than an erasure.

    The bytes of a deleted row linger in heaps, WALs, replicas and backups, and open as
    long as the epoch key that wrapped them is there.  An erasure rolls at once; what
    the sweeper removed follows within `bound`.  Safe beside live traffic, and to repeat.
    """

    records: Records
    custody: Custody
    keys: KeyService
    ledger: Ledger
    clock: Clock
    bound: timedelta

    async def rotate(self, caller: Caller, *, rehearse: bool = False) -> tuple[int, Receipt | None]:
        """Roll every epoch of the caller's tenant; return how many keys were wrapped anew.

        With `rehearse` nothing is changed: it is how many there are.  If it breaks
        off, what was rolled stays so, and a repetition goes on.

        Raises:
            KeyServiceUnavailable: The key service does not answer.
        """
        epochs = [epoch for epoch in await self.keys.epochs() if epoch.tenant == caller.tenant]
        if rehearse:
            return await self.records.transact(
                lambda tx: sum(tx.count(SubjectKey, equal={"epoch": str(epoch)}) for epoch in epochs)
            ), None
        return await self._roll_and_log(caller.tenant, epochs, caller)

    async def retire(self) -> int:
        """Roll the epochs that were closed half the bound ago, and return how many there were.

        Raises:
            KeyServiceUnavailable: The key service does not answer.
        """
        standing = {str(epoch): epoch for epoch in await self.keys.epochs()}
        edge = self.clock.now() - self.bound / 2
        closed = await self.records.transact(lambda tx: tx.find(ClosedEpoch, below={"closed_at": edge}))
        due = [standing[row.epoch] for row in closed if row.epoch in standing]
        for tenant in sorted({epoch.tenant for epoch in due} & self.ledger.origins.keys()):
            await self._roll_and_log(tenant, [epoch for epoch in due if epoch.tenant == tenant], None)
        return len(due)

    async def _roll_and_log(
        self, tenant: str, epochs: Sequence[Epoch], by: Caller | None
    ) -> tuple[int, Receipt]:
        moved = sum([await self.custody.roll(epoch) for epoch in epochs])
        number = len(epochs)
        receipt = await self.records.transact(
            lambda tx: self.ledger.record(tx, tenant, "key.rotated", by, nkey=moved, nepo=number)
        )
        return moved, receipt
