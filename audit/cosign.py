"""Cosignatures of checkpoints by witnesses, Ed25519 and ML-DSA-44 (c2sp.org/tlog-cosignature)."""

from __future__ import annotations

from dataclasses import dataclass, field

from audit import head, note
from audit.errors import NoteInvalid
from audit.note import Algorithm, KeyType, Verifier

COSIGNING = frozenset({KeyType.COSIGNATURE_V1, KeyType.ML_DSA_44})
"""The signature types that cosign: they state a time, and cannot be taken for a log's plain signature."""


@dataclass(frozen=True, slots=True)
class Cosigner:
    """A named secret key of a witness; `seed` is its 32 secret bytes, for either algorithm.

    An Ed25519 key is of one cosigner alone: what it signs does not name the cosigner.
    """

    name: str
    seed: bytes = field(repr=False)
    algorithm: Algorithm = "ml-dsa-44"

    def __post_init__(self) -> None:
        note.check_secret(self.name, self.seed)

    @property
    def verifier(self) -> Verifier:
        """The public half."""
        return note.public_half(self.name, self.seed, self._type)

    @property
    def _type(self) -> KeyType:
        return KeyType.ML_DSA_44 if self.algorithm == "ml-dsa-44" else KeyType.COSIGNATURE_V1

    def vkey(self) -> str:
        """Return the verifier key text."""
        return self.verifier.vkey()

    def cosign(self, checkpoint_text: str, at_s: int) -> str:
        """Return the cosignature line over a checkpoint, without its line end.

        Whether it may be cosigned is for the caller to know: that the log has signed
        it, and that it is consistent with all that were cosigned before.

        Args:
            checkpoint_text: The signed note; its signatures are not looked at.
            at_s: POSIX time.

        Raises:
            NoteInvalid, CheckpointInvalid: Not a checkpoint, or a time that cannot be stated.
        """
        body, _ = note.parse(checkpoint_text)
        head.parse(body)
        return note.signature_line(self.name, self.seed, self._type, body, at_s)


def verify(text: str, verifier: Verifier) -> int:
    """Return the POSIX time at which this key cosigned a checkpoint, the latest of several.

    Raises:
        NoteInvalid: Not a note, not a cosigner's key, a false cosignature, or none by this key.
        CheckpointInvalid: Not a checkpoint.
    """
    if verifier.type not in COSIGNING:
        raise NoteInvalid("cosignature_key_type", "a key of this type does not cosign")
    body, signatures = note.parse(text)
    head.parse(body)
    note.open_note(text, [verifier])
    return max(note.signed_at(verifier, signature) for signature in signatures if verifier.made(signature))
