"""Takes a portrait in: consent, scrub, seal, queue."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from gateway import deidentify
from gateway.bell import Bell
from gateway.caller import Caller
from gateway.contract import refuse_unfit
from gateway.deidentify.deidentified import Deidentified
from gateway.deidentify.text import PromptRefused, ScrubbedText, TextScrubber
from gateway.errors import (
    BackendRetentionTooLong,
    BackendUnavailable,
    DeadlineTooShort,
    LetheError,
    MessageInvalid,
    NoticeUnknown,
    PayloadTooLarge,
    PromptRejected,
    RateLimited,
    ResidencyNoTarget,
    ScrubberUnavailable,
    StoreUnavailable,
    ZeroRetention,
)
from gateway.faces import Faces
from gateway.idempotency import Idempotency, Ticket
from gateway.judge import Case, Judge, Verdict
from gateway.ledger import Ledger, Receipt
from gateway.marking import Marks
from gateway.objects import backend_id, discard_unkept, log_object, log_prompt, transient
from gateway.people import People, Person
from gateway.ports.clock import Clock
from gateway.ports.inference import BackendFacts
from gateway.ports.keys import KeyService
from gateway.ports.records import Job, Notice, Records, StoredObject, Transaction
from gateway.transient import Transients, wipe
from gateway.vault.payload import PayloadKey
from gateway.vault.safe import Draft, Safe
from policy.terms import Purpose

QUEUE = "queue"
"""What the bell is told when a job waits for a worker."""


@dataclass(frozen=True, slots=True)
class JobOrder:
    """What the caller asks for; `request_id` may be empty."""

    subject_id: str
    is_uploader: bool
    purpose: str
    notice_id: str
    style: str
    prompt: str = ""
    backend_hint: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A queued job and the receipt of its leaf; `receipt` is None where an earlier answer is repeated.

    `is_transient` where nothing of it is kept: the result goes out in the call that made the job, or never.
    """

    job: Job
    receipt: Receipt | None
    is_transient: bool = False


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """Bounds of one upload: bytes, how many at once, how long original and job are kept.

    `transient_ttl` bounds both where nothing is kept: no call lasts longer, and its picture waits
    for a worker under a lease of `lease` that this process renews.
    """

    max_image_bytes: int
    max_in_flight: int
    max_receive_s: float
    original_ttl: timedelta
    output_ttl: timedelta
    max_backend_retention_s: int
    transient_ttl: timedelta
    lease: timedelta


@dataclass(frozen=True, slots=True)
class _Admitted:
    person: Person
    case: Case
    backend: BackendFacts
    until: datetime
    key: PayloadKey
    prompt: ScrubbedText | None


@dataclass(frozen=True, slots=True)
class Upload:
    """Runs one upload from header to queued job; every refusal leaves no bytes and no row.

    Of the tenants in `zero_retention` no picture is ever stored: it stays in `transients`.
    """

    records: Records
    people: People
    judge: Judge
    ledger: Ledger
    idempotency: Idempotency
    keys: KeyService
    safe: Safe
    faces: Faces
    prompts: TextScrubber
    backends: Callable[[], Mapping[str, BackendFacts]]
    clock: Clock
    limits: UploadLimits
    transients: Transients
    marks: Marks
    zero_retention: frozenset[str] = frozenset()
    bell: Bell = field(default_factory=Bell)
    random: Callable[[int], bytes] = os.urandom
    _gate: list[int] = field(default_factory=lambda: [0])

    async def run(
        self, caller: Caller, order: JobOrder, chunks: AsyncIterator[bytes], *, is_attended: bool = False
    ) -> Accepted:
        """Return the queued job; `is_attended` where the caller waits for the result in the same call.

        Steps:
            (1) The subject, the notice and the backend are known, policy permits; the prompt is scrubbed.
            (2) Bytes arrive, bounded; what comes back is a clean picture that shows no other person's face.
            (3) Ciphertext is stored; a crash from here leaves unreadable garbage.
                Under zero retention nothing is: the picture waits in memory.
            (4) One transaction: policy still permits, job, object and leaves are kept.

        Raises:
            LetheError: Any refusal of the contract; it is in the log where a subject is concerned.
        """
        if self._gate[0] >= self.limits.max_in_flight:
            raise RateLimited
        self._gate[0] += 1
        try:
            return await self._run(caller, order, chunks, is_attended=is_attended)
        finally:
            self._gate[0] -= 1

    async def _run(
        self, caller: Caller, order: JobOrder, chunks: AsyncIterator[bytes], *, is_attended: bool
    ) -> Accepted:
        is_transient = caller.tenant in self.zero_retention
        try:
            if is_transient and not is_attended:
                raise ZeroRetention
            person = await self.people.find(caller.tenant, order.subject_id)
            admitted = await self._admit(caller, order, person)
            image = await self._receive(chunks)
            try:
                ticket = await self.idempotency.ticket(
                    caller.tenant, "CreateJob", order.request_id, _content(order, image)
                )
                known = await self.records.transact(lambda tx: self._recall(tx, ticket))
                if known is not None:
                    return Accepted(known, None, is_transient)
                clean = await self.faces.see_to(image, Purpose.GENERATE)
            finally:
                wipe(image)
            return await self._keep_or_give_up(caller, order, admitted, clean, ticket)
        except LetheError as refusal:
            await self._log_refusal(caller, order, refusal)
            raise
        except asyncio.CancelledError:
            gone = DeadlineTooShort(detail="caller_gone")
            await _to_its_end(asyncio.ensure_future(self._log_refusal(caller, order, gone)))
            raise

    async def _keep_or_give_up(
        self,
        caller: Caller,
        order: JobOrder,
        admitted: _Admitted,
        clean: Deidentified,
        ticket: Ticket | None,
    ) -> Accepted:
        """Return the queued job; when the caller is gone, wait until nothing half-done is left behind.

        Cut off in the middle, nobody could say whether the transaction persisted.
        So the work goes on to its end, and its commit refuses once the caller is gone.
        """
        gone = asyncio.Event()
        keeping = asyncio.ensure_future(self._keep(caller, order, admitted, clean, ticket, gone))
        try:
            return await asyncio.shield(keeping)
        except asyncio.CancelledError:
            gone.set()
            await _to_its_end(keeping)
            raise

    # (1)
    async def _admit(self, caller: Caller, order: JobOrder, person: Person) -> _Admitted:
        if order.purpose != Purpose.GENERATE.value:
            # A consent to anything else is none to having a picture made.
            raise MessageInvalid(
                "a job is for the purpose generate", violations=(("header.purpose", "purpose.no_job"),)
            )
        offering = self._offering(order)
        key = await self.people.payload_key(caller.tenant, person.subject.handle)
        asked = Case(
            profile=person.profile,
            purpose=order.purpose,
            at=self.clock.now(),
            is_uploader=order.is_uploader,
        )

        def judge(tx: Transaction) -> tuple[BackendFacts, Case, Verdict, datetime]:
            self._need_notice(tx, caller.tenant, order)
            backend = self._target(tx, person, asked, offering)
            case = replace(asked, template_extracted=backend.template_extracted)
            verdict = self.judge.decide(tx, caller.tenant, person.subject.handle, case)
            if not verdict.allowed:
                self.judge.record(tx, caller, person.subject, verdict, key)
            else:
                self.marks.need(verdict)
            until = self.judge.term(verdict, "original", case.at, self.limits.original_ttl)
            return backend, case, verdict, until

        backend, case, verdict, until = await self.records.transact(judge)
        if not verdict.allowed:
            raise self.judge.refusal(verdict)
        prompt = await self._scrub_prompt(order.prompt) if order.prompt else None
        return _Admitted(person, case, backend, until, key, prompt)

    async def _scrub_prompt(self, prompt: str) -> ScrubbedText:
        try:
            return await self.prompts.scrub(prompt)
        except PromptRefused as refused:
            raise PromptRejected(detail=refused.detail) from None
        except deidentify.ScrubberUnavailable as error:
            raise ScrubberUnavailable(detail="prompt") from error

    def _need_notice(self, tx: Transaction, tenant: str, order: JobOrder) -> None:
        """Refuse a notice that was never published, or whose newest version does not name the purpose."""
        key = {"tenant": tenant, "notice_id": order.notice_id}
        newest = tx.find(Notice, equal=key, order_by=("-version",), limit=1)
        if not newest:
            raise NoticeUnknown
        if order.purpose not in newest[0].purposes:
            raise NoticeUnknown("the notice does not name the purpose", detail="purpose_not_named")

    def _target(
        self, tx: Transaction, person: Person, case: Case, offering: Sequence[BackendFacts]
    ) -> BackendFacts:
        """Return the first backend that the laws which protect the person let the picture go to.

        Raises:
            ResidencyNoTarget: There is none; it says why the first one is none.
        """
        first: ResidencyNoTarget | None = None
        for facts in offering:
            try:
                self.judge.need_target(tx, person.subject.tenant, person.subject.handle, case, facts)
            except ResidencyNoTarget as refusal:
                first = first or refusal
            else:
                return facts
        raise first or BackendUnavailable

    def _offering(self, order: JobOrder) -> list[BackendFacts]:
        """Return the backends that could take the job; the hint is the name of the one to use."""
        known = self.backends()
        wanted = order.backend_hint.removeprefix("backends/")
        usable = [facts for name, facts in known.items() if not wanted or name == wanted]
        if not usable:
            raise BackendUnavailable
        fit = [facts for facts in usable if self._is_fit(facts)]
        if not fit:
            # All are unfit; say why the first one is.
            refuse_unfit(usable[0], self.limits.max_backend_retention_s)
        offering = [facts for facts in fit if order.style in facts.styles]
        taking = [facts for facts in offering if facts.takes_prompts or not order.prompt]
        if taking:
            return taking
        if offering:
            raise PromptRejected("no backend takes a prompt", detail="backend_takes_none")
        raise MessageInvalid(
            "no backend offers the style", violations=(("header.parameters.style", "style.unknown"),)
        )

    def _is_fit(self, facts: BackendFacts) -> bool:
        try:
            refuse_unfit(facts, self.limits.max_backend_retention_s)
        except BackendRetentionTooLong:
            return False
        return True

    # (2)
    async def _receive(self, chunks: AsyncIterator[bytes]) -> bytearray:
        received = bytearray()
        try:
            await self._fill(received, chunks)
        except BaseException:
            wipe(received)
            raise
        return received

    async def _fill(self, received: bytearray, chunks: AsyncIterator[bytes]) -> None:
        try:
            async with asyncio.timeout(self.limits.max_receive_s):
                async for chunk in chunks:
                    received += chunk
                    if len(received) > self.limits.max_image_bytes:
                        raise PayloadTooLarge(limit=str(self.limits.max_image_bytes))
        except TimeoutError as error:
            # A place among the uploads is not held by dripping bytes.
            raise DeadlineTooShort("the upload takes too long", detail="upload_too_slow") from error

    def _recall(self, tx: Transaction, ticket: Ticket | None) -> Job | None:
        job_id = self.idempotency.recall(tx, ticket)
        return tx.get(Job, job_id) if job_id else None

    async def _log_refusal(self, caller: Caller, order: JobOrder, refusal: LetheError) -> None:
        """Log a refusal; where the log is what fails, the refusal stands all the same."""
        with contextlib.suppress(StoreUnavailable):
            await self.records.transact(
                lambda tx: self.ledger.record(
                    tx,
                    caller.tenant,
                    "upload.refused",
                    caller,
                    rc=refusal.code,
                    det=refusal.detail or None,
                    pur=order.purpose,
                )
            )

    # (3) and (4)
    async def _keep(
        self,
        caller: Caller,
        order: JobOrder,
        admitted: _Admitted,
        clean: Deidentified,
        ticket: Ticket | None,
        gone: asyncio.Event,
    ) -> Accepted:
        now = self.clock.now()
        job_id = self.random(16).hex()
        handle = admitted.person.subject.handle
        backend = admitted.backend
        is_transient = caller.tenant in self.zero_retention
        pseudonym = await self.keys.mac(caller.tenant, "backend", f"{backend.name}/{job_id}".encode())
        draft = Draft(
            tenant=caller.tenant,
            handle=handle,
            job_id=job_id,
            kind="original",
            purpose=order.purpose,
            image_type=clean.picture.format,
            width=clean.picture.width,
            height=clean.picture.height,
            image=clean.picture.data,
            expires_at=admitted.until,
            prompt=admitted.prompt.text if admitted.prompt else "",
        )
        stored = self._hold(draft) if is_transient else await self.safe.seal(draft)
        job = Job(
            job_id=job_id,
            tenant=caller.tenant,
            handle=handle,
            purpose=order.purpose,
            state="queued",
            style=order.style,
            backend=backend.name,
            backend_job=pseudonym[:16].hex(),
            input_object=stored.object_id,
            result_object="",
            percent=0,
            stage="queued",
            reason="",
            detail="",
            is_cancel_requested=False,
            attempt=0,
            lease_owner="",
            lease_until=now + self.limits.lease if is_transient else None,
            created_at=now,
            updated_at=now,
            expires_at=now + (self.limits.transient_ttl if is_transient else self.limits.output_ttl),
            is_uploader=order.is_uploader,
        )

        def commit(tx: Transaction) -> Accepted:
            repeated = self._recall(tx, ticket)
            if repeated is not None:
                return Accepted(repeated, None, is_transient)
            if gone.is_set():
                raise DeadlineTooShort(detail="caller_gone")
            verdict = self.judge.decide(tx, caller.tenant, handle, admitted.case)
            if not verdict.allowed:
                raise self.judge.refusal(verdict)
            self.marks.need(verdict)
            # Another consent may have taken the place of the first, with another end.
            ends = self.judge.term(verdict, stored.kind, now, self.limits.original_ttl)
            kept = replace(stored, expires_at=min(stored.expires_at, ends))
            tx.add(kept, job)
            self.judge.record(tx, caller, admitted.person.subject, verdict, admitted.key, job_id)
            log_object(tx, self.ledger, caller, kept, clean)
            if admitted.prompt is not None:
                log_prompt(tx, self.ledger, caller, kept, admitted.prompt.counts)
            receipt = self.ledger.record(
                tx,
                caller.tenant,
                "job.created",
                caller,
                job=job_id,
                bak=backend_id(backend.name),
                pur=order.purpose,
                obj=stored.object_id,
                kind=clean.profile,
            )
            self.idempotency.remember(tx, ticket, job_id)
            return Accepted(job, receipt, is_transient)

        try:
            accepted = await self.records.transact(commit)
        except LetheError:
            await self._let_go(stored)
            raise
        if accepted.job.job_id != job_id:
            await self._let_go(stored)
        self.transients.record(stored.object_id)
        self.bell.ring(QUEUE)
        return accepted

    def _hold(self, draft: Draft) -> StoredObject:
        """Hold a picture in memory, and nowhere else."""
        stored = transient(draft, self.random(16).hex(), self.clock.now(), self.limits.transient_ttl)
        self.transients.put(stored, draft.image, draft.prompt)
        return stored

    async def _let_go(self, stored: StoredObject) -> None:
        """Let go of a picture that no record names."""
        self.transients.drop(stored.object_id)
        if stored.state != "transient":
            await discard_unkept(self.records, self.safe.objects, stored)


async def _to_its_end(work: asyncio.Future[Any]) -> None:
    """Wait until `work` is over; at a deadline grpc cancels us, and so does our own timer."""
    while not work.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({work})
    if not work.cancelled():
        work.exception()  # taken, so that it is not reported as lost


def _content(order: JobOrder, image: bytes | bytearray) -> bytes:
    """Return the bytes whose keyed digest tells two uploads apart."""
    head = [
        order.subject_id,
        order.is_uploader,
        order.purpose,
        order.notice_id,
        order.style,
        order.backend_hint,
        order.prompt,
    ]
    return json.dumps(head).encode() + hashlib.sha256(image).digest()
