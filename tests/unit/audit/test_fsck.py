from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from audit import leaf, tiles, tree
from audit.errors import TileInvalid
from audit.fsck import FsckReport, compare, folder_reader, fsck
from tests.unit.audit.logs import ORIGIN, SIGNER, STRANGER, event
from tests.unit.audit.published import publish, signed

KEYS = [SIGNER.verifier]
# Three full tiles and one of 32 hashes at level 0, one of three hashes at level 1.
SIZE = 800
LINES = [b"entry %d" % number for number in range(SIZE)]
LOG = publish(LINES)
ROOT = tree.root_of_leaves(map(tree.hash_leaf, LINES))
# 70,000 entries have partial tiles at the levels 0, 1 and 2.
LARGE_LINES = [b"%d" % number for number in range(70_000)]
LARGE = publish(LARGE_LINES)

Log = dict[str, bytes]


def checked(log: Log, **options: object) -> FsckReport:
    return fsck(log.get, KEYS, **options)  # type: ignore[arg-type]


def fault(log: Log, **options: object) -> tuple[str, str, int | None]:
    report = checked(log, **options)
    assert report.verdict == "invalid"
    return report.fault.partition(":")[0], report.path, report.index


def flipped(log: Log, path: str, at: int) -> Log:
    content = bytearray(log[path])
    content[at] ^= 1
    return log | {path: bytes(content)}


def without(log: Log, *paths: str) -> Log:
    assert set(paths) <= log.keys()
    return {path: content for path, content in log.items() if path not in paths}


def swapped(log: Log, one: str, other: str) -> Log:
    return log | {one: log[other], other: log[one]}


def rows(lines: Sequence[bytes] = LINES, start: int = 0, batch: int = 100) -> list[list[tuple[int, bytes]]]:
    numbered = list(enumerate(lines))[start:]
    return [numbered[at : at + batch] for at in range(0, len(numbered), batch)]


# --- what is right ----------------------------------------------------------------------------


def test_a_log_that_is_whole_is_valid() -> None:
    expected = FsckReport("valid", "", "", None, ORIGIN, SIZE, ROOT.hex(), entries=SIZE, pruned=0, tiles=5)
    assert expected == checked(LOG)


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_537])
def test_logs_of_all_shapes_are_valid(size: int) -> None:
    report = checked(publish(LARGE_LINES[:size]))
    tiles_of_it = sum(-(-(size >> 8 * level) // 256) for level in range(3))
    assert ("valid", size, tiles_of_it) == (report.verdict, report.entries, report.tiles)


def test_a_log_over_three_levels_is_valid_and_its_bounds_are_those_of_the_specification() -> None:
    report = checked(LARGE)
    assert (report.verdict, report.entries, report.tiles) == ("valid", 70_000, 274 + 2 + 1)


def test_without_trust_a_log_is_never_called_valid() -> None:
    report = fsck(LOG.get, None)
    assert (report.verdict, report.fault, report.entries) == ("untrusted", "", SIZE)


def test_what_is_partial_may_have_given_way_to_what_is_full() -> None:
    later = publish([*LINES, *LARGE_LINES[:300]])
    grown = {path: content for path, content in later.items() if path != "checkpoint"}
    log = LOG | grown
    assert checked(without(log, "tile/0/003.p/32", "tile/entries/003.p/32")).verdict == "valid"
    log = without(LOG, "tile/1/000.p/3") | {"tile/1/000": later["tile/1/000.p/4"] + bytes(252 * 32)}
    assert checked(log).verdict == "valid"


def test_what_is_published_ahead_of_the_checkpoint_does_no_harm() -> None:
    assert checked(publish([*LINES, b"one more"]) | LOG).verdict == "valid"


def test_progress_is_told_after_every_bundle() -> None:
    told: list[int] = []
    checked(LOG, step=told.append)
    assert told == [256, 512, 768, 800]


def test_no_more_than_one_resource_of_a_kind_is_held_at_a_time() -> None:
    """Each resource is read once, in the order of the log: nothing is collected."""
    asked: list[str] = []

    def read(path: str) -> bytes | None:
        asked.append(path)
        return LARGE.get(path)

    fsck(read, KEYS)
    assert len(asked) == len(set(asked)) == len(LARGE)
    assert [path for path in asked if "entries" in path] == [
        tiles.entries_path(index, tiles.width(0, index, 70_000)) for index in range(274)
    ]


# --- each kind of damage ----------------------------------------------------------------------


def test_any_byte_of_a_checkpoint_counts() -> None:
    for at in range(len(LOG["checkpoint"])):
        report = checked(flipped(LOG, "checkpoint", at))
        assert (report.verdict, report.path) == ("invalid", "checkpoint")


@pytest.mark.parametrize(
    ("log", "code"),
    [
        (without(LOG, "checkpoint"), "checkpoint_missing"),
        (LOG | {"checkpoint": b"\xff"}, "checkpoint_not_text"),
        (LOG | {"checkpoint": b""}, "note_malformed"),
        (LOG | {"checkpoint": b"x" * (1 << 20)}, "note_too_large"),
        (LOG | signed(SIZE, ROOT, STRANGER), "note_unknown_keys"),
        (LOG | signed(SIZE, ROOT[::-1]), "root_differs"),
        (LOG | {"checkpoint": SIGNER.sign("no checkpoint\n").encode()}, "checkpoint_lines"),
    ],
)
def test_a_checkpoint_that_is_not_the_logs_is_named(log: Log, code: str) -> None:
    assert (code, "checkpoint", None) == fault(log)


@pytest.mark.parametrize("path", [path for path in LOG if path.startswith("tile/") and "entries" not in path])
@pytest.mark.parametrize("at", [0, 31, 32, -1])
def test_a_flipped_byte_of_a_tile_names_the_tile(path: str, at: int) -> None:
    assert ("tile_differs", path, None) == fault(flipped(LOG, path, at))


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/000",
        "tile/0/137",
        "tile/0/272",
        "tile/0/273.p/112",
        "tile/1/000",
        "tile/1/001.p/17",
        "tile/2/000.p/1",
    ],
)
def test_a_flipped_byte_of_a_tile_names_the_tile_on_every_level(path: str) -> None:
    for at in (0, len(LARGE[path]) // 2, -1):
        assert ("tile_differs", path, None) == fault(flipped(LARGE, path, at))


def test_a_flipped_byte_of_an_entry_names_the_bundle_and_the_entry() -> None:
    at = LOG["tile/entries/001"].index(b"entry 300")
    assert fault(flipped(LOG, "tile/entries/001", at + 8)) == ("entry_differs", "tile/entries/001", 300)
    assert fault(flipped(LOG, "tile/entries/003.p/32", 2)) == ("entry_differs", "tile/entries/003.p/32", 768)
    assert (
        checked(flipped(LOG, "tile/entries/001", 2)).fault
    ) == "entry_differs: tile/entries/001, entry 256: its hash is not the one in the tree"


def test_what_was_right_until_the_fault_is_counted() -> None:
    report = checked(flipped(LOG, "tile/entries/001", 2))
    assert (report.entries, report.index) == (256, 256)


def test_any_byte_of_a_bundle_counts() -> None:
    path = "tile/entries/003.p/32"
    for at in range(len(LOG[path])):
        code, at_path, _ = fault(flipped(LOG, path, at))
        assert path == at_path
        assert code in {"entry_differs", "bundle_truncated", "bundle_too_long"}


@pytest.mark.parametrize("path", [path for path in LOG if "entries" in path])
def test_a_bundle_that_is_missing_is_named(path: str) -> None:
    assert ("bundle_missing", path, None) == fault(without(LOG, path))


@pytest.mark.parametrize("path", [path for path in LOG if path.startswith("tile/") and "entries" not in path])
def test_a_tile_that_is_missing_is_named(path: str) -> None:
    assert ("tile_missing", path, None) == fault(without(LOG, path))


@pytest.mark.parametrize("path", sorted(LOG.keys() - {"checkpoint"}))
@pytest.mark.parametrize("change", ["truncated", "too_long"])
def test_a_resource_that_is_cut_or_goes_on_is_named(path: str, change: str) -> None:
    content = LOG[path]
    kind = "bundle" if "entries" in path else "tile"
    pieces = (
        [b"", content[:1], content[:-1], content[:-32]]
        if change == "truncated"
        else [content + b"\0", content + content[:32]]
    )
    for piece in pieces:
        assert (f"{kind}_{change}", path, None) == fault(LOG | {path: piece})


def test_entries_or_tiles_in_each_others_place_are_named() -> None:
    assert fault(swapped(LOG, "tile/0/000", "tile/0/001")) == ("tile_differs", "tile/0/000", None)
    assert fault(swapped(LOG, "tile/entries/000", "tile/entries/001")) == (
        "entry_differs",
        "tile/entries/000",
        0,
    )
    lines = LINES[:256]
    lines[6], lines[7] = lines[7], lines[6]
    assert fault(LOG | {"tile/entries/000": tiles.bundle(lines)}) == ("entry_differs", "tile/entries/000", 6)


def test_a_partial_tile_of_another_log_is_named() -> None:
    other = publish([b"other %d" % number for number in range(SIZE)])
    for path in ("tile/0/003.p/32", "tile/1/000.p/3"):
        assert ("tile_differs", path, None) == fault(LOG | {path: other[path]})


def test_several_false_tiles_at_the_edge_are_named_from_below() -> None:
    log = LARGE
    for path in ("tile/2/000.p/1", "tile/1/001.p/17", "tile/0/273.p/112"):
        log = flipped(log, path, 5)
    assert fault(log) == ("tile_differs", "tile/0/273.p/112", None)


def test_a_false_tile_at_the_edge_is_named_though_its_entries_are_pruned() -> None:
    log = without(LOG, "tile/entries/003.p/32")
    assert fault(flipped(log, "tile/1/000.p/3", 5), min_index=SIZE) == (
        "tile_differs",
        "tile/1/000.p/3",
        None,
    )
    # Nothing is left that would tell whether tile or checkpoint is false.
    assert fault(flipped(log, "tile/0/003.p/32", 5), min_index=SIZE) == ("root_differs", "checkpoint", None)


def test_a_log_whose_entry_and_hashes_were_forged_to_fit_has_another_root() -> None:
    lines = [*LINES]
    lines[300] = b"forged"
    assert fault(publish(lines) | {"checkpoint": LOG["checkpoint"]}) == ("root_differs", "checkpoint", None)


def test_a_checkpoint_of_another_size_needs_other_tiles() -> None:
    assert fault(LOG | signed(SIZE + 1, ROOT)) == ("tile_missing", "tile/0/003.p/33", None)
    assert fault(LOG | signed(SIZE - 1, ROOT)) == ("tile_missing", "tile/0/003.p/31", None)
    # The largest size there can be asks for no more than its edge.
    assert fault(LOG | signed((1 << 63) - 1, ROOT))[0] == "tile_missing"


def test_what_cannot_be_read_is_let_through() -> None:
    def read(_path: str) -> bytes | None:
        raise PermissionError

    with pytest.raises(PermissionError):
        fsck(read, KEYS)


# --- pruning ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("min_index", "bundles", "pruned"),
    [
        (256, ["tile/entries/000"], 256),
        (512, ["tile/entries/000", "tile/entries/001"], 512),
        (300, ["tile/entries/000", "tile/entries/001"], 512),
        (512, ["tile/entries/001"], 256),
        (512, [], 0),
        (SIZE, [path for path in LOG if "entries" in path], SIZE),
    ],
)
def test_bundles_below_the_minimum_index_may_be_gone(min_index: int, bundles: list[str], pruned: int) -> None:
    report = checked(without(LOG, *bundles), min_index=min_index)
    assert ("valid", pruned, SIZE - pruned) == (report.verdict, report.pruned, report.entries)


def test_a_bundle_from_the_minimum_index_on_may_not_be_gone() -> None:
    assert fault(without(LOG, "tile/entries/000", "tile/entries/001"), min_index=256) == (
        "bundle_missing",
        "tile/entries/001",
        None,
    )


def test_a_bundle_below_the_minimum_index_is_checked_if_it_is_there() -> None:
    assert fault(flipped(LOG, "tile/entries/000", 3), min_index=512) == (
        "entry_differs",
        "tile/entries/000",
        0,
    )


def test_hash_tiles_are_never_pruned() -> None:
    assert fault(without(LOG, "tile/0/000"), min_index=512) == ("tile_missing", "tile/0/000", None)


@pytest.mark.parametrize("min_index", [-1, SIZE + 1])
def test_a_minimum_index_outside_of_the_log_is_refused(min_index: int) -> None:
    assert fault(LOG, min_index=min_index) == ("min_index", "", None)


# --- entries as leaves ------------------------------------------------------------------------


def test_an_entry_that_is_no_leaf_is_found_only_when_asked_for() -> None:
    lines = [leaf.encode(event("dsr.approved", start=number)) for number in range(300)]
    assert checked(publish(lines), deep=True).verdict == "valid"
    lines[270] += b" "
    log = publish(lines)
    assert checked(log).verdict == "valid"
    assert fault(log, deep=True) == ("leaf_not_canonical", "tile/entries/001.p/44", 270)
    lines[3] = b'{"secret":"a name"}'
    report = checked(publish(lines), deep=True)
    assert (report.path, report.index) == ("tile/entries/000", 3)
    assert "name" not in report.fault


# --- the database -----------------------------------------------------------------------------


def compared(found: list[list[tuple[int, bytes]]], log: Log = LOG, min_index: int = 0) -> FsckReport:
    return compare(log.get, KEYS, found, min_index=min_index)


def row_fault(found: list[list[tuple[int, bytes]]], min_index: int = 0) -> tuple[str, str, int | None]:
    report = compared(found, min_index=min_index)
    assert report.verdict == "invalid"
    return report.fault.partition(":")[0], report.path, report.index


@pytest.mark.parametrize("batch", [1, 7, 256, 1000])
def test_rows_that_are_the_entries_are_valid(batch: int) -> None:
    report = compared(rows(batch=batch))
    assert checked(LOG) == report


def test_rows_are_compared_without_bundles_and_beyond_the_checkpoint_not_at_all() -> None:
    log = {path: content for path, content in LOG.items() if "entries" not in path}
    assert compared(rows([*LINES, b"not published yet"]), log).verdict == "valid"
    assert compared([[], *rows(), []], log).verdict == "valid"


def test_rows_without_trust_are_not_called_valid() -> None:
    assert compare(LOG.get, None, rows()).verdict == "untrusted"


def test_a_row_that_differs_is_named() -> None:
    lines = [*LINES]
    lines[700] = b"forged"
    assert row_fault(rows(lines)) == ("entry_differs", "", 700)
    assert "the database, entry 700" in compared(rows(lines)).fault


@pytest.mark.parametrize("index", [0, 255, 256, 799])
def test_a_row_that_is_missing_is_named(index: int) -> None:
    found = [[row for row in batch if row[0] != index] for batch in rows()]
    assert ("row_missing", "", index) == row_fault(found)


def test_rows_that_come_twice_or_out_of_order_are_named() -> None:
    in_order = list(enumerate(LINES))
    assert row_fault([in_order[:6], in_order[5:]]) == ("row_order", "", 5)
    assert row_fault([[(-1, b"")], in_order]) == ("row_order", "", -1)
    assert row_fault([in_order[::-1]]) == ("row_missing", "", 0)


def test_a_row_beyond_what_a_bundle_can_hold_is_named() -> None:
    lines = [*LINES]
    lines[9] = b"x" * 65_536
    assert row_fault(rows(lines)) == ("entry_too_large", "", 9)


def test_rows_below_the_minimum_index_may_be_gone_each_or_not() -> None:
    report = compared(rows(start=300), min_index=300)
    assert (report.verdict, report.pruned, report.entries) == ("valid", 300, 500)
    held = [[(7, LINES[7]), (256, LINES[256])], *rows(start=300)]
    assert (
        compared(held, min_index=300).verdict,
        compared(held, min_index=300).pruned,
        compared(held, min_index=300).entries,
    ) == ("valid", 298, 502)
    assert row_fault(rows(start=301), min_index=300) == ("row_missing", "", 300)
    held[0][0] = (7, b"forged")
    assert row_fault(held, min_index=300) == ("entry_differs", "", 7)


def test_rows_are_not_compared_with_tiles_that_are_false() -> None:
    report = compared(rows(), flipped(LOG, "tile/0/001", 9))
    assert (report.path, report.entries) == ("tile/0/001", 256)


# --- on disk ----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for path, content in LOG.items():
        place = tmp_path / "log" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return tmp_path / "log"


def test_a_log_on_disk_is_valid_also_by_a_link_to_it(folder: Path) -> None:
    assert checked(LOG) == fsck(folder_reader(folder), KEYS)
    link = folder.parent / "link"
    link.symlink_to(folder)
    assert fsck(folder_reader(link), KEYS).verdict == "valid"


def test_what_is_not_there_is_none(folder: Path) -> None:
    read = folder_reader(folder)
    assert [read(path) for path in ("tile/7/000", "tile/0/000/x", "tile/0/x000/000")] == [None] * 3


def as_link(place: Path) -> None:
    target = place.rename(place.parents[1] / "elsewhere")
    place.symlink_to(target)


def as_pipe(place: Path) -> None:
    place.unlink()
    os.mkfifo(place)


def as_folder(place: Path) -> None:
    place.unlink()
    place.mkdir()


def as_too_large(place: Path) -> None:
    os.truncate(place, 32 << 20)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (as_link, "resource_link"),
        (as_pipe, "resource_special_file"),
        (as_folder, "resource_special_file"),
        (as_too_large, "resource_too_large"),
    ],
)
def test_what_is_no_regular_file_is_named_and_not_read(
    folder: Path, change: Callable[[Path], None], code: str
) -> None:
    change(folder / "tile/entries/001")
    report = fsck(folder_reader(folder), KEYS)
    assert (code, "tile/entries/001") == (report.fault.partition(":")[0], report.path)


def test_a_linked_folder_within_a_log_is_not_followed(folder: Path) -> None:
    moved = (folder / "tile").rename(folder.parent / "tile")
    (folder / "tile").symlink_to(moved)
    with pytest.raises(TileInvalid, match="resource_link"):
        folder_reader(folder)("tile/0/000")
