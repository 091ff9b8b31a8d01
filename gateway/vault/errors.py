"""What the vault has to say when bytes are not what they were."""

from __future__ import annotations


class SealBroken(Exception):
    """Sealed bytes do not open: altered, cut, moved to another place, or another key.

    Which of these it was is not told: authenticated encryption cannot know, and
    an attacker should not.
    """


class BackupInvalid(Exception):
    """A backup cannot be used: `code` says why, and nothing of it was kept."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
