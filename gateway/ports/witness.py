"""The door to a witness: a third party that cosigns a log's checkpoints (c2sp.org/tlog-witness)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Witness(Protocol):
    """Somebody else's key that vouches for having seen one growing log and no other.

    A call may be repeated.  One whose reply was lost may have moved the witness on
    all the same; the next call then raises `WitnessConflict` with the size that it
    knows, and asking from that size is right.
    """

    name: str

    async def add_checkpoint(self, old: int, proof: Sequence[bytes], checkpoint: str) -> tuple[str, ...]:
        """Return the witness's cosignature lines over `checkpoint`, verified, without line ends.

        Args:
            old: The size that the witness cosigned last, as far as the caller knows; else 0.
            proof: The consistency proof from `old` to the checkpoint's size, at most 63 hashes.
            checkpoint: The signed note.

        Raises:
            WitnessConflict: The witness knows another size than `old`, or another root of that size.
            WitnessUnavailable: No answer in time, or one that says to ask later.
            WitnessRefused: It will not cosign this, or what it answered is not its cosignature.
        """


class WitnessConflict(Exception):
    """The witness knows the log at `size`, and so not as the caller asked.

    A size above the caller's newest checkpoint means that this log fell back or
    forked; so does a size equal to the one that was asked about.
    """

    code = "witness_conflict"

    def __init__(self, size: int) -> None:
        """Keep the size of the newest checkpoint that the witness cosigned."""
        super().__init__(f"the witness knows the log at size {size}")
        self.size = size


class WitnessUnavailable(Exception):
    """The witness cannot be reached, takes too long, or asks to be left alone for now.

    `code` is `witness_unavailable` or narrower: `witness_timeout`, `witness_busy`.
    """

    def __init__(self, message: str = "", *, code: str = "witness_unavailable") -> None:
        """Say what happened."""
        super().__init__(message or code)
        self.code = code


class WitnessRefused(Exception):
    """The witness does not cosign, and asking again will not help.

    `code` is one of
        witness_bad_request (400), witness_key_unknown (403), witness_origin_unknown (404),
        witness_proof_refused (422), witness_status (any other answer),
        witness_lied (an answer that is no cosignature of its over this checkpoint),
        witness_request_too_large (not sent: beyond what a witness reads).
    """

    def __init__(self, code: str, message: str = "") -> None:
        """Keep the code; the message continues it as a sentence."""
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
