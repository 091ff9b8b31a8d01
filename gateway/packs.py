"""The operator's own packs: the files of a folder."""

from __future__ import annotations

from pathlib import Path

from policy.errors import PackInvalid

MAX_BYTES = 1 << 20


def own_packs(folder: Path | None) -> tuple[tuple[str, bytes], ...]:
    """Return path and content of the operator's pack files; none without a folder.

    Raises:
        PackInvalid: The folder or a file in it cannot be read, or is too large for a pack.
    """
    if folder is None:
        return ()
    try:
        return tuple((str(file), pack_bytes(file)) for file in sorted(folder.iterdir()) if is_pack(file))
    except OSError as error:
        raise PackInvalid(str(error.strerror), file=str(folder)) from error


def is_pack(file: Path) -> bool:
    """Return whether a file means to be a pack; one that ends in `.yml` does, and is refused by its name."""
    return file.suffix in {".yaml", ".yml"} and not file.name.startswith(".")


def pack_bytes(file: Path) -> bytes:
    """Return the content of a pack's file.

    Raises:
        PackInvalid: It cannot be read, or is too large for a pack.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise PackInvalid(str(error.strerror), file=str(file)) from error
    if len(data) > MAX_BYTES:
        raise PackInvalid("too large for a pack", file=str(file))
    return data
