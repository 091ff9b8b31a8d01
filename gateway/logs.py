"""How the flows read a log from the records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from audit import checkpoint, tiles, tree
from audit.errors import AuditError
from gateway.errors import AuditUnavailable, StateConflict
from gateway.ports.records import Checkpoint, Leaf, LogHead, Tile, Transaction


def tile_reader(tx: Transaction, origin: str) -> tree.NodeReader:
    """Return what reads the tree's nodes from the tiles in the records.

    Raises:
        AuditUnavailable: When it reads: a tile is missing (detail `tile_missing`).
    """
    return tiles.reader(partial(tile, tx, origin))


def tile(tx: Transaction, origin: str, level: int, index: int) -> bytes:
    """Return the hashes of a tile; see `tile_reader`."""
    found = tx.get(Tile, origin, level, index)
    if found is None:
        raise AuditUnavailable("the tree has a hole", detail="tile_missing")
    return found.hashes


def newest_checkpoint(tx: Transaction, origin: str) -> Checkpoint | None:
    """Return the published checkpoint of the largest size."""
    return next(iter(tx.find(Checkpoint, equal={"log": origin}, order_by=("-size",), limit=1)), None)


def refuse_pruned(tx: Transaction, origin: str, index: int) -> None:
    """Return if the log keeps its leaves from `index` on.

    Raises:
        StateConflict: It does not (detail `range.pruned`); `min_index` in its metadata says from where on.
    """
    head = tx.get(LogHead, origin)
    if head is not None and index < head.min_index:
        raise pruned(head.min_index)


def pruned(min_index: int) -> StateConflict:
    """Return the refusal of what lies below the minimum index."""
    return StateConflict("the event is not kept any more", detail="range.pruned", min_index=str(min_index))


def leaves(tx: Transaction, origin: str, start: int, end: int) -> list[Leaf]:
    """Return the leaves [start, end) of a log.

    Raises:
        StateConflict: They begin below the log's minimum index (detail `range.pruned`).
        AuditUnavailable: One is missing: the log has a hole (detail `leaf_missing`).
    """
    refuse_pruned(tx, origin, start)
    found = tx.find(
        Leaf, equal={"log": origin}, above={"seq": start - 1}, below={"seq": end - 1}, order_by=("seq",)
    )
    if [leaf.seq for leaf in found] != list(range(start, end)):
        raise AuditUnavailable("the log has a hole", detail="leaf_missing")
    return found


def grow(
    tx: Transaction, origin: str, head: LogHead, hashes: Sequence[bytes], *, rehearse: bool = False
) -> LogHead:
    """Write the tiles that appending leaf `hashes` changes (unless `rehearse`) and return the new head."""
    standing: dict[tuple[int, int], Tile] = {}

    def edge(level: int, index: int) -> bytes:
        found = tx.get(Tile, origin, level, index)
        if found is None:
            return b""
        standing[level, index] = found
        # What lies beyond the head is of no tree that was ever signed.
        return found.hashes[: tiles.width(level, index, head.size) * tree.HASH_BYTES]

    changed = tiles.grow(head.size, hashes, edge)
    rows = {place: Tile(origin, *place, content) for place, content in changed.items()}
    if not rehearse:
        tx.put(*(row for place, row in rows.items() if place in standing))
        tx.add(*(row for place, row in rows.items() if place not in standing))
    size = head.size + len(hashes)
    read = tiles.reader(lambda level, index: changed.get((level, index)) or tile(tx, origin, level, index))
    return replace(head, size=size, root=tree.root_of(size, read))


def refuse_fork(head: LogHead, locked: checkpoint.Checkpoint | None, read: tree.NodeReader) -> None:
    """Return if the tree of `locked` is a past of the tree that the database holds.

    Raises:
        AuditUnavailable: The database lacks leaves that were signed (detail `log_rolled_back`),
            or holds other ones (`log_changed`).  Nothing is signed until somebody looked.
    """
    if locked is None:
        return
    if head.size < locked.size:
        raise AuditUnavailable("the records lack events that were signed", detail="log_rolled_back")
    try:
        root = head.root if head.size == locked.size else tree.root_of(locked.size, read)
    except AuditError as error:
        raise AuditUnavailable("a tile of the log is damaged", detail="log_changed") from error
    if root != locked.root:
        raise AuditUnavailable("the records hold another past than was signed", detail="log_changed")
