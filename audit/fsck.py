"""Checks a whole log in the tlog-tiles layout, and a database against its tiles.

It goes from the top down: what the checkpoint's root or a tile above vouches for
is right, so that the first thing that is not is the one at fault, and not what
was computed from it.  Entries are checked in the order of the log; no more than
one tile a level and one bundle are held.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Literal

from audit import checkpoint, leaf, note, tiles, tree
from audit.checkpoint import Checkpoint
from audit.errors import AuditError, LeafInvalid, TileInvalid
from audit.note import Verifier
from audit.tiles import HEIGHT, MAX_BUNDLE_BYTES, MAX_ENTRY_BYTES, WIDTH
from audit.tree import HASH_BYTES

CHECKPOINT = "checkpoint"
HEAD = "head"
"""Where a fault of a head lies that is no published checkpoint."""

Read = Callable[[str], bytes | None]
"""Path below the log's prefix to what is published there; None where nothing is."""

Rows = Iterable[Sequence[tuple[int, bytes]]]
"""Batches of (index, line) in the order of the log."""

Step = Callable[[int], object]
"""Told how many entries are behind, after every 256."""

_Entries = Callable[[int, int], tuple[str, Sequence[bytes | None]]]
"""(index, width) of a tile of level 0 to the entries under it and where they lie; None is a pruned one."""

_NO_HEAD = Checkpoint("", 0, b"")
_sha256 = hashlib.sha256


@dataclass(frozen=True, slots=True)
class FsckReport:
    """What a log was found to be.

    Attributes:
        verdict: `untrusted` says that it is consistent in itself and that no key was given.
        fault: The first fault, a sentence that begins with its code; empty where there is none.
        path: The resource at fault, if it is one.
        index: The entry at fault, if it is one.
        root: In hex.
        entries: How many entries were found to be the tree's, until the fault.
        pruned: How many below the minimum index are gone.
        tiles: How many tiles were found to be the tree's.
    """

    verdict: Literal["valid", "invalid", "untrusted"]
    fault: str = ""
    path: str = ""
    index: int | None = None
    origin: str = ""
    size: int = 0
    root: str = ""
    entries: int = 0
    pruned: int = 0
    tiles: int = 0


class _Fault(AuditError):
    """Where a log is not what it should be."""

    def __init__(self, code: str, message: str, *, path: str = "", index: int | None = None) -> None:
        where = path or ("the log" if index is None else "the database")
        if index is not None:
            where += f", entry {index}"
        super().__init__(code, f"{where}: {message}")
        self.path = path
        self.index = index


def fsck(
    read: Read,
    verifiers: Sequence[Verifier] | None,
    *,
    min_index: int = 0,
    deep: bool = False,
    step: Step = lambda _entries: None,
) -> FsckReport:
    """Return whether all that is published of a log is that log: checkpoint, tiles and entries.

    A partial tile or bundle may have given way to the full one.  A bundle that
    begins below the minimum index may be absent, and is checked if it is there.
    Hash tiles are not pruned.

    Args:
        read: Reads a resource; an AuditError it raises is a fault of the resource, all else is let through.
        verifiers: Keys of the log; without any trust (None) the verdict is at best `untrusted`.
        min_index: The log's minimum index: entries before it may be gone.
        deep: Also parse each entry: it must be a leaf of the closed schema.
        step: Is told the progress.

    Rule:
        c2sp.org/tlog-tiles.
    """
    log = _Log(read, min_index)
    return _report(log, verifiers, _bundles(log), deep, step)


def compare(
    read: Read,
    verifiers: Sequence[Verifier] | None,
    rows: Rows,
    *,
    head: Checkpoint | None = None,
    min_index: int = 0,
    deep: bool = False,
    step: Step = lambda _entries: None,
) -> FsckReport:
    """Return whether the rows of a database are the entries that the published tiles are of.

    Checkpoint and tiles are checked as `fsck` does; bundles are not read.  Rows
    from the checkpoint's size on are not published yet, and not looked at.

    Args:
        read: Reads a resource; an AuditError it raises is a fault of the resource, all else is let through.
        verifiers: Keys of the log; without any trust (None) the verdict is at best `untrusted`.
        rows: Every row from the minimum index on; of those before it any may be gone.
        head: What is believed in place of a published checkpoint, which is then not read; bundles
            help, where there are any, to tell which tile is at fault.
        min_index: The log's minimum index.
        deep: Also parse each entry: it must be a leaf of the closed schema.
        step: Is told the progress.
    """
    log = _Log(read, min_index, known=head)
    return _report(log, verifiers, _rows(log, rows), deep, step)


def folder_reader(folder: Path) -> Read:
    """Return a reader of a published log on disk; whoever made the folder may be hostile.

    Nothing is followed out of the folder; `folder` itself may be a link.

    Raises:
        TileInvalid: When it reads: a link, a special file, or more bytes than any resource has.
        OSError: When it reads: the disk refuses.
    """
    root = folder.resolve()

    @lru_cache
    def is_linked(parent: str) -> bool:
        return (root / parent).resolve() != root / parent

    def read(path: str) -> bytes | None:
        if is_linked(path.rpartition("/")[0]):
            raise TileInvalid("resource_link", "a symbolic link is no part of a log")
        try:
            handle = os.open(f"{root}/{path}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise TileInvalid("resource_link", "a symbolic link is no part of a log") from None
        try:
            return _content(handle)
        finally:
            os.close(handle)

    return read


def _content(handle: int) -> bytes:
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        raise TileInvalid("resource_special_file", "it is no regular file")
    if found.st_size > MAX_BUNDLE_BYTES:
        raise TileInvalid("resource_too_large", "no resource has so many bytes")
    # One byte more than it had: a file that is being written to is longer than its path says.
    with open(handle, "rb", closefd=False) as file:
        return file.read(found.st_size + 1)


@dataclass(slots=True)
class _Log:
    """A log as it is read; the counts are of what was found right."""

    read: Read
    min_index: int
    known: Checkpoint | None = None
    head: Checkpoint = _NO_HEAD
    entries: int = 0
    pruned: int = 0
    tiles: int = 0

    @property
    def size(self) -> int:
        """Number of entries by the checkpoint."""
        return self.head.size

    def read_head(self, verifiers: Sequence[Verifier] | None) -> Checkpoint:
        """Return the checkpoint that the log is checked against."""
        if self.known is not None:
            return self.known
        content = self.resource(CHECKPOINT)
        if content is None:
            raise _Fault("checkpoint_missing", "there is none", path=CHECKPOINT)
        try:
            text = content.decode()
        except UnicodeDecodeError:
            raise _Fault("checkpoint_not_text", "it is not UTF-8", path=CHECKPOINT) from None
        with _faults_of(CHECKPOINT):
            if verifiers is None:
                return checkpoint.parse(note.parse(text)[0])
            return checkpoint.open_checkpoint(text, verifiers)

    def resource(self, path: str) -> bytes | None:
        """Return what is published at `path`."""
        with _faults_of(path):
            return self.read(path)

    def tile(self, level: int, index: int) -> bytes:
        """Return a tile in the width that the size gives it; its hashes are not checked."""
        width = tiles.width(level, index, self.size)
        path = tiles.tile_path(level, index, width)
        content = self.resource(path)
        if content is not None:
            return _of_width(path, content, width)
        full = tiles.tile_path(level, index)
        content = self.resource(full) if width < WIDTH else None
        if content is None:
            raise _Fault("tile_missing", "it is not there", path=path)
        return _of_width(full, content, WIDTH)[: width * HASH_BYTES]

    def bundle(self, index: int, width: int) -> tuple[str, list[bytes] | None]:
        """Return the first `width` entries of a bundle and its path; None if there is no such bundle."""
        path = tiles.entries_path(index, width)
        content, there = self.resource(path), width
        if content is None and width < WIDTH:
            full = tiles.entries_path(index)
            content, there = self.resource(full), WIDTH
            path = path if content is None else full
        if content is None:
            return path, None
        with _faults_of(path):
            return path, tiles.read_bundle(content, there)[:width]

    def edge(self) -> dict[int, bytes]:
        """Return the partial tiles, by level, the highest first: together they have the tree's root."""
        levels = range(self.size.bit_length() // HEIGHT, -1, -1)
        return {
            level: self.tile(level, index)
            for level in levels
            if tiles.width(level, index := self.size >> HEIGHT * (level + 1), self.size)
        }

    def leaf_tiles(self, edge: Mapping[int, bytes]) -> Iterator[tuple[int, bytes]]:
        """Yield (index, tile) of every tile of level 0, checked from the edge down, in order."""
        for level, tile in edge.items():
            yield from self._below(level, self.size >> HEIGHT * (level + 1), tile)

    def _below(self, level: int, index: int, tile: bytes) -> Iterator[tuple[int, bytes]]:
        self.tiles += 1
        if level == 0:
            yield index, tile
            return
        for place in range(len(tile) // HASH_BYTES):
            child = index * WIDTH + place
            hashes = self.tile(level - 1, child)
            if tiles.tile_root(hashes) != tile[place * HASH_BYTES : (place + 1) * HASH_BYTES]:
                path = tiles.tile_path(level - 1, child)
                raise _Fault("tile_differs", "its root is not the one in the tile above", path=path)
            yield from self._below(level - 1, child, hashes)


def _report(
    log: _Log, verifiers: Sequence[Verifier] | None, entries: _Entries, deep: bool, step: Step
) -> FsckReport:
    fault: _Fault | None = None
    try:
        _verify(log, verifiers, entries, deep, step)
    except _Fault as first:
        fault = first
    return FsckReport(
        "invalid" if fault else "untrusted" if verifiers is None else "valid",
        fault=str(fault or ""),
        path=fault.path if fault else "",
        index=fault.index if fault else None,
        origin=log.head.origin,
        size=log.head.size,
        root=log.head.root.hex(),
        entries=log.entries,
        pruned=log.pruned,
        tiles=log.tiles,
    )


def _verify(
    log: _Log, verifiers: Sequence[Verifier] | None, entries: _Entries, deep: bool, step: Step
) -> None:
    """Return if nothing is wrong.

    The steps, in this order:
        (1) The checkpoint is signed by a known key of its origin's name.
        (2) The tiles at the right edge have the checkpoint's root.
        (3) Each full tile has the root that the tile above it says.
        (4) Each entry has the hash that its tile of level 0 says.
    """
    # (1)
    log.head = log.read_head(verifiers)
    if not 0 <= log.min_index <= log.size:
        raise _Fault("min_index", "the minimum index lies outside of it")
    # (2)
    edge = log.edge()
    if _root(log, edge) != log.head.root:
        raise _blame(log, edge)
    # (3)
    for index, tile in log.leaf_tiles(edge):
        # (4)
        path, lines = entries(index, len(tile) // HASH_BYTES)
        _check(log, index, path, lines, tile)
        if deep:
            _parse(index, path, lines)
        step(log.entries + log.pruned)


def _check(log: _Log, index: int, path: str, lines: Sequence[bytes | None], tile: bytes) -> None:
    """Count the entries under a tile of level 0, each of which has its hash there."""
    there = [line for line in lines if line is not None]
    if len(there) == len(lines) and _hashes(there) == tile:
        log.entries += len(there)
        return
    for place, line in enumerate(lines):
        if line is None:
            log.pruned += 1
        elif tree.hash_leaf(line) == tile[place * HASH_BYTES : (place + 1) * HASH_BYTES]:
            log.entries += 1
        else:
            raise _Fault(
                "entry_differs", "its hash is not the one in the tree", path=path, index=index * WIDTH + place
            )


def _parse(index: int, path: str, lines: Sequence[bytes | None]) -> None:
    for place, line in enumerate(lines, start=index * WIDTH):
        try:
            if line is not None:
                leaf.decode(line)
        except LeafInvalid as error:
            raise _Fault(error.code, "it is no leaf of this schema", path=path, index=place) from None


def _bundles(log: _Log) -> _Entries:
    """Return a reader of entries from what is published."""

    def entries(index: int, width: int) -> tuple[str, Sequence[bytes | None]]:
        path, lines = log.bundle(index, width)
        if lines is None and index * WIDTH >= log.min_index:
            raise _Fault("bundle_missing", "it is not there", path=path)
        return path, [None] * width if lines is None else lines

    return entries


def _rows(log: _Log, rows: Rows) -> _Entries:
    """Return a reader of entries from rows of a database, which it takes one after the other."""
    coming = chain.from_iterable(rows)
    ahead = next(coming, None)

    def line(index: int) -> bytes | None:
        nonlocal ahead
        if ahead is None or ahead[0] > index:
            if index >= log.min_index:
                raise _Fault("row_missing", "there is no row of it", index=index)
            return None
        at, found = ahead
        if at < index:
            raise _Fault("row_order", "its row comes twice, or after a later one", index=at)
        if len(found) > MAX_ENTRY_BYTES:
            raise _Fault("entry_too_large", "an entry has at most 65,535 bytes", index=index)
        ahead = next(coming, None)
        return found

    def entries(index: int, width: int) -> tuple[str, Sequence[bytes | None]]:
        return "", [line(place) for place in range(index * WIDTH, index * WIDTH + width)]

    return entries


def _root(log: _Log, edge: Mapping[int, bytes]) -> bytes:
    # All nodes that a root is made of lie in partial tiles: a full one is a hash one level up.
    return tree.root_of(log.size, tiles.reader(lambda level, _index: edge[level]))


def _blame(log: _Log, edge: Mapping[int, bytes]) -> _Fault:
    """Return which tile of the edge is at fault: the lowest one that is not what lies below it.

    If the root were still another with every such tile put right, it is no
    single tile: checkpoint and tree are of different logs, or of different times.
    """
    below = {level: _from_below(log, level) or tile for level, tile in edge.items()}
    wrong = [level for level in edge if below[level] != edge[level]]
    if not wrong or _root(log, below) != log.head.root:
        where = CHECKPOINT if log.known is None else HEAD
        return _Fault("root_differs", "its root is not that of the tiles", path=where)
    level = min(wrong)
    index = log.size >> HEIGHT * (level + 1)
    path = tiles.tile_path(level, index, tiles.width(level, index, log.size))
    return _Fault("tile_differs", "it is not what lies below it, which has the checkpoint's root", path=path)


def _from_below(log: _Log, level: int) -> bytes | None:
    """Return what the partial tile of a level should be, or None if entries are gone that would tell."""
    index = log.size >> HEIGHT * (level + 1)
    width = tiles.width(level, index, log.size)
    if level == 0:
        lines = log.bundle(index, width)[1]
        return None if lines is None else _hashes(lines)
    children = range(index * WIDTH, index * WIDTH + width)
    return b"".join([tiles.tile_root(log.tile(level - 1, child)) for child in children])


def _hashes(lines: Sequence[bytes]) -> bytes:
    return b"".join([_sha256(b"\0" + line).digest() for line in lines])


def _of_width(path: str, content: bytes, width: int) -> bytes:
    if len(content) < width * HASH_BYTES:
        raise _Fault("tile_truncated", "it has fewer hashes than its path says", path=path)
    if len(content) > width * HASH_BYTES:
        raise _Fault("tile_too_long", "it has more bytes than its path says", path=path)
    return content


@contextmanager
def _faults_of(path: str) -> Iterator[None]:
    """Name the resource in what is wrong with it."""
    try:
        yield
    except AuditError as error:
        raise _Fault(error.code, str(error).partition(": ")[2] or "refused", path=path) from None
