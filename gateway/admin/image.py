"""`lethe image`: pictures made clean behind the walls of the gateway; no server and no configuration."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.admin import options
from gateway.admin.exits import DONE, FAILED, PARTLY, USAGE
from gateway.admin.files import refuse_existing, write_whole
from gateway.admin.output import Form, emit, fail, say
from gateway.admin.progress import progress

if TYPE_CHECKING:
    from gateway.deidentify import Format, Mode, Scrubbed, Scrubber

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Pictures without what they should not tell."
)

_SUFFIXES = {
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "png": (".png",),
    "webp": (".webp",),
}
_COLUMNS = ("file", "state", "detail", "mode", "format", "out")
_WORKERS = 4


class ModeName(StrEnum):
    """How a picture is made clean."""

    LOSSLESS = "lossless"
    CANONICAL = "canonical"


@dataclass(frozen=True, slots=True)
class _Task:
    """One file to be cleaned, and where it goes, below the folder for results."""

    file: Path
    place: Path


@app.callback()
def image() -> None:
    """Clean pictures, offline."""


@app.command()
def clean(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="IN...", help="Pictures; a folder means every file in it and below."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the clean pictures; made if it is not there.")],
    report: Annotated[Path | None, typer.Option(help="File for what became of each, as JSON.")] = None,
    mode: Annotated[
        ModeName,
        typer.Option(
            help="lossless keeps the coded pixels where format and colours allow it, the report says where; "
            "canonical codes every picture anew, as for a backend."
        ),
    ] = ModeName.LOSSLESS,
    force: options.Force = False,
    output: options.Output = Form.TABLE,
) -> None:
    """Write pictures without metadata; what cannot be cleaned is not written, and named with its detail.

    A picture keeps its name and its place below its folder.  GIF and TIFF become
    PNG, HEIC and AVIF become JPEG (PNG where something shows through), with the
    new ending added to the name.  Nothing is written over without --force.

    Exit codes: 0 all written, 5 some were not, 1 none was.

    Example: lethe image clean holiday/ --out clean/ --report clean.json
    """
    tasks = list(_tasks(inputs, out))
    if not tasks:
        fail(USAGE, "FILE_MISSING", "no file in there")
    if report is not None:
        refuse_existing(report, force)
    rows = asyncio.run(_clean_all(tasks, out, mode.value, force=force))
    cleaned = sum(row["state"] == "cleaned" for row in rows)
    told = {"cleaned": cleaned, "rejected": len(rows) - cleaned, "files": rows}
    if report is not None:
        write_whole(report, (json.dumps(told, indent=1) + "\n").encode())
    emit(told, output, rows="files", columns=_COLUMNS)
    raise typer.Exit(DONE if cleaned == len(rows) else PARTLY if cleaned else FAILED)


def _tasks(inputs: Sequence[Path], out: Path) -> Iterable[_Task]:
    """Yield every file once, in order; links within a folder are not followed."""
    taken: dict[Path, Path] = {}
    for given in inputs:
        if not given.exists():
            fail(USAGE, "FILE_MISSING", f"there is no {given}")
        if given.is_dir() and given.resolve() == out.resolve():
            fail(USAGE, "FILE_EXISTS", f"{out} is what is to be cleaned; take another folder for the results")
        base = given if given.is_dir() else given.parent
        for file in _files(given, out):
            place = file.relative_to(base)
            if place in taken:
                fail(USAGE, "FILE_EXISTS", f"{taken[place]} and {file} would get the same name")
            taken[place] = file
            yield _Task(file, place)


def _files(given: Path, out: Path) -> Sequence[Path]:
    if not given.is_dir():
        return [given]
    # The results may lie below the folder; they are not its content.
    return sorted(
        file
        for file in given.rglob("*")
        if file.is_file() and not file.is_symlink() and out.resolve() not in file.resolve().parents
    )


async def _clean_all(tasks: Sequence[_Task], out: Path, mode: Mode, *, force: bool) -> list[dict[str, Any]]:
    """Return what became of each file; as many are worked on at once as there are workers."""
    from gateway.deidentify import Limits, ScrubberUnavailable
    from gateway.deidentify.sandbox import ImageScrubber

    limits = Limits()
    workers = min(_WORKERS, os.cpu_count() or 1, len(tasks))
    scrubber = ImageScrubber(limits, workers=workers)
    try:
        await scrubber.start()
    except ScrubberUnavailable:
        fail(FAILED, "SCRUBBER_UNAVAILABLE", "no worker can be started")
    if missing := [wall for wall, stands in scrubber.confinement.items() if not stands]:
        say(f"warning: this kernel builds no {', '.join(missing)} around the worker")
    rows: list[dict[str, Any]] = []
    places = asyncio.Semaphore(workers)
    with progress() as show:

        async def one(task: _Task) -> dict[str, Any]:
            # Read only when a worker is about to be free: pictures do not pile up in memory.
            async with places:
                row = await _clean(task, out, scrubber, limits.max_bytes, mode, force=force)
            rows.append(row)
            show(f"{len(rows)} of {len(tasks)}")
            return row

        try:
            return list(await asyncio.gather(*map(one, tasks)))
        finally:
            await scrubber.close()


async def _clean(
    task: _Task, out: Path, scrubber: Scrubber, max_bytes: int, mode: Mode, *, force: bool
) -> dict[str, Any]:
    """Clean one file; return its row of the report."""
    from gateway.deidentify import Rejected, ScrubberUnavailable

    try:
        data = _read(task.file, max_bytes)
        picture = await scrubber.scrub(data, mode)
    except Rejected as refusal:
        return _rejected(task, "IMAGE_REJECTED", refusal.detail)
    except ScrubberUnavailable:
        return _rejected(task, "SCRUBBER_UNAVAILABLE", "worker_died")
    except OSError:
        return _rejected(task, "FILE_UNREADABLE", "unreadable")
    place = _named(task.place, picture.format)
    target = out / place
    if target.exists() and not force:
        return _rejected(task, "FILE_EXISTS", "file_exists")
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, picture.data)
    return _cleaned(task, place, picture)


def _read(file: Path, max_bytes: int) -> bytes:
    with file.open("rb") as opened:
        # One byte more than is allowed is enough for a refusal.
        return opened.read(max_bytes + 1)


def _named(place: Path, form: Format) -> Path:
    """Return the place with an ending that says what is in the file."""
    suffixes = _SUFFIXES[form]
    return place if place.suffix.lower() in suffixes else place.with_name(place.name + suffixes[0])


def _cleaned(task: _Task, place: Path, picture: Scrubbed) -> dict[str, Any]:
    return {
        "file": str(task.file),
        "state": "cleaned",
        "out": str(place),
        "mode": picture.mode,
        "format": picture.format,
        "width": picture.width,
        "height": picture.height,
        "orientation": picture.orientation,
        "dropped": dict(picture.dropped),
    }


def _rejected(task: _Task, reason: str, detail: str) -> dict[str, Any]:
    say(f"error: {reason} ({detail}): {task.file}")
    return {"file": str(task.file), "state": "rejected", "reason": reason, "detail": detail}
