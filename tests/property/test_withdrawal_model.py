"""The race of withdraw, dispatch and complete, through the real flows under a deterministic scheduler.

The specification, of every interleaving:
    (1) No backend call begins once a withdrawal is answered.
    (2) No result is released once a withdrawal is in the log, and none to whoever asks after its answer.
    (3) In the end nothing of the purpose is left: every job has ended, every picture is destroyed.

`LETHE_INTERLEAVINGS` says how many there are, and `LETHE_SEED` where they begin.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import pytest

from gateway.adapters.sql.records import open_records
from gateway.adapters.sql.schema import migrate
from gateway.errors import LetheError
from gateway.flows.consent import Consents
from gateway.flows.release import Release
from gateway.ports.inference import Progress, Result
from gateway.ports.objects import ObjectStore
from gateway.ports.records import Job, Leaf, Records, StoredObject, Transaction
from tests.fakes.inference import FakeInference
from tests.schedule import Loop
from tests.world import APP, PORTRAIT, TENANT, World, order

T = TypeVar("T")
MANY = int(os.environ.get("LETHE_INTERLEAVINGS", "200"))
ON_EACH_DATABASE = max(10, MANY // 10)
SEED = int(os.environ.get("LETHE_SEED", "1"))


@dataclass
class Noted:
    """What happened, in the order in which it became effective."""

    events: list[str] = field(default_factory=list)
    answered: bool = False
    faults: list[str] = field(default_factory=list)

    def commit(self, leaves: list[Leaf]) -> None:
        self.events += [leaf.ty for leaf in leaves]


class _Spy:
    """A transaction that notes the leaves which are added."""

    def __init__(self, inner: Transaction) -> None:
        self.inner = inner
        self.leaves: list[Leaf] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def add(self, *rows: Any) -> None:
        self.leaves += [row for row in rows if isinstance(row, Leaf)]
        self.inner.add(*rows)


class ParkedRecords:
    """The records, at whose door everybody parks."""

    def __init__(self, inner: Records, loop: Loop, noted: Noted) -> None:
        self.inner, self.loop, self.noted = inner, loop, noted

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def transact(self, work: Callable[[Transaction], T]) -> T:
        return await self.loop.door(lambda: self._transact(work))

    async def _transact(self, work: Callable[[Transaction], T]) -> T:
        spies: list[_Spy] = []

        def watched(tx: Transaction) -> T:
            spies.append(_Spy(tx))
            return work(spies[-1])  # type: ignore[arg-type]  # as good as the transaction it wraps

        result = await self.inner.transact(watched)
        self.noted.commit(spies[-1].leaves)
        return result


class ParkedObjects:
    """The objects, at whose door everybody parks when something is written."""

    def __init__(self, inner: ObjectStore, loop: Loop) -> None:
        self.inner, self.loop = inner, loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def put(self, object_id: str, chunks: Any) -> None:
        await self.loop.door(lambda: self.inner.put(object_id, chunks))

    async def delete(self, object_id: str) -> None:
        await self.loop.door(lambda: self.inner.delete(object_id))


class ParkedInference:
    """The backend: a call takes a while to get there, and each of its messages to come back."""

    def __init__(self, inner: FakeInference, loop: Loop, noted: Noted) -> None:
        self.inner, self.loop, self.noted = inner, loop, noted

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def generate(self, *asked: Any, **more: Any) -> AsyncGenerator[Progress | Result]:
        await self.loop.turn()
        if self.noted.answered:
            self.noted.faults.append("a backend call began after the answer")
        async with aclosing(self.inner.generate(*asked, **more)) as messages:
            async for message in messages:
                yield message
                await self.loop.turn()

    async def cancel(self, job_pseudonym: str) -> None:
        await self.loop.door(lambda: self.inner.cancel(job_pseudonym))

    async def forget(self, job_pseudonym: str) -> None:
        await self.loop.door(lambda: self.inner.forget(job_pseudonym))


@dataclass
class Story:
    """One interleaving: two workers, a controller that waits for the result, and a withdrawal."""

    w: World
    loop: Loop
    noted: Noted
    subject: str

    async def tell(self) -> Noted:
        flows = self.w.flows
        job = (await flows.upload.run(APP, order(self.subject), _once())).job
        tasks = [
            asyncio.create_task(part)
            for part in (self._work(), self._work(), self._collect(job.job_id), self._withdraw(job.job_id))
        ]
        await asyncio.gather(*tasks)
        await self._work()
        await self._check(job)
        return self.noted

    async def _work(self) -> None:
        while await self.w.flows.generate.run_one():
            pass

    async def _withdraw(self, job_id: str) -> None:
        for _ in range(self.loop.chance.randrange(70)):
            await self.loop.turn()
        done = await self.w.flows.consents.withdraw(APP, subject_id=self.subject, purpose="generate")
        self.noted.answered = not done.stopping
        with suppress(LetheError):
            await self.w.flows.release.run(APP, job_id)
            self.noted.faults.append("a result was released to one who asked after the answer")

    async def _collect(self, job_id: str) -> None:
        """Fetch the result as soon as there is one."""
        while (await self.w.flows.jobs.get(APP, job_id)).state in {"queued", "running"}:
            await self.loop.turn()
        with suppress(LetheError):
            released = await self.w.flows.release.run(APP, job_id)
            async for _chunk in released.chunks:
                pass

    async def _check(self, job: Job) -> None:
        end = self.noted.events.index("consent.withdrawn")
        for ty in ("job.dispatched", "job.succeeded", "result.released"):
            if ty in self.noted.events[end:]:
                self.noted.faults.append(f"{ty} after the withdrawal")

        def read(tx: Transaction) -> tuple[Job | None, list[StoredObject]]:
            same = {"tenant": TENANT, "handle": job.handle}
            return tx.get(Job, job.job_id), tx.find(StoredObject, equal=same)

        ended, kept = await self.w.flows.consents.records.transact(read)
        if ended is None or ended.state not in {"cancelled", "succeeded"}:
            self.noted.faults.append("the job has not ended")
        if any(stored.state == "live" for stored in kept):
            self.noted.faults.append("a picture is left")


async def _once() -> AsyncIterator[bytes]:
    yield PORTRAIT


class Theatre:
    """Tells story after story: each over memory of its own, or all over one database."""

    def __init__(self, url: str = "") -> None:
        self.loop = Loop()
        self.records = open_records(url) if url else None

    def __enter__(self) -> Self:
        asyncio.set_event_loop(self.loop)
        return self

    def __exit__(self, *_: object) -> None:
        if self.records is not None:
            self.loop.run_until_complete(self.loop.aside(self.records.close()))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        self.loop.close()

    def tell(self, seed: int) -> Noted:
        """Tell one story from its beginning."""
        loop, noted, w = self.loop, Noted(), World()
        w.outside = replace(
            w.outside,
            records=ParkedRecords(self.records or w.records, loop, noted),
            objects=ParkedObjects(w.objects, loop),
            backends={"studio": ParkedInference(w.backend, loop, noted)},
        )
        w.flows = w.process()
        subject = f"subject-{seed}"

        async def whole() -> Noted:
            await w.publish("generate")
            await w.know(subject)
            await w.consent(subject)
            noted.events.clear()
            return await Story(w, loop, noted, subject).tell()

        loop.chance.seed(seed)
        return loop.run_until_complete(whole())


def is_noticed(fault: str) -> bool:
    """Return whether some story comes to a fault."""
    with Theatre() as theatre:
        return any(fault in theatre.tell(seed).faults for seed in range(SEED, SEED + 500))


def test_no_interleaving_breaks_a_withdrawal() -> None:
    """GDPR Art. 7(3)."""
    reached: Counter[str] = Counter()
    with Theatre() as theatre:
        for seed in range(SEED, SEED + MANY):
            noted = theatre.tell(seed)
            assert noted.faults == [], f"LETHE_SEED={seed} LETHE_INTERLEAVINGS=1"
            reached.update(set(noted.events[: noted.events.index("consent.withdrawn")]))
    # The dice reach every stage: before the dispatch, while it runs, once it is done and given out.
    if MANY >= 100:
        assert {"job.created", "job.dispatched", "job.succeeded", "result.released"} <= reached.keys()
        assert all(reached[ty] > MANY // 50 for ty in ("job.dispatched", "result.released"))
        assert reached["job.dispatched"] < MANY


def test_the_same_seed_tells_the_same_story() -> None:
    with Theatre() as theatre:
        assert theatre.tell(SEED).events == theatre.tell(SEED).events


def test_the_model_notices_when_policy_is_not_asked_again_at_the_release() -> None:
    """A seeded fault: the release is logged on the strength of the first answer."""

    def forgetful(self: Release, tx: Transaction, caller: Any, job_id: str, *_asked: Any) -> None:
        self.ledger.record(tx, caller.tenant, "result.released", caller, job=job_id, obj="0" * 32)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Release, "_log", forgetful)
        assert is_noticed("result.released after the withdrawal")


def test_the_model_notices_when_a_withdrawal_does_not_wait_for_workers() -> None:
    """A seeded fault: it is answered while a permitted dispatch is on its way."""

    async def hasty(_self: Consents, _job_ids: Any) -> tuple[str, ...]:
        return ()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Consents, "_until_stopped", hasty)
        assert is_noticed("a backend call began after the answer")


# --- on real databases -----------------------------------------------------------------------


def _elsewhere(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        made = f"sqlite://{tmp_path / 'lethe.db'}"
        _elsewhere(migrate(made))
        return made
    made = _elsewhere(request.getfixturevalue("postgres").create("withdrawals"))
    _elsewhere(migrate(made))
    return made


def test_no_interleaving_breaks_a_withdrawal_on_a_database(url: str) -> None:
    with Theatre(url) as theatre:
        for seed in range(SEED, SEED + ON_EACH_DATABASE):
            noted = theatre.tell(seed)
            assert noted.faults == [], f"LETHE_SEED={seed} LETHE_INTERLEAVINGS=10"
