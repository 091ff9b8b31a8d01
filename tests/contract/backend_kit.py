"""What every adapter to a backend must do: the questions, ready to be asked of yours.

An adapter's author writes a `Bench` (the adapter, and a server of theirs that does as it is told)
and a class:

    class TestMine(BackendContract, StrangerContract):
        @pytest.fixture
        async def bench(self):
            async with my_bench() as bench:
                yield bench

and runs pytest on it.  Nothing else of these tests is needed; docs/how-to/write-a-backend-adapter.md does it.
"""

from __future__ import annotations

import asyncio
import io
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest
from PIL import Image

from gateway.errors import BackendProtocol, BackendUnavailable, ImageRejected, JobCancelled, LetheError
from gateway.ports.inference import BackendFacts, Inference, Progress, Result

PATIENCE_S = 20.0
JOB, OTHER = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
"""Pseudonyms of jobs, as the gateway makes them: 16 bytes in hex."""
CANARY = "CANARY-7714"
"""A server that misbehaves writes this wherever it writes words of its own: they must not be quoted."""

FAULTS: Mapping[str, str] = {
    "unreachable": "nobody listens",
    "deaf": "it takes the order and never answers",
    "cut": "it hangs up in the middle of the picture",
    "half": "its answer ends in the middle",
    "html": "it answers with a page",
    "garbled": "its answer is not of the form that was agreed",
    "endless": "its answer goes on and on",
    "encoded": "its answer is compressed, though nobody asked for that",
    "redirect": "it says to go elsewhere",
    "busy": "it has no time now",
    "broken": "it fails",
    "denied": "it does not know us",
    "other_job": "it answers with the result of another job, or of another model",
    "no_picture": "what it calls a picture is a page",
    "certificate": "its certificate is another's",
}
"""What a server may do wrong, as `Bench.misbehave` is told; beside `oversize`: it takes no such picture."""

_MAY_PASS = frozenset({"deaf", "cut", "half"})


@dataclass
class Bench:
    """The adapter under test, and what can be done to the server behind it.

    `confirms` is whether `forget` can tell that a job is forgotten, `resumes` whether a job that is
    started again while it runs goes on, instead of beginning anew.  `cannot` holds the faults
    that the server cannot have, and `prompt` where nobody sees whether it got one, each with the reason.
    """

    inference: Inference
    name: str
    styles: tuple[str, ...]
    picture: bytes
    picture_type: str = "jpeg"
    confirms: bool = True
    confirms_unknown: bool = True
    resumes: bool = False
    cannot: Mapping[str, str] = field(default_factory=dict)

    def hold(self) -> None:
        """Make the server wait with every picture from now on."""
        raise NotImplementedError

    def release(self) -> None:
        """Let it go on."""
        raise NotImplementedError

    def working(self) -> int:
        """Return how many jobs the server works on now."""
        raise NotImplementedError

    def keeps(self) -> int:
        """Return of how many jobs the server holds anything that shows somebody."""
        return self.working()

    def runs(self) -> int:
        """Return how often the server has begun to work on a picture."""
        raise NotImplementedError

    def seen(self) -> bytes:
        """Return every byte that reached the server."""
        raise NotImplementedError

    async def misbehave(self, fault: str) -> None:
        """Let the server have a fault of `FAULTS` from now on; none where it is empty."""
        raise NotImplementedError


async def collect(
    bench: Bench, job: str = JOB, style: str = "", **more: str
) -> tuple[list[Progress], Result]:
    """Return (progress, result) of a job; the port's own rules are checked on the way."""
    told: list[Progress] = []
    result: Result | None = None
    wanted = style or bench.styles[0]
    async for message in bench.inference.generate(job, wanted, bench.picture, bench.picture_type, **more):
        assert result is None, "something follows the result"
        if isinstance(message, Result):
            result = message
        else:
            told.append(message)
    assert result is not None, "it ended without a result"
    return told, result


async def under_way(bench: Bench, job: str = JOB) -> asyncio.Task[tuple[list[Progress], Result]]:
    """Return a job on which the server works."""
    before = bench.runs()
    started = asyncio.create_task(collect(bench, job))
    await until(lambda: bench.runs() > before or started.done())
    assert not started.done(), "the server was to wait"
    return started


async def until(holds: Callable[[], object]) -> None:
    """Return once `holds` does."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 - a server of the author's has no event of ours
            await asyncio.sleep(0.005)


async def ended(job: asyncio.Task[tuple[list[Progress], Result]]) -> BaseException | Result:
    """Return how a job ended, which it must soon."""
    await asyncio.wait({job}, timeout=PATIENCE_S)
    assert job.done(), "the job goes on"
    return job.exception() or job.result()[1]


def quotes_nobody(refused: LetheError) -> None:
    """Demand that a refusal leads to no word of the server's."""
    assert (refused.__cause__, refused.__context__) == (None, None)
    assert CANARY not in "".join(traceback.format_exception(refused))
    assert CANARY not in repr(vars(refused))


async def forget(bench: Bench, job: str = JOB) -> None:
    """Have a job forgotten, as far as the backend can."""
    if bench.confirms:
        await bench.inference.forget(job)
        return
    with pytest.raises(BackendUnavailable) as refused:
        await bench.inference.forget(job)
    assert refused.value.detail == "forget_unconfirmed"


@pytest.mark.asyncio
class BackendContract:
    """What any backend does, however it is reached."""

    async def test_it_goes_by_the_name_we_gave_it(self, bench: Bench):
        facts = await bench.inference.describe()
        assert isinstance(facts, BackendFacts)
        assert facts.name == bench.name
        assert set(bench.styles) <= set(facts.styles)
        assert facts.retention_s >= 0
        assert len(bytes.fromhex(facts.model_digest)) == 32

    async def test_a_job_tells_progress_and_then_gives_one_real_picture(self, bench: Bench):
        told, result = await collect(bench)
        percents = [step.percent for step in told]
        assert told
        assert percents == sorted(percents)
        assert all(0 <= percent <= 100 for percent in percents)
        assert Image.open(io.BytesIO(result.image)).format.lower() == result.image_type

    async def test_the_result_says_what_made_it_as_the_facts_do(self, bench: Bench):
        facts = await bench.inference.describe()
        _, result = await collect(bench)
        made_by = (result.backend, result.device, result.model_digest)
        assert (facts.name, facts.device, facts.model_digest) == made_by

    async def test_the_same_order_gives_the_same_picture_and_another_style_another(self, bench: Bench):
        first = (await collect(bench))[1].image
        await forget(bench)
        assert first == (await collect(bench))[1].image
        if len(bench.styles) > 1:
            assert first != (await collect(bench, OTHER, bench.styles[1]))[1].image

    async def test_two_jobs_at_once_are_two_jobs(self, bench: Bench):
        styles = (bench.styles[0], bench.styles[-1])
        alone = [
            (await collect(bench, job, style))[1] for job, style in zip((JOB, OTHER), styles, strict=True)
        ]
        for job in (JOB, OTHER):
            await forget(bench, job)
        both = await asyncio.gather(
            *(collect(bench, j, s) for j, s in zip((JOB, OTHER), styles, strict=True))
        )
        assert alone == [result for _, result in both]

    async def test_nothing_is_held_once_a_job_is_over_and_forgotten(self, bench: Bench):
        await collect(bench)
        await forget(bench)
        assert (bench.working(), bench.keeps()) == (0, 0)

    async def test_a_cancelled_job_ends_as_cancelled(self, bench: Bench):
        bench.hold()
        job = await under_way(bench)
        await bench.inference.cancel(JOB)
        assert isinstance(await ended(job), JobCancelled)
        await until(lambda: bench.working() == 0)

    async def test_a_forgotten_job_is_gone_when_forget_returns(self, bench: Bench):
        bench.hold()
        job = await under_way(bench)
        await forget(bench)
        await until(lambda: bench.working() == 0)
        assert bench.keeps() == 0
        assert isinstance(await ended(job), JobCancelled)

    async def test_a_job_may_be_started_again_while_the_first_runs(self, bench: Bench):
        bench.hold()
        first = await under_way(bench)
        second = asyncio.create_task(collect(bench))
        assert isinstance(await ended(first), JobCancelled)
        bench.release()
        assert isinstance(await ended(second), Result)
        assert bench.runs() == (1 if bench.resumes else 2)

    @pytest.mark.parametrize("method", ["cancel", "forget"])
    async def test_a_job_that_is_not_known_is_no_error_however_often(self, bench: Bench, method: str):
        for _ in range(2):
            if method == "cancel":
                await bench.inference.cancel(OTHER)
            elif bench.confirms_unknown:
                await forget(bench, OTHER)
        assert (bench.runs(), bench.working()) == (0, 0)

    async def test_a_caller_that_goes_away_ends_the_job(self, bench: Bench):
        bench.hold()
        job = await under_way(bench)
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)
        await forget(bench)
        await until(lambda: bench.working() == 0)
        assert bench.keeps() == 0

    async def test_a_closed_door_is_an_unavailable_backend(self, bench: Bench):
        await bench.inference.close()
        await bench.inference.close()
        door = bench.inference
        for ask in (door.describe(), door.cancel(JOB), door.forget(JOB), collect(bench)):
            with pytest.raises(BackendUnavailable):
                await ask

    async def test_a_prompt_goes_along_where_prompts_are_taken(self, bench: Bench):
        if "prompt" in bench.cannot:
            pytest.skip(bench.cannot["prompt"])
        if (await bench.inference.describe()).takes_prompts:
            await collect(bench, prompt="soft light")
            assert b"soft light" in bench.seen()


@pytest.mark.asyncio
class StrangerContract:
    """What an adapter does when the server is at fault: refuse, in words of ours, and run nothing twice."""

    @pytest.mark.parametrize("fault", FAULTS)
    async def test_a_fault_is_refused_quotes_nobody_and_runs_nothing_twice(self, bench: Bench, fault: str):
        if fault in bench.cannot:
            pytest.skip(bench.cannot[fault])
        await bench.misbehave(fault)
        refused: LetheError | None = None
        try:
            async with asyncio.timeout(PATIENCE_S):
                await collect(bench)
        except (BackendUnavailable, BackendProtocol) as error:
            refused = error
        # Who finds the job again by its id need not give it up; a lie is always refused.
        assert refused or (fault in _MAY_PASS and bench.resumes)
        await bench.misbehave("")
        if refused is not None:
            assert refused.detail
            quotes_nobody(refused)
        if isinstance(refused, BackendUnavailable):
            # The gateway tries such a job again; after anything else it never does.
            assert await collect(bench)
        assert bench.runs() <= 1

    async def test_a_picture_that_is_too_large_for_it_is_rejected(self, bench: Bench):
        if "oversize" in bench.cannot:
            pytest.skip(bench.cannot["oversize"])
        await bench.misbehave("oversize")
        with pytest.raises(ImageRejected) as refused:
            await collect(bench)
        assert refused.value.detail == "too_large"
        quotes_nobody(refused.value)
