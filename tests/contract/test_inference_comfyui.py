"""ComfyUI: the contract of every backend, and what only this one must be asked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.adapters.inference_comfyui import BLANK, ComfyInference, Place, Workflow
from gateway.adapters.inference_http import HttpDoor
from gateway.errors import BackendProtocol, BackendUnavailable, JobCancelled
from gateway.ports.inference import Result
from tests.contract.backend_kit import (
    CANARY,
    JOB,
    OTHER,
    BackendContract,
    StrangerContract,
    collect,
    ended,
    quotes_nobody,
    under_way,
)
from tests.fakes.comfyui_server import WORKFLOW, FakeComfy
from tests.fakes.http_bench import PLAIN, HttpBench, declared
from tests.fakes.inference import paint

STYLES = {"studio_grey": "Grey backdrop.", "studio_blue": "Blue backdrop."}
PICTURE = paint(b"somebody", "sitting")
PLACES: dict[str, Any] = {
    "image": Place.parse("1.image"),
    "prompt": Place.parse("2.text"),
    "seed": Place.parse("2.seed"),
    "prefix": Place.parse("3.filename_prefix"),
    "output": "3",
}


@contextlib.asynccontextmanager
async def opened(*, timeout_s: float = 6.0, **changes: Any) -> AsyncIterator[HttpBench]:
    server = FakeComfy()
    door = HttpDoor(await server.start(), timeout_s=timeout_s)
    places = {**PLACES, **changes.pop("places", {})}
    workflow = Workflow(WORKFLOW, **places)
    facts = declared(supports_forget=True)
    inference = ComfyInference(door, facts, workflow, styles=STYLES, poll_s=0.01, **changes)
    try:
        yield HttpBench(
            inference, "backend-1", tuple(STYLES), PICTURE, resumes=True, cannot=PLAIN, server=server
        )
    finally:
        await inference.close()
        server.release()
        await server.stop()


@pytest.fixture
async def bench() -> AsyncIterator[HttpBench]:
    async with opened() as made:
        yield made


class TestComfy(BackendContract, StrangerContract):
    """ComfyUI keeps the contract of every backend."""


# --- what it sees ----------------------------------------------------------------------------------


def paths(bench: HttpBench) -> list[str]:
    """Return what was asked, without repetitions in a row."""
    asked = [f"{one.method} {one.path}" for one in bench.server.asked]
    return [one for one, before in zip(asked, ["", *asked], strict=False) if one != before]


async def test_it_is_told_picture_words_and_seed_in_their_places_and_nothing_else(bench):
    await collect(bench, prompt="soft light", subject_pseudonym="a" * 32)
    upload, order = (next(a for a in bench.server.asked if a.path == p) for p in ("/upload/image", "/prompt"))
    form, tree = upload.form(), order.json()
    job = tree["prompt_id"]
    stem = job.replace("-", "")
    assert form == {
        "overwrite": ("", "text/plain", b"true"),
        "type": ("", "text/plain", b"input"),
        "subfolder": ("", "text/plain", b"lethe"),
        "image": (f"{stem}.png", "image/jpeg", PICTURE),
    }
    assert set(tree) == {"prompt", "prompt_id"}
    assert tree["prompt"]["1"]["inputs"] == {"image": f"lethe/{stem}.png"}
    assert tree["prompt"]["2"]["inputs"]["text"] == "Grey backdrop.\nsoft light"
    assert tree["prompt"]["2"]["inputs"]["seed"] > 0
    assert tree["prompt"]["3"]["inputs"]["filename_prefix"] == f"lethe/{stem}"
    assert b"a" * 32 not in bench.seen()
    assert JOB.encode() not in bench.seen()


async def test_an_id_there_is_made_of_the_jobs_alone_so_that_any_process_finds_it():
    ids = []
    for _ in range(2):
        async with opened() as bench:
            await collect(bench)
            ids.append(next(a.json()["prompt_id"] for a in bench.server.asked if a.path == "/prompt"))
    assert ids[0] == ids[1]


async def test_the_workflow_itself_is_never_changed(bench):
    await collect(bench, prompt="soft light")
    assert WORKFLOW["2"]["inputs"] == {"image": ["1", 0], "text": "", "seed": 0}


async def test_the_version_is_the_servers_and_the_model_is_the_workflow(bench):
    facts = await bench.inference.describe()
    assert (facts.version, facts.model_digest) == ("0.3.64", Workflow(WORKFLOW, **PLACES).digest)
    await bench.inference.describe()
    assert paths(bench) == ["GET /system_stats"]


# --- jobs that nobody runs twice -------------------------------------------------------------------


async def another_process(bench: HttpBench) -> ComfyInference:
    """Return the door of a gateway that took over from one that was killed."""
    old = bench.inference
    door = HttpDoor(f"http://127.0.0.1:{bench.server.port}", timeout_s=6.0)
    return ComfyInference(door, old._facts, old._workflow, styles=STYLES, poll_s=0.01)


async def test_who_takes_over_from_a_killed_gateway_finds_the_job_that_runs(bench):
    bench.hold()
    first = await under_way(bench)
    bench.inference = await another_process(bench)
    second = asyncio.create_task(collect(bench))
    bench.release()
    assert (await first)[1] == (await second)[1]
    assert bench.runs() == 1
    assert [a.path for a in bench.server.asked].count("/upload/image") == 1
    await bench.inference.close()


async def test_who_takes_over_finds_the_job_that_is_over(bench):
    _, made = await collect(bench)
    bench.inference = await another_process(bench)
    assert made == (await collect(bench))[1]
    assert bench.runs() == 1
    await bench.inference.close()


async def test_who_takes_over_can_have_it_forgotten(bench):
    await collect(bench)
    bench.inference = await another_process(bench)
    await bench.inference.forget(JOB)
    assert bench.keeps() == 0
    await bench.inference.close()


@pytest.mark.parametrize("fault", ["deaf", "half"])
async def test_an_order_whose_answer_is_lost_is_looked_for_and_not_given_again(bench, fault):
    bench.server.fault = fault
    assert await collect(bench)
    assert [a.path for a in bench.server.asked].count("/prompt") == 1
    assert bench.runs() == 1


@pytest.mark.parametrize("at", ["/history", "/queue", "/view"])
@pytest.mark.parametrize("fault", ["busy", "broken", "half"])
async def test_to_look_is_repeated_for_a_job_is_not_lost_with_one_look(bench, at, fault):
    bench.hold()
    job = await under_way(bench)
    bench.server.at, bench.server.fault = at, fault
    bench.release()
    await asyncio.sleep(0.02)
    bench.server.fault = ""
    assert await job
    assert bench.runs() == 1


async def test_an_order_under_way_is_not_torn_off_so_that_what_it_leaves_is_found(bench):
    """Else a job that is cancelled in that moment would be queued once nobody looks any more."""
    bench.hold()
    arrived, go_on = asyncio.Event(), asyncio.Event()
    real = bench.server.answer

    async def slowly(asked):
        if asked.path == "/prompt":
            arrived.set()
            await go_on.wait()
        return await real(asked)

    bench.server.answer = slowly
    job = asyncio.create_task(collect(bench))
    await arrived.wait()
    forgetting = asyncio.create_task(bench.inference.forget(JOB))
    assert isinstance(await ended(job), JobCancelled)
    assert not forgetting.done()
    go_on.set()
    await forgetting
    assert (bench.working(), bench.keeps()) == (0, 0)


# --- what it may not do ----------------------------------------------------------------------------

CALLS = ("/upload/image", "/prompt", "/history", "/queue", "/view")


@pytest.mark.parametrize("at", CALLS)
@pytest.mark.parametrize("fault", ["html", "garbled", "redirect"])
async def test_each_call_may_go_wrong_and_each_time_there_is_a_reason(bench, at, fault):
    bench.server.at, bench.server.fault = at, fault
    with pytest.raises(BackendProtocol) as refused:
        await collect(bench)
    assert refused.value.detail
    quotes_nobody(refused.value)
    assert bench.runs() <= 1


async def test_a_server_that_names_jobs_itself_is_not_one_of_ours(bench):
    bench.server.names_its_own_ids = True
    with pytest.raises(BackendProtocol) as refused:
        await collect(bench)
    assert refused.value.detail == "other_job"


@pytest.mark.parametrize(
    ("says", "detail"),
    [
        ({"filename": "ComfyUI_00007_.png"}, "other_job"),
        ({"subfolder": ""}, "other_job"),
        ({"filename": "../../etc/passwd"}, "bad_file"),
        ({"filename": "a..png"}, "bad_file"),
        ({"filename": 7}, "other_job"),
        ({"filename": None}, "other_job"),
        ({"subfolder": "../models"}, "bad_file"),
        ({"type": "input"}, "bad_file"),
        ({"type": CANARY}, "bad_file"),
    ],
)
async def test_a_file_that_is_not_this_jobs_is_not_fetched(bench, says, detail):
    bench.server.says = says
    with pytest.raises(BackendProtocol) as refused:
        await collect(bench)
    assert refused.value.detail == detail
    quotes_nobody(refused.value)
    assert "/view" not in [asked.path for asked in bench.server.asked]


async def test_a_run_that_fails_is_a_fault_of_the_backend(bench):
    bench.server.fails = True
    with pytest.raises(BackendProtocol) as refused:
        await collect(bench)
    assert refused.value.detail == "run_failed"
    quotes_nobody(refused.value)


async def test_an_interruption_from_beside_is_a_cancellation(bench):
    bench.hold()
    job = await under_way(bench)
    bench.server.running.interrupted.set()
    assert isinstance(await ended(job), JobCancelled)


async def test_a_job_that_the_server_lost_may_be_sent_again(bench):
    bench.hold()
    job = await under_way(bench)
    bench.server.running = None
    lost = await ended(job)
    assert isinstance(lost, BackendUnavailable)
    assert lost.detail == "cut_off"


async def test_a_job_that_takes_too_long_is_given_up():
    async with opened(timeout_s=0.3) as bench:
        bench.hold()
        late = await ended(await under_way(bench))
        assert isinstance(late, BackendUnavailable)
        assert late.detail == "deadline"


async def test_a_server_that_does_not_stop_is_not_called_stopped():
    async with opened(timeout_s=0.3) as bench:
        bench.hold()
        job = await under_way(bench)
        bench.server.is_deaf_to_interrupts = True
        with pytest.raises(BackendUnavailable) as refused:
            await bench.inference.cancel(JOB)
        assert refused.value.detail == "still_running"
        assert isinstance(await ended(job), JobCancelled)


async def test_nobody_elses_job_is_interrupted(bench):
    bench.hold()
    others = await under_way(bench, OTHER)
    await bench.inference.cancel(JOB)
    await bench.inference.forget(JOB)
    bench.release()
    assert isinstance(await ended(others), Result)


# --- what it keeps ---------------------------------------------------------------------------------


async def test_what_cannot_be_deleted_is_overwritten_and_looked_at_again(bench):
    _, result = await collect(bench)
    kinds = sorted(kind for kind, _, _ in bench.server.files)
    assert (kinds, len(bench.server.history)) == (["input", "output", "temp"], 1)
    await bench.inference.forget(JOB)
    assert set(bench.server.files.values()) == {BLANK}
    assert (bench.server.history, bench.server.freed) == ({}, 1)
    assert result.image not in bench.server.files.values()


async def test_to_forget_what_is_forgotten_changes_nothing_more(bench):
    await collect(bench)
    await bench.inference.forget(JOB)
    before = len(bench.server.asked)
    await bench.inference.forget(JOB)
    asked = [f"{one.method} {one.path}" for one in bench.server.asked[before:]]
    assert not {"POST /upload/image", "POST /history", "POST /free"} & set(asked)


async def test_a_server_that_lost_its_history_is_asked_for_the_file_that_it_must_have(bench):
    await collect(bench)
    bench.server.history.clear()
    await bench.inference.forget(JOB)
    left = [kind for (kind, _, _), content in bench.server.files.items() if content != BLANK]
    # Previews go when the server starts, and it lost its history by that.
    assert left == ["temp"]


async def test_without_a_prefix_nobody_finds_the_file_then():
    async with opened(places={"prefix": None}) as bench:
        await collect(bench)
        bench.server.history.clear()
        with pytest.raises(BackendUnavailable) as refused:
            await bench.inference.forget(JOB)
    assert refused.value.detail == "forget_unconfirmed"


async def test_a_server_that_keeps_its_caches_has_not_forgotten():
    async with opened(frees_memory=False) as bench:
        await collect(bench)
        with pytest.raises(BackendUnavailable) as refused:
            await bench.inference.forget(JOB)
        assert refused.value.detail == "forget_unconfirmed"


@pytest.mark.parametrize(
    ("at", "fault"),
    [("/upload", "busy"), ("/view", "broken"), ("/view", "html"), ("/free", "gone"), ("/history", "deaf")],
)
async def test_what_could_not_be_seen_to_be_gone_is_not_called_gone(at, fault):
    async with opened(timeout_s=0.5) as bench:
        await collect(bench)
        bench.server.at, bench.server.fault = at, fault
        with pytest.raises((BackendUnavailable, BackendProtocol)) as refused:
            await bench.inference.forget(JOB)
        quotes_nobody(refused.value)
        bench.server.fault = ""
        await bench.inference.forget(JOB)
        assert bench.keeps() == 0


async def test_a_server_that_only_says_that_it_overwrote_is_found_out(bench, monkeypatch):
    await collect(bench)
    kept = dict(bench.server.files)
    real = bench.server._upload

    def pretend(asked):
        said = real(asked)
        bench.server.files.update(kept)
        return said

    monkeypatch.setattr(bench.server, "_upload", pretend)
    with pytest.raises(BackendUnavailable) as refused:
        await bench.inference.forget(JOB)
    assert refused.value.detail == "forget_unconfirmed"


# --- the operator's file ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("places", "fault"),
    [
        ({"image": Place("9", "image")}, "no input 9.image"),
        ({"image": Place("1", "picture")}, "no input 1.picture"),
        ({"output": "9"}, "no node 9"),
        ({"seed": Place("2", "noise")}, "no input 2.noise"),
    ],
)
def test_a_place_that_the_workflow_lacks_is_refused_at_the_start(places, fault):
    with pytest.raises(ValueError, match=fault):
        Workflow(WORKFLOW, **{**PLACES, **places})


@pytest.mark.parametrize("text", ["1", ".image", "1.", ""])
def test_a_place_is_a_node_and_an_input(text):
    with pytest.raises(ValueError, match=r"NODE\.INPUT"):
        Place.parse(text)


@pytest.mark.parametrize("text", [b"[]", b"{", b"\xff"])
def test_a_file_that_is_no_workflow_is_refused(text):
    with pytest.raises(ValueError):
        Workflow.read(text, **PLACES)


def test_several_styles_want_a_place_for_words():
    door = HttpDoor("http://127.0.0.1:1", timeout_s=1.0)
    with pytest.raises(ValueError, match="place for a prompt"):
        ComfyInference(door, declared(), Workflow(WORKFLOW, **{**PLACES, "prompt": None}), styles=STYLES)
