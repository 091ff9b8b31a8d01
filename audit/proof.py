"""Inclusion proofs as files (c2sp.org/tlog-proof); ours carry the leaf in `extra` (decision 0007)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from audit import b64, note
from audit.checkpoint import Checkpoint, Opener, open_checkpoint
from audit.errors import ProofInvalid
from audit.head import MAX_SIZE
from audit.note import Verifier
from audit.tree import HASH_BYTES, hash_leaf, verify_inclusion

HEADER = "c2sp.org/tlog-proof@v1"
MAX_HASHES = 63
MAX_CHARS = note.MAX_NOTE_CHARS + 128 * 1024
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class TlogProof:
    """A proof as read; nothing of it is verified, and `extra` never is signed."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: str
    extra: bytes | None


def write(*, index: int, hashes: Sequence[bytes], checkpoint: str, extra: bytes | None) -> str:
    """Return the text of a proof; `checkpoint` is the signed note, verbatim.

    Raises:
        ProofInvalid: What would be written is no proof.
    """
    if not 0 <= index <= MAX_SIZE or len(hashes) > MAX_HASHES:
        raise ProofInvalid("proof_values", "no tree has such a proof")
    if any(len(hashed) != HASH_BYTES for hashed in hashes):
        raise ProofInvalid("proof_hash")
    lines = [HEADER]
    if extra:
        lines.append(f"extra {b64.encode(extra)}")
    lines.append(f"index {index}")
    lines.extend(map(b64.encode, hashes))
    return "\n".join([*lines, "", checkpoint])


def parse(text: str) -> TlogProof:
    """Return what a proof says.

    Raises:
        ProofInvalid: Not a proof of that format, or beyond the caps.
    """
    if len(text) > MAX_CHARS:
        raise ProofInvalid("proof_too_large")
    head, gap, checkpoint = text.partition("\n\n")
    lines = head.split("\n")
    if not gap or lines.pop(0) != HEADER:
        raise ProofInvalid("proof_header", "not a tlog-proof of version 1")
    extra = _extra(lines.pop(0)) if lines and lines[0].startswith("extra ") else None
    index = _INDEX.fullmatch(lines.pop(0)) if lines else None
    if index is None:
        raise ProofInvalid("proof_index_line")
    if len(lines) > MAX_HASHES:
        raise ProofInvalid("proof_too_long")
    return TlogProof(int(index[1]), tuple(map(_hash, lines)), checkpoint, extra)


def verify(
    text: str, verifiers: Sequence[Verifier] | Opener, leaf: bytes | None
) -> tuple[TlogProof, Checkpoint]:
    """Return the proof and its checkpoint, if the leaf is in the log and those that are believed say so.

    Args:
        verifiers: Keys of the log, or what asks more of a checkpoint, such as `Trust`.
        leaf: The leaf's bytes; None means those that the proof carries in `extra`.

    Raises:
        ProofInvalid: Malformed, no leaf, or it does not lead to the root.
        NoteInvalid, CheckpointInvalid: The checkpoint is not one of a known log.
        KeyRefused, QuorumNotMet: The checkpoint has not what is asked of it.
    """
    found = parse(text)
    head = open_checkpoint(found.checkpoint, verifiers)
    check(found, head, leaf)
    return found, head


def check(found: TlogProof, head: Checkpoint, leaf: bytes | None) -> bytes:
    """Return the leaf, if the proof leads from it to the checkpoint's root.

    Raises:
        ProofInvalid: It does not, or there is no leaf.
    """
    line = found.extra if leaf is None else leaf
    if line is None:
        raise ProofInvalid("proof_leaf_missing", "the proof carries no leaf and none was given")
    verify_inclusion(
        index=found.index, size=head.size, leaf_hash=hash_leaf(line), proof=found.hashes, root=head.root
    )
    return line


def _extra(line: str) -> bytes:
    data = b64.decode(line.removeprefix("extra "))
    if not data:  # without data there is no line
        raise ProofInvalid("proof_extra")
    return data


def _hash(line: str) -> bytes:
    data = b64.decode(line)
    if data is None or len(data) != HASH_BYTES:
        raise ProofInvalid("proof_hash")
    return data
