"""What does not hold.

Each error carries a short machine-readable `code`; messages are made of our own
words, never of the data that failed.
"""

from __future__ import annotations


class AuditError(Exception):
    """Something that should be proven is not; `code` says what, in `[a-z0-9_]`."""

    def __init__(self, code: str, message: str = "") -> None:
        """Keep the code; the message continues it as a sentence."""
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code


class JsonInvalid(AuditError):
    """Bytes that are not one strict JSON value, or a value outside the restricted profile."""


class LeafInvalid(AuditError):
    """An event outside the closed schema, or a line that is not its canonical form."""


class OpeningInvalid(AuditError):
    """An opening that is not what the leaf committed to."""


class NoteInvalid(AuditError):
    """A note, or a verifier key, that is malformed or not signed by a known key."""


class ReceiptInvalid(AuditError):
    """A receipt of consent that is none, was changed, or is not of the event that it shows."""


class CheckpointInvalid(AuditError):
    """A note that is signed and is no checkpoint of its origin."""


class KeyRefused(AuditError):
    """A checkpoint signed by a key of the log that may not sign one of that size, or not by one that must."""


class QuorumNotMet(AuditError):
    """A checkpoint that fewer witnesses cosigned than the policy asks for."""


class WitnessInvalid(AuditError):
    """A message between log and witness that is none, or an answer that is not the witness's cosignature."""


class CheckpointInconsistent(AuditError):
    """A checkpoint that contradicts the entries it is said to be about."""


class ProofInvalid(AuditError):
    """A proof that does not lead to the root it claims."""


class TileInvalid(AuditError):
    """A tile, a bundle of entries or a path of them that tlog-tiles does not know, or that is damaged."""


class ExportInvalid(AuditError):
    """An export that is incomplete, altered, or contradicts itself."""


class TrustInvalid(AuditError):
    """A trust file, a `keys.txt` or a policy from which no trust can be taken."""
