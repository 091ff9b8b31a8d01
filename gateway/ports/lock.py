"""The door to the checkpoint lock: the newest note of each log, kept outside the main database."""

from __future__ import annotations

from typing import Protocol


class CheckpointLock(Protocol):
    """The newest signed note of each log, by origin.

    It lies where a restored backup of the database cannot reach it, so that a log
    that fell back is noticed before it signs a second tree of a size it has signed.
    Notes are kept as text, byte for byte; the lock looks at nothing but their
    first line, the origin, so the caller verifies what it loads.

    Where the medium fails, or is not the one that was opened, every method raises
    `AuditUnavailable`; its `detail` says how.  Such a `swap` may or may not have
    happened: the caller stops, and asks again with the same values once it has
    started anew.

    Rule:
        R2: the lock is swapped before a checkpoint is published.
        R12: a start with less than the lock holds is refused.
    """

    async def load(self, origin: str) -> str | None:
        """Return the newest note of the log, or None if none was ever swapped in."""

    async def swap(self, origin: str, old: str | None, new: str) -> bool:
        """Replace the note `old` (None: there is none yet) by `new`, whole or not at all.

        Returns:
            True once `new` is durable, also when it stood there already (the reply
            of an earlier call was lost); False if any other note stands, which is
            left alone.

        Raises:
            ValueError: `new` is not a note of `origin`, or too large.
        """
