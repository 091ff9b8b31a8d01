from __future__ import annotations

import asyncio

from lethe.v1 import generation_pb2

from gateway.bell import Bell
from tests.gateway import (
    PORTRAIT,
    add_subject,
    consent,
    finished,
    header,
    make_folder,
    publish_notice,
    running,
)

NEVER_S = 3600.0


async def test_a_ring_while_the_owner_was_busy_is_heard_at_the_next_wait():
    bell = Bell()
    with bell.listen("job") as ear:
        bell.ring("job")
        async with asyncio.timeout(5):
            await ear.wait(NEVER_S)


async def test_a_ring_for_another_name_is_not_heard_and_waiting_ends_all_the_same():
    bell = Bell()
    with bell.listen("job") as ear:
        bell.ring("another")
        await ear.wait(0.001)
        waiting = asyncio.create_task(ear.wait(NEVER_S))
        await asyncio.sleep(0)
        assert not waiting.done()
        bell.ring("job")
        await waiting


def test_nothing_is_kept_of_a_name_that_nobody_listens_for():
    bell = Bell()
    bell.ring("job")
    with bell.listen("job"):
        pass
    assert not bell._ears


async def test_a_job_runs_to_its_end_without_a_single_poll(tmp_path):
    layout = make_folder(tmp_path / "gateway", jobs={"poll_ms": int(NEVER_S * 1000)})
    async with running(layout) as gateway, gateway.client("app") as app, gateway.client("officer") as officer:
        await publish_notice(officer)
        await add_subject(app, "one")
        await consent(app, "one")
        async with asyncio.timeout(30):
            made = await app.create_job(header("one"), PORTRAIT.read_bytes())
            assert (await finished(app, made.job.name)).state == generation_pb2.Job.STATE_SUCCEEDED
