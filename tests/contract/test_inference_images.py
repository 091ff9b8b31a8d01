"""The images API: the contract of every backend, and what only this one must be asked."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.adapters import inference_http
from gateway.adapters.inference_http import HttpDoor, Tls
from gateway.adapters.inference_images import ImagesInference
from gateway.errors import BackendProtocol, BackendUnavailable
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
from tests.fakes.http_bench import HttpBench, Papers, credential, declared
from tests.fakes.images_server import KEY, MODEL, FakeImages
from tests.fakes.inference import paint

STYLES = {"studio_grey": "Grey backdrop.", "studio_blue": "Blue backdrop."}
PICTURE = paint(b"somebody", "sitting")


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers.make(tmp_path_factory.mktemp("papers"))


@contextlib.asynccontextmanager
async def opened(
    folder: Path, papers: Papers, *, timeout_s: float = 6.0, **facts: object
) -> AsyncIterator[HttpBench]:
    server = FakeImages()
    url = await server.start(papers.own)
    door = HttpDoor(
        f"{url}/v1", timeout_s=timeout_s, tls=papers.tls, credential=credential(folder, KEY, "Bearer")
    )
    inference = ImagesInference(door, declared(**facts), model=MODEL, styles=STYLES)
    try:
        yield HttpBench(inference, "backend-1", tuple(STYLES), PICTURE, server=server, papers=papers)
    finally:
        await inference.close()
        await server.stop()


@pytest.fixture
async def bench(tmp_path: Path, papers: Papers) -> AsyncIterator[HttpBench]:
    async with opened(tmp_path, papers) as made:
        yield made


class TestImages(BackendContract, StrangerContract):
    """An images API keeps the contract of every backend."""


# --- what it sees ----------------------------------------------------------------------------------


async def test_it_is_told_style_and_picture_and_nothing_else(bench):
    await collect(bench)
    (asked,) = bench.server.asked
    form = asked.form()
    assert (asked.method, asked.target) == ("POST", "/v1/images/edits")
    assert form == {
        "model": ("", "text/plain", MODEL.encode()),
        "prompt": ("", "text/plain", b"Grey backdrop."),
        "n": ("", "text/plain", b"1"),
        "image": ("image.jpg", "image/jpeg", PICTURE),
    }
    assert set(asked.headers) == {
        "accept",
        "accept-encoding",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "host",
        "user-agent",
    }
    assert (asked.headers["user-agent"], asked.headers["accept-encoding"]) == ("lethe", "identity")
    assert JOB.encode() not in bench.seen()


async def test_a_pseudonym_of_the_subject_is_the_user_where_it_is_to_be_told(bench):
    await collect(bench, prompt="[person], soft light", subject_pseudonym="a" * 32)
    form = bench.server.asked[0].form()
    assert form["prompt"][2] == b"Grey backdrop.\n[person], soft light"
    assert form["user"][2] == b"a" * 32


async def test_the_operators_parameters_are_fields_and_ours_stay_ours(tmp_path, papers):
    async with opened(tmp_path, papers) as bench:
        told = ImagesInference(
            bench.inference._door, declared(), model=MODEL, styles=STYLES, parameters={"quality": "high"}
        )
        _ = [one async for one in told.generate(JOB, "studio_blue", PICTURE, "png")]
        form = bench.server.asked[0].form()
        with pytest.raises(ValueError, match="not the operator's"):
            ImagesInference(
                bench.inference._door, declared(), model=MODEL, styles=STYLES, parameters={"user": "ann"}
            )
    assert form["quality"][2] == b"high"
    assert form["image"][:2] == ("image.png", "image/png")


async def test_a_cookie_is_never_brought_back(bench):
    bench.server.headers = (("set-cookie", f"id={CANARY}; path=/"),)
    await collect(bench)
    await collect(bench)
    assert all("cookie" not in asked.headers for asked in bench.server.asked)


async def test_it_is_asked_what_it_has_once_a_minute_not_at_every_look(bench):
    for _ in range(3):
        await bench.inference.describe()
    assert [(asked.method, asked.path) for asked in bench.server.asked] == [("GET", "/v1/models")]


async def test_a_server_without_the_model_is_not_the_one_described(bench):
    bench.inference._model = "painter-9"
    with pytest.raises(BackendProtocol) as refused:
        await bench.inference.describe()
    assert refused.value.detail == "model_unknown"


# --- what it may not do ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind", "detail"),
    [
        ("unreachable", BackendUnavailable, "unreachable"),
        ("certificate", BackendUnavailable, "certificate"),
        ("cut", BackendUnavailable, "cut_off"),
        ("busy", BackendUnavailable, "busy"),
        ("denied", BackendUnavailable, "credential_refused"),
        # From here on the picture may have been worked on: the gateway does not send it again.
        ("deaf", BackendProtocol, "deadline"),
        ("slow", BackendProtocol, "deadline"),
        ("half", BackendProtocol, "cut_off"),
        ("broken", BackendProtocol, "status_500"),
        ("gone", BackendProtocol, "status_404"),
        ("refused", BackendProtocol, "message_refused"),
        ("redirect", BackendProtocol, "redirect"),
        ("html", BackendProtocol, "content_type"),
        ("typed", BackendProtocol, "content_type"),
        ("encoded", BackendProtocol, "encoded"),
        ("garbled", BackendProtocol, "not_json"),
        ("endless", BackendProtocol, "answer_too_large"),
        ("other_job", BackendProtocol, "other_model"),
        ("no_picture", BackendProtocol, "bad_image_type"),
    ],
)
async def test_each_fault_has_its_reason(bench, monkeypatch, fault, kind, detail):
    monkeypatch.setattr(inference_http, "MAX_JSON_BYTES", 1 << 16)
    bench.inference._door.timeout_s = 0.7
    bench.inference._max_bytes = 1 << 20
    if fault == "cut":
        bench.picture += bytes(16 << 20)  # more than lies between us, so that it is not sent wholly
    await bench.misbehave(fault)
    with pytest.raises(kind) as refused:
        await collect(bench)
    assert refused.value.detail == detail
    quotes_nobody(refused.value)


async def test_a_server_that_is_busy_says_for_how_long(bench):
    await bench.misbehave("busy")
    with pytest.raises(BackendUnavailable) as refused:
        await collect(bench)
    assert refused.value.metadata == {"retry_after_s": "7"}


@pytest.mark.parametrize(
    ("says", "detail"),
    [
        ({"data": []}, "no_result"),
        ({"data": None}, "no_result"),
        ({"data": ["x"]}, "no_result"),
        ({"data": [{}]}, "no_result"),
        ({"data": [{"b64_json": 7}]}, "no_result"),
        ({"data": [{"b64_json": ""}]}, "no_result"),
        ({"data": [{"b64_json": "a"}]}, "bad_base64"),
        ({"data": [{"b64_json": f"<b>{CANARY}"}]}, "bad_base64"),
        ({"data": [{"b64_json": "QUJD"}, {"b64_json": "QUJD"}]}, "two_results"),
        ({"data": [{"url": f"https://elsewhere.test/{CANARY}"}]}, "result_elsewhere"),
        ({"data": [{"b64_json": "A" * 2_000_000}]}, "result_too_large"),
    ],
)
async def test_an_answer_without_one_picture_is_none(bench, says, detail):
    bench.inference._max_bytes = 1 << 20
    bench.server.says = says
    with pytest.raises(BackendProtocol) as refused:
        await collect(bench)
    assert refused.value.detail == detail
    quotes_nobody(refused.value)


async def test_nesting_that_is_a_trap_is_no_json(bench):
    bench.server.raw = b"[" * 500_000
    with pytest.raises(BackendProtocol) as refused:
        await collect(bench)
    assert refused.value.detail == "not_json"


async def test_what_a_provider_keeps_nobody_can_make_it_forget(tmp_path, papers):
    async with opened(tmp_path, papers, retention_s=2_592_000) as bench:
        bench.confirms = False
        await collect(bench)
        with pytest.raises(BackendUnavailable) as refused:
            await bench.inference.forget(JOB)
    assert refused.value.detail == "forget_unconfirmed"


async def test_closing_the_call_is_what_a_cancellation_is_to_the_server(bench):
    bench.hold()
    job = await under_way(bench)
    await bench.inference.cancel(JOB)
    await ended(job)
    await until(lambda: bench.server.dropped == 1)


# --- whom we speak to ------------------------------------------------------------------------------


async def test_a_certificate_may_be_pinned_and_then_no_other_is_believed(tmp_path, papers):
    async with opened(tmp_path, papers) as bench:
        pinned = Tls(ca=papers.tls.ca.with_name("own.pem"))
        bench.inference._door = door_to(tmp_path, bench, pinned)
        assert await collect(bench)
        await bench.misbehave("certificate")
        with pytest.raises(BackendUnavailable) as refused:
            await collect(bench)
        assert refused.value.detail == "certificate"


async def test_without_a_ca_of_its_own_the_systems_count(tmp_path, papers):
    async with opened(tmp_path, papers) as bench:
        bench.inference._door = door_to(tmp_path, bench, Tls())
        with pytest.raises(BackendUnavailable) as refused:
            await collect(bench)
    assert (refused.value.detail, bench.server.asked) == ("certificate", [])


async def test_a_certificate_must_carry_the_name_that_is_expected(tmp_path, papers):
    async with opened(tmp_path, papers) as bench:
        bench.inference._door = door_to(tmp_path, bench, replace(papers.tls, server_name="elsewhere.test"))
        with pytest.raises(BackendUnavailable) as refused:
            await collect(bench)
    assert (refused.value.detail, bench.server.asked) == ("certificate", [])


@pytest.mark.parametrize(
    "url",
    ["http://192.0.2.1/v1", "http://backend.test/v1", "ftp://127.0.0.1/", "https://me@backend.test/", "/v1"],
)
def test_a_picture_goes_nowhere_in_clear_but_on_loopback(url):
    with pytest.raises(ValueError, match=r"http"):
        HttpDoor(url, timeout_s=1.0)


async def test_a_credential_that_others_may_read_is_not_used(bench):
    bench.inference._door._credential.file.chmod(0o644)
    with pytest.raises(BackendUnavailable) as refused:
        await collect(bench)
    assert (refused.value.detail, bench.server.asked) == ("credential_mode", [])


def door_to(folder: Path, bench: HttpBench, tls: Tls) -> HttpDoor:
    url = f"https://127.0.0.1:{bench.server.port}/v1"
    return HttpDoor(url, timeout_s=6.0, tls=tls, credential=credential(folder, KEY, "Bearer"))
