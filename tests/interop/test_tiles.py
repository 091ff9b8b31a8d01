"""Others read our tiles and bundles of entries up to the root, and find a byte that is not as it was."""

from __future__ import annotations

import pytest

from audit import tiles
from tests.interop.foreign import Refused, Tools, flipped, replaced
from tests.interop.published import LAST, SIZES, Published

VERIFIERS = ("x/mod", "aics-tlog")

# Of the log of 70,000: 273 full tiles of leaf hashes and one of 112; 273 hashes of them; one of those.
TILES = ((0, 0, 256), (0, 272, 256), (0, 273, 112), (1, 0, 256), (1, 1, 17), (2, 0, 1))
BUNDLES = ((0, 256), (255, 256), (272, 256), (273, 112))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("verifier", VERIFIERS)
def test_every_tile_and_bundle_of_every_size_is_accepted(
    tools: Tools, log: Published, verifier: str, size: int
):
    tools.ask(verifier, "tree", log.keys, log.head(size), log.folder)


@pytest.mark.parametrize("tile", TILES, ids=lambda tile: tiles.tile_path(*tile))
@pytest.mark.parametrize("at", [0, -1])
@pytest.mark.parametrize("verifier", VERIFIERS)
def test_a_flipped_byte_of_a_tile_is_refused(
    tools: Tools, log: Published, verifier: str, at: int, tile: tuple[int, int, int]
):
    path = log.folder / tiles.tile_path(*tile)
    with flipped(path, at), pytest.raises(Refused):
        tools.ask(verifier, "tree", log.keys, log.head(LAST), log.folder)


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: tiles.entries_path(*bundle))
@pytest.mark.parametrize("at", [1, 2, -1])
@pytest.mark.parametrize("verifier", VERIFIERS)
def test_a_flipped_byte_of_a_bundle_is_refused(
    tools: Tools, log: Published, verifier: str, at: int, bundle: tuple[int, int]
):
    """Of the length of its first entry, of that entry, and of its last."""
    path = log.folder / tiles.entries_path(*bundle)
    with flipped(path, at), pytest.raises(Refused):
        tools.ask(verifier, "tree", log.keys, log.head(LAST), log.folder)


@pytest.mark.parametrize(
    ("verifier", "name", "added"),
    [
        ("x/mod", "tile/1/001.p/17", -32),
        ("x/mod", "tile/1/001.p/17", 32),
        ("x/mod", "tile/entries/273.p/112", -1),
        ("x/mod", "tile/entries/273.p/112", 1),
        ("aics-tlog", "tile/1/001.p/17", -32),
        # It reads no more of a partial tile than its width, so one hash more goes unnoticed.
        ("aics-tlog", "tile/entries/273.p/112", -1),
        ("aics-tlog", "tile/entries/273.p/112", 1),
    ],
)
def test_a_file_of_another_length_is_refused(
    tools: Tools, log: Published, verifier: str, name: str, added: int
):
    path = log.folder / name
    data = path.read_bytes()
    other = data + bytes(added) if added > 0 else data[:added]
    with replaced(path, other), pytest.raises(Refused):
        tools.ask(verifier, "tree", log.keys, log.head(LAST), log.folder)


@pytest.mark.parametrize("name", ["tile/0/000", "tile/2/000.p/1", "tile/entries/000"])
@pytest.mark.parametrize("verifier", VERIFIERS)
def test_a_file_that_is_missing_is_refused(tools: Tools, log: Published, verifier: str, name: str):
    path = log.folder / name
    aside = path.with_name(f"{path.name}.aside")
    path.rename(aside)
    try:
        with pytest.raises(Refused):
            tools.ask(verifier, "tree", log.keys, log.head(LAST), log.folder)
    finally:
        aside.rename(path)


@pytest.mark.parametrize("size", SIZES[1:])
def test_another_writer_makes_the_same_files_of_the_same_entries(tools: Tools, log: Published, size: int):
    tools.ask("aics-tlog", "rebuild", log.keys, log.head(size), log.folder)
