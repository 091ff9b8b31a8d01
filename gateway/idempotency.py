"""Remembers answered `request_id`s for 24 hours, so that a repeated call repeats its answer (AIP-155)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from gateway.errors import IdempotencyConflict
from gateway.ports.clock import Clock
from gateway.ports.keys import KeyService
from gateway.ports.records import Remembered, Transaction

TERM = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Ticket:
    """A call's identity: which method, which `request_id`, and a keyed digest of its content."""

    tenant: str
    method: str
    request_id: str
    digest: str


@dataclass(frozen=True, slots=True)
class Idempotency:
    """Issues tickets and looks them up inside the transaction that does the work."""

    keys: KeyService
    clock: Clock

    async def ticket(self, tenant: str, method: str, request_id: str, content: bytes) -> Ticket | None:
        """Return the ticket of a call, or None where it carries no `request_id`."""
        if not request_id:
            return None
        digest = await self.keys.mac(tenant, "idempotency", content)
        return Ticket(tenant, method, request_id, digest.hex())

    def recall(self, tx: Transaction, ticket: Ticket | None) -> str | None:
        """Return the resource that the same call made before, or None if it is new.

        Raises:
            IdempotencyConflict: The `request_id` was used with other content.
        """
        if ticket is None:
            return None
        known = tx.get(Remembered, ticket.tenant, ticket.method, ticket.request_id)
        if known is None or known.expires_at <= self.clock.now():
            return None
        if known.digest != ticket.digest:
            raise IdempotencyConflict
        return known.resource

    def remember(self, tx: Transaction, ticket: Ticket | None, resource: str) -> None:
        """Keep the answer: `resource` is the id of what the call made, never a person's."""
        if ticket is None:
            return
        old = tx.get(Remembered, ticket.tenant, ticket.method, ticket.request_id)
        if old is not None:
            tx.remove(old)
        tx.add(
            Remembered(
                tenant=ticket.tenant,
                method=ticket.method,
                request_id=ticket.request_id,
                digest=ticket.digest,
                resource=resource,
                expires_at=self.clock.now() + TERM,
            )
        )
