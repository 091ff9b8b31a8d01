"""The pen of the audit log: one call writes an event into the transaction of the change it describes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from audit import leaf
from gateway.caller import SYSTEM, Caller
from gateway.ports.clock import Clock
from gateway.ports.records import Leaf, Transaction

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Receipt:
    """DURABLE: the event is committed with its change; the sequencer only gives it a place."""

    origin: str
    event_id: str
    leaf_hash: bytes


@dataclass(frozen=True, slots=True)
class Ledger:
    """Writes leaves; it is the only maker of `Leaf` records.

    `origins` maps a tenant to the opaque origin of its log.
    """

    clock: Clock
    origins: Mapping[str, str]
    random: Callable[[int], bytes] = os.urandom
    _last: dict[str, datetime] = field(default_factory=dict, init=False, repr=False)

    def record(self, tx: Transaction, tenant: str, ty: str, by: Caller | None, **fields: Any) -> Receipt:
        """Queue one event in `tx`; no effect without a leaf, no leaf without an effect.

        `by` is the caller, or None when the gateway acts of its own accord.  A
        service appears under its configured name, a person under a token that
        is new for every event: staff are data subjects too.  Fields that are
        None are left out.

        Raises:
            LeafInvalid: The event is outside the closed schema (a bug of ours).
        """
        now = self._moment(tenant)
        event = leaf.new_event(
            ty,
            at_ms=int(now.timestamp() * 1000),
            actor=self._actor(by),
            random=self.random,
            **{name: value for name, value in fields.items() if value is not None},
        )
        line = leaf.encode(event)
        hashed = leaf.leaf_hash(line)
        origin = self.origins[tenant]
        event_id = str(event["id"])
        tx.add(Leaf(event_id=event_id, log=origin, ty=ty, line=line, leaf_hash=hashed, queued_at=now))
        return Receipt(origin, event_id, hashed)

    def _moment(self, tenant: str) -> datetime:
        """Return the present, or the last moment used where the clock was set back: a log's time never is."""
        now = max(self.clock.now(), self._last.get(tenant, EPOCH))
        self._last[tenant] = now
        return now

    def _actor(self, by: Caller | None) -> str:
        if by is None:
            return SYSTEM
        return f"tok:{self.random(16).hex()}" if by.is_person else f"svc:{by.name}"
