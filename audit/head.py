"""A log's head as text, and the bytes that are signed for it (c2sp.org/tlog-checkpoint, tlog-cosignature)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from audit import b64
from audit.errors import CheckpointInvalid
from audit.tree import EMPTY_ROOT, HASH_BYTES

MAX_SIZE = (1 << 63) - 1
MAX_TIME_S = (1 << 63) - 1
MAX_NAME_BYTES = 255
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_SUBTREE = b"subtree/v1\n\0"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The log `origin` had `size` leaves, and their root is `root`."""

    origin: str
    size: int
    root: bytes

    def body(self) -> str:
        """Return the text that is signed for it."""
        return f"{self.origin}\n{self.size}\n{b64.encode(self.root)}\n"


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


def cosigned_text(body: str, at_s: int) -> bytes:
    """Return what an Ed25519 cosignature signs: the whole body under a header and a time.

    Args:
        at_s: POSIX time of signing.
    """
    return f"cosignature/v1\ntime {at_s}\n{body}".encode()


def cosigned_head(cosigner: str, body: str, at_s: int) -> bytes:
    """Return what an ML-DSA-44 signature of `cosigner` signs for a checkpoint.

    Args:
        body: Of it only the first three lines are signed, as the specification has it.
        at_s: POSIX time of signing; 0 says nothing about the tree being the largest one seen.

    Raises:
        CheckpointInvalid: The body is no checkpoint, or a name is longer than 255 bytes.
    """
    found = parse("\n".join([*body.split("\n")[:3], ""]))
    return cosigned_subtree(cosigner, at_s, found.origin, 0, found.size, found.root)


def cosigned_subtree(cosigner: str, at_s: int, origin: str, start: int, end: int, root: bytes) -> bytes:
    """Return the `cosigned_message` over the leaves from `start` to before `end`.

    Raises:
        CheckpointInvalid: A name is empty or longer than 255 bytes.

    Rule:
        c2sp.org/tlog-cosignature, ML-DSA-44 signed message: where `start` is not zero, `at_s` is.
    """
    return b"".join(
        (
            _SUBTREE,
            _name(cosigner),
            at_s.to_bytes(8, "big"),
            _name(origin),
            start.to_bytes(8, "big"),
            end.to_bytes(8, "big"),
            root,
        )
    )


def _name(name: str) -> bytes:
    data = name.encode()
    if not 0 < len(data) <= MAX_NAME_BYTES:
        raise CheckpointInvalid("checkpoint_name_length", "a name that is signed has 1 to 255 bytes")
    return bytes([len(data)]) + data
