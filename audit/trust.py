"""Whom an auditor believes: a list of verifier keys, a `keys.txt`, or a C2SP tlog-policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from audit.checkpoint import Checkpoint, open_signed
from audit.errors import TrustInvalid
from audit.keys import KeyBook
from audit.note import Verifier
from audit.quorum import KEYWORDS, MAX_CHARS, Policy, words_of


@dataclass(frozen=True)
class Trust(Sequence[Verifier]):
    """The log's keys, the sizes that each may sign, and the witnesses that are asked for.

    As a sequence it is the log's keys, without their limits.  To open a checkpoint
    use `open`; `checkpoint.open_checkpoint` and what builds on it do so by themselves.

    Attributes:
        book: Keys of the log, with validity.
        policy: Its witnesses and quorum count; its logs are in `book`.
    """

    book: KeyBook
    policy: Policy | None = None

    @property
    def verifiers(self) -> tuple[Verifier, ...]:
        """The log's keys, retired and revoked ones too; those of witnesses are not among them."""
        return self.book.verifiers

    def verifiers_at(self, size: int) -> tuple[Verifier, ...]:
        """Return the log's keys that may sign at this size, a manifest say."""
        return self.book.verifiers_at(size)

    def open(self, text: str) -> Checkpoint:
        """Return the checkpoint of a note that has all that is asked for.

        Raises:
            NoteInvalid: Malformed, a false signature of any known key, or no known key.
            CheckpointInvalid: Not a checkpoint, or no log's key named after its origin has signed.
            KeyRefused: A key of the log has signed that may not sign this size.
            QuorumNotMet: Too few witnesses have cosigned.
        """
        witnesses = self.policy.witnesses if self.policy else ()
        head, signed = open_signed(text, self.verifiers, [witness.verifier for witness in witnesses])
        self.book.check(head, signed)
        if self.policy:
            self.policy.check_quorum(signed)
        return head

    def __len__(self) -> int:
        """Return the number of the log's keys."""
        return len(self.verifiers)

    @overload
    def __getitem__(self, place: int) -> Verifier: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Verifier]: ...
    def __getitem__(self, place: int | slice) -> Verifier | Sequence[Verifier]:
        """Return a key of the log, or several."""
        return self.verifiers[place]


def read_trust(text: str) -> Trust:
    """Return what a trust file says.

    It is either one verifier key a line, perhaps with the sizes that it may sign
    (`audit.keys`), or a C2SP tlog-policy with at least one log (`audit.quorum`).

    Raises:
        TrustInvalid: Malformed, no key of a log at all, a key twice, or beyond the caps.
    """
    if len(text) > MAX_CHARS:
        raise TrustInvalid("trust_too_large")
    if not any(words[0] in KEYWORDS for words in words_of(text)):
        return Trust(KeyBook.parse(text))
    policy = Policy.parse(text)
    if not policy.logs:
        raise TrustInvalid("trust_empty", "there is no key of a log in it")
    return Trust(KeyBook.of(log.verifier for log in policy.logs), policy)
