"""What uploads cost: memory of a gateway that gets many at once; an S3 store's, and its time beside the disk.

The store writes to a real SeaweedFS on the same machine, so its time is the server's time, too.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

from PIL import Image

from gateway.adapters.objects_local import FileObjects
from gateway.adapters.objects_s3 import PART_BYTES, S3Objects
from gateway.ports.objects import ObjectStore
from gateway.settings import S3Section
from tests.benchmarks.measure import Side, Table, table, take_turns
from tests.fakes.backend_server import serving_backend
from tests.gateway import PORTRAIT, add_subject, consent, header, make_folder, publish_notice
from tests.process import serving
from tests.seaweed import running_seaweed

MIB = 1 << 20
AT_ONCE = 8


async def run(*, quick: bool) -> list[Table]:
    """Return the tables; `quick` only tries whether everything runs."""
    size = (9 if quick else 25) * MIB
    rounds = 1 if quick else 5
    with running_seaweed() as server, tempfile.TemporaryDirectory() as folder:
        s3 = await S3Objects.open(S3Section(**server.section(server.bucket(versioned=True))))
        disk = FileObjects(Path(folder) / "store")
        try:
            await _store(s3, 1, size)  # connections and volumes are there before anything is measured
            grown = {number: await _growth(s3, number, size) for number in (1, AT_ONCE)}
            sides: dict[str, Side] = {
                "disk": lambda: _timed(disk, size),
                "S3 (SeaweedFS)": lambda: _timed(s3, size),
            }
            found = await take_turns(sides, rounds)
        finally:
            s3.close()
    notes = [
        f"{number} at once of {size // MIB} MB: the process grew by {grown[number] / MIB:.0f} MB at its peak"
        for number in grown
    ]
    notes.append(f"a put holds a part of {PART_BYTES // MIB} MB, and what its source made last")
    title = f"Object store: {AT_ONCE} puts at once, {size // MIB} MB each"
    return [table(title, "MB/s", "disk", found, notes=notes), await _uploads(4 if quick else 32, quick=quick)]


async def _uploads(number: int, *, quick: bool) -> Table:
    """Return by how much a gateway's resident memory grew at its peak, per upload, one and many at once."""
    picture = noise(MIB if quick else 25 * MIB)
    grown: dict[str, list[float]] = {}
    for at_once in (1, number):
        with tempfile.TemporaryDirectory() as folder:
            layout = make_folder(
                Path(folder) / "dev", limits={"max_uploads_in_flight": number}, jobs={"workers": 1}
            )
            async with serving_backend(layout) as backend, serving(layout) as process:
                backend.hold()
                async with process.client("app", 600.0) as app, process.client("officer") as officer:
                    await publish_notice(officer)
                    await add_subject(app, "bench")
                    await consent(app, "bench")
                    await app.create_job(
                        header("bench"), PORTRAIT.read_bytes()
                    )  # all is loaded, the worker waits
                    before = _peak(process.child.pid)
                    await asyncio.gather(*(app.create_job(header("bench"), picture) for _ in range(at_once)))
                    added = _peak(process.child.pid) - before
                grown[f"{at_once} at once"] = [added / at_once / MIB]
    title = f"Upload: memory that the gateway adds for each, {len(picture) // MIB} MB"
    return table(title, "MB", "1 at once", grown, ["the scrubber's own processes are not counted"])


def noise(size: int) -> bytes:
    """Return a PNG of about so many bytes, which no compression makes smaller; someone is in it."""
    side, made = int((size / 3) ** 0.5), io.BytesIO()
    picture = Image.frombytes("RGB", (side, side), os.urandom(side * side * 3))
    with Image.open(PORTRAIT) as portrait:
        picture.paste(portrait)
    picture.save(made, "PNG", compress_level=0)
    return made.getvalue()


def _peak(pid: int) -> int:
    """Return the greatest resident memory that a process ever had, in bytes."""
    told = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert told is not None
    return int(told[1]) << 10


async def _timed(objects: ObjectStore, size: int) -> float:
    """Return MB/s."""
    start = time.perf_counter()
    await _store(objects, AT_ONCE, size)
    return AT_ONCE * size / MIB / (time.perf_counter() - start)


async def _store(objects: ObjectStore, number: int, size: int) -> None:
    ids = [os.urandom(16).hex() for _ in range(number)]
    await asyncio.gather(*(objects.put(object_id, _chunks(size)) for object_id in ids))
    for object_id in ids:
        await objects.delete(object_id)


async def _chunks(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // MIB):
        yield os.urandom(MIB)


async def _growth(objects: ObjectStore, number: int, size: int) -> int:
    """Return by how many bytes the resident memory grew at most while `number` puts ran."""
    before, peak, is_over = _resident(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not is_over.wait(0.002):
            peak = max(peak, _resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        await _store(objects, number, size)
    finally:
        is_over.set()
        watcher.join()
    return max(0, peak - before)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
