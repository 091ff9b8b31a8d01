"""The keys of a log and the tree sizes for which each is valid: `keys.txt`.

One key a line, then what limits it; empty lines, and lines that begin with `#`, are skipped:

    <vkey> [from=<size>] [until=<size>] [revoked=<size>]

    from      the smallest size of a checkpoint that the key signs; 0 where it is missing
    until     the largest one: the key was retired in a rotation
    revoked   from this size on nothing by this key is believed: it may be in wrong hands

A line without limits is a plain verifier key, so each list of vkeys is such a file.
Sizes and not times, since a size is what every checkpoint states and a tree only
grows; a time would be the word of whoever holds the key.

A rotation at size S: the checkpoint of size S is signed by the old and the new keys,
which then stand in the file with `until=S` and `from=S`.  A signature outside a key's
range refuses the whole checkpoint, as a false one does.  What a revoked key signed
below its size is believed still, for all that was published then to stay valid: whoever
cannot live with that asks for witnesses too, since no thief has their keys.

The cross-signed checkpoint shows that both keys know one tree.  It does not make the
new key trusted (anyone can add a signature): an auditor takes the new `keys.txt` from
where the first came from.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from audit.checkpoint import open_signed
from audit.errors import KeyRefused, TrustInvalid
from audit.head import MAX_SIZE, Checkpoint
from audit.note import Verifier
from audit.quorum import MAX_CHARS, check_keys, read_key, words_of

_LIMIT = re.compile(r"(from|until|revoked)=(0|[1-9][0-9]{0,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class LogKey:
    """A key, and the sizes of checkpoints that it signs: from `first` to `last`, below `revoked`.

    Raises:
        TrustInvalid: It would sign none at all because `last` is below `first`.
    """

    verifier: Verifier
    first: int = 0
    last: int | None = None
    revoked: int | None = None

    def __post_init__(self) -> None:
        if self.last is not None and self.last < self.first:
            raise TrustInvalid("trust_key_range", "a key ends before it begins")

    def check(self, size: int) -> None:
        """Return if the key may sign a checkpoint of this size.

        Raises:
            KeyRefused: It was revoked, or retired, or had not begun.
        """
        if self.revoked is not None and size >= self.revoked:
            raise KeyRefused("key_revoked", "signed by a key that is revoked at this size")
        if self.last is not None and size > self.last:
            raise KeyRefused("key_retired", "signed by a key that was retired before this size")
        if size < self.first:
            raise KeyRefused("key_not_begun", "signed by a key that begins after this size")

    def signs(self, size: int) -> bool:
        """Return whether the key may sign a checkpoint of this size."""
        try:
            self.check(size)
        except KeyRefused:
            return False
        return True

    def check_signer(self, size: int) -> None:
        """Return if the key may sign a file that rests on a checkpoint of this size.

        A key that began later may well sign what rests on an old checkpoint, unless it was ever
        revoked: its thief could as well.  One that ended before may not.

        Raises:
            KeyRefused: It may not.
        """
        (self if self.revoked is not None else replace(self, first=0)).check(size)

    def line(self) -> str:
        """Return its line in `keys.txt`, without the line end."""
        limits = (
            f"from={self.first}" if self.first else "",
            "" if self.last is None else f"until={self.last}",
            "" if self.revoked is None else f"revoked={self.revoked}",
        )
        return " ".join([self.verifier.vkey(), *filter(None, limits)])


@dataclass(frozen=True, slots=True)
class KeyBook:
    """All keys that a log, or several, ever signed with."""

    keys: tuple[LogKey, ...]

    @classmethod
    def parse(cls, text: str) -> KeyBook:
        """Return the keys of a `keys.txt`, or of a plain list of verifier keys.

        Raises:
            TrustInvalid: Malformed, no key at all, a key twice, or beyond the caps.
        """
        if len(text) > MAX_CHARS:
            raise TrustInvalid("trust_too_large")
        lines = words_of(text.replace("\r\n", "\n"))
        book = cls(tuple(_key(words) for words in lines))
        if not book.keys:
            raise TrustInvalid("trust_empty", "there is no key in it")
        check_keys(book.verifiers)
        return book

    def check_signer(self, signer: Verifier, size: int) -> None:
        """Return if the keys by that name may sign a file that rests on a checkpoint of this size.

        Raises:
            KeyRefused: One may not.
        """
        for key in self.keys:
            if key.verifier == signer:
                key.check_signer(size)

    @classmethod
    def of(cls, verifiers: Iterable[Verifier]) -> KeyBook:
        """Return a book of keys without limits."""
        return cls(tuple(map(LogKey, verifiers)))

    @property
    def verifiers(self) -> tuple[Verifier, ...]:
        """All keys, retired and revoked ones too."""
        return tuple(key.verifier for key in self.keys)

    @property
    def standing(self) -> tuple[Verifier, ...]:
        """The keys that sign today: neither retired nor revoked."""
        return tuple(key.verifier for key in self.keys if key.last is None and key.revoked is None)

    def verifiers_at(self, size: int) -> tuple[Verifier, ...]:
        """Return the keys that may sign a checkpoint of this size."""
        return tuple(key.verifier for key in self.keys if key.signs(size))

    def text(self) -> str:
        """Return the book as `keys.txt`."""
        return "".join(f"{key.line()}\n" for key in self.keys)

    def check(self, head: Checkpoint, signed: Collection[Verifier]) -> None:
        """Return if each of the book's keys among `signed` may sign that checkpoint.

        Raises:
            KeyRefused: One may not.
        """
        for key in self.keys:
            if key.verifier in signed:
                key.check(head.size)

    def open(self, text: str) -> Checkpoint:
        """Return the checkpoint of a note that a key of the book signed, valid at its size.

        Raises:
            NoteInvalid: Malformed, a false signature, or no known key.
            CheckpointInvalid: Not a checkpoint, or signed only by keys of another name.
            KeyRefused: A known key has signed that may not sign this size.
        """
        head, signed = open_signed(text, self.verifiers)
        self.check(head, signed)
        return head

    def rotated(self, new: Sequence[Verifier], size: int) -> KeyBook:
        """Return the book after a rotation at `size`, whose checkpoint both old and new keys sign.

        All keys of the same names that sign that size and stand in the book already end there.

        Raises:
            TrustInvalid: A new key stands in the book already, or nothing is handed over.
        """
        names = {verifier.name for verifier in new}
        ending = [key for key in self.keys if key.verifier.name in names and key.signs(size)]
        if not new or not ending:
            raise TrustInvalid("trust_rotation", "a rotation has old and new keys of one name")
        check_keys([*self.verifiers, *new])
        kept = (replace(key, last=size) if key in ending else key for key in self.keys)
        return KeyBook((*kept, *(LogKey(verifier, size) for verifier in new)))

    def revoked(self, verifier: Verifier, size: int) -> KeyBook:
        """Return the book in which a key is not believed from `size` on.

        Raises:
            TrustInvalid: The key does not stand in the book.
        """
        if verifier not in self.verifiers:
            raise TrustInvalid("trust_key_unknown", "the key to revoke does not stand in the book")
        return KeyBook(
            tuple(replace(key, revoked=size) if key.verifier == verifier else key for key in self.keys)
        )

    def check_handover(self, text: str) -> Checkpoint:
        """Return the checkpoint of a rotation, if all keys that end there and begin there signed it.

        Raises:
            NoteInvalid, CheckpointInvalid, KeyRefused: As `open`.
            KeyRefused: No rotation is at this size, or one of its keys has not signed.
        """
        head, signed = open_signed(text, self.verifiers)
        self.check(head, signed)
        mine = [key for key in self.keys if key.verifier.name == head.origin]
        old = [key.verifier for key in mine if key.last == head.size]
        new = [key.verifier for key in mine if key.first == head.size]
        if not old or not new or any(verifier not in signed for verifier in (*old, *new)):
            raise KeyRefused("key_handover", "a rotation's checkpoint has signatures of old and new keys")
        return head


def _key(words: list[str]) -> LogKey:
    verifier = read_key(words[0])
    limits: dict[str, int] = {}
    for word in words[1:]:
        match = _LIMIT.fullmatch(word)
        if match is None or match[1] in limits or int(match[2]) > MAX_SIZE:
            raise TrustInvalid("trust_malformed", "a line is a verifier key and its limits, each once")
        limits[match[1]] = int(match[2])
    return LogKey(verifier, limits.get("from", 0), limits.get("until"), limits.get("revoked"))
