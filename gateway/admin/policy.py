"""`lethe policy`: decisions and clocks on facts from stdin, and the packs; no server and no configuration."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.admin import options
from gateway.admin.exits import DONE, FAILED, PARTLY, USAGE
from gateway.admin.files import STDIN, read_text
from gateway.admin.output import Form, emit, fail, say

if TYPE_CHECKING:
    from policy.pack import Pack

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Rule books, decisions and clocks.")

Own = Annotated[
    Path | None,
    typer.Option("--packs-dir", help="Folder with the operator's own packs."),
]


class LayerName(StrEnum):
    """Which layer is asked."""

    LEGAL = "legal"
    HOUSE = "house"
    BOTH = "both"


@app.callback()
def policy() -> None:
    """Ask the rule books, offline."""


@app.command()
def decide(
    layer: Annotated[LayerName, typer.Option(help="Which layer to print.")] = LayerName.BOTH,
    packs_dir: Own = None,
) -> None:
    """Decide on facts from stdin: one JSON object, or JSON Lines; one answer a line.

    Line n answers line n; what cannot be read is answered with `error`, named on
    stderr, and makes the exit code 5 (nothing could be read: 1).  A denial is an
    answer: 0.

    For example {"subject": {"residence": "DE", "age": 30}, "purpose": "train", "at": "2026-11-23T09:00:00Z"};
    a fact that is not said is taken the careful way, an unknown one is refused.

    Example: lethe policy decide < facts.json
    """
    from policy.answer import decided

    packs = _packs(packs_dir)
    _each(lambda given: decided(given, packs, layer.value))


@app.command()
def clock(packs_dir: Own = None) -> None:
    """Compute statutory clocks for cases from stdin: one JSON object, or JSON Lines; one answer a line.

    A case has regime, event, and received_at or inputs; holiday_calendar where the controller's is not
    the law's own; clock_tz, where days are counted, save where the law has its own place.  For example
    {"regime": "gdpr", "event": "access", "received_at": "2026-11-23T09:00:00Z", "clock_tz": "Europe/Paris"}.
    Exit codes as for decide.

    Example: lethe policy clock < cases.jsonl
    """
    from policy.answer import clocked

    packs = _packs(packs_dir)
    _each(lambda given: clocked(given, packs))


@app.command("packs")
def packs_(packs_dir: Own = None, output: options.Output = Form.TABLE) -> None:
    """List the packs with version, status and digest; `documentation` and `pending` never apply.

    Example: lethe policy packs -o json
    """
    rows = [
        {
            "id": pack.id,
            "version": pack.version,
            "status": pack.status,
            "title": pack.title,
            "digest": pack.digest,
        }
        for pack in _packs(packs_dir).values()
    ]
    emit({"packs": rows}, output, rows="packs", columns=("id", "version", "status", "title", "digest"))


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(help="Files of packs; a folder means every pack in it.")],
) -> None:
    """Check pack files: 0 if all can be used, 1 if not; each fault is named with file and line.

    Example: lethe policy check packs/ab_pipa.yaml
    """
    from gateway.packs import is_pack
    from policy.errors import PackInvalid

    built_in = _packs(None)
    named: list[Path] = []
    for path in files:
        named += sorted(filter(is_pack, path.iterdir())) if path.is_dir() else [path]
    faults = 0
    for file in named:
        try:
            pack = _checked(file, built_in)
        except PackInvalid as fault:
            faults += 1
            say(f"error: PACK_INVALID: {fault}")
        else:
            say(f"{file}: ok ({pack.id} {pack.version})")
    if not named:
        fail(USAGE, "FILE_MISSING", "no pack in there")
    raise typer.Exit(FAILED if faults else DONE)


def _checked(file: Path, built_in: Mapping[str, Pack]) -> Pack:
    """Return the pack in a file.

    Raises:
        PackInvalid: It is broken, or states a law that a pack states already.
    """
    from gateway.packs import pack_bytes
    from policy.errors import PackInvalid
    from policy.pack import read_pack

    pack = read_pack(str(file), pack_bytes(file))
    if pack.id in built_in and built_in[pack.id].digest != pack.digest:
        raise PackInvalid("the id of a pack that is built in: the law it states stays", 1, str(file))
    return pack


def _packs(folder: Path | None) -> dict[str, Pack]:
    from gateway.packs import own_packs
    from policy.errors import PackInvalid
    from policy.pack import load_packs

    try:
        return load_packs(own_packs(folder))
    except PackInvalid as fault:
        fail(FAILED, "PACK_INVALID", str(fault))


def _each(answer: Callable[[Any], Mapping[str, Any]]) -> None:
    """Print an answer for each question on stdin, in their order."""
    from policy.errors import PolicyError

    good = bad = 0
    for number, text in _questions(read_text(STDIN)):
        try:
            said = answer(_read(text))
            good += 1
        except PolicyError as fault:
            bad += 1
            said = {"error": fault.reason, "message": str(fault)}
            say(f"error: {fault.reason}: line {number}: {fault}")
        typer.echo(json.dumps(said, ensure_ascii=False))
    if not good and not bad:
        fail(USAGE, "MESSAGE_INVALID", "nothing on stdin: one JSON object, or one a line")
    raise typer.Exit(DONE if not bad else PARTLY if good else FAILED)


def _questions(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each question: the whole where that is one JSON value, else line by line."""
    try:
        json.loads(text)
    except ValueError:
        yield from ((number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip())
    else:
        yield 1, text


def _read(text: str) -> Any:
    """Read one JSON value; a key twice and a number that is none are no facts.

    Raises:
        FactInvalid: It is no such JSON.
    """
    from policy.errors import FactInvalid

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise FactInvalid("", "a key stands there twice")
        return found

    def refuse(_name: str) -> Any:
        raise FactInvalid("", "a number is expected")

    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise FactInvalid("", "no JSON") from error
