"""Makes subjects known, shows what is held of them, restricts and corrects."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gateway.caller import Caller
from gateway.errors import NotFound, SubjectBlocked, SubjectUnknown
from gateway.holdings import Held, Holdings
from gateway.holds import refuse_held
from gateway.idempotency import Idempotency
from gateway.ledger import Ledger, Receipt
from gateway.objects import destroy_object, reap
from gateway.paging import MAX_SIZE, Page, page
from gateway.people import People, Person, Profile
from gateway.ports.clock import Clock
from gateway.ports.objects import ObjectStore
from gateway.ports.records import Records, StoredObject, Subject, SubjectKey, Transaction
from policy.terms import age_band


@dataclass(frozen=True, slots=True)
class Subjects:
    """Subjects of a tenant, found by the caller's own id, which is stored nowhere in clear."""

    records: Records
    people: People
    ledger: Ledger
    idempotency: Idempotency
    holdings: Holdings
    objects: ObjectStore
    clock: Clock

    async def upsert(
        self, caller: Caller, profile: Profile, request_id: str = ""
    ) -> tuple[Subject, Receipt | None]:
        """Make a subject known, or replace what is known of them.

        Raises:
            SubjectBlocked: The subject was erased or is being erased.
        """
        tenant = caller.tenant
        handle = await self.people.handle(tenant, profile.subject_id)
        ticket = await self.idempotency.ticket(tenant, "UpsertSubject", request_id, profile.to_json())
        # `seal_profile` asks for the subject's key and is refused where the subject is fenced.
        key_id, sealed = await self.people.seal_profile(tenant, handle, profile)
        now = self.clock.now()
        band = age_band(profile.age(now))

        def commit(tx: Transaction) -> tuple[Subject, Receipt | None]:
            standing = tx.get(Subject, tenant, handle)
            if standing is not None and standing.state == "blocked":
                raise SubjectBlocked
            known = self.idempotency.recall(tx, ticket)
            if known is not None and standing is not None:
                return standing, None
            if tx.get(SubjectKey, key_id) is None:
                # An erasure came between the key and this commit.
                raise SubjectBlocked
            if standing is None:
                subject = Subject(tenant, handle, "active", key_id, sealed, now, now)
                tx.add(subject)
            else:
                subject = replace(standing, key_id=key_id, sealed_profile=sealed, updated_at=now)
                tx.put(subject)
            receipt = self.ledger.record(tx, tenant, "subject.upserted", caller, age=band.value)
            self.idempotency.remember(tx, ticket, "subject")
            return subject, receipt

        return await self.records.transact(commit)

    async def get(self, caller: Caller, subject_id: str) -> Person:
        """Return the subject and their profile."""
        return await self.people.find(caller.tenant, subject_id)

    async def stored_data(
        self, caller: Caller, subject_id: str, size: int = 0, token: str = ""
    ) -> Page[Held]:
        """Return a page of what is held of the subject, why, and until when, by name (GDPR Art. 15(1))."""
        known = await self.people.known(caller.tenant, subject_id)
        held = await self.records.transact(lambda tx: self.holdings.locate(tx, caller.tenant, known.handle))
        held.sort(key=_name)
        return page(held, size or MAX_SIZE, _name, ("stored_data", caller.tenant, known.handle), token)

    async def delete_object(self, caller: Caller, object_id: str) -> Receipt:
        """Destroy one object: key first, then bytes.

        Raises:
            NotFound: There is none in the caller's tenant.
            HoldActive: A legal hold keeps it.
        """

        def commit(tx: Transaction) -> Receipt:
            stored = tx.get(StoredObject, object_id)
            if stored is None or stored.tenant != caller.tenant or stored.state == "destroyed":
                raise NotFound
            refuse_held(tx, caller.tenant, stored.handle, self.clock.now(), stored.cls)
            destroyed = destroy_object(tx, self.ledger, stored, "deleted", caller)
            if destroyed is None:
                raise NotFound
            return destroyed

        receipt = await self.records.transact(commit)
        await reap(self.records, self.objects, object_id)
        return receipt

    async def restrict(self, caller: Caller, subject_id: str, *, restricted: bool) -> tuple[Subject, Receipt]:
        """Restrict processing to storage, or lift the restriction (GDPR Art. 18)."""
        handle = await self.people.handle(caller.tenant, subject_id)

        def commit(tx: Transaction) -> tuple[Subject, Receipt]:
            standing = tx.get(Subject, caller.tenant, handle)
            if standing is None:
                raise SubjectUnknown
            if standing.state == "blocked":
                raise SubjectBlocked
            state = "restricted" if restricted else "active"
            changed = replace(standing, state=state, updated_at=self.clock.now())
            tx.put(changed)
            ty = "subject.restricted" if restricted else "subject.unrestricted"
            return changed, self.ledger.record(tx, caller.tenant, ty, caller)

        return await self.records.transact(commit)

    async def rectify(self, caller: Caller, profile: Profile) -> tuple[Subject, Receipt | None]:
        """Correct what is known of a subject (GDPR Art. 16).

        Raises:
            SubjectUnknown: There is nobody to correct.
        """
        await self.people.find(caller.tenant, profile.subject_id)
        return await self.upsert(caller, profile)


def _name(held: Held) -> str:
    return held.name
