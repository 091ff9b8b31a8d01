"""The pen of the audit log: one call writes an event into the transaction of the change it describes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from audit import leaf
from gateway.caller import SYSTEM, Caller
from gateway.errors import SubjectBlocked
from gateway.ports.clock import Clock
from gateway.ports.records import Leaf, SealedPayload, SubjectKey, Transaction
from gateway.vault.payload import PayloadKey

Sealings = Sequence[tuple[PayloadKey, Mapping[str, Any]]]
"""Payloads of an event, each with the key of whom it is about."""

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
    _staff: dict[tuple[str, str], PayloadKey] = field(default_factory=dict, init=False, repr=False)

    def know(self, person: Caller, key: PayloadKey) -> None:
        """Name this person in the log under their own key from now on; the newest key counts."""
        self._staff[person.tenant, person.name] = key

    def forget(self, handle: str) -> None:
        """Drop the keys of a person of the staff who is being erased."""
        for who in [who for who, key in self._staff.items() if key.holder.handle == handle]:
            del self._staff[who]

    def knows(self, handle: str) -> bool:
        """Tell whether a key of that person is held in memory."""
        return any(key.holder.handle == handle for key in self._staff.values())

    def record(
        self,
        tx: Transaction,
        tenant: str,
        ty: str,
        by: Caller | None,
        *,
        sealed: Sealings = (),
        **fields: Any,
    ) -> Receipt:
        """Queue one event in `tx`; no effect without a leaf, no leaf without an effect.

        `by` is the caller, or None when the gateway acts of its own accord.  A
        service appears under its configured name, a person under a token that
        is new for every event: staff are data subjects too.  Where we know
        their key (`know`), that token is theirs and a payload says who it was.
        `sealed` are the payloads that the event fixes, each under its subject's
        key.  Fields that are None are left out.

        Raises:
            SubjectBlocked: The key of a payload was destroyed meanwhile.
            LeafInvalid: The event is outside the closed schema (a bug of ours).
        """
        now = self._moment(tenant)
        origin = self.origins[tenant]
        event = leaf.new_event(
            ty,
            at_ms=int(now.timestamp() * 1000),
            actor=self._actor(by),
            random=self.random,
            **{name: value for name, value in fields.items() if value is not None},
        )
        event_id, nonce = str(event["id"]), bytes.fromhex(event["n"])
        payloads: list[SealedPayload] = []
        staff = self._staff.get((by.tenant, by.name)) if by is not None and by.is_person else None
        if staff is not None and by is not None:
            event["act"] = f"tok:{staff.token(nonce)}"
            sealed = (*sealed, (staff, {"actor": by.name, "role": by.role.value}))
        for slot, (key, payload) in enumerate(sealed):
            holder = self._standing(tx, key)
            entry, blob = key.seal(origin, nonce, payload, self.random)
            event["seals"].append(entry)
            payloads.append(
                SealedPayload(event_id, slot, origin, holder.handle, holder.key_id, holder.month, blob)
            )
        line = leaf.encode(event)
        hashed = leaf.leaf_hash(line)
        tx.add(
            Leaf(event_id=event_id, log=origin, ty=ty, line=line, leaf_hash=hashed, queued_at=now), *payloads
        )
        return Receipt(origin, event_id, hashed)

    @staticmethod
    def _standing(tx: Transaction, key: PayloadKey) -> SubjectKey:
        """Return the record of the key as it stands: a payload must not outlive an erasure."""
        holder = tx.get(SubjectKey, key.holder.key_id)
        if holder is None or holder.handle is None:
            raise SubjectBlocked
        return holder

    def _moment(self, tenant: str) -> datetime:
        """Return the present, or the last moment used where the clock was set back: a log's time never is."""
        now = max(self.clock.now(), self._last.get(tenant, EPOCH))
        self._last[tenant] = now
        return now

    def _actor(self, by: Caller | None) -> str:
        if by is None:
            return SYSTEM
        return f"tok:{self.random(16).hex()}" if by.is_person else f"svc:{by.name}"


def without_nulls(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mapping without what is not known: a payload has no null."""
    return {
        name: without_nulls(item) if isinstance(item, Mapping) else item
        for name, item in value.items()
        if item is not None
    }
