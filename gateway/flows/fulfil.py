"""Carries out approved requests other than erasures; what each does is one commit with its leaf."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

from gateway.dsrs import claim, closed, leased, pinned, with_heartbeat
from gateway.errors import StateConflict
from gateway.holds import end_for_request
from gateway.judge import Judge
from gateway.ledger import Ledger
from gateway.objects import reap
from gateway.ports.clock import Clock
from gateway.ports.objects import ObjectStore
from gateway.ports.records import Consent, Dsr, Records, Signal, Subject, SubjectKey, Transaction
from gateway.withdrawal import end_consents, note_signal
from policy.consent_state import ConsentVerb
from policy.dsr import EFFECTS, Effect, ended_purposes, transition
from policy.pack import Pack
from policy.terms import DsrKind, Purpose

MakePackage = Callable[[Dsr], Awaitable[str]]
"""Makes the package of an access request, once however often it is asked, and returns its object's id."""

KINDS = tuple(kind.value for kind in DsrKind if kind is not DsrKind.ERASURE)


@dataclass(frozen=True, slots=True)
class Fulfilment:
    """One worker for requests that are no erasures.

    The steps, each idempotent:
        (1) Lease: the oldest approved request becomes `running`, fenced by its owner.
        (2) Package: for access and portability, what is held is put together; nothing else
            of a request takes long.
        (3) Act: in one commit, the effects of the kind, the state `fulfilled`, and
            `dsr.fulfilled`.  Of somebody who is gone by then nothing is held, and that is the answer.
        (4) Bytes of what a withdrawal destroyed are removed; what fails is left to the sweeper.
    """

    records: Records
    ledger: Ledger
    objects: ObjectStore
    packs: Mapping[str, Pack]
    clock: Clock
    lease: timedelta
    judge: Judge
    make_package: MakePackage
    random: Callable[[int], bytes] = os.urandom

    async def run_one(self) -> bool:
        """Carry out one approved request to its end and return whether there was one.

        A failure leaves the request where it stands; the lease runs out and it is tried again.
        """
        owner = self.random(8).hex()
        dsr = await self.records.transact(lambda tx: claim(tx, KINDS, owner, self.clock.now(), self.lease))
        if dsr is None:
            return False
        package_id = await with_heartbeat(self.records, self.clock, self.lease, dsr, self._package)
        doomed = await self.records.transact(partial(self._act, dsr=dsr, package_id=package_id))
        for object_id in doomed:
            await reap(self.records, self.objects, object_id)
        return True

    # (2)
    async def _package(self, dsr: Dsr) -> str:
        if Effect.PACKAGE not in EFFECTS[DsrKind(dsr.kind)]:
            return ""
        if await self.records.transact(lambda tx: _living(tx, dsr)) is None:
            return ""
        return await self.make_package(dsr)

    # (3)
    def _act(self, tx: Transaction, dsr: Dsr, package_id: str) -> list[str]:
        standing, subject = leased(tx, dsr), _living(tx, dsr)
        state = transition(standing.state, "fulfill")
        if state is None:
            raise StateConflict(detail=standing.state)
        doomed: list[str] = []
        outcome = "nothing_held"
        if subject is not None and (package_id or Effect.PACKAGE not in EFFECTS[DsrKind(dsr.kind)]):
            outcome = "complied_in_part" if standing.refused_parts else "complied"
            for effect in EFFECTS[DsrKind(dsr.kind)]:
                doomed += self._take(tx, effect, standing, subject)
        done = closed(standing, state, self.clock.now(), pinned(tx, standing, self.packs))
        tx.put(replace(done, outcome=outcome, package_id=package_id))
        self.ledger.record(tx, dsr.tenant, "dsr.fulfilled", None, dsr=dsr.dsr_id, out=outcome)
        end_for_request(tx, self.ledger, standing)
        return doomed

    def _take(self, tx: Transaction, effect: Effect, dsr: Dsr, subject: Subject) -> list[str]:
        if effect is Effect.CORRECT:
            self._correct(tx, dsr, subject)
        elif effect is Effect.RESTRICT:
            tx.put(replace(subject, state="restricted", updated_at=self.clock.now()))
            self.ledger.record(tx, dsr.tenant, "subject.restricted", None)
        elif effect in {Effect.OPT_OUT, Effect.LIMIT} and Purpose.SELL_SHARE not in dsr.refused_parts:
            self._signal(tx, effect, subject)
        elif effect is Effect.END_CONSENTS:
            return self._end_consents(tx, dsr, subject)
        return []

    def _correct(self, tx: Transaction, dsr: Dsr, subject: Subject) -> None:
        if tx.get(SubjectKey, dsr.wish_key) is None:
            raise StateConflict(detail="wish_lost")
        tx.put(
            replace(subject, key_id=dsr.wish_key, sealed_profile=dsr.sealed_wish, updated_at=self.clock.now())
        )
        self.ledger.record(tx, dsr.tenant, "subject.upserted", None, age=dsr.wish_age)

    def _signal(self, tx: Transaction, effect: Effect, subject: Subject) -> None:
        """Set one signal, and leave the other as it is (11 CCR 7026, 7027)."""
        said = tx.get(Signal, subject.tenant, subject.handle)
        note_signal(
            tx,
            self.ledger,
            None,
            subject.tenant,
            subject.handle,
            gpc=effect is Effect.OPT_OUT or (said is not None and said.gpc),
            limit_spi=effect is Effect.LIMIT or (said is not None and said.limit_spi),
        )

    def _end_consents(self, tx: Transaction, dsr: Dsr, subject: Subject) -> list[str]:
        purposes = ended_purposes(DsrKind(dsr.kind), tuple(dsr.purposes), dsr.refused_parts)
        consents = tx.find(
            Consent,
            equal={"tenant": subject.tenant, "handle": subject.handle},
            among={"purpose": purposes},
            order_by=("given_at", "consent_id"),
        )
        return end_consents(tx, self.judge, consents, ConsentVerb.WITHDRAW, None, "request").doomed


def _living(tx: Transaction, dsr: Dsr) -> Subject | None:
    """Return whose request it is, unless they are gone or being erased."""
    subject = tx.get(Subject, dsr.tenant, dsr.handle) if dsr.handle else None
    return subject if subject is not None and subject.state != "blocked" else None
