"""Hands out receipts of consent, with the proof that the log has it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from audit import leaf
from audit.note import Signer
from gateway import receipts
from gateway.caller import Caller
from gateway.controllers import Controllers
from gateway.errors import NotFound, StateConflict, SubjectBlocked
from gateway.ledger import Ledger
from gateway.people import People, Person
from gateway.ports.clock import Clock
from gateway.ports.records import Consent, Leaf, Notice, Records, Subject, Transaction
from gateway.receipts import Found


@dataclass(frozen=True, slots=True)
class Receipts:
    """Says in full what was consented to, under the log's own key."""

    records: Records
    people: People
    ledger: Ledger
    controllers: Controllers
    signers: Mapping[str, tuple[Signer, ...]]
    clock: Clock
    random: Callable[[int], bytes] = os.urandom

    async def event_of(self, caller: Caller, consent_id: str) -> str:
        """Return the id of the event that recorded a consent, whose proof its receipt carries.

        Raises:
            NotFound: There is no such consent in the caller's tenant.
            StateConflict: Its event is not known or not kept any more (detail `event_gone`).
        """

        def read(tx: Transaction) -> str:
            consent = _own(tx, caller, consent_id)
            if not consent.event_id or tx.get(Leaf, consent.event_id) is None:
                raise StateConflict("the event of this consent is not kept", detail="event_gone")
            return consent.event_id

        return await self.records.transact(read)

    async def issue(
        self, caller: Caller, consent_id: str, evidence: Mapping[str, Any], tlog_proof: str
    ) -> tuple[str, bytes]:
        """Return the id and the bytes of a receipt, with the opened evidence and the proof of its event.

        Raises:
            NotFound: There is no such consent in the caller's tenant.
            SubjectBlocked: Its person is erased: nobody is left to give it to.
        """
        consent = await self.records.transact(lambda tx: self._numbered(tx, caller, consent_id))
        found = await self._find(consent, evidence)
        signer = self.signers[self.ledger.origins[caller.tenant]][0]
        controller = await self.controllers.now(self.records, caller.tenant)
        return consent.receipt_id, receipts.issue(found, controller, signer, tlog_proof, self.clock.now())

    def _numbered(self, tx: Transaction, caller: Caller, consent_id: str) -> Consent:
        return receipts.numbered(tx, _own(tx, caller, consent_id), self.random)

    async def _find(self, consent: Consent, evidence: Mapping[str, Any]) -> Found:
        def read(tx: Transaction) -> tuple[Subject | None, Notice | None, Leaf | None]:
            key = (consent.tenant, consent.notice_id, consent.notice_version, consent.notice_language)
            subject = tx.get(Subject, consent.tenant, consent.handle) if consent.handle else None
            return subject, tx.get(Notice, *key), tx.get(Leaf, consent.event_id)

        subject, notice, recorded = await self.records.transact(read)
        if subject is None or subject.state == "blocked":
            raise SubjectBlocked
        if notice is None or recorded is None:
            raise StateConflict("the event of this consent is not kept", detail="event_gone")
        person = Person(subject, await self.people.open_profile(subject))
        return Found(consent, notice, leaf.decode(recorded.line), evidence, person)


def _own(tx: Transaction, caller: Caller, consent_id: str) -> Consent:
    consent = tx.get(Consent, consent_id)
    if consent is None or consent.tenant != caller.tenant:
        raise NotFound
    return consent
