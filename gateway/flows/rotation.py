"""Wraps subject keys anew under fresh epoch keys, and destroys the old ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from gateway.caller import Caller
from gateway.debts import EPOCH, Debts
from gateway.errors import LetheError
from gateway.ledger import Ledger, Receipt
from gateway.ports.clock import Clock
from gateway.ports.keys import Epoch, KeyService
from gateway.ports.records import ClosedEpoch, Records, SubjectKey
from gateway.vault.custody import Custody

BATCH = 500


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
    debts: Debts

    async def rotate(
        self, caller: Caller, *, rehearse: bool = False, reason_code: str = ""
    ) -> tuple[int, Receipt | None]:
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
        moved = sum([await self.custody.roll(epoch) for epoch in epochs])
        return moved, await self._log(caller.tenant, moved, len(epochs), caller, reason_code)

    async def retire(self) -> int:
        """Roll the epochs that were closed half the bound ago, and return how many were.

        A closed epoch keeps its row for ever, so that no key is minted under it again; read are
        those of epochs that still stand.  One that cannot be rolled is owed, and holds up no other.

        Raises:
            KeyServiceUnavailable: The key service does not answer.
        """
        epochs = await self.keys.epochs()
        for item in await self.debts.items(EPOCH) - set(map(str, epochs)):
            await self.debts.paid(EPOCH, item)  # an erasure has seen to it
        standing = [epoch for epoch in epochs if epoch.tenant in self.ledger.origins]
        rolled: dict[str, list[int]] = {}
        for at in range(0, len(standing), BATCH):
            for epoch in await self._due(standing[at : at + BATCH]):
                moved = await self._try(epoch)
                if moved is not None:
                    rolled.setdefault(epoch.tenant, []).append(moved)
        for tenant, moves in sorted(rolled.items()):
            await self._log(tenant, sum(moves), len(moves), None, "")
        return sum(map(len, rolled.values()))

    async def _due(self, some: Sequence[Epoch]) -> list[Epoch]:
        """Return which of the epochs were closed long enough ago, and do not rest."""
        edge = self.clock.now() - self.bound / 2
        names = list(map(str, some))
        closed = await self.records.transact(
            lambda tx: tx.find(ClosedEpoch, among={"epoch": names}, below={"closed_at": edge})
        )
        due = {row.epoch for row in closed}
        owed = await self.debts.resting(EPOCH, sorted(due))
        return [epoch for epoch in some if str(epoch) in due and not owed.get(str(epoch))]

    async def _try(self, epoch: Epoch) -> int | None:
        """Roll an epoch and return how many keys moved; None where that failed, and is owed."""
        try:
            moved = await self.custody.roll(epoch)
        except LetheError as fault:
            await self.keys.epochs()  # the service itself is out: that is no debt of one epoch
            await self.debts.failed(EPOCH, str(epoch), fault.code, epoch.tenant)
            return None
        await self.debts.paid(EPOCH, str(epoch))
        return moved

    async def _log(
        self, tenant: str, moved: int, number: int, by: Caller | None, reason_code: str
    ) -> Receipt:
        rc = reason_code or None
        return await self.records.transact(
            lambda tx: self.ledger.record(tx, tenant, "key.rotated", by, nkey=moved, nepo=number, rc=rc)
        )
