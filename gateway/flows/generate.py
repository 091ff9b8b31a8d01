"""Works on queued jobs: dispatch, result, scrub, seal, and the end of the original."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial

from gateway import contract, deidentify
from gateway.bell import Bell
from gateway.debts import FORGET, Debts
from gateway.errors import (
    BackendProtocol,
    BackendUnavailable,
    ImageRejected,
    InputLost,
    JobCancelled,
    KeyServiceUnavailable,
    LetheError,
    ScrubberUnavailable,
    StoreUnavailable,
    SubjectBlocked,
    SubjectUnknown,
)
from gateway.judge import Case, Judge, Verdict
from gateway.ledger import Ledger
from gateway.marking import Marks
from gateway.objects import (
    backend_id,
    destroy_object,
    discard_unkept,
    end_queued,
    log_object,
    reap,
    transient,
)
from gateway.people import People
from gateway.ports.clock import Clock
from gateway.ports.inference import BackendFacts, Inference, Progress, Result
from gateway.ports.objects import ObjectStore
from gateway.ports.records import Debt, Job, Records, StoredObject, Subject, Transaction
from gateway.transient import Transients
from gateway.vault.box import prefixed
from gateway.vault.payload import PayloadKey
from gateway.vault.safe import Draft, Safe

BATCH = 100
PARKED = timedelta(seconds=30)
"""How long a job of a restricted subject rests before anyone looks again."""

_MAY_PASS = (BackendUnavailable, KeyServiceUnavailable, StoreUnavailable, ScrubberUnavailable)


@dataclass(frozen=True, slots=True)
class GenerateLimits:
    """How long a lease lasts, how often a job is tried, how long an output is kept, or is in memory only."""

    lease: timedelta
    attempts: int
    output_ttl: timedelta
    poll_s: float
    max_backend_retention_s: int
    transient_ttl: timedelta


@dataclass(frozen=True, slots=True)
class _Input:
    """A picture to send; `is_transient` where it is stored nowhere, and its result will not be either."""

    image: bytes = field(repr=False)
    image_type: str
    prompt: str = field(repr=False)
    is_transient: bool


@dataclass(frozen=True, slots=True)
class Generate:
    """One worker.  Any number may run, in any number of processes: leases keep them apart.

    A job whose picture is in memory only (`transients`) is worked on by the process that has
    the picture, once.  When its lease runs out nobody has, and whoever finds that ends
    the job with `INPUT_LOST`.
    """

    records: Records
    people: People
    judge: Judge
    ledger: Ledger
    safe: Safe
    objects: ObjectStore
    scrubber: deidentify.Scrubber
    backends: Mapping[str, Inference]
    known: Callable[[], Mapping[str, BackendFacts]]
    clock: Clock
    limits: GenerateLimits
    transients: Transients
    marks: Marks
    debts: Debts
    subject_spans: Mapping[str, timedelta] = field(default_factory=dict)
    """Backends that learn a pseudonym of the subject, and for how long it is the same."""
    bell: Bell = field(default_factory=Bell)
    random: Callable[[int], bytes] = os.urandom
    _asked: dict[str, str] = field(default_factory=dict)  # behind which job each backend is asked next

    async def run_one(self) -> bool:
        """Work on one job to its end and return whether there was one."""
        owner = self.random(8).hex()
        job = await self.records.transact(lambda tx: self._claim(tx, owner))
        if job is None:
            return False
        self.bell.ring(job.job_id)
        if job.state == "running":
            await self._work(job)
        elif job.state == "failed":
            await self._reap_input(job)
        return True

    async def tend(self) -> None:
        """Keep the leases of what waits in memory, and drop what has ended, or must, by another's doing.

        Called at every poll, for so long may a picture outlive its end.
        """
        self.transients.expire(self.clock.now())
        held = self.transients.recorded
        if held:
            for object_id in await self.records.transact(partial(self._tend, held=held)):
                self.transients.drop(object_id)

    def _tend(self, tx: Transaction, held: Collection[str]) -> list[str]:
        over = []
        for object_id in held:
            stored = tx.get(StoredObject, object_id)
            if stored is None or stored.state != "transient" or self._is_ended(tx, stored):
                over.append(object_id)
        return over

    def _is_ended(self, tx: Transaction, stored: StoredObject) -> bool:
        """End a picture that waits, and may not any more; else renew its job's lease."""
        job = tx.get(Job, stored.job_id)
        subject = tx.get(Subject, stored.tenant, stored.handle)
        is_blocked = subject is None or subject.state == "blocked"
        if job is None or (is_blocked and job.result_object == stored.object_id):
            destroy_object(tx, self.ledger, stored, "erasure")
            return True
        if job.state != "queued":
            return False  # its worker looks itself
        if is_blocked or job.is_cancel_requested:
            end_queued(tx, self.ledger, job, self.clock, "erasure" if is_blocked else _why(job.detail), None)
            return True
        now = self.clock.now()
        if job.lease_until is None or job.lease_until - now < self.limits.lease / 2:
            tx.put(replace(job, lease_until=now + self.limits.lease))
        return False

    async def settle(self) -> int:
        """Have backends forget what they were not told to in time; return how many jobs are settled.

        Only of jobs that have ended: one that will be sent again goes by the same
        pseudonym, and is forgotten when that dispatch is over.
        """
        settled = 0
        for name in self.known():
            owed = await self.records.transact(partial(_owed, backend=name, after=self._asked.get(name, "")))
            self._asked[name] = owed[-1].job_id if len(owed) == BATCH else ""
            for job in owed:
                settled += name in self.backends and await self._forget(
                    job, self.backends[name], job.updated_at
                )
        for debt in await self.records.transact(self._due_debts):
            settled += await self._ask_again(debt)
        return settled

    def _due_debts(self, tx: Transaction) -> list[Debt]:
        now = self.clock.now()
        return tx.find(
            Debt, equal={"kind": FORGET}, below={"retry_at": now}, order_by=("retry_at", "item"), limit=BATCH
        )

    async def _ask_again(self, debt: Debt) -> bool:
        """Ask a backend to forget a job of a subject who is erased, and log how that ends."""
        name, _, pseudonym = debt.item.rpartition("/")
        try:
            if name not in self.backends:
                raise BackendUnavailable(detail="not_configured")
            await self.backends[name].forget(pseudonym)
        except LetheError as fault:
            if self._is_lapsed(name, debt.since):
                await self.records.transact(partial(self._strike, debt=debt, how="lapsed"))
                return True
            given_up = partial(self._log_forgotten, how="given_up")
            await self.debts.failed(FORGET, debt.item, fault.code, debt.tenant, given_up)
            return False
        await self.records.transact(partial(self._strike, debt=debt, how="confirmed"))
        return True

    def _is_lapsed(self, backend: str, ended_at: datetime) -> bool:
        """Tell whether a backend that cannot be told to forget keeps nothing any more, by its contract."""
        facts = self.known().get(backend)
        if facts is None or facts.supports_forget or not facts.is_contracted:
            return False
        term = timedelta(seconds=max(facts.retention_s, facts.output_retention_s))
        return ended_at + term <= self.clock.now()

    def _strike(self, tx: Transaction, debt: Debt, how: str) -> None:
        standing = tx.get(Debt, FORGET, debt.item)
        if standing is not None:
            tx.remove(standing)
            self._log_forgotten(tx, replace(standing, tries=standing.tries + 1), how)

    def _log_forgotten(self, tx: Transaction, debt: Debt, how: str) -> None:
        bak = backend_id(debt.item.rpartition("/")[0])
        self.ledger.record(
            tx, debt.tenant, "forget.ended", None, dsr=debt.about or None, bak=bak, how=how, ntry=debt.tries
        )

    def _claim(self, tx: Transaction, owner: str) -> Job | None:
        """Lease the oldest job that waits or whose worker died, or end it where that happened too often."""
        now = self.clock.now()
        ready = self._ready(tx, now)
        if not ready:
            return None
        stored = tx.get(StoredObject, ready[0].input_object)
        is_transient = stored is not None and stored.state == "transient"
        if is_transient and not self._is_here(ready[0]):
            return self._close(tx, ready[0], "failed", InputLost.reason, "")
        if self._is_restricted(tx, ready[0]) and not is_transient:
            parked = replace(
                ready[0],
                state="queued",
                stage="restricted",
                lease_owner="",
                lease_until=now + PARKED,
                updated_at=now,
            )
            tx.put(parked)
            return parked
        if ready[0].attempt >= self.limits.attempts:
            return self._close(tx, ready[0], "failed", BackendUnavailable.reason, "attempts_exhausted")
        job = replace(
            ready[0],
            state="running",
            stage="dispatched",
            attempt=ready[0].attempt + 1,
            lease_owner=owner,
            lease_until=now + self.limits.lease,
            updated_at=now,
        )
        tx.put(job)
        return job

    def _ready(self, tx: Transaction, now: datetime) -> list[Job]:
        """Return the job to take up next, if there is one.

        What waits in this process comes first, for nobody else can do it; then what was put back
        or lost its worker; what rests until later is no hindrance.
        """
        here = self.transients.jobs
        by_age = ("created_at", "job_id")
        return (
            (
                here
                and tx.find(Job, equal={"state": "queued"}, among={"job_id": here}, order_by=by_age, limit=1)
            )
            or tx.find(
                Job,
                among={"state": ["queued", "running"]},
                below={"lease_until": now},
                order_by=("lease_until", "job_id"),
                limit=1,
            )
            or tx.find(Job, equal={"state": "queued", "lease_until": None}, order_by=by_age, limit=1)
        )

    def _is_here(self, job: Job) -> bool:
        """Tell whether the job's picture is in this memory, and was not sent yet."""
        return job.state == "queued" and job.job_id in self.transients.jobs

    @staticmethod
    def _is_restricted(tx: Transaction, job: Job) -> bool:
        """Tell whether nothing but storage is permitted; then not even the picture is opened."""
        subject = tx.get(Subject, job.tenant, job.handle)
        return subject is not None and subject.state == "restricted" and not job.is_cancel_requested

    async def _work(self, job: Job) -> None:
        keeping = asyncio.create_task(self._keep_lease(job))
        try:
            await self._work_on(job)
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def _keep_lease(self, job: Job) -> None:
        """Keep the lease while there is anything to do for the job, forgetting and sealing included."""
        while True:
            await asyncio.sleep(self.limits.lease.total_seconds() / 3)
            # With the records down the lease runs out by itself, as it should.
            with contextlib.suppress(StoreUnavailable):
                await self.records.transact(lambda tx: self._renew_lease(tx, job))

    def _renew_lease(self, tx: Transaction, job: Job) -> None:
        standing = tx.get(Job, job.job_id)
        if standing is not None and standing.lease_owner == job.lease_owner and standing.state == "running":
            tx.put(replace(standing, lease_until=self.clock.now() + self.limits.lease))

    async def _work_on(self, job: Job) -> None:
        is_transient = job.job_id in self.transients.jobs
        try:
            sent, result = await self._infer(job)
            await self._finish(job, result, is_transient=sent.is_transient)
        except asyncio.CancelledError:
            # We are shutting down: the lease runs out and another worker goes on.
            raise
        except _TakenOver:
            return
        except _Parked:
            if is_transient:
                # Nothing of it is stored that could rest until the restriction is lifted.
                await self._end(job, "cancelled", JobCancelled.reason, "deny_restricted")
            else:
                await self._put_back(job, PARKED, is_attempt=False)
        except _Denied as denied:
            await self._end(job, "cancelled", JobCancelled.reason, denied.detail, denied)
        except JobCancelled as cancelled:
            await self._end(job, "cancelled", cancelled.code, cancelled.detail)
        except _MAY_PASS as trouble:
            if job.attempt >= self.limits.attempts or is_transient:
                await self._end(job, "failed", trouble.code, trouble.detail)
            else:
                await self._put_back(job, _pause(job, trouble))
        except LetheError as refusal:
            await self._end(job, "failed", refusal.code, refusal.detail)
        except Exception:
            # A fault that nobody foresaw must not send the portrait again and again.
            await self._end(job, "failed", "INTERNAL", "")
            raise

    async def _infer(self, job: Job) -> tuple[_Input, Result]:
        """Return what was sent, and what came back; a cancellation or a withdrawal stops it within a poll."""
        backend = self.backends.get(job.backend)
        if backend is None:
            raise BackendUnavailable
        picture = await self._open_input(job)
        watch = asyncio.create_task(self._watch(job))
        talk = asyncio.create_task(self._talk(job, backend, picture))
        try:
            await asyncio.wait({watch, talk}, return_when=asyncio.FIRST_COMPLETED)
            if talk.done():
                return picture, talk.result()
            watch.result()
            raise JobCancelled
        finally:
            for task in (watch, talk):
                task.cancel()
            await asyncio.gather(watch, talk, return_exceptions=True)
            # Before the job's end is recorded: an erasure waits for that.
            await self._let_go(job, backend)

    async def _let_go(self, job: Job, backend: Inference) -> None:
        """Have the backend stop and forget, unless the job goes on there for another worker."""
        with contextlib.suppress(LetheError):
            standing = await self.records.transact(lambda tx: tx.get(Job, job.job_id))
            if standing is None or standing.lease_owner == job.lease_owner:
                await backend.cancel(job.backend_job)
                await self._forget(job, backend)

    async def _forget(self, job: Job, backend: Inference, ended_at: datetime | None = None) -> bool:
        """Have the backend drop what it keeps of the job; what fails stays owed and is tried again.

        One that cannot be told to owes nothing any more once the term of its contract is over,
        counted from the job's end, where the job has ended.
        """
        try:
            await backend.forget(job.backend_job)
        except LetheError:
            if ended_at is None or not self._is_lapsed(job.backend, ended_at):
                return False
        try:
            await self.records.transact(partial(_note_forgotten, job=job))
        except LetheError:
            return False
        return True

    async def _open_input(self, job: Job) -> _Input:
        """Return the picture to send, once everything permits it and the log says so."""

        def locate(tx: Transaction) -> StoredObject:
            standing = self._standing(tx, job)
            stored = tx.get(StoredObject, standing.input_object)
            if stored is None or stored.state not in {"live", "transient"}:
                raise InputLost
            return stored

        stored = await self.records.transact(locate)
        case, facts = await self._case(job)
        is_transient = stored.state == "transient"
        image = self.transients.open(stored.object_id) if is_transient else await self.safe.open(stored)
        if image is None:
            raise InputLost
        prompt = (
            self.transients.open_prompt(stored.object_id)
            if is_transient
            else await self.safe.open_prompt(stored)
        )
        _need_size(facts, stored, image)
        sent = ("original", *(("prompt",) if prompt else ()))
        key: PayloadKey | None = None
        with contextlib.suppress(SubjectBlocked):  # the dispatch itself finds the same, and stops the job
            key = await self.people.payload_key(job.tenant, job.handle)
        await self.records.transact(
            partial(self._dispatch, job=job, case=case, facts=facts, sent=sent, key=key)
        )
        return _Input(image, stored.image_type, prompt, is_transient)

    def _facts(self, job: Job) -> BackendFacts:
        facts = self.known().get(job.backend)
        if facts is None:
            raise BackendUnavailable
        return facts

    async def _case(self, job: Job) -> tuple[Case, BackendFacts]:
        """Return the question to policy as it stands now, and what now holds of the backend."""
        facts = self._facts(job)
        contract.refuse_unfit(facts, self.limits.max_backend_retention_s)
        subject = await self.records.transact(lambda tx: tx.get(Subject, job.tenant, job.handle))
        if subject is None or subject.state == "blocked":
            raise JobCancelled(detail="subject_blocked")
        profile = await self.people.open_profile(subject)
        case = Case(
            profile,
            job.purpose,
            self.clock.now(),
            is_uploader=job.is_uploader,
            template_extracted=facts.template_extracted,
        )
        return case, facts

    def _dispatch(
        self,
        tx: Transaction,
        job: Job,
        case: Case,
        facts: BackendFacts,
        sent: Sequence[str],
        key: PayloadKey | None,
    ) -> None:
        """Permit the dispatch to this backend, log that and why; from here it owes us that it forgets.

        Raises:
            ResidencyNoTarget: It runs, by now, where the person's laws do not let the picture go.
        """
        standing = self._standing(tx, job)
        verdict = self._permitted(tx, job, case)
        self.judge.need_target(tx, job.tenant, job.handle, case, facts)
        subject = tx.get(Subject, job.tenant, job.handle)
        if subject is not None:
            self.judge.record(tx, None, subject, verdict, key, job.job_id)
        tx.put(replace(standing, is_forget_owed=True))
        self.ledger.record(
            tx,
            job.tenant,
            "job.dispatched",
            None,
            job=job.job_id,
            bak=backend_id(job.backend),
            land=facts.region,
            ctr=contract.digest(facts),
            sent=[*sent, *(("subject_pseudonym",) if job.backend in self.subject_spans else ())],
        )

    def _permitted(self, tx: Transaction, job: Job, case: Case) -> Verdict:
        """Return the verdict that permits to go on.

        Raises:
            _Parked: Processing is restricted: storage alone goes on.
            _Denied: Policy does not permit it any more.
            JobCancelled: The subject is being erased.
        PolicyDenied: The result would have to carry a mark that nobody puts on.
        """
        try:
            verdict = self.judge.decide(tx, job.tenant, job.handle, case)
        except (SubjectBlocked, SubjectUnknown):
            raise JobCancelled(detail="subject_blocked") from None
        if verdict.code == "DENY_RESTRICTED":
            raise _Parked
        if not verdict.allowed:
            raise _Denied(verdict)
        self.marks.need(verdict)
        return verdict

    async def _talk(self, job: Job, backend: Inference, picture: _Input) -> Result:
        # Closed at once when this is cancelled: an open call would keep the picture at the backend.
        talking = backend.generate(
            job.backend_job,
            job.style,
            picture.image,
            picture.image_type,
            prompt=picture.prompt,
            subject_pseudonym=await self._subject_pseudonym(job),
        )
        async with contextlib.aclosing(talking) as messages:
            async for message in _unless_cancelled(messages):
                if isinstance(message, Result):
                    return message
                await self.records.transact(partial(self._note_progress, job=job, progress=message))
                self.bell.ring(job.job_id)
        raise BackendProtocol("the backend ended without a result")

    async def _subject_pseudonym(self, job: Job) -> str:
        """Return under what the backend may know the subject; empty, unless the operator wants that.

        Keyed, made for this backend and this span of days: no two backends share it, and
        none can tell who it was before.  A job tried again has the one it had.
        """
        span = self.subject_spans.get(job.backend)
        if span is None:
            return ""
        count = int(job.created_at.timestamp() // span.total_seconds())
        said = prefixed(job.backend.encode(), job.handle.encode(), str(count).encode())
        return (await self.people.keys.mac(job.tenant, "backend_subject", said))[:16].hex()

    def _note_progress(self, tx: Transaction, job: Job, progress: Progress) -> None:
        standing = self._standing(tx, job)
        now = self.clock.now()
        tx.put(
            replace(
                standing,
                percent=max(standing.percent, min(progress.percent, 99)),
                stage=progress.stage,
                lease_until=now + self.limits.lease,
                updated_at=now,
            )
        )

    async def _watch(self, job: Job) -> None:
        """Return, by raising, as soon as the job must stop; renew the lease meanwhile."""
        while True:
            await asyncio.sleep(self.limits.poll_s)
            await self.records.transact(lambda tx: self._renew(tx, job))

    def _renew(self, tx: Transaction, job: Job) -> None:
        standing = self._standing(tx, job)
        subject = tx.get(Subject, job.tenant, job.handle)
        if subject is None or subject.state == "blocked":
            raise JobCancelled(detail="subject_blocked")
        if subject.state == "restricted":
            raise _Parked
        now = self.clock.now()
        if standing.lease_until is None or standing.lease_until - now < self.limits.lease / 2:
            tx.put(replace(standing, lease_until=now + self.limits.lease))

    def _standing(self, tx: Transaction, job: Job) -> Job:
        """Return the job as it stands, if it is still ours to work on.

        Raises:
            JobCancelled: It was cancelled or erased.
            _TakenOver: It belongs to another worker now.
        """
        standing = tx.get(Job, job.job_id)
        if standing is None:
            raise JobCancelled(detail="subject_blocked")
        if standing.lease_owner != job.lease_owner or standing.state != "running":
            raise _TakenOver
        if standing.is_cancel_requested:
            raise JobCancelled(detail=standing.detail or "caller")
        return standing

    async def _finish(self, job: Job, result: Result, *, is_transient: bool) -> None:
        """Scrub, mark and seal the result; in one commit keep it and destroy the original's key.

        Policy is asked before anything looks at it: what comes late is dropped unread.
        A transient one is not sealed: it waits in memory for the call that made the job.
        """
        case, facts = await self._case(job)
        now = case.at

        def permit(tx: Transaction) -> tuple[Verdict, datetime]:
            self._standing(tx, job)
            verdict = self._permitted(tx, job, case)
            return verdict, self.judge.term(verdict, "output", now, self.limits.output_ttl)

        _, expires_at = await self.records.transact(permit)
        clean = await self._scrub_output(result)
        # After this nothing touches the picture any more: a mark is over every byte.
        marked = await self.marks.put(clean.data, clean.format, facts.source)
        image = clean.data if marked is None else marked.image
        draft = Draft(
            tenant=job.tenant,
            handle=job.handle,
            job_id=job.job_id,
            kind="output",
            purpose=job.purpose,
            image_type=clean.format,
            width=clean.width,
            height=clean.height,
            image=image,
            expires_at=expires_at,
        )
        if is_transient:
            sealed = transient(draft, self.random(16).hex(), now, self.limits.transient_ttl)
            self.transients.put(sealed, image)
        else:
            sealed = await self.safe.seal(draft)

        def commit(tx: Transaction) -> None:
            standing = self._standing(tx, job)
            # Another consent may have taken the place of the first, with another end.
            verdict, ends = permit(tx)
            demand = self.marks.need(verdict, is_marked=marked is not None)
            stored = replace(sealed, expires_at=min(sealed.expires_at, ends))
            tx.add(stored)
            tx.put(
                replace(
                    standing,
                    state="succeeded",
                    stage="done",
                    percent=100,
                    result_object=stored.object_id,
                    lease_owner="",
                    lease_until=None,
                    updated_at=now,
                    expires_at=stored.expires_at,
                )
            )
            log_object(tx, self.ledger, None, stored, clean)
            if marked is not None:
                self.ledger.record(
                    tx,
                    job.tenant,
                    "image.marked",
                    None,
                    obj=stored.object_id,
                    cert=marked.certificate,
                    src=facts.source,
                )
            self.ledger.record(
                tx,
                job.tenant,
                "job.succeeded",
                None,
                job=job.job_id,
                bak=backend_id(job.backend),
                obj=stored.object_id,
                dig=result.model_digest or None,
                mark=demand.layers or None,
                lack=demand.waived or None,
            )
            self._destroy_input(tx, standing, "job_done")

        try:
            await self.records.transact(commit)
        except (LetheError, _Stopped):
            self.transients.drop(sealed.object_id)
            if not is_transient:
                await discard_unkept(self.records, self.objects, sealed)
            raise
        self.transients.record(sealed.object_id)
        self.bell.ring(job.job_id)
        await self._reap_input(job)

    async def _scrub_output(self, result: Result) -> deidentify.Scrubbed:
        """Strip the backend's output too: servers write prompts and workflows into metadata."""
        try:
            return await self.scrubber.scrub(result.image)
        except deidentify.Rejected as rejected:
            raise BackendProtocol("the backend's picture is refused", detail=rejected.detail) from rejected
        except deidentify.ScrubberUnavailable as error:
            raise ScrubberUnavailable from error

    async def _end(self, job: Job, state: str, code: str, detail: str, denied: _Denied | None = None) -> None:
        """Record the end of a job that gave no result, and destroy its original."""
        key: PayloadKey | None = None
        if denied is not None:
            # An erasure that has begun gets its subject no key any more: then the codes must do.
            with contextlib.suppress(SubjectBlocked):
                key = await self.people.payload_key(job.tenant, job.handle)

        def commit(tx: Transaction) -> None:
            standing = tx.get(Job, job.job_id)
            if standing is None or standing.lease_owner != job.lease_owner or standing.state != "running":
                return
            subject = tx.get(Subject, job.tenant, job.handle)
            if denied is not None and subject is not None:
                self.judge.record(tx, None, subject, denied.verdict, key, job.job_id)
            self._close(tx, standing, state, code, detail)

        await self.records.transact(commit)
        self.bell.ring(job.job_id)
        await self._reap_input(job)

    def _close(self, tx: Transaction, job: Job, state: str, code: str, detail: str) -> Job:
        """End a job without a result, inside `tx`, and return it as it is then."""
        ended = replace(
            job,
            state=state,
            stage="done",
            reason=code,
            detail=detail,
            lease_owner="",
            lease_until=None,
            updated_at=self.clock.now(),
        )
        tx.put(ended)
        if state == "cancelled":
            self.ledger.record(tx, job.tenant, "job.cancelled", None, job=job.job_id, why=_why(detail))
        else:
            self.ledger.record(
                tx,
                job.tenant,
                "job.failed",
                None,
                job=job.job_id,
                rc=code,
                bak=backend_id(job.backend),
                det=detail or None,
            )
        why = "cancelled" if state == "cancelled" else "job_done"
        self._destroy_input(tx, job, "lost" if code == InputLost.reason else why)
        return ended

    async def _put_back(self, job: Job, pause: timedelta, *, is_attempt: bool = True) -> None:
        """Let the job be tried again after a pause."""

        def commit(tx: Transaction) -> None:
            standing = tx.get(Job, job.job_id)
            if (
                standing is not None
                and standing.lease_owner == job.lease_owner
                and standing.state == "running"
            ):
                tx.put(
                    replace(
                        standing,
                        state="queued",
                        stage="retrying" if is_attempt else "restricted",
                        attempt=standing.attempt if is_attempt else standing.attempt - 1,
                        lease_until=self.clock.now() + pause,
                    )
                )

        # With the records down nothing can be put back; the lease then runs out by itself.
        with contextlib.suppress(StoreUnavailable):
            await self.records.transact(commit)

    def _destroy_input(self, tx: Transaction, job: Job, why: str) -> None:
        stored = tx.get(StoredObject, job.input_object)
        if stored is not None:
            destroy_object(tx, self.ledger, stored, why)

    async def _reap_input(self, job: Job) -> None:
        """Key first, then bytes: the key died in the commit; a failure here is the sweeper's."""
        self.transients.drop(job.input_object)
        await reap(self.records, self.objects, job.input_object)


class _Stopped(Exception):
    """Work on a job stops, for a reason that the worker knows what to do about."""


class _Parked(_Stopped):
    """Processing is restricted (GDPR Art. 18); the job waits, and ends with its original's term."""


class _TakenOver(_Stopped):
    """The lease ran out and the job belongs to another worker."""


class _Denied(_Stopped):
    """Policy does not permit the job any more."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__()
        self.verdict = verdict
        is_withdrawn = verdict.code == "DENY_CONSENT_WITHDRAWN"
        self.detail = "consent_withdrawn" if is_withdrawn else verdict.code.lower()


def _pause(job: Job, trouble: LetheError) -> timedelta:
    """Return for how long a job rests: longer at every attempt, and as a busy backend asks, in bounds."""
    own = min(30.0, 0.25 * 2**job.attempt)
    return timedelta(seconds=max(own, min(float(trouble.metadata.get("retry_after_s", "0")), 300.0)))


def _why(detail: str) -> str:
    if detail.startswith("deny_"):
        return "denied"
    return {"consent_withdrawn": "withdrawn", "subject_blocked": "erasure"}.get(detail, "cancelled")


async def _unless_cancelled(messages: AsyncIterator[Progress | Result]) -> AsyncIterator[Progress | Result]:
    """Yield the messages; a backend that cancels of its own accord is one that failed us.

    Raises:
        BackendUnavailable: It said that the job was cancelled, which nobody asked for.
    """
    try:
        async for message in messages:
            yield message
    except JobCancelled as error:
        raise BackendUnavailable(detail="cut_off") from error


def _need_size(facts: BackendFacts, stored: StoredObject, image: bytes) -> None:
    """Refuse a picture that is larger than the backend takes; then nothing of it is sent.

    Raises:
        ImageRejected: In bytes (detail `too_large`), or in pixels (`too_many_pixels`).
    """
    if facts.max_image_bytes and len(image) > facts.max_image_bytes:
        raise ImageRejected(detail="too_large")
    if facts.max_pixels and stored.width * stored.height > facts.max_pixels:
        raise ImageRejected(detail="too_many_pixels")


def _owed(tx: Transaction, backend: str, after: str) -> list[Job]:
    """Return some jobs that have ended and of which the backend has not confirmed that it forgot them.

    Those behind the job `after`: such as it never confirms must not hide the others.
    """
    return tx.find(
        Job,
        equal={"is_forget_owed": True, "backend": backend},
        among={"state": ("succeeded", "failed", "cancelled", "expired")},
        above={"job_id": after},
        order_by=("job_id",),
        limit=BATCH,
    )


def _note_forgotten(tx: Transaction, job: Job) -> None:
    """Note it for the dispatch that was forgotten, and not for a later one."""
    standing = tx.get(Job, job.job_id)
    if standing is not None and standing.is_forget_owed and standing.attempt == job.attempt:
        tx.put(replace(standing, is_forget_owed=False))
