"""fal's queue: the contract of every backend, and what only this one must be asked."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.inference_hosted import FalInference
from gateway.adapters.inference_http import HttpDoor
from gateway.errors import BackendProtocol, BackendUnavailable, JobCancelled
from tests.contract.backend_kit import (
    CANARY,
    JOB,
    BackendContract,
    StrangerContract,
    collect,
    ended,
    quotes_nobody,
    under_way,
    until,
)
from tests.fakes.fal_server import ADMIN, KEY, MODEL, FakeFal
from tests.fakes.http_bench import PLAIN, HttpBench, credential, declared
from tests.fakes.http_server import Said
from tests.fakes.inference import paint

STYLES = {"studio_grey": "Grey backdrop.", "studio_blue": "Blue backdrop."}
PICTURE = paint(b"somebody", "sitting")


def door(folder: Path, url: str, key: str, timeout_s: float) -> HttpDoor:
    (folder / key).mkdir(exist_ok=True)
    return HttpDoor(url, timeout_s=timeout_s, credential=credential(folder / key, key, "Key"))


@contextlib.asynccontextmanager
async def opened(folder: Path, *, timeout_s: float = 6.0, **changes: Any) -> AsyncIterator[HttpBench]:
    server = FakeFal()
    url = await server.start()
    doors = (door(folder, url, KEY, timeout_s), door(folder, f"{url}/v1", ADMIN, timeout_s))
    try:
        facts = declared(supports_forget=True)
        inference = FalInference(*doors, facts, model=MODEL, styles=STYLES, poll_s=0.01, **changes)
        yield HttpBench(
            inference,
            "backend-1",
            tuple(STYLES),
            PICTURE,
            confirms_unknown=False,
            resumes=True,
            cannot=PLAIN,
            server=server,
        )
        await inference.close()
    finally:
        for one in doors:
            await one.close()
        server.release()
        await server.stop()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[HttpBench]:
    async with opened(tmp_path) as made:
        yield made


class TestFal(BackendContract, StrangerContract):
    """fal's queue keeps the contract of every backend."""


# --- what it sees ----------------------------------------------------------------------------------


async def test_it_is_told_picture_and_words_and_to_store_nothing(tmp_path):
    async with opened(tmp_path, parameters={"strength": 0.5}, expires_s=120) as bench:
        await collect(bench, prompt="soft light", subject_pseudonym="a" * 32)
        (asked,) = [one for one in bench.server.asked if one.method == "POST"]
        assert asked.json() == {
            "image_url": f"data:image/jpeg;base64,{base64.b64encode(PICTURE).decode()}",
            "prompt": "Grey backdrop.\nsoft light",
            "num_images": 1,
            "sync_mode": True,
            "strength": 0.5,
        }
        assert asked.headers["x-fal-store-io"] == "0"
        assert asked.headers["x-fal-no-retry"] == "1"
        lifetime = json.loads(asked.headers["x-fal-object-lifecycle-preference"])
        assert lifetime == {"expiration_duration_seconds": 120}
        assert b"a" * 32 not in bench.seen()
        assert JOB.encode() not in bench.seen()


async def test_the_key_that_deletes_is_shown_to_the_platform_alone(bench):
    await collect(bench)
    await bench.inference.forget(JOB)
    shown = {(one.headers["authorization"], one.path.startswith("/v1/")) for one in bench.server.asked}
    assert shown == {(f"Key {KEY}", False), (f"Key {ADMIN}", True)}


@pytest.mark.parametrize("field", ["prompt", "sync_mode", "num_images", "image_url"])
async def test_what_is_ours_to_say_is_not_the_operators(tmp_path, field):
    with pytest.raises(ValueError, match="not the operator's"):
        async with opened(tmp_path, parameters={field: 1}):
            pass


# --- what it may not do ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("says", "detail"),
    [
        ({"request_id": "../../admin"}, "bad_request_id"),
        ({"request_id": None}, "bad_request_id"),
        ({"status_url": f"https://elsewhere.test/{CANARY}"}, "elsewhere"),
        ({"status_url": "http://me@127.0.0.1/status"}, "elsewhere"),
        ({"cancel_url": None}, "elsewhere"),
        ({"response_url": "http://[::1"}, "elsewhere"),
        ({"request_id": "11111111-2222-4333-8444-555555555555"}, "other_job"),
    ],
)
async def test_a_queue_that_leads_elsewhere_is_not_followed(bench, says, detail):
    bench.server.says = says
    with pytest.raises(BackendProtocol) as refused:
        await collect(bench)
    assert refused.value.detail == detail
    quotes_nobody(refused.value)
    assert [one.method for one in bench.server.asked] == ["POST"]


@pytest.mark.parametrize(
    ("answers", "detail"),
    [
        ({"status": "EXPLODED"}, "bad_status"),
        ({"status": None}, "bad_status"),
        ({"request_id": "11111111-2222-4333-8444-555555555555"}, "other_job"),
    ],
)
async def test_news_of_another_job_are_none_of_this(bench, answers, detail):
    bench.server.answers = answers
    with pytest.raises(BackendProtocol) as refused:
        await collect(bench)
    assert refused.value.detail == detail


@pytest.mark.parametrize(
    ("result", "detail"),
    [
        (Said.of({}), "no_result"),
        (Said.of({"images": []}), "no_result"),
        (Said.of({"images": [{}]}), "result_elsewhere"),
        (Said.of({"image": {"url": f"https://files.test/{CANARY}.png"}}), "result_elsewhere"),
        (Said.of({"images": [{"url": "data:image/png;base64,QUJD"}] * 2}), "two_results"),
        (Said.of({"images": [{"url": "data:image/png;base64,a"}]}), "bad_base64"),
        (Said.of({"images": [{"url": "data:image/png;base64,QUJD"}]}), "bad_image_type"),
        (Said.of({"detail": CANARY}, 500), "run_failed"),
        (Said.of({"detail": CANARY}, 422), "message_refused"),
    ],
)
async def test_an_answer_without_one_picture_is_none(bench, result, detail):
    bench.hold()
    job = await under_way(bench)
    (request,) = bench.server.requests.values()
    request.result, request.state = result, "COMPLETED"
    refused = await ended(job)
    assert isinstance(refused, BackendProtocol)
    assert refused.detail == detail
    quotes_nobody(refused)


@pytest.mark.parametrize("fault", ["busy", "broken", "half", "gone"])
async def test_to_look_is_repeated_for_a_job_is_not_lost_with_one_look(bench, fault):
    bench.hold()
    job = await under_way(bench)
    bench.server.at, bench.server.fault = "/fal-ai/painter/requests", fault
    if fault == "gone":
        assert isinstance(await ended(job), BackendUnavailable)
        return
    bench.release()
    bench.server.fault = ""
    assert await job
    assert bench.runs() == 1


async def test_a_job_that_takes_too_long_is_given_up(tmp_path):
    async with opened(tmp_path, timeout_s=0.3) as bench:
        bench.hold()
        late = await ended(await under_way(bench))
        assert isinstance(late, BackendUnavailable)
        assert late.detail == "deadline"


async def test_a_model_that_does_not_stop_is_not_called_stopped(tmp_path):
    async with opened(tmp_path, timeout_s=0.3) as bench:
        bench.hold()
        job = await under_way(bench)
        bench.server.ignores_cancel = True
        with pytest.raises(BackendUnavailable) as refused:
            await bench.inference.cancel(JOB)
        assert refused.value.detail == "still_running"
        assert isinstance(await ended(job), JobCancelled)


async def test_an_order_under_way_is_not_torn_off_for_its_answer_says_what_to_delete(bench):
    """Else a job that is cancelled in that moment would run and stay, under a name nobody knows."""
    bench.hold()
    held = asyncio.Event()
    real = bench.server.answer

    async def slowly(asked):
        said = await real(asked)
        if asked.method == "POST":
            await held.wait()
        return said

    bench.server.answer = slowly
    job = asyncio.create_task(collect(bench))
    await until(lambda: bench.runs() == 1)
    forgetting = asyncio.create_task(bench.inference.forget(JOB))
    assert isinstance(await ended(job), JobCancelled)
    assert not forgetting.done()
    held.set()
    await forgetting
    assert (bench.working(), bench.keeps()) == (0, 0)


# --- what it keeps ---------------------------------------------------------------------------------


async def test_what_this_process_submitted_is_deleted_and_the_answer_says_so(bench):
    await collect(bench)
    assert bench.keeps() == 1
    await bench.inference.forget(JOB)
    await bench.inference.forget(JOB)
    assert bench.keeps() == 0
    assert [one.method for one in bench.server.asked].count("DELETE") == 1


async def test_a_deletion_that_failed_in_part_is_none(bench):
    await collect(bench)
    bench.server.undeletable = True
    with pytest.raises(BackendUnavailable) as refused:
        await bench.inference.forget(JOB)
    assert refused.value.detail == "forget_unconfirmed"
    quotes_nobody(refused.value)
    bench.server.undeletable = False
    await bench.inference.forget(JOB)


async def test_of_what_another_process_submitted_nobody_knows_the_name(bench):
    with pytest.raises(BackendUnavailable) as refused:
        await bench.inference.forget(JOB)
    assert refused.value.detail == "forget_unconfirmed"


async def test_an_order_that_never_began_left_nothing(bench):
    bench.server.fault = "busy"
    with pytest.raises(BackendUnavailable):
        await collect(bench)
    await bench.inference.forget(JOB)


@pytest.mark.parametrize("fault", ["half", "html"])
async def test_an_order_without_an_answer_may_have_left_anything(bench, fault):
    bench.server.fault = fault
    with pytest.raises(BackendProtocol):
        await collect(bench)
    with pytest.raises(BackendUnavailable) as refused:
        await bench.inference.forget(JOB)
    assert refused.value.detail == "forget_unconfirmed"
