"""Asks aics-tlog whether a log that Lethe published holds; it runs where that is installed, without Lethe.

head KEYS NOTE            every Ed25519 key of KEYS has signed the checkpoint
tree KEYS NOTE FOLDER     every tile and bundle below FOLDER is of that tree
record KEYS PROOF         the leaf that a .tlog-proof carries is in the log
growth KEYS OLD NEW PROOF the newer checkpoint extends the older
rebuild KEYS NOTE FOLDER  its own writer makes the same files of the entries below FOLDER

It exits 0 if all holds, and 1 if not.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path

from aics_tlog import (
    Checkpoint,
    FileSystemTileReader,
    TileWriter,
    VKey,
    audit_tiles,
    parse_checkpoint,
    parse_note,
    parse_vkey,
    verify_checkpoint,
    verify_consistency,
    verify_leaf_inclusion,
)
from aics_tlog.tiles import entry_bundle_path, parse_entry_bundle

HEADER = "c2sp.org/tlog-proof@v1"
ED25519, COSIGNATURE = 0x01, 0x04


class Refused(Exception):
    """The package says that something does not hold."""


Keys = tuple[VKey, list[VKey]]


def read_keys(path: str) -> Keys:
    """Return the log's key and those of the witnesses; the package knows no ML-DSA."""
    found = [parse_vkey(line) for line in Path(path).read_text("utf-8").splitlines() if is_known(line)]
    (log,) = [key for key in found if key.key_type == ED25519]
    return log, [key for key in found if key.key_type == COSIGNATURE]


def is_known(vkey: str) -> bool:
    """Return whether the key is of a type that the package has."""
    return base64.b64decode(vkey.split("+", 2)[2])[0] in {ED25519, COSIGNATURE}


def head(keys: Keys, note: str) -> Checkpoint:
    """Return the checkpoint of a note that all have signed."""
    log, witnesses = keys
    parsed = parse_note(note)
    result = verify_checkpoint(parsed, log, witnesses, quorum=len(witnesses), expected_origin=log.name)
    if not result.ok:
        raise Refused(result.error)
    return parse_checkpoint(parsed.text)


def checkpoint(keys: Keys, note: str) -> None:
    """Read a checkpoint."""
    head(keys, Path(note).read_text("utf-8"))


def tree(keys: Keys, note: str, folder: str) -> None:
    """Walk every tile and bundle."""
    at = head(keys, Path(note).read_text("utf-8"))
    audit_tiles(FileSystemTileReader(folder), at.size, at.root)


def record(keys: Keys, path: str) -> None:
    """Follow a proof from its leaf to its checkpoint."""
    top, _, note = Path(path).read_text("utf-8").partition("\n\n")
    header, extra, index, *hashes = top.split("\n")
    if header != HEADER:
        raise Refused("not a proof")
    at = head(keys, note)
    leaf = base64.b64decode(extra.removeprefix("extra "), validate=True)
    path_up = [base64.b64decode(line, validate=True) for line in hashes]
    if not verify_leaf_inclusion(leaf, int(index.removeprefix("index ")), at.size, path_up, at.root):
        raise Refused("the proof does not lead to the root")


def growth(keys: Keys, old: str, new: str, path: str) -> None:
    """Follow a proof from one checkpoint to the other."""
    before, after = (head(keys, Path(note).read_text("utf-8")) for note in (old, new))
    proof = [base64.b64decode(line, validate=True) for line in Path(path).read_text("utf-8").split()]
    if not verify_consistency(before.size, after.size, before.root, after.root, proof):
        raise Refused("the proof does not lead to both roots")


def rebuild(keys: Keys, note: str, folder: str) -> None:
    """Compare every file of the tree, byte by byte, with that of the package's writer."""
    at = head(keys, Path(note).read_text("utf-8"))
    bundles = [(first // 256, min(256, at.size - first)) for first in range(0, at.size, 256)]
    paths = [entry_bundle_path(index, width if width < 256 else None) for index, width in bundles]
    entries = [entry for path in paths for entry in parse_entry_bundle((Path(folder) / path).read_bytes())]
    for name, data in TileWriter(entries).materialise().items():
        if (Path(folder) / name).read_bytes() != data:
            raise Refused(f"{name} differs")


COMMANDS = {"head": checkpoint, "tree": tree, "record": record, "growth": growth, "rebuild": rebuild}


def main(command: str, keys_path: str, *paths: str) -> None:
    """Do what is asked; only what the package is asked to judge can be refused."""
    keys = read_keys(keys_path)
    try:
        COMMANDS[command](keys, *paths)
    except (Refused, ValueError, FileNotFoundError) as error:
        # The package's own errors are ValueErrors, and FileNotFoundErrors where a tile is missing.
        sys.exit(f"refused: {error}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:  # noqa: BLE001 - a crash is no refusal
        print(f"failed: {error!r}", file=sys.stderr)
        sys.exit(2)
