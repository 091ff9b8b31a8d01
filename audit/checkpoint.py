"""Checkpoints: the log's head as a signed note (c2sp.org/tlog-checkpoint)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from audit import note
from audit.errors import CheckpointInvalid
from audit.head import MAX_SIZE, Checkpoint, parse
from audit.note import Signer, Verifier

__all__ = ["MAX_SIZE", "Checkpoint", "Opener", "open_checkpoint", "open_signed", "parse", "sign"]


@runtime_checkable
class Opener(Protocol):
    """Something that asks more of a checkpoint than one signature: validity of keys, a quorum."""

    def open(self, text: str) -> Checkpoint:
        """Return the checkpoint of a note, if it has all that is asked.

        Raises:
            AuditError: It has not.
        """


def sign(origin: str, size: int, root: bytes, signers: Signer | Sequence[Signer], at_s: int = 0) -> str:
    """Return the checkpoint as a note with one signature of each signer, in their order.

    Args:
        signers: Keys of the log: of both algorithms, and at a rotation the old and the new ones.
        at_s: POSIX time that ML-DSA-44 signatures carry; 0 makes no statement about the tree
            being the newest then.

    Raises:
        CheckpointInvalid: No key, one that is not named after the origin, or values of no tree.
    """
    keys = (signers,) if isinstance(signers, Signer) else tuple(signers)
    if not keys or any(key.name != origin for key in keys):
        raise CheckpointInvalid("checkpoint_key_name")
    body = Checkpoint(origin, size, root).body()
    if parse(body) != Checkpoint(origin, size, root):
        raise CheckpointInvalid("checkpoint_values")
    return note.assemble(body, [key.line(body, at_s) for key in keys])


def open_checkpoint(text: str, verifiers: Sequence[Verifier] | Opener) -> Checkpoint:
    """Return the checkpoint of a note that one of `verifiers`, named after its origin, has signed.

    What opens checkpoints by itself, such as `Trust`, is asked to: no caller can forget its rules.

    Raises:
        NoteInvalid: Malformed, a false signature, or no known key.
        CheckpointInvalid: Not a checkpoint, or signed only by keys of another name.
        KeyRefused, QuorumNotMet: By the rules of an opener.
    """
    if isinstance(verifiers, Opener):
        return verifiers.open(text)
    return open_signed(text, verifiers)[0]


def open_signed(
    text: str, logs: Sequence[Verifier], others: Sequence[Verifier] = ()
) -> tuple[Checkpoint, list[Verifier]]:
    """Return the checkpoint of a note that a key of `logs` has signed, and all known keys that have.

    Args:
        others: Keys that are known and do not vouch for the log, such as those of witnesses.

    Raises:
        NoteInvalid: Malformed, a false signature, or no known key.
        CheckpointInvalid: Not a checkpoint, or no key of `logs` named after its origin has signed.
    """
    body, signed = note.open_note(text, [*logs, *others])
    found = parse(body)
    if not any(verifier.name == found.origin and verifier in logs for verifier in signed):
        raise CheckpointInvalid("checkpoint_key_name", "no key of the origin's name has signed")
    return found, signed
