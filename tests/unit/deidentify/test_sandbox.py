from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.deidentify import Limits, Rejected, Scrubber, ScrubberUnavailable
from gateway.deidentify import errors as errors_module
from gateway.deidentify.frames import BadFrame, decode, encode, lengths
from gateway.deidentify.sandbox import COMMAND, ImageScrubber, judged, scrubbed
from gateway.deidentify.worker import examine
from tests.unit.deidentify import plant

PLANTED = plant.jpeg(6)
FAKE = """
import json, os, struct, time
def read(n):
    out = b""
    while len(out) < n:
        piece = os.read(0, n - len(out))
        if not piece: os._exit(0)
        out += piece
    return out
def receive():
    h, b = struct.unpack("!II", read(8))
    return json.loads(read(h)), read(b)
def send(header, body=b""):
    text = json.dumps(header).encode()
    os.write(0, struct.pack("!II", len(text), len(body)) + text + body)
orders, _ = receive()
"""
HELLO = "send({'confinement': {'rlimits': True, 'landlock': False, 'seccomp': True}})\n"


def fake(script: str) -> tuple[str, ...]:
    """Return the command of a worker that behaves as `script` says."""
    return (sys.executable, "-I", "-c", FAKE + script)


@asynccontextmanager
async def running(limits: Limits | None = None, **options: Any) -> AsyncIterator[ImageScrubber]:
    scrubber = ImageScrubber(limits or Limits(), **options)
    await scrubber.start()
    try:
        yield scrubber
    finally:
        await scrubber.close()


def pids(scrubber: ImageScrubber) -> list[int]:
    return [post.worker._process.pid for post in scrubber._posts if post.worker is not None]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def detail(scrubber: Scrubber, data: bytes) -> str:
    with pytest.raises(Rejected) as refused:
        await scrubber.scrub(data)
    return refused.value.detail


async def test_a_picture_comes_back_as_the_worker_made_it() -> None:
    async with running() as scrubber:
        for planted in (PLANTED, plant.png(3, mode="RGBA"), plant.webp(8, mode="RGBA")):
            clean = await scrubber.scrub(planted, "lossless")
            assert clean == examine(planted, Limits(), "lossless")
            assert plant.CANARY not in clean.data


async def test_large_pictures_of_every_kind_decode_behind_the_walls() -> None:
    size = (1600, 1200)
    pictures = [
        plant.encode(plant.picture("RGB", size), "JPEG", progressive=True),
        plant.encode(plant.picture("CMYK", size), "JPEG"),
        plant.encode(plant.picture("RGBA", size), "PNG", compress_level=1),
        plant.encode(plant.picture("P", size), "PNG"),
        plant.encode(plant.picture("RGB", size), "WEBP", method=0),
        plant.encode(plant.picture("RGBA", size), "WEBP", method=0),
        plant.encode(plant.picture("RGBA", size), "WEBP", lossless=True, method=0),
    ]
    async with running() as scrubber:
        for picture in pictures:
            clean = await scrubber.scrub(picture)
            assert (clean.width, clean.height) == size


async def test_refusals_come_back_and_leave_the_worker_alive() -> None:
    limits = Limits(max_bytes=1 << 20, max_pixels=2000)
    async with running(limits) as scrubber:
        before = pids(scrubber)
        assert await detail(scrubber, b"no picture") == "not_an_image"
        assert await detail(scrubber, b"") == "not_an_image"
        assert await detail(scrubber, bytes((1 << 20) + 1)) == "too_large"
        assert await detail(scrubber, plant.encode(plant.picture(size=(50, 50)), "PNG")) == "too_many_pixels"
        assert await detail(scrubber, PLANTED[:400]) == "truncated"
        assert (await scrubber.scrub(PLANTED, "lossless")).orientation == 6
        assert before == pids(scrubber)


async def test_pixels_that_cannot_be_decoded_are_refused() -> None:
    jpeg = plant.encode(plant.picture(), "JPEG")
    # Without its quantisation tables the file still has a sound structure.
    broken = jpeg[: jpeg.index(b"\xff\xdb")] + jpeg[jpeg.index(b"\xff\xc0") :]
    png = plant.chunks(plant.encode(plant.picture(), "PNG"))
    # As many bytes as there should be, filtered in a way that does not exist.
    strange = (b"IDAT", zlib.compress(b"\x09" * (32 * (1 + 48 * 3))))
    async with running() as scrubber:
        assert await detail(scrubber, broken) == "not_an_image"
        assert await detail(scrubber, plant.joined([png[0], strange, png[-1]])) == "not_an_image"


async def test_memory_is_bounded() -> None:
    jpeg = bytearray(plant.encode(plant.picture(), "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = b"\x4e\x20\x4e\x20"
    # 400 megapixels, which these caps let through, take more than a worker may have.
    async with running(Limits(max_pixels=600_000_000)) as scrubber:
        assert await detail(scrubber, bytes(jpeg)) == "too_many_pixels"
        assert (await scrubber.scrub(PLANTED)).height == 48


async def test_walls_are_told() -> None:
    scrubber = ImageScrubber(Limits())
    assert not any(scrubber.confinement.values())
    async with running() as scrubber:
        assert scrubber.confinement["rlimits"]
    async with running(command=fake(HELLO + "receive()")) as scrubber:
        assert scrubber.confinement == {"rlimits": True, "landlock": False, "seccomp": True}


async def test_callers_queue_for_few_workers() -> None:
    async with running(workers=2) as scrubber:
        results = await asyncio.gather(*(scrubber.scrub(PLANTED) for _ in range(12)))
        assert len(pids(scrubber)) == 2
    assert len({result.data for result in results}) == 1


async def test_a_worker_is_replaced_after_its_share() -> None:
    async with running(recycle_after=2) as scrubber:
        first = pids(scrubber)
        await scrubber.scrub(PLANTED)
        assert first == pids(scrubber)
        assert await detail(scrubber, b"counts as well") == "not_an_image"
        assert not is_alive(first[0])
        await scrubber.scrub(PLANTED)
        assert first != pids(scrubber)


async def test_a_worker_killed_between_pictures_is_replaced() -> None:
    async with running() as scrubber:
        os.kill(pids(scrubber)[0], signal.SIGKILL)
        assert (await scrubber.scrub(PLANTED)).height == 48


async def test_a_worker_killed_over_a_picture_is_replaced_and_the_picture_tried_again() -> None:
    async with running() as scrubber:
        stuck = pids(scrubber)[0]
        os.kill(stuck, signal.SIGSTOP)
        answer = asyncio.create_task(scrubber.scrub(PLANTED))
        await asyncio.sleep(0)
        os.kill(stuck, signal.SIGKILL)
        assert (await answer).height == 48
        assert not is_alive(stuck)


async def test_two_deaths_on_one_picture_make_the_scrubber_unavailable() -> None:
    async with running(command=fake(HELLO + "receive()")) as scrubber:
        with pytest.raises(ScrubberUnavailable):
            await scrubber.scrub(PLANTED)
        with pytest.raises(ScrubberUnavailable):
            await scrubber.scrub(PLANTED)


async def test_a_picture_that_takes_too_long_is_refused_and_the_next_is_served() -> None:
    async with running(timeout_s=0.5) as scrubber:
        stuck = pids(scrubber)[0]
        os.kill(stuck, signal.SIGSTOP)
        assert await detail(scrubber, PLANTED) == "decode_timeout"
        assert not is_alive(stuck)
        scrubber._posts[0]._terms = ImageScrubber(Limits())._posts[0]._terms
        assert (await scrubber.scrub(PLANTED)).height == 48


async def test_a_worker_that_computes_too_long_is_a_timeout() -> None:
    script = HELLO + "receive()\nimport signal\nos.kill(os.getpid(), signal.SIGXCPU)\n"
    async with running(command=fake(script)) as scrubber:
        assert await detail(scrubber, PLANTED) == "decode_timeout"


async def test_a_cancelled_caller_leaves_no_half_answer_behind() -> None:
    async with running() as scrubber:
        stuck = pids(scrubber)[0]
        os.kill(stuck, signal.SIGSTOP)
        caller = asyncio.create_task(scrubber.scrub(plant.png(3)))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert not is_alive(stuck)
        assert (await scrubber.scrub(PLANTED)).format == "jpeg"


@pytest.mark.parametrize(
    "command",
    [
        ("/nonexistent/python",),
        (sys.executable, "-c", "raise SystemExit(1)"),
        fake("send({'confinement': 'none'})"),
        fake("os.write(0, b'\\xff' * 64)"),
        fake("os.write(0, struct.pack('!II', 4, 0) + b'nope')"),
    ],
)
async def test_a_worker_that_does_not_start_makes_the_scrubber_unavailable(command: tuple[str, ...]) -> None:
    scrubber = ImageScrubber(Limits(), workers=2, command=command)
    with pytest.raises(ScrubberUnavailable):
        await scrubber.start()
    with pytest.raises(ScrubberUnavailable):
        await scrubber.scrub(PLANTED)
    await scrubber.close()


async def test_close_ends_workers_and_callers() -> None:
    async with running() as scrubber:
        stuck = pids(scrubber)[0]
        os.kill(stuck, signal.SIGSTOP)
        callers = [asyncio.create_task(scrubber.scrub(PLANTED)) for _ in range(3)]
        await asyncio.sleep(0)
        await scrubber.close()
        outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert all(isinstance(outcome, ScrubberUnavailable) for outcome in outcomes)
    assert not is_alive(stuck)
    with pytest.raises(ScrubberUnavailable):
        await scrubber.scrub(PLANTED)


async def test_a_worker_gets_no_environment_and_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_SECRET", "do not inherit")
    script = """
receive()
is_bare = set(os.environ) <= {"LC_ALL", "LC_CTYPE", "OPENBLAS_NUM_THREADS"}
is_bare &= all(not os.path.exists(f"/proc/self/fd/{fd}") for fd in range(3, 64))
is_bare &= os.getcwd() == "/" and os.getsid(0) == os.getpid()
send({"rejected": "not_an_image" if is_bare else "residue_found"})
"""
    with socket.socket() as secret:
        secret.set_inheritable(True)
        async with running(command=fake(HELLO + script)) as scrubber:
            assert await detail(scrubber, PLANTED) == "not_an_image"


def test_the_worker_is_started_isolated_and_with_no_word_of_a_caller() -> None:
    assert (sys.executable, "-I", "-m", "gateway.deidentify.worker") == COMMAND


@pytest.mark.parametrize(
    "lie",
    [
        {},
        {"rejected": "because"},
        {"rejected": ["too_large"]},
        {"format": "gif"},
        {"format": ["jpeg"]},
        {"width": 0},
        {"width": True},
        {"height": "32"},
        {"orientation": 9},
        {"dropped": ["exif"]},
        {"dropped": {"Serial 4711": 3}},
        {"dropped": {"exif": -1}},
        {"dropped": {"exif": 1.5}},
        {"mode": "fast"},
    ],
)
def test_an_impossible_answer_is_not_believed(lie: dict[str, object]) -> None:
    truth = {"format": "jpeg", "width": 48, "height": 32, "orientation": 1, "dropped": {"exif": 3}}
    truth["mode"] = "lossless"
    assert scrubbed(dict(truth), b"x").width == 48
    with pytest.raises(BadFrame):
        judged({**truth, **lie} if lie else {}, b"x", scrubbed)
    with pytest.raises(BadFrame):
        scrubbed(dict(truth), b"")


def test_frames_are_bounded() -> None:
    with pytest.raises(BadFrame):
        encode({"a": "x" * 5000})
    with pytest.raises(BadFrame):
        lengths(b"\0\0\x20\0\0\0\0\0", 10)
    with pytest.raises(BadFrame):
        lengths(b"\0\0\0\x02\0\0\0\x0b", 10)
    for text in (b"", b"[]", b"{", b"\xff", b"[" * 4000):
        with pytest.raises(BadFrame):
            decode(text)


def test_an_unknown_detail_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="detail"):
        Rejected("because")
    for code in errors_module.DETAILS:
        assert Rejected(code).detail == code


@pytest.mark.parametrize("options", [{"workers": 0}, {"recycle_after": 0}, {"timeout_s": 0}])
def test_senseless_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="positive"):
        ImageScrubber(Limits(), **options)
