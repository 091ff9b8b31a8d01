"""Has published checkpoints stamped by somebody else's clock (RFC 3161), one in each interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial

from gateway.logs import newest_checkpoint
from gateway.ports.clock import Clock
from gateway.ports.files import LogFiles
from gateway.ports.records import Checkpoint, Records, Transaction
from gateway.ports.timestamp import TimestampInvalid, Timestamps, TimestampUnavailable


@dataclass(frozen=True, slots=True)
class Stamp:
    """The stamper of all tenants' logs.  Publishing never waits for it.

    Where the newest published checkpoint is not stamped, and the last one that is was
    signed longer than `every` ago, it is stamped, and kept for good with its timestamp.
    Without an authority (`timestamps` None) nothing is done.
    """

    records: Records
    clock: Clock
    origins: Mapping[str, str]
    timestamps: Timestamps | None = None
    every: timedelta = timedelta(hours=1)
    files: LogFiles | None = None
    _shown: dict[str, int] = field(default_factory=dict, init=False, repr=False)

    async def run(self) -> int:
        """Stamp what is due and return how many checkpoints there were.

        Raises:
            TimestampUnavailable: The authority does not answer; the other logs were tried all the same.
            TimestampInvalid: It refuses, or what it answers is no token of its; likewise.
            AuditUnavailable: The folder refuses.
        """
        if self.timestamps is None:
            return 0
        failures: list[TimestampUnavailable | TimestampInvalid] = []
        stamped = 0
        for origin in self.origins.values():
            try:
                stamped += await self._stamp(self.timestamps, origin)
            except (TimestampUnavailable, TimestampInvalid) as failure:
                failures.append(failure)
        if failures:
            raise failures[0]
        return stamped

    async def _stamp(self, timestamps: Timestamps, origin: str) -> int:
        newest, last = await self.records.transact(partial(_standing, origin=origin))
        if newest is None:
            return 0
        is_due = last is None or (last.size < newest.size and self.clock.now() - last.signed_at >= self.every)
        if is_due:
            response = await timestamps.stamp(newest.note)
            last = replace(newest, timestamp=response, is_kept=True)
            await self.records.transact(partial(_keep, stamped=last))
        if self.files is not None and last is not None and self._shown.get(origin) != last.size:
            await self.files.show_stamped(origin, last.note, last.timestamp or b"")
            self._shown[origin] = last.size
        return int(is_due)


def _standing(tx: Transaction, origin: str) -> tuple[Checkpoint | None, Checkpoint | None]:
    """Return the newest checkpoint, and the newest that is stamped."""
    stamped = tx.find(
        Checkpoint, equal={"log": origin}, above={"timestamp": b""}, order_by=("-size",), limit=1
    )
    return newest_checkpoint(tx, origin), next(iter(stamped), None)


def _keep(tx: Transaction, stamped: Checkpoint) -> None:
    """Keep it with its timestamp, also where a newer one has taken its place meanwhile."""
    if tx.get(Checkpoint, stamped.log, stamped.size) is None:
        tx.add(stamped)
    else:
        tx.put(stamped)
