"""Metadata out of a JPEG of twelve megapixels: our walker against exiftool, fresh pixels against libvips.

exiftool takes the metadata out and decodes nothing; so does the walker with its
second opinion.  What the gateway does beside that, decoding every pixel behind
the walls to see that it is a picture, stands in a row of its own.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

from gateway.admin.planting import plant_metadata
from gateway.deidentify import Limits, Mode
from gateway.deidentify.sandbox import ImageScrubber
from gateway.deidentify.verify import verify
from gateway.deidentify.walker import scrub
from gateway.deidentify.worker import examine
from tests.benchmarks.measure import Side, Table, table, take_turns

SIZE = (4000, 3000)
ROUNDS, QUICK_ROUNDS = 9, 2
WALKER, PROCESS, OPEN = "walker and second opinion", "exiftool, a process a file", "exiftool -stay_open"
CANONICAL, VIPS = "canonical, in process", "pyvips, keep=none"


def photograph(size: tuple[int, int] = SIZE) -> bytes:
    """Return a JPEG with noise like a sensor's and everything a phone writes beside it."""
    noise = Image.effect_noise(size, 40)
    gradient = Image.linear_gradient("L").resize(size)
    bands = (Image.blend(gradient, noise, 0.4), noise, Image.blend(gradient.rotate(180), noise, 0.3))
    file, thumbnail = io.BytesIO(), io.BytesIO()
    Image.merge("RGB", bands).save(file, "JPEG", quality=85)
    Image.merge("RGB", bands).resize((160, 120)).save(thumbnail, "JPEG")
    return plant_metadata(file.getvalue(), gps=(52.5, 13.4), serial="4711", thumbnail=thumbnail.getvalue())


async def run(*, quick: bool) -> list[Table]:
    """Return how long it takes to take metadata out, and to code a picture anew."""
    data, rounds = photograph((400, 300) if quick else SIZE), QUICK_ROUNDS if quick else ROUNDS
    limits = Limits()
    scrubber = ImageScrubber(limits)
    await scrubber.start()
    notes = [f"JPEG of {len(data) / 1e6:.1f} MB, {'0.1' if quick else '12'} megapixels"]
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lethe-bench-")))
        (home / "in.jpg").write_bytes(data)
        removal: dict[str, Side] = {
            WALKER: _timed(lambda: verify(scrub(data, limits).data)),
            "the same, behind the walls, every pixel decoded": _behind(scrubber, data, "lossless"),
        }
        if exiftool := shutil.which("exiftool"):
            removal[PROCESS] = _timed(lambda: _exiftool(exiftool, home))
            removal[OPEN] = _timed(stack.enter_context(_stay_open(exiftool, home)))
        else:
            notes.append("exiftool is not installed: apt install libimage-exiftool-perl")
        fresh: dict[str, Side] = {
            CANONICAL: _timed(lambda: examine(data, limits, "canonical")),
            "canonical, behind the walls": _behind(scrubber, data, "canonical"),
        }
        if importlib.util.find_spec("pyvips"):
            fresh[VIPS] = _timed(_vips(data))
        else:
            notes.append("pyvips is not installed: pip install 'pyvips[binary]'")
        work = {name: side for name, side in fresh.items() if name in {CANONICAL, VIPS}}
        try:
            seen = [await take_turns(sides, rounds) for sides in (removal, fresh)]
            seen.append(await take_turns({name: _processor(side) for name, side in work.items()}, rounds))
        finally:
            await scrubber.close()
    return [
        table("metadata out of a JPEG", "ms", WALKER, seen[0], notes),
        table("a JPEG coded anew", "ms", CANONICAL, seen[1], notes),
        table("a JPEG coded anew, processor time of all threads", "ms", CANONICAL, seen[2], notes),
    ]


def _timed(work: Callable[[], object]) -> Side:
    async def side() -> float:
        begun = time.perf_counter()
        work()
        return (time.perf_counter() - begun) * 1e3

    return side


def _processor(side: Side) -> Side:
    """Return the processor time that a side takes: what it would take on a single core."""

    async def timed() -> float:
        begun = time.process_time()
        await side()
        return (time.process_time() - begun) * 1e3

    return timed


def _behind(scrubber: ImageScrubber, data: bytes, mode: Mode) -> Side:
    async def side() -> float:
        begun = time.perf_counter()
        await scrubber.scrub(data, mode)
        return (time.perf_counter() - begun) * 1e3

    return side


def _exiftool(exiftool: str, home: Path) -> None:
    out = home / "out.jpg"
    out.unlink(missing_ok=True)
    subprocess.run([exiftool, "-q", "-all=", "-o", out, home / "in.jpg"], check=True)


@contextlib.contextmanager
def _stay_open(exiftool: str, home: Path) -> Iterator[Callable[[], None]]:
    """Yield what has one exiftool process take the metadata out of the file once more."""
    out = home / "stay.jpg"
    command = [exiftool, "-stay_open", "True", "-@", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def once() -> None:
            out.unlink(missing_ok=True)
            stdin.write(f"-all=\n-o\n{out}\n{home / 'in.jpg'}\n-execute\n")
            stdin.flush()
            while "{ready}" not in stdout.readline():
                pass

        once()
        yield once
        stdin.write("-stay_open\nFalse\n")
        stdin.flush()


def _vips(data: bytes) -> Callable[[], object]:
    """Return what codes the picture anew at our quality; libvips turns it upright as we do."""
    pyvips = importlib.import_module("pyvips")

    def work() -> object:
        image = pyvips.Image.new_from_buffer(data, "", fail_on="error").autorot()
        return image.jpegsave_buffer(Q=92, keep="none", subsample_mode="on")

    return work
