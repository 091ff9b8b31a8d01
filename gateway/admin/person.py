"""Where a command takes a subject's id from: a file, stdin or a prompt, and not argv."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import typer

from gateway.admin.files import read_text

_ID = re.compile(r"[A-Za-z0-9._~-]{1,128}", re.ASCII)


def subject_name(file: Path | None, subject: str | None, opaque: bool) -> str:
    """Return `subjects/ID` for the subject that the options name; ask where they name none.

    Raises:
        typer.BadParameter: An id on argv without `--opaque`, two sources, or none
            and nobody to ask.  The id is not repeated: an error is no place for it.
    """
    name = maybe_subject_name(file, subject, opaque)
    if name:
        return name
    if not sys.stdin.isatty():
        raise typer.BadParameter("say whose data: --subject-file FILE, or - for stdin")
    return _name(typer.prompt("Subject id", err=True))


def maybe_subject_name(file: Path | None, subject: str | None, opaque: bool) -> str:
    """Return `subjects/ID`, or nothing where no option names a subject; see `subject_name`."""
    if subject is not None and not opaque:
        raise typer.BadParameter(
            "--subject puts an id where others can read it: use --subject-file, "
            "or assure with --opaque that it names nobody"
        )
    if subject is not None and file is not None:
        raise typer.BadParameter("--subject and --subject-file exclude each other")
    if opaque and subject is None:
        raise typer.BadParameter("--opaque belongs to --subject")
    if file is not None:
        return _name(read_text(file))
    return _name(subject) if subject is not None else ""


def _name(text: str) -> str:
    bare = text.strip().removeprefix("subjects/")
    if not _ID.fullmatch(bare):
        raise typer.BadParameter("a subject's id is one line of 1 to 128 letters, digits, and . _ ~ -")
    return f"subjects/{bare}"
