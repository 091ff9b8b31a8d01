"""Reading what a command is given, and writing files whole or not at all."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import typer

from gateway.admin.exits import FAILED, USAGE
from gateway.admin.output import fail

STDIN = Path("-")


def read_bytes(path: Path) -> bytes:
    """Return the content of a file, or of stdin for `-`.

    Raises:
        typer.BadParameter: It cannot be read.
    """
    if path == STDIN:
        return sys.stdin.buffer.read()
    try:
        return path.read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}") from error


def read_text(path: Path) -> str:
    """Return the text of a file (UTF-8), or of stdin for `-`; see `read_bytes`."""
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{path}: not UTF-8") from error


def refuse_existing(path: Path, force: bool) -> None:
    """End the command if it would overwrite a file; asked before anything is sent."""
    if path.is_dir():
        fail(USAGE, "FILE_EXISTS", f"{path} is a folder")
    if not path.parent.is_dir():
        fail(USAGE, "FOLDER_MISSING", f"there is no folder {path.parent}")
    if path.exists() and not force:
        fail(USAGE, "FILE_EXISTS", f"{path} is there; --force overwrites it")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, in one step: a failure leaves nothing of it."""
    with writing(path) as file:
        file.write(data)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file that gets its name at the end of the block; see `write_whole`."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink()
            raise
    except OSError as error:
        fail(FAILED, "FILE_UNWRITABLE", f"{path}: {error.strerror}")
