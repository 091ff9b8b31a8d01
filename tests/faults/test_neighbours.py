"""The processes beside the gateway are killed with `kill -9`: its backend, and its scrubber's worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from lethe.v1 import generation_pb2

from gateway.admin.folder import Layout
from gateway.client import Refused
from gateway.deidentify.faces.pool import COMMAND
from gateway.ports.records import Job, StoredObject
from tests import invariants
from tests.doors import When, around
from tests.gateway import (
    PORTRAIT,
    Gateway,
    add_subject,
    consent,
    finished,
    header,
    make_folder,
    publish_notice,
    running,
)

PATIENCE_S = 60.0
WORKER = COMMAND[-1].encode()


@contextlib.asynccontextmanager
async def backend(layout: Layout, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the fake backend as a process until the block ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.backend", layout.root, *options, stdout=asyncio.subprocess.PIPE
    )
    try:
        await said(process, b"up")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        process._transport.close()  # else its pipe is closed when the loop is no more


async def said(process: asyncio.subprocess.Process, word: bytes) -> None:
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        assert await process.stdout.readline() == word + b"\n"


async def ready(gateway: Gateway) -> None:
    async with gateway.client("app") as app, gateway.client("officer") as officer:
        await publish_notice(officer)
        await add_subject(app, "ann")
        await consent(app, "ann")


async def holds(gateway: Gateway) -> None:
    """INVARIANT: effects and leaves belong together, and no byte is left without its row."""

    async def look() -> tuple[invariants.Rows, set[str]]:
        rows = await gateway.outside.records.transact(invariants.everything)
        return rows, {path.name for path in gateway.layout.objects.glob("??/??/*")}

    rows, files = await look()
    for _ in range(100):  # the bytes of an original follow the commit that ended it
        if files == {row.object_id for row in rows[StoredObject] if row.state == "live"}:
            break
        await asyncio.sleep(0.05)
        rows, files = await look()
    invariants.check(rows)
    invariants.check_bytes(rows, files)
    assert list((gateway.layout.objects / "tmp").iterdir()) == []


async def test_a_backend_killed_in_the_middle_of_a_picture_gets_it_again_when_back(
    tmp_path: Path,
) -> None:
    layout = make_folder(tmp_path / "dev", jobs={"attempts": 50})
    async with backend(layout, "--hold") as first, running(layout, is_backend_real=True) as gateway:
        await ready(gateway)
        async with gateway.client("app", PATIENCE_S) as app:
            job = (await app.create_job(header("ann"), PORTRAIT.read_bytes())).job.name
            await said(first, b"held")
            (row,) = await gateway.rows(Job)
            first.send_signal(signal.SIGKILL)
            async with asyncio.timeout(PATIENCE_S), backend(layout):
                ended = await finished(app, job)
            assert ended.state == generation_pb2.Job.STATE_SUCCEEDED
            (after,) = await gateway.rows(Job)
            assert after.attempt > row.attempt
            assert after.backend_job == row.backend_job  # the same pseudonym
        await holds(gateway)


class Asked:
    """Waits at the door of whoever sees to faces."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    def __call__(self, point: str, when: When, *, wrote: bool) -> None:
        if (point, when) == ("faces.deidentify", "before"):
            self.event.set()


async def test_a_worker_killed_in_the_middle_of_a_picture_is_replaced_and_the_upload_goes_on(
    tmp_path: Path,
) -> None:
    asked = Asked()
    async with running(
        make_folder(tmp_path / "dev"), wrap=lambda o: around(o, asked), are_faces_real=True
    ) as gateway:
        await ready(gateway)
        async with gateway.client("app", PATIENCE_S) as app, asyncio.timeout(PATIENCE_S):
            worker = await another_worker(0)
            os.kill(worker, signal.SIGSTOP)
            uploading = asyncio.create_task(app.create_job(header("ann"), PORTRAIT.read_bytes()))
            await asked.event.wait()
            os.kill(worker, signal.SIGKILL)
            job = (await uploading).job.name
            assert (await finished(app, job)).state == generation_pb2.Job.STATE_SUCCEEDED
        await holds(gateway)


async def test_a_picture_of_which_workers_die_is_refused_and_nothing_is_left(
    tmp_path: Path,
) -> None:
    asked = Asked()
    async with running(
        make_folder(tmp_path / "dev"), wrap=lambda o: around(o, asked), are_faces_real=True
    ) as gateway:
        await ready(gateway)
        async with gateway.client("app", PATIENCE_S) as app, asyncio.timeout(PATIENCE_S):
            worker = await another_worker(0)
            os.kill(worker, signal.SIGSTOP)
            # The client repeats what was UNAVAILABLE; one attempt is looked at here.
            uploading = asyncio.create_task(app.create_job(header("ann"), PORTRAIT.read_bytes()))
            await asked.event.wait()
            while not uploading.done():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
                worker = await another_worker(worker, unless=uploading)
            with pytest.raises(Refused) as refused:
                await uploading
            assert refused.value.reason == "SCRUBBER_UNAVAILABLE"
        assert await gateway.rows(StoredObject) == await gateway.rows(Job) == []
        assert {leaf["rc"] for leaf in await gateway.leaves("upload.refused")} == {"SCRUBBER_UNAVAILABLE"}
        await holds(gateway)


def workers() -> list[int]:
    """Return the living workers of this process that see to faces."""
    found = []
    for pid in map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state not in {"Z", "X"} and WORKER in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


async def another_worker(than: int, unless: asyncio.Task[object] | None = None) -> int:
    """Return the pid of a worker other than `than`, as soon as there is one."""
    while not (others := [pid for pid in workers() if pid != than]):
        if unless is not None and unless.done():
            return than
        await asyncio.sleep(0.005)
    return others[0]
