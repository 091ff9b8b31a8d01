"""`lethe demo`: the whole story on a real portrait, step by step, each step checked.

A backend and a gateway run as processes of their own and are talked to as anybody
would.  Between the two stands a tap, so that every byte that the backend got can
be searched.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import secrets
import struct
import sys
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

import typer

from gateway.admin.folder import Layout
from gateway.admin.output import say
from gateway.admin.planting import plant_metadata
from gateway.admin.session import run
from gateway.admin.tap import Identity, Tap

GPS = (37.6189, -122.3750)
START_S = 60.0
PIECE_BYTES = 24


class StepFailed(Exception):
    """A step of the story did not hold."""


@dataclass(slots=True)
class Story:
    """A subject, a portrait, and what must be found nowhere.

    `traces` names what would give somebody away, as pieces of bytes to search for.
    """

    layout: Layout
    out: Path
    tap: Tap
    subject: str = field(default_factory=lambda: f"crew-{secrets.token_hex(6)}")
    serial: str = field(default_factory=lambda: f"SN{secrets.token_hex(6).upper()}")
    portrait: bytes = b""
    traces: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    steps: int = 0

    def tell(self, text: str) -> None:
        """Tell the next step, which has held."""
        self.steps += 1
        typer.echo(f"{self.steps:3}. {text}")

    def plant(self) -> None:
        """Put a camera's metadata into the portrait and remember how it would be found again."""
        clean = resources.files("gateway.admin").joinpath("data", "eileen-collins.jpg").read_bytes()
        thumbnail = _thumbnail(clean)
        self.portrait = plant_metadata(clean, gps=GPS, serial=self.serial, thumbnail=thumbnail)
        self.traces = {
            "the serial number": (self.serial.encode(),),
            "the GPS position": (_latitude(),),
            "the thumbnail": _pieces(thumbnail[thumbnail.rindex(b"\xff\xda") :]),
            "the portrait": _pieces(clean[clean.rindex(b"\xff\xda") :]),
            "the subject's id": (self.subject.encode(),),
        }
        for what in ("the serial number", "the GPS position", "the thumbnail", "the portrait"):
            demand(all(piece in self.portrait for piece in self.traces[what]), f"{what} is not in the upload")

    def demand_absent(self, where: Iterable[bytes], place: str, *, besides: tuple[str, ...] = ()) -> None:
        """Refuse to go on where anything of the subject is found in `where`."""
        haystack = list(where)
        for what, pieces in self.traces.items():
            if what not in besides:
                found = any(piece in one for piece in pieces for one in haystack)
                demand(not found, f"{what} is in {place}")


def demand(is_true: bool, otherwise: str) -> None:
    """Refuse to go on where a step does not hold."""
    if not is_true:
        raise StepFailed(otherwise)


def files_below(folder: Path) -> list[bytes]:
    """Return the name and the content of every file below a folder."""
    paths = sorted(folder.rglob("*"))
    names = [str(path.relative_to(folder)).encode() for path in paths]
    return names + [path.read_bytes() for path in paths if path.is_file()]


def tell_all(layout: Layout, out: Path, weights: Path) -> int:
    """Tell the story in a new folder of `lethe init`, and return the exit code.

    Args:
        layout: The folder; it is used up.
        out: Where the export, the trust file, the certificate and the pictures are left.
        weights: The studio's model files.
    """
    began = time.monotonic()
    story = Story(layout, out, Tap())
    try:
        run(_tell(story, weights))
    except StepFailed as fault:
        say(f"error: DEMO_FAILED: after step {story.steps}: {fault}")
        return 1
    typer.echo(f"     All {story.steps} steps held, in {time.monotonic() - began:.0f} s.")
    return 0


async def _tell(story: Story, weights: Path) -> None:
    from gateway.admin.demo_steps import Steps
    from gateway.client import Client, Refused

    story.plant()
    (story.out / "portrait.jpg").write_bytes(story.portrait)
    story.tell("NASA's portrait of Eileen Collins; GPS, a serial number and a thumbnail are planted into it.")
    async with contextlib.AsyncExitStack() as stack:
        await _start(story, weights, stack)
        story.tell("A gateway and a CPU backend run, each a process; TLS 1.3, both sides with certificates.")
        opened = [
            await stack.enter_async_context(Client.from_profile(story.layout.profile(name)))
            for name in ("app", "officer", "second-officer", "auditor")
        ]
        try:
            await Steps(story, *opened).take()
        except Refused as refusal:
            raise StepFailed(f"the gateway refused: {refusal.reason} {refusal.detail}") from refusal


async def _start(story: Story, weights: Path, stack: contextlib.AsyncExitStack) -> None:
    """Start the backend, the tap in front of it, and the gateway that knows only the tap."""
    layout = story.layout
    files = ("--cert", layout.cert("backend"), "--key", layout.key("backend"), "--ca", layout.backend_ca)
    where = ("--address", "127.0.0.1:0", "--weights", weights)
    target = await stack.enter_async_context(_process("backend", layout, "backend", "serve", *where, *files))
    ca = layout.backend_ca.read_bytes()
    faces = [
        Identity(layout.cert(name).read_bytes(), layout.key(name).read_bytes(), ca)
        for name in ("backend", "gateway-to-backend")
    ]
    address = _backend_address(layout)
    stack.push_async_callback(story.tap.stop)
    await story.tap.start(address, target, listen=faces[0], onward=faces[1])
    async with _process("migrate", layout, "migrate", "--config", layout.config):
        pass
    await stack.enter_async_context(_process("gateway", layout, "serve", "--config", layout.config))


def _backend_address(layout: Layout) -> str:
    import yaml

    return str(yaml.safe_load(layout.config.read_text())["backends"][0]["address"])


@contextlib.asynccontextmanager
async def _process(name: str, layout: Layout, *arguments: object) -> AsyncIterator[str]:
    """Run `lethe` with these arguments; yield its address once it listens, and end it afterwards.

    A process that never listens must have exited with 0.
    """
    with (layout.root / f"{name}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gateway.main",
            *map(str, arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    assert process.stdout is not None  # noqa: S101 - tells mypy what PIPE means
    try:
        async with asyncio.timeout(START_S):
            line = (await process.stdout.readline()).decode()
            if not line:
                demand(
                    await process.wait() == 0, f"`lethe {arguments[0]}` failed; see {layout.root}/{name}.log"
                )
        yield line.removeprefix("listening ").strip()
    except TimeoutError:
        raise StepFailed(f"`lethe {arguments[0]}` did not start") from None
    finally:
        if process.returncode is None:
            process.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(START_S):
                    await process.wait()
            if process.returncode is None:
                process.kill()


def _last_line(layout: Layout, name: str) -> str:
    """Return the end of a process's log, which holds codes only."""
    return (layout.root / f"{name}.log").read_text().strip().rpartition("\n")[2]


def _thumbnail(clean: bytes) -> bytes:
    from PIL import Image

    small = io.BytesIO()
    with Image.open(io.BytesIO(clean)) as image:
        image.thumbnail((160, 160))
        image.save(small, "JPEG")
    return small.getvalue()


def _latitude() -> bytes:
    """Return the latitude as EXIF holds it: degrees, minutes and hundredths of seconds."""
    minutes, hundredths = divmod(round(abs(GPS[0]) * 360_000), 6_000)
    return struct.pack(">6I", minutes // 60, 1, minutes % 60, 1, hundredths, 100)


def _pieces(data: bytes) -> tuple[bytes, ...]:
    """Return pieces from all over `data`, each long enough to occur nowhere by chance."""
    step = max(PIECE_BYTES, len(data) // 64)
    return tuple(data[i : i + PIECE_BYTES] for i in range(PIECE_BYTES, len(data) - PIECE_BYTES, step))
