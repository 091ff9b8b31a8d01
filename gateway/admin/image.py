"""`lethe image`: pictures made clean behind the walls of the gateway; no server and no configuration."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from gateway.admin import options
from gateway.admin.exits import DONE, FAILED, PARTLY, USAGE
from gateway.admin.files import refuse_existing, write_whole
from gateway.admin.output import Form, emit, fail, say
from gateway.admin.progress import progress

if TYPE_CHECKING:
    from gateway.deidentify import Format, Scrubbed
    from gateway.deidentify.sandbox import Workers

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Pictures without what they should not tell."
)

_SUFFIXES = {
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "png": (".png",),
    "webp": (".webp",),
}
_COLUMNS = ("file", "state", "detail", "mode", "format", "out")
_FACES = ("file", "state", "detail", "faces", "masked", "similarity", "out")
_WORKERS = 4
_FACES_S = 60.0
"""Seconds for one picture: here somebody waits for a folder, not for a portrait."""


class ModeName(StrEnum):
    """How a picture is made clean."""

    LOSSLESS = "lossless"
    CANONICAL = "canonical"


class ProfileName(StrEnum):
    """What is done about faces."""

    BYSTANDERS = "bystanders"
    LANDMARKS = "landmarks"
    REDACT = "redact"


Inputs = Annotated[
    list[Path],
    typer.Argument(metavar="IN...", help="Pictures; a folder means every file in it and below."),
]
Out = Annotated[Path, typer.Option(help="Folder for the clean pictures; made if it is not there.")]
Report = Annotated[Path | None, typer.Option(help="File for what became of each, as JSON.")]


@dataclass(frozen=True, slots=True)
class _Work:
    """Who looks at the pictures, what is done with one, and what is told of it."""

    pool: Workers
    do: Callable[[bytes], Awaitable[tuple[Scrubbed, dict[str, Any]]]]
    state: str
    max_bytes: int


@dataclass(frozen=True, slots=True)
class _Task:
    """One file to be cleaned, and where it goes, below the folder for results."""

    file: Path
    place: Path


@app.callback()
def image() -> None:
    """Clean pictures and hide faces, offline."""


@app.command()
def clean(
    inputs: Inputs,
    out: Out,
    report: Report = None,
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
    tasks = _found(inputs, out, report, force=force)
    from gateway.deidentify import Limits
    from gateway.deidentify.sandbox import ImageScrubber

    limits = Limits()
    scrubber = ImageScrubber(limits, workers=_workers(tasks))

    async def do(data: bytes) -> tuple[Scrubbed, dict[str, Any]]:
        return await scrubber.scrub(data, mode.value), {}

    rows = asyncio.run(_all(tasks, out, _Work(scrubber, do, "cleaned", limits.max_bytes), force=force))
    _tell(rows, "cleaned", report, output, _COLUMNS)


@app.command()
def deidentify(
    inputs: Inputs,
    out: Out,
    profile: Annotated[
        ProfileName,
        typer.Option(
            help="bystanders hides every head but the largest face's; landmarks hides that too and draws a "
            "mesh that is everybody's; redact hides every head and draws nothing."
        ),
    ],
    report: Report = None,
    max_faces: Annotated[int, typer.Option(min=1, max=1000, help="A picture with more is refused.")] = 16,
    mask_text: Annotated[
        bool,
        typer.Option(
            "--mask-text",
            help="Cover writing, too: badges, signs; not what lies over the largest face's head.",
        ),
    ] = False,
    weights: options.Weights = Path(".cache/weights"),
    force: options.Force = False,
    output: options.Output = Form.TABLE,
) -> None:
    """Write pictures whose faces are hidden, coded anew and without metadata, as for a backend or a dataset.

    What is written with landmarks or redact was looked at again: no face of the
    original is found in it, and a recogniser does not link the two; the report
    says how alike it holds them (a cosine, in thousandths).  Otherwise the
    picture is not written, and named with its detail.

    Exit codes: 0 all written, 5 some were not, 1 none was.

    Example: lethe image deidentify holiday/ --profile redact --out safe/ --report safe.json
    """
    tasks = _found(inputs, out, report, force=force)
    from gateway import weights as files
    from gateway.deidentify import Limits
    from gateway.deidentify.faces.names import needed
    from gateway.deidentify.faces.pool import ImageDeidentifier

    limits = Limits()
    try:
        networks = files.read(weights, files.named(*needed(mask_text=mask_text)))
    except files.WeightsInvalid as fault:
        fail(FAILED, "CONFIG_INVALID", str(fault))
    pool = ImageDeidentifier(limits, networks, workers=_workers(tasks), timeout_s=_FACES_S)

    async def do(data: bytes) -> tuple[Scrubbed, dict[str, Any]]:
        seen = await pool.deidentify(data, profile.value, max_faces=max_faces)
        told: dict[str, Any] = {"profile": seen.profile, "faces": seen.faces, "masked": seen.masked}
        if mask_text:
            told["words"] = seen.words
        if seen.similarity is not None:
            told["similarity"] = seen.similarity
        if seen.record is not None:
            told["record"] = asdict(seen.record)
        return seen.picture, told

    rows = asyncio.run(_all(tasks, out, _Work(pool, do, "deidentified", limits.max_bytes), force=force))
    _tell(rows, "deidentified", report, output, _FACES)


def _found(inputs: Sequence[Path], out: Path, report: Path | None, *, force: bool) -> list[_Task]:
    tasks = list(_tasks(inputs, out))
    if not tasks:
        fail(USAGE, "FILE_MISSING", "no file in there")
    if report is not None:
        refuse_existing(report, force)
    return tasks


def _tell(
    rows: Sequence[dict[str, Any]], state: str, report: Path | None, output: Form, columns: Sequence[str]
) -> NoReturn:
    """Say what became of each file, and exit."""
    done = sum(row["state"] == state for row in rows)
    told = {state: done, "rejected": len(rows) - done, "files": rows}
    if report is not None:
        write_whole(report, (json.dumps(told, indent=1) + "\n").encode())
    emit(told, output, rows="files", columns=columns)
    raise typer.Exit(DONE if done == len(rows) else PARTLY if done else FAILED)


def _workers(tasks: Sequence[_Task]) -> int:
    return min(_WORKERS, os.cpu_count() or 1, len(tasks))


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


async def _all(tasks: Sequence[_Task], out: Path, work: _Work, *, force: bool) -> list[dict[str, Any]]:
    """Return what became of each file; as many are worked on at once as there are workers."""
    from gateway.deidentify import ScrubberUnavailable

    try:
        await work.pool.start()
    except ScrubberUnavailable:
        fail(FAILED, "SCRUBBER_UNAVAILABLE", "no worker can be started")
    if missing := [wall for wall, stands in work.pool.confinement.items() if not stands]:
        say(f"warning: this kernel builds no {', '.join(missing)} around the worker")
    rows: list[dict[str, Any]] = []
    places = asyncio.Semaphore(_workers(tasks))
    with progress() as show:

        async def one(task: _Task) -> dict[str, Any]:
            # Read only when a worker is about to be free: pictures do not pile up in memory.
            async with places:
                row = await _one(task, out, work, force=force)
            rows.append(row)
            show(f"{len(rows)} of {len(tasks)}")
            return row

        try:
            return list(await asyncio.gather(*map(one, tasks)))
        finally:
            await work.pool.close()


async def _one(task: _Task, out: Path, work: _Work, *, force: bool) -> dict[str, Any]:
    """See to one file; return its row of the report."""
    from gateway.deidentify import Rejected, ScrubberUnavailable

    try:
        picture, told = await work.do(_read(task.file, work.max_bytes))
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
    return _written(task, place, picture, work.state) | told


def _read(file: Path, max_bytes: int) -> bytes:
    with file.open("rb") as opened:
        # One byte more than is allowed is enough for a refusal.
        return opened.read(max_bytes + 1)


def _named(place: Path, form: Format) -> Path:
    """Return the place with an ending that says what is in the file."""
    suffixes = _SUFFIXES[form]
    return place if place.suffix.lower() in suffixes else place.with_name(place.name + suffixes[0])


def _written(task: _Task, place: Path, picture: Scrubbed, state: str) -> dict[str, Any]:
    return {
        "file": str(task.file),
        "state": state,
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
