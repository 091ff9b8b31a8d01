"""A log as Lethe publishes it: checkpoints, tiles, bundles and proofs, on disk."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from audit import b64, checkpoint, leaf, note, proof, tiles, tree
from audit.cosign import Cosigner
from audit.note import Signer

ORIGIN = "log.example/tenant-1"
SIZES = (0, 1, 2, 255, 256, 257, 511, 65_279, 65_280, 65_535, 65_536, 65_537, 65_792, 69_999, 70_000)
"""Where a checkpoint is published: on both sides of each edge of a tile of level 0, 1 and 2."""
LAST = SIZES[-1]
AT_S = 1_795_000_000


def _seed(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


LOG = (Signer(ORIGIN, _seed("log")), Signer(ORIGIN, _seed("log, later"), "ml-dsa-44"))
"""The log's keys, which sign each checkpoint in this order."""
WITNESSES = (
    Cosigner("witness.example/w2", _seed("w2"), "ed25519"),
    Cosigner("witness.example/w3", _seed("w3"), "ml-dsa-44"),
)


@dataclass(frozen=True)
class Published:
    """A published log; `base/log` is what a reader over HTTP would see."""

    base: Path
    lines: Sequence[bytes]
    read: tree.NodeReader = field(repr=False)

    @property
    def folder(self) -> Path:
        """The log's prefix: `checkpoint` and `tile/`."""
        return self.base / "log"

    @property
    def keys(self) -> Path:
        """The keys of the log, a verifier key a line."""
        return self.base / "keys"

    @property
    def all_keys(self) -> Path:
        """The keys of the log and of its witnesses."""
        return self.base / "all-keys"

    def head(self, size: int) -> Path:
        """The checkpoint of that size."""
        return self.base / "heads" / str(size)

    def cosigned(self, size: int) -> Path:
        """The checkpoint of that size with the cosignatures of the witnesses, in their order."""
        return self.base / "cosigned" / str(size)

    def write_proof(self, index: int, size: int, to: Path) -> Path:
        """Write the `.tlog-proof` of a leaf, which carries it, and return where."""
        text = proof.write(
            index=index,
            hashes=tree.inclusion_proof(index, size, self.read),
            checkpoint=self.head(size).read_text("utf-8"),
            extra=self.lines[index],
        )
        to.write_text(text, "utf-8")
        return to

    def growth(self, first: int, second: int) -> list[str]:
        """The hashes of a consistency proof as base64, as in add-checkpoint."""
        return [b64.encode(hashed) for hashed in tree.consistency_proof(first, second, self.read)]

    def write_growth(self, first: int, second: int, to: Path) -> Path:
        """Write the hashes of a consistency proof, a line each, and return where."""
        to.write_text("".join(f"{line}\n" for line in self.growth(first, second)), "ascii")
        return to

    def forked(self, size: int) -> str:
        """A checkpoint of that size and of another root, signed by the log."""
        return _sign(size, _seed("fork"))


def publish(base: Path) -> Published:
    """Write a log of 70,000 leaves that has grown through all of `SIZES`."""
    (base / "keys").write_text("".join(f"{key.vkey()}\n" for key in LOG), "utf-8")
    (base / "all-keys").write_text("".join(f"{key.vkey()}\n" for key in (*LOG, *WITNESSES)), "utf-8")
    lines = _leaves(LAST)
    grown: dict[tuple[int, int], bytes] = {}

    def read_tile(level: int, index: int) -> bytes:
        return grown.get((level, index), b"")

    size = 0
    for target in SIZES:
        added = tiles.grow(size, [tree.hash_leaf(line) for line in lines[size:target]], read_tile)
        grown |= added
        for (level, index), content in added.items():
            _write(base / "log" / tiles.tile_path(level, index, len(content) // tree.HASH_BYTES), content)
            if level == 0:
                entries = lines[index * tiles.WIDTH : min(target, (index + 1) * tiles.WIDTH)]
                _write(base / "log" / tiles.entries_path(index, len(entries)), tiles.bundle(entries))
        size = target
        root = tree.root_of(size, tiles.reader(read_tile))
        head = _sign(size, root)
        _write(base / "heads" / str(size), head.encode())
        lines_of_witnesses = [witness.cosign(head, AT_S) for witness in WITNESSES]
        _write(base / "cosigned" / str(size), note.add_signatures(head, lines_of_witnesses).encode())
    _write(base / "log/checkpoint", (base / "heads" / str(size)).read_bytes())
    return Published(base, lines, tiles.reader(read_tile))


def _sign(size: int, root: bytes) -> str:
    return checkpoint.sign(ORIGIN, size, root, LOG, AT_S)


def _leaves(count: int) -> list[bytes]:
    """Return leaves that are the same in every run."""
    rng = random.Random(70_000)
    return [
        leaf.encode(
            leaf.new_event(
                "object.destroyed",
                at_ms=AT_S * 1000 + index,
                actor="sys:lethe",
                random=rng.randbytes,
                obj=rng.randbytes(16).hex(),
                cat="original",
                why="expired",
            )
        )
        for index in range(count)
    ]


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
