"""One hop for a 4 MB portrait: the gateway against a bare grpcio pass-through proxy, and against no hop.

Client, hop and backend are processes of their own on loopback, all with mutual TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from lethe.backend.v1 import backend_pb2
from PIL import Image

from gateway.adapters.keys_local import LocalKeyring
from gateway.admin.folder import Layout, init_folder
from gateway.client import Client
from gateway.settings import load
from tests.benchmarks.measure import Row, Side, Spread, Table, table, take_turns
from tests.benchmarks.peers import CHUNK, GENERATE, channel_to
from tests.gateway import PORTRAIT, add_subject, consent, finished, free_port, header, publish_notice

BYTES = 4_000_000
ROOT = Path(__file__).parents[2]
DIRECT, PROXY, GATEWAY, UPLOAD = "no hop", "bare proxy", "lethe Generate", "lethe CreateJob"
Work = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Counts:
    """Rounds, calls of one side in a round (c = 1), and calls for each of four callers."""

    rounds: int
    calls: int
    callers: int
    each: int


FULL = Counts(rounds=7, calls=6, callers=4, each=4)
QUICK = Counts(rounds=2, calls=1, callers=2, each=1)


def portrait(size: int = BYTES) -> bytes:
    """Return a real JPEG of about `size` bytes: a face on a soft gradient under sensor noise, ever larger."""
    side = int((size / 1.1) ** 0.5)
    face = Image.open(PORTRAIT)
    while True:
        noise = Image.effect_noise((side, side), 60)
        picture = Image.blend(Image.linear_gradient("L").resize((side, side)), noise, 0.6)
        made = io.BytesIO()
        whole = Image.merge("RGB", (picture, noise, picture))
        whole.paste(face.resize((side // 2, side // 2)), (side // 4, side // 4))
        whole.save(made, "JPEG", quality=92)
        if made.tell() >= size:
            return made.getvalue()
        side = int(side * max(1.01, (size / made.tell()) ** 0.5))


async def run(*, quick: bool) -> list[Table]:
    """Return latency, throughput, and where the gateway's time goes."""
    counts, image = (QUICK if quick else FULL), portrait()
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lethe-bench-")))
        layout = _folder(home / "gateway")
        stack.enter_context(_process("-m", "tests.benchmarks.peers", "backend", str(layout.root)))
        address = f"127.0.0.1:{free_port()}"
        stack.enter_context(_process("-m", "tests.benchmarks.peers", "proxy", str(layout.root), address))
        _lethe("migrate", "--config", str(layout.config))
        with _process("-m", "gateway.main", "serve", "--config", str(layout.config)):
            async with _people(layout), _sides(layout, address, image) as sides:
                found = await _race(sides, counts)
        out = home / "times.json"
        with _process("-m", "tests.benchmarks.peers", "metered", str(layout.root), str(out)) as gateway:
            async with _sides(layout, address, image) as sides:
                for name in (UPLOAD, GATEWAY):
                    found.append(await _split(sides[name], name, gateway, out, counts))
    size = f"{len(image) / 1e6:.1f} MB JPEG, {CHUNK >> 10} KiB chunks, mutual TLS on every leg"
    for one in found:
        one.notes.insert(0, size)
    return found


async def _race(sides: dict[str, Caller], counts: Counts) -> list[Table]:
    """Let the sides take turns, first one call at a time, then several at once."""
    slow: dict[str, list[float]] = {}

    def alone(name: str) -> Side:
        async def side() -> float:
            spent = [await sides[name].once() for _ in range(counts.calls)]
            slow.setdefault(name, []).append(_p95(spent))
            return statistics.median(spent)

        return side

    def together(name: str) -> Side:
        async def side() -> float:
            async def caller() -> None:
                for _ in range(counts.each):
                    await sides[name].once()

            begun = time.perf_counter()
            await asyncio.gather(*(caller() for _ in range(counts.callers)))
            return counts.callers * counts.each / (time.perf_counter() - begun)

        return side

    for caller in sides.values():
        await caller.once()
    median = await take_turns({name: alone(name) for name in sides}, counts.rounds)
    whole = [name for name in sides if name != UPLOAD]
    many = await take_turns({name: together(name) for name in whole}, counts.rounds)
    return [
        table("latency, one caller, p50 of a round", "ms", PROXY, median),
        table(f"latency, one caller, p95 of a round of {counts.calls}", "ms", PROXY, slow),
        table(f"throughput, {counts.callers} callers", "portraits/s", PROXY, many),
    ]


async def _split(
    caller: Caller, name: str, gateway: subprocess.Popen[str], out: Path, counts: Counts
) -> Table:
    """Return how long one call takes, and how much of it was spent behind which door."""
    await caller.once()
    gateway.send_signal(signal.SIGUSR1)
    await asyncio.sleep(0.05)
    number = counts.rounds * counts.calls
    totals = [await caller.once() for _ in range(number)]
    times = await asyncio.to_thread(_times, gateway, out)
    whole = statistics.mean(totals)
    rows = [Row(f"{name}, whole (mean)", Spread(whole, whole, whole), None)]
    decoding = statistics.mean([_decode(caller.image) for _ in range(counts.calls)])
    alone = Spread(decoding, decoding, decoding)
    rows.append(Row("for comparison: Pillow decodes it, no walls", alone, _part(decoding, whole)))
    shown = {door: spent * 1e3 / number for door, spent in times["spent"].items()}
    if name == UPLOAD:
        shown = {door: ms for door, ms in shown.items() if door.startswith("call:")}
        shown["call: receive, check, wait for the loop"] = whole - sum(shown.values())
    for door, ms in sorted(shown.items(), key=lambda item: -item[1]):
        times_called = times["calls"].get(door, number) / number
        label = f"{door} (x{times_called:.1f})"
        rows.append(Row(label, Spread(ms, ms, ms), _part(ms, whole)))
    notes = ["means over all calls; the worker's doors run while the call waits, or while nobody does"]
    return Table(f"where {name} spends its time", "ms a call", "the whole call", rows, notes)


def _times(gateway: subprocess.Popen[str], out: Path) -> dict[str, dict[str, float]]:
    """Ask the metered gateway for its times, and wait until it has written them."""
    out.unlink(missing_ok=True)
    gateway.send_signal(signal.SIGUSR2)
    while not out.exists():
        time.sleep(0.01)
    told: dict[str, dict[str, float]] = json.loads(out.read_text())
    return told


@dataclass
class Caller:
    """One way to have a portrait made."""

    work: Work
    image: bytes
    after: Work | None = None

    async def once(self) -> float:
        """Make one call and return its milliseconds; what comes `after` is not counted."""
        begun = time.perf_counter()
        await self.work()
        spent = (time.perf_counter() - begun) * 1e3
        if self.after is not None:
            await self.after()
        return spent


@contextlib.asynccontextmanager
async def _sides(layout: Layout, proxy: str, image: bytes) -> AsyncIterator[dict[str, Caller]]:
    backend = load(layout.config).backends[0].address
    async with (
        channel_to(layout, backend) as straight,
        channel_to(layout, proxy) as relayed,
        Client.from_profile(layout.profile("app"), 30) as app,
    ):
        jobs: list[str] = []

        async def generate() -> None:
            parts = [part async for part in app.generate(header("portrait"), image)]
            assert parts[-1].WhichOneof("part") == "receipt"

        async def upload() -> None:
            jobs.append((await app.create_job(header("portrait"), image)).job.name)

        async def settle() -> None:
            assert (await finished(app, jobs.pop())).name

        yield {
            DIRECT: Caller(_call(straight, image), image),
            PROXY: Caller(_call(relayed, image), image),
            GATEWAY: Caller(generate, image),
            UPLOAD: Caller(upload, image, settle),
        }


def _call(channel: Any, image: bytes) -> Work:
    """Return what sends the picture in the backend's own words and reads the answer."""
    call = channel.stream_stream(
        GENERATE,
        request_serializer=backend_pb2.GenerateRequest.SerializeToString,
        response_deserializer=backend_pb2.GenerateResponse.FromString,
    )

    def parts() -> Iterator[backend_pb2.GenerateRequest]:
        yield backend_pb2.GenerateRequest(
            header=backend_pb2.JobHeader(
                job_id="b" * 32, style="studio_grey", image_type="jpeg", size_bytes=len(image)
            )
        )
        for start in range(0, len(image), CHUNK):
            yield backend_pb2.GenerateRequest(chunk=image[start : start + CHUNK])

    async def work() -> None:
        kinds = [part.WhichOneof("part") async for part in call(parts(), timeout=30)]
        assert kinds[-1] == "chunk"

    return work


@contextlib.asynccontextmanager
async def _people(layout: Layout) -> AsyncIterator[None]:
    """Publish a notice, and have one subject consent to it."""
    async with (
        Client.from_profile(layout.profile("app")) as app,
        Client.from_profile(layout.profile("officer")) as officer,
    ):
        await publish_notice(officer)
        await add_subject(app, "portrait")
        await consent(app, "portrait")
    yield


def _folder(directory: Path) -> Layout:
    """Return a gateway's folder with the settings that `lethe init` writes; only its log is quieter."""
    layout = init_folder(
        directory,
        make_keyring=LocalKeyring.create,
        now=datetime.now(UTC),
        address=f"127.0.0.1:{free_port()}",
        backend_address=f"127.0.0.1:{free_port()}",
    )
    tree = yaml.safe_load(layout.config.read_text())
    layout.config.write_text(yaml.safe_dump({**tree, "telemetry": {"level": "warning"}}))
    return layout


@contextlib.contextmanager
def _process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a Python process that says `listening` when it serves; it ends with the block."""
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ}
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("listening"):
            raise RuntimeError(f"{arguments} did not start")
        yield process
    finally:
        process.terminate()
        process.wait(30)
        if process.stdout is not None:
            process.stdout.close()


def _lethe(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "gateway.main", *arguments], cwd=ROOT, check=True)


def _part(ms: float, whole: float) -> Spread:
    return Spread(ms / whole, ms / whole, ms / whole)


def _decode(image: bytes) -> float:
    begun = time.perf_counter()
    with Image.open(io.BytesIO(image)) as picture:
        picture.load()
    return (time.perf_counter() - begun) * 1e3


def _p95(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, round(0.95 * (len(values) - 1)))]
