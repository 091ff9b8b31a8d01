"""Checkpoints: the log's head as a signed note (c2sp.org/tlog-checkpoint)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from audit import b64, note
from audit.errors import CheckpointInvalid
from audit.note import Signer, Verifier
from audit.tree import EMPTY_ROOT, HASH_BYTES

MAX_SIZE = (1 << 63) - 1
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The log `origin` had `size` leaves, and their root is `root`."""

    origin: str
    size: int
    root: bytes


def sign(origin: str, size: int, root: bytes, signer: Signer) -> str:
    """Return the signed note of a checkpoint.

    Raises:
        CheckpointInvalid: The key is not named after the origin, or the values are none of a tree.
    """
    if signer.name != origin:
        raise CheckpointInvalid("checkpoint_key_name")
    body = f"{origin}\n{size}\n{b64.encode(root)}\n"
    if parse(body) != Checkpoint(origin, size, root):
        raise CheckpointInvalid("checkpoint_values")
    return signer.sign(body)


def parse(body: str) -> Checkpoint:
    """Return the checkpoint that a note's body states.

    Extension lines are refused: nothing of ours writes them and no monitor can audit them.

    Raises:
        CheckpointInvalid: Not exactly origin, size and root.
    """
    lines = body.split("\n")
    if len(lines) != 4 or lines[3] or not lines[0]:
        raise CheckpointInvalid("checkpoint_lines", "a checkpoint is origin, size and root")
    root = b64.decode(lines[2])
    if root is None or len(root) != HASH_BYTES:
        raise CheckpointInvalid("checkpoint_root", "the root is not 32 bytes in base64")
    if not _SIZE.fullmatch(lines[1]) or int(lines[1]) > MAX_SIZE:
        raise CheckpointInvalid("checkpoint_size", "the size is not a decimal number")
    found = Checkpoint(lines[0], int(lines[1]), root)
    if found.size == 0 and root != EMPTY_ROOT:
        raise CheckpointInvalid("checkpoint_root", "the empty tree has another root")
    return found


def open_checkpoint(text: str, verifiers: Sequence[Verifier]) -> Checkpoint:
    """Return the checkpoint of a note that one of `verifiers`, named after its origin, has signed.

    Raises:
        NoteInvalid: Malformed, a false signature, or no known key.
        CheckpointInvalid: Not a checkpoint, or signed only by keys of another name.
    """
    body, signed = note.open_note(text, verifiers)
    found = parse(body)
    if not any(verifier.name == found.origin for verifier in signed):
        raise CheckpointInvalid("checkpoint_key_name", "no key of the origin's name has signed")
    return found
